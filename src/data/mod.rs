//! The data: readers of the usual file formats, label noise and long tails, the clean meta set,
//! batches.
//!
//! ```
//! use metatape::data::{BatchConfig, Batcher, DatasetKind, Noise, SplitConfig, load, split};
//! use metatape::seed::Stream;
//!
//! let dataset = load(DatasetKind::FashionMnistMini, None)?;
//! let noise = "uniform:0.6".parse::<Noise>()?;
//! let split = split(&dataset, &SplitConfig { noise, imbalance: None, meta_size: 1000, seed: 1 })?;
//! assert_eq!((split.train.indices.len(), split.meta.indices.len()), (9000, 1000));
//!
//! let config = BatchConfig { size: 100, seed: 1, stream: Stream::TrainBatches, augment: dataset.augment };
//! let mut batches = Batcher::per_epoch(&split.train.indices, &split.train.labels, config)?;
//! assert_eq!(batches.batch(7).labels.len(), 100);
//! # Ok::<(), metatape::Error>(())
//! ```

mod batch;
mod cifar;
mod folder;
mod idx;
mod noise;
mod source;
mod split;

use std::path::{Path, PathBuf};

pub use batch::{Batch, BatchConfig, Batcher, in_order};
pub use noise::{Corrupted, Noise};
pub use split::{Labelled, Split, SplitConfig, TrainSet, default_meta_size, long_tail_counts, split};

use crate::{Error, Result};

/// One part (training or test) of a data set, as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// What errors and reports call it, such as `cifar10 training set`.
    pub name: String,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// `[len, height, width, channels]`, row-major.
    pub pixels: Vec<u8>,
    /// `[len]`, each in `0..classes`.
    pub labels: Vec<i32>,
}

impl Images {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image at all; no reader returns such a set.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Bytes of one image, `height · width · channels`.
    pub fn image_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// The bytes `[height, width, channels]` of image `index`.
    pub fn image(&self, index: usize) -> &[u8] {
        &self.pixels[index * self.image_len()..][..self.image_len()]
    }

    /// How many images each of `classes` classes has.
    pub fn class_counts(&self, classes: usize) -> Vec<usize> {
        let mut counts = vec![0; classes];
        self.labels.iter().for_each(|&label| counts[label as usize] += 1);
        counts
    }
}

/// Random crops and flips of training (and meta) images, drawn anew for each step by [`Batcher`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Augment {
    /// Width of the reflected border from which a crop of the original size is taken; less than
    /// both sides.
    pub pad: usize,
    /// Whether half of the images are mirrored left to right.
    pub flip: bool,
}

/// A data set in memory.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The name on the command line; for a folder, the folder's own name.
    pub name: String,
    /// The training images, of which [`split`] sets some apart as the meta set.
    pub train: Images,
    /// The test images, of the same shape.
    pub test: Images,
    /// `[classes]`, by label.
    pub class_names: Vec<String>,
    /// `[classes]`, the coarse class of each class, where the data set has such (CIFAR-100).
    pub coarse: Option<Vec<i32>>,
    /// Per channel, of pixel/255.
    pub mean: Vec<f64>,
    /// Per channel, of pixel/255; never 0.
    pub std: Vec<f64>,
    /// Random crops and flips, where the data set wants them: colour images.
    pub augment: Option<Augment>,
}

impl Dataset {
    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.class_names.len()
    }

    /// Puts a data set together: checks that the two parts fit and that no class is without
    /// training images, and computes mean and deviation from all training images unless
    /// `statistics` are given.
    ///
    /// # Errors
    /// [`Error::Data`] for a part without images, parts of two shapes, or a class without training
    /// images.
    fn new(
        name: impl Into<String>,
        train: Images,
        test: Images,
        class_names: Vec<String>,
        statistics: Option<(Vec<f64>, Vec<f64>)>,
    ) -> Result<Dataset> {
        if let Some(part) = [&train, &test].into_iter().find(|part| part.is_empty() || part.image_len() == 0)
        {
            return Err(Error::Data(format!("the {} holds no images: add some", part.name)));
        }
        let shape = |part: &Images| (part.height, part.width, part.channels);
        if shape(&train) != shape(&test) {
            return Err(Error::Data(format!(
                "the images of the {} are {} and those of the {} are {}: both must have one size, so scale one of them",
                train.name,
                shape_name(shape(&train)),
                test.name,
                shape_name(shape(&test)),
            )));
        }
        let counts = train.class_counts(class_names.len());
        if let Some(class) = counts.iter().position(|&count| count == 0) {
            return Err(Error::Data(format!(
                "the {} has no image of class {class} ({}): add some, or leave the class out",
                train.name, class_names[class]
            )));
        }
        let (mean, std) = statistics.unwrap_or_else(|| channel_statistics(&train));
        let pad = 4;
        let augment = (train.channels == 3 && train.height.min(train.width) > pad)
            .then_some(Augment { pad, flip: true });
        Ok(Dataset { name: name.into(), train, test, class_names, coarse: None, mean, std, augment })
    }
}

/// `height×width` and whether there is colour, for messages.
fn shape_name((height, width, channels): (usize, usize, usize)) -> String {
    format!("{height}×{width} {}", if channels == 1 { "grey" } else { "colour" })
}

