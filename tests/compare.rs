//! `metatape compare` from outside: every method on the same data, files and figures, that a killed
//! comparison goes on, presets, bad input.

#[allow(dead_code)] // shared with the tests of `train`
#[path = "train/files.rs"]
mod files;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use assert_cmd::Command;
use serde_json::Value;

const ALL: [&str; 21] = [
    "uniform",
    "clean-only",
    "mixed",
    "focal",
    "adaboost",
    "ohem",
    "spl-hard",
    "spl-linear",
    "geman-mcclure",
    "gce",
    "class-balanced",
    "l2rw",
    "mentornet-pd",
    "glc",
    "co-teaching",
    "fine-tune",
    "mwnet-published",
    "mwnet",
    "mwnet-soft",
    "mwnet-longtail",
    "cmwnet",
];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn metatape(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("metatape").unwrap();
    command.arg("compare").args(args);
    command
}

/// The summary that `compare … --json --out` prints, which is `summary.json`.
fn compare(args: &[&str], out: &Path) -> Value {
    let args = [args, &["--json", "--out", text(out)]].concat();
    let output = metatape(&args).assert().success().get_output().clone();
    assert_eq!(output.stdout, fs::read(out.join("summary.json")).unwrap());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// That the command fails with `code`, and says one sentence with all of `parts` in it.
fn fails(args: &[&str], code: i32, parts: &[&str]) {
    let output = metatape(args).assert().code(code).get_output().clone();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("metatape: ") && message.lines().count() == 1, "{args:?}: {message}");
    for part in parts {
        assert!(message.contains(part), "{args:?}: `{part}` is not in: {message}");
    }
}

fn small(data: &Path) -> Vec<String> {
    let args = ["--dataset", "mnist", "--data-dir", text(data), "--meta-size", "20", "--batch", "20"];
    args.map(str::to_owned).to_vec()
}

fn results(out: &Path) -> (Value, Vec<BTreeMap<String, String>>, Vec<u8>) {
    let summary: Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    let rows =
        csv::Reader::from_path(out.join("results.csv")).unwrap().deserialize().map(Result::unwrap).collect();
    (summary, rows, fs::read(out.join("epochs.csv")).unwrap())
}

