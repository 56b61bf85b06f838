//! Single layers against PyTorch's numbers in f64 (`golden/make_layers.py`), and dropout from the
//! layer to training.

#![allow(clippy::print_stdout)]

mod common;
#[path = "train/files.rs"]
#[allow(dead_code)] // the other data sets
mod files;

use std::path::Path;

use common::runs::reference;
use common::steps::{Net, all_outputs, relative_error, run};
use metatape::Result;
use metatape::backend::cpu::Cpu;
use metatape::data::{DatasetKind, Noise};
use metatape::meta::{Batch, MetaStep, Route, StepConfig};
use metatape::nn::{
    Filters, Forward, Normalisation, Params, SharedModel, WeightNet, WeightNetInit, feed_dropout,
};
use metatape::program::{Options, Session, Values};
use metatape::tape::{Geometry, Init, Kind, Tape, Var};
use metatape::train::values::Precision;
use metatape::train::{Config, Learner, Method, Prepared, StepReport, Walk};
use safetensors::SafeTensors;

/// Relative to the largest entry, or 1.
const TOLERANCE: f64 = 1e-12;

type Layer = Box<dyn Fn(&mut Forward, Var) -> Result<Var>>;

/// As `make_layers.py` names them, but for the state's prefix.
fn layers() -> Vec<(String, Layer)> {
    let mut all: Vec<(String, Layer)> = Vec::new();
    for axes in [1, 3] {
        let layer: Layer = Box::new(move |f, x| f.layer_norm("layer", x, axes));
        all.push((format!("layer_norm {axes}"), layer));
    }
    for groups in [1, 2, 6] {
        let layer: Layer = Box::new(move |f, x| f.group_norm("layer", x, groups));
        all.push((format!("group_norm {groups}"), layer));
    }
    all.push(("avg_pool 2".into(), Box::new(|f, x| f.tape.avg_pool(x, 2))));
    for stride in [1, 2] {
        let filters = Filters::same(5, 1).stride(stride);
        let layer: Layer = Box::new(move |f, x| f.conv("layer", x, filters, Init::Constant(0.0)));
        all.push((format!("conv 1x1 {stride}"), layer));
    }
    for (groups, size, stride, out) in [(2, 3, 1, 8), (3, 1, 2, 3), (6, 3, 1, 6), (6, 3, 2, 12)] {
        let filters = Filters::same(out, size).stride(stride).groups(groups);
        let layer: Layer = Box::new(move |f, x| f.conv("layer", x, filters, Init::Constant(0.0)));
        all.push((format!("conv {size}x{size} {stride} groups {groups}"), layer));
    }
    all
}

/// Value, gradients, and the gradients' change along a direction, in training as in testing.
#[test]
fn layers_are_pytorchs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/layers.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: &str| -> Vec<f64> {
        let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        view.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
    };
    let shape = |name: &str| file.tensor(name).unwrap().shape().to_vec();
    let (mut compared, mut worst) = (0, 0.0f64);
    for (name, layer) in layers() {
        for pass in [Normalisation::Batch, Normalisation::Running] {
            let (mut tape, mut params) = (Tape::new(), Params::classifier());
            let x = tape.input("x", Kind::Float, shape("x")).unwrap();
            let v = tape.input("v", Kind::Float, shape("x")).unwrap();
            let c = tape.input("c", Kind::Float, shape(&format!("{name}/y"))).unwrap();
            let y = layer(&mut Forward::new(&mut tape, &mut params, pass), x).unwrap();
            tape.output("y", y).unwrap();
            let roles = params.iter().map(|(n, v)| (n.trim_start_matches("layer.").to_owned(), v));
            let targets: Vec<(String, Var)> = [("x".to_owned(), x)].into_iter().chain(roles).collect();
            let vars: Vec<Var> = targets.iter().map(|t| t.1).collect();
            let first = tape.vjp(&[(y, c)], &vars).unwrap();
            for ((role, var), gradient) in targets.iter().zip(first) {
                let gradient = tape.or_zero(gradient, *var).unwrap();
                tape.output(&format!("gradient {role}"), gradient).unwrap();
                let second = tape.jvp(&[(x, v)], &[gradient]).unwrap()[0];
                let second = tape.or_zero(second, *var).unwrap();
                tape.output(&format!("second {role}"), second).unwrap();
            }
            let mut session = Session::new(Box::new(Cpu::<f64>::new(1).unwrap()));
            let program = session.compile(&tape, Options::default()).unwrap();
            for (role, _) in &targets[1..] {
                let values = floats(&format!("{name}/{role}"));
                session.write_state(&format!("w.layer.{role}"), Values::Float(&values)).unwrap();
            }
            for (input, of) in [("x", "x"), ("v", "v"), ("c", &*format!("{name}/cotangent"))] {
                session.feed(&program, input, Values::Float(&floats(of))).unwrap();
            }
            session.run(&program).unwrap();
            for output in program.outputs() {
                let ours = session.fetch(&program, &output.name).unwrap();
                let theirs = floats(&format!("{name}/{}", output.name));
                assert_eq!(ours.len(), theirs.len(), "{name}: {}", output.name);
                let largest = theirs.iter().fold(1.0, |m: f64, v| m.max(v.abs()));
                for (i, (a, b)) in ours.iter().zip(&theirs).enumerate() {
                    let error = (a - b).abs() / largest;
                    assert!(error < TOLERANCE, "{name}: {}[{i}] is {a}, PyTorch has {b}", output.name);
                    worst = worst.max(error);
                }
                compared += 1;
            }
        }
    }
    // y, and first and second of each target, in two modes: five norms with three targets, the rest
    // with one and two.
    assert_eq!(compared, 2 * (5 * 7 + 3 + 6 * 5));
    println!("largest error {worst:.1e}");
}

