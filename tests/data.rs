//! Data as they come: image files of every kind, folders with and without a `metadata.csv`, arrays,
//! tables, labels in files of their own; and what is wrong with each in one sentence.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use metatape::data::{Dataset, DatasetKind, MetaSource, Noise, Reading, Samples, SplitConfig, split};
use metatape::error::Result;

fn read(kind: DatasetKind, dir: &Path) -> Reading {
    Reading { kind, dir: Some(dir.to_path_buf()), ..Reading::default() }
}

fn says(result: Result<Dataset>, parts: &[&str]) {
    let message = result.map(drop).unwrap_err().to_string();
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
}

fn put(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn grey(path: &Path, size: (u32, u32), value: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::GrayImage::from_pixel(size.0, size.1, image::Luma([value])).save(path).unwrap();
}

/// Every kind of image file as Pillow reads it (`tests/images/make.py`); lossy ones within the
/// rounding of their decoders.
#[test]
fn image_files_are_read_as_the_usual_libraries_read_them() {
    let images = Path::new("tests/images");
    let expected = fs::read(images.join("expected.json")).unwrap();
    let expected: BTreeMap<String, (usize, usize, usize, Vec<u8>)> =
        serde_json::from_slice(&expected).unwrap();
    for (name, (height, width, channels, pixels)) in &expected {
        let dir = tempfile::tempdir().unwrap();
        for part in ["train", "test"] {
            put(&dir.path().join(part).join("a").join(name), fs::read(images.join(name)).unwrap());
        }
        let data = read(DatasetKind::Folder, dir.path()).load().unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(data.shape[..], [*height, *width, *channels], "{name}");
        let limit = match name.rsplit_once('.').unwrap().1 {
            "jpg" => 3,
            "webp" if name.starts_with("lossy") => 3,
            _ => 0,
        };
        let limit = if name == "alpha.png" || name == "grey_alpha.png" { 1 } else { limit };
        let distance = data.image(0).iter().zip(pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(distance <= limit, "{name}: {distance}");
        assert_eq!(data.sample_name(0), format!("train/a/{name}"));
    }
    assert_eq!(expected.len(), 24);
}

#[test]
fn images_of_any_size_become_one_and_unreadable_ones_are_all_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    grey(&at("train/a/1.png"), (20, 12), 10);
    grey(&at("train/a/deep/er/2.png"), (9, 31), 200);
    grey(&at("train/b/1.png"), (8, 8), 90);
    grey(&at("test/b/1.png"), (40, 10), 90);
    put(&at("train/a/notes.txt"), "not an image");
    put(&at("train/b/clip.mp4"), "nor this");
    let how = read(DatasetKind::Folder, dir.path());
    says(how.load(), &["2.png is 9×31", "1.png is 20×12", "--image-size N"]);
    let how = Reading { image_size: Some(8), ..how };
    let data = how.load().unwrap();
    assert_eq!((&data.shape[..], &data.train.labels[..]), (&[8, 8, 1][..], &[0, 0, 1][..]));
    assert_eq!([data.image(0)[0], data.image(1)[63], data.image(2)[5]], [10, 200, 90]);
    let remark = data.remarks.join("\n");
    assert!(remark.contains("passed over 2 files") && remark.contains("1 .mp4, 1 .txt"), "{remark}");

    put(&at("train/a/3.png"), "\u{89}PNG but no more");
    put(&at("train/b/0.jpg"), "");
    says(how.load(), &["2 images cannot be read", "a/3.png", "b/0.jpg", "--skip-unreadable"]);
    let data = Reading { skip_unreadable: true, ..how }.load().unwrap();
    assert_eq!(data.train.labels, [0, 0, 1]);
    let remark = data.remarks.join("\n");
    assert!(remark.contains("left out 2 images") && remark.contains("b/0.jpg"), "{remark}");

    grey(&at("train/loose.png"), (8, 8), 1);
    says(read(DatasetKind::Folder, dir.path()).load(), &["loose.png is in no class", "metadata.csv"]);
}

#[test]
fn a_clean_meta_set_may_lie_in_the_folder_or_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for i in 0..12 {
        grey(&at(&format!("data/train/{}/{i}.png", ["a", "b", "c"][i % 3])), (6, 5), i as u8);
    }
    for (i, class) in ["b", "c", "c"].into_iter().enumerate() {
        grey(&at(&format!("data/meta/{class}/{i}.png")), (6, 5), 50 + i as u8);
        grey(&at(&format!("elsewhere/{class}/{i}.png")), (6, 5), 70 + i as u8);
    }
    let how = read(DatasetKind::Folder, &at("data"));
    says(how.load(), &["has no test set", "--test-size N"]);
    says(
        Reading { test_size: Some(12), ..how.clone() }.load(),
        &["--test-size 12", "4 samples of each class"],
    );
    let how = Reading { test_size: Some(4), ..how };
    let config =
        |meta_source| SplitConfig { noise: Noise::None, imbalance: None, meta_source, meta_size: 3, seed: 1 };
    let with_dir = Reading { meta_dir: Some(at("elsewhere")), ..how.clone() };
    for (how, first) in [(&how, 50), (&with_dir, 70)] {
        let data = how.load().unwrap();
        let counts = data.test.class_counts(3);
        assert_eq!((counts, data.train.len()), (vec![2, 1, 1], 8));
        let meta = split(&data, &config(MetaSource::Dir)).unwrap().meta;
        assert_eq!(meta.labels, [1, 2, 2]);
        assert_eq!(
            meta.indices.iter().map(|i| data.image(*i)[0]).collect::<Vec<_>>(),
            [first, first + 1, first + 2]
        );
        let all = split(&data, &config(MetaSource::TrainBalanced)).unwrap();
        assert_eq!((&all.meta.indices, all.balanced), (&all.train.indices, true));
        // What is tested is never trained on.
        let apart = split(&data, &config(MetaSource::Split)).unwrap();
        assert!(
            apart.train.indices.iter().chain(&apart.meta.indices).all(|i| !data.test.indices.contains(i))
        );
        assert_eq!((apart.train.indices.len(), apart.meta.indices.len()), (5, 3));
    }
    // The same test samples for every reading.
    assert_eq!(how.load().unwrap().test, how.load().unwrap().test);
    grey(&at("elsewhere/zebra/1.png"), (6, 5), 1);
    says(with_dir.load(), &["zebra/1.png: the class `zebra` is none of those trained on, which are a, b, c"]);
}

