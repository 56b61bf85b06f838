//! The method's signature picture: in the reference setting (10,000 Fashion-MNIST images, MLP
//! 784–256–10, uniform noise 0.6, 20 epochs) the default weight net learns a decreasing curve on
//! every one of seeds 1 to 5.

mod common;

use std::path::Path;

use common::runs::reference;
use metatape::backend::cpu::Cpu;
use metatape::program::Session;
use metatape::train::{Config, Run, Summary};

fn train(config: Config, out: &Path) -> Summary {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let session = || Ok(Session::new(Box::new(Cpu::<f32>::new(threads)?)));
    Run::start(config, out, &session).unwrap().train(&mut ()).unwrap()
}

#[test]
fn the_curve_decreases_on_every_seed() {
    let folder = tempfile::tempdir().unwrap();
    for seed in 1..=5 {
        let summary = train(reference(seed), &folder.path().join(seed.to_string()));
        let curve = &summary.weight_curve;
        for pair in curve.windows(2) {
            assert!(
                pair[1].1 <= pair[0].1 + 1e-6,
                "seed {seed}: V rises from {:?} to {:?}",
                pair[0],
                pair[1]
            );
        }
        let (first, last) = (curve[0].1, curve[curve.len() - 1].1);
        assert!(first > 0.9 && last < 0.1, "seed {seed}: V(0) = {first}, V(8) = {last}");
        let (clean, corrupted) = (summary.mean_weight_clean.unwrap(), summary.mean_weight_corrupted.unwrap());
        assert!(clean > 0.8 && corrupted < 0.4, "seed {seed}: mean weights {clean} and {corrupted}");
    }
}
