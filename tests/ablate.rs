//! `metatape ablate` from outside: its files, what must be equal in them, interruptions, bad input.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use assert_cmd::Command;
use serde_json::Value;

fn metatape(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("metatape").unwrap();
    command.arg("ablate").args(args);
    command
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Few steps on the built-in data.
const SMALL: [&str; 4] = ["--batch", "500", "--epochs", "2"];

/// The summary of a study that succeeds.
fn study(args: &[&str], out: &Path) -> Value {
    let output =
        metatape(&[args, &["--json", "--out", text(out)]].concat()).assert().success().get_output().clone();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn fails(args: &[&str], code: i32, parts: &[&str]) {
    let output = metatape(args).assert().code(code).get_output().clone();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("metatape: ") && message.lines().count() == 1, "{args:?}: {message}");
    assert!(!message.contains("panicked"), "{args:?}: {message}");
    for part in parts {
        assert!(message.contains(part), "{args:?}: `{part}` is not in: {message}");
    }
}

/// All cells by file name.
fn cells(out: &Path) -> BTreeMap<String, Value> {
    let mut cells = BTreeMap::new();
    for entry in fs::read_dir(out.join("cells")).unwrap() {
        let path = entry.unwrap().path();
        if let Ok(bytes) = fs::read(path.join("cell.json")) {
            let cell: Value = serde_json::from_slice(&bytes).unwrap();
            cells.insert(path.file_name().unwrap().to_str().unwrap().to_owned(), cell);
        }
    }
    cells
}

/// Test accuracies, epoch by epoch.
fn accuracies(cell: &Value) -> Vec<f64> {
    let rows = cell["history"]["rows"].as_array().unwrap();
    rows.iter().map(|row| row["test_accuracy"].as_f64().unwrap()).collect()
}

fn cosines(cell: &Value) -> Vec<f64> {
    cell["cosines"].as_array().unwrap().iter().map(|p| p["cosine"].as_f64().unwrap()).collect()
}

#[test]
fn a_loss_that_does_not_stay_finite_is_a_result() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("study");
    let args = [&SMALL[..], &["--seeds", "1", "--variants", "uniform,two-steps", "--lr", "1e30"]].concat();
    let summary = study(&args, &out);
    for variant in summary["variants"].as_array().unwrap() {
        assert_eq!((&variant["diverged"], &variant["final_mean"]), (&1.into(), &Value::Null), "{variant}");
    }
    let said = summary["conclusions"].as_str().unwrap();
    assert!(said.contains("uniform: the loss did not stay finite with 1 of 1 seed,"), "{said}");
    assert!(fs::read_to_string(out.join("results.csv")).unwrap().contains("smaller --lr"));
    assert_eq!(study(&[&args[..], &["--resume"]].concat(), &out), summary);
    fails(&["--route", "reverse", "--out", text(&folder.path().join("no"))], 2, &["--route", "--variants"]);
}