#[test]
fn metadata_labels_images_and_may_know_the_right_ones() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for i in 0..6 {
        grey(&at(&format!("images/{i}.png")), (6, 5), i as u8);
    }
    let rows = "file_name,label,clean_label,split\nimages/0.png,10,2,train\nimages/1.png,2,2,train\nimages/2.png,10,10,train\n\
                images/3.png,10,2,test\nimages/4.png,2,10,meta\nimages/5.png,2,10,train\n";
    put(&at("metadata.csv"), rows);
    let how = read(DatasetKind::Folder, dir.path());
    let data = how.load().unwrap();
    // Numbers are in the order of numbers.
    assert_eq!(data.class_names, ["2", "10"]);
    assert_eq!(
        (&data.train.labels[..], data.train.truth.as_deref()),
        (&[1, 0, 1, 0][..], Some(&[0, 0, 1, 1][..]))
    );
    assert_eq!((&data.test.labels[..], &data.meta.as_ref().unwrap().labels[..]), (&[0][..], &[1][..]));
    let config = SplitConfig {
        noise: Noise::None,
        imbalance: None,
        meta_source: MetaSource::Dir,
        meta_size: 2,
        seed: 1,
    };
    let train = split(&data, &config).unwrap().train;
    assert_eq!((train.corrupted, train.known), (vec![true, false, false, true], true));

    // A file in each part's folder, as Hugging Face has it.
    fs::remove_file(at("metadata.csv")).unwrap();
    for (part, row) in [("train", "0.png,cat\n1.png,ant\n"), ("test", "2.png,cat\n")] {
        fs::create_dir_all(at(part)).unwrap();
        put(&at(part).join("metadata.csv"), format!("file_name,label\n{row}"));
        (0..3).for_each(|i| grey(&at(part).join(format!("{i}.png")), (6, 5), i));
    }
    let data = how.load().unwrap();
    assert_eq!(
        (&data.class_names[..], &data.train.labels[..]),
        (&["ant".into(), "cat".into()][..], &[1, 0][..])
    );

    put(&at("train/metadata.csv"), "name,label\n0.png,cat\n");
    says(how.load(), &["train/metadata.csv", "file_name"]);
    put(&at("train/metadata.csv"), "file_name,label\n0.png,\n");
    says(how.load(), &["row 1 has no label"]);
    put(&at("train/metadata.csv"), "file_name,label\n");
    says(how.load(), &["train/metadata.csv has no rows"]);
    put(&at("metadata.csv"), "file_name,label,split\nimages/0.png,1,trian\n");
    says(how.load(), &["split `trian` is none of train, meta, test"]);
    put(&at("metadata.csv"), "file_name,label\nimages/9.png,1\n");
    says(how.load(), &["images/9.png", "cannot read the image", "No such file"]);
    // One image with two labels, or in two parts.
    put(&at("metadata.csv"), "file_name,label,split\nimages/0.png,1,train\nimages/./0.png,1,test\n");
    says(how.load(), &["images/./0.png is listed twice in metadata.csv"]);
    fs::remove_file(at("metadata.csv")).unwrap();
    put(&at("train/metadata.csv"), "file_name,label\n0.png,cat\n1.png,ant\n0.png,ant\n");
    says(how.load(), &["train/0.png is listed twice"]);
}

