//! `metatape train` from outside: what a run leaves behind, that threads and interruptions change
//! nothing in it, that every kind of data and every option trains, and that whatever is wrong is
//! one sentence.

mod after;
mod errors;
mod files;
mod kept;
mod options;
mod resume;
mod warned;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use assert_cmd::Command;
use metatape::train::{Config, Method};
use safetensors::SafeTensors;
use serde_json::Value;

/// The command; what trains and names no method takes that which all flags are of.
fn metatape(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("metatape").unwrap();
    command.args(args);
    if args.first() == Some(&"train") && !args.iter().any(|arg| ["--method", "--resume"].contains(arg)) {
        command.args(["--method", "mwnet"]);
    }
    command
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `train … --json --out` with success: what it prints, which is `summary.json`.
fn train(args: &[&str], out: &Path) -> Value {
    let args = [&["train"], args, &["--json", "--out", text(out)]].concat();
    let output = metatape(&args).assert().success().get_output().clone();
    assert_eq!(output.stdout, fs::read(out.join("summary.json")).unwrap(), "{args:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The states and their bytes.
fn tensors(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(out.join("checkpoint.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter().map(|(name, view)| (name.to_owned(), view.data().to_vec())).collect()
}

/// The rows of `metrics.csv`, by the names of their columns.
fn metrics(out: &Path) -> Vec<BTreeMap<String, String>> {
    csv::Reader::from_path(out.join("metrics.csv")).unwrap().deserialize().map(Result::unwrap).collect()
}

/// Tensors by name, rows of metrics, the summary.
type Results = (BTreeMap<String, Vec<u8>>, Vec<BTreeMap<String, String>>, Value);

/// All that a run computed: states, metrics and summary.
fn results(out: &Path) -> Results {
    let summary: Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    (tensors(out), metrics(out), summary)
}

#[test]
fn a_run_leaves_all_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/run");
    let summary = train(&["--epochs", "2", "--seed", "5"], &out);
    assert_eq!((&summary["method"], &summary["seed"]), (&"mwnet".into(), &5.into()));
    let number = |field: &str| summary[field].as_f64().unwrap_or_else(|| panic!("{field} in {summary}"));
    for (last, best) in [
        ("final_test_accuracy", "best_test_accuracy"),
        ("baseline_final_test_accuracy", "baseline_best_test_accuracy"),
    ] {
        // In percent: ten classes are not learned to less than half by anyone.
        assert!(50.0 < number(last) && number(last) <= number(best) && number(best) < 100.0, "{summary}");
    }
    assert!(0.0 < number("mean_weight_corrupted") && number("mean_weight_clean") < 1.0, "{summary}");
    assert!(number("mean_weight_corrupted") < number("mean_weight_clean"), "{summary}");
    let times: Value = serde_json::from_slice(&fs::read(out.join("times.json")).unwrap()).unwrap();
    let own = &times["methods"][0];
    assert!(own["steps_per_second"].as_f64().unwrap() > 0.0 && own["seconds"].as_f64().unwrap() > 0.0);
    let curve = summary["weight_curve"].as_array().unwrap();
    assert_eq!(curve.len(), 33);
    for (i, point) in curve.iter().enumerate() {
        assert_eq!(point[0].as_f64().unwrap(), 0.25 * i as f64);
        assert!((0.0..=1.0).contains(&point[1].as_f64().unwrap()));
    }

    let rows = metrics(&out);
    let of: Vec<_> = rows.iter().map(|r| (r["epoch"].as_str(), r["method"].as_str())).collect();
    assert_eq!(of, [("1", "mwnet"), ("1", "uniform"), ("2", "mwnet"), ("2", "uniform")]);
    assert_eq!(rows[2]["test_accuracy"].parse(), Ok(number("final_test_accuracy")));
    assert!(rows.iter().all(|r| r["meta_loss"].is_empty() == (r["method"] == "uniform")));

    // What the library calls the default, with this command's flags.
    let config: Config = toml::from_str(&fs::read_to_string(out.join("config.toml")).unwrap()).unwrap();
    let data = config.data.clone();
    assert_eq!(data.as_ref().map(|data| (data.train, data.test)), Some((10_000, 5_000)));
    assert_eq!(
        config,
        Config {
            clip_grad: Some(2.0),
            epochs: 2,
            milestones: vec![1, 1],
            seed: 5,
            data,
            ..Config::default()
        }
    );

    let config: toml::Table = fs::read_to_string(out.join("config.toml")).unwrap().parse().unwrap();
    assert_eq!(config["noise"].as_str(), Some("uniform:0.6"));
    assert_eq!((config["epochs"].as_integer(), config["seed"].as_integer()), (Some(2), Some(5)));
    assert!(tensors(&out).contains_key("mwnet/w.fc1.weight"));

    let mut names: Vec<_> = fs::read_dir(&out).unwrap().map(|f| f.unwrap().file_name()).collect();
    names.sort();
    let mut expected = vec!["checkpoint.safetensors", "config.toml", "metrics.csv", "model.safetensors"];
    expected.extend(["report.html", "samples.csv", "summary.json", "suspects.csv", "times.json"]);
    let figures = ["accuracy", "class_accuracy", "confusion", "losses", "weight_curve", "weights"];
    let pictures: Vec<_> = figures.iter().flat_map(|f| [format!("{f}.png"), format!("{f}.svg")]).collect();
    expected.extend(pictures.iter().map(String::as_str));
    expected.sort_unstable();
    assert_eq!(names, expected);
    // Each training sample once, and the same in the order of suspicion.
    let rows = |file: &str| -> Vec<BTreeMap<String, String>> {
        let reader = csv::Reader::from_path(out.join(file)).unwrap();
        reader.into_deserialize().map(|row| row.unwrap()).collect()
    };
    let (mut samples, mut suspects) = (rows("samples.csv"), rows("suspects.csv"));
    let wrong = samples.iter().filter(|row| row["given_label"] != row["true_label"]).count();
    assert_eq!((samples.len(), wrong), (9000, summary["finding"]["wrong"].as_u64().unwrap() as usize));
    let score = |row: &BTreeMap<String, String>| row["score"].parse::<f64>().unwrap();
    assert!(suspects.is_sorted_by(|a, b| score(a) >= score(b)));
    samples.sort();
    suspects.sort();
    assert_eq!(samples, suspects);
    for figure in figures {
        let png = image::open(out.join(format!("{figure}.png"))).unwrap();
        assert!(png.width() > 300 && png.height() > 200, "{figure}");
        let svg = fs::read_to_string(out.join(format!("{figure}.svg"))).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{figure}");
    }
}

/// No picture calls a scheme by another's name, and no table says V of what is no weight net.
#[test]
fn pictures_and_tables_name_their_method() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::mnist(&folder.path().join("data"), false);
    let mut curves = 0;
    for method in Method::all() {
        let name = method.to_string();
        let out = folder.path().join(&name);
        let set = ["train", "--dataset", "mnist", "--data-dir", text(&data), "--meta-size", "20"];
        let how = ["--batch", "20", "--epochs", "1", "--method", &name, "--out", text(&out)];
        let output = metatape(&[&set[..], &how].concat()).assert().success().get_output().clone();
        let printed = String::from_utf8(output.stdout).unwrap();
        let svg = |file: &str| fs::read_to_string(out.join(file)).unwrap();
        assert!(svg("accuracy.svg").contains(&format!("\n{name}\n")), "{name}");
        let told = ["\nV(loss) ", "\nweight "].map(|head| printed.contains(head));
        let curve = out.join("weight_curve.svg").exists();
        assert_eq!(told, [curve && method.is_meta(), curve && !method.is_meta()], "{name}: {printed}");
        if curve {
            assert!(svg("weight_curve.svg").contains(&format!("\n{name}, ")), "{name}");
            curves += 1;
        }
    }
    // Six of the loss alone, and the five weight nets.
    assert_eq!(curves, 11);
}

#[test]
fn people_get_lines_and_tables() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::mnist(&folder.path().join("data"), false);
    let out = folder.path().join("run");
    let args = ["train", "--dataset", "mnist", "--data-dir", text(&data), "--meta-size", "20"];
    let args = [&args[..], &["--noise", "uniform:0.6"]].concat();
    let args = [&args[..], &["--batch", "20", "--epochs", "2", "--out", text(&out)]].concat();
    let output = metatape(&args).assert().success().get_output().clone();
    assert!(output.stderr.is_empty());
    let printed = String::from_utf8(output.stdout).unwrap();
    let header = "mnist: 280 training samples of 10 classes, noise uniform:0.6 put on: ";
    for part in [header, "\nmlp on cpu", "\nepoch 1/2", "\nepoch 2/2", "%\n", "\nsuspects: "] {
        assert!(printed.contains(part), "`{part}` is not in: {printed}");
    }
    for part in ["\ntest accuracy", "\nmwnet ", "\nuniform ", "\nmean weight of clean samples ", "\nV(loss)"]
    {
        assert!(printed.contains(part), "`{part}` is not in: {printed}");
    }
    assert_eq!(printed.lines().last(), Some(format!("files: {}", out.display()).as_str()));
}

#[test]
fn threads_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::mnist(&folder.path().join("data"), true);
    let run = |threads: &str| {
        let out = folder.path().join(threads);
        let args = ["--dataset", "mnist", "--data-dir", text(&data), "--meta-size", "20", "--batch", "20"];
        train(&[&args[..], &["--epochs", "3", "--model", "lenet", "--threads", threads]].concat(), &out);
        results(&out)
    };
    assert!(run("1") == run("2"));
}