#[test]
fn every_method_on_the_same_data() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::mnist(&folder.path().join("data"), false);
    let out = folder.path().join("all");
    let small = small(&data);
    let mut args: Vec<&str> = small.iter().map(String::as_str).collect();
    args.extend(["--epochs", "2", "--seeds", "2", "--imbalance", "2", "--noise", "flip:0.3"]);
    let summary = compare(&[&args[..], &["--methods", "all"]].concat(), &out);
    let methods = summary["methods"].as_array().unwrap();
    assert_eq!(methods.iter().map(|m| m["name"].as_str().unwrap()).collect::<Vec<_>>(), ALL);
    for m in methods {
        let number = |field: &str| m[field].as_f64().unwrap_or_else(|| panic!("{field} in {m}"));
        assert!(number("final_mean") <= number("best_mean") + 1e-9 && number("best_mean") <= 100.0, "{m}");
        assert!(number("final_std") >= 0.0 && m["diverged"] == 0, "{m}");
        assert!((0.0..=100.0).contains(&number("balanced_mean")), "{m}");
        // Methods whose samples have no weights say so.
        let weightless = ["glc", "fine-tune", "clean-only", "mixed"].contains(&m["name"].as_str().unwrap());
        assert_eq!(m["mean_weight_clean"].is_null(), weightless, "{m}");
        assert_eq!(m["gain_mean"].is_null(), m["name"] == "uniform", "{m}");
    }
    // The means are those of the rows.
    let (_, rows, _) = results(&out);
    assert_eq!(rows.len(), 2 * ALL.len());
    let finals: Vec<f64> = rows
        .iter()
        .filter(|r| r["method"] == "gce")
        .map(|r| r["final_test_accuracy"].parse().unwrap())
        .collect();
    let gce = &methods[ALL.iter().position(|name| *name == "gce").unwrap()];
    assert!((gce["final_mean"].as_f64().unwrap() - (finals[0] + finals[1]) / 2.0).abs() < 1e-9);
    let deviation = (finals[0] - finals[1]).abs() / 2f64.sqrt();
    assert!((gce["final_std"].as_f64().unwrap() - deviation).abs() < 1e-9);

    for figure in
        ["accuracy", "weight_curves", "class_accuracy", "confusion_uniform", "confusion_mwnet-longtail"]
    {
        let png = image::open(out.join(format!("{figure}.png"))).unwrap();
        assert!(png.width() > 300 && png.height() > 200, "{figure}");
        assert!(
            fs::read_to_string(out.join(format!("{figure}.svg"))).unwrap().starts_with("<svg"),
            "{figure}"
        );
    }
    // A method's run in the grid is its run alone: same data, same first parameters.
    let alone = folder.path().join("alone");
    let train =
        [&["train"], &args[..2], &args[2..10], &["--imbalance", "2", "--noise", "flip:0.3", "--seed", "2"]]
            .concat();
    let train = [&train[..], &["--method", "gce", "--no-baseline", "--json", "--out", text(&alone)]].concat();
    Command::cargo_bin("metatape").unwrap().args(train).assert().success();
    let alone: Value = serde_json::from_slice(&fs::read(alone.join("summary.json")).unwrap()).unwrap();
    assert_eq!(alone["final_test_accuracy"].as_f64().unwrap(), finals[1]);

    // It is not overwritten, and asking again only shows it.
    let before = results(&out);
    fails(&[&args[..], &["--out", text(&out)]].concat(), 2, &["all", "compare.toml", "--resume"]);
    compare(&["--resume"], &out);
    assert!(results(&out) == before);
    fails(&["--resume", "--seeds", "1", "--out", text(&out)], 2, &["--seeds", "2"]);
    fails(&["--resume", "--methods", "gce", "--out", text(&out)], 2, &["--methods", "uniform,clean-only"]);
    fails(&["--resume", "--lr", "0.2", "--out", text(&out)], 2, &["--lr 0.2", "lr = 0.01"]);
}

/// Seeds that all gain the same, with labels of which nobody knows whether they are right.
#[test]
fn no_spread_and_no_truth() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::mnist(&folder.path().join("data"), false);
    let out = folder.path().join("out");
    let small = small(&data);
    let mut args: Vec<&str> = small.iter().map(String::as_str).collect();
    // Nothing moves, and so nothing is gained.
    args.extend(["--methods", "uniform,gce", "--seeds", "2", "--epochs", "2", "--lr", "1e-30"]);
    let summary = compare(&[&args[..], &["--milestones", "1,2"]].concat(), &out);
    let gce = &summary["methods"][1];
    // One of 50 test images.
    assert_eq!((gce["gain_mean"].as_f64(), gce["gain_half_width"].as_f64()), (Some(0.0), Some(2.0)));
    assert!(gce["mean_weight_clean"].is_null() && gce["mean_weight"].as_f64().unwrap() > 0.0, "{gce}");
    let output = metatape(&["--resume", "--out", text(&out)]).assert().success().get_output().clone();
    let printed = String::from_utf8(output.stdout).unwrap();
    for part in ["+0.00 ± 2.00", "(± at least one test sample)", " weight  ms/step"] {
        assert!(printed.contains(part), "`{part}` is not in: {printed}");
    }
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("± at least one test sample") && page.contains(">weight<"), "{page}");
    let row = &rows(&out.join("results.csv"))[0];
    assert_eq!((&row["mean_weight"][..], &row["mean_weight_clean"][..]), ("1.0", ""));
    // A cell of the time when that of all samples was called that of the clean ones.
    let (path, before) = (out.join("cells/gce-seed1/cell.json"), results(&out));
    let text = fs::read_to_string(&path).unwrap();
    let mut cell: Value = serde_json::from_str(&text).unwrap();
    cell.as_object_mut().unwrap().remove("crc32c").unwrap();
    cell["mean_weight_clean"] = cell.as_object_mut().unwrap().remove("mean_weight").unwrap();
    for row in cell["history"]["rows"].as_array_mut().unwrap() {
        row["mean_weight_clean"] = row.as_object_mut().unwrap().remove("mean_weight").unwrap();
    }
    let text = format!("{cell:#}");
    let text = text.strip_suffix("\n}").unwrap();
    let sum = crc32c::crc32c(text.as_bytes());
    fs::write(&path, format!("{text},\n  \"crc32c\": \"{sum:08x}\"\n}}\n")).unwrap();
    compare(&["--resume"], &out);
    assert!(results(&out) == before);
}

