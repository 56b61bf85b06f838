//! Configurations of runs.

use metatape::data::{DatasetKind, Noise};
use metatape::meta::{Preset, Route, VirtualStep, Weights};
use metatape::nn::WeightNetInit;
use metatape::train::{Config, Method};

/// What `metatape train` does by default.
pub fn reference(seed: u64) -> Config {
    Config {
        dataset: DatasetKind::FashionMnistMini,
        data_dir: None,
        noise: Noise::Uniform(0.6),
        imbalance: None,
        meta_size: Some(1000),
        model: "mlp".into(),
        method: Method::MwNet,
        baseline: false,
        unroll: 1,
        theta_every: 1,
        route: Route::Jvp,
        weights: Weights::Normalised,
        undetached: false,
        virtual_step: VirtualStep::Plain,
        weight_net_preset: Preset::Adam,
        weight_net_lr: None,
        weight_net_init: WeightNetInit::Kinks,
        epochs: 20,
        batch: 100,
        lr: 0.05,
        milestones: vec![13, 17],
        momentum: 0.9,
        nesterov: false,
        weight_decay: 5e-4,
        seed,
        precision: "f32".into(),
    }
}
