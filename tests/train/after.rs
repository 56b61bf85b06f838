//! A run's network afterwards: its file as PyTorch reads it, `evaluate`, `predict`, `--init`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use serde_json::{Value, json};

use super::errors::fails;
use super::{files, metatape, metrics, text, train};

/// `[channels][rows·columns]`, as PyTorch counts.
type Image = Vec<Vec<f64>>;

/// A network's tensors, and loops over them in PyTorch's layouts. Nothing here is metatape's.
struct Twin {
    tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
    card: Value,
}

impl Twin {
    fn read(run: &Path) -> Twin {
        let bytes = fs::read(run.join("model.safetensors")).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().clone().unwrap();
        assert_eq!(metadata["format"], "pt");
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let number = |b: &[u8]| match b.len() {
            8 => f64::from_le_bytes(b.try_into().unwrap()),
            _ => f64::from(f32::from_le_bytes(b.try_into().unwrap())),
        };
        let tensor = |(name, view): (&str, safetensors::tensor::TensorView)| {
            let size = view.data().len() / view.shape().iter().product::<usize>();
            (name.to_owned(), (view.shape().to_vec(), view.data().chunks(size).map(number).collect()))
        };
        let tensors = file.iter().map(tensor).collect();
        Twin { tensors, card: serde_json::from_str(&metadata["metatape"]).unwrap() }
    }

    fn numbers(&self, name: &str) -> &[f64] {
        &self.tensors[name].1
    }

    fn shape(&self, name: &str) -> &[usize] {
        &self.tensors[name].0
    }

    fn linear(&self, layer: &str, x: &[f64]) -> Vec<f64> {
        let rows = self.numbers(&format!("{layer}.weight")).chunks(x.len());
        let sums = rows.map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>());
        sums.zip(self.numbers(&format!("{layer}.bias"))).map(|(sum, b)| sum + b).collect()
    }

    fn conv(&self, layer: &str, x: &Image, side: usize, stride: usize) -> Image {
        let [out, channels, size, _] = self.shape(&format!("{layer}.weight"))[..] else { panic!("{layer}") };
        assert_eq!(channels, x.len());
        let (w, pad) = (self.numbers(&format!("{layer}.weight")), size / 2);
        let bias = self.tensors.get(&format!("{layer}.bias")).map(|b| &b.1);
        let at = |o: usize, row: usize, column: usize| {
            let mut sum = bias.map_or(0.0, |b| b[o]);
            for (c, plane) in x.iter().enumerate() {
                for a in 0..size {
                    for b in 0..size {
                        let (i, j) = (row * stride + a, column * stride + b);
                        if (pad..side + pad).contains(&i) && (pad..side + pad).contains(&j) {
                            sum += w[((o * channels + c) * size + a) * size + b]
                                * plane[(i - pad) * side + j - pad];
                        }
                    }
                }
            }
            sum
        };
        let to = side.div_ceil(stride);
        (0..out).map(|o| (0..to * to).map(|p| at(o, p / to, p % to)).collect()).collect()
    }

    fn batch_norm(&self, layer: &str, x: Image) -> Image {
        let of = |role: &str, c: usize| self.numbers(&format!("{layer}.{role}"))[c];
        let plane = |(c, plane): (usize, Vec<f64>)| {
            let scale = of("weight", c) / (of("running_var", c) + 1e-5).sqrt();
            plane.iter().map(|v| (v - of("running_mean", c)) * scale + of("bias", c)).collect()
        };
        x.into_iter().enumerate().map(plane).collect()
    }

    fn logits(&self, x: &Image, side: usize) -> Vec<f64> {
        match self.card["model"].as_str().unwrap() {
            "mlp" => self.linear("fc2", &relu(self.linear("fc1", &x.concat()))),
            "lenet" => {
                let x = pool(relu_all(self.conv("conv1", x, side, 1)), side);
                let x = pool(relu_all(self.conv("conv2", &x, side / 2, 1)), side / 2);
                self.linear("fc2", &relu(self.linear("fc1", &x.concat())))
            }
            _ => {
                let mut x = relu_all(self.batch_norm("bn1", self.conv("conv1", x, side, 1)));
                let mut side = side;
                for block in 1..=15 {
                    let of = |part: &str| format!("block{block}.{part}");
                    let stride = if block == 6 || block == 11 { 2 } else { 1 };
                    let h = relu_all(self.batch_norm(&of("bn1"), self.conv(&of("conv1"), &x, side, stride)));
                    let to = side.div_ceil(stride);
                    let h = self.batch_norm(&of("bn2"), self.conv(&of("conv2"), &h, to, 1));
                    let extra = (h.len() - x.len()) / 2;
                    let kept = |p: usize| (p / to * side + p % to) * stride;
                    let sum = |(c, plane): (usize, &Vec<f64>)| {
                        let old = c.checked_sub(extra).and_then(|c| x.get(c));
                        let add = |(p, v): (usize, &f64)| v + old.map_or(0.0, |old| old[kept(p)]);
                        plane.iter().enumerate().map(add).collect()
                    };
                    (x, side) = (relu_all(h.iter().enumerate().map(sum).collect()), to);
                }
                let means: Vec<f64> = x.iter().map(|p| p.iter().sum::<f64>() / p.len() as f64).collect();
                self.linear("fc", &means)
            }
        }
    }
}