/// A `.npy` file.
fn npy(kind: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let shape: String = shape.iter().map(|d| format!("{d},")).collect();
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    header += &" ".repeat(63 - (header.len() + 10) % 64);
    header.push('\n');
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn longs(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn arrays_are_features_or_images() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let how = read(DatasetKind::Arrays, dir.path());
    says(how.load(), &["has no train.npz"]);
    put(&at("train_x.npy"), npy("<f4", &[3, 2], &floats(&[1.0, -1.0, 2.0, 0.0, 3.0, 1.0])));
    put(&at("train_y.npy"), npy("<i8", &[3], &longs(&[0, 1, 1])));
    put(&at("test_x.npy"), npy("<f8", &[1, 2], &[1.5f64, 2.5].map(f64::to_le_bytes).concat()));
    put(&at("test_y.npy"), npy("|u1", &[1], &[1]));
    let data = how.load().unwrap();
    assert_eq!((&data.shape[..], &data.train.labels[..], data.classes()), (&[2][..], &[0, 1, 1][..], 2));
    let Samples::Floats(all) = &data.samples else { panic!("features are floats") };
    assert_eq!(all[..], [1.0, -1.0, 2.0, 0.0, 3.0, 1.0, 1.5, 2.5]);
    assert!((data.mean[0] - 2.0).abs() < 1e-12 && (data.std[1] - (2.0f64 / 3.0).sqrt()).abs() < 1e-12);

    // Columns first, half precision, the other byte order, labels that are whole all the same.
    let order = |mut file: Vec<u8>| {
        let at = file.windows(5).position(|w| w == b"False").unwrap();
        file.splice(at..at + 5, *b"True ");
        file
    };
    let halves = [1.0, 2.0, 3.0, -1.0, 0.0, 1.0].map(|v: f32| half::f16::from_f32(v).to_be_bytes()).concat();
    put(&at("train_x.npy"), order(npy(">f2", &[3, 2], &halves)));
    put(&at("train_y.npy"), npy("<f4", &[3], &floats(&[0.0, 1.0, 1.0])));
    let again = how.load().unwrap();
    assert_eq!((again.train.labels, again.samples), (data.train.labels, data.samples));
    let pixels: Vec<u8> = (0..24).collect();
    put(&at("train_x.npy"), order(npy("|u1", &[3, 4, 2], &pixels)));
    put(&at("test_x.npy"), npy("|u1", &[1, 4, 2], &[0; 8]));
    assert_eq!(how.load().unwrap().image(1), [1, 13, 4, 16, 7, 19, 10, 22]);
    put(&at("train_y.npy"), npy("<f4", &[3], &floats(&[0.0, 0.5, 1.0])));
    says(how.load(), &["train_y.npy: y has the label 0.5"]);
    put(&at("train_y.npy"), npy("<i8", &[3], &longs(&[0, 2, 2])));
    says(how.load(), &["no sample of class 1"]);
    put(&at("train_y.npy"), npy("<i8", &[3], &longs(&[0, 1, 1])));

    put(&at("test_x.npy"), npy("<f8", &[1, 2], &[1.5f64, 2.5].map(f64::to_le_bytes).concat()));
    put(&at("train_x.npy"), npy("<f4", &[3, 2], &floats(&[1.0, f32::NAN, 2.0, 0.0, 3.0, 1.0])));
    says(how.load(), &["x[0, 1] is NaN"]);
    put(&at("train_x.npy"), npy("<f4", &[2, 2], &floats(&[1.0; 4])));
    says(how.load(), &["train_y.npy: y has 3 labels and x is [2, 2]"]);
    put(&at("train_x.npy"), &npy("<f4", &[3, 2], &floats(&[1.0; 6]))[..100]);
    says(how.load(), &["train_x.npy", "no whole .npy file"]);
    put(&at("train_x.npy"), npy("<f4", &[3, 1 << 40], &floats(&[1.0; 6])));
    says(how.load(), &["train_x.npy", "cut short"]);

    // Images of bytes, in safetensors; a clean meta set from a folder of its own.
    let tensors = |name: &str, pixels: &[u8], labels: &[i64]| {
        use safetensors::tensor::{Dtype, TensorView, serialize};
        let labels_bytes = longs(labels);
        let x = TensorView::new(Dtype::U8, vec![labels.len(), 2, 2, 3], pixels).unwrap();
        let y = TensorView::new(Dtype::I64, vec![labels.len()], &labels_bytes).unwrap();
        put(&at(name), serialize([("x", x), ("y", y)], None).unwrap());
    };
    for file in ["train_x.npy", "train_y.npy", "test_x.npy", "test_y.npy"] {
        fs::remove_file(at(file)).unwrap();
    }
    tensors("train.safetensors", &(0..36).collect::<Vec<u8>>(), &[0, 1, 2]);
    tensors("test.safetensors", &[7; 12], &[2]);
    tensors("clean/meta.safetensors", &[9; 24], &[1, 0]);
    let data = Reading { meta_dir: Some(at("clean")), ..how.clone() }.load().unwrap();
    assert_eq!((&data.shape[..], data.image(1)[0], data.image(3)[0]), (&[2, 2, 3][..], 12, 7));
    let meta = data.meta.as_ref().unwrap();
    assert_eq!((&meta.labels[..], data.image(meta.indices[0])[5]), (&[1, 0][..], 9));
    tensors("train.safetensors", &(0..36).collect::<Vec<u8>>(), &[0, 1, -2]);
    says(how.load(), &["y has the label -2"]);
}

#[test]
fn tables_are_features() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    put(&at("train.csv"), "a,kind,b\n1,yes,2.5\n3,no,-1e-3\n5,yes,0\n");
    put(&at("test.csv"), "a,kind,b\n1,no,2.5\n");
    let how = Reading { label_column: "kind".into(), ..read(DatasetKind::Csv, dir.path()) };
    let data = how.load().unwrap();
    assert_eq!(
        (&data.class_names[..], &data.train.labels[..]),
        (&["no".into(), "yes".into()][..], &[1, 0, 1][..])
    );
    assert_eq!((data.shape[0], &data.test.labels[..]), (2, &[0][..]));
    says(
        read(DatasetKind::Csv, dir.path()).load(),
        &["has no column `label`, but a, kind, b;", "--label-column"],
    );
    assert_eq!(data.columns, ["a", "b"]);
    put(&at("test.csv"), "a,kind,c\n1,no,2.5\n");
    says(how.load(), &["test.csv has other columns", "`c` in the place of `b`"]);
    put(&at("meta/meta.csv"), "b,a,kind\n1,2.5,no\n");
    put(&at("test.csv"), "a,b,kind\n1,2.5,no\n");
    let elsewhere = Reading { meta_dir: Some(at("meta")), ..how.clone() };
    says(elsewhere.load(), &["meta.csv has other columns", "`b` in the place of `a`"]);
    put(&at("test.csv"), "a,kind,b\n1,perhaps,2.5\n");
    says(how.load(), &["the class `perhaps` has no training rows"]);
    put(&at("train.csv"), "");
    says(how.load(), &["train.csv: is empty"]);
    put(&at("train.csv"), "a,kind,b\n");
    says(how.load(), &["train.csv: has no rows, only a heading"]);
    put(&at("train.csv"), "a,kind,b\n1,yes,2\n1,,2\n");
    says(how.load(), &["row 2 has no label"]);
    put(&at("train.csv"), "a,kind,b\n1,yes,red\n");
    says(how.load(), &["row 1, column `b`: `red` is no finite number"]);
    put(&at("train.csv"), "a,kind,b,a\n1,yes,2,1\n3,no,1,3\n");
    says(how.load(), &["train.csv: has two columns `a`"]);
    // Right labels are no features: the truth of the training rows, the labels of all others.
    put(&at("train.csv"), "a,kind,clean_label,b\n1,yes,no,2\n3,no,no,1\n5,yes,yes,0\n");
    put(&at("test.csv"), "a,kind,clean_label,b\n1,no,yes,2.5\n");
    let data = how.load().unwrap();
    assert_eq!((&data.columns[..], data.shape[0]), (&["a".to_owned(), "b".into()][..], 2));
    assert_eq!((&data.train.labels[..], data.train.truth.as_deref()), (&[1, 0, 1][..], Some(&[0, 0, 1][..])));
    assert_eq!(data.test.labels, [1]);
    // Seconds since 1970, a few apart: no two of them differ in 32 bits.
    let times = |apart: f64| {
        let rows =
            (0..8).map(|i| format!("{},{},1\n", 1.7e9 + apart * f64::from(i), ["yes", "no"][i as usize % 2]));
        format!("time,kind,c\n{}", rows.collect::<String>())
    };
    put(&at("train.csv"), times(10.0));
    put(&at("test.csv"), times(10.0));
    says(how.load(), &["train.csv: column `time`", "subtract their mean"]);
    put(&at("train.csv"), times(1e6));
    assert!(how.load().is_ok());
    // One file, the test set split off.
    put(&at("all.csv"), "a,kind,b\n1,yes,2\n3,no,1\n5,yes,0\n7,no,0\n");
    let one = Reading { dir: Some(at("all.csv")), test_size: Some(2), ..how };
    assert_eq!(one.load().unwrap().test.class_counts(2), [1, 1]);
}

