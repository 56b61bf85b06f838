//! The binary versions of CIFAR-10 and CIFAR-100 (<https://www.cs.toronto.edu/~kriz/cifar.html>):
//! records of one label byte (CIFAR-100: coarse, then fine) and 3072 pixels, a 32×32 plane each of
//! red, green, blue; no header.

use std::path::Path;

use super::reading::Tables;
use super::source::Source;
use super::{DatasetKind, Table, dir_or_inner, missing_file, owned};
use crate::{Error, Result};

const SIDE: usize = 32;
const CHANNELS: usize = 3;
const PIXELS: usize = SIDE * SIDE * CHANNELS;

/// The constants that the published code normalises both sets with, of pixel/255.
fn statistics() -> (Vec<f64>, Vec<f64>) {
    let of_255 = |values: [f64; CHANNELS]| values.map(|value| value / 255.0).to_vec();
    (of_255([125.3, 123.0, 113.9]), of_255([63.0, 62.1, 66.7]))
}

const CIFAR10: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// CIFAR-10 from `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`.
pub(super) fn load10(dir: &Path) -> Result<Tables> {
    let kind = DatasetKind::Cifar10;
    let dir = dir_or_inner(dir, "cifar-10-batches-bin");
    let read = |title: &str, files: &[&str]| {
        let (mut pixels, mut all) = (Vec::new(), Vec::new());
        for file in files {
            let source = open(kind, &dir, file)?;
            let labels = records(&source, [("label", CIFAR10.len())], &mut pixels)?;
            all.extend(labels.iter().map(|&[label]| i32::from(label)));
        }
        Ok(Table::images(format!("{kind} {title} set"), [SIDE, SIDE, CHANNELS], pixels, all))
    };
    let batches =
        ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];
    let (train, test) = (read("training", &batches)?, read("test", &["test_batch.bin"])?);
    let names = names(&dir.join("batches.meta.txt"), CIFAR10.len())?;
    let names = names.unwrap_or_else(|| owned(&CIFAR10));
    Ok(Tables { statistics: Some(statistics()), ..Tables::new(kind.name(), train, Some(test), names) })
}

const FINE: usize = 100;
const COARSE: usize = 20;

/// CIFAR-100 by fine label from `train.bin` and `test.bin`; [`Dataset::coarse`] gets the coarse
/// class of each.
pub(super) fn load100(dir: &Path) -> Result<Tables> {
    let kind = DatasetKind::Cifar100;
    let dir = dir_or_inner(dir, "cifar-100-binary");
    let mut coarse = vec![None; FINE];
    let mut read = |title: &str, file: &str| {
        let (mut pixels, mut all) = (Vec::new(), Vec::new());
        let source = open(kind, &dir, file)?;
        let labels = records(&source, [("coarse label", COARSE), ("fine label", FINE)], &mut pixels)?;
        for (record, &[coarse_label, label]) in labels.iter().enumerate() {
            let known = *coarse[usize::from(label)].get_or_insert(coarse_label);
            if known != coarse_label {
                let detail = format!(
                    "fine label {label} comes with coarse label {coarse_label}, but with {known} before: \
                     each fine class has one coarse class"
                );
                return Err(source.error(record * (2 + PIXELS), detail));
            }
            all.push(i32::from(label));
        }
        Ok(Table::images(format!("{kind} {title} set"), [SIDE, SIDE, CHANNELS], pixels, all))
    };
    let (train, test) = (read("training", "train.bin")?, read("test", "test.bin")?);
    let names = names(&dir.join("fine_label_names.txt"), FINE)?;
    let names = names.unwrap_or_else(|| (0..FINE).map(|class| class.to_string()).collect());
    let coarse = coarse.into_iter().map(|label| label.map(i32::from)).collect();
    Ok(Tables {
        statistics: Some(statistics()),
        coarse,
        ..Tables::new(kind.name(), train, Some(test), names)
    })
}