fn relu(x: Vec<f64>) -> Vec<f64> {
    x.into_iter().map(|v| v.max(0.0)).collect()
}

fn relu_all(x: Image) -> Image {
    x.into_iter().map(relu).collect()
}

fn pool(x: Image, side: usize) -> Image {
    let to = side / 2;
    let most = |plane: &Vec<f64>, p: usize| {
        let at = |a: usize, b: usize| plane[(p / to * 2 + a) * side + p % to * 2 + b];
        at(0, 0).max(at(0, 1)).max(at(1, 0)).max(at(1, 1))
    };
    x.iter().map(|plane| (0..to * to).map(|p| most(plane, p)).collect()).collect()
}

fn json_of(args: &[&str]) -> Value {
    let output = metatape(args).assert().success().get_output().clone();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A run on a folder of images.
fn on_folder(data: &Path, out: &Path, args: &[&str]) -> Value {
    let six = ["--dataset", "folder", "--data-dir", text(data), "--meta-size", "6", "--batch", "6"];
    train(&[&six[..], &["--epochs", "1", "--no-baseline"], args].concat(), out)
}

/// The file is what PyTorch wants: loops over its numbers, in PyTorch's layouts and on NCHW images,
/// have the logits that `predict` has. Its bytes are the same each time.
#[test]
fn the_model_file_is_pytorchs() {
    let folder = tempfile::tempdir().unwrap();
    let side = 12;
    for (model, colour) in [("mlp", true), ("lenet", true), ("lenet", false), ("resnet32", true)] {
        let dir = |name: &str| folder.path().join(format!("{name}-{model}-{colour}"));
        let (data, out) = (files::folder(&dir("data"), side as u32, colour), dir("run"));
        on_folder(&data, &out, &["--model", model, "--precision", "f64"]);
        let twin = Twin::read(&out);
        let card = &twin.card;
        let channels = if colour { 3 } else { 1 };
        assert_eq!((&card["model"], &card["version"]), (&model.into(), &1.into()));
        assert_eq!(card["classes"], json!(["ant", "bee", "cat"]));
        assert_eq!(card["input"], json!([side, side, channels]));
        match model {
            "mlp" => assert_eq!(twin.shape("fc1.weight"), [256, side * side * channels]),
            "lenet" => assert_eq!(twin.shape("conv2.weight"), [64, 32, 5, 5]),
            _ => assert_eq!(twin.shape("block15.bn2.running_var"), [64]),
        }
        let test = data.join("test");
        let seen = json_of(&["predict", "--run", text(&out), text(&test), "--json"]);
        let seen = seen["predictions"].as_array().unwrap();
        assert_eq!(seen.len(), 9);
        for row in seen {
            let pixels = image::open(row["path"].as_str().unwrap()).unwrap().into_rgb8();
            let plane = |c: usize| {
                let of = |name: &str| card[name][c].as_f64().unwrap();
                let norm = |v: &image::Rgb<u8>| (f64::from(v.0[c]) / 255.0 - of("mean")) / of("std");
                pixels.pixels().map(norm).collect()
            };
            let own = twin.logits(&(0..channels).map(plane).collect(), side);
            for (own, theirs) in own.iter().zip(row["logits"].as_array().unwrap()) {
                let distance = (own - theirs.as_f64().unwrap()).abs();
                assert!(distance <= 1e-11 * own.abs().max(1.0), "{model}: {own} and {theirs}");
            }
        }
        if model == "lenet" {
            on_folder(&data, &dir("again"), &["--model", model, "--precision", "f64", "--threads", "1"]);
            let bytes = |run: &str| fs::read(dir(run).join("model.safetensors")).unwrap();
            assert!(bytes("run") == bytes("again"));
        }
    }
}

#[test]
fn evaluate_on_own_and_other_data() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (files::folder(&folder.path().join("data"), 9, true), folder.path().join("run"));
    let summary = on_folder(&data, &out, &["--model", "lenet"]);
    let evaluate = |args: &[&str]| json_of(&[&["evaluate", "--run", text(&out), "--json"], args].concat());
    let own = evaluate(&[]);
    assert_eq!((&own["accuracy"], &own["samples"]), (&summary["final_test_accuracy"], &9.into()));
    let loss: f64 = metrics(&out)[0]["test_loss"].parse().unwrap();
    assert!((own["loss"].as_f64().unwrap() - loss).abs() < 1e-12);
    // Three of each class.
    assert_eq!(own["accuracy"], own["balanced_accuracy"]);
    let count = |row: &Value| row.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>();
    assert!(own["confusion"].as_array().unwrap().iter().all(|row| count(row) == 3), "{own}");
    assert_eq!((evaluate(&["--part", "train"])["samples"].as_u64(), 30), (Some(30), 30));
    assert_eq!(evaluate(&["--part", "meta"])["samples"], 6);

    // The same images elsewhere: with the other parts, alone, as the classes' folders alone.
    let same = |dir: &Path, args: &[&str]| {
        let mut other = evaluate(&[&["--data-dir", text(dir)], args].concat());
        other["data"] = own["data"].clone();
        assert_eq!(other, own);
    };
    same(&data, &[]);
    let moved = folder.path().join("moved");
    fs::create_dir(&moved).unwrap();
    fs::rename(data.join("test"), moved.join("test")).unwrap();
    same(&moved, &["--dataset", "folder"]);
    same(&moved.join("test"), &[]);
    // Two classes of three, unbalanced.
    fs::remove_dir_all(moved.join("test/cat")).unwrap();
    fs::remove_file(moved.join("test/bee/12.png")).unwrap();
    let csv = folder.path().join("seen.csv");
    let two = evaluate(&["--data-dir", text(&moved), "--csv", text(&csv)]);
    let class = |at: usize| two["classes"][at]["accuracy"].as_f64();
    assert_eq!((two["samples"].as_u64(), class(2)), (Some(5), None));
    let mean = (class(0).unwrap() + class(1).unwrap()) / 2.0;
    assert!((two["balanced_accuracy"].as_f64().unwrap() - mean).abs() < 1e-9, "{two}");
    let rows: Vec<BTreeMap<String, String>> =
        csv::Reader::from_path(&csv).unwrap().deserialize().map(Result::unwrap).collect();
    let hits = rows.iter().filter(|row| row["label"] == row["predicted"]).count();
    assert!((two["accuracy"].as_f64().unwrap() - 20.0 * hits as f64).abs() < 1e-9);
    assert!(rows[0]["sample"].ends_with("ant/12.png"), "{rows:?}");
    let shown = metatape(&["evaluate", "--run", text(&out), "--data-dir", text(&moved)]).assert().success();
    let shown = String::from_utf8(shown.get_output().stdout.clone()).unwrap();
    for part in
        ["lenet trained with mwnet", "\nbalanced accuracy ", "\nclass ", "\nclass / taken for ", "\n1 bee "]
    {
        assert!(shown.contains(part), "`{part}` is not in: {shown}");
    }

    let wrong = |args: &[&str], code, parts: &[&str]| {
        fails(&[&["evaluate", "--run", text(&out)], args].concat(), code, parts);
    };
    fs::rename(moved.join("test/bee"), moved.join("test/wasp")).unwrap();
    wrong(&["--data-dir", text(&moved)], 1, &["wasp/13.png", "class `wasp`"]);
    wrong(&["--data-dir", text(&moved), "--csv", text(&csv)], 2, &["--csv", "exists already", "--force"]);
    wrong(
        &["--dataset", "fashion-mnist-mini"],
        1,
        &["the class `Ankle boot` is none of those trained on, which are ant, bee, cat"],
    );
    let small = files::folder(&folder.path().join("small"), 8, true);
    wrong(&["--data-dir", text(&small)], 1, &["8×8 colour", "9×9 colour"]);
    wrong(&["--part", "validation"], 2, &["--part", "train, meta, test"]);
    fails(&["evaluate", "--run", text(&small)], 2, &["--run", "holds no run", "config.toml"]);
    fs::remove_file(out.join("model.safetensors")).unwrap();
    wrong(&[], 2, &["is not finished", "--resume"]);
}

