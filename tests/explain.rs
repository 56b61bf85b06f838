//! `metatape hypergrad --explain`: its numbers are the step's own and satisfy the closed form; and the page of `src/meta/mod.rs` is
//! right, its formulas held against differences of the meta loss.

use std::fs;

use assert_cmd::Command;
use metatape::backend::cpu::Cpu;
use metatape::meta::{Batch, MetaStep, Order, StepConfig, ThetaValues, VirtualStep, Weights};
use metatape::nn::{Architecture, Network, WeightNet, WeightNetInit};
use metatape::program::{Options, Program, Session, Values, parts};
use metatape::tape::Tape;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use serde_json::Value;

fn metatape(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("metatape").unwrap();
    command.args(["hypergrad"]).args(args);
    command
}

fn output(args: &[&str]) -> String {
    String::from_utf8(metatape(args).assert().success().get_output().stdout.clone()).unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&output(&[args, &["--explain", "--json"]].concat())).unwrap()
}

fn fails(args: &[&str], code: i32, parts: &[&str]) {
    let output = metatape(args).assert().code(code).get_output().clone();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("metatape: ") && message.lines().count() == 1, "{args:?}: {message}");
    assert!(!message.contains("panicked"), "{args:?}: {message}");
    for part in parts {
        assert!(message.contains(part), "{args:?}: `{part}` is not in: {message}");
    }
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "{args:?}");
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

/// `−(α/n) Σ u_i ∂V_i/∂θ` and the weights, straight from the printed numbers: nothing of the library is used.
fn by_hand(told: &Value) -> (Vec<f64>, Vec<f64>) {
    let theta = |name: &str| numbers(&told["theta"][name]);
    let (a, b, p, q) = (theta("fc1.weight"), theta("fc1.bias"), theta("fc2.weight"), theta("fc2.bias")[0]);
    let samples = told["samples"].as_array().unwrap();
    let scale = told["lr"].as_f64().unwrap() / samples.len() as f64;
    let (hidden, mut weights) = (a.len(), Vec::new());
    let mut h = vec![0.0; 3 * hidden + 1];
    for sample in samples {
        let (loss, u) = (sample["loss"].as_f64().unwrap(), sample["u"].as_f64().unwrap());
        let r: Vec<f64> = (0..hidden).map(|k| (a[k] * loss + b[k]).max(0.0)).collect();
        let v = 1.0 / (1.0 + (-(0..hidden).map(|k| p[k] * r[k]).sum::<f64>() - q).exp());
        let s = -scale * u * v * (1.0 - v);
        for k in 0..hidden {
            if r[k] > 0.0 {
                h[k] += s * p[k] * loss;
                h[hidden + k] += s * p[k];
                h[2 * hidden + k] += s * r[k];
            }
        }
        h[3 * hidden] += s;
        weights.push(v);
    }
    (h, weights)
}

#[test]
fn the_numbers_satisfy_the_closed_form() {
    for (precision, tolerance) in [("f64", 1e-11), ("f32", 1e-4)] {
        for model in ["mlp", "lenet"] {
            let args = ["--model", model, "--batch", "20", "--steps", "7", "--seed", "3"];
            let told = json(&[&args[..], &["--precision", precision]].concat());
            let (expected, weights) = by_hand(&told);
            let names = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"];
            let own: Vec<f64> = names.iter().flat_map(|n| numbers(&told["hypergrad"][n])).collect();
            assert!(own.iter().any(|h| *h != 0.0));
            let error = relative_error(&own, &expected);
            assert!(error < tolerance, "{model} {precision}: {error:e}");
            assert!(told["closed_form_relative_difference"].as_f64().unwrap() < tolerance);
            let samples = told["samples"].as_array().unwrap();
            assert_eq!((samples.len(), told["step"].as_u64()), (20, Some(7)));
            for (sample, weight) in samples.iter().zip(weights) {
                let number = |field: &str| sample[field].as_f64().unwrap();
                assert!((number("weight") - weight).abs() < tolerance);
                assert_eq!(number("pull") > 0.0, number("u") > 0.0);
                assert_eq!(sample["corrupted"], sample["label"] != sample["true_label"]);
            }
        }
    }
}

#[test]
fn the_page_names_every_part_and_shows_the_numbers() {
    let args = ["--batch", "12", "--steps", "4", "--noise", "uniform:0.4"];
    let page = output(&[&args[..], &["--explain"]].concat());
    for part in [
        "1. losses at w",
        "2. virtual step: ŵ = w − α Σ c_i ∇ℓ_i(w)",
        "3. meta gradient: g = ∇L_meta(ŵ)",
        "4. jvp: u_i = ⟨g, ∇ℓ_i(w)⟩",
        "5. hypergradient: ∂L_meta/∂θ = −α ∇_θ ⟨u, c(θ)⟩",
        "6. weight net's step: θ → θ⁺",
        "7. real step: w → w⁺",
        "−(α/n) Σ u_i ∂V_i/∂θ",
        "cross-entropy",
    ] {
        assert!(page.contains(part), "`{part}` is not in: {page}");
    }
    let told = json(&args);
    // The samples at both ends of u, and the cost.
    let mut u: Vec<f64> =
        told["samples"].as_array().unwrap().iter().map(|s| s["u"].as_f64().unwrap()).collect();
    u.sort_by(f64::total_cmp);
    for end in [u[0], u[11]] {
        let digits = (3.0 - end.abs().log10().floor()) as usize;
        let shown = format!("{:.digits$}", end.abs());
        assert!(page.contains(&shown), "{shown}: {page}");
    }
    let forwards = format!("{:.2}F", told["recorded_forwards"].as_f64().unwrap());
    assert!(page.contains(&forwards), "{forwards}");
    let total: f64 = told["parts"].as_array().unwrap().iter().map(|p| p["forwards"].as_f64().unwrap()).sum();
    assert!((total - told["recorded_forwards"].as_f64().unwrap()).abs() < 1e-9);
    for options in
        [&["--weights", "normalised"][..], &["--undetached"], &["--virtual", "momentum", "--nesterov"]]
    {
        let page = output(&[&args[..], options, &["--explain"]].concat());
        let formula = match options[0] {
            "--weights" => "−(α/S) Σ (u_i − ū) ∂V_i/∂θ",
            "--undetached" => "−(α/n) Σ u_i ∂(V_i + V′_i ℓ_i)/∂θ",
            _ => "−(α(1 + μ)/n) Σ u_i ∂V_i/∂θ",
        };
        assert!(page.contains(formula), "`{formula}` is not in: {page}");
    }
}

