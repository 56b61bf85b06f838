//! The command from outside: what it prints, what it writes, and that bad input is one sentence and
//! an exit code.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use assert_cmd::Command;
use metatape::nn::{self, Summary};
use metatape::tape::Shape;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

fn metatape(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("metatape").unwrap();
    command.args(args);
    command
}

/// Standard output of a command that succeeds, as JSON.
fn json(args: &[&str]) -> Value {
    let output = metatape(args).assert().success().get_output().clone();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// That the command fails with `code`, prints nothing, and says one sentence with all of `parts` in
/// it.
fn fails(args: &[&str], code: i32, parts: &[&str]) {
    let output = metatape(args).assert().code(code).get_output().clone();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("metatape: ") && message.ends_with('\n'), "{args:?}: {message}");
    assert_eq!(message.lines().count(), 1, "{args:?}: {message}");
    assert!(!message.contains("panicked"), "{args:?}: {message}");
    for part in parts {
        assert!(message.contains(part), "{args:?}: `{part}` is not in: {message}");
    }
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "{args:?}");
}

#[test]
fn wrong_flags_are_one_sentence_and_code_2() {
    fails(&["trian"], 2, &["trian", "`train`"]);
    fails(&["hypergrad", "--bath", "3"], 2, &["--bath", "`--batch`"]);
    fails(&["info", "more"], 2, &["more"]);
    fails(&["bench", "--steps"], 2, &["--steps"]);
    fails(&["train", "--resume"], 2, &["--out"]);
    fails(&["hypergrad", "--print-tape", "--json"], 2, &["--print-tape", "--json"]);
    fails(&["hypergrad", "--force"], 2, &["--dump"]);
}

#[test]
fn wrong_values_name_the_flag_the_value_and_the_choices() {
    fails(&["hypergrad", "--model", "vgg"], 2, &["--model", "`vgg`", "mlp, lenet, resnet32, wrn28-10"]);
    fails(
        &["hypergrad", "--route", "fast"],
        2,
        &["--route", "`fast`", "layerwise, jvp, reverse, finite-difference"],
    );
    fails(&["train", "--dataset", "mnits"], 2, &["--dataset", "`mnits`", "fashion-mnist-mini, mnist"]);
    fails(&["train", "--noise", "uniform:2"], 2, &["--noise", "`2`", "flip2:P"]);
    fails(&["train", "--noise", "gauss"], 2, &["--noise", "`gauss`", "uniform:P"]);
    fails(
        &["train", "--method", "boost"],
        2,
        &["--method", "`boost`", "uniform, clean-only, mixed, focal, adaboost", "mwnet-longtail"],
    );
    fails(&["train", "--weights", "sum"], 2, &["--weights", "`sum`", "mean, normalised"]);
    fails(&["train", "--virtual", "adam"], 2, &["--virtual", "`adam`", "plain, momentum"]);
    fails(&["train", "--weight-net-preset", "x"], 2, &["--weight-net-preset", "`x`", "sgd-noise"]);
    fails(&["train", "--weight-net-init", "x"], 2, &["--weight-net-init", "`x`", "faithful"]);
    fails(&["train", "--milestones", "3,x"], 2, &["--milestones", "`x`"]);
    fails(&["train", "--epochs", "0"], 2, &["--epochs", "`0`", "from 1"]);
    for value in ["-1", "-inf", "-Infinity", "-NaN", "-.5", "1e308", "0"] {
        fails(&["train", "--lr", value], 2, &["--lr", &format!("`{value}`"), "from 1e-30 to 1e30"]);
    }
    fails(&["train", "--milestones", "-3,2"], 2, &["--milestones", "`-3`"]);
    fails(&["bench", "--lr", "-inf"], 2, &["--lr", "`-inf`", "from 1e-30"]);
    fails(&["compare", "--seeds", "-1e9"], 2, &["--seeds", "`-1e9`"]);
    fails(&["hypergrad", "--json", "-1"], 2, &["--json", "-1"]);
    fails(&["train", "--lr", "nan"], 2, &["--lr", "`nan`"]);
    fails(&["train", "--imbalance", "0.5"], 2, &["--imbalance", "`0.5`", "at least 1"]);
    fails(&["bench", "--batch", "x"], 2, &["--batch", "`x`"]);
    fails(&["bench", "--threads", "0"], 2, &["--threads", "`0`"]);
    fails(&["bench", "--threads", "100000"], 2, &["--threads", "100000"]);
    fails(&["bench", "--precision", "f16"], 2, &["--precision", "`f16`", "f32, f64, tf32, bf16"]);
    fails(&["kernels", "--arch", "sm_75", "--out", "x"], 2, &["--arch", "`sm_75`", "sm_80 or later"]);
    fails(&["kernels", "--out", "x"], 2, &["--arch"]);
    fails(&["bench", "--device", "gpu"], 2, &["--device", "`gpu`", "auto, cpu, cuda"]);
}

