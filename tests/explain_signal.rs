//! What `metatape hypergrad --explain` shows beside the step's own numbers: whose defaults these
//! are, columns from which the pull on V can be computed again, and samples by the size of their
//! class.

use std::collections::HashMap;
use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;

fn output(args: &[&str]) -> String {
    let mut command = Command::cargo_bin("metatape").unwrap();
    let output = command.args(["hypergrad", "--explain"]).args(args).assert().success().get_output().clone();
    String::from_utf8(output.stdout).unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&output(&[args, &["--json"]].concat())).unwrap()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A step's columns from the CSV file, as numbers.
fn columns<const K: usize>(path: &Path, step: &str, names: [&str; K]) -> [Vec<f64>; K] {
    let rows: Vec<HashMap<String, String>> =
        csv::Reader::from_path(path).unwrap().deserialize().map(Result::unwrap).collect();
    names.map(|name| rows.iter().filter(|r| r["step"] == step).map(|r| r[name].parse().unwrap()).collect())
}

#[test]
fn the_pull_can_be_computed_from_the_csv_files_columns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signal.csv");
    let options = [
        &["--weights", "mean"][..],
        &["--weights", "mean", "--undetached", "--virtual", "momentum", "--nesterov"],
        &["--weights", "normalised"],
        &["--weights", "normalised", "--undetached"],
    ];
    for options in options {
        let (normalised, undetached) = (options[1] == "normalised", options.contains(&"--undetached"));
        let args = ["--batch", "10", "--steps", "3", "--precision", "f64", "--lr", "0.1", "--force", "--csv"];
        json(&[&args[..], &[path.to_str().unwrap()], options].concat());
        let names = ["loss", "weight", "slope", "coefficient", "u", "alpha", "pull", "slope_pull"];
        let [l, v, d, c, u, alpha, pull, slope_pull] = columns(&path, "3", names);
        assert!(d.iter().any(|d| *d != 0.0) && pull.iter().any(|p| *p != 0.0), "{options:?}");
        let gain = if options.contains(&"--nesterov") { 1.9 } else { 1.0 };
        let bends = f64::from(u8::from(undetached));
        // The page's S and F; mean weights have n and nothing.
        let total: f64 = if normalised { v.iter().sum() } else { 10.0 };
        let f = if normalised { dot(&v, &l) / total } else { 0.0 };
        let mean = if normalised { dot(&u, &c) } else { 0.0 };
        for i in 0..10 {
            assert!((alpha[i] - 0.1 * gain).abs() < 1e-15, "{options:?}");
            let share = (v[i] + bends * d[i] * (l[i] - f)) / total;
            assert!((c[i] - share).abs() < 1e-13, "{options:?}: {} {share}", c[i]);
            let others = if normalised { bends * (l[i] - f) * dot(&u, &d) / (total * total) } else { 0.0 };
            let p = alpha[i] * ((u[i] - mean) / total - others);
            assert!((pull[i] - p).abs() < 1e-13, "{options:?}: {} {p}", pull[i]);
            let q = alpha[i] * bends * u[i] * (l[i] - f) / total;
            assert!((slope_pull[i] - q).abs() < 1e-13, "{options:?}: {} {q}", slope_pull[i]);
        }
    }
}

#[test]
fn the_page_says_how_to_have_the_step_that_mwnet_takes() {
    let small = ["--batch", "4", "--steps", "1"];
    let page = |more: &[&str]| output(&[&small[..], more].concat()).replace('\n', " ");
    let said = |flags: &str| format!("`metatape train --method mwnet`; for its step, add {flags}.");
    assert!(page(&[]).contains(&said("--weight-net-init kinks --weights normalised")));
    let half = page(&["--weights", "normalised"]);
    assert!(half.contains(&said("--weight-net-init kinks")), "{half}");
    let all = page(&["--weights", "normalised", "--weight-net-init", "kinks"]);
    assert!(!all.contains("for its step"), "{all}");
}

/// The cells of the page's table row that begins with these words, split where two spaces are.
fn row<'p>(page: &'p str, begins: &str) -> Vec<&'p str> {
    let line = page.lines().find(|l| l.trim_start().starts_with(begins));
    let line = line.unwrap_or_else(|| panic!("no line begins with `{begins}`: {page}"));
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

/// As the page writes numbers: four digits.
fn near(shown: &str, value: f64) -> bool {
    let shown: f64 = shown.replace('−', "-").replace('+', "").parse().unwrap();
    (shown - value).abs() <= 1e-3 * value.abs() + 1e-12
}

#[test]
fn a_long_tail_is_shown_by_the_size_of_classes() {
    let args = ["--imbalance", "100", "--noise", "none", "--steps", "3", "--batch", "60"];
    let (page, told) = (output(&args), json(&args));
    let counts: Vec<u64> =
        told["class_counts"].as_array().unwrap().iter().map(|c| c.as_u64().unwrap()).collect();
    assert_eq!((counts[0], counts[9]), (932, 9));
    let samples = told["samples"].as_array().unwrap();
    // Class 0 is the largest, class 9 the smallest.
    for (name, classes, sizes) in
        [("head: 3", 0..3, "932 … "), ("middle: 4", 3..7, " each"), ("tail: 3", 7..10, "… 9 each")]
    {
        let of: Vec<&Value> =
            samples.iter().filter(|s| classes.contains(&s["label"].as_u64().unwrap())).collect();
        let mean = |field: &str| of.iter().map(|s| s[field].as_f64().unwrap()).sum::<f64>() / of.len() as f64;
        let cells = row(&page, name);
        assert!(cells[1].contains(sizes), "{cells:?}");
        assert_eq!(cells[2], of.len().to_string());
        if of.is_empty() {
            assert_eq!(cells[3..], ["-"; 4]);
            continue;
        }
        for (cell, field) in cells[3..].iter().zip(["loss", "u", "weight", "moved"]) {
            assert!(near(cell, mean(field)), "{name}: {cell} is not the mean {field}, {}", mean(field));
        }
    }
    for part in ["class has", "of the tail", "mean u: head", "mean V: head", "(noise none, imbalance 100)"] {
        assert!(page.contains(part), "`{part}` is not in: {page}");
    }
    // What says nothing without noise is not there.
    for part in ["wrong labels", "mean u: right", "with a wrong one"] {
        assert!(!page.contains(part), "`{part}` is in: {page}");
    }
    // The first sample of the few is shown with the size of its class.
    let few = &page[page.find("class has").unwrap()..];
    let cells: Vec<&str> =
        few.lines().nth(1).unwrap().split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
    let sample = samples.iter().find(|s| s["sample"].as_u64() == cells[0].parse().ok()).unwrap();
    assert_eq!(cells[3], counts[sample["label"].as_u64().unwrap() as usize].to_string());
}

#[test]
fn noise_and_tail_show_both() {
    let small = ["--steps", "2", "--batch", "60"];
    let both = output(&[&small[..], &["--imbalance", "20", "--noise", "flip:0.4"]].concat());
    for part in ["class has", "wrong labels", "of the tail", "mean u: right", "mean u: head"] {
        assert!(both.contains(part), "`{part}` is not in: {both}");
    }
    let noise = output(&small);
    for part in ["class has", "of the tail", "mean u: head", "SIZE OF THEIR CLASS"] {
        assert!(!noise.contains(part), "`{part}` is in: {noise}");
    }
    assert!(noise.contains("wrong labels") && noise.contains("mean u: right"));
}
