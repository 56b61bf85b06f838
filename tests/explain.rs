//! `metatape hypergrad --explain`: its numbers are the step's own and satisfy the closed form. Its
//! signal file: explain_signal.rs. The formulas themselves: derivation.rs.

mod common;

use std::fs;

use assert_cmd::Command;
use common::steps::relative_error;
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

/// `−(α/n) Σ u_i ∂V_i/∂θ` and the weights, straight from the printed numbers: nothing of the
/// library is used.
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
fn where_nobody_knows_no_label_is_called_right() {
    let args = ["--batch", "12", "--steps", "4", "--noise", "none"];
    let page = output(&[&args[..], &["--explain"]].concat());
    assert!(!page.contains("  right  ") && !page.contains("right label"), "{page}");
    let told = json(&args);
    assert!(told["samples"].as_array().unwrap().iter().all(|sample| sample["corrupted"].is_null()));
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