#[test]
fn labels_of_their_own_make_the_sets_own_the_truth() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for i in 0..4 {
        grey(&at(&format!("data/train/{}/{i}.png", ["ant", "bee"][i / 2])), (6, 5), i as u8);
    }
    grey(&at("data/test/ant/9.png"), (6, 5), 9);
    let with = |name: &str| {
        let how = read(DatasetKind::Folder, &at("data"));
        Reading { train_labels: Some(at(name)), ..how }.load()
    };
    put(&at("l.npy"), npy("<i8", &[4], &longs(&[1, 0, 1, 0])));
    put(&at("l.txt"), "1\n0\nbee\nant\n");
    put(&at("l.csv"), "file_name,label\nbee/2.png,bee\ntrain/bee/3.png,ant\nant/0.png,1\nant/1.png,0\n");
    put(&at("bare.csv"), "1\n0\n1\n0\n");
    // As a run's samples.csv calls them, and as some editors begin a file.
    put(
        &at("s.csv"),
        "score,label,sample\n1,1,train/ant/0.png\n2,0,train/bee/3.png\n3,1,train/bee/2.png\n4,0,train/ant/1.png\n",
    );
    put(&at("bom.txt"), "\u{feff}1\n0\nbee\nant\n");
    for name in ["l.npy", "l.txt", "l.csv", "bare.csv", "s.csv", "bom.txt"] {
        let train = with(name).unwrap().train;
        assert_eq!(
            (&train.labels[..], train.truth.as_deref()),
            (&[1, 0, 1, 0][..], Some(&[0, 0, 1, 1][..])),
            "{name}"
        );
    }
    put(&at("l.txt"), "1\n0\n1\n");
    says(with("l.txt"), &["has 3 labels, and there are 4 training samples"]);
    put(&at("l.txt"), "1\n0\n1\nwasp\n");
    says(with("l.txt"), &["`wasp` is neither a class of data nor a whole number"]);
    put(&at("l.npy"), npy("<i8", &[4], &longs(&[1, 0, 1, 2])));
    says(with("l.npy"), &["label 2 of sample 3 is out of range"]);
    put(&at("l.npy"), npy("<f4", &[4], &floats(&[0.5; 4])));
    says(with("l.npy"), &["has the label 0.5; labels are whole numbers"]);
    put(&at("l.csv"), "file_name,label\nbee/2.png,bee\n");
    says(with("l.csv"), &["has no row for train/ant/0.png"]);
    says(with("l.pt"), &[".npy, .safetensors, .csv and .txt"]);
    put(&at("l.csv"), "path,label\na,1\nb,0\nc,1\nd,0\n");
    says(with("l.csv"), &["`file_name` or `sample`"]);
    put(&at("l.csv"), "file_name,label\nbee/2.png,bee\nbee/2.png,ant\n");
    says(with("l.csv"), &["has two rows for bee/2.png"]);
    put(&at("l.txt"), "1\n1\n1\n1\n");
    says(with("l.txt"), &["l.txt has no sample of class 0 (ant)"]);
}

