//! Whole meta steps on the CUDA backend, held against the CPU in f64: every network small on the simulator, and the networks of the command line
//! on a card.

mod common;

use common::machines::{Machine, Tolerance, cards, simulators};
use common::steps::{all_outputs, fresh, networks, relative_error};
use metatape::backend::cpu::Cpu;
use metatape::backend::cuda::Precision;
use metatape::meta::{StepConfig, VirtualStep, Weights};
use metatape::nn::Network;
use metatape::program::{Program, Session, Values};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

/// Steps on one batch: the first is run kernel by kernel, the second captured, the third only replayed.
const STEPS: usize = 3;

/// The published step, and one in which everything that can be chosen is chosen otherwise.
fn configs() -> [StepConfig; 2] {
    let mut other = StepConfig {
        weights: Weights::Normalised,
        undetached: true,
        virtual_step: VirtualStep::Momentum,
        ..StepConfig::default()
    };
    other.classifier.nesterov = true;
    [StepConfig::default(), other]
}

/// What a step gives that later steps build on.
const RESULTS: [&str; 4] = ["hypergrad.", "w_next.", "loss", "weight"];

/// A step rounds its images and tangents, too, not its parameters alone: as if these were rounded so much more coarsely.
const COARSER: f64 = 4.0;

fn results((session, program): &(Session, Program)) -> [Vec<f64>; RESULTS.len()] {
    RESULTS.map(|prefix| all_outputs(session, program, prefix))
}

fn errors(got: &[Vec<f64>], want: &[Vec<f64>]) -> Vec<f64> {
    got.iter().zip(want).map(|(g, w)| relative_error(g, w)).collect()
}

/// How much the results change where the parameters are changed by a few times as much as a precision rounds them: at most, of some random
/// such changes.
///
/// A maximum or a ReLU that goes the other way after a small change makes a hypergradient jump, whoever computes it.
fn condition(
    net: &Network,
    config: &StepConfig,
    batch: usize,
    rounding: f64,
    exact: &[Vec<f64>],
) -> Vec<f64> {
    let mut most = vec![0.0_f64; RESULTS.len()];
    for seed in 0..8 {
        let mut rng = Pcg64::seed_from_u64(seed);
        let mut changed = fresh(net, config, batch, Box::new(Cpu::<f64>::new(2).unwrap()));
        for state in changed.0.states().to_vec().iter().filter(|s| s.name.starts_with("w.")) {
            let mut values = changed.0.read_state(&state.name).unwrap();
            values.iter_mut().for_each(|v| *v *= 1.0 + COARSER * rng.random_range(-rounding..rounding));
            changed.0.write_state(&state.name, Values::Float(&values)).unwrap();
        }
        changed.0.run(&changed.1).unwrap();
        let change = errors(&results(&changed), exact);
        most.iter_mut().zip(change).for_each(|(m, c)| *m = m.max(c));
    }
    most
}

fn states(session: &Session) -> Vec<u64> {
    let floats = session.states().iter().filter(|s| s.name != "pixels");
    floats.flat_map(|s| session.read_state(&s.name).unwrap()).map(f64::to_bits).collect()
}

fn hold(net: &Network, config: &StepConfig, batch: usize, tolerance: Tolerance, machines: Vec<Machine>) {
    let mut reference = fresh(net, config, batch, Box::new(Cpu::<f64>::new(2).unwrap()));
    reference.0.run(&reference.1).unwrap();
    let exact = results(&reference);
    let condition = condition(net, config, batch, tolerance.rounding, &exact);
    let mut bits: Option<Vec<u64>> = None;
    for machine in machines {
        let what = format!("{:?}, batch {batch}, {}", net.architecture, machine.name);
        let mut got = fresh(net, config, batch, machine.backend);
        for step in 0..STEPS {
            got.0.run(&got.1).unwrap_or_else(|e| panic!("{what}: {e}"));
            if step == 0 {
                for ((name, error), condition) in
                    RESULTS.iter().zip(errors(&results(&got), &exact)).zip(&condition)
                {
                    let most = tolerance.hypergradient.max(*condition);
                    println!(
                        "{what}: {name}* error {error:.2e}, change by rounding the parameters {condition:.2e}"
                    );
                    assert!(
                        error <= most,
                        "{what}: {name}* has an error of {error:.1e}, more than {most:.1e}"
                    );
                }
            }
        }
        let now = states(&got.0);
        assert!(*bits.get_or_insert_with(|| now.clone()) == now, "{what}: other bits after {STEPS} steps");
    }
}

fn hold_small(precision: Precision, machines: fn(Precision) -> Vec<Machine>) {
    for net in networks() {
        for config in configs() {
            hold(&net, &config, 6, Tolerance::of(precision), machines(precision));
        }
    }
}

/// Networks as the command line has them, at batches that the CPU does in f64 in seconds.
fn hold_large(precision: Precision) {
    for (name, image, batch) in [
        ("mlp", [28, 28, 1], 100),
        ("lenet", [28, 28, 1], 100),
        ("resnet32", [32, 32, 3], 32),
        ("wrn28-10", [32, 32, 3], 4),
    ] {
        let net = Network::named(name, image, 10).unwrap();
        hold(&net, &StepConfig::default(), batch, Tolerance::of(precision), cards(precision));
    }
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator_f32() {
    hold_small(Precision::F32, simulators);
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator_tf32() {
    hold_small(Precision::Tf32, simulators);
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator_bf16() {
    hold_small(Precision::Bf16, simulators);
}

#[test]
#[ignore = "needs an NVIDIA GPU; run with --ignored card"]
fn card_f32() {
    hold_small(Precision::F32, cards);
    hold_large(Precision::F32);
}

#[test]
#[ignore = "needs an NVIDIA GPU; run with --ignored card"]
fn card_tf32() {
    hold_small(Precision::Tf32, cards);
    hold_large(Precision::Tf32);
}

#[test]
#[ignore = "needs an NVIDIA GPU; run with --ignored card"]
fn card_bf16() {
    hold_small(Precision::Bf16, cards);
    hold_large(Precision::Bf16);
}

/// Small enough for a sanitizer that makes everything a hundred times slower.
#[test]
#[ignore = "needs an NVIDIA GPU; run with --ignored card"]
fn card_one_small_step() {
    let net = &networks()[2];
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        hold(net, &StepConfig::default(), 6, Tolerance::of(precision), cards(precision));
    }
}
