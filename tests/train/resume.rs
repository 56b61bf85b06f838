//! A run that was stopped, by whatever, goes on as if nothing had been.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use safetensors::SafeTensors;

use super::errors::fails;
use super::{files, metatape, results, text, train};

/// Epochs that the checkpoint has. It must be readable at any moment, or not be there yet.
fn epochs(out: &Path) -> u64 {
    let Ok(bytes) = fs::read(out.join("checkpoint.safetensors")) else { return 0 };
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let progress = &header.metadata().as_ref().unwrap()["progress"];
    serde_json::from_str::<serde_json::Value>(progress).unwrap()["epochs"].as_u64().unwrap()
}

/// Starts `train`, and kills it (SIGKILL, on Unix) as soon as it has written a checkpoint of at
/// least `epoch` epochs.
fn kill_after(epoch: u64, args: &[&str]) {
    let out = Path::new(args[args.iter().position(|a| *a == "--out").unwrap() + 1]);
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("metatape"));
    let mut child: Child = command.arg("train").args(args).stdout(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while epochs(out) < epoch {
        assert!(child.try_wait().unwrap().is_none(), "it ended before epoch {epoch}");
        assert!(began.elapsed() < Duration::from_secs(60), "epoch {epoch} does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "it ended before it was killed");
}

#[test]
fn a_killed_run_goes_on_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::mnist(&folder.path().join("data"), false);
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let args = ["--dataset", "mnist", "--data-dir", text(&data), "--meta-size", "20", "--batch", "20"];
    // A seed beyond what TOML promises to hold.
    let args =
        [&args[..], &["--epochs", "16", "--method", "mwnet-soft", "--seed", "18446744073709551615"]].concat();
    train(&args, &whole);
    let resume = ["--resume", "--out", text(&killed)];
    kill_after(2, &[&args[..], &["--tensorboard", "--out", text(&killed)]].concat());
    kill_after(5, &resume);
    assert!(epochs(&killed) < 16);

    // A full disk: the checkpoint that is there stays.
    if cfg!(target_os = "linux") {
        let before = fs::read(killed.join("checkpoint.safetensors")).unwrap();
        let partial = killed.join("checkpoint.safetensors.metatape-partial");
        let _ = fs::remove_file(&partial);
        #[cfg(unix)]
        std::os::unix::fs::symlink("/dev/full", &partial).unwrap();
        fails(&[&["train"], &resume[..]].concat(), 1, &["checkpoint.safetensors", "cannot write", "space"]);
        assert_eq!(fs::read(killed.join("checkpoint.safetensors")).unwrap(), before);
        assert!(fs::symlink_metadata(&partial).is_err());
    }

    train(&["--resume"], &killed);
    assert!(results(&killed) == results(&whole));

    // Every epoch is in the event files, and a run that has ended adds none.
    let events = |method: &str| -> Vec<Vec<u8>> {
        let folder = fs::read_dir(killed.join("tensorboard").join(method)).unwrap();
        folder.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
    };
    let epochs = |method| {
        let named = |file: &Vec<u8>| file.windows(13).filter(|w| w == b"test_accuracy").count();
        events(method).iter().map(named).sum::<usize>()
    };
    assert!(epochs("mwnet-soft") >= 16 && epochs("uniform") >= 16);
    let before = events("mwnet-soft");
    train(&["--resume"], &killed);
    assert_eq!(events("mwnet-soft"), before);
    assert!(before.len() >= 3 && !whole.join("tensorboard").exists());
}

#[test]
fn a_killed_run_in_double_precision_with_every_state_goes_on_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::folder(&folder.path().join("data"), 8, true);
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    // Batch norm, both momenta, augmentation.
    let args = ["--dataset", "folder", "--data-dir", text(&data), "--meta-size", "6", "--batch", "4"];
    let options = [
        "--method",
        "mwnet",
        "--model",
        "resnet32",
        "--weight-net-preset",
        "sgd-noise",
        "--precision",
        "f64",
    ];
    let args = [&args[..], &options, &["--epochs", "3", "--lr", "0.01"]].concat();
    train(&args, &whole);
    kill_after(1, &[&args[..], &["--out", text(&killed)]].concat());
    assert!(epochs(&killed) < 3);
    train(&["--resume"], &killed);
    assert!(results(&killed) == results(&whole));
}