#[test]
fn a_step_of_a_deep_network_costs_ten_forwards_and_its_page_is_short() {
    let args = ["--model", "resnet32", "--batch", "2", "--steps", "1"];
    let told = json(&args);
    let forwards = told["step_forwards"].as_f64().unwrap();
    assert!((9.5..10.05).contains(&forwards), "{forwards}");
    let page = output(&[&args[..], &["--explain"]].concat());
    assert!(page.lines().count() < 300);
    assert!(page.contains("more (--print-tape shows all)"));
}

#[test]
fn the_csv_file_holds_every_sample_of_every_step() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signal.csv");
    let file = path.to_str().unwrap();
    let args = ["--batch", "10", "--steps", "5", "--csv", file];
    let told = json(&args);
    let mut reader = csv::Reader::from_path(&path).unwrap();
    let header: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let expected = [
        "step",
        "sample",
        "label",
        "true_label",
        "corrupted",
        "loss",
        "weight",
        "slope",
        "coefficient",
        "u",
        "alpha",
        "pull",
        "slope_pull",
        "moved",
    ];
    assert_eq!(header, expected);
    let help = String::from_utf8(metatape(&["--help"]).output().unwrap().stdout).unwrap();
    for column in expected {
        assert!(help.contains(column), "{column} is not in --help");
    }
    let rows: Vec<csv::StringRecord> = reader.records().map(|r| r.unwrap()).collect();
    assert_eq!(rows.len(), 50);
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(row[0].parse::<usize>().unwrap(), i / 10 + 1);
    }
    // The last step's rows are what is explained.
    for (row, sample) in rows[40..].iter().zip(told["samples"].as_array().unwrap()) {
        for (i, field) in expected.iter().enumerate() {
            match &sample[field] {
                Value::Bool(b) => assert_eq!(row[i], b.to_string()),
                number => assert_eq!(row[i].parse::<f64>().unwrap(), number.as_f64().unwrap(), "{field}"),
            }
        }
    }
    // A walk of fewer steps is the beginning of a longer one.
    let short = json(&["--batch", "10", "--steps", "3"]);
    assert_eq!(short["samples"][2]["u"].as_f64().unwrap(), rows[22][9].parse::<f64>().unwrap());

    let before = fs::read(&path).unwrap();
    fails(&[&args[..], &["--explain"]].concat(), 2, &["--csv", "signal.csv", "--force"]);
    assert_eq!(fs::read(&path).unwrap(), before);
    json(&[&args[..], &["--force", "--seed", "2"]].concat());
    assert_ne!(fs::read(&path).unwrap(), before);
}

#[test]
fn what_cannot_be_is_said() {
    fails(&["--steps", "3"], 2, &["--explain"]);
    fails(&["--csv", "x.csv"], 2, &["--explain"]);
    fails(&["--explain", "--steps", "0"], 2, &["--steps", "`0`"]);
    fails(&["--explain", "--route", "reverse"], 2, &["--explain", "--route"]);
    fails(&["--explain", "--print-tape"], 2, &["--explain", "--print-tape"]);
    fails(&["--explain", "--batch", "100000"], 2, &["--batch 100000", "9000"]);
    fails(&["--explain", "--csv", "/no/such/folder/x.csv"], 1, &["/no/such/folder"]);
    fails(&["--explain", "--lr", "1e30", "--steps", "9"], 1, &["--lr"]);
}

const N: usize = 6;
const CLASSES: usize = 4;

/// A step in some order on fixed random numbers, in f64, whose θ can be set again and again.
struct Bench {
    session: Session,
    program: Program,
    states: Vec<(String, Vec<f64>)>,
}

impl Bench {
    fn new(net: &Network, config: &StepConfig, order: Order) -> Bench {
        let weight_net =
            WeightNet { hidden: 5, init: WeightNetInit::Faithful, slope: 1.0, groups: Vec::new() };
        let mut tape = Tape::new();
        let step = MetaStep { net, weight_net: &weight_net, config, data: &Batch::Given, batch: [N, N] };
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
            if state.name.ends_with(".var") || state.name.contains("moment2") {
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

fn networks() -> [Network; 2] {
    [
        Network { image: [4, 3, 1], classes: CLASSES, architecture: Architecture::Mlp(7) },
        // Batch norm couples the samples.
        Network { image: [8, 8, 3], classes: CLASSES, architecture: Architecture::ResNet(1, 4) },
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
            // What a sample asks of its weight, where V's slope plays no part: from the formulas by hand.
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
        if net.couples_samples() {
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
    let step = MetaStep { net, weight_net: &weight_net, config: &config, data: &Batch::Given, batch: [N, N] };
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