/// Pipes have no end, or no beginning: none is waited for.
#[cfg(unix)]
#[test]
fn pipes_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let pipe = |name: &str| {
        fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(at(name)).status().unwrap().success());
    };
    grey(&at("images/train/a/1.png"), (6, 5), 1);
    grey(&at("images/test/a/1.png"), (6, 5), 1);
    pipe("images/train/a/x.png");
    let how = read(DatasetKind::Folder, &at("images"));
    says(how.load(), &["train/a/x.png", "a pipe"]);
    let data = Reading { skip_unreadable: true, ..how }.load().unwrap();
    assert!(data.remarks.join("\n").contains("left out 1 image"), "{:?}", data.remarks);
    pipe("mnist/train-images-idx3-ubyte");
    says(read(DatasetKind::Mnist, &at("mnist")).load(), &["train-images-idx3-ubyte", "a pipe"]);
    pipe("cifar/data_batch_1.bin");
    says(read(DatasetKind::Cifar10, &at("cifar")).load(), &["data_batch_1.bin", "a pipe"]);
    // What cannot be read is not taken for what is not there.
    put(&at("arrays/train_x.npy"), npy("<f4", &[2, 1], &floats(&[1.0, 2.0])));
    put(&at("arrays/train_y.npy"), npy("<i8", &[2], &longs(&[0, 1])));
    pipe("arrays/test_x.npy");
    let arrays = read(DatasetKind::Arrays, &at("arrays"));
    says(Reading { test_size: Some(1), ..arrays }.load(), &["test_x.npy", "a pipe"]);
    pipe("labels.txt");
    let labelled = Reading { train_labels: Some(at("labels.txt")), ..Reading::default() };
    says(labelled.load(), &["labels.txt", "a pipe"]);
}

