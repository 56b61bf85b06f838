use std::collections::HashMap;

use super::config::Config;
use super::method::Method;
use super::network_file::NetworkFile;
use super::step::source;
use crate::data::{
    self, BatchConfig, Batcher, Dataset, Fingerprint, Labelled, MetaSource, Noise, Split, SplitConfig,
};
use crate::error::{Error, Result};
use crate::meta::Batch;
use crate::meta::schemes::{Set, class_groups};
use crate::nn::{Model, SharedModel, Summary, WeightNet};
use crate::program::Session;
use crate::room;
use crate::seed::Stream;
use crate::tape::Shape;
use crate::words::exact;

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
    /// First values of its states that are given.
    beginning: HashMap<String, Vec<f64>>,
}

impl Prepared {
    /// Loads, splits and corrupts the data that a configuration names.
    ///
    /// # Errors
    /// As [`Config::network`], [`data::load`] and [`data::split`], for images that the model cannot
    /// take, for a batch larger than the training set, and as [`NetworkFile::read`] and
    /// [`NetworkFile::states`] for the network to begin with.
    pub fn new(mut config: Config) -> Result<Prepared> {
        config.read_model()?;
        let named = config.clone();
        Prepared::with(config, |classes| named.network(classes))
    }

    /// As [`Prepared::new`], for a classifier of one's own that is made for the data's number of
    /// classes. `config.model` is what it is called.
    ///
    /// # Errors
    /// As there.
    pub fn with(config: Config, net: impl FnOnce(usize) -> Result<SharedModel>) -> Result<Prepared> {
        // Before anything is read.
        config.check()?;
        let dataset = config.reading().load()?;
        Prepared::of(config, dataset, net)
    }

    /// As [`Prepared::with`], for data that are in memory already.
    ///
    /// # Errors
    /// As there; if they are other data than the configuration's `data`.
    pub fn of(
        mut config: Config,
        dataset: Dataset,
        net: impl FnOnce(usize) -> Result<SharedModel>,
    ) -> Result<Prepared> {
        config.check()?;
        let found = Fingerprint::of(&dataset);
        if let Some(had) = &config.data {
            had.check(&found, &dataset.name)?;
        }
        config.data = Some(found);
        if let [only] = &dataset.class_names[..] {
            return Err(Error::Data(format!(
                "all samples of {} are of the class `{only}`: there is nothing to tell apart; add another class",
                dataset.name
            )));
        }
        // Of each class, its rows of a few matrices of classes, and its logits of all training
        // samples.
        let classes = dataset.classes();
        let each = (4 * classes).saturating_add(dataset.train.len()).saturating_mul(size_of::<f64>());
        room::check(
            classes.saturating_mul(each),
            &format!("telling {classes} classes apart"),
            "join some of them",
        )?;
        if let (Some(meta), Some(size), None) = (&dataset.meta, config.meta_size, config.meta_source) {
            return Err(Error::Usage(format!(
                "--meta-size {size} is for a meta set that is split off, and there is the {}; leave it out, or say \
                 --meta-source split, and that one is not used",
                meta.name
            )));
        }
        let how = SplitConfig {
            noise: config.noise,
            imbalance: config.imbalance,
            meta_source: config.meta_source.unwrap_or(match &dataset.meta {
                Some(_) => MetaSource::Dir,
                None => MetaSource::Split,
            }),
            meta_size: config
                .meta_size
                .unwrap_or_else(|| data::default_meta_size(&dataset, config.noise, config.imbalance)),
            seed: config.seed,
        };
        let split = data::split(&dataset, &how)?;
        let net = net(dataset.classes())?;
        let mut prepared = Prepared { config, dataset, split, net, beginning: HashMap::new() };
        let fits = Summary::of(prepared.net(), prepared.shape());
        fits.map_err(|e| Error::Data(format!("the samples are not for {}: {e}", prepared.network())))?;
        // They refuse a batch that is larger than the training set.
        prepared.batcher(false)?;
        prepared.batcher(true)?;
        if let Some(path) = &prepared.config.init {
            let file = NetworkFile::read(path)?;
            prepared.beginning = file.beginning(&prepared, prepared.config.init_sha256.as_deref())?;
            prepared.config.init_sha256 = Some(file.hash);
        }
        Ok(prepared)
    }

