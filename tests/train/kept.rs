//! Nothing is lost and nothing is silently wrong: files of others, damage, data that changed,
//! signals, more epochs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use safetensors::SafeTensors;
use serde_json::Value;

use super::errors::fails;
use super::{files, metatape, text};

/// All files below a folder, by their paths in it, less those that are about time.
fn contents(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![out.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = text(path.strip_prefix(out).unwrap()).to_owned();
            match path.is_dir() {
                true => folders.push(path),
                false if name.ends_with("times.json") || name.ends_with("times.csv") => {}
                false => drop(all.insert(name, fs::read(path).unwrap())),
            }
        }
    }
    all
}

/// That two folders have the same files, but for times.
fn same(a: &Path, b: &Path) {
    let (a, b) = (contents(a), contents(b));
    assert!(a.keys().eq(b.keys()), "{:?} {:?}", a.keys(), b.keys());
    let differ: Vec<_> = a.iter().filter(|(name, bytes)| b[*name] != **bytes).map(|own| own.0).collect();
    assert!(differ.is_empty(), "{differ:?}");
}

/// The small data set, in the folder `data` of a new one.
fn small(folder: &Path) -> Vec<String> {
    let data = files::mnist(&folder.join("data"), false);
    let set = ["--dataset", "mnist", "--data-dir", text(&data), "--meta-size", "20", "--batch", "20"];
    set.map(str::to_owned).to_vec()
}

fn with<'a>(command: &'a [&'a str], small: &'a [String], out: &'a Path) -> Vec<&'a str> {
    command.iter().copied().chain(small.iter().map(String::as_str)).chain(["--out", text(out)]).collect()
}

const TRAIN: [&str; 5] = ["train", "--method", "mwnet", "--epochs", "2"];
const COMPARE: [&str; 7] = ["compare", "--methods", "uniform,gce", "--seeds", "1", "--epochs", "2"];
const ABLATE: [&str; 7] = ["ablate", "--variants", "two-steps", "--seeds", "1", "--epochs", "2"];

#[test]
fn two_runs_leave_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let small = small(folder.path());
    // A study of ten classes needs few images apart.
    let of_study = [&small[..5], &["10".to_owned()], &small[6..]].concat();
    for (command, small) in [(&TRAIN[..], &small), (&COMPARE, &small), (&ABLATE, &of_study)] {
        let out = |name: &str| folder.path().join(format!("{}-{name}", command[0]));
        for name in ["a", "b"] {
            metatape(&with(command, small, &out(name))).assert().success();
        }
        same(&out("a"), &out("b"));
    }
}

#[test]
fn files_of_others_are_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let small = small(folder.path());
    let all: [(&[&str], &[&str]); 3] = [
        (
            &TRAIN,
            &["accuracy.png", "report.html", "times.json", "weights.svg", "tensorboard", "summary.json"],
        ),
        (&COMPARE, &["accuracy.png", "epochs.csv", "times.csv", "confusion_gce.svg", "cells", "report.html"]),
        (&ABLATE, &["accuracy.png", "cosines.csv", "cosine_steps.png", "results.csv", "epochs.csv"]),
    ];
    for (command, names) in all {
        for name in names {
            let out = folder.path().join("out");
            fs::create_dir(&out).unwrap();
            fs::write(out.join(name), "theirs").unwrap();
            fails(&with(command, &small, &out), 2, &[name, "not of these results", "--out"]);
            assert_eq!(fs::read_to_string(out.join(name)).unwrap(), "theirs");
            assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
            fs::remove_dir_all(out).unwrap();
        }
        // What was begun has not written its end yet, so what is there is another's.
        let out = folder.path().join(command[0]);
        metatape(&with(command, &small, &out)).assert().success();
        fs::remove_file(out.join("summary.json")).unwrap();
        let resume = [command[0], "--resume", "--out", text(&out)];
        let parts =
            ["has no summary.json, but what ", " report.html", "put summary.json back", "--resume writes"];
        fails(&resume, 2, &parts);
        for name in contents(&out).into_keys().filter(|name| !name.contains('/')) {
            if !["toml", "safetensors"].iter().any(|ending| name.ends_with(ending)) && name != "metrics.csv" {
                fs::remove_file(out.join(name)).unwrap();
            }
        }
        let _ = fs::remove_file(out.join("model.safetensors"));
        let _ = fs::remove_file(out.join("times.csv"));
        metatape(&resume).assert().success();
        assert!(out.join("summary.json").exists() && out.join("report.html").exists());
    }
    // More methods: their pictures, too.
    let out = folder.path().join("compare");
    fs::write(out.join("confusion_focal.png"), "theirs").unwrap();
    let more = ["compare", "--resume", "--methods", "uniform,gce,focal", "--out", text(&out)];
    fails(&more, 2, &["confusion_focal.png"]);
    assert_eq!(fs::read_to_string(out.join("confusion_focal.png")).unwrap(), "theirs");
}