#[test]
fn what_layers_cannot_take_is_an_error_that_says_why() {
    let (mut tape, mut params) = (Tape::new(), Params::classifier());
    let x = tape.input("x", Kind::Float, [2, 5, 6, 4]).unwrap();
    let f = &mut Forward::new(&mut tape, &mut params, Normalisation::Batch);
    let grouped = |groups, out| (Filters::same(out, 3).groups(groups), Init::Constant(0.0));
    let mut conv = |layer: &str, (filters, init)| f.conv(layer, x, filters, init);
    let convolutions = [conv("e", grouped(3, 6)), conv("f", grouped(4, 6)), conv("g", grouped(0, 4))];
    let w = f.tape.input("w", Kind::Float, [3, 3, 4, 4]).unwrap();
    let geometry = Geometry { stride: 1, pad: 1, groups: 2 };
    let [three, four, none] = convolutions;
    let cases: [(Result<Var>, &str); 13] = [
        (three, "conv: 3 groups must divide A's 4 channels and B's 6 outputs"),
        (four, "conv: 4 groups must divide A's 4 channels and B's 6 outputs"),
        (none, "conv: 0 groups must divide"),
        (
            f.tape.conv(x, w, geometry),
            "a channel in for each 2 of A's, got A [2, 5, 6, 4] and B [3, 3, 4, 4]",
        ),
        (f.tape.avg_pool(x, 2), "multiples of 2, got [2, 5, 6, 4]"),
        (f.tape.avg_pool(x, 0), "multiples of 0"),
        (f.layer_norm("a", x, 0), "the last 0 axes"),
        (f.layer_norm("a", x, 5), "at most all, got [2, 5, 6, 4]"),
        (f.group_norm("a", x, 3), "a multiple of 3, got [2, 5, 6, 4]"),
        (f.group_norm("a", x, 0), "a multiple of 0"),
        (f.dropout("a", x, 1.0), "less than 1, got 1"),
        (f.dropout("b", x, f64::NAN), "got NaN"),
        (f.dropout("c", x, 0.5).and_then(|x| f.dropout("c", x, 0.5)), "are called `c`"),
    ];
    for (result, want) in cases {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(want), "{message}");
    }
}

