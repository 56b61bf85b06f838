//! Every kind of data and every option trains for an epoch.

use std::path::Path;

use serde_json::Value;

use super::{files, metatape, metrics, text, train};

/// One epoch on a data set; checks what every run's summary has, and returns it.
fn epoch(dataset: &str, data: &Path, args: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let args = [&["--dataset", dataset, "--data-dir", text(data), "--epochs", "1"], args].concat();
    let summary = train(&args, &folder.path().join("run"));
    let accuracy = summary["final_test_accuracy"].as_f64().unwrap();
    assert!((0.0..=100.0).contains(&accuracy) && summary["epochs"] == 1, "{args:?}: {summary}");
    let rows = metrics(&folder.path().join("run"));
    assert_eq!(rows.len(), if summary["baseline_final_test_accuracy"].is_null() { 1 } else { 2 }, "{args:?}");
    for row in rows {
        assert!(row["train_loss"].parse::<f64>().unwrap().is_finite(), "{args:?}: {row:?}");
    }
    summary
}

#[test]
fn every_kind_of_data_trains() {
    let folder = tempfile::tempdir().unwrap();
    let dir = |name: &str| folder.path().join(name);
    let small = ["--meta-size", "20", "--batch", "20"];
    let summary = epoch("mnist", &files::mnist(&dir("mnist"), false), &small);
    assert_eq!((&summary["train_samples"], &summary["meta_samples"]), (&280.into(), &20.into()));
    assert_eq!(summary["steps_per_epoch"], 14);
    let lenet = [&small[..], &["--model", "lenet"]].concat();
    epoch("fashion-mnist", &files::mnist(&dir("fashion"), true), &lenet);
    epoch("cifar10", &files::cifar10(&dir("cifar10")), &[&small[..], &["--model", "lenet"]].concat());
    let cifar100 = ["--meta-size", "100", "--batch", "50", "--noise", "flip:0.2"];
    assert_eq!(epoch("cifar100", &files::cifar100(&dir("cifar100")), &cifar100)["train_samples"], 200);
    let six = ["--meta-size", "6", "--batch", "4"];
    let resnet = [&six[..], &["--model", "resnet32"]].concat();
    assert_eq!(epoch("folder", &files::folder(&dir("colour"), 8, true), &resnet)["steps_per_epoch"], 7);
    epoch("folder", &files::folder(&dir("grey"), 9, false), &six);
}

#[test]
fn every_option_trains() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::mnist(folder.path(), false);
    let run =
        |args: &[&str]| epoch("mnist", &data, &[&["--meta-size", "20", "--batch", "20"], args].concat());

    let tail = run(&["--imbalance", "10", "--noise", "none"]);
    // Nobody has said that the labels are right.
    for field in ["mean_weight_clean", "mean_weight_corrupted", "corrupted_percent"] {
        assert!(tail[field].is_null(), "{field} in {tail}");
    }
    assert!(tail["mean_weight"].as_f64().unwrap() > 0.0, "{tail}");
    let both = run(&["--imbalance", "10", "--noise", "flip2:0.4"]);
    assert_eq!(both["train_samples"], tail["train_samples"]);
    assert!(both["corrupted_percent"].as_f64().unwrap() > 20.0, "{both}");
    let [all, clean, wrong] = ["mean_weight", "mean_weight_clean", "mean_weight_corrupted"]
        .map(|field| both[field].as_f64().unwrap_or_else(|| panic!("{field} in {both}")));
    assert!(clean.min(wrong) <= all && all <= clean.max(wrong), "{both}");
    // 28 images in the largest class and 2 in the smallest.
    assert!(tail["train_samples"].as_u64().unwrap() < 140, "{tail}");

    let uniform = run(&["--method", "uniform"]);
    assert!(uniform["meta_steps_per_second"].is_null() && uniform["weight_curve"] == serde_json::json!([]));
    let curve = |lr: &[&str]| run(&[&["--no-baseline"], lr].concat())["weight_curve"].clone();
    // One virtual step, and a step of V in each, are the default.
    assert_eq!(curve(&["--unroll", "1", "--theta-every", "1"]), curve(&[]));
    // What Adam's preset has with kinks, and as published.
    assert_eq!(curve(&[]), curve(&["--weight-net-lr", "2e-3"]));
    let faithful = ["--weight-net-init", "faithful"];
    assert_eq!(curve(&faithful), curve(&[&faithful[..], &["--weight-net-lr", "1e-3"]].concat()));
    assert_ne!(curve(&[]), curve(&["--weight-net-lr", "1e-2"]));
    let alone = run(&["--no-baseline"]);
    assert!(alone["baseline_best_test_accuracy"].is_null());
    let default = run(&[]);
    assert_eq!(default["baseline_final_test_accuracy"], uniform["final_test_accuracy"]);
    assert_eq!(default["weight_curve"], alone["weight_curve"]);

    // What must change the weights that are learned, does.
    let mut curves = vec![default["weight_curve"].clone()];
    for options in [
        &["--weights", "mean", "--undetached", "--virtual", "momentum", "--nesterov"][..],
        &["--weight-net-preset", "sgd-noise"],
        &["--weight-net-init", "faithful"],
        &["--precision", "f64"],
        &["--unroll", "3"],
        &["--theta-every", "3"],
        &["--route", "neumann:3"],
    ] {
        let curve = run(&[&["--no-baseline"], options].concat())["weight_curve"].clone();
        assert!(!curves.contains(&curve), "{options:?}");
        curves.push(curve);
    }
}