/// What only some of the methods have a use for is theirs, and nothing that none has a use for is
/// taken.
#[test]
fn settings_of_some_methods() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::mnist(&folder.path().join("data"), false);
    let out = folder.path().join("out");
    let small = small(&data);
    let mut args: Vec<&str> = small.iter().map(String::as_str).collect();
    args.extend(["--seeds", "1", "--epochs", "1"]);
    for (flags, parts) in [
        (&["--methods", "uniform,gce", "--weights", "mean"][..], &["--weights", "uniform, gce"][..]),
        (&["--methods", "cmwnet", "--weight-net-init", "kinks"], &["--weight-net-init", "cmwnet"]),
        (&["--methods", "gce,mwnet", "--set", "adaboost.rounds=2"], &["adaboost is not trained here"]),
    ] {
        fails(&[&args[..], flags, &["--out", text(&out)]].concat(), 2, parts);
        assert!(!out.exists());
    }
    args.extend(["--methods", "gce,adaboost,mwnet", "--unroll", "2", "--weights", "mean"]);
    let summary = compare(&[&args[..], &["--set", "adaboost.rounds=2"]].concat(), &out);
    let networks: Vec<_> = summary["methods"].as_array().unwrap().iter().map(|m| &m["networks"]).collect();
    assert_eq!(networks, [1, 2, 1]);
    let config = |method: &str| -> toml::Table {
        let path = out.join("cells").join(format!("{method}-seed1/config.toml"));
        fs::read_to_string(path).unwrap().parse().unwrap()
    };
    let (gce, adaboost, mwnet) = (config("gce"), config("adaboost"), config("mwnet"));
    assert_eq!((gce["weights"].as_str(), gce.get("unroll")), (Some("normalised"), None));
    assert_eq!(adaboost["set"]["adaboost.rounds"].as_float(), Some(2.0));
    assert_eq!((mwnet["weights"].as_str(), mwnet["unroll"].as_integer()), (Some("mean"), Some(2)));
    compare(&["--resume"], &out);
}

#[test]
fn a_killed_comparison_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::mnist(&folder.path().join("data"), false);
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let small = small(&data);
    let mut args: Vec<&str> = small.iter().map(String::as_str).collect();
    // Several stages, memory between them, two networks, a state of the scheme's own.
    args.extend([
        "--methods",
        "glc,adaboost,co-teaching,mentornet-pd,mwnet",
        "--epochs",
        "6",
        "--seeds",
        "2",
    ]);
    compare(&args, &whole);
    let finished = |out: &Path| -> Vec<Vec<u8>> {
        let Ok(cells) = fs::read_dir(out.join("cells")) else { return Vec::new() };
        cells.filter_map(|c| fs::read(c.unwrap().path().join("cell.json")).ok()).collect()
    };
    let kill_after = |count: usize, args: &[&str]| {
        let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("metatape"))
            .arg("compare")
            .args(args)
            .args(["--out", text(&killed)])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while finished(&killed).len() < count {
            assert!(child.try_wait().unwrap().is_none(), "it ended before {count} runs were done");
            assert!(began.elapsed() < Duration::from_secs(120), "run {count} does not come");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
    };
    kill_after(1, &args);
    let kept = finished(&killed);
    kill_after(4, &["--resume"]);
    assert!(kept.iter().all(|cell| finished(&killed).contains(cell)), "finished runs are kept as they are");
    assert!(!killed.join("summary.json").exists());
    compare(&["--resume"], &killed);
    assert!(results(&killed) == results(&whole));
}

