//! Whole meta steps on the CUDA backend: every network small, on the simulator and on a card, held to the CPU in f64 that rounds as the precision
//! says; and on a card the networks of the command line, held to f64 itself (`precisions.rs` shows without a card what a precision costs them).

mod common;

use common::machines::{Machine, cards, cost, simulators};
use common::steps::{Net, all_outputs, fresh, networks, relative_error, whole_networks};
use metatape::backend::cpu::Cpu;
use metatape::backend::cuda::Precision;
use metatape::meta::{StepConfig, VirtualStep, Weights};
use metatape::program::{Program, Session};

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

fn results((session, program): &(Session, Program)) -> [Vec<f64>; RESULTS.len()] {
    RESULTS.map(|prefix| all_outputs(session, program, prefix))
}

fn states(session: &Session) -> Vec<u64> {
    let floats = session.states().iter().filter(|s| s.name != "pixels");
    floats.flat_map(|s| session.read_state(&s.name).unwrap()).map(f64::to_bits).collect()
}

/// Runs steps on all machines, which must give the same bits; what the first one's first step gives.
fn same_steps(
    net: &Net,
    config: &StepConfig,
    batch: usize,
    machines: Vec<Machine>,
) -> [Vec<f64>; RESULTS.len()] {
    let mut first: Option<([Vec<f64>; RESULTS.len()], Vec<u64>)> = None;
    for machine in machines {
        let what = format!("{}, batch {batch}, {}", net.name, machine.name);
        let mut got = fresh(net, config, batch, machine.backend);
        let mut run = || {
            got.0.run(&got.1).unwrap_or_else(|e| panic!("{what}: {e}"));
            results(&got)
        };
        let now = run();
        (1..STEPS).for_each(|_| drop(run()));
        let bits = states(&got.0);
        let (_, same) = first.get_or_insert_with(|| (now, bits.clone()));
        assert!(*same == bits, "{what}: other bits after {STEPS} steps");
    }
    first.expect("there are machines").0
}

/// Small networks, against the definition of the precision.
fn hold(net: &Net, config: &StepConfig, batch: usize, machines: Vec<Machine>) {
    let (tolerance, reference) = (machines[0].tolerance, machines[0].reference(2));
    let what = format!("{}, {}", net.name, machines[0].name);
    let mut reference = fresh(net, config, batch, reference);
    reference.0.run(&reference.1).unwrap();
    let got = same_steps(net, config, batch, machines);
    for ((name, got), want) in RESULTS.iter().zip(&got).zip(&results(&reference)) {
        let error = relative_error(got, want);
        let most = if *name == RESULTS[0] { tolerance.hypergradient } else { tolerance.others };
        println!("{what}: {name}* error {error:.2e}");
        assert!(error <= most, "{what}: {name}* has an error of {error:.1e}, more than {most:.1e}");
    }
}

fn hold_small(precision: Precision, machines: fn(Precision) -> Vec<Machine>) {
    for net in networks() {
        for config in configs() {
            hold(&net, &config, 6, machines(precision));
        }
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
}

#[test]
#[ignore = "needs an NVIDIA GPU; run with --ignored card"]
fn card_tf32() {
    hold_small(Precision::Tf32, cards);
}

#[test]
#[ignore = "needs an NVIDIA GPU; run with --ignored card"]
fn card_bf16() {
    hold_small(Precision::Bf16, cards);
}

#[test]
#[ignore = "needs an NVIDIA GPU; run with --ignored card"]
fn card_whole_networks() {
    let threads = std::thread::available_parallelism().unwrap().get();
    let config = StepConfig::default();
    for (name, net, batch) in whole_networks() {
        let mut exact = fresh(&net, &config, batch, Box::new(Cpu::<f64>::new(threads).unwrap()));
        exact.0.run(&exact.1).unwrap();
        let [exact, ..] = results(&exact);
        for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
            let [got, ..] = same_steps(&net, &config, batch, cards(precision));
            let (error, most) = (relative_error(&got, &exact), cost(precision));
            println!("{name}, batch {batch}, card {}: hypergrad.* error {error:.2e}", precision.name());
            assert!(error <= most, "{name} in {}: an error of {error:.1e}", precision.name());
        }
    }
}

/// Small enough for a sanitizer that makes everything a hundred times slower.
#[test]
#[ignore = "needs an NVIDIA GPU; run with --ignored card"]
fn card_one_small_step() {
    let net = &networks()[2];
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        hold(net, &StepConfig::default(), 6, cards(precision));
    }
}