#[test]
fn the_learning_rate_falls_at_a_milestone_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::mnist(folder.path(), false);
    let losses = |milestones: &str| {
        let out = folder.path().join(milestones);
        let set = ["--dataset", "mnist", "--data-dir", text(&data), "--meta-size", "20", "--batch", "20"];
        let how = ["--epochs", "2", "--method", "uniform", "--milestones", milestones];
        train(&[&set[..], &how].concat(), &out);
        let rows = metrics(&out);
        rows.iter().map(|row| row["train_loss"].clone()).collect::<Vec<_>>()
    };
    let (falls, stays) = (losses("1"), losses("none"));
    assert_eq!(falls[0], stays[0]);
    assert_ne!(falls[1], stays[1]);
    assert_eq!(losses("1,2"), falls);
}

/// In f64 the exact routes learn the same curve, and finite differences one that is close.
#[test]
fn every_route_trains() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::mnist(folder.path(), false);
    let curve = |route: &str| -> Vec<f64> {
        let args = ["--meta-size", "20", "--batch", "20", "--no-baseline", "--precision", "f64"];
        let summary = epoch("mnist", &data, &[&args[..], &["--route", route]].concat());
        let points = summary["weight_curve"].as_array().unwrap();
        points.iter().map(|p| p[1].as_f64().unwrap()).collect()
    };
    let jvp = curve("jvp");
    for (route, tolerance) in [("reverse", 1e-6), ("per-sample", 1e-6), ("finite-difference", 1e-2)] {
        for (a, b) in jvp.iter().zip(curve(route)) {
            assert!((a - b).abs() < tolerance, "{route}: {a} {b}");
        }
    }
}

#[test]
fn a_class_aware_weight_net_has_a_curve_a_group_of_classes() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::mnist(folder.path(), false);
    let out = |name: &str| folder.path().join(name);
    let run = |args: &[&str], name: &str| {
        let set = ["--dataset", "mnist", "--data-dir", text(&data), "--meta-size", "20", "--batch", "20"];
        train(&[&set[..], &["--epochs", "2", "--no-baseline"], args].concat(), &out(name))
    };
    let tail = run(&["--method", "cmwnet", "--imbalance", "10", "--noise", "none"], "tail");
    let groups = tail["weight_curves_by_group"].as_array().unwrap();
    let names: Vec<_> = groups.iter().map(|g| g[0].as_str().unwrap()).collect();
    assert_eq!(names, ["large classes", "medium classes", "small classes"]);
    for group in groups {
        assert_eq!(group[1].as_array().unwrap().len(), tail["weight_curve"].as_array().unwrap().len());
    }
    let recorded = std::fs::read_to_string(out("tail").join("config.toml")).unwrap();
    assert!(
        recorded.contains("\nweights = \"mean\"\n") && recorded.contains("\nundetached = false\n"),
        "{recorded}"
    );
    let picture = std::fs::read_to_string(out("tail").join("weight_curve.svg")).unwrap();
    for group in ["cmwnet, large classes", "cmwnet, medium classes", "cmwnet, small classes"] {
        assert!(picture.contains(group), "{group}");
    }
    // Where classes have about one size it is the plain weight net.
    let aware = run(&["--method", "cmwnet", "--noise", "none"], "aware");
    let plain = run(&["--method", "mwnet", "--weights", "mean", "--noise", "none"], "plain");
    assert!(aware["weight_curves_by_group"].is_null());
    assert_eq!(aware["weight_curve"], plain["weight_curve"]);
    assert_eq!(aware["final_test_accuracy"], plain["final_test_accuracy"]);
}