/// A random number from 0, below `below`.
fn random(state: &mut u64, below: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize % below
}

#[test]
fn damage_is_named_wherever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let small = small(folder.path());
    let (run, study) = (folder.path().join("run"), folder.path().join("study"));
    metatape(&with(&TRAIN, &small, &run)).assert().success();
    metatape(&with(&COMPARE, &small, &study)).assert().success();
    let resume = ["train", "--resume", "--out", text(&run)];
    let again = ["compare", "--resume", "--out", text(&study)];
    let predict = ["predict", "--run", text(&run), "a.png"];
    let mut state = 1;
    for (file, command, flips) in [
        (run.join("checkpoint.safetensors"), &resume[..], 60),
        (run.join("config.toml"), &resume, 15),
        (run.join("times.json"), &resume, 10),
        (run.join("model.safetensors"), &predict, 15),
        (study.join("compare.toml"), &again, 10),
        (study.join("cells/gce-seed1/cell.json"), &again, 15),
    ] {
        let whole = fs::read(&file).unwrap();
        let refused = |bytes: &[u8]| {
            fs::write(&file, bytes).unwrap();
            fails(command, 1, &[text(&file), " is damaged: "]);
            assert!(fs::read(&file).unwrap() == bytes);
        };
        for flip in 0..flips {
            let mut bytes = whole.clone();
            // Half of them at the beginning, where the header is.
            let bit = random(&mut state, 8 * if flip % 2 == 0 { whole.len() } else { whole.len().min(4096) });
            bytes[bit / 8] ^= 1 << (bit % 8);
            refused(&bytes);
        }
        let mut bytes = whole.clone();
        let at = random(&mut state, whole.len().saturating_sub(4096).max(1));
        bytes[at..].iter_mut().take(4096).for_each(|byte| *byte = 0);
        refused(&bytes);
        fs::write(&file, whole).unwrap();
    }
    // What is only written is written again.
    let metrics = fs::read(run.join("metrics.csv")).unwrap();
    fs::write(run.join("metrics.csv"), "nonsense").unwrap();
    metatape(&resume).assert().success();
    assert_eq!(fs::read(run.join("metrics.csv")).unwrap(), metrics);
}