#[test]
fn what_the_machine_or_the_data_lack_is_one_sentence() {
    // Without a driver the library is missing; with one, there hardly is an eighth GPU.
    fails(&["bench", "--device", "cuda:7"], 1, &["--device cuda:7"]);
    fails(&["bench", "--device", "cuda", "--precision", "f64"], 2, &["--precision f64", "--device cpu"]);
    fails(
        &["bench", "--device", "cpu", "--precision", "tf32"],
        2,
        &["--precision tf32", "GPU", "f32 or f64"],
    );
    fails(&["hypergrad", "--dataset", "mnist"], 2, &["--data-dir", "train-images-idx3-ubyte"]);
    fails(&["hypergrad", "--dataset", "mnist", "--data-dir", "not/here"], 1, &["not/here"]);
    fails(&["hypergrad", "--meta-size", "7"], 2, &["--meta-size 7", "10 classes"]);
    fails(&["hypergrad", "--meta-size", "10000"], 1, &["--meta-size 10000", "smaller meta set"]);
    fails(&["hypergrad", "--batch", "20000"], 2, &["--batch 20000", "9000"]);
    fails(&["hypergrad", "--imbalance", "1000000"], 1, &["--imbalance 1000000", "empties class"]);
    fails(&["hypergrad", "--dump", "not/here.safetensors"], 1, &["not", "folder"]);
}

/// None is waited for, and none is replaced by a file.
#[cfg(unix)]
#[test]
fn pipes_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.toml");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let pipe = pipe.to_str().unwrap();
    fails(&["bench", "--plan", "--rates", pipe], 2, &["--rates", "pipe.toml", "a pipe"]);
    fails(&["info", "--model", pipe], 2, &["pipe.toml", "a pipe"]);
    if cfg!(feature = "cuda") {
        fails(&["kernels", "--arch", "sm_80", "--out", pipe, pipe], 1, &["pipe.toml", "a pipe"]);
    }
    fails(&["hypergrad", "--dump", pipe, "--force"], 2, &["--dump", "a pipe"]);
    fails(&["hypergrad", "--dump", "/dev/null", "--force"], 2, &["--dump /dev/null", "a device"]);
}

#[test]
fn help_tells_of_everything() {
    for command in ["train", "hypergrad", "ablate", "bench"] {
        let output = metatape(&[command, "--help"]).assert().success().get_output().clone();
        let text = String::from_utf8(output.stdout).unwrap();
        for part in
            ["Usage: metatape", "Examples:", "--model", "--threads", "[default: mlp]", "[default: layerwise]"]
        {
            // The default of `hypergrad --route` is all of them, and `ablate` chooses by itself.
            let routes = part == "[default: layerwise]" && ["hypergrad", "ablate"].contains(&command);
            assert!(text.contains(part) || routes, "{command}: {part}");
        }
    }
    metatape(&[]).assert().code(2);
}

