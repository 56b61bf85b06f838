//! The page of `src/meta/mod.rs` is right: its formulas are held against differences of the meta
//! loss.

mod common;

use common::steps::{Net, relative_error};
use metatape::backend::cpu::Cpu;
use metatape::meta::{MetaStep, Order, StepConfig, ThetaValues, VirtualStep, Weights};
use metatape::nn::{Mlp, ResNet, WeightNet, WeightNetInit};
use metatape::program::{Options, Program, Session, Values, parts};
use metatape::tape::Tape;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

const N: usize = 6;
const CLASSES: usize = 4;

/// A step in some order on fixed random numbers, in f64, whose θ can be set again and again.
struct Bench {
    session: Session,
    program: Program,
    states: Vec<(String, Vec<f64>)>,
}

impl Bench {
    fn new(net: &Net, config: &StepConfig, order: Order) -> Bench {
        let weight_net =
            WeightNet { hidden: 5, init: WeightNetInit::Faithful, slope: 1.0, groups: Vec::new() };
        let mut tape = Tape::new();
        let (data, net) = (net.given(), net.model.as_ref());
        let step = MetaStep { net, weight_net: &weight_net, config, data: &data, batch: [N, N] };
        step.record_in(&mut tape, order).unwrap();
        let mut session = Session::new(Box::new(Cpu::<f64>::new(1).unwrap()));
        let program = session.compile(&tape, Options::default()).unwrap();
        // By name, so that every order begins with the same.
        let random = |name: &str, count: usize| -> Vec<f64> {
            let seed = name.bytes().fold(7, |h, b| h * 31 % 1_000_003 + u64::from(b));
            let mut rng = Pcg64::seed_from_u64(seed);
            (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
        };
        let mut states = Vec::new();
        for state in session.states().to_vec() {
            let mut values = random(&state.name, state.shape.count());
            if [".var", "moment2", "clock"].iter().any(|part| state.name.contains(part)) {
                values.iter_mut().for_each(|v| *v = v.abs());
            }
            states.push((state.name, values));
        }
        for input in program.inputs().to_vec() {
            let count = input.shape.count();
            let labels: Vec<i32> = (0..count as i32).map(|i| i % CLASSES as i32).collect();
            let floats = match input.name.as_str() {
                "lr" => vec![0.1],
                "lr.theta" => vec![0.01],
                name => random(name, count),
            };
            let values =
                if input.name.starts_with('y') { Values::Int(&labels) } else { Values::Float(&floats) };
            session.feed(&program, &input.name, values).unwrap();
        }
        Bench { session, program, states }
    }

    /// Runs from the first states, θ moved by `eps` along `direction`.
    fn run(&mut self, direction: &[f64], eps: f64) {
        let mut at = 0;
        for (name, values) in &self.states {
            let mut values = values.clone();
            if name.starts_with("theta.fc") {
                for v in &mut values {
                    *v += eps * direction[at];
                    at += 1;
                }
            }
            self.session.write_state(name, Values::Float(&values)).unwrap();
        }
        self.session.run(&self.program).unwrap();
    }

    fn fetch(&self, output: &str) -> Vec<f64> {
        self.session.fetch(&self.program, output).unwrap()
    }

    fn theta(&self) -> Vec<Vec<f64>> {
        self.states.iter().filter(|s| s.0.starts_with("theta.fc")).map(|s| s.1.clone()).collect()
    }

    fn hypergrad(&self) -> Vec<f64> {
        let names: Vec<String> = self.program.outputs().map(|o| o.name.clone()).collect();
        names.iter().filter(|n| n.starts_with("hypergrad.")).flat_map(|n| self.fetch(n)).collect()
    }

    /// The slope of the meta loss along `direction`, by a central difference.
    fn slope(&mut self, direction: &[f64]) -> f64 {
        let eps = 1e-6;
        let mut at = |eps| {
            self.run(direction, eps);
            self.fetch("meta_loss")[0]
        };
        (at(eps) - at(-eps)) / (2.0 * eps)
    }
}

fn networks() -> [Net; 2] {
    let classes = CLASSES;
    [
        Net::new("mlp", [4, 3, 1], classes, Mlp { hidden: 7, classes }),
        // Batch norm couples the samples.
        Net::new("resnet", [8, 8, 3], classes, ResNet { blocks: 1, width: 4, classes }),
    ]
}

fn configs() -> Vec<StepConfig> {
    let mut all = Vec::new();
    for weights in [Weights::Mean, Weights::Normalised] {
        for undetached in [false, true] {
            for (virtual_step, nesterov) in
                [(VirtualStep::Plain, false), (VirtualStep::Momentum, false), (VirtualStep::Momentum, true)]
            {
                let mut config = StepConfig { weights, undetached, virtual_step, ..Default::default() };
                config.classifier.nesterov = nesterov;
                all.push(config);
            }
        }
    }
    all
}

fn direction() -> Vec<f64> {
    let mut rng = Pcg64::seed_from_u64(5);
    (0..16).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn the_derived_formulas_hold_on_every_option_with_and_without_batch_norm() {
    for net in networks() {
        for config in configs() {
            let mut bench = Bench::new(&net, &config, Order::Gradient);
            bench.run(&direction(), 0.0);
            let (losses, u, own) = (bench.fetch("loss"), bench.fetch("u"), bench.hypergrad());
            let theta = ThetaValues::new(&bench.theta()).unwrap();
            let closed = theta.closed_form(&config, 0.1, &losses, &u);
            assert!(relative_error(&closed.weights, &bench.fetch("weight")) < 1e-13);
            let error = relative_error(&closed.hypergrad, &own);
            assert!(error < 1e-12, "{net:?} {config:?}: closed form {error:e}");
            let (slope, expected) = (bench.slope(&direction()), dot(&own, &direction()));
            let error = (slope - expected).abs() / own.iter().map(|h| h.abs()).sum::<f64>();
            assert!(error < 1e-6, "{net:?} {config:?}: {slope} by differences, {expected} by the program");
            // What a sample asks of its weight, where V's slope plays no part: from the formulas by
            // hand.
            if !config.undetached {
                let total: f64 = closed.weights.iter().sum();
                let mean = dot(&closed.weights, &u) / total;
                let gain = match (config.virtual_step, config.classifier.nesterov) {
                    (VirtualStep::Momentum, true) => 1.9,
                    _ => 1.0,
                };
                for (pull, u) in closed.pull.iter().zip(&u) {
                    let by_hand = match config.weights {
                        Weights::Mean => 0.1 * gain * u / N as f64,
                        Weights::Normalised => 0.1 * gain * (u - mean) / total,
                    };
                    assert!((pull - by_hand).abs() < 1e-14, "{config:?}: {pull} and {by_hand}");
                }
            }
        }
    }
}

#[test]
fn several_virtual_steps_have_an_exact_hypergradient() {
    for net in networks() {
        for config in configs().into_iter().filter(|c| c.virtual_step == VirtualStep::Plain) {
            for unroll in [2, 3] {
                let config = StepConfig { unroll, ..config.clone() };
                let mut bench = Bench::new(&net, &config, Order::Gradient);
                bench.run(&direction(), 0.0);
                let own = bench.hypergrad();
                let (slope, expected) = (bench.slope(&direction()), dot(&own, &direction()));
                let error = (slope - expected).abs() / own.iter().map(|h| h.abs()).sum::<f64>();
                assert!(
                    error < 1e-6,
                    "{net:?} {config:?}: {slope} by differences, {expected} by the program"
                );
            }
        }
    }
}

#[test]
fn two_steps_have_an_exact_hypergradient_of_their_own() {
    for net in networks() {
        for config in configs() {
            let mut bench = Bench::new(&net, &config, Order::TwoSteps);
            bench.run(&direction(), 0.0);
            let own = bench.hypergrad();
            let (slope, expected) = (bench.slope(&direction()), dot(&own, &direction()));
            let error = (slope - expected).abs() / own.iter().map(|h| h.abs()).sum::<f64>();
            assert!(error < 1e-6, "{net:?} {config:?}: {slope} by differences, {expected} by the program");
        }
    }
}

#[test]
fn orders_update_what_they_say() {
    for net in networks() {
        let config = StepConfig::default();
        let after = |order| {
            let mut bench = Bench::new(&net, &config, order);
            bench.run(&direction(), 0.0);
            let read = |name: &str| bench.session.read_state(name).unwrap();
            let states: Vec<(String, Vec<f64>, bool)> =
                bench.states.iter().map(|(n, old)| (n.clone(), read(n), read(n) != *old)).collect();
            states
        };
        let changed = |order, prefix: &str| {
            let states: Vec<bool> =
                after(order).into_iter().filter(|s| s.0.starts_with(prefix)).map(|s| s.2).collect();
            assert!(!states.is_empty(), "{order:?} {prefix}");
            (states.iter().any(|s| *s), states.iter().all(|s| *s))
        };
        assert_eq!(changed(Order::Gradient, "w."), (false, false));
        assert_eq!(changed(Order::Gradient, "theta."), (false, false));
        assert_eq!(changed(Order::FixedTheta, "theta."), (false, false));
        for order in [Order::FixedTheta, Order::TwoSteps, Order::Published] {
            assert_eq!(changed(order, "w."), (true, true), "{order:?}");
            assert_eq!(changed(order, "momentum."), (true, true), "{order:?}");
        }
        assert_eq!(changed(Order::TwoSteps, "theta."), (true, true));
        if net.summary().couples_samples() {
            assert!(
                !after(Order::Gradient).iter().any(|s| s.0.starts_with("stats.")),
                "it does not know them"
            );
            assert_eq!(changed(Order::TwoSteps, "stats."), (true, true));
        }
        // w moves by the old θ in both; the published order's w by the new one.
        let w = |order| -> Vec<(String, Vec<f64>)> {
            let states = after(order).into_iter().filter(|s| s.0.starts_with("w."));
            states.map(|s| (s.0, s.1)).collect()
        };
        assert_eq!(w(Order::FixedTheta), w(Order::TwoSteps));
        assert_ne!(w(Order::FixedTheta), w(Order::Published));
    }
}

#[test]
fn parts_count_the_work_of_the_recorded_program() {
    let net = &networks()[0];
    let weight_net = WeightNet { hidden: 5, init: WeightNetInit::Faithful, slope: 1.0, groups: Vec::new() };
    let config = StepConfig::default();
    let mut tape = Tape::new();
    let (data, net) = (net.given(), net.model.as_ref());
    let step = MetaStep { net, weight_net: &weight_net, config: &config, data: &data, batch: [N, N] };
    step.record(&mut tape, false).unwrap();
    let parts = parts(&tape);
    let forward = 2 * N * (12 * 7 + 7 * CLASSES);
    assert_eq!((parts[0].title.as_str(), parts[0].flops), ("losses at w", forward as u64));
    let total: u64 = parts.iter().map(|p| p.flops).sum();
    let mut session = Session::new(Box::new(Cpu::<f64>::new(1).unwrap()));
    let unfused = session.compile(&tape, Options { fuse: false }).unwrap();
    assert_eq!(total, unfused.flops, "parts are the whole");
    for title in ["virtual step", "hypergradient", "weight-net step", "real step"] {
        assert!(parts.iter().any(|p| p.title == title), "{title}");
    }
}
