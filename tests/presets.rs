//! The paper's experiments as presets, against its tables and the official scripts' settings.

#[path = "common/runs.rs"]
#[allow(dead_code)] // what other tests run
mod runs;

use std::collections::HashSet;

use metatape::data::{DatasetKind, Noise};
use metatape::meta::{Preset, VirtualStep, Weights};
use metatape::nn::WeightNetInit;
use metatape::train::{Config, Method, PaperCell};

fn preset(name: &str) -> Config {
    let mut config = runs::reference(3);
    PaperCell::named(name).unwrap().apply(&mut config, &HashSet::new()).unwrap();
    config
}

/// What all three scripts share: learning rate 0.1, batch 100, momentum 0.9, weight decay 5e-4, a
/// plain virtual step, PyTorch's initialisation.
fn common(config: &Config) {
    assert_eq!((config.lr, config.batch, config.momentum, config.weight_decay), (0.1, 100, 0.9, 5e-4));
    assert_eq!((config.virtual_step, config.weight_net_init), (VirtualStep::Plain, WeightNetInit::Faithful));
    assert_eq!((config.weight_net_lr, config.seed), (None, 3));
}

#[test]
fn uniform_noise_is_the_wide_network_s_script() {
    let config = preset("paper-uniform-60");
    common(&config);
    assert_eq!(
        (config.dataset, config.noise, config.imbalance),
        (DatasetKind::Cifar10, Noise::Uniform(0.6), None)
    );
    assert_eq!(
        (config.model.as_str(), config.epochs, &config.milestones[..]),
        ("wrn28-10", 40, &[36, 38][..])
    );
    assert_eq!((config.weights, config.undetached, config.nesterov), (Weights::Normalised, false, true));
    assert_eq!((config.weight_net_preset, config.meta_size), (Preset::SgdNoise, Some(1000)));
    assert_eq!(config.weight_net_rule(Method::MwNet).1, 1e-3);
    assert_eq!(preset("paper-uniform-0").noise, Noise::None);
}

#[test]
fn flip_noise_is_the_stable_script() {
    let config = preset("paper-flip2-20-cifar100");
    common(&config);
    assert_eq!(
        (config.dataset, config.noise, config.imbalance),
        (DatasetKind::Cifar100, Noise::Flip2(0.2), None)
    );
    assert_eq!(
        (config.model.as_str(), config.epochs, &config.milestones[..]),
        ("resnet32", 60, &[40, 50][..])
    );
    assert_eq!((config.weights, config.undetached, config.nesterov), (Weights::Mean, false, false));
    assert_eq!((config.weight_net_preset, config.meta_size), (Preset::Adam, Some(1000)));
    assert_eq!(config.weight_net_rule(Method::MwNet).1, 1e-3);
}

#[test]
fn a_long_tail_is_the_imbalance_script() {
    for (name, meta_size) in [("paper-longtail-50", 100), ("paper-longtail-50-cifar100", 1000)] {
        let config = preset(name);
        common(&config);
        assert_eq!((config.noise, config.imbalance), (Noise::None, Some(50.0)));
        assert_eq!(
            (config.model.as_str(), config.epochs, &config.milestones[..]),
            ("resnet32", 100, &[80, 90][..])
        );
        assert_eq!((config.weights, config.undetached, config.nesterov), (Weights::Normalised, true, true));
        assert_eq!((config.weight_net_preset, config.meta_size), (Preset::SgdImbalance, Some(meta_size)));
        assert_eq!(config.weight_net_rule(Method::MwNetLongTail).1, 1e-5);
    }
}

#[test]
fn figures_stand_in_their_columns() {
    let figures = |name: &str| {
        let figures = PaperCell::named(name).unwrap().figures();
        figures.into_iter().map(|(method, accuracy)| (method.to_string(), accuracy)).collect::<Vec<_>>()
    };
    let named = |rows: &[(&str, f64)]| rows.iter().map(|(n, a)| (n.to_string(), *a)).collect::<Vec<_>>();
    let uniform = [("uniform", 68.07), ("focal", 75.96), ("l2rw", 86.92), ("glc", 88.28), ("mwnet", 89.27)];
    assert_eq!(figures("paper-uniform-40"), named(&uniform));
    assert_eq!(figures("paper-uniform-60-cifar100"), named(&[("uniform", 30.92), ("mwnet", 58.75)]));
    assert_eq!(figures("paper-flip2-20-cifar100"), named(&[("uniform", 50.86), ("mwnet", 64.22)]));
    let tail = [
        ("uniform", 70.36),
        ("focal", 70.38),
        ("class-balanced", 74.57),
        ("l2rw", 74.16),
        ("mwnet-longtail", 75.21),
    ];
    assert_eq!(figures("paper-longtail-100"), named(&tail));
    assert_eq!(figures("paper-longtail-1-cifar100"), named(&[("uniform", 70.50), ("mwnet-longtail", 70.37)]));
    // Three levels of each noise and six tails, on two data sets, each under a name of its own.
    let names: HashSet<String> = PaperCell::all().map(|cell| cell.name()).collect();
    assert_eq!((PaperCell::all().count(), names.len()), (24, 24));
}

#[test]
fn what_is_kept_stays() {
    let mut config =
        Config { virtual_step: VirtualStep::Momentum, weight_net_lr: Some(0.5), ..runs::reference(3) };
    let keep: HashSet<String> = ["virtual_step", "weight_net_lr", "lr", "epochs"].map(str::to_owned).into();
    (config.lr, config.epochs) = (0.25, 30);
    let cell = PaperCell::named("paper-flip2-40").unwrap();
    cell.apply(&mut config, &keep).unwrap();
    assert_eq!((config.virtual_step, config.weight_net_lr), (VirtualStep::Momentum, Some(0.5)));
    assert_eq!((config.lr, config.momentum, config.model.as_str()), (0.25, 0.9, "resnet32"));
    // Half of the epochs, so the drops come after half as many.
    assert_eq!((config.epochs, &config.milestones[..]), (30, &[20, 25][..]));
    let departures = cell.departures(&config);
    assert_eq!(
        departures,
        ["virtual", "weight_net_lr", "lr", "epochs", "milestones"].map(str::to_owned).to_vec()
    );
}