#[test]
fn a_study_of_everything_leaves_files_that_agree() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/study");
    let summary = study(&[&SMALL[..], &["--seeds", "2"]].concat(), &out);
    let names: Vec<&str> =
        summary["variants"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
    let expected = [
        "published",
        "uniform",
        "clean-10",
        "clean-100",
        "noisy-10",
        "noisy-100",
        "noisy-1000",
        "imbalanced-10",
        "imbalanced-100",
        "imbalanced-1000",
        "train-batch",
        "two-steps",
        "every-5",
        "every-20",
        "unroll-2",
        "unroll-4",
        "unroll-8",
        "finite-difference",
    ];
    assert_eq!(names, expected);
    let on_disk: Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!(on_disk, summary);

    let mut reader = csv::Reader::from_path(out.join("results.csv")).unwrap();
    let rows: Vec<csv::StringRecord> = reader.records().map(|r| r.unwrap()).collect();
    assert_eq!(rows.len(), 36);
    let cells = cells(&out);
    assert_eq!(cells.len(), 36);
    let last = |name: &str, seed: u64| *accuracies(&cells[&format!("{name}-seed{seed}")]).last().unwrap();
    for variant in summary["variants"].as_array().unwrap() {
        let name = variant["name"].as_str().unwrap();
        let (a, b) = (last(name, 1), last(name, 2));
        assert!((variant["final_mean"].as_f64().unwrap() - (a + b) / 2.0).abs() < 1e-9, "{name}");
        assert!(
            (variant["final_std"].as_f64().unwrap() - (a - b).abs() / 2f64.sqrt()).abs() < 1e-9,
            "{name}"
        );
        let of_seed: Vec<&csv::StringRecord> = rows.iter().filter(|r| &r[0] == name).collect();
        assert_eq!(of_seed[0][3].parse::<f64>().unwrap(), a);
        assert_eq!(of_seed[1][3].parse::<f64>().unwrap(), b);
        // Learned more than nothing, in every variant.
        assert!(a > 30.0 && b > 30.0, "{name}: {a} {b}");
        if name == "published" {
            assert!(variant["difference"].is_null());
            continue;
        }
        let (c, d) = (a - last("published", 1), b - last("published", 2));
        let difference = &variant["difference"];
        assert!((difference["mean"].as_f64().unwrap() - (c + d) / 2.0).abs() < 1e-9, "{name}");
        // Student's t with one degree of freedom: 12.706 · s/√2, s = |c − d|/√2.
        // Never less than one of 5000 test images.
        let half = (12.706 * (c - d).abs() / 2.0).max(0.02);
        assert!((difference["half_width"].as_f64().unwrap() - half).abs() < 1e-6, "{name}");
        assert_eq!(variant["beyond_spread"].as_bool().unwrap(), ((c + d) / 2.0).abs() > half, "{name}");
    }
    // The published variant's hypergradient is the exact one; all others' differ.
    for seed in [1, 2] {
        assert!(cosines(&cells[&format!("published-seed{seed}")]).iter().all(|c| (c - 1.0).abs() < 1e-6));
        for name in
            ["clean-10", "noisy-1000", "imbalanced-100", "train-batch", "two-steps", "every-5", "unroll-4"]
        {
            let cosines = cosines(&cells[&format!("{name}-seed{seed}")]);
            assert_eq!(cosines.len(), 4);
            assert!(cosines.iter().all(|c| c.abs() < 1.0 + 1e-9), "{name}");
            // After so few steps, a step with momentum still goes where one without it goes.
            let least = if name == "two-steps" { 1e-9 } else { 1e-4 };
            assert!(cosines.iter().any(|c| (c - 1.0).abs() > least), "{name}: {cosines:?}");
        }
    }
    let conclusions = summary["conclusions"].as_str().unwrap();
    for part in
        ["(a) The meta set.", "(b) The three steps.", "2 seeds", "beyond the spread", "uniform weights"]
    {
        assert!(conclusions.contains(part), "`{part}` is not in: {conclusions}");
    }
    for figure in ["accuracy", "cosine", "cosine_size", "cosine_noisy", "cosine_imbalanced", "cosine_steps"] {
        let png = image::open(out.join(format!("{figure}.png"))).unwrap();
        assert!(png.width() > 300 && png.height() > 200, "{figure}");
        let svg = fs::read_to_string(out.join(format!("{figure}.svg"))).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{figure}");
    }
}

#[test]
fn variants_that_change_nothing_give_the_same_bits() {
    // One that does change something stands before them: nothing of it may be left.
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("study");
    let args = [
        "--seeds",
        "1",
        "--variants",
        "unroll-2,every-1,clean-1000,unroll-1",
        "--imbalance",
        "5",
        "--weights",
        "normalised",
    ];
    let args = [&args[..], &["--batch", "200", "--epochs", "1", "--noise", "flip2:0.4"]].concat();
    let summary = study(&args, &out);
    assert!(summary["conclusions"].as_str().unwrap().contains("nothing can be concluded"));
    let cells = cells(&out);
    let published = &cells["published-seed1"];
    for other in ["every-1-seed1", "clean-1000-seed1", "unroll-1-seed1"] {
        assert_eq!(accuracies(&cells[other]), accuracies(published), "{other}");
        assert_eq!(cells[other]["mean_weight_clean"], published["mean_weight_clean"], "{other}");
        assert!(cosines(&cells[other]).iter().all(|c| (c - 1.0).abs() < 1e-6), "{other}");
    }
}

#[test]
fn finite_differences_point_the_same_way() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("study");
    let args =
        [&SMALL[..], &["--seeds", "1", "--variants", "finite-difference", "--precision", "f64"]].concat();
    study(&args, &out);
    let cosines = cosines(&cells(&out)["finite-difference-seed1"]);
    assert!(cosines.iter().all(|c| *c > 0.99), "{cosines:?}");
    assert!(cosines.iter().any(|c| *c != 1.0), "{cosines:?}");
}

