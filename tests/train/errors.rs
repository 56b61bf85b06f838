//! Whatever is wrong is one sentence on standard error that names it, and an exit code.

use std::fs;
use std::path::Path;

use metatape::backend::cpu::Cpu;
use metatape::meta::schemes::Uniform;
use metatape::program::Session;
use metatape::train::{Config, Learner, Method, Prepared, Run};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::{files, metatape, text, train};

/// That the command fails with `code`, and says one sentence with all of `parts` in it.
pub fn fails(args: &[&str], code: i32, parts: &[&str]) {
    let output = metatape(args).assert().code(code).get_output().clone();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("metatape: ") && message.ends_with('\n'), "{args:?}: {message}");
    assert_eq!(message.lines().count(), 1, "{args:?}: {message}");
    assert!(!message.contains("panicked"), "{args:?}: {message}");
    for part in parts {
        assert!(message.contains(part), "{args:?}: `{part}` is not in: {message}");
    }
}

/// Changes a file's content.
fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// That training on `data` after a change to one of its files fails; the file is then as before.
fn spoilt(dataset: &str, data: &Path, file: &str, change: impl FnOnce(&mut Vec<u8>), parts: &[&str]) {
    let path = data.join(file);
    let before = fs::read(&path).unwrap();
    edit(&path, change);
    let out = data.join("must-not-be-made");
    let args = ["train", "--dataset", dataset, "--data-dir", text(data), "--out", text(&out)];
    fails(&args, 1, &[&[file], parts].concat());
    assert!(!out.exists());
    fs::write(path, before).unwrap();
}

#[test]
fn flags() {
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("run");
    let train = |args: &[&str], code, parts: &[&str]| {
        fails(&[&["train", "--out", text(&out)], args].concat(), code, parts);
        assert!(!out.exists(), "{args:?}");
    };
    // What a method has no use for, even if it says what is so by default.
    for flag in [
        &["--weights", "normalised"][..],
        &["--undetached"],
        &["--virtual", "momentum"],
        &["--unroll", "2"],
        &["--route", "jvp"],
        &["--theta-every", "5"],
        &["--weight-net-preset", "sgd-noise"],
        &["--weight-net-lr", "0.1"],
        &["--weight-net-init", "faithful"],
    ] {
        train(&[&["--method", "gce"], flag].concat(), 2, &[flag[0], "means nothing to gce"]);
    }
    train(&["--method", "cmwnet", "--weights", "mean"], 2, &["--weights", "cmwnet"]);
    train(&["--method", "mwnet-longtail", "--weight-net-init", "kinks"], 2, &["--weight-net-init"]);
    train(&["--unroll", "2", "--virtual", "momentum"], 2, &["--unroll", "--virtual momentum"]);
    train(&["--theta-every", "0"], 2, &["--theta-every", "0"]);
    train(&["--epochs", "0"], 2, &["--epochs", "`0`"]);
    train(&["--milestones", "0"], 2, &["--milestones", "`0`"]);
    train(&["--milestones", "12,8"], 2, &["--milestones", "12,8"]);
    train(&["--milestones", "20,30"], 2, &["--milestones 20,30", "--epochs 20", "never fall", "none"]);
    train(&["--route", "forward"], 2, &["--route", "`forward`", "jvp, reverse"]);
    train(
        &["--method", "l2wr"],
        2,
        &["--method", "`l2wr` (did you mean `l2rw`?)", "uniform, clean-only, mixed, focal, adaboost"],
    );
    train(&["--dataset", "cifar-10"], 2, &["--dataset", "`cifar-10` (did you mean `cifar10`?)"]);
    train(&["--model", "resnet"], 2, &["`resnet` (did you mean `resnet32`?)", "wrn28-10, or a file"]);
    train(&["--weight-net-preset", "sgd-nois"], 2, &["did you mean `sgd-noise`?"]);
    train(&["--precision", "f16"], 2, &["--precision", "`f16`"]);
    train(&["--precision", "bf16", "--device", "cpu"], 2, &["--precision bf16", "f32 or f64"]);
    train(&["--batch", "9001"], 2, &["--batch 9001", "9000 training samples"]);
    train(&["--batch", "1000000", "--model", "wrn28-10"], 2, &["--batch 1000000", "9000"]);
    train(&["--meta-size", "10010"], 1, &["--meta-size 10010", "smaller meta set"]);
    train(&["--meta-size", "15"], 2, &["--meta-size 15", "10 classes"]);
    train(&["--dataset", "cifar10"], 2, &["cifar10", "--data-dir"]);
    train(&["--dataset", "mnist", "--data-dir", "not/here"], 1, &["not/here"]);
    train(&["--device", "cuda:7"], 1, &["--device cuda:7"]);
}