#[test]
fn a_run_within_stages_resumes_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::mnist(&folder.path().join("data"), false);
    for method in ["adaboost", "glc"] {
        let (whole, killed) = (folder.path().join(format!("{method}-whole")), folder.path().join(method));
        let small = small(&data);
        let mut args = vec!["train", "--method", method, "--epochs", "4"];
        args.extend(small.iter().map(String::as_str));
        Command::cargo_bin("metatape").unwrap().args(&args).args(["--out", text(&whole)]).assert().success();
        let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("metatape"))
            .args(&args)
            .args(["--out", text(&killed)])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        // Six passes: in the second stage of either.
        let passes = || -> u64 {
            let Ok(bytes) = fs::read(killed.join("checkpoint.safetensors")) else { return 0 };
            let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
            let progress: Value =
                serde_json::from_str(&header.metadata().as_ref().unwrap()["progress"]).unwrap();
            progress["epochs"].as_u64().unwrap()
        };
        while passes() < 6 {
            assert!(child.try_wait().unwrap().is_none(), "{method}: it ended too early");
            assert!(began.elapsed() < Duration::from_secs(60), "{method}: the second stage does not come");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let resume = ["train", "--resume", "--out", text(&killed)];
        Command::cargo_bin("metatape").unwrap().args(resume).assert().success();
        let tensors = |out: &Path| {
            let bytes = fs::read(out.join("checkpoint.safetensors")).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            file.iter().map(|(n, v)| (n.to_owned(), v.data().to_vec())).collect::<BTreeMap<_, _>>()
        };
        assert!(tensors(&whole) == tensors(&killed), "{method}");
    }
}

#[test]
fn presets_set_the_papers_experiments() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    fails(
        &["--preset", "paper-flip2-30", "--out", text(&out)],
        2,
        &["--preset", "`paper-flip2-30`", "paper-flip2-40", "paper-longtail-100-cifar100"],
    );
    fails(&["--preset", "paper-flip2-40", "--out", text(&out)], 2, &["cifar10", "--data-dir"]);
    assert!(!out.exists());
    // What a preset sets, but for what is typed: here everything that makes it small.
    let data = files::mnist(&folder.path().join("data"), false);
    let small = small(&data);
    let mut args: Vec<&str> = small.iter().map(String::as_str).collect();
    args.extend(["--preset", "paper-flip2-40", "--model", "mlp", "--epochs", "1", "--seeds", "1"]);
    let summary = compare(&args, &out);
    let names: Vec<_> = summary["methods"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| (m["name"].as_str().unwrap(), m["paper"].as_f64().unwrap()))
        .collect();
    assert_eq!(
        names,
        [("uniform", 70.77), ("focal", 80.45), ("l2rw", 85.66), ("glc", 88.92), ("mwnet", 87.54)]
    );
    let config = &summary["config"];
    assert_eq!(
        (&config["noise"], config["lr"].as_f64(), &config["weight_net_init"]),
        (&"flip2:0.4".into(), Some(0.1), &"faithful".into())
    );
    let printed = metatape(&["--resume", "--out", text(&out)]).assert().success().get_output().stdout.clone();
    let printed = String::from_utf8(printed).unwrap();
    assert_eq!(summary["departures"][0], "dataset");
    for part in ["paper %*", "87.54", "not its setting here: dataset, meta_size, model, epochs"] {
        assert!(printed.contains(part), "`{part}` is not in: {printed}");
    }
}