#[test]
fn a_run_resumes_at_its_end_and_before_its_first_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::mnist(&folder.path().join("data"), false);
    let out = folder.path().join("run");
    let args = ["--dataset", "mnist", "--data-dir", text(&data), "--meta-size", "20", "--batch", "20"];
    let printed = train(&[&args[..], &["--epochs", "2", "--seed", "3"]].concat(), &out);
    let checkpoint = fs::read(out.join("checkpoint.safetensors")).unwrap();
    let metrics = fs::read(out.join("metrics.csv")).unwrap();

    // Flags that say the same are no contradiction, even if they stand for a path in another way.
    let same = [&args[..], &["--resume", "--seed", "3", "--lr", "0.01", "--threads", "1"]].concat();
    let again = [&["train"], &same[..], &["--json", "--out", text(&out)]].concat();
    let output = metatape(&again).current_dir(folder.path()).assert().success().get_output().clone();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap(), printed);
    assert!(String::from_utf8(output.stderr).unwrap().contains("resumed after epoch 2 of 2"));
    assert_eq!(fs::read(out.join("checkpoint.safetensors")).unwrap(), checkpoint);
    assert_eq!(fs::read(out.join("metrics.csv")).unwrap(), metrics);

    let early = folder.path().join("early");
    fs::create_dir(&early).unwrap();
    fs::copy(out.join("config.toml"), early.join("config.toml")).unwrap();
    train(&["--resume"], &early);
    assert!(results(&early) == results(&out));

    for (flags, parts) in [
        (&["--lr", "0.2"][..], ["--lr 0.2 ", "lr = 0.01"]),
        // The default of a new run is as much of a contradiction as any other value.
        (&["--seed", "1"], ["--seed 1 ", "seed = 3"]),
        (&["--virtual", "momentum"], ["--virtual momentum ", "virtual = plain"]),
        (&["--no-baseline"], ["--no-baseline ", "baseline = true"]),
        (&["--milestones", "1,2"], ["--milestones 1,2 ", "milestones = 1,1"]),
        (&["--epochs", "1"], ["--epochs 1 ", "epochs = 2"]),
        (&["--imbalance", "10"], ["--imbalance 10.0 ", "imbalance = none"]),
        (&["--dataset", "fashion-mnist"], ["--dataset fashion-mnist ", "dataset = mnist"]),
        (&["--precision", "f64"], ["--precision f64 ", "precision = f32"]),
    ] {
        fails(&[&["train", "--resume", "--out", text(&out)], flags].concat(), 2, &parts);
    }
    // A checkpoint goes on under the configuration that it was written with, and a finished run is
    // not begun anew.
    let config = fs::read_to_string(out.join("config.toml")).unwrap();
    let other = files::sealed_toml(&config.replace("seed = 3", "seed = 4"));
    fs::write(out.join("config.toml"), other).unwrap();
    fails(&["train", "--resume", "--out", text(&out)], 1, &["seed = 3", "now has 4", "--out"]);
    fs::write(out.join("config.toml"), config).unwrap();
    fs::remove_file(out.join("checkpoint.safetensors")).unwrap();
    fails(&["train", "--resume", "--out", text(&out)], 2, &["finished run", "--out"]);

    let empty = folder.path().join("empty");
    fails(&["train", "--resume", "--out", text(&empty)], 2, &["empty", "no run", "config.toml"]);
    assert!(!empty.exists());
    fails(&["train", "--resume", "--out", text(&data)], 2, &["data", "no run", "config.toml"]);
}
