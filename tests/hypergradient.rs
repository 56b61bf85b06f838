//! Layer 3: all routes to the hypergradient agree on every network, in f64, with and without fusion; on one thread and on several the
//! bits are the same.

use metatape::backend::cpu::Cpu;
use metatape::meta::{Batch, MetaStep, Route, StepConfig, VirtualStep, Weights};
use metatape::nn::{Architecture, Network, WeightNet, WeightNetInit};
use metatape::program::{Options, Program, Session, Values};
use metatape::tape::Tape;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

const N: usize = 6;
const M: usize = 5;

fn networks() -> Vec<Network> {
    let net = |image, architecture| Network { image, classes: 4, architecture };
    vec![
        net([4, 3, 1], Architecture::Mlp(7)),
        net([8, 8, 1], Architecture::LeNet([3, 4, 6])),
        net([8, 8, 3], Architecture::ResNet(1, 4)),
        net([8, 8, 3], Architecture::WideResNet(1, 1)),
    ]
}

/// A session with everything that a meta step reads set to numbers of seed 1.
fn run(net: &Network, config: &StepConfig, options: Options, threads: usize) -> (Session, Program) {
    let weight_net = WeightNet { hidden: 5, init: WeightNetInit::Faithful, slope: 1.0 };
    let mut tape = Tape::new();
    let step = MetaStep { net, weight_net: &weight_net, config, data: &Batch::Given, batch: [N, M] };
    step.record(&mut tape, true).unwrap();
    let mut session = Session::new(Box::new(Cpu::<f64>::new(threads).unwrap()));
    let program = session.compile(&tape, options).unwrap();
    let mut rng = Pcg64::seed_from_u64(1);
    let mut numbers = |n: usize| -> Vec<f64> { (0..n).map(|_| rng.random_range(-1.0..1.0)).collect() };
    for state in session.states().to_vec() {
        let mut values = numbers(state.shape.count());
        if state.name.ends_with(".var") || state.name.contains("moment2") {
            values.iter_mut().for_each(|v| *v = v.abs());
        }
        session.write_state(&state.name, Values::Float(&values)).unwrap();
    }
    for input in program.inputs().to_vec() {
        let count = input.shape.count();
        match input.name.as_str() {
            "y" | "y_meta" => {
                let labels: Vec<i32> = (0..count as i32).map(|i| i % 4).collect();
                session.feed(&program, &input.name, Values::Int(&labels)).unwrap();
            }
            "lr" => session.feed(&program, "lr", Values::Float(&[0.1])).unwrap(),
            "lr.theta" => session.feed(&program, "lr.theta", Values::Float(&[0.01])).unwrap(),
            name if name.starts_with("adam") => session.feed(&program, name, Values::Float(&[1.5])).unwrap(),
            name => session.feed(&program, name, Values::Float(&numbers(count))).unwrap(),
        }
    }
    session.run(&program).unwrap();
    (session, program)
}

fn all_outputs(session: &Session, program: &Program, prefix: &str) -> Vec<f64> {
    let names: Vec<String> =
        program.outputs().map(|o| o.name.clone()).filter(|n| n.starts_with(prefix)).collect();
    assert!(!names.is_empty(), "no output begins with {prefix}");
    names.iter().flat_map(|n| session.fetch(program, n).unwrap()).collect()
}

fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

fn configs() -> Vec<StepConfig> {
    let mut all = Vec::new();
    for weights in [Weights::Mean, Weights::Normalised] {
        for undetached in [false, true] {
            for virtual_step in [VirtualStep::Plain, VirtualStep::Momentum] {
                let mut config =
                    StepConfig { weights, undetached, virtual_step, probe: 1e-5, ..Default::default() };
                config.classifier.nesterov = undetached;
                all.push(config);
            }
        }
    }
    all
}

#[test]
fn routes_agree_on_every_network_and_option() {
    for net in networks() {
        for config in configs() {
            let of = |route, fuse| {
                let config = StepConfig { route, ..config.clone() };
                let (session, program) = run(&net, &config, Options { fuse }, 1);
                all_outputs(&session, &program, "hypergrad.")
            };
            let reference = of(Route::Reverse, true);
            assert!(reference.iter().any(|g| g.abs() > 1e-9), "{net:?}: the hypergradient vanishes");
            for (route, tolerance) in
                [(Route::Jvp, 1e-11), (Route::PerSample, 1e-11), (Route::FiniteDifference, 1e-5)]
            {
                let error = relative_error(&of(route, true), &reference);
                assert!(error < tolerance, "{net:?} {config:?} {route}: relative error {error:e}");
            }
            for route in [Route::Reverse, Route::Jvp] {
                let error = relative_error(&of(route, false), &reference);
                assert!(error < 1e-11, "{net:?} {config:?} {route} unfused: relative error {error:e}");
            }
        }
    }
}

#[test]
fn fusion_and_threads_change_nothing() {
    for net in networks() {
        let config = StepConfig::default();
        let (one, program) = run(&net, &config, Options::default(), 1);
        let (three, same) = run(&net, &config, Options::default(), 3);
        let (plain, unfused) = run(&net, &config, Options { fuse: false }, 1);
        for state in one.states().to_vec() {
            let name = &state.name;
            let value = one.read_state(name).unwrap();
            assert_eq!(value, three.read_state(name).unwrap(), "{net:?}: {name} on one and on three threads");
            let error = relative_error(&plain.read_state(name).unwrap(), &value);
            assert!(error < 1e-12, "{net:?}: {name} without fusion: {error:e}");
        }
        for output in program.outputs() {
            let value = one.fetch(&program, &output.name).unwrap();
            assert_eq!(value, three.fetch(&same, &output.name).unwrap(), "{net:?}: {}", output.name);
            let error = relative_error(&plain.fetch(&unfused, &output.name).unwrap(), &value);
            assert!(error < 1e-11, "{net:?}: {} without fusion: {error:e}", output.name);
        }
    }
}