/// Flags that the default method has no use for say whose they are, and examples can be typed.
#[test]
fn help_is_true_of_the_default_method() {
    let help = metatape(&["train", "--help"]).assert().success().get_output().stdout.clone();
    let help = String::from_utf8(help).unwrap();
    for (flag, value) in [
        ("--weights", Some("mean")),
        ("--undetached", None),
        ("--virtual", Some("plain")),
        ("--unroll", Some("1")),
        ("--route", Some("jvp")),
        ("--theta-every", Some("1")),
        ("--weight-net-preset", Some("adam")),
        ("--weight-net-init", Some("kinks")),
    ] {
        let typed: Vec<&str> = ["train", flag].into_iter().chain(value).collect();
        fails(&typed, 2, &[flag, "means nothing to mwnet-soft"]);
        let told =
            help.split("\n      --").find(|told| flag[2..] == *told.split([' ', '\n']).next().unwrap());
        assert!(told.unwrap().contains("mwnet"), "{told:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let examples: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("  metatape train")).collect();
    assert!(examples.len() >= 5, "{examples:?}");
    for example in
        examples.iter().filter(|example| !["--data-dir", "--resume"].iter().any(|f| example.contains(f)))
    {
        let mut command = metatape(&["train"]);
        command.args(example.split_whitespace()).args(["--batch", "9001"]).current_dir(&folder);
        let said = String::from_utf8(command.assert().code(2).get_output().stderr.clone()).unwrap();
        assert!(said.contains("--batch 9001 "), "{example}: {said}");
    }
}

/// What is only printed: help and version by clap, all else by this program.
const PRINTED: [&[&str]; 4] = [&["info"], &["--help"], &["train", "--help"], &["--version"]];

#[test]
fn a_reader_that_leaves_is_no_error() {
    for args in PRINTED {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("metatape"));
        let output = command.args(args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_of() {
    for args in PRINTED {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("metatape"));
        let output = command.args(args).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(
            said.starts_with("metatape: standard output: cannot write: ") && said.lines().count() == 1,
            "{said}"
        );
    }
}

#[test]
fn info_knows_the_machine() {
    let info = json(&["info", "--json"]);
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert!(info["threads"].as_u64().unwrap() >= 1);
    assert!(info["gpus"].is_array() && info["cpu"]["model"].is_string());
    let text = metatape(&["info"]).assert().success().get_output().stdout.clone();
    assert_eq!(String::from_utf8(text).unwrap().lines().count(), 6);
}

/// The relative error of a route in `hypergrad --json`.
fn error_of(result: &Value, route: &str) -> f64 {
    let routes = result["routes"].as_array().unwrap();
    let row =
        routes.iter().find(|r| r["route"] == route).unwrap_or_else(|| panic!("{route} is not in {result}"));
    for field in ["ms", "operations", "peak_buffer_bytes"] {
        assert!(row[field].as_f64().unwrap() > 0.0, "{field} in {row}");
    }
    row["relative_error"].as_f64().unwrap()
}

#[test]
fn routes_agree_on_real_data() {
    for (model, batch, options) in [
        ("mlp", "16", &["--weights", "normalised", "--undetached"][..]),
        ("lenet", "4", &["--virtual", "momentum"][..]),
        ("resnet32", "4", &["--route", "jvp"][..]),
    ] {
        let mut args = vec!["hypergrad", "--model", model, "--batch", batch, "--precision", "f64", "--json"];
        args.extend(options);
        let result = json(&args);
        assert_eq!(error_of(&result, "reverse"), 0.0);
        assert!(error_of(&result, "jvp") < 1e-10, "{result}");
        assert!(result["hypergrad_norm"].as_f64().unwrap() > 0.0);
        if model != "resnet32" {
            assert!(error_of(&result, "per-sample") < 1e-10, "{result}");
            let difference = error_of(&result, "finite-difference");
            assert!(difference > 0.0 && difference < 0.05, "{result}");
        }
    }
}

/// Where the exact gradient is 0, what the routes give is rounding, and is not called an error.
#[test]
fn terms_that_cancel_are_what_errors_are_relative_to() {
    for (weights, precision, cancel) in
        [("normalised", "f32", true), ("normalised", "f64", true), ("mean", "f32", false)]
    {
        let flags = ["--weights", weights, "--precision", precision, "--batch", "1"];
        let result = json(&[&["hypergrad", "--json"][..], &flags].concat());
        assert!(["jvp", "per-sample"].iter().all(|route| error_of(&result, route) < 1e-5), "{result}");
        assert_eq!(result["cancelled_terms"].as_f64().is_some_and(|size| size > 1e-6), cancel, "{result}");
        assert_eq!(result["routes"][1]["cosine"].is_null(), cancel, "{result}");
        let text = metatape(&[&["hypergrad"][..], &flags].concat()).assert().success().get_output().clone();
        let text = String::from_utf8(text.stdout).unwrap();
        assert_eq!(text.contains("0 but for rounding"), cancel, "{text}");
        if cancel {
            let told = json(&[&["hypergrad", "--explain", "--steps", "1", "--json"][..], &flags].concat());
            assert!(told["closed_form_relative_difference"].as_f64().unwrap() < 1e-5);
        }
    }
}

#[test]
fn threads_change_nothing_but_time() {
    let run = |threads| {
        let result = json(&[
            "hypergrad",
            "--model",
            "lenet",
            "--batch",
            "4",
            "--route",
            "jvp",
            "--json",
            "--threads",
            threads,
        ]);
        ["loss", "meta_loss", "hypergrad_norm"].map(|field| result[field].as_f64().unwrap().to_bits())
    };
    assert_eq!(run("1"), run("3"));
}

#[test]
fn a_large_explicit_matrix_is_left_out_unless_asked_for() {
    let result = json(&["hypergrad", "--model", "lenet", "--batch", "100", "--json", "--device", "cpu"]);
    assert_eq!(result["routes"].as_array().unwrap().len(), 6);
    assert_eq!(result["skipped"][0]["route"], "per-sample");
    assert!(result["skipped"][0]["reason"].as_str().unwrap().contains("--route per-sample"));
}

/// Other hypergradients than the step's own have a cosine with it, and no error.
#[test]
fn several_virtual_steps_and_the_inner_optimum_stand_beside_the_step() {
    let result = json(&["hypergrad", "--batch", "20", "--unroll", "3", "--precision", "f64", "--json"]);
    let routes = result["routes"].as_array().unwrap();
    let of =
        |name: &str| routes.iter().find(|r| r["route"] == name).unwrap_or_else(|| panic!("{name}: {result}"));
    assert!(of("jvp")["relative_error"].as_f64().unwrap() < 1e-12);
    for name in ["unroll:3", "neumann:5", "implicit-cg:5"] {
        assert!(of(name)["relative_error"].is_null(), "{result}");
        let cosine = of(name)["cosine"].as_f64().unwrap();
        assert!(cosine > 0.2 && cosine < 1.0 - 1e-9, "{name}: {cosine}");
        // So few terms and iterations do not solve it.
        let residual = of(name)["residual"].as_f64();
        assert_eq!(residual.is_some(), name != "unroll:3", "{result}");
        assert!(residual.is_none_or(|r| r > 1e-3 && r < 100.0), "{name}: {residual:?}");
    }
    let one = json(&["hypergrad", "--batch", "20", "--route", "neumann:1", "--precision", "f64", "--json"]);
    assert!((one["routes"][1]["cosine"].as_f64().unwrap() - 1.0).abs() < 1e-12, "{one}");
    fails(&["hypergrad", "--unroll", "2", "--route", "per-sample"], 2, &["--unroll", "--route"]);
    fails(&["hypergrad", "--unroll", "2", "--virtual", "momentum"], 2, &["--unroll", "--virtual"]);
    fails(&["hypergrad", "--route", "neumann:0"], 2, &["neumann:0", "1"]);
    fails(&["hypergrad", "--route", "neuman:3"], 2, &["neuman:3", "neumann:N"]);
}

#[test]
fn the_printed_tape_has_its_sections() {
    let output =
        metatape(&["hypergrad", "--batch", "4", "--print-tape"]).assert().success().get_output().clone();
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "# losses at w",
        "# virtual step",
        "# hypergradient",
        "# real step",
        "cross-entropy",
        "update w.fc1.weight",
    ] {
        assert!(text.contains(part), "{part}");
    }
}

/// The tensor's shape and numbers.
fn tensor(file: &SafeTensors, name: &str) -> (Vec<usize>, Vec<f64>) {
    let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(view.dtype(), Dtype::F64, "{name}");
    let (numbers, _) = view.data().as_chunks::<8>();
    (view.shape().to_vec(), numbers.iter().map(|b| f64::from_le_bytes(*b)).collect())
}

fn check_dump(path: &Path, model: &str, batch: usize) {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let notes = header.metadata().clone().unwrap();
    assert!(
        notes["layout"].contains("NHWC")
            && notes["layout"].contains("HWIO")
            && notes["layout"].contains("[in, out]")
    );
    assert_eq!(
        (notes["route"].as_str(), notes["seed"].as_str(), notes["lr.theta"].as_str()),
        ("jvp", "7", "0.001")
    );

    for (note, value) in [
        ("classifier.momentum", 0.9),
        ("classifier.weight-decay", 5e-4),
        ("weight-net.eps", 1e-8),
        ("batch-norm eps", 1e-5),
    ] {
        assert_eq!(notes[note].parse(), Ok(value), "{note}");
    }

    let [h, w, c] = [28, 28, 1];
    let w_params = Summary::of(nn::named(model, 10).unwrap().as_ref(), &[h, w, c].into()).unwrap().params;
    let theta: [(&str, Shape); 4] = [
        ("fc1.weight", [1, 100].into()),
        ("fc1.bias", [100].into()),
        ("fc2.weight", [100, 1].into()),
        ("fc2.bias", [1].into()),
    ];
    let theta = theta.map(|(name, shape)| (name.to_owned(), shape));
    let mut count = 2 + 3 + 4;
    for (name, shape) in [("x", vec![batch, h, w, c]), ("x_meta", vec![batch, h, w, c]), ("lr", vec![])] {
        assert_eq!(tensor(&file, name).0, shape, "{name}");
    }
    for name in ["y", "y_meta"] {
        let labels = file.tensor(name).unwrap();
        assert_eq!((labels.dtype(), labels.shape()), (Dtype::I64, &[batch][..]), "{name}");
    }
    for (name, shape) in
        [("loss", vec![batch]), ("weight", vec![batch]), ("u", vec![batch]), ("meta_loss", vec![])]
    {
        assert_eq!(tensor(&file, name).0, shape, "{name}");
    }
    let mut check = |prefixes: &[&str], params: &[(String, Shape)]| {
        for (name, expected) in params {
            for prefix in prefixes {
                let (shape, values) = tensor(&file, &format!("{prefix}.{name}"));
                assert_eq!(shape[..], expected[..], "{prefix}.{name}");
                assert!(values.iter().all(|v| v.is_finite()), "{prefix}.{name}");
                // No part of θ's gradient may be checked against nothing.
                assert!(*prefix != "hypergrad" || values.iter().any(|v| *v != 0.0), "{name}");
                count += 1;
            }
        }
    };
    check(&["w", "virtual", "meta_grad", "w_next"], &w_params);
    check(&["theta", "hypergrad", "theta_next"], &theta);
    assert_eq!(file.len(), count, "{:?}", file.names());

    // The file is of one step: Adam's first, and u = J g, so that ŵ and θ⁺ fit what stands beside
    // them.
    for (name, _) in &theta {
        let [before, h, after] =
            ["theta", "hypergrad", "theta_next"].map(|x| tensor(&file, &format!("{x}.{name}")).1);
        for ((before, h), after) in before.iter().zip(&h).zip(&after) {
            let g = h + 1e-4 * before;
            assert!((before - 1e-3 * g / (g.abs() + 1e-8) - after).abs() < 1e-12, "{name}");
        }
    }
    // fc2.bias adds to every V's logit: ∂L/∂bias = −(α/n) Σ u V (1 − V).
    let [u, v, lr, bias] = ["u", "weight", "lr", "hypergrad.fc2.bias"].map(|name| tensor(&file, name).1);
    let sum: f64 = u.iter().zip(&v).map(|(u, v)| u * v * (1.0 - v)).sum();
    let expected = -lr[0] / batch as f64 * sum;
    assert!((bias[0] - expected).abs() <= 1e-10 * expected.abs(), "{} {expected}", bias[0]);
}

#[test]
fn the_dump_has_every_tensor_of_the_step() {
    let folder = tempfile::tempdir().unwrap();
    for (model, batch) in [("mlp", 6), ("resnet32", 2)] {
        let path = folder.path().join(format!("{model}.safetensors"));
        let (file, n) = (path.to_str().unwrap(), batch.to_string());
        let args = [
            "hypergrad",
            "--model",
            model,
            "--batch",
            &n,
            "--seed",
            "7",
            "--precision",
            "f64",
            "--route",
            "jvp",
        ];
        let args = [&args[..], &["--dump", file]].concat();
        metatape(&args).assert().success();
        check_dump(&path, model, batch);
        if model == "mlp" {
            let before = fs::read(&path).unwrap();
            fails(&args, 2, &["mlp.safetensors", "--force"]);
            assert_eq!(fs::read(&path).unwrap(), before);
            // The same step has the same bytes.
            metatape(&[&args[..], &["--force"]].concat()).assert().success();
            assert!(fs::read(&path).unwrap() == before);
            metatape(&[&args[..], &["--force", "--lr", "0.1"]].concat()).assert().success();
            assert_ne!(fs::read(&path).unwrap(), before);
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}
