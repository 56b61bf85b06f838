//! The data: readers of the usual file formats, label noise and long tails, the clean meta set,
//! batches.
//!
//! | file | the one thing that happens there |
//! |---|---|
//! | `kind.rs` | [`DatasetKind`]: what can be named |
//! | `reading.rs` | [`Reading`]: what is read, and how |
//! | `dataset.rs` | [`Dataset`]: all samples in one piece of memory, and its parts |
//! | `fingerprint.rs` | [`Fingerprint`]: whether it is still the same |
//! | `idx.rs`, `cifar.rs`, `source.rs` | the files of MNIST, Fashion-MNIST and CIFAR |
//! | `folder.rs`, `listing.rs`, `decode.rs` | images in folders: tables, which there are, their pixels |
//! | `arrays.rs`, `table.rs` | arrays of NumPy and its kin; tables of numbers |
//! | `labels.rs` | labels from a file of their own |
//! | `noise.rs` | [`Noise`]: labels that are made wrong |
//! | `split.rs` | [`split`]: the meta set, the long tail, the noise |
//! | `batch.rs` | [`Batcher`]: batches as a function of the step |
//!
//! ```
//! use metatape::data::{BatchConfig, Batcher, DatasetKind, MetaSource, Noise, SplitConfig};
//! use metatape::data::{load, split};
//! use metatape::seed::Stream;
//!
//! let dataset = load(DatasetKind::FashionMnistMini, None)?;
//! let noise = "uniform:0.6".parse::<Noise>()?;
//! let meta_source = MetaSource::Split;
//! let how = SplitConfig { noise, imbalance: None, meta_source, meta_size: 1000, seed: 1 };
//! let split = split(&dataset, &how)?;
//! assert_eq!((split.train.indices.len(), split.meta.indices.len()), (9000, 1000));
//!
//! let (stream, augment) = (Stream::TrainBatches, dataset.augment);
//! let config = BatchConfig { size: 100, seed: 1, stream, augment };
//! let mut batches = Batcher::per_epoch(&split.train.indices, &split.train.labels, config)?;
//! assert_eq!(batches.batch(7).labels.len(), 100);
//! # Ok::<(), metatape::Error>(())
//! ```

mod arrays;
mod batch;
mod cifar;
mod dataset;
mod decode;
mod fingerprint;
mod folder;
mod idx;
mod kind;
mod labels;
mod listing;
mod loose;
mod noise;
mod reading;
mod source;
mod split;
mod table;

use std::path::{Path, PathBuf};

pub use batch::{Batch, BatchConfig, Batcher, in_order};
pub use dataset::{Augment, Dataset, Part, Samples, Table};
pub use fingerprint::Fingerprint;
pub use kind::DatasetKind;
pub use loose::Loose;
pub use noise::{Corrupted, Noise};
pub use reading::Reading;
pub use split::{
    Labelled, MetaSource, Split, SplitConfig, TrainSet, default_meta_size, long_tail_counts, split,
};

use crate::{Error, Result};

/// Reads a data set into memory, as it is: [`Reading`] with nothing but a kind and a folder.
///
/// # Errors
/// As [`Reading::load`].
pub fn load(kind: DatasetKind, data_dir: Option<&Path>) -> Result<Dataset> {
    Reading { kind, dir: data_dir.map(Path::to_path_buf), ..Reading::default() }.load()
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