#[test]
fn dropout_drops_its_share_in_training_and_nothing_in_testing() {
    const P: f64 = 0.3;
    let (mut tape, mut params) = (Tape::new(), Params::classifier());
    let x = tape.input("x", Kind::Float, [100, 100]).unwrap();
    let mut f = Forward::new(&mut tape, &mut params, Normalisation::Batch);
    let y = f.dropout("drop", x, P).unwrap();
    assert_eq!(f.dropout("none", x, 0.0).unwrap(), x);
    // The same layer again drops the same; a pass with a name has noise of its own.
    f.again("drop");
    assert_eq!(f.dropout("drop", x, P).unwrap(), y);
    let other = Forward::new(&mut tape, &mut params, Normalisation::Batch).named("_meta");
    let z = { other }.dropout("drop", x, P).unwrap();
    assert_eq!(
        Forward::new(&mut tape, &mut params, Normalisation::Running).dropout("drop", x, P).unwrap(),
        x
    );
    tape.output("y", y).unwrap();
    tape.output("z", z).unwrap();
    let mut session = Session::new(Box::new(Cpu::<f64>::new(1).unwrap()));
    let program = session.compile(&tape, Options::default()).unwrap();
    let names: Vec<&str> = program.inputs().iter().map(|i| i.name.as_str()).collect();
    assert_eq!(names, ["x", "dropout.drop", "dropout_meta.drop"]);
    session.feed(&program, "x", Values::Float(&[1.0; 10_000])).unwrap();
    let error = session.run(&program).unwrap_err().to_string();
    assert!(error.contains("`dropout.drop`"), "{error}");

    let mut of = |seed, step| {
        feed_dropout(&mut session, &program, seed, step).unwrap();
        session.run(&program).unwrap();
        [session.fetch(&program, "y").unwrap(), session.fetch(&program, "z").unwrap()]
    };
    let [y, z] = of(1, 0);
    for values in [&y, &z] {
        let kept = values.iter().filter(|v| **v != 0.0).count() as f64 / 1e4;
        // Four standard deviations of 10,000 draws.
        assert!((kept - (1.0 - P)).abs() < 4.0 * (P * (1.0 - P) / 1e4).sqrt(), "{kept} are kept");
        assert!(values.iter().all(|v| *v == 0.0 || *v == 1.0 / (1.0 - P)));
    }
    assert_ne!(y, z);
    assert_ne!(of(1, 1)[0], y);
    assert_ne!(of(2, 0)[0], y);
    assert_eq!(of(1, 0), [y, z]);
}

/// As PyTorch's, whose running statistics take a step in each call.
#[test]
fn a_batch_norm_that_is_used_again_sees_both_batches() {
    let (mut tape, mut params) = (Tape::new(), Params::classifier());
    let [a, b] = ["a", "b"].map(|name| tape.input(name, Kind::Float, [2, 1]).unwrap());
    let mut f = Forward::new(&mut tape, &mut params, Normalisation::Batch);
    f.batch_norm("bn", a).unwrap();
    f.again("bn");
    f.batch_norm("bn", b).unwrap();
    f.update_running("stats").unwrap();
    let mut session = Session::new(Box::new(Cpu::<f64>::new(1).unwrap()));
    let program = session.compile(&tape, Options::default()).unwrap();
    session.feed(&program, "a", Values::Float(&[1.0, 3.0])).unwrap();
    session.feed(&program, "b", Values::Float(&[10.0, 20.0])).unwrap();
    session.run(&program).unwrap();
    // Means 2 and 15, unbiased variances 2 and 50; 0 and 1 before.
    let mean = 0.9 * (0.1 * 2.0) + 0.1 * 15.0;
    let var = 0.9 * (0.9 * 1.0 + 0.1 * 2.0) + 0.1 * 50.0;
    for (part, want) in [("mean", mean), ("var", var)] {
        let got = session.read_state(&format!("stats.bn.{part}")).unwrap()[0];
        assert!((got - want).abs() < 1e-14, "{part}: {got}, not {want}");
    }
}

/// All layers of this page in one network, on images whose extents are even.
fn network(f: &mut Forward, x: Var, classes: usize, p: f64) -> Result<Var> {
    let channels = f.tape.shape(x)[3];
    let h = f.conv("conv", x, Filters::same(6, 3), Init::kaiming(9 * channels))?;
    let h = f.group_norm("groups", h, 2)?;
    let h = f.tape.relu(h)?;
    let h = f.dropout("early", h, p)?;
    let h = f.conv("mix", h, Filters::same(5, 1), Init::kaiming(6))?;
    let h = f.tape.avg_pool(h, 2)?;
    let h = f.layer_norm("norm", h, 1)?;
    let h = f.tape.flatten(h)?;
    let h = f.dropout("late", h, p)?;
    f.linear("out", h, classes)
}

