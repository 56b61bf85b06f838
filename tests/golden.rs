//! Layer 4: three full meta steps against PyTorch's numbers in f64 (`golden/README.md` says how
//! they were made).

#![allow(clippy::print_stdout)]

use std::path::Path;

use metatape::backend::cpu::Cpu;
use metatape::meta::{Batch, MetaStep, Optimiser, Preset, Route, Sgd, StepConfig, VirtualStep, Weights};
use metatape::nn::{LeNet, Mlp, ResNet, SharedModel, Summary, WeightNet, WeightNetInit};
use metatape::program::{Options, Session, Values};
use metatape::tape::{Shape, Tape};
use safetensors::SafeTensors;

/// Largest difference that is tolerated, relative to the largest entry of the tensor (or 1e-6 of
/// what is compared with it, for tensors that vanish but for rounding). Both sides compute in f64.
const TOLERANCE: f64 = 1e-9;

struct Golden<'a> {
    file: SafeTensors<'a>,
    case: &'a str,
    worst: f64,
}

impl Golden<'_> {
    fn floats(&self, name: &str) -> Vec<f64> {
        let view = self.file.tensor(name).unwrap_or_else(|e| panic!("{}: {name}: {e}", self.case));
        view.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
    }

    fn labels(&self, name: &str) -> Vec<i32> {
        let view = self.file.tensor(name).unwrap();
        view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as i32).collect()
    }

    fn compare(&mut self, name: &str, ours: &[f64]) {
        let theirs = self.floats(name);
        assert_eq!(ours.len(), theirs.len(), "{}: {name}: length", self.case);
        let largest = theirs.iter().fold(1e-6, |m: f64, v| m.max(v.abs()));
        for (i, (a, b)) in ours.iter().zip(&theirs).enumerate() {
            let error = (a - b).abs() / largest;
            assert!(error < TOLERANCE, "{}: {name}[{i}] is {a}, PyTorch has {b}", self.case);
            self.worst = self.worst.max(error);
        }
    }
}

/// A case's network, and the images that it is given.
fn network(case: &str) -> (SharedModel, Shape) {
    let classes = 4;
    match case.split('-').next() {
        Some("mlp") => (Box::new(Mlp { hidden: 7, classes }), [12, 1, 1].into()),
        Some("lenet") => (Box::new(LeNet { channels: [3, 4], hidden: 6, classes }), [8, 8, 1].into()),
        _ => (Box::new(ResNet { blocks: 1, width: 4, classes }), [8, 8, 3].into()),
    }
}

fn config(case: &str, route: Route) -> (StepConfig, f64) {
    let normalised = case.contains("normalised") || (case.contains("undetached") && !case.contains("mean"));
    let nesterov = Sgd { momentum: 0.9, nesterov: true, weight_decay: 5e-4, clip: None };
    let config = StepConfig {
        weights: if normalised { Weights::Normalised } else { Weights::Mean },
        undetached: case.contains("undetached"),
        virtual_step: if case.contains("momentum") { VirtualStep::Momentum } else { VirtualStep::Plain },
        route,
        classifier: if normalised { nesterov } else { StepConfig::default().classifier },
        weight_net: if normalised { Optimiser::Sgd(nesterov) } else { Preset::Adam.optimiser().0 },
        ..StepConfig::default()
    };
    (config, if normalised { 1e-2 } else { 1e-3 })
}

fn check(case: &str, route: Route) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{case}.safetensors"));
    let bytes = std::fs::read(&path).unwrap();
    let mut golden = Golden { file: SafeTensors::deserialize(&bytes).unwrap(), case, worst: 0.0 };
    let (net, image) = network(case);
    let summary = Summary::of(net.as_ref(), &image).unwrap();
    let weight_net = WeightNet { hidden: 5, init: WeightNetInit::Faithful, slope: 1.0, groups: Vec::new() };
    let (config, lr_theta) = config(case, route);
    let mut tape = Tape::new();
    let (net, data) = (net.as_ref(), &Batch::Given(image));
    MetaStep { net, weight_net: &weight_net, config: &config, data, batch: [6, 5] }
        .record(&mut tape, true)
        .unwrap();
    let mut session = Session::new(Box::new(Cpu::<f64>::new(2).unwrap()));
    let program = session.compile(&tape, Options::default()).unwrap();
    for state in session.states().to_vec() {
        if ["w.", "theta.fc", "stats."].iter().any(|p| state.name.starts_with(p)) {
            let values = golden.floats(&format!("init.{}", state.name));
            session.write_state(&state.name, Values::Float(&values)).unwrap();
        }
    }
    for k in 0..3 {
        for name in ["x", "x_meta", "lr"] {
            session.feed(&program, name, Values::Float(&golden.floats(&format!("{k}/{name}")))).unwrap();
        }
        for name in ["y", "y_meta"] {
            session.feed(&program, name, Values::Int(&golden.labels(&format!("{k}/{name}")))).unwrap();
        }
        session.feed(&program, "lr.theta", Values::Float(&[lr_theta])).unwrap();
        session.run(&program).unwrap();
        let mut compared = 0;
        for output in program.outputs() {
            let name = format!("{k}/{}", output.name);
            if golden.file.tensor(&name).is_ok() {
                golden.compare(&name, &session.fetch(&program, &output.name).unwrap());
                compared += 1;
            }
        }
        // loss, weight, meta_loss; virtual, meta_grad, w_next of each parameter; hypergrad,
        // theta_next of θ's four.
        assert_eq!(compared, 3 + 3 * summary.params.len() + 8, "{case}: tensors compared");
        for (layer, _) in &summary.norms {
            for part in ["mean", "var"] {
                let ours = session.read_state(&format!("stats.{layer}.{part}")).unwrap();
                golden.compare(&format!("{k}/stats_next.{layer}.{part}"), &ours);
            }
        }
    }
    println!("{case} {route}: largest relative difference {:.1e}", golden.worst);
}

fn check_all(network: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(case) = name.strip_suffix(".safetensors").filter(|c| c.starts_with(network)) {
            check(case, Route::Jvp);
            check(case, Route::Reverse);
            cases += 1;
        }
    }
    assert!(cases >= 3, "{network}: mean, normalised and undetached weights");
}

#[test]
fn mlp_agrees_with_pytorch() {
    check_all("mlp");
}

#[test]
fn lenet_agrees_with_pytorch() {
    check_all("lenet");
}

#[test]
fn resnet_agrees_with_pytorch() {
    check_all("resnet");
}