#[test]
fn data_that_changed_are_refused_and_moved_ones_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::folder(&folder.path().join("data"), 8, true);
    let set = ["--dataset", "folder", "--data-dir", text(&data), "--meta-size", "6", "--batch", "6"];
    let set = set.map(str::to_owned).to_vec();
    let out = |name: &str| folder.path().join(name);
    for command in [&TRAIN[..], &COMPARE, &ABLATE] {
        metatape(&with(command, &set, &out(command[0]))).assert().success();
    }
    let again: [Vec<&str>; 3] = [
        vec!["train", "--resume", "--epochs", "3"],
        vec!["compare", "--resume", "--seeds", "2"],
        vec!["ablate", "--resume", "--seeds", "2"],
    ];
    let refused = |what: &str| {
        for command in &again {
            let out = out(command[0]);
            let before = contents(&out);
            fails(&[&command[..], &["--out", text(&out)]].concat(), 1, &["data has changed", what]);
            assert!(contents(&out) == before);
        }
    };
    let of = |name: &str| data.join("train").join(name);
    let swap = || {
        fs::rename(of("ant"), of("other")).unwrap();
        fs::rename(of("bee"), of("ant")).unwrap();
        fs::rename(of("other"), of("bee")).unwrap();
    };
    swap();
    refused("other images");
    swap();
    let (image, put) = (of("cat/3.png"), fs::read(of("cat/3.png")).unwrap());
    fs::copy(of("cat/4.png"), &image).unwrap();
    refused("other images");
    fs::remove_file(&image).unwrap();
    refused("35 training samples instead of 36");
    fs::write(&image, put).unwrap();
    for part in ["train", "test"] {
        fs::rename(data.join(part).join("cat"), data.join(part).join("dog")).unwrap();
    }
    refused("other classes");
    for part in ["train", "test"] {
        fs::rename(data.join(part).join("dog"), data.join(part).join("cat")).unwrap();
    }
    // It has moved, and is the same.
    let moved = folder.path().join("elsewhere/data");
    fs::create_dir(folder.path().join("elsewhere")).unwrap();
    fs::rename(&data, &moved).unwrap();
    for command in &again {
        let out = out(command[0]);
        let plain = [&command[..], &["--out", text(&out)]].concat();
        fails(&plain, 1, &[text(&data), "not a folder"]);
        metatape(&[&plain[..], &["--data-dir", text(&moved)]].concat()).assert().success();
        // It is known from then on.
        metatape(&[command[0], "--resume", "--out", text(&out)]).assert().success();
    }
    metatape(&["evaluate", "--run", text(&out("train"))]).assert().success();
    fs::remove_file(moved.join("test/ant/12.png")).unwrap();
    fails(&["evaluate", "--run", text(&out("train"))], 1, &["has changed", "8 test samples instead of 9"]);
}

/// Steps that a checkpoint has of an epoch that is not over, of all methods.
fn underway(out: &Path) -> u64 {
    let Ok(bytes) = fs::read(out.join("checkpoint.safetensors")) else { return 0 };
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let progress: Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["progress"]).unwrap();
    progress["underway"].as_array().unwrap().iter().map(|own| own["sums"]["steps"].as_u64().unwrap()).sum()
}

/// Starts the command, and waits until it has said so many lines.
fn started(args: &[&str], lines: usize) -> Child {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("metatape"));
    let command = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let said: Vec<String> = said.by_ref().take(lines).map(Result::unwrap).collect();
    assert_eq!(said.len(), lines, "{args:?}: {said:?}");
    assert!(said[0].starts_with("folder: "), "{said:?}");
    child
}

#[cfg(unix)]
fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap().success());
}

/// What it has said on standard error, and its exit code.
fn ended(child: Child) -> (String, Option<i32>) {
    let output = child.wait_with_output().unwrap();
    (String::from_utf8(output.stderr).unwrap(), output.status.code())
}

