//! Configurations of runs.

use std::path::PathBuf;

use metatape::data::{DatasetKind, Noise};
use metatape::train::Config;

/// What `metatape train --method mwnet --no-baseline` does.
pub fn reference(seed: u64) -> Config {
    Config { baseline: false, seed, ..Config::default() }
}

/// An epoch on a folder of images with wrong labels and six meta images.
#[allow(dead_code)] // not every test has images
pub fn images(folder: PathBuf) -> Config {
    Config {
        dataset: DatasetKind::Folder,
        data_dir: Some(folder),
        noise: Noise::Uniform(0.4),
        meta_size: Some(6),
        epochs: 1,
        milestones: Vec::new(),
        ..reference(1)
    }
}