fn open(kind: DatasetKind, dir: &Path, file: &str) -> Result<Source<'static>> {
    let path = dir.join(file);
    if path.exists() { Source::read(&path) } else { Err(missing_file(kind, dir, file)) }
}

/// Appends the pixels of all records, by pixel instead of by plane, and returns the labels, each
/// below the number that stands beside its name in `labels`.
fn records<const LABELS: usize>(
    source: &Source<'_>,
    labels: [(&str, usize); LABELS],
    pixels: &mut Vec<u8>,
) -> Result<Vec<[u8; LABELS]>> {
    let (records, rest) =
        (source.bytes.chunks_exact(LABELS + PIXELS), source.bytes.len() % (LABELS + PIXELS));
    if source.bytes.is_empty() {
        return Err(source.error(0, "the file is empty"));
    }
    if rest != 0 {
        let detail = format!(
            "the file is truncated or no CIFAR file: it ends {rest} bytes into a record of {}",
            LABELS + PIXELS
        );
        return Err(source.error(source.bytes.len(), detail));
    }
    pixels.reserve(records.len() * PIXELS);
    let mut found = Vec::with_capacity(records.len());
    for (i, record) in records.enumerate() {
        let (head, planes) = record.split_at(LABELS);
        for (j, (&label, (name, below))) in head.iter().zip(labels).enumerate() {
            if usize::from(label) >= below {
                let detail =
                    format!("{name} {label} of image {i} is out of range, expected 0 to {}", below - 1);
                return Err(source.error(i * (LABELS + PIXELS) + j, detail));
            }
        }
        found.push(std::array::from_fn(|j| head[j]));
        let plane = SIDE * SIDE;
        pixels.extend((0..plane).flat_map(|at| [planes[at], planes[plane + at], planes[2 * plane + at]]));
    }
    Ok(found)
}