#[test]
fn a_plan_that_was_changed_is_understood_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let data = files::mnist(&folder.path().join("data"), false);
    let small = small(&data);
    let mut args: Vec<&str> = small.iter().map(String::as_str).collect();
    args.extend(["--methods", "uniform,gce", "--seeds", "1", "--epochs", "1"]);
    compare(&args, &out);
    let plan = std::fs::read_to_string(out.join("compare.toml")).unwrap();
    for (from, to, part) in [
        ("arms = [\"uniform\", \"gce\"]", "arms = []", "no method or no seed"),
        ("arms = [\"uniform\", \"gce\"]", "arms = [\"gce\", \"gce\"]", "`gce` is listed twice"),
        ("arms = [\"uniform\", \"gce\"]", "arms = [\"boost\"]", "no method `boost`"),
        ("seeds = [1]", "seeds = []", "no method or no seed"),
        ("epochs = 1", "epochs = 2", "has 1 epoch and compare.toml asks for 2"),
        ("epochs = 1", "epochs = 0", "--epochs 0"),
    ] {
        assert!(plan.contains(from), "{plan}");
        std::fs::write(out.join("compare.toml"), files::sealed_toml(&plan.replace(from, to))).unwrap();
        fails(&["--resume", "--out", text(&out)], 1, &[part]);
    }
}

#[test]
fn bad_input() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let fails = |args: &[&str], code, parts: &[&str]| {
        fails(&[args, &["--out", text(&out)]].concat(), code, parts);
        assert!(!out.exists(), "{args:?}");
    };
    fails(
        &["--methods", "uniform,boost"],
        2,
        &["--methods", "`boost`", "uniform, clean-only, mixed, focal, adaboost", "mwnet-longtail"],
    );
    fails(&["--methods", ""], 2, &["--methods", "uniform, clean-only"]);
    fails(&["--methods", "gce,gce"], 2, &["--methods", "`gce`", "twice"]);
    fails(&["--seeds", "0"], 2, &["--seeds", "`0`"]);
    fails(&["--seed", "18446744073709551615"], 2, &["--seed", "5 seeds"]);
    fails(&["--batch", "9001"], 2, &["--batch 9001", "9000"]);
    fails(&["--meta-size", "15"], 2, &["--meta-size 15"]);
    fails(&["--milestones", "25,30"], 2, &["--milestones 25,30", "--epochs 20", "never fall"]);
    fails(&["--resume"], 2, &["no comparison", "compare.toml"]);
}

#[test]
fn a_folder_must_be_named() {
    fails(&["--methods", "gce"], 2, &["--out"]);
}

/// Rows of a table in a folder.
fn rows(path: &Path) -> Vec<BTreeMap<String, String>> {
    csv::Reader::from_path(path).unwrap().deserialize().map(Result::unwrap).collect()
}