#[test]
fn a_killed_study_goes_on_with_its_finished_cells() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let args =
        [&SMALL[..], &["--seeds", "2", "--variants", "uniform,train-batch,two-steps,every-3"]].concat();
    let expected = study(&args, &whole);

    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("metatape"));
    let mut child = command
        .arg("ablate")
        .args(&args)
        .args(["--out", text(&killed)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let finished = |out: &Path| match fs::read_dir(out.join("cells")) {
        Ok(cells) => cells.filter(|c| c.as_ref().unwrap().path().join("cell.json").exists()).count(),
        Err(_) => 0,
    };
    while finished(&killed) < 3 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
        assert!(began.elapsed() < Duration::from_secs(120), "no cell is finished");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    let done = finished(&killed);
    assert!((3..10).contains(&done), "{done}");
    assert!(!killed.join("summary.json").exists());

    // Nothing is overwritten unasked; a contradiction is told.
    let before = cells(&killed);
    fails(&[&args[..], &["--out", text(&killed)]].concat(), 2, &["killed", "ablate.toml", "--resume"]);
    fails(&["--resume", "--out", text(&killed), "--epochs", "3"], 2, &["--epochs", "epochs = 2"]);
    fails(&["--resume", "--out", text(&killed), "--noise", "flip:0.1"], 2, &["--noise", "uniform:0.6"]);
    fails(&["--resume", "--out", text(&killed), "--seeds", "1"], 2, &["--seeds", "seeds = 2"]);
    assert_eq!(cells(&killed), before);

    // A damaged cell is named, not computed again unasked.
    let cell = killed.join("cells/published-seed1/cell.json");
    let bytes = fs::read(&cell).unwrap();
    fs::write(&cell, &bytes[..bytes.len() / 2]).unwrap();
    fails(
        &["--resume", "--out", text(&killed)],
        1,
        &["published-seed1/cell.json", "remove ", "to have it trained again"],
    );
    // Whole, and of another seed.
    let mut others = fs::read_dir(killed.join("cells")).unwrap().map(|c| c.unwrap().path().join("cell.json"));
    fs::copy(others.find(|other| *other != cell && other.exists()).unwrap(), &cell).unwrap();
    fails(&["--resume", "--out", text(&killed)], 1, &["published-seed1/cell.json: is of ", "remove "]);
    fs::write(&cell, &bytes).unwrap();

    let resumed = study(&["--resume", "--threads", "1"], &killed);
    assert_eq!(fs::read(&cell).unwrap(), bytes, "a finished cell is kept as it is");
    assert_eq!(cells(&killed), cells(&whole));
    let names = |summary: &Value| -> Vec<(Value, Value, Value)> {
        let rows = summary["variants"].as_array().unwrap().iter();
        rows.map(|v| (v["name"].clone(), v["final_mean"].clone(), v["difference"].clone())).collect()
    };
    assert_eq!(names(&resumed), names(&expected));
}

#[test]
fn people_get_a_table_and_a_paragraph() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("study");
    let args =
        [&SMALL[..], &["--seeds", "2", "--variants", "uniform,two-steps", "--out", text(&out)]].concat();
    let output = metatape(&args).assert().success().get_output().clone();
    assert!(output.stderr.is_empty());
    let printed = String::from_utf8(output.stdout).unwrap();
    for part in [
        "cell 1/6: published, seed 1",
        "cell 6/6",
        "\npublished ",
        "\ntwo-steps ",
        "(b) The three steps.",
        "cosine",
    ] {
        assert!(printed.contains(part), "`{part}` is not in: {printed}");
    }
    assert!(!printed.contains("(a) The meta set."));
    assert_eq!(printed.lines().last(), Some(format!("files: {}", out.display()).as_str()));
}

#[test]
fn what_cannot_be_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("must-not-be-made");
    let told = |args: &[&str], code, parts: &[&str]| {
        fails(&[args, &["--out", text(&out)]].concat(), code, parts);
        assert!(!out.exists(), "{args:?}");
    };
    told(&["--variants", "three-steps"], 2, &["--variants", "`three-steps`", "two-steps", "clean-N"]);
    told(&["--variants", "clean-0"], 2, &["`clean-0`"]);
    told(&["--variants", "every-x"], 2, &["`every-x`"]);
    told(&["--variants", "uniform,uniform"], 2, &["--variants", "`uniform` is listed twice"]);
    told(&["--variants", "clean-5000"], 2, &["clean-5000", "1000 images", "--meta-size 5000"]);
    told(&["--variants", "noisy-10", "--noise", "none"], 2, &["noisy-10", "--noise"]);
    told(&["--seeds", "0"], 2, &["--seeds", "`0`"]);
    told(&["--batch", "9000"], 2, &["--batch 9000"]);
    told(&["--meta-size", "9000"], 1, &["meta set of 9000 images"]);
    told(&["--dataset", "cifar10"], 2, &["--data-dir"]);
    told(&["--meta-dir", "."], 2, &["--meta-dir is not for ablate"]);
    told(&["--meta-source", "train-balanced"], 2, &["--meta-source is not for ablate"]);
    told(&["--milestones", "5,3"], 2, &["--milestones"]);
    told(&["--milestones", "20"], 2, &["--milestones 20", "--epochs 20", "never fall"]);
    fails(&["--resume"], 2, &["--out"]);
    fails(&["--resume", "--out", text(&out)], 2, &["must-not-be-made", "no study"]);
    assert!(!out.exists());
}