#[test]
fn predict_files_and_folders() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (files::folder(&folder.path().join("data"), 9, true), folder.path().join("run"));
    on_folder(&data, &out, &["--image-size", "8"]);
    let dir = folder.path().join("some");
    fs::create_dir_all(dir.join("deep/er")).unwrap();
    fs::copy(data.join("test/ant/12.png"), dir.join("deep/er/b.png")).unwrap();
    fs::copy(data.join("test/bee/12.png"), dir.join("a.png")).unwrap();
    image::GrayImage::from_pixel(20, 13, image::Luma([90])).save(dir.join("grey.png")).unwrap();
    let run = ["predict", "--run", text(&out)];
    let one = data.join("test/ant/12.png");
    let seen = json_of(&[&run[..], &[text(&one), text(&dir), "--json"]].concat());
    let rows = seen["predictions"].as_array().unwrap();
    let paths: Vec<_> = rows.iter().map(|row| Path::new(row["path"].as_str().unwrap())).collect();
    assert_eq!(paths, [&one, &dir.join("a.png"), &dir.join("deep/er/b.png"), &dir.join("grey.png")]);
    assert_eq!(rows[0]["logits"], rows[2]["logits"]);
    for row in rows {
        let of = |field: &str| {
            row[field].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>()
        };
        let (all, logits) = (of("probabilities"), of("logits"));
        assert!((all.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let top = (0..3).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        assert_eq!((&row["class"], row["probability"].as_f64()), (&seen["classes"][top], Some(all[top])));
    }

    // What cannot be read is named; the others go on.
    fs::write(dir.join("torn.png"), "no image").unwrap();
    let csv = folder.path().join("seen.csv");
    let all = [&run[..], &["not/here.png", text(&dir), "--csv", text(&csv)]].concat();
    let failed = metatape(&all).assert().code(1).get_output().clone();
    let told = String::from_utf8(failed.stderr).unwrap();
    for part in [
        "metatape: not/here.png: cannot read the image: ",
        "torn.png: the image",
        "2 paths could not be read",
    ] {
        assert!(told.contains(part), "`{part}` is not in: {told}");
    }
    let shown = String::from_utf8(failed.stdout).unwrap();
    assert_eq!(shown.lines().count(), 4, "{shown}");
    let written = fs::read_to_string(&csv).unwrap();
    assert!(written.starts_with("path,class,probability,ant,bee,cat\n") && written.lines().count() == 4);
    let dash = [&run[..], &[text(&dir), "--csv", "-", "--skip-unreadable"]].concat();
    let dash = metatape(&dash).assert().success().get_output().clone();
    assert_eq!(String::from_utf8(dash.stdout).unwrap(), written);
    fails(&[&run[..], &["a", "--csv", "-", "--json"]].concat(), 2, &["--csv -", "--json"]);

    // Grey networks refuse colour, others images of another size.
    let (grey, to) = (files::folder(&folder.path().join("grey"), 9, false), folder.path().join("grey-run"));
    on_folder(&grey, &to, &[]);
    let wrong = |path: &Path| {
        let failed = metatape(&["predict", "--run", text(&to), text(path)]).assert().code(1);
        String::from_utf8(failed.get_output().stderr.clone()).unwrap()
    };
    let told = wrong(&one);
    assert!(told.contains("the network takes 9×9 grey images, and this is colour"), "{told}");
    assert!(wrong(&dir.join("grey.png")).contains("this is 20×13"));
}

/// Features: tables and arrays, a row for each sample.
#[test]
fn predict_rows() {
    let folder = tempfile::tempdir().unwrap();
    let row = |i: usize| format!("{},{},{}\n", i % 3, i % 3 * 2, i % 7);
    let rows = |range: std::ops::Range<usize>| {
        let labelled = range.map(|i| format!("{},{}", ["x", "y", "z"][i % 3], row(i)));
        format!("kind,a,b,c\n{}", labelled.collect::<String>())
    };
    let (data, out) = (folder.path().join("data"), folder.path().join("run"));
    fs::create_dir(&data).unwrap();
    fs::write(data.join("train.csv"), rows(0..90)).unwrap();
    fs::write(data.join("test.csv"), rows(90..120)).unwrap();
    let args = ["--dataset", "csv", "--data-dir", text(&data), "--label-column", "kind", "--meta-size", "9"];
    let summary = train(&[&args[..], &["--batch", "9", "--epochs", "20", "--no-baseline"]].concat(), &out);
    assert_eq!(summary["final_test_accuracy"], 100.0);
    let evaluated =
        json_of(&["evaluate", "--run", text(&out), "--data-dir", text(&data.join("test.csv")), "--json"]);
    assert_eq!((&evaluated["accuracy"], &evaluated["samples"]), (&json!(100.0), &30.into()));

    let bare = folder.path().join("bare.csv");
    fs::write(&bare, format!("a,b,c\n{}", (0..300).map(row).collect::<String>())).unwrap();
    let seen =
        json_of(&["predict", "--run", text(&out), text(&bare), text(&data.join("test.csv")), "--json"]);
    let seen = seen["predictions"].as_array().unwrap();
    assert_eq!(seen.len(), 330);
    for (i, row) in seen.iter().enumerate() {
        assert_eq!(row["class"], ["x", "y", "z"][i % 3], "{i}");
    }
    assert_eq!(seen[4]["path"], format!("{}[4]", text(&bare)));
    // Row 4 of the test set is number 94, and 94 = 10 in the features' period of 21.
    assert_eq!(seen[10]["logits"], seen[304]["logits"]);

    // As many other columns are not taken for these.
    let swapped = folder.path().join("swapped.csv");
    fs::write(&swapped, format!("b,a,c,kind\n{}", "1,2,3,x\n".repeat(9))).unwrap();
    let parts = ["swapped.csv has other columns than the training table", "`b` in the place of `a`"];
    fails(&["evaluate", "--run", text(&out), "--data-dir", text(&swapped)], 1, &parts);
    let told =
        metatape(&["predict", "--run", text(&out), text(&swapped)]).assert().code(1).get_output().clone();
    let told = String::from_utf8(told.stderr).unwrap();
    assert!(parts.iter().all(|part| told.contains(part)), "{told}");
    // What has no row to predict says so.
    let heading = folder.path().join("heading.csv");
    fs::write(&heading, "a,b,c\n").unwrap();
    let mut empty =
        b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3), }".to_vec();
    empty.resize(127, b' ');
    empty.push(b'\n');
    fs::write(folder.path().join("empty.npy"), empty).unwrap();
    for (path, part) in [
        (heading, "heading.csv: has no rows"),
        (folder.path().join("empty.npy"), "empty.npy holds no samples"),
    ] {
        let told =
            metatape(&["predict", "--run", text(&out), text(&path)]).assert().code(1).get_output().clone();
        let told = String::from_utf8(told.stderr).unwrap();
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn a_run_begins_with_a_network() {
    let folder = tempfile::tempdir().unwrap();
    let data = files::folder(&folder.path().join("data"), 8, true);
    let dir = |name: &str| folder.path().join(name);
    let tensors = |run: &Path| Twin::read(run).tensors;
    on_folder(&data, &dir("first"), &["--model", "lenet"]);
    let model = dir("first").join("model.safetensors");
    let args = ["--lr", "1e-30", "--seed", "3", "--init", text(&model), "--model", "lenet"];
    on_folder(&data, &dir("still"), &args);
    assert_eq!(tensors(&dir("still")), tensors(&dir("first")));
    let config: toml::Table = fs::read_to_string(dir("still").join("config.toml")).unwrap().parse().unwrap();
    assert_eq!(config["init"].as_str(), Some(text(&model)));
    assert_eq!(config["init_sha256"].as_str().unwrap().len(), 64);
    // Each network of several begins there.
    on_folder(&data, &dir("boosted"), &[&args[..], &["--method", "adaboost"]].concat());
    let twin = Twin::read(&dir("boosted"));
    assert_eq!(twin.tensors, tensors(&dir("first")));
    assert!(twin.card["note"].as_str().unwrap().starts_with("the last of 5 networks"), "{}", twin.card);

    let begin = |[set, meta, net]: [&str; 3], data: &Path, parts: &[&str]| {
        let out = dir("must-not-be-made");
        let set = ["train", "--dataset", set, "--data-dir", text(data), "--meta-size", meta, "--batch", "6"];
        let how = ["--model", net, "--init", text(&model), "--out", text(&out)];
        fails(&[&set[..], &how].concat(), 1, &[&["--init"], parts].concat());
        assert!(!out.exists());
    };
    begin(["folder", "6", "mlp"], &data, &["(lenet): has `conv1.bias`", "of another network"]);
    let mnist = files::mnist(&dir("mnist"), false);
    begin(["mnist", "20", "lenet"], &mnist, &["a network of 3 classes", "mnist has 10"]);
    // The record holds the file to what it was.
    let still = dir("still");
    let resume = ["train", "--out", text(&still), "--resume"];
    metatape(&resume).assert().success();
    fs::copy(dir("boosted").join("model.safetensors"), &model).unwrap();
    fails(&resume, 1, &["--init", "has changed since the run began"]);
}

/// A damaged file is one sentence, wherever it is cut or spoilt.
#[test]
fn damaged_networks() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (files::folder(&folder.path().join("data"), 8, true), folder.path().join("run"));
    on_folder(&data, &out, &[]);
    let path = out.join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    let spoilt = |bytes: Vec<u8>, parts: &[&str]| {
        fs::write(&path, bytes).unwrap();
        fails(&["predict", "--run", text(&out), "a.png"], 1, &[&["model.safetensors"], parts].concat());
    };
    for length in [0, 7, 8, 9, 100, whole.len() / 2, whole.len() - 1] {
        spoilt(whole[..length].to_vec(), &["is damaged"]);
    }
    let with = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = whole.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        files::sealed_tensors([&whole[..at], to.as_bytes(), &whole[at + from.len()..]].concat())
    };
    spoilt(with("\"metatape\"", "\"mototape\""), &["not a network of metatape"]);
    spoilt(with("version\\\":1", "version\\\":2"), &["another version of metatape", "format 2"]);
    spoilt(with("[8,8,3]", "[8,8,9]"), &["contradicts itself"]);
    spoilt(with("[8,8,3]", "[9,9,3]"), &["fc1.weight", "[256, 192]", "[256, 243]"]);
    spoilt(with("\\\"mlp\\\"", "\\\"mlq\\\""), &["no model `mlq`"]);
    spoilt(with("fc1.bias", "fc3.bias"), &["`fc3.bias`", "not wanted"]);
    let mut infinite = whole.clone();
    let end = infinite.len() - 4;
    infinite[end..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    spoilt(infinite.clone(), &["is damaged"]);
    spoilt(files::sealed_tensors(infinite), &["has the value inf"]);
}