/// Files that ask for more memory than there is: of no length that is on the disk, packed, or with
/// a header that says so. Each is an error; none is the end of the process.
#[cfg(target_os = "linux")]
#[test]
fn what_does_not_fit_into_memory_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    put(&at("csv/train.csv"), "a,label\n1,x\n2,y\n");
    fs::File::options().write(true).open(at("csv/train.csv")).unwrap().set_len(1 << 40).unwrap();
    says(read(DatasetKind::Csv, &at("csv")).load(), &["train.csv", "1048576 MiB of memory"]);
    for (name, header) in [("x.pgm", &b"P5 3000000 3000000 255\n0"[..]), ("x.ppm", b"P6 20000 20000 255\n0")]
    {
        let part = format!("images-{name}");
        grey(&at(&format!("{part}/train/a/1.png")), (6, 5), 1);
        grey(&at(&format!("{part}/test/a/1.png")), (6, 5), 1);
        put(&at(&format!("{part}/train/a/{name}")), header);
        says(read(DatasetKind::Folder, &at(&part)).load(), &[name, "Memory limit exceeded"]);
    }
    // A line, which becomes as long as it is thin.
    for part in ["train", "test"] {
        grey(&at(&format!("lines/{part}/a/1.png")), (1, 60_000), 1);
    }
    let lines = read(DatasetKind::Folder, &at("lines"));
    says(Reading { image_size: Some(3000), ..lines }.load(), &["1.png", "MiB of memory", "--image-size"]);
}

