//! Whole meta steps on the CUDA backend: every network small, on the simulator and on a card, held
//! to the CPU in f64 that rounds as the precision says; and on a card the networks of the command
//! line, held to f64 itself, as committed (`precisions.rs` shows without a card what a precision
//! costs them).

mod common;

use common::findings::Findings;
use common::machines::{Machine, cards, cost, simulators};
use common::steps::{Net, all_outputs, exact, fresh, networks, relative_error, whole_networks};
use metatape::Result;
use metatape::backend::cuda::Precision;
use metatape::meta::{StepConfig, VirtualStep, Weights};
use metatape::program::{Backend, Program, Session};

/// Steps on one batch: the first is run kernel by kernel, the second captured, the third only
/// replayed.
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

/// What the first step gives, and the bits of all states after all of them.
type Steps = ([Vec<f64>; RESULTS.len()], Vec<u64>);

fn steps(net: &Net, config: &StepConfig, batch: usize, backend: Box<dyn Backend>) -> Result<Steps> {
    let mut got = fresh(net, config, batch, backend)?;
    got.0.run(&got.1)?;
    let first = results(&got);
    (1..STEPS).try_for_each(|_| got.0.run(&got.1))?;
    Ok((first, states(&got.0)))
}

/// Runs steps on all machines, which must give the same bits; what the first step gives, if one
/// machine came so far.
fn same_steps(
    findings: &mut Findings,
    net: &Net,
    config: &StepConfig,
    batch: usize,
    machines: Vec<Machine>,
) -> Option<[Vec<f64>; RESULTS.len()]> {
    let mut first: Option<Steps> = None;
    for machine in machines {
        let what = format!("{}, batch {batch}, {}", net.name, machine.name);
        let Some(now) = findings.take(steps(net, config, batch, machine.backend), &what) else { continue };
        let same = first.as_ref().is_none_or(|(_, bits)| *bits == now.1);
        findings.hold(same, || format!("{what}: other bits after {STEPS} steps"));
        first.get_or_insert(now);
    }
    Some(first?.0)
}

/// Small networks, against the definition of the precision.
fn hold(findings: &mut Findings, net: &Net, config: &StepConfig, machines: Vec<Machine>) {
    let batch = 6;
    let tolerance = machines[0].tolerance;
    let step = |backend| {
        let mut step = fresh(net, config, batch, backend).unwrap();
        step.0.run(&step.1).unwrap();
        results(&step)
    };
    let reference = step(machines[0].reference(2));
    let others: Vec<_> = machines[0].other_references(2).into_iter().map(step).collect();
    let what = format!("{}, {}", net.name, machines[0].name);
    let Some(got) = same_steps(findings, net, config, batch, machines) else { return };
    for (i, name) in RESULTS.iter().enumerate() {
        let most = if i == 0 { tolerance.hypergradient } else { tolerance.others };
        // What is not defined more closely cannot be held more closely; twice, as each product may
        // be treated in its own way.
        let open = others.iter().map(|o| relative_error(&o[i], &reference[i])).fold(0.0, f64::max);
        findings.error(
            relative_error(&got[i], &reference[i]),
            most + 2.0 * open,
            &format!("{what}: {name}*"),
        );
    }
}

fn hold_small(networks: &[Net], precision: Precision, machines: fn(Precision) -> Vec<Machine>) {
    let mut findings = Findings::default();
    for net in networks {
        for config in configs() {
            hold(&mut findings, net, &config, machines(precision));
        }
    }
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator_f32_mlp() {
    hold_small(&networks()[..1], Precision::F32, simulators);
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator_f32_convolutional() {
    hold_small(&networks()[1..], Precision::F32, simulators);
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator_tf32() {
    hold_small(&networks(), Precision::Tf32, simulators);
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator_bf16() {
    hold_small(&networks(), Precision::Bf16, simulators);
}

#[test]
#[ignore = "needs an NVIDIA GPU; run with --ignored card"]
fn card_f32() {
    hold_small(&networks(), Precision::F32, cards);
}

#[test]
#[ignore = "needs an NVIDIA GPU; run with --ignored card"]
fn card_tf32() {
    hold_small(&networks(), Precision::Tf32, cards);
}

#[test]
#[ignore = "needs an NVIDIA GPU; run with --ignored card"]
fn card_bf16() {
    hold_small(&networks(), Precision::Bf16, cards);
}

#[test]
#[ignore = "needs an NVIDIA GPU; run with --ignored card"]
fn card_whole_networks() {
    let (config, mut findings) = (StepConfig::default(), Findings::default());
    for (name, net, batch) in whole_networks() {
        for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
            let got = same_steps(&mut findings, &net, &config, batch, cards(precision));
            let Some([got, ..]) = got else { continue };
            let what = format!("{name}, batch {batch}, card {}: hypergrad.*", precision.name());
            findings.error(relative_error(&got, &exact(name)), cost(name, precision), &what);
        }
    }
}

/// Small enough for a sanitizer that makes everything a hundred times slower.
#[test]
#[ignore = "needs an NVIDIA GPU; run with --ignored card"]
fn card_one_small_step() {
    let (net, mut findings) = (&networks()[2], Findings::default());
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        hold(&mut findings, net, &StepConfig::default(), cards(precision));
    }
}
