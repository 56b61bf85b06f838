//! Finished studies: `compare` and `ablate` show them without their data, and add seeds and methods
//! or variants to them.

#[allow(dead_code)] // shared with the tests of `train`
#[path = "train/files.rs"]
mod files;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn metatape(args: &[&str], out: &Path) -> Command {
    let mut command = Command::cargo_bin("metatape").unwrap();
    command.args(args).args(["--out", text(out)]);
    command
}

fn summary(args: &[&str], out: &Path) -> Value {
    let output = metatape(args, out).arg("--json").assert().success().get_output().clone();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn fails(args: &[&str], out: &Path, code: i32, parts: &[&str]) {
    let output = metatape(args, out).assert().code(code).get_output().clone();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("metatape: ") && message.lines().count() == 1, "{args:?}: {message}");
    for part in parts {
        assert!(message.contains(part), "{args:?}: `{part}` is not in: {message}");
    }
}

/// All files under a folder, by path.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(contents(&path)),
            false => drop(all.insert(text(&path).to_owned(), fs::read(&path).unwrap())),
        }
    }
    all
}

#[test]
fn a_finished_comparison_is_shown_without_its_data() {
    let folder = tempfile::tempdir().unwrap();
    let (out, moved) = (folder.path().join("out"), folder.path().join("moved"));
    let data = files::folder(&folder.path().join("data"), 8, true);
    let args =
        ["compare", "--dataset", "folder", "--data-dir", text(&data), "--meta-size", "6", "--batch", "10"];
    let args = [&args[..], &["--methods", "uniform,gce", "--seeds", "2", "--epochs", "1"]].concat();
    let before = summary(&args, &out);
    // Classes stand by their names on both pictures of them.
    let picture = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    for (i, class) in ["ant", "bee", "cat"].into_iter().enumerate() {
        assert!(picture("class_accuracy.svg").contains(&format!("\n{class}\n")), "{class}");
        assert!(picture("confusion_gce.svg").contains(&format!("\n{class} {i}\n")), "{class}");
    }
    let drawn = picture("class_accuracy.svg");
    fs::remove_file(out.join("class_accuracy.svg")).unwrap();
    fs::rename(&data, &moved).unwrap();
    assert_eq!(summary(&["compare", "--resume"], &out), before);
    assert_eq!(picture("class_accuracy.svg"), drawn);
    // What would need the data says so, and leaves the comparison as it was.
    let kept = contents(&out);
    fails(&["compare", "--resume", "--seeds", "3"], &out, 1, &[text(&data)]);
    assert!(contents(&out) == kept);
    assert_eq!(summary(&["compare", "--resume"], &out), before);
}

/// All but times.
fn timeless(mut summary: Value) -> Value {
    for row in summary.as_object_mut().unwrap().values_mut().filter_map(Value::as_array_mut).flatten() {
        if let Some(row) = row.as_object_mut() {
            row.remove("ms_per_step");
        }
    }
    summary
}

#[test]
fn a_comparison_grows_by_seeds_and_methods() {
    let folder = tempfile::tempdir().unwrap();
    let (out, whole) = (folder.path().join("out"), folder.path().join("whole"));
    let data = files::mnist(&folder.path().join("data"), false);
    let small =
        ["compare", "--dataset", "mnist", "--data-dir", text(&data), "--meta-size", "20", "--batch", "20"];
    let small = [&small[..], &["--epochs", "1", "--seed", "3"]].concat();
    summary(&[&small[..], &["--methods", "uniform,gce", "--seeds", "2"]].concat(), &out);
    let before = contents(&out.join("cells"));
    let grown = ["compare", "--resume", "--seeds", "3", "--methods", "focal,gce,uniform"];
    let grown = timeless(summary(&grown, &out));
    let all = [&small[..], &["--methods", "uniform,gce,focal", "--seeds", "3"]].concat();
    assert_eq!(grown, timeless(summary(&all, &whole)));
    let after = contents(&out.join("cells"));
    assert!(before.iter().all(|(path, bytes)| after[path] == *bytes), "finished runs are kept as they are");
    let plan = |folder: &Path| fs::read_to_string(folder.join("compare.toml")).unwrap();
    assert_eq!(plan(&out), plan(&whole));
    for (flags, parts) in [
        (["--seeds", "2"], ["--seeds", "started with seeds = 3", "only be added"]),
        (["--methods", "gce"], ["--methods", "uniform,gce,focal", "only be added"]),
        (["--seed", "1"], ["--seed ", "started with seed = 3", "leave the flag out"]),
        (["--epochs", "2"], ["--epochs 2", "epochs = 1", "leave the flag out"]),
    ] {
        fails(&[&["compare", "--resume"], &flags[..]].concat(), &out, 2, &parts);
    }
    assert!(contents(&out.join("cells")) == after);
}

#[test]
fn a_study_is_shown_without_its_data_and_grows() {
    let folder = tempfile::tempdir().unwrap();
    let (out, whole, moved) =
        (folder.path().join("out"), folder.path().join("whole"), folder.path().join("moved"));
    let data = files::mnist(&folder.path().join("data"), false);
    let small =
        ["ablate", "--dataset", "mnist", "--data-dir", text(&data), "--meta-size", "10", "--batch", "20"];
    let small = [&small[..], &["--epochs", "1"]].concat();
    let before = summary(&[&small[..], &["--variants", "uniform", "--seeds", "1"]].concat(), &out);
    assert!(before["conclusions"].as_str().unwrap().contains(", 1 epoch;"), "{before}");
    fs::rename(&data, &moved).unwrap();
    assert_eq!(summary(&["ablate", "--resume"], &out), before);
    fails(&["ablate", "--resume", "--seeds", "2"], &out, 1, &[text(&data)]);
    assert_eq!(summary(&["ablate", "--resume"], &out), before);
    fs::rename(&moved, &data).unwrap();
    let cells = contents(&out.join("cells"));
    let more = ["--variants", "uniform,two-steps", "--seeds", "2"];
    let grown = timeless(summary(&[&["ablate", "--resume"], &more[..]].concat(), &out));
    let at_once = timeless(summary(&[&small[..], &more].concat(), &whole));
    assert_eq!(grown["variants"], at_once["variants"]);
    let after = contents(&out.join("cells"));
    assert!(cells.iter().all(|(path, bytes)| after[path] == *bytes), "finished cells are kept as they are");
    fails(&["ablate", "--resume", "--seeds", "1"], &out, 2, &["--seeds", "seeds = 2", "only be added"]);
    let fewer = ["ablate", "--resume", "--variants", "two-steps"];
    fails(&fewer, &out, 2, &["--variants", "uniform", "only be added"]);
}
