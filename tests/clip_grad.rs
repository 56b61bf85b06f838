//! `--clip-grad`: every method's real step is PyTorch's `clip_grad_norm_` and SGD behind it, held
//! to that rule in loops, in f64.

#[path = "train/files.rs"]
#[allow(dead_code)] // the other data sets
mod files;
#[path = "common/runs.rs"]
mod runs;

use metatape::backend::cpu::Cpu;
use metatape::program::Session;
use metatape::train::values::Precision;
use metatape::train::{Config, Learner, Method, Prepared};

/// The first network's parameters before and after one step.
fn step(method: Method, config: Config) -> [Vec<f64>; 2] {
    let data = Prepared::new(Config { method, ..config }).unwrap();
    let session = Session::new(Box::new(Cpu::<f64>::new(1).unwrap()));
    let mut learner = Learner::new(method, &data, session).unwrap();
    assert_eq!(learner.steps_per_epoch(), 1);
    let all = |learner: &Learner| -> Vec<f64> {
        let states = learner.session().states().iter().filter(|s| s.name.starts_with("w."));
        states.flat_map(|s| learner.session().read_state(&s.name).unwrap()).collect()
    };
    let before = all(&learner);
    learner.pass(&data, &mut |_, _| false).unwrap();
    [before, all(&learner)]
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

#[test]
fn the_real_step_of_every_method_is_the_rule_in_loops() {
    let folder = tempfile::tempdir().unwrap();
    let (mu, decay) = (0.9, 0.01);
    let plain = Config {
        batch: 30,
        lr: 0.1,
        momentum: 0.0,
        weight_decay: 0.0,
        precision: Precision::F64,
        ..runs::images(files::folder(folder.path(), 4, false))
    };
    for method in Method::all().filter(|method| method.stages(&plain.set) == 1) {
        // The only step of fine-tuning is one on the meta set, at a rate of its own.
        let lr = if method == Method::FineTune { 0.1 * plain.lr } else { plain.lr };
        let [w, moved] = step(method, plain.clone());
        let g: Vec<f64> = w.iter().zip(&moved).map(|(w, moved)| (w - moved) / lr).collect();
        let length = norm(&g);
        assert!(length > 1e-3, "{method}: {length}");

        let clipped = |clip_grad| Config {
            clip_grad: Some(clip_grad),
            momentum: mu,
            nesterov: true,
            weight_decay: decay,
            ..plain.clone()
        };
        let [_, got] = step(method, clipped(length / 3.0));
        for i in 0..w.len() {
            // The buffer of a first step is the gradient itself.
            let buffer = g[i] / 3.0 + decay * w[i];
            let want = w[i] - lr * (buffer + mu * buffer);
            assert!((got[i] - want).abs() < 1e-12, "{method}, {i}: {} is not {want}", got[i]);
        }
        // A bound that is not reached changes nothing, to the bit.
        let off = Config { clip_grad: None, ..clipped(1.0) };
        assert!(step(method, clipped(2.0 * length)) == step(method, off), "{method}");
    }
}