/// Mean and standard deviation per channel of pixel/255 over all images. Sums are of integers, so
/// the result does not depend on any order. A channel that is constant gets deviation 1, so that
/// normalising makes it zero.
fn channel_statistics(images: &Images) -> (Vec<f64>, Vec<f64>) {
    let count = (images.pixels.len() / images.channels) as u64;
    (0..images.channels)
        .map(|channel| {
            let values = images.pixels.iter().skip(channel).step_by(images.channels);
            let (sum, squares) = values.fold((0_u64, 0_u64), |(sum, squares), &pixel| {
                let pixel = u64::from(pixel);
                (sum + pixel, squares + pixel * pixel)
            });
            // count² times the variance, without rounding.
            let spread = u128::from(count) * u128::from(squares) - u128::from(sum) * u128::from(sum);
            let std = if spread == 0 { 1.0 } else { (spread as f64).sqrt() / count as f64 / 255.0 };
            (sum as f64 / count as f64 / 255.0, std)
        })
        .unzip()
}

/// The data sets that can be named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatasetKind {
    /// The part of Fashion-MNIST that is compiled into this program: 10,000 + 5,000 grey images of
    /// 28×28.
    FashionMnistMini,
    /// MNIST from IDX files.
    Mnist,
    /// Fashion-MNIST from IDX files.
    FashionMnist,
    /// CIFAR-10, binary version.
    Cifar10,
    /// CIFAR-100, binary version, by fine label.
    Cifar100,
    /// `train/<class>/*.jpg|png` and `test/<class>/*.jpg|png`.
    Folder,
}

impl DatasetKind {
    /// All of them, in the order of the command's help.
    pub const ALL: [DatasetKind; 6] = [
        DatasetKind::FashionMnistMini,
        DatasetKind::Mnist,
        DatasetKind::FashionMnist,
        DatasetKind::Cifar10,
        DatasetKind::Cifar100,
        DatasetKind::Folder,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            DatasetKind::FashionMnistMini => "fashion-mnist-mini",
            DatasetKind::Mnist => "mnist",
            DatasetKind::FashionMnist => "fashion-mnist",
            DatasetKind::Cifar10 => "cifar10",
            DatasetKind::Cifar100 => "cifar100",
            DatasetKind::Folder => "folder",
        }
    }

    /// The files that are looked for in `--data-dir`; `None` where none are needed.
    pub fn expected_files(self) -> Option<&'static str> {
        match self {
            DatasetKind::FashionMnistMini => None,
            DatasetKind::Mnist | DatasetKind::FashionMnist => Some(
                "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and \
                 t10k-labels-idx1-ubyte, each plain or with .gz",
            ),
            DatasetKind::Cifar10 => Some(
                "data_batch_1.bin to data_batch_5.bin and test_batch.bin (the binary version of CIFAR-10), there or \
                 in cifar-10-batches-bin",
            ),
            DatasetKind::Cifar100 => {
                Some("train.bin and test.bin (the binary version of CIFAR-100), there or in cifar-100-binary")
            }
            DatasetKind::Folder => {
                Some("train/<class>/ and test/<class>/ with .jpg, .jpeg or .png images of one size")
            }
        }
    }
}

impl std::fmt::Display for DatasetKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for DatasetKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<DatasetKind> {
        DatasetKind::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let names = DatasetKind::ALL.map(DatasetKind::name).join(", ");
            Error::Usage(format!("--dataset `{text}` is not known: choose one of {names}"))
        })
    }
}

/// Reads a data set into memory.
///
/// Mean and deviation are computed from the training images, except for CIFAR-10 and CIFAR-100,
/// which get the constants that the published code uses for both. Colour images get reflect-padding
/// by 4, random crops and flips.
///
/// # Errors
/// [`Error::Usage`] if `data_dir` is missing where the kind needs it, or given where it does not;
/// [`Error::Data`], [`Error::Format`] or [`Error::Io`] for what is wrong with the files.
pub fn load(kind: DatasetKind, data_dir: Option<&Path>) -> Result<Dataset> {
    let dir = match (data_dir, kind.expected_files()) {
        (Some(dir), None) => {
            return Err(Error::Usage(format!(
                "--data-dir {} is of no use to --dataset {kind}, which is part of this program: \
                 name the data set that the folder holds, or leave --data-dir out",
                dir.display()
            )));
        }
        (None, Some(files)) => {
            return Err(Error::Usage(format!("--dataset {kind} needs --data-dir, a folder with {files}")));
        }
        (Some(dir), Some(files)) if !dir.is_dir() => {
            return Err(Error::Data(format!("{} is not a folder: expected one with {files}", dir.display())));
        }
        (dir, _) => dir.unwrap_or(Path::new("")),
    };
    match kind {
        DatasetKind::FashionMnistMini => idx::embedded(),
        DatasetKind::Mnist | DatasetKind::FashionMnist => idx::load(kind, dir),
        DatasetKind::Cifar10 => cifar::load10(dir),
        DatasetKind::Cifar100 => cifar::load100(dir),
        DatasetKind::Folder => folder::load(dir),
    }
}

/// That `dir` lacks a file of `kind`: names it, and all that are expected.
fn missing_file(kind: DatasetKind, dir: &Path, file: &str) -> Error {
    let files = kind.expected_files().unwrap_or_default();
    Error::Data(format!("{} has no {file}: --dataset {kind} expects {files}", dir.display()))
}

/// `dir`, or the folder `inner` within it if that is there (as an unpacked archive leaves it).
fn dir_or_inner(dir: &Path, inner: &str) -> PathBuf {
    let inner = dir.join(inner);
    if inner.is_dir() { inner } else { dir.to_path_buf() }
}

/// Names as owned strings.
fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}