#[cfg(unix)]
#[test]
fn a_signal_keeps_the_very_step() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let commands: [(&[&str], &str); 4] = [
        (&["train", "--method", "mwnet-soft"], ""),
        (&["train", "--method", "co-teaching"], ""),
        (&["compare", "--methods", "gce,glc", "--seeds", "1"], "cells/glc-seed1"),
        (&["ablate", "--variants", "every-3", "--seeds", "1"], "cells/published-seed1"),
    ];
    for (command, cell) in commands {
        let (whole, stopped) = (out("whole"), out("stopped"));
        let args = [command, &["--batch", "20", "--epochs", "2", "--threads", "1"]].concat();
        metatape(&[&args[..], &["--out", text(&whole)]].concat()).assert().success();
        let mut within = 0;
        let mut child = started(&[&args[..], &["--out", text(&stopped)]].concat(), 1);
        for (wait, (kind, code)) in [("INT", 130), ("TERM", 143)].into_iter().cycle().enumerate() {
            std::thread::sleep(Duration::from_millis(100 + 150 * wait as u64));
            signal(&child, kind);
            let (said, ended) = ended(child);
            if ended == Some(0) {
                break;
            }
            assert_eq!(ended, Some(code), "{said}");
            let (name, stopped) = (command[0], text(&stopped));
            let line = format!("; go on with `metatape {name} --resume --out {stopped}`\n");
            assert!(said.starts_with("metatape: stopped after ") && said.ends_with(&line), "{said}");
            within += u64::from(underway(&Path::new(stopped).join(cell)) > 0);
            child = started(&[name, "--resume", "--threads", "1", "--out", stopped], 1);
        }
        assert!(within > 0, "{args:?}: no checkpoint was within an epoch");
        same(&whole, &stopped);
        fs::remove_dir_all(whole).unwrap();
        fs::remove_dir_all(stopped).unwrap();
    }
    // The second one does not wait for the step.
    let args = ["train", "--model", "wrn28-10", "--dataset", "fashion-mnist-mini", "--threads", "1"];
    let child = started(&[&args[..], &["--batch", "100", "--out", text(&out("slow"))]].concat(), 3);
    std::thread::sleep(Duration::from_millis(500));
    signal(&child, "TERM");
    std::thread::sleep(Duration::from_millis(100));
    signal(&child, "TERM");
    // Had it waited, it would say where it stopped.
    assert_eq!(ended(child), (String::new(), Some(143)));
    // Without a name of one's own, it is told first.
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("metatape"));
    let output = command.args(["train", "--epochs", "1"]).current_dir(folder.path()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let first = said.lines().next().unwrap().strip_prefix("folder: ").unwrap();
    assert!(folder.path().join(first).join("config.toml").exists(), "{said}");
}

#[test]
fn a_checkpoint_in_the_middle_of_an_epoch_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let args = ["train", "--method", "mwnet", "--batch", "20", "--epochs", "2", "--threads", "1"];
    metatape(&[&args[..], &["--out", text(&whole)]].concat()).assert().success();
    let often = ["--checkpoint-every", "0.0005", "--out", text(&killed)];
    let mut child = started(&[&args[..], &often].concat(), 3);
    let began = Instant::now();
    while underway(&killed) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        assert!(began.elapsed() < Duration::from_secs(60), "no checkpoint comes");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    metatape(&[&["train", "--resume", "--threads", "1"], &often[..]].concat()).assert().success();
    same(&whole, &killed);
    fails(&["train", "--checkpoint-every", "0"], 2, &["--checkpoint-every"]);
}

#[test]
fn a_run_takes_more_epochs() {
    let folder = tempfile::tempdir().unwrap();
    let small = small(folder.path());
    let out = |name: &str| folder.path().join(name);
    let how = ["--milestones", "1", "--epochs"];
    let of = |method, epochs| [&["train", "--method", method], &how[..], &[epochs]].concat();
    metatape(&with(&of("mwnet", "4"), &small, &out("four"))).assert().success();
    metatape(&with(&of("mwnet", "2"), &small, &out("two"))).assert().success();
    let resume = |name: &str, epochs: &str| {
        let out = out(name);
        let args = ["train", "--resume", "--epochs", epochs, "--out", text(&out)];
        let output = metatape(&args).assert().success().get_output().stdout.clone();
        String::from_utf8(output).unwrap()
    };
    let said = resume("two", "4");
    assert!(said.contains("\nresumed after epoch 2 of 4\n") && !said.contains("not as a run"), "{said}");
    same(&out("four"), &out("two"));
    // And where it cannot be the same, it is told what is not.
    metatape(&with(&of("mwnet-soft", "2"), &small, &out("soft"))).assert().success();
    let said = resume("soft", "3");
    assert!(said.contains("not as a run of 3 epochs from the start: what mwnet-soft does"), "{said}");
    let said = resume("two", "5");
    assert!(
        said.contains("not as a run of 5 epochs from the start: loss and weight in samples.csv"),
        "{said}"
    );
    metatape(&with(&["train", "--method", "gce", "--epochs", "2"], &small, &out("usual"))).assert().success();
    assert!(resume("usual", "6").contains("the learning rate falls after epochs 1,1, as usual for 2 epochs"));
    metatape(&with(&of("adaboost", "2"), &small, &out("stages"))).assert().success();
    let out = |name: &str| text(&out(name)).to_owned();
    let more = ["train", "--resume", "--epochs", "3", "--out", &out("stages")];
    fails(&more, 2, &["adaboost trains 5 networks"]);
    let fewer = ["train", "--resume", "--epochs", "3", "--out", &out("two")];
    fails(&fewer, 2, &["--epochs 3 ", "epochs = 5"]);
    let other = ["train", "--resume", "--epochs", "8", "--milestones", "3", "--out", &out("two")];
    fails(&other, 2, &["--milestones 3", "another learning rate"]);
    // Milestones are looked at beside the epochs that there will be.
    let idle = ["train", "--resume", "--epochs", "8", "--milestones", "8,9", "--out", &out("two")];
    fails(&idle, 2, &["--milestones 8,9", "--epochs 8", "never fall"]);
    let some = ["train", "--resume", "--epochs", "6", "--milestones", "1,7", "--out", &out("two")];
    let said = metatape(&some).assert().success().get_output().stderr.clone();
    let note = "metatape: --milestones 7: training ends with --epochs 6, and the learning rate does not fall there\n";
    assert!(String::from_utf8(said).unwrap().starts_with(note));
}