#[test]
fn memory_that_no_machine_has() {
    let args = ["bench", "--model", "wrn28-10", "--batch", "1000000", "--steps", "1"];
    fails(&args, 1, &["MiB", "--batch"]);
    let args = ["bench", "--model", "mlp", "--input", "100000x100000x3"];
    fails(&args, 1, &["--input [100000, 100000, 3]", "MiB"]);
    let folder = tempfile::tempdir().unwrap();
    let data = files::folder(&folder.path().join("data"), 8, true);
    let args = ["train", "--dataset", "folder", "--data-dir", text(&data), "--image-size", "1000000"];
    fails(&args, 1, &["--image-size 1000000", "MiB", "take a smaller one"]);
}

#[test]
fn a_loss_that_diverges() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::mnist(&folder.path().join("data"), false);
    for (name, batch) in [("steps", "20"), ("one-step", "280")] {
        let out = folder.path().join(name);
        let args = ["train", "--dataset", "mnist", "--data-dir", text(&data), "--meta-size", "20"];
        let args = [&args[..], &["--lr", "1e30", "--batch", batch, "--out", text(&out)]].concat();
        fails(&args, 1, &["mwnet", "loss", "epoch 1", "--lr"]);
        assert!(!out.join("checkpoint.safetensors").exists());
    }
}

#[test]
fn damaged_data() {
    let folder = tempfile::tempdir().unwrap();
    let half = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    let mnist = files::mnist(&folder.path().join("mnist"), false);
    spoilt("mnist", &mnist, "train-images-idx3-ubyte", half, &["truncated"]);
    spoilt("mnist", &mnist, "t10k-labels-idx1-ubyte", |b| b.truncate(6), &["truncated"]);
    spoilt("mnist", &mnist, "train-labels-idx1-ubyte", |b| b[3] = 3, &["magic number 0x00000803"]);
    spoilt("mnist", &mnist, "train-labels-idx1-ubyte", |b| b[8 + 77] = 10, &["label 10", "byte 85"]);
    spoilt("mnist", &mnist, "train-images-idx3-ubyte", Vec::clear, &["truncated"]);
    let packed = files::mnist(&folder.path().join("packed"), true);
    spoilt("fashion-mnist", &packed, "train-images-idx3-ubyte.gz", half, &["truncated"]);
    let cifar = files::cifar10(&folder.path().join("cifar10"));
    spoilt("cifar10", &cifar, "data_batch_3.bin", |b| b.truncate(5000), &["truncated"]);
    spoilt("cifar10", &cifar, "test_batch.bin", |b| b[3073] = 10, &["label 10", "byte 3073"]);
    let cifar = files::cifar100(&folder.path().join("cifar100"));
    spoilt("cifar100", &cifar, "train.bin", |b| b[1] = 100, &["fine label 100"]);
    let images = files::folder(&folder.path().join("images"), 8, true);
    spoilt("folder", &images, "train/bee/3.png", half, &["decode"]);
    spoilt("folder", &images, "test/cat/13.png", Vec::clear, &["decode"]);
    fs::create_dir(images.join("train/dog")).unwrap();
    let args = ["train", "--dataset", "folder", "--data-dir", text(&images)];
    fails(&args, 1, &["train/dog", "empty class"]);
    for other in ["train/bee", "train/cat", "train/dog", "test/bee", "test/cat"] {
        fs::remove_dir_all(images.join(other)).unwrap();
    }
    fails(&args, 1, &["all samples of images are of the class `ant`"]);
    fs::remove_file(mnist.join("t10k-labels-idx1-ubyte")).unwrap();
    let args = ["train", "--dataset", "mnist", "--data-dir", text(&mnist)];
    fails(&args, 1, &["t10k-labels-idx1-ubyte"]);
}

