//! What `metatape hypergrad --explain` shows beside the step's own numbers: columns from which the pull on V can be computed again.

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
