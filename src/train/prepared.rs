use std::borrow::Cow;

use super::config::Config;
use super::method::Method;
use crate::data::{self, Batcher, Dataset, Images, Split, SplitConfig};
use crate::error::{Error, Result};
use crate::meta::Batch;
use crate::meta::schemes::{Set, class_groups};
use crate::nn::{self, Model, SharedModel, Summary, WeightNet};
use crate::program::{Plan, Program, Session, Values};
use crate::seed::Stream;
use crate::tape::{GatherSpec, Scalar, Shape};

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
        // Before anything is read.
        config.check()?;
        let dataset = data::load(config.dataset, config.data_dir.as_deref())?;
        Prepared::of(config, dataset, net)
    }

    /// As [`Prepared::with`], for data that are in memory already.
    ///
    /// # Errors
    /// As there.
    pub fn of(
        config: Config,
        dataset: Dataset,
        net: impl FnOnce(usize) -> Result<SharedModel>,
    ) -> Result<Prepared> {
        config.check()?;
        let how = SplitConfig {
            noise: config.noise,
            imbalance: config.imbalance,
            meta_size: config.meta_size.unwrap_or_else(|| {
                data::default_meta_size(dataset.classes(), config.noise, config.imbalance)
            }),
            seed: config.seed,
        };
        let split = data::split(&dataset, &how)?;
        let net = net(dataset.classes())?;
        let pixels = [&dataset.train.pixels[..], &dataset.test.pixels[..]].concat();
        let prepared = Prepared { config, dataset, split, net, pixels };
        let fits = Summary::of(prepared.net(), &prepared.image());
        fits.map_err(|e| Error::Data(format!("the images are not for {}: {e}", prepared.network())))?;
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

    /// A session that begins a run: its first parameters, and all images.
    ///
    /// # Errors
    /// If the session is of another precision: it would go on in the other silently.
    pub fn begin(&self, session: &mut Session) -> Result<()> {
        let (precision, machine) = (self.config.precision, session.describe());
        if session.precision() != precision.name() {
            return Err(Error::Program(format!("a run in {precision} cannot use {machine}")));
        }
        session.initialise(self.config.seed)
    }

    /// Loads a program into a session, with the images if it is the first that reads them.
    pub(super) fn load(&self, plan: Plan, session: &mut Session) -> Result<Program> {
        let there = |session: &Session| session.states().iter().any(|s| s.name == "pixels");
        let had = there(session);
        let program = session.load(plan)?;
        if !had && there(session) {
            session.write_state("pixels", Values::Byte(&self.pixels))?;
        }
        Ok(program)
    }

    /// The images on the device, and their normalisation; `augmented` with the border that crops
    /// are taken from.
    pub fn batch(&self, augmented: bool) -> Batch {
        let scalars = |v: &[f64]| v.iter().copied().map(Scalar).collect();
        let pad = self.dataset.augment.filter(|_| augmented).map_or(0, |a| a.pad);
        let spec = GatherSpec { mean: scalars(&self.dataset.mean), std: scalars(&self.dataset.std), pad };
        let Images { height, width, channels, .. } = self.dataset.train;
        let count = self.dataset.train.len() + self.dataset.test.len();
        Batch::Picked { count, image: [height, width, channels], spec }
    }

    /// `[h, w, c]` of an image.
    pub fn image(&self) -> Shape {
        let Images { height, width, channels, .. } = self.dataset.train;
        [height, width, channels].into()
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
    pub fn class_counts(&self) -> Vec<usize> {
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
