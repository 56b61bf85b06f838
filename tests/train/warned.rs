//! What a training that has gone wrong says, and where.

use std::fs;

use super::{metatape, text};
use serde_json::Value;

/// A rate that is too large for batches of five: with each of eight seeds losses grew by thousands
/// and were still numbers after an epoch.
const TOO_FAST: [&str; 8] = ["--batch", "5", "--lr", "0.1", "--epochs", "1", "--clip-grad", "none"];

#[test]
fn a_run_that_diverges_is_told_by_name_and_fails_if_strict() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let args = [&["train", "--out", text(&out), "--strict"], &TOO_FAST[..]].concat();
    let output = metatape(&args).assert().code(1).get_output().clone();
    let said = String::from_utf8(output.stderr).unwrap();
    let summary: Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    let warnings: Vec<&str> =
        summary["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert_eq!(page.matches("class=\"warning\"").count(), warnings.len());
    for (method, what) in
        [("mwnet", "the training loss is up to "), ("uniform", "the test accuracy at the end, ")]
    {
        let start = format!("{method}: {what}");
        let warning =
            warnings.iter().find(|w| w.starts_with(&start)).unwrap_or_else(|| panic!("{warnings:?}"));
        assert!(warning.contains("train again with --lr 0.01"), "{warning}");
        assert!(said.contains(&format!("metatape: warning: {warning}\n")), "{said}");
        assert!(page.contains(&format!("Warning: {}", &start)), "{method}");
    }
    assert!(said.lines().last().unwrap().starts_with("metatape: --strict: "), "{said}");
    // A finished run has what it had. Without --strict it only says so.
    let args = ["train", "--out", text(&out), "--resume"];
    let output = metatape(&args).assert().success().get_output().clone();
    assert!(String::from_utf8(output.stderr).unwrap().contains(warnings[0]));
}

#[test]
fn a_comparison_says_it_once_a_method() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("all");
    let mut args =
        vec!["compare", "--out", text(&out), "--methods", "uniform,gce", "--seeds", "2", "--strict"];
    args.extend(["--batch", "500", "--epochs", "1", "--lr", "1e-9"]);
    let output = metatape(&args).assert().code(1).get_output().clone();
    let said = String::from_utf8(output.stderr).unwrap();
    let told: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("metatape: warning: ")).collect();
    let summary: Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    let all: Vec<&str> =
        summary["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    // Whether a fresh network is as good as chance is up to its seed.
    assert!(all.iter().any(|w| w.starts_with("uniform, seed 1: the test accuracy at the end")), "{all:?}");
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    let mut expected = Vec::new();
    for method in ["uniform, ", "gce, "] {
        match &all.iter().filter(|w| w.starts_with(method)).collect::<Vec<_>>()[..] {
            [] => {}
            [one] => expected.push((*one).to_string()),
            [first, ..] => expected.push(format!("{first} (1 seed more with warnings)")),
        }
    }
    assert_eq!(told, expected);
    assert!(page.contains(&format!("Warning: {}", expected[0])), "{expected:?}");
    assert_eq!(page.matches("class=\"warning\"").count(), expected.len());
    assert!(said.lines().last().unwrap().starts_with("metatape: --strict: "), "{said}");
}