/// The routes run parts of the network again, and must drop what the first run dropped.
#[test]
fn routes_agree_on_a_network_with_dropout() {
    let net = Net::new("dropout", [4, 4, 1], 4, |f: &mut Forward, x: Var| network(f, x, 4, 0.4));
    let of = |route| {
        let config = StepConfig { route, probe: 1e-5, ..StepConfig::default() };
        let (session, program) = run(&net, &config, Options::default(), 1);
        all_outputs(&session, &program, "hypergrad.")
    };
    let want = of(Route::Reverse);
    assert!(want.iter().any(|g| g.abs() > 1e-9), "the hypergradient vanishes");
    for (route, tolerance) in [
        (Route::Jvp, 1e-11),
        (Route::PerSample, 1e-11),
        (Route::FiniteDifference, 1e-5),
        (Route::Neumann(1), 1e-11),
    ] {
        let error = relative_error(&of(route), &want);
        assert!(error < tolerance, "{route}: relative error {error:e}");
    }
}

#[test]
fn every_batch_of_a_meta_step_has_noise_of_its_own() {
    let net = |f: &mut Forward, x: Var| network(f, x, 4, 0.4);
    let weight_net = WeightNet { hidden: 5, init: WeightNetInit::Faithful, slope: 1.0, groups: Vec::new() };
    let config = StepConfig { unroll: 3, route: Route::Reverse, ..StepConfig::default() };
    let mut tape = Tape::new();
    let data = Batch::Given([4, 4, 1].into());
    MetaStep { net: &net, weight_net: &weight_net, config: &config, data: &data, batch: [6, 5] }
        .record(&mut tape, false)
        .unwrap();
    let mut names: Vec<&str> =
        tape.inputs().iter().map(|i| i.0.as_str()).filter(|name| name.starts_with("dropout")).collect();
    names.sort();
    let want = ["", "_2", "_3", "_meta"].map(|pass| format!("dropout{pass}"));
    let want: Vec<String> = ["early", "late"]
        .iter()
        .flat_map(|layer| want.iter().map(move |pass| format!("{pass}.{layer}")))
        .collect();
    let mut want: Vec<&str> = want.iter().map(String::as_str).collect();
    want.sort();
    assert_eq!(names, want);
}

fn cpu() -> Session {
    Session::new(Box::new(Cpu::<f64>::new(1).unwrap()))
}

/// A run's data, for the network with this much dropout.
fn prepared(method: Method, config: &Config, p: f64) -> Prepared {
    let config = Config { method, precision: Precision::F64, ..config.clone() };
    let own = |classes| -> Result<SharedModel> {
        Ok(Box::new(move |f: &mut Forward, x: Var| network(f, x, classes, p)))
    };
    Prepared::with(config, own).unwrap()
}

/// All floating-point states after the method's passes.
fn trained(method: Method, config: &Config, p: f64) -> Vec<Vec<f64>> {
    let data = prepared(method, config, p);
    let mut learner = Learner::new(method, &data, cpu()).unwrap();
    for _ in 0..method.stages(&data.config.set) * data.config.epochs {
        learner.pass(&data, &mut |_, _| false).unwrap_or_else(|e| panic!("{method}: {e}"));
    }
    let session = learner.session();
    let floats = session.states().iter().filter(|s| s.kind == Kind::Float);
    floats.map(|s| session.read_state(&s.name).unwrap()).collect()
}

#[test]
fn a_network_of_ones_own_with_dropout_trains_by_every_method() {
    let folder = tempfile::tempdir().unwrap();
    let small = Config {
        dataset: DatasetKind::Folder,
        data_dir: Some(files::folder(folder.path(), 4, false)),
        noise: Noise::Uniform(0.4),
        meta_size: Some(6),
        model: "own".into(),
        epochs: 1,
        milestones: Vec::new(),
        batch: 10,
        ..reference(1)
    };
    for method in Method::all() {
        let with = trained(method, &small, 0.4);
        assert_eq!(trained(method, &small, 0.4), with, "{method}: the same seed drops the same");
        assert_ne!(trained(method, &small, 0.0), with, "{method}: nothing is dropped");
    }
    // Steps one by one, as studies take them, drop what training drops.
    let unrolled = Config { unroll: 2, route: Route::Reverse, ..small };
    for p in [0.0, 0.4] {
        let data = prepared(Method::MwNet, &unrolled, p);
        let mut training = Vec::new();
        let mut learner = Learner::new(Method::MwNet, &data, cpu()).unwrap();
        let mut watch = |_, report: StepReport| {
            training.push(report.meta_loss.unwrap());
            false
        };
        learner.pass(&data, &mut watch).unwrap();
        let mut walk = Walk::new(&data, cpu()).unwrap();
        for want in training {
            let got = walk.step().unwrap().meta_loss;
            assert!((got - want).abs() < 1e-12 * want, "{got}, in training {want}");
        }
    }
}