    /// The classifier.
    pub fn net(&self) -> &dyn Model {
        self.net.as_ref()
    }

    /// The network and what it is trained on, as a checkpoint records them.
    pub(super) fn network(&self) -> String {
        let sizes: Vec<String> = self.shape().iter().map(usize::to_string).collect();
        format!("{} on {}, {} classes", self.config.model, sizes.join("x"), self.dataset.classes())
    }

    /// What the run trains, what was done to it, and what happened on reading: for people, a line
    /// each.
    pub fn account(&self) -> Vec<String> {
        let Prepared { config, dataset, split, .. } = self;
        let (train, n) = (&split.train, split.train.indices.len());
        let wrong = train.corrupted.iter().filter(|wrong| **wrong).count();
        let share = 100.0 * wrong as f64 / n as f64;
        let mut labels = match (config.noise, train.known) {
            (Noise::None, false) => "labels as they are".to_owned(),
            (Noise::None, true) => {
                format!("labels as they are, of which {wrong} ({share:.1}%) are known to be wrong")
            }
            (noise, _) => format!("noise {noise} put on: {wrong} labels ({share:.1}%) are wrong"),
        };
        if let Some(factor) = config.imbalance {
            labels.push_str(&format!("; thinned to a long tail of factor {}", exact(factor)));
        }
        let m = split.meta.indices.len();
        let meta = match (split.balanced, &dataset.meta) {
            (true, _) => "meta batches are drawn from the training set, as many of each class".to_owned(),
            (false, Some(part)) if part.indices == split.meta.indices => format!("the {} has {m}", part.name),
            (false, Some(part)) => format!("meta set: {m} set apart; the {} is not used", part.name),
            (false, None) => format!("meta set: {m} set apart, with their labels as they came"),
        };
        let (name, classes, test) = (&dataset.name, dataset.classes(), dataset.test.len());
        let line =
            format!("{name}: {n} training samples of {classes} classes, {labels}; {meta}; test: {test}");
        std::iter::once(line).chain(dataset.remarks.iter().cloned()).collect()
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
        session.begin_with(self.beginning.clone());
        session.initialise(self.config.seed)
    }

    /// Images on the device, and their normalisation, `augmented` with the border that crops are
    /// taken from; features are given to each step.
    pub fn batch(&self, augmented: bool) -> Batch {
        source(&self.dataset, augmented)
    }

    /// `[h, w, c]` of an image, `[d]` of features.
    pub fn shape(&self) -> &Shape {
        &self.dataset.shape
    }

    /// Places of a set's samples among all of them.
    pub(super) fn indices(&self, set: Set) -> &[u32] {
        match set {
            Set::Train => &self.split.train.indices,
            Set::Meta => &self.split.meta.indices,
            Set::Test => &self.dataset.test.indices,
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
        self.counts(&self.split.train.labels)
    }

    /// Samples of each class in the meta set; where its batches are balanced, as many of each.
    pub fn meta_counts(&self) -> Vec<usize> {
        match self.split.balanced {
            true => vec![1; self.dataset.classes()],
            false => self.counts(&self.split.meta.labels),
        }
    }

    fn counts(&self, labels: &[i32]) -> Vec<usize> {
        let mut counts = vec![0; self.dataset.classes()];
        labels.iter().for_each(|label| counts[*label as usize] += 1);
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

    /// Training batches, or meta batches.
    pub(super) fn batcher(&self, meta: bool) -> Result<Batcher> {
        let Labelled { indices, labels } = &self.split.meta;
        match meta {
            true if self.split.balanced => {
                Batcher::balanced(indices, labels, self.batches(Stream::MetaBatches))
            }
            true => self.meta_batcher(&self.split.meta),
            false => {
                let train = &self.split.train;
                Batcher::per_epoch(&train.indices, &train.labels, self.batches(Stream::TrainBatches))
            }
        }
    }

    /// Meta batches from another set.
    pub(super) fn meta_batcher(&self, meta: &Labelled) -> Result<Batcher> {
        Batcher::endless(&meta.indices, &meta.labels, self.batches(Stream::MetaBatches))
    }

    fn batches(&self, stream: Stream) -> BatchConfig {
        let Config { batch: size, seed, .. } = self.config;
        BatchConfig { size, seed, stream, augment: self.dataset.augment }
    }
}
