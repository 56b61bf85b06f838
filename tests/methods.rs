//! Every method's whole step on the CUDA backend, captured and replayed, held to the CPU in f64: an
//! epoch of training on a small folder of images.

mod common;
#[path = "train/files.rs"]
#[allow(dead_code)] // the other data sets
mod files;

use common::findings::Findings;
use common::machines::{Machine, cards, simulators};
use common::runs::images;
use common::steps::relative_error;
use metatape::Result;
use metatape::backend::cpu::Cpu;
use metatape::backend::cuda::Precision;
use metatape::meta::Weights;
use metatape::program::{Backend, Session};
use metatape::tape::Kind;
use metatape::train::{Config, Learner, Method, Prepared};

/// All floating-point states after the method's passes: parameters, momenta, V.
fn trained(method: Method, config: &Config, backend: Box<dyn Backend>) -> Result<Vec<(String, Vec<f64>)>> {
    let config = Config { method, precision: backend.precision().parse()?, ..config.clone() };
    let data = Prepared::new(config)?;
    let mut learner = Learner::new(method, &data, Session::new(backend))?;
    for _ in 0..method.stages(&data.config.set) * data.config.epochs {
        learner.pass(&data, &mut |_, _| false)?;
    }
    let session = learner.session();
    let floats = session.states().iter().filter(|s| s.kind == Kind::Float);
    floats.map(|s| Ok((s.name.clone(), session.read_state(&s.name)?))).collect()
}

fn hold(machines: fn(Precision) -> Vec<Machine>) {
    let folder = tempfile::tempdir().unwrap();
    let small = Config {
        // Of shares of one sum, the gradient in V's last bias all but cancels, and Adam makes a
        // step of what is left.
        weights: Weights::Mean,
        // Three steps: one by one, captured, replayed.
        batch: 10,
        ..images(files::folder(folder.path(), 4, false))
    };
    let mut findings = Findings::default();
    for method in Method::all().chain([Method::Oracle]) {
        let want = trained(method, &small, Box::new(Cpu::<f64>::new(2).unwrap())).unwrap();
        let machine = machines(Precision::F32).remove(0);
        let got = trained(method, &small, machine.backend);
        let Some(got) = findings.take(got, &format!("{method} on {}", machine.name)) else { continue };
        assert_eq!(got.len(), want.len(), "{method}");
        for ((name, got), (_, want)) in got.iter().zip(&want) {
            // Of what has hardly moved from zero, V's first steps among it, nothing but its
            // smallness is known.
            if want.iter().all(|v| v.abs() < 1e-6) {
                findings.hold(got.iter().all(|v| v.abs() < 2e-6), || format!("{method}: {name} has moved"));
                continue;
            }
            findings.error(relative_error(got, want), 1e-4, &format!("{method} on {}: {name}", machine.name));
        }
    }
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator() {
    hold(simulators);
}

#[test]
#[ignore = "needs an NVIDIA GPU; run with --ignored card"]
fn card() {
    hold(cards);
}