/// A method's own settings change what it does, are recorded whether asked for or not, and are
/// refused where nothing uses them.
#[test]
fn methods_have_settings_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::mnist(&folder.path().join("data"), false);
    let set = ["--dataset", "mnist", "--data-dir", text(&data), "--meta-size", "20", "--batch", "20"];
    let set = [&set[..], &["--epochs", "1", "--no-baseline", "--noise", "uniform:0.6"]].concat();
    let run = |name: &str, args: &[&str]| {
        let out = folder.path().join(name);
        train(&[&set[..], args].concat(), &out);
        let config: toml::Table = std::fs::read_to_string(out.join("config.toml")).unwrap().parse().unwrap();
        let loss: f64 = metrics(&out)[0]["test_loss"].parse().unwrap();
        (config["set"].clone(), loss)
    };
    let (plain, loss) = run("plain", &["--method", "gce"]);
    assert_eq!(plain, toml::Value::Table(toml::toml! { "gce.q" = 0.7 }));
    let (other, moved) = run("other", &["--method", "gce", "--set", "gce.q=0.2"]);
    assert_eq!(other, toml::Value::Table(toml::toml! { "gce.q" = 0.2 }));
    assert!(loss != moved);
    assert_eq!(run("same", &["--method", "gce", "--set", "gce.q=0.7"]), (plain, loss));
    let (mentor, _) = run("mentor", &["--method", "mentornet-pd", "--set", "mentornet-pd.percentile=0.75"]);
    let mentor = mentor.as_table().unwrap();
    assert_eq!((mentor.len(), mentor["mentornet-pd.percentile"].as_float()), (4, Some(0.75)));
    assert_eq!(mentor["mentornet-pd.width"].as_float(), Some(1.0));
    // A rate of its own is as good as everyone's.
    let slow = run("slow", &["--method", "gce", "--lr", "0.02"]).1;
    assert_eq!(run("own", &["--method", "gce", "--set", "gce.lr=0.02"]).1, slow);
    assert_ne!(slow, loss);
    // It goes on with the same flag, and not with another.
    let out = folder.path().join("mentor");
    let resume = ["train", "--method", "mentornet-pd", "--out", text(&out), "--resume", "--json", "--set"];
    metatape(&[&resume[..], &["mentornet-pd.percentile=0.75"]].concat()).assert().success();

    let refused = |args: &[&str], parts: &[&str]| {
        let output = metatape(args).assert().code(2).get_output().clone();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.lines().count() == 1 && parts.iter().all(|part| said.contains(part)), "{said}");
    };
    refused(&[&resume[..], &["mentornet-pd.percentile=0.5"]].concat(), &["--set", "does not fit"]);
    let resume = &resume[..resume.len() - 1];
    let clip = ["--clip-grad none does not fit", "clip_grad = 2"];
    refused(&[resume, &["--clip-grad", "none"]].concat(), &clip);
    let new = folder.path().join("new");
    let begin = [&["train", "--method", "gce", "--out", text(&new)], &set[..], &["--set"]].concat();
    for (setting, parts) in [
        ("gce.q", &["METHOD.NAME=VALUE"][..]),
        ("q=0.5", &["METHOD.NAME=VALUE"]),
        ("gce.q=x", &["METHOD.NAME=VALUE"]),
        ("gce.p=0.5", &["--set gce.p", "it has q"]),
        ("gce.q=1.5", &["--set gce.q", "1.5 is out of range"]),
        ("gce.lr=0", &["--set gce.lr", "0 is not a number above 0"]),
        ("gce.q=NaN", &["--set gce.q", "NaN is out of range"]),
        ("focal.gamma=1", &["focal is not trained here"]),
        ("gec.q=1", &["there is no method `gec` (did you mean `gce`?)"]),
    ] {
        refused(&[&begin[..], &[setting]].concat(), parts);
        assert!(!new.exists());
    }
    let begin = [&["train", "--out", text(&new)], &set[..], &["--method"]].concat();
    for (setting, parts) in [
        (&["mentornet-pd", "--set", "mentornet-pd.percentil=0.5"][..], &["(did you mean `percentile`?)"][..]),
        (&["adaboost", "--set", "adaboost.rounds=2.5"], &["2.5 is no whole number"]),
        (&["adaboost", "--set", "adaboost.rounds=0"], &["0 is out of range"]),
    ] {
        refused(&[&begin[..], setting].concat(), parts);
        assert!(!new.exists());
    }

    // A run of the time before there was the setting goes on: nothing says it, neither file.
    let out = folder.path().join("other");
    let (config, checkpoint) = (out.join("config.toml"), out.join("checkpoint.safetensors"));
    let without = |path: &Path, text: &str| {
        let mut bytes = std::fs::read(path).unwrap();
        let at = bytes.windows(text.len()).position(|w| w == text.as_bytes()).unwrap();
        bytes[at..at + text.len()].fill(b' ');
        let bytes = match path == config {
            true => files::sealed_toml(&String::from_utf8(bytes).unwrap()).into_bytes(),
            false => files::sealed_tensors(bytes),
        };
        std::fs::write(path, bytes).unwrap();
    };
    let resume = ["train", "--out", text(&out), "--resume"];
    without(&config, "\"gce.q\" = 0.2");
    let output = metatape(&resume).assert().code(1).get_output().clone();
    assert!(String::from_utf8(output.stderr).unwrap().contains("now has {\"gce.q\":0.7}"));
    without(&checkpoint, "\\\"gce.q\\\":0.2");
    metatape(&resume).assert().success();
    refused(&["ablate", "--set", "gce.q=0.5"], &["--set is not for ablate"]);
    refused(&["hypergrad", "--set", "gce.q=0.5"], &["--set is not for hypergrad"]);
    let compare = ["compare", "--methods", "uniform,gce", "--out", text(&new)];
    refused(&[&compare[..], &["--set", "focal.gamma=1"]].concat(), &["focal is not trained here"]);
    let some = ["--epochs", "1", "--seeds", "1", "--set", "gce.q=0.5", "--json"];
    metatape(&[&compare[..], &some].concat()).assert().success();
    let cell = std::fs::read_to_string(new.join("cells/gce-seed1/config.toml")).unwrap();
    assert!(cell.contains("\"gce.q\" = 0.5"), "{cell}");
}
