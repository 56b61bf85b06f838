//! Networks as files, from outside: the built-in ones are the Rust ones, those of a user train, and
//! what a file cannot say is one sentence.

mod common;
#[path = "train/files.rs"]
#[allow(dead_code)] // the other data sets
mod files;

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use common::steps::{Net, all_outputs, relative_error, run};
use metatape::meta::{Batch, MetaStep, Route, StepConfig};
use metatape::models::ModelFile;
use metatape::nn::{
    Forward, LeNet, Mlp, Model, Normalisation, Params, ResNet, Summary, WeightNet, WeightNetInit, WideResNet,
};
use metatape::program::Options;
use metatape::tape::{First, Kind, Shape, Tape};
use metatape::train::{Config, Prepared};
use serde_json::Value;

fn metatape(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("metatape").unwrap();
    command.args(args);
    command
}

fn stdout(args: &[&str]) -> String {
    let output = metatape(args).assert().success().get_output().clone();
    String::from_utf8(output.stdout).unwrap()
}

/// That the command fails with `code` and says one sentence with all of `parts` in it.
fn fails(args: &[&str], code: i32, parts: &[&str]) {
    let output = metatape(args).assert().code(code).get_output().clone();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("metatape: ") && message.lines().count() == 1, "{args:?}: {message}");
    for part in parts {
        assert!(message.contains(part), "{args:?}: `{part}` is not in: {message}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The example of README's section.
fn example() -> String {
    let readme = include_str!("../README.md");
    let section = readme.split("## A network of one's own, as a file").nth(1).unwrap();
    section.split("```toml\n").nth(1).unwrap().split("```").next().unwrap().to_owned()
}

fn write(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path
}

/// A whole meta step as text, and the first values of its states.
fn recorded(net: &dyn Model, sample: &Shape) -> (String, Vec<(String, Option<First>)>) {
    let weight_net = WeightNet { hidden: 5, init: WeightNetInit::Faithful, slope: 1.0, groups: Vec::new() };
    let (config, data) = (StepConfig::default(), Batch::Given(sample.clone()));
    let mut tape = Tape::new();
    let step = MetaStep { net, weight_net: &weight_net, config: &config, data: &data, batch: [3, 2] };
    step.record(&mut tape, false).unwrap();
    // And a pass of testing.
    let x = tape.input("test", Kind::Float, sample.with(0, &[4])).unwrap();
    let mut params = Params::classifier();
    let logits = net.logits(&mut Forward::new(&mut tape, &mut params, Normalisation::Running), x).unwrap();
    tape.output("test", logits).unwrap();
    let firsts = tape.states().iter().map(|(name, _)| (name.clone(), tape.first_value(name).cloned()));
    (tape.to_string(), firsts.collect())
}

#[test]
fn the_built_in_files_are_the_networks_in_rust() {
    for classes in [10, 7] {
        let pairs: [(&str, Box<dyn Model>, [usize; 3]); 4] = [
            ("mlp", Box::new(Mlp { hidden: 256, classes }), [28, 28, 1]),
            ("lenet", Box::new(LeNet { channels: [32, 64], hidden: 256, classes }), [28, 28, 1]),
            ("resnet32", Box::new(ResNet { blocks: 5, width: 16, classes }), [32, 32, 3]),
            ("wrn28-10", Box::new(WideResNet { blocks: 4, widen: 10, classes }), [32, 32, 3]),
        ];
        for (name, in_rust, sample) in pairs {
            let file = ModelFile::built_in(name).unwrap();
            let (theirs, firsts) = recorded(in_rust.as_ref(), &sample.into());
            let (ours, our_firsts) = recorded(file.clone().network(classes).as_ref(), &sample.into());
            assert!(theirs.lines().count() > 50 && firsts.len() > 8, "{name}");
            assert!(our_firsts == firsts, "{name}: the first values differ");
            assert!(ours == theirs, "{name}: the tapes differ");
            assert_eq!(stdout(&["info", "--model", name]), file.text);
        }
    }
}

/// Groups of numbers that are 1 in one place each, of three classes, as a table.
fn table(folder: &Path) -> PathBuf {
    let rows = |count: usize, shift: usize| {
        let row = |i: usize| format!("{}.{},{}.5,{},{}\n", i % 3, (i + shift) % 10, i % 2, i % 7, i % 3);
        format!("a,b,c,label\n{}", (0..count).map(row).collect::<String>())
    };
    let data = folder.join("table");
    fs::create_dir_all(&data).unwrap();
    write(&data, "train.csv", &rows(90, 0));
    write(&data, "test.csv", &rows(30, 3));
    data
}

#[test]
fn the_example_of_the_readme_trains_and_goes_on_without_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::mnist(&folder.path().join("data"), false);
    let mine = write(folder.path(), "mine.toml", &example());
    let info = stdout(&["info", "--model", text(&mine), "--input", "28x28x1", "--json"]);
    let info: Value = serde_json::from_str(&info).unwrap();
    let names: Vec<&str> =
        info["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names[..4], ["conv1.weight", "gn1.scale", "gn1.bias", "block1.conv1.weight"]);
    assert!(names.contains(&"block3.shortcut.weight") && names[names.len() - 1] == "fc1.bias", "{names:?}");
    let shown = stdout(&["info", "--model", text(&mine), "--input", "28x28x1", "--classes", "3"]);
    assert!(shown.contains("[16, 3]"), "{shown}");

    let refused = metatape(&["info", "--model", text(&mine), "--input", "784"]).assert().code(1);
    let refused = String::from_utf8(refused.get_output().stderr.clone()).unwrap();
    assert!(include_str!("../README.md").contains(&refused), "README does not say: {refused}");

    let small = ["--dataset", "mnist", "--data-dir", text(&data), "--meta-size", "20", "--batch", "60"];
    let arguments = |command, model, out| {
        [&[command], &small[..], &["--model", model, "--epochs", "1", "--out", out]].concat()
    };
    let (run, study) = (folder.path().join("run"), folder.path().join("study"));
    metatape(&[&arguments("train", text(&mine), text(&run))[..], &["--no-baseline"]].concat())
        .assert()
        .success();
    let config: Config = toml_of(&run.join("config.toml"));
    assert_eq!((config.model.as_str(), config.model_text.as_deref()), ("mine.toml", Some(&*example())));
    let compare = ["--methods", "uniform,gce", "--seeds", "1"];
    metatape(&[&arguments("compare", text(&mine), text(&study))[..], &compare].concat()).assert().success();

    // What a run began with is its own; another text is refused, by the flag and in its folder.
    let resume = |out| ["train", "--resume", "--out", out];
    let summary = fs::read(run.join("summary.json")).unwrap();
    fs::write(&mine, example().replace("dropout = 0.2", "dropout = 0.3")).unwrap();
    fails(
        &[&resume(text(&run))[..], &["--model", text(&mine)]].concat(),
        2,
        &["--model mine.toml", "another text"],
    );
    fs::remove_file(&mine).unwrap();
    metatape(&resume(text(&run))).assert().success();
    assert_eq!(fs::read(run.join("summary.json")).unwrap(), summary);
    let more = ["compare", "--resume", "--out", text(&study), "--seeds", "2"];
    metatape(&more).assert().success();
    assert!(study.join("cells/gce-seed2/cell.json").exists());
    let stored = fs::read_to_string(run.join("config.toml")).unwrap();
    fs::write(run.join("config.toml"), stored.replace("dropout = 0.2", "dropout = 0.3")).unwrap();
    fails(&resume(text(&run)), 1, &["config.toml is damaged"]);
}

fn toml_of(path: &Path) -> Config {
    toml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn features_go_through_two_hidden_layers_by_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let data = table(folder.path());
    let layers = r#"layers = [{ linear = 16 }, "tanh", { linear = 8, name = "second" }, "softplus", { linear = "classes" }]"#;
    let mine = write(folder.path(), "two.toml", layers);
    let model = ["--model", text(&mine)];
    let small = ["--dataset", "csv", "--data-dir", text(&data), "--meta-size", "9", "--batch", "10"];
    let run = folder.path().join("run");
    let train =
        [&["train"], &model[..], &small, &["--epochs", "30", "--lr", "0.05", "--out", text(&run), "--json"]]
            .concat();
    let summary: Value = serde_json::from_str(&stdout(&train)).unwrap();
    assert!(summary["final_test_accuracy"].as_f64().unwrap() > 90.0, "{summary}");
    let routes = stdout(&[&["hypergrad", "--precision", "f64", "--json"], &model[..], &small].concat());
    assert!(routes.contains("\"two.toml\"") && routes.contains("per-sample"), "{routes}");
    let study = folder.path().join("study");
    let ablate =
        ["--variants", "published,two-steps", "--seeds", "1", "--epochs", "1", "--out", text(&study)];
    metatape(&[&["ablate"], &model[..], &small, &ablate].concat()).assert().success();
    let bench = ["bench", "--input", "3", "--batch", "10", "--steps", "1"];
    assert!(stdout(&[&bench[..], &model].concat()).contains("two.toml"));
    // Its config is one for the library, too, by path.
    let config = Config { model: text(&mine).to_owned(), ..toml_of(&run.join("config.toml")) };
    let config = Config { model_text: None, ..config };
    assert_eq!(Prepared::new(config).unwrap().config, toml_of(&run.join("config.toml")));
}

/// All that a file can say, but for what has a kink.
const SMOOTH: &str = r#"
layers = [
    { conv = 6, size = 3, bias = "torch" }, { group-norm = 2 }, "gelu",
    { repeat = 2, layers = [{ residual = [{ conv = 6, size = 3, init = "kaiming" }, { layer-norm = 3 }, "tanh"] }] },
    { before = ["batch-norm", "softplus"], residual = [
        { conv = 8, size = 2, stride = 2, pad = 0, init = "kaiming-fan-out" }, { dropout = 0.25 },
        { residual = [{ conv = 8, size = 1 }, "layer-norm", "sigmoid"] },
    ], shortcut = [{ subsample = 2, channels = 8 }] },
    { avg-pool = 2 },
    "flatten",
    { linear = 7, bias = "zero" }, { batch-norm = {}, name = "last" }, "sigmoid",
    { linear = "classes", init = "kaiming", name = "out" },
]
"#;

#[test]
fn the_hypergradient_of_a_file_is_right() {
    let kinks = SMOOTH.replace("\"gelu\"", "\"abs\"").replace("avg-pool = 2", "max-pool = 3, stride = 1");
    let kinks = kinks.replace("\"sigmoid\",\n", "\"relu\",\n");
    let wide = kinks.replace("\"flatten\"", "\"global-avg-pool\"");
    for (name, content) in [("smooth", SMOOTH), ("kinks", &kinks), ("wide", &wide)] {
        let file = ModelFile::parse(name, content).unwrap();
        let net = Net { name: "file", image: [8, 8, 3], classes: 4, model: file.network(4) };
        let of = |route| {
            let config = StepConfig { route, probe: 1e-5, ..StepConfig::default() };
            let (session, program) = run(&net, &config, Options::default(), 1);
            all_outputs(&session, &program, "hypergrad.")
        };
        let reference = of(Route::Reverse);
        assert!(reference.iter().any(|g| g.abs() > 1e-9), "{name}: the hypergradient vanishes");
        let error = relative_error(&of(Route::Jvp), &reference);
        assert!(error < 1e-11, "{name}: relative error {error:e}");
        if name == "smooth" {
            let error = relative_error(&of(Route::FiniteDifference), &reference);
            assert!(error < 1e-5, "{name}: relative error {error:e} to differences");
        }
    }
    // Layers are numbered by kind, and again from 1 in a block.
    let summary = Summary::of(ModelFile::parse("s", SMOOTH).unwrap().network(4).as_ref(), &[8, 8, 3].into());
    let summary = summary.unwrap();
    let weights: Vec<&str> = summary.params.iter().map(|p| p.0.as_str()).collect();
    for name in
        ["conv1.bias", "gn1.scale", "block2.ln1.bias", "block3.bn1.scale", "block3.block1.conv1.weight"]
    {
        assert!(weights.contains(&name), "{name} is not in {weights:?}");
    }
    assert_eq!(weights[weights.len() - 4..], ["last.scale", "last.bias", "out.weight", "out.bias"]);
}

/// What a file says wrongly is told where it is read.
#[test]
fn mistakes_in_a_file_are_one_sentence_with_their_place() {
    let (open, close) = ("{ repeat = 1000000, layers = [".repeat(4), "] }".repeat(4));
    let many = format!("layers = [{open}\"relu\"{close}]");
    let cases: [(&str, &[&str]); 27] = [
        ("layers = [", &["bad.toml, line 1: "]),
        ("\nlayers = 3", &["bad.toml: invalid type: integer `3`", "`layers`"]),
        ("", &["bad.toml: missing field `layers`"]),
        ("layers = []", &["bad.toml: layers: there is no layer here"]),
        ("layer = []", &["unknown field `layer`", "(did you mean `layers`?)"]),
        ("layers = [{}]", &["layers[0]: `{}` is no kind of layer"]),
        ("layers = [3]", &["layers[0]: 3 is no layer", "\"relu\""]),
        (
            "layers = [\"relo\"]",
            &["layers[0]: `relo` is no kind of layer (did you mean `relu`?)", "conv, linear"],
        ),
        (
            "layers = [{ cnv = 3, size = 3 }]",
            &["layers[0]: `cnv`, `size` is no kind of layer (did you mean `conv`?)"],
        ),
        ("layers = [{ conv = 3 }]", &["layers[0]: conv: missing field `size`"]),
        ("layers = [\"linear\"]", &["layers[0]: linear: missing field `linear`"]),
        (
            "layers = [{ conv = 3, size = \"3\" }]",
            &["layers[0]: conv: \"3\" is not a whole number", "`size`"],
        ),
        (
            "layers = [{ conv = 3, sze = 3 }]",
            &["layers[0]: conv: unknown field `sze`", "(did you mean `size`?)"],
        ),
        (
            "layers = [{ linear = -3 }]",
            &["linear: -3 is not a whole number from 1", "\"classes\"", "`linear`"],
        ),
        ("layers = [{ linear = \"class\" }]", &["\"class\" is not", "\"classes\""]),
        (
            "layers = [{ linear = 3, init = \"he\" }]",
            &["unknown variant `he`", "`kaiming-fan-out`", "`init`"],
        ),
        ("layers = [{ dropout = \"x\" }]", &["layers[0]: dropout: invalid type: string \"x\"", "`dropout`"]),
        ("layers = [{ linear = 3, name = \"a.b\" }]", &["\"a.b\" is no name"]),
        ("layers = [{ linear = 3, name = 3 }]", &["3 is no name"]),
        (
            "layers = [{ linear = 3, name = \"a\" }, { linear = 3, name = \"a\" }]",
            &["layers[1]: `a` is the layer at layers[0] already; give this one another `name`"],
        ),
        (
            "layers = [{ linear = 3, name = \"fc2\" }, { linear = 3 }, { linear = 3 }]",
            &[
                "layers[2]: without a `name` it is `fc2`, as the layer at layers[0] is called; give that one another",
            ],
        ),
        (
            "layers = [{ linear = 3 }, { linear = 3, name = \"fc1\" }]",
            &["layers[1]: `fc1` is the layer at layers[0] already; give this one another `name`"],
        ),
        (
            "layers = [{ repeat = 2, layers = [\"relu\", { linear = 3, name = \"a\" }] }]",
            &["layers[0].layers[1]: each repeat has a layer `a`; leave its `name` out"],
        ),
        ("layers = [{ residual = [] }]", &["layers[0].residual: there is no layer here"]),
        ("layers = [{ residual = [\"relo\"] }]", &["layers[0].residual[0]: `relo` is no kind"]),
        ("layers = [\"flatten\", { dropout = 0.5 }]", &["no layer has parameters"]),
        (&many, &["layers[0].layers[0].layers[0].layers[0]", "more than 10000 layers"]),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (content, parts) in cases {
        let bad = write(folder.path(), "bad.toml", content);
        let parts = [&["--model", "bad.toml"], parts].concat();
        fails(&["info", "--model", text(&bad)], 2, &parts);
    }
    fails(&["train", "--model", "not/here.toml"], 2, &["not/here.toml", "cannot read"]);
    fails(&["bench", "--models", "mlp,vgg"], 2, &["`vgg`", "mlp, lenet", ".toml"]);
    fails(&["info", "--model", "mlp", "--input", "32x32"], 2, &["--input", "`32x32`", "HxWxC"]);
}

/// What a layer cannot take is told with its place, its name and its input's shape.
#[test]
fn layers_that_do_not_fit_are_one_sentence_with_their_shapes() {
    let cases: [(&str, &str, &[&str]); 16] = [
        ("{ conv = 3, size = 3 }", "784", &["layers[0] (conv `conv1`)", "[n, 784]", "images [n, h, w, c]"]),
        ("{ linear = 3, name = \"a\" }", "8x8x1", &["layers[0] (linear `a`)", "[n, 8, 8, 1]", "\"flatten\""]),
        (
            "\"relu\", { max-pool = 9 }",
            "8x8x1",
            &["layers[1] (max-pool)", "[n, 8, 8, 1]", "9x9 pixels do not fit"],
        ),
        ("{ max-pool = 2 }", "64", &["layers[0] (max-pool)", "[n, 64]", "images"]),
        ("{ avg-pool = 3 }", "8x8x1", &["layers[0] (avg-pool)", "[n, 8, 8, 1]", "multiples of 3"]),
        ("{ conv = 3, size = 9, pad = 0 }", "8x8x1", &["conv1", "[n, 8, 8, 1]", "9x9 pixels do not fit"]),
        ("{ conv = 3, size = 2 }", "8x8x1", &["conv1", "even size, 2", "`pad`"]),
        ("\"global-avg-pool\"", "64", &["layers[0] (global-avg-pool)", "[n, 64]"]),
        ("{ group-norm = 3 }", "8x8x4", &["gn1", "[n, 8, 8, 4]", "4 channels", "3 groups"]),
        ("{ layer-norm = 4 }", "8x8x4", &["ln1", "[n, 8, 8, 4]", "3 axes, not 4"]),
        ("{ dropout = 1.0 }", "64", &["drop1", "[n, 64]", "less than 1, got 1"]),
        ("{ subsample = 2, channels = 2 }", "8x8x4", &["layers[0] (subsample)", "the 4 that there are"]),
        (
            "{ residual = [{ linear = 3 }] }",
            "4",
            &["layers[0] (residual `block1`)", "[n, 3]", "[n, 4]", "`shortcut`"],
        ),
        (
            "{ residual = [\"relu\", { repeat = 2, layers = [{ max-pool = 6 }] }] }",
            "8x8x1",
            &["layers[0].residual[1].layers[0] (max-pool)", "[n, 1, 1, 1]"],
        ),
        ("{ conv = 1000000, size = 999999 }", "8x8x1", &["conv1", "999999", "more numbers than any machine"]),
        ("\"flatten\"", "8x8x1", &["[n, 64]", "logits [n, 10]", "{ linear = \"classes\" }"]),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (layers, input, parts) in cases {
        let behind = if layers == "\"flatten\"" { "\"batch-norm\"" } else { "{ linear = \"classes\" }" };
        let bad = write(folder.path(), "bad.toml", &format!("layers = [{layers}, {behind}]"));
        fails(&["info", "--model", text(&bad), "--input", input], 1, &[&["bad.toml: "], parts].concat());
    }
    let bad = write(folder.path(), "bad.toml", "layers = [{ linear = \"classes\" }]");
    fails(
        &["train", "--model", text(&bad), "--out", text(&folder.path().join("run"))],
        1,
        &["the samples are not for bad.toml on 28x28x1", "fc1", "[n, 28, 28, 1]"],
    );
    assert!(!folder.path().join("run").exists());
    // Larger than any machine's memory, but not than sizes.
    let large = "layers = [{ conv = 1000000, size = 999 }, \"global-avg-pool\", { linear = \"classes\" }]";
    let large = write(folder.path(), "large.toml", large);
    fails(&["bench", "--model", text(&large), "--input", "28x28x1"], 1, &["MiB", "smaller model"]);
}