/// A checkpoint of the time when the mean weight of all samples was called that of the clean ones
/// where nobody knows which these are.
#[test]
fn older_means_of_weights_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let (small, out) = (small(folder.path()), folder.path().join("run"));
    metatape(&with(&TRAIN, &small, &out)).assert().success();
    let (path, before) = (out.join("checkpoint.safetensors"), contents(&out));
    let bytes = fs::read(&path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut metadata = header.metadata().clone().unwrap();
    let mut progress: Value = serde_json::from_str(&metadata["progress"]).unwrap();
    for history in progress["histories"].as_array_mut().unwrap() {
        for row in history[1]["rows"].as_array_mut().unwrap() {
            assert!(row["mean_weight_clean"].is_null() && row["mean_weight"].is_f64(), "{row}");
            row["mean_weight_clean"] = row.as_object_mut().unwrap().remove("mean_weight").unwrap();
        }
    }
    metadata.insert("progress".into(), progress.to_string());
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let old = safetensors::serialize(file.iter(), Some(metadata)).unwrap();
    fs::write(&path, files::sealed_tensors(old)).unwrap();
    metatape(&["train", "--resume", "--out", text(&out)]).assert().success();
    let after = contents(&out);
    assert!(["metrics.csv", "summary.json"].iter().all(|name| after[*name] == before[*name]));
}

/// What was stopped before its plan was there has left nothing in the way.
#[test]
fn a_study_that_was_killed_at_its_very_beginning_can_be_started() {
    let folder = tempfile::tempdir().unwrap();
    let small = small(folder.path());
    for (command, plan) in [(&TRAIN[..], "config.toml"), (&COMPARE, "compare.toml"), (&ABLATE, "ablate.toml")]
    {
        let out = folder.path().join(command[0]);
        fs::create_dir(&out).unwrap();
        fs::write(out.join(format!("{plan}.metatape-partial")), "half").unwrap();
        fails(&[command[0], "--resume", "--out", text(&out)], 2, &[plan, "leave --resume out"]);
        metatape(&with(command, &small, &out)).assert().success();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn nobody_has_to_read_what_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let full = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let command = |args: &[&str]| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("metatape"));
        command.args(args).current_dir(folder.path()).stderr(full());
        command
    };
    for (args, code) in
        [(&["train", "--epochs", "0"][..], 2), (&["nonsense"], 2), (&[], 2), (&["train", "--help"], 1)]
    {
        assert_eq!(command(args).stdout(full()).status().unwrap().code(), Some(code), "{args:?}");
    }
    // Progress is on standard error here.
    let output = command(&["train", "--epochs", "1", "--json", "--out", "out"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, fs::read(folder.path().join("out/summary.json")).unwrap());
}