#[test]
fn each_method_has_its_best_rate_by_held_out_meta_images() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::mnist(&folder.path().join("data"), false);
    let out = folder.path().join("tuned");
    let small = small(&data);
    let mut args: Vec<&str> = small.iter().map(String::as_str).collect();
    args.extend(["--epochs", "2", "--tune", "--methods", "uniform,gce,clean-only"]);
    let summary = compare(&[&args[..], &["--seeds", "2", "--set", "clean-only.lr=0.03"]].concat(), &out);
    let trials = rows(&out.join("tuning.csv"));
    let of = |method: &str| trials.iter().filter(|row| row["method"] == method).collect::<Vec<_>>();
    // Five rates, and at the best one three more q; what was set is not tuned.
    assert_eq!(["uniform", "gce", "clean-only"].map(|method| of(method).len()), [5, 8, 1]);
    let value = |row: &BTreeMap<String, String>, name: &str| row[name].parse::<f64>().unwrap();
    let rates: Vec<f64> = of("uniform").iter().map(|row| value(row, "lr")).collect();
    assert_eq!(rates, [0.01, 0.004, 0.002, 0.001, 0.0004]);
    for method in ["uniform", "gce", "clean-only"] {
        let best = of(method).iter().map(|row| value(row, "held_out_accuracy")).fold(0.0, f64::max);
        let first = of(method).into_iter().find(|row| value(row, "held_out_accuracy") == best).unwrap();
        let chosen: Vec<_> = of(method).into_iter().filter(|row| row["chosen"] == "true").collect();
        assert_eq!(chosen, [first]);
        let set = &summary["config"]["set"];
        assert_eq!(set[format!("{method}.lr")].as_f64(), Some(value(first, "lr")));
        assert_eq!(set.get(format!("{method}.q")).is_some(), !first["value"].is_empty());
        let cell = fs::read_to_string(out.join(format!("cells/{method}-seed2/config.toml"))).unwrap();
        let cell: toml::Table = cell.parse().unwrap();
        assert_eq!(cell["set"][&format!("{method}.lr")].as_float(), Some(value(first, "lr")));
    }
    // Tested on half of a meta set of 20: 10 images, over two seeds.
    for row in &trials {
        let twentieths = value(row, "held_out_accuracy") / 5.0;
        assert!((twentieths - twentieths.round()).abs() < 1e-9, "{row:?}");
    }
    // It is the comparison that these rates make.
    let plain = folder.path().join("plain");
    let set: Vec<String> =
        summary["config"]["set"].as_object().unwrap().iter().map(|(k, v)| format!("{k}={v}")).collect();
    let mut same: Vec<&str> = args.iter().copied().filter(|arg| *arg != "--tune").collect();
    set.iter().for_each(|setting| same.extend(["--set", setting]));
    compare(&[&same[..], &["--seeds", "2"]].concat(), &plain);
    assert_eq!(results(&out).1, results(&plain).1);
    // The paired differences, and those of the table.
    let differences = rows(&out.join("differences.csv"));
    assert_eq!(differences.len(), 6);
    let gce = differences.iter().find(|row| row["method"] == "gce" && row["less"] == "uniform").unwrap();
    let shown = &summary["methods"][1];
    assert_eq!(shown["gain_mean"].as_f64(), Some(value(gce, "difference")));
    assert_eq!(shown["gain_half_width"].as_f64(), Some(value(gce, "half_width")));
    // Killed behind its tuning, it goes on.
    for file in fs::read_dir(&out).unwrap().map(|file| file.unwrap().path()) {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        if file.is_file() && !["compare.toml", "tuning.csv"].contains(&name.as_str()) {
            fs::remove_file(file).unwrap();
        }
    }
    fs::remove_dir_all(out.join("cells")).unwrap();
    compare(&["--resume"], &out);
    assert_eq!(results(&out).1, results(&plain).1);
    // More seeds and methods: finished trials are kept, the new method's are added.
    let kept = fs::read(out.join("tuning/cells/gce,lr=1e-2-seed1/cell.json")).unwrap();
    let grown = compare(&["--resume", "--seeds", "3", "--methods", "uniform,gce,clean-only,focal"], &out);
    assert_eq!(fs::read(out.join("tuning/cells/gce,lr=1e-2-seed1/cell.json")).unwrap(), kept);
    // What was chosen stays, and all runs of a method have it.
    for (name, value) in summary["config"]["set"].as_object().unwrap() {
        assert_eq!(&grown["config"]["set"][name], value, "{name}");
    }
    assert!(!out.join("tuning/cells/focal,lr=1e-2-seed3").exists());
    fails(
        &["--resume", "--tune", "--out", text(&plain)],
        2,
        &["--tune", "trained without it", "another --out"],
    );
    assert!(!plain.join("tuning").exists());
    assert!(rows(&out.join("tuning.csv")).iter().any(|row| row["method"] == "focal"));
    // A meta set that has no half.
    let none = folder.path().join("none");
    let halved: Vec<&str> = args.iter().map(|arg| if *arg == "20" { "10" } else { *arg }).collect();
    fails(&[&halved[..], &["--out", text(&none)]].concat(), 2, &["--tune", "--meta-size"]);
    assert!(!none.exists());
}