/// Whatever is not read is counted and said.
#[test]
fn nothing_is_left_out_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for part in ["train", "test", "val", "Train2"] {
        grey(&at(&format!("{part}/a/1.png")), (6, 5), 1);
    }
    for (i, name) in ["train/a/1.heic", "train/a/2.heic", "test/a/film.mov", "loose.png"].iter().enumerate() {
        put(&at(name), [i as u8]);
    }
    let remarks = |dir: &Path| read(DatasetKind::Folder, dir).load().unwrap().remarks.join("\n");
    let said = remarks(dir.path());
    let parts = [
        "passed over 4 files: 2 .heic, 1 .mov, 1 .png",
        "2 folders beside train, meta and test: Train2, val",
    ];
    assert!(parts.iter().all(|part| said.contains(part)), "{said}");

    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    (0..5).for_each(|i| grey(&at(&format!("images/{i}.png")), (6, 5), i));
    put(&at("images/5.heic"), "");
    put(&at("metadata.csv"), "file_name,label,split\nimages/0.png,a,train\n./images/1.png,a,test\n");
    let said = remarks(dir.path());
    assert!(said.contains("passed over 4 files that metadata.csv does not name"), "{said}");
}

/// Names are one line, whatever characters they have.
#[cfg(unix)]
#[test]
fn control_characters_in_names_are_written_out() {
    let dir = tempfile::tempdir().unwrap();
    for part in ["train", "test"] {
        grey(&dir.path().join(part).join("a\u{1b}[1m\n").join("x\r.png"), (6, 5), 1);
    }
    let data = read(DatasetKind::Folder, dir.path()).load().unwrap();
    assert_eq!(data.class_names, ["a\\u{1b}[1m\\u{a}"]);
    assert_eq!(data.sample_name(0), "train/a\\u{1b}[1m\\u{a}/x\\u{d}.png");
}

/// A bit that changes in an archive is found, wherever it is: numbers have no other sign of damage.
#[test]
fn an_archive_that_was_damaged_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let packed = |method| {
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let how = zip::write::SimpleFileOptions::default().compression_method(method);
        let (x, y) = (npy("<f4", &[2, 1], &floats(&[1.0, 2.0])), npy("<i8", &[2], &longs(&[0, 1])));
        for (name, content) in [("x.npy", x), ("y.npy", y)] {
            archive.start_file(name, how).unwrap();
            archive.write_all(&content).unwrap();
        }
        archive.finish().unwrap().into_inner()
    };
    for method in [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated] {
        let whole = packed(method);
        put(&dir.path().join("test.npz"), &whole);
        put(&dir.path().join("train.npz"), &whole);
        let how = read(DatasetKind::Arrays, dir.path());
        let right = how.load().unwrap();
        for bit in (0..8 * whole.len()).step_by(3) {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            put(&dir.path().join("train.npz"), &damaged);
            match how.load() {
                Ok(data) => {
                    assert_eq!((data.samples, data.train), (right.samples.clone(), right.train.clone()))
                }
                Err(error) => assert!(error.to_string().contains("train"), "{error}"),
            }
        }
    }
}
