//! The IDX format of MNIST and Fashion-MNIST (<http://yann.lecun.com/exdb/mnist/>), plain or
//! gzipped: a big-endian magic number 0x00000803 (images) or 0x00000801 (labels), the dimensions as
//! big-endian `u32`, then one byte per pixel or label.

use std::path::Path;

use super::reading::Tables;
use super::source::Source;
use super::{DatasetKind, Table, missing_file, owned};
use crate::words::counted;
use crate::{Error, Result};

const IMAGES: u32 = 0x0000_0803;
const LABELS: u32 = 0x0000_0801;
const CLASSES: usize = 10;

const FASHION: [&str; CLASSES] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];
const DIGITS: [&str; CLASSES] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// A file of `datasets/fashion-mnist-mini`: its path there and its bytes.
macro_rules! embedded {
    ($name:literal) => {
        (
            concat!("datasets/fashion-mnist-mini/", $name),
            include_bytes!(concat!("../../datasets/fashion-mnist-mini/", $name)),
        )
    };
}

/// The data set that is part of the program.
pub(super) fn embedded() -> Result<Tables> {
    let kind = DatasetKind::FashionMnistMini;
    let source = |(path, bytes): (&str, &'static [u8])| Source::new(Path::new(path), bytes.into());
    let train = part(
        format!("{kind} training set"),
        &source(embedded!("train-images-idx3-ubyte.gz"))?,
        &source(embedded!("train-labels-idx1-ubyte.gz"))?,
    )?;
    let test = part(
        format!("{kind} test set"),
        &source(embedded!("t10k-images-idx3-ubyte.gz"))?,
        &source(embedded!("t10k-labels-idx1-ubyte.gz"))?,
    )?;
    Ok(Tables::new(kind.name(), train, Some(test), owned(&FASHION)))
}

/// MNIST or Fashion-MNIST from the four files in `dir`.
pub(super) fn load(kind: DatasetKind, dir: &Path) -> Result<Tables> {
    let open = |name: &str| {
        let candidates = [dir.join(name), dir.join(format!("{name}.gz"))];
        match candidates.iter().find(|path| crate::file::named(path)) {
            Some(path) => Source::read(path),
            None => Err(missing_file(kind, dir, &format!("{name} or {name}.gz"))),
        }
    };
    let both = |which: &str, title: &str| {
        let images = open(&format!("{which}-images-idx3-ubyte"))?;
        part(format!("{kind} {title} set"), &images, &open(&format!("{which}-labels-idx1-ubyte"))?)
    };
    let names = if kind == DatasetKind::Mnist { &DIGITS } else { &FASHION };
    Ok(Tables::new(kind.name(), both("train", "training")?, Some(both("t10k", "test")?), owned(names)))
}

/// Images and their labels.
fn part(name: String, images: &Source<'_>, labels: &Source<'_>) -> Result<Table> {
    let ([count, height, width], pixels) = records::<3>(images, IMAGES, "images")?;
    let ([label_count], label_bytes) = records::<1>(labels, LABELS, "labels")?;
    if count != label_count {
        return Err(Error::Data(format!(
            "{} holds {} but {} holds {}: they do not belong together",
            images.path().display(),
            counted(count, "image"),
            labels.path().display(),
            counted(label_count, "label")
        )));
    }
    if let Some(at) = label_bytes.iter().position(|&label| usize::from(label) >= CLASSES) {
        let byte = labels.bytes.len() - label_bytes.len() + at;
        let found = label_bytes[at];
        return Err(
            labels.error(byte, format!("label {found} is out of range, expected 0 to {}", CLASSES - 1))
        );
    }
    let labels = label_bytes.iter().map(|&label| i32::from(label)).collect();
    Ok(Table::images(name, [height, width, 1], pixels.to_vec(), labels))
}

/// Checks the header and the length of an IDX file of unsigned bytes with `DIMS` dimensions;
/// returns those and the content.
fn records<'a, const DIMS: usize>(
    source: &'a Source<'_>,
    magic: u32,
    what: &str,
) -> Result<([usize; DIMS], &'a [u8])> {
    let bytes = &source.bytes[..];
    let header = 4 * (1 + DIMS);
    let word = |i: usize| bytes.get(4 * i..4 * i + 4).map(|w| u32::from_be_bytes([w[0], w[1], w[2], w[3]]));
    let cut = || {
        source
            .error(bytes.len(), format!("the file is truncated: it ends inside its header of {header} bytes"))
    };
    let found = word(0).ok_or_else(cut)?;
    if found != magic {
        let expected = format!("{magic:#010x} (an IDX file of {what})");
        return Err(source.error(0, format!("magic number {found:#010x}, expected {expected}")));
    }
    let mut dims = [0; DIMS];
    for (i, dim) in dims.iter_mut().enumerate() {
        *dim = word(1 + i).ok_or_else(cut)? as usize;
    }
    if let Some(i) = dims.iter().position(|&dim| dim == 0) {
        let zero = if i == 0 { format!("no {what}") } else { "images without pixels".into() };
        return Err(source.error(4 * (1 + i), format!("the header announces {zero}, expected some")));
    }
    let content = &bytes[header..];
    let expected = dims.iter().map(|&dim| dim as u128).product::<u128>();
    if (content.len() as u128) < expected {
        let detail = format!(
            "the file is truncated: the header announces {} {what} ({expected} bytes after the header), {} bytes are there",
            dims[0],
            content.len()
        );
        return Err(source.error(bytes.len(), detail));
    }
    if content.len() as u128 > expected {
        let end = header + expected as usize;
        let detail = format!("{} bytes too many after the {} {what} announced", bytes.len() - end, dims[0]);
        return Err(source.error(end, detail));
    }
    Ok((dims, content))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// An IDX file of `magic` with these dimensions and this content.
    fn idx(magic: u32, dims: &[u32], content: &[u8]) -> Vec<u8> {
        let header = [magic].into_iter().chain(dims.iter().copied()).flat_map(u32::to_be_bytes);
        header.chain(content.iter().copied()).collect()
    }

    /// A folder with a right little data set: 20 training and 3 test images of 2×3, each filled by
    /// a rule.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let pixels: Vec<u8> = (0..20 * 6).map(|i| i as u8).collect();
        let labels: Vec<u8> = (0..20).map(|i| (i % 10) as u8).collect();
        put(&dir, "train-images-idx3-ubyte", &idx(IMAGES, &[20, 2, 3], &pixels));
        put(&dir, "train-labels-idx1-ubyte", &idx(LABELS, &[20], &labels));
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&idx(IMAGES, &[3, 2, 3], &pixels[6..24])).unwrap();
        put(&dir, "t10k-images-idx3-ubyte.gz", &gz.finish().unwrap());
        put(&dir, "t10k-labels-idx1-ubyte", &idx(LABELS, &[3], &[9, 0, 9]));
        dir
    }

    fn put(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }

    fn read(dir: &tempfile::TempDir) -> Result<super::super::Dataset> {
        super::super::load(DatasetKind::Mnist, Some(dir.path()))
    }

    fn complaint(dir: &tempfile::TempDir) -> String {
        let error = read(dir).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        error.to_string()
    }

    #[test]
    fn golden_folder_plain_and_gzipped() {
        let data = read(&folder()).unwrap();
        assert_eq!((data.train.len(), &data.shape[..]), (20, &[2, 3, 1][..]));
        assert_eq!(data.image(2), [12, 13, 14, 15, 16, 17]);
        assert_eq!(data.train.labels[..11], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]);
        assert_eq!(data.test.labels, [9, 0, 9]);
        assert_eq!(data.image(data.test.indices[0]), data.image(1));
        assert_eq!(data.class_names[3], "3");
        assert_eq!(data.augment, None);
        // Pixels 0..120 once each: mean 59.5, variance (120² − 1)/12.
        assert!((data.mean[0] - 59.5 / 255.0).abs() < 1e-12);
        assert!((data.std[0] - (14399.0_f64 / 12.0).sqrt() / 255.0).abs() < 1e-12);
    }

    #[test]
    fn embedded_set_is_the_original_in_order() {
        let data = super::super::load(DatasetKind::FashionMnistMini, None).unwrap();
        assert_eq!((data.train.len(), data.test.len(), data.sample_len()), (10_000, 5_000, 784));
        // The first labels of the original files.
        assert_eq!(data.train.labels[..12], [9, 0, 0, 3, 0, 2, 7, 2, 5, 5, 0, 9]);
        assert_eq!(data.test.labels[..12], [9, 2, 1, 1, 6, 1, 4, 6, 5, 7, 4, 5]);
        let counts = [942, 1027, 1016, 1019, 974, 989, 1021, 1022, 990, 1000];
        assert_eq!(data.train.class_counts(10), counts);
        // Known of the full training set: 0.2860 and 0.3530.
        assert!((data.mean[0] - 0.286).abs() < 2e-3 && (data.std[0] - 0.353).abs() < 2e-3);
    }

    #[test]
    fn missing_files_and_flags() {
        let dir = folder();
        std::fs::remove_file(dir.path().join("t10k-labels-idx1-ubyte")).unwrap();
        let message = complaint(&dir);
        assert!(message.contains("has no t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz"), "{message}");
        let no_dir = super::super::load(DatasetKind::Mnist, None).unwrap_err();
        assert_eq!(no_dir.exit_code(), 2);
        let message = no_dir.to_string();
        assert!(message.starts_with("--dataset mnist needs --data-dir"), "{message}");
        let useless = super::super::load(DatasetKind::FashionMnistMini, Some(dir.path())).unwrap_err();
        assert_eq!(useless.exit_code(), 2);
        let nowhere = super::super::load(DatasetKind::Mnist, Some(Path::new("/no/such"))).unwrap_err();
        assert!(nowhere.to_string().contains("/no/such is not a folder"), "{nowhere}");
    }

    /// Whether a message has these words; what to do stands before the place.
    fn says(message: &str, expected: &str) -> bool {
        expected.split(" (at byte ").all(|part| message.contains(part))
    }

    #[test]
    fn every_damage_is_one_sentence() {
        let pixels = [7; 120];
        let labels: Vec<u8> = (0..20).map(|i| (i % 10) as u8).collect();
        let images = |bytes: Vec<u8>, expected: &str| {
            let dir = folder();
            put(&dir, "train-images-idx3-ubyte", &bytes);
            let message = complaint(&dir);
            assert!(message.contains("train-images-idx3-ubyte: ") && says(&message, expected), "{message}");
        };
        images(idx(LABELS, &[20, 2, 3], &pixels), "magic number 0x00000801, expected 0x00000803");
        images(idx(LABELS, &[20, 2, 3], &pixels), "(at byte 0)");
        images(vec![0, 0], "ends inside its header of 16 bytes (at byte 2)");
        images(idx(IMAGES, &[20, 2], &[]), "ends inside its header of 16 bytes (at byte 12)");
        images(idx(IMAGES, &[20, 2, 3], &pixels[1..]), "(120 bytes after the header), 119 bytes are there");
        images(idx(IMAGES, &[20, 2, 3], &pixels[1..]), "truncated");
        images(idx(IMAGES, &[u32::MAX; 3], &pixels), "truncated");
        images(
            idx(IMAGES, &[19, 2, 3], &pixels),
            "6 bytes too many after the 19 images announced (at byte 130)",
        );
        images(idx(IMAGES, &[0, 2, 3], &[]), "no images");
        images(idx(IMAGES, &[20, 2, 0], &[]), "images without pixels");

        let label_case = |bytes: Vec<u8>, expected: &str| {
            let dir = folder();
            put(&dir, "train-labels-idx1-ubyte", &bytes);
            let message = complaint(&dir);
            assert!(says(&message, expected), "{message}");
        };
        let mut wrong = labels.clone();
        wrong[4] = 10;
        label_case(idx(LABELS, &[20], &wrong), "label 10 is out of range, expected 0 to 9 (at byte 12)");
        label_case(idx(LABELS, &[19], &labels[1..]), "holds 20 images but");
        let eights: Vec<u8> = labels.iter().map(|&label| label.min(8)).collect();
        label_case(idx(LABELS, &[20], &eights), "the mnist training set has no sample of class 9 (9)");
    }

    #[test]
    fn damage_inside_gzip_says_where_it_is_counted() {
        let dir = folder();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&idx(IMAGES, &[3, 2, 3], &[0; 17])).unwrap();
        put(&dir, "t10k-images-idx3-ubyte.gz", &gz.finish().unwrap());
        let message = complaint(&dir);
        assert!(says(&message, "counted in the unpacked content (at byte 33)"), "{message}");
    }

    #[test]
    fn parts_of_two_sizes_are_refused() {
        let dir = folder();
        std::fs::remove_file(dir.path().join("t10k-images-idx3-ubyte.gz")).unwrap();
        put(&dir, "t10k-images-idx3-ubyte", &idx(IMAGES, &[3, 3, 2], &[0; 18]));
        let message = complaint(&dir);
        assert!(message.contains("2×3 grey") && message.contains("3×2 grey"), "{message}");
    }
}