/// The `count` names in a file of one name a line; `None` if there is no such file.
fn names(path: &Path, count: usize) -> Result<Option<Vec<String>>> {
    if !crate::file::named(path) {
        return Ok(None);
    }
    let text = crate::file::read_text(path, "read the class names")?;
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect();
    if names.len() != count {
        let found = names.len();
        return Err(Error::Data(format!("{}: {found} class names, expected {count}", path.display())));
    }
    Ok(Some(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record whose pixel (row, column) is (row, column, 200 + seed).
    fn record(labels: &[u8], seed: u8) -> Vec<u8> {
        let mut bytes = labels.to_vec();
        bytes.extend((0..SIDE * SIDE).map(|at| (at / SIDE) as u8));
        bytes.extend((0..SIDE * SIDE).map(|at| (at % SIDE) as u8));
        bytes.extend(std::iter::repeat_n(200 + seed, SIDE * SIDE));
        bytes
    }

    fn put(dir: &Path, name: &str, bytes: &[u8]) {
        std::fs::write(dir.join(name), bytes).unwrap();
    }

    /// Two training images of each class over five files, one test image.
    fn ten(dir: &Path) {
        for batch in 0..5 {
            let images: Vec<u8> = (0..4).flat_map(|i| record(&[(batch * 4 + i) % 10], i)).collect();
            put(dir, &format!("data_batch_{}.bin", batch + 1), &images);
        }
        put(dir, "test_batch.bin", &record(&[7], 9));
    }

    /// One training image of each class, one test image.
    fn hundred(dir: &Path) {
        let images: Vec<u8> = (0..100).flat_map(|label| record(&[label / 5, label], 0)).collect();
        put(dir, "train.bin", &images);
        put(dir, "test.bin", &record(&[3, 17], 1));
    }

    fn complaint(kind: DatasetKind, dir: &Path) -> String {
        let error = super::super::load(kind, Some(dir)).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        error.to_string()
    }

    #[test]
    fn cifar10_golden() {
        let dir = tempfile::tempdir().unwrap();
        ten(dir.path());
        let data = super::super::load(DatasetKind::Cifar10, Some(dir.path())).unwrap();
        assert_eq!((data.train.len(), data.test.len(), data.sample_len()), (20, 1, PIXELS));
        let labels: Vec<i32> = (0..20).map(|i| i % 10).collect();
        assert_eq!(data.train.labels, labels);
        let image = data.image(6); // third of the second file
        assert_eq!(image[..9], [0, 0, 202, 0, 1, 202, 0, 2, 202]);
        assert_eq!(image[(5 * SIDE + 31) * 3..][..3], [5, 31, 202]);
        assert_eq!((data.test.labels[0], data.image(data.test.indices[0])[2]), (7, 209));
        assert_eq!(data.class_names[9], "truck");
        assert_eq!(data.mean, [125.3 / 255.0, 123.0 / 255.0, 113.9 / 255.0]);
        assert_eq!(data.augment, Some(super::super::Augment { pad: 4, flip: true }));
    }

    #[test]
    fn cifar10_in_its_own_folder_with_names() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("cifar-10-batches-bin");
        std::fs::create_dir(&inner).unwrap();
        ten(&inner);
        put(&inner, "batches.meta.txt", b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n");
        let data = super::super::load(DatasetKind::Cifar10, Some(dir.path())).unwrap();
        assert_eq!(data.class_names.concat(), "abcdefghij");
        put(&inner, "batches.meta.txt", b"a\nb\n");
        let message = complaint(DatasetKind::Cifar10, dir.path());
        assert!(message.contains("batches.meta.txt: 2 class names, expected 10"), "{message}");
    }

    #[test]
    fn cifar10_damage() {
        let dir = tempfile::tempdir().unwrap();
        let case = |file: &str, bytes: &[u8], expected: &str| {
            ten(dir.path());
            put(dir.path(), file, bytes);
            let message = complaint(DatasetKind::Cifar10, dir.path());
            // What to do stands before the place.
            let parts = expected.split(" (at byte ");
            assert!(message.contains(file) && parts.clone().all(|p| message.contains(p)), "{message}");
        };
        let two = [record(&[1], 0), record(&[10], 0)].concat();
        case("data_batch_2.bin", &two, "label 10 of image 1 is out of range, expected 0 to 9 (at byte 3073)");
        let cut = "it ends 3072 bytes into a record of 3073 (at byte 6145)";
        case("test_batch.bin", &two[..2 * 3073 - 1], cut);
        case("test_batch.bin", &[], "empty");
        ten(dir.path());
        std::fs::remove_file(dir.path().join("data_batch_4.bin")).unwrap();
        let message = complaint(DatasetKind::Cifar10, dir.path());
        assert!(
            message.contains("has no data_batch_4.bin: --dataset cifar10 expects data_batch_1.bin"),
            "{message}"
        );
    }

    #[test]
    fn cifar100_golden_and_damage() {
        let dir = tempfile::tempdir().unwrap();
        hundred(dir.path());
        let data = super::super::load(DatasetKind::Cifar100, Some(dir.path())).unwrap();
        assert_eq!((data.train.len(), data.classes(), data.test.labels[0]), (100, 100, 17));
        assert_eq!(data.coarse.as_ref().unwrap()[17], 3);
        assert_eq!(data.image(42)[..6], [0, 0, 200, 0, 1, 200]);

        put(dir.path(), "test.bin", &record(&[4, 17], 1));
        let message = complaint(DatasetKind::Cifar100, dir.path());
        assert!(message.contains("fine label 17 comes with coarse label 4, but with 3 before"), "{message}");
        put(dir.path(), "test.bin", &record(&[20, 17], 1));
        let message = complaint(DatasetKind::Cifar100, dir.path());
        assert!(
            message.contains("coarse label 20 of image 0 is out of range, expected 0 to 19"),
            "{message}"
        );
        put(dir.path(), "test.bin", &record(&[3, 100], 1));
        let message = complaint(DatasetKind::Cifar100, dir.path());
        assert!(message.contains("fine label 100 of image 0") && message.contains("at byte 1)"), "{message}");
    }
}
