use std::borrow::Cow;

use super::config::Config;
use super::method::Method;
use crate::data::{self, Batcher, Dataset, Images, Split, SplitConfig};
use crate::error::{Error, Result};
use crate::meta::Batch;
use crate::meta::schemes::{Set, class_groups};
use crate::nn::{self, Model, SharedModel, Summary, WeightNet};
use crate::seed::Stream;
use crate::tape::{GatherSpec, Scalar};

/// The data of a run, ready for training: shared by all methods.
pub struct Prepared {
    /// Everything that decides the run.
    pub config: Config,
    /// The images.
    pub dataset: Dataset,
    /// Which of them train, with which labels.
    pub split: Split,
    /// The classifier.
    net: SharedModel,
    /// All images, the training set's first: what lies on the device.
    pixels: Vec<u8>,
}

impl Prepared {
    /// Loads, splits and corrupts the data that a configuration names.
    ///
    /// # Errors
    /// As [`data::load`] and [`data::split`], for images that the model cannot take, and for a
    /// batch larger than the training set.
    pub fn new(config: Config) -> Result<Prepared> {
        let name = config.model.clone();
        Prepared::with(config, |classes| nn::named(&name, classes))
    }

    /// As [`Prepared::new`], for a classifier of one's own that is made for the data's number of
    /// classes. `config.model` is what it is called.
    ///
    /// # Errors
    /// As there.
    pub fn with(config: Config, net: impl FnOnce(usize) -> Result<SharedModel>) -> Result<Prepared> {
        config.check()?;
        let dataset = data::load(config.dataset, config.data_dir.as_deref())?;
        let how = SplitConfig {
            noise: config.noise,
            imbalance: config.imbalance,
            meta_size: config.meta_size.unwrap_or_else(|| {
                data::default_meta_size(dataset.classes(), config.noise, config.imbalance)
            }),
            seed: config.seed,
        };
        let split = data::split(&dataset, &how)?;
        let train = &dataset.train;
        let image = [train.height, train.width, train.channels];
        let net = net(dataset.classes())?;
        let fits = Summary::of(net.as_ref(), &image.into());
        fits.map_err(|e| {
            let [h, w, c] = image;
            Error::Data(format!("`{}` cannot take images of {h}x{w}x{c}: {e}", config.model))
        })?;
        let pixels = [&dataset.train.pixels[..], &dataset.test.pixels[..]].concat();
        let prepared = Prepared { config, dataset, split, net, pixels };
        // They refuse a batch that is larger than the training set.
        prepared.batcher(false)?;
        prepared.batcher(true)?;
        Ok(prepared)
    }

    /// The classifier.
    pub fn net(&self) -> &dyn Model {
        self.net.as_ref()
    }

    /// The network and what it is trained on, as a checkpoint records them.
    pub(super) fn network(&self) -> String {
        let Images { height, width, channels, .. } = self.dataset.train;
        format!("{} on {height}x{width}x{channels}, {} classes", self.config.model, self.dataset.classes())
    }

    /// All images, the training set's first: what lies on the device as `pixels`.
    pub(super) fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The images on the device, and their normalisation; `augmented` with the border that crops
    /// are taken from.
    pub(super) fn batch(&self, augmented: bool) -> Batch {
        let scalars = |v: &[f64]| v.iter().copied().map(Scalar).collect();
        let pad = self.dataset.augment.filter(|_| augmented).map_or(0, |a| a.pad);
        let spec = GatherSpec { mean: scalars(&self.dataset.mean), std: scalars(&self.dataset.std), pad };
        let Images { height, width, channels, .. } = self.dataset.train;
        let count = self.dataset.train.len() + self.dataset.test.len();
        Batch::Picked { count, image: [height, width, channels], spec }
    }

    /// Places of a set's images among all images on the device.
    pub(super) fn indices(&self, set: Set) -> Cow<'_, [u32]> {
        let first = self.dataset.train.len() as u32;
        match set {
            Set::Train => Cow::Borrowed(&self.split.train.indices),
            Set::Meta => Cow::Borrowed(&self.split.meta.indices),
            Set::Test => Cow::Owned((first..first + self.dataset.test.len() as u32).collect()),
        }
    }

    /// A set's labels; the training set's as they are given.
    pub(super) fn labels(&self, set: Set) -> &[i32] {
        match set {
            Set::Train => &self.split.train.labels,
            Set::Meta => &self.split.meta.labels,
            Set::Test => &self.dataset.test.labels,
        }
    }

    /// Training samples of each class, by their labels as given.
    pub(super) fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.dataset.classes()];
        self.split.train.labels.iter().for_each(|label| counts[*label as usize] += 1);
        counts
    }

    /// A method's weight net; class-aware only where classes differ in size.
    pub(super) fn weight_net(&self, method: Method) -> WeightNet {
        let mut net = self.config.weight_net(method);
        if method == Method::CmwNet {
            net.groups = class_groups(&self.class_counts());
            if net.groups.iter().all(|group| *group == 0) {
                net.groups.clear();
            }
        }
        net
    }

    pub(super) fn batcher(&self, meta: bool) -> Result<Batcher> {
        let stream = if meta { Stream::MetaBatches } else { Stream::TrainBatches };
        let Config { batch: size, seed, .. } = self.config;
        let how = data::BatchConfig { size, seed, stream, augment: self.dataset.augment };
        if meta {
            Batcher::endless(&self.split.meta.indices, &self.split.meta.labels, how)
        } else {
            Batcher::per_epoch(&self.split.train.indices, &self.split.train.labels, how)
        }
    }
}