#[test]
fn output_folders_and_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::mnist(&folder.path().join("data"), false);
    let dir = |name: &str| folder.path().join(name);
    let base = ["--dataset", "mnist", "--data-dir", text(&data), "--meta-size", "20", "--batch", "20"];
    let base = [&base[..], &["--epochs", "1", "--no-baseline"]].concat();
    let out = dir("run");
    train(&base, &out);
    let content = |path: &Path| -> Vec<_> {
        let mut files: Vec<_> = fs::read_dir(path).unwrap().map(|f| f.unwrap().path()).collect();
        files.sort();
        files.into_iter().map(|f| (f.clone(), fs::read(f).unwrap())).collect()
    };
    let before = content(&out);
    let new = |out: &Path, code, parts: &[&str]| {
        fails(&[&["train"], &base[..], &["--out", text(out)]].concat(), code, parts);
    };
    new(&out, 2, &["run holds results already", "--resume", "--out"]);
    assert!(content(&out) == before);
    new(&out.join("metrics.csv"), 1, &["metrics.csv", "folder"]);
    new(&out.join("metrics.csv/below"), 1, &["metrics.csv/below", "folder"]);
    if cfg!(target_os = "linux") {
        new(Path::new("/proc/metatape"), 1, &["/proc/metatape", "folder"]);
    }
    assert!(content(&out) == before);

    let checkpoint = out.join("checkpoint.safetensors");
    let whole = fs::read(&checkpoint).unwrap();
    let resume = |bytes: &[u8], parts: &[&str]| {
        fs::write(&checkpoint, bytes).unwrap();
        fails(&["train", "--resume", "--out", text(&out)], 1, &[&["checkpoint.safetensors"], parts].concat());
        assert_eq!(fs::read(&checkpoint).unwrap(), bytes);
    };
    resume(&whole[..whole.len() - 1], &["is damaged"]);
    resume(&whole[..100], &["is damaged"]);
    resume(b"", &["is damaged"]);
    resume(&[0xff; 4000], &["is damaged"]);
    resume(b"\x02\0\0\0\0\0\0\0{}", &["is damaged"]);
    for (name, options) in [("other", &["--model", "lenet"][..]), ("wide", &["--precision", "f64"])] {
        train(&[&base[..], options].concat(), &dir(name));
        let other = fs::read(dir(name).join("checkpoint.safetensors")).unwrap();
        let had = if name == "wide" { "precision = \"f64\"" } else { "model = \"lenet\"" };
        resume(&other, &[had, "another --out"]);
    }
    // A state that another version had.
    let (_, header) = SafeTensors::read_metadata(&whole).unwrap();
    let file = SafeTensors::deserialize(&whole).unwrap();
    let state = ("mwnet/theta.offsets", TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap());
    let more = safetensors::serialize(file.iter().chain([state]), header.metadata().clone()).unwrap();
    let parts = ["has `mwnet/theta.offsets`, which is not wanted here", "another version", "another --out"];
    resume(&files::sealed_tensors(more), &parts);
    train(&[&base[..], &["--method", "uniform"]].concat(), &dir("uniform"));
    resume(
        &fs::read(dir("uniform").join("checkpoint.safetensors")).unwrap(),
        &["method = \"uniform\"", "\"mwnet\""],
    );

    fs::write(&checkpoint, &whole).unwrap();
    edit(&out.join("config.toml"), |bytes| {
        let config = String::from_utf8(std::mem::take(bytes)).unwrap();
        *bytes = files::sealed_toml(&format!("foo = 1\n{config}")).into_bytes();
    });
    fails(&["train", "--resume", "--out", text(&out)], 1, &["config.toml", "foo"]);
    edit(&out.join("config.toml"), |bytes| bytes.truncate(30));
    fails(&["train", "--resume", "--out", text(&out)], 1, &["config.toml is damaged"]);
}

#[test]
fn a_scheme_of_one_s_own_needs_a_name_of_its_own_and_its_author() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::mnist(&folder.path().join("data"), false);
    let dataset = "mnist".parse().unwrap();
    let small = Config { dataset, data_dir: Some(data), meta_size: Some(20), batch: 20, ..Config::default() };
    let config = Config { epochs: 1, milestones: Vec::new(), ..small };
    let session = || Ok(Session::new(Box::new(Cpu::<f32>::new(1)?)));
    let out = folder.path().join("run");
    let own = |name| Run::own(name, Box::new(Uniform), config.clone(), &out, &session);
    let taken = own("gce").err().unwrap().to_string();
    assert!(taken.contains("`gce` is a method of this crate") && !out.exists(), "{taken}");
    // By its name alone it is nothing.
    let data = Prepared::new(config.clone()).unwrap();
    let nobody = Learner::new(Method::Own("mine"), &data, session().unwrap()).err().unwrap().to_string();
    assert!(nobody.contains("`mine`") && nobody.contains("Run::own"), "{nobody}");
    let mut run = own("mine").unwrap();
    assert_eq!(run.train(&mut ()).unwrap().method, "mine");
    assert!(fs::read_to_string(out.join("config.toml")).unwrap().contains("method = \"mine\""));
    drop(run);
    fails(&["train", "--resume", "--out", text(&out)], 1, &["config.toml", "there is no method `mine`"]);
}

/// Plots are drawn by libraries that abort without memory: it is asked for first. What has been
/// trained is kept, and the plots are drawn when there is room.
#[cfg(target_os = "linux")]
#[test]
fn a_plot_that_no_memory_is_left_for() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let train = format!(
        "ulimit -v 300000; exec {} train --method uniform --epochs 1 --threads 1 --out {}",
        assert_cmd::cargo::cargo_bin!("metatape").display(),
        text(&out)
    );
    let output = std::process::Command::new("sh").args(["-c", &train]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("metatape: drawing a plot needs 256 MiB of memory"), "{said}");
    assert!(out.join("model.safetensors").exists() && !out.join("accuracy.png").exists());
    metatape(&["train", "--resume", "--out", text(&out)]).assert().success();
    assert!(out.join("accuracy.png").exists());
}
