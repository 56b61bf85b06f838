use std::path::PathBuf;

use clap::Args;
use clap::builder::ArgPredicate;
use serde::{Deserialize, Serialize};
use serde_with::{As, DisplayFromStr};

use super::method::{Method, Settings};
use super::values::{MODELS, Precision, ROUTES, factor, model, positive, rate, share};
use crate::data::{DatasetKind, Fingerprint, MetaSource, Noise, Reading};
use crate::error::{Error, Result};
use crate::meta::{Preset, Route, Sgd, VirtualStep, Weights};
use crate::models::ModelFile;
use crate::nn::{SharedModel, WeightNetInit};
use crate::words::exact;

/// Headings of the help.
const STEP: &str = "Meta step";
const SCHEDULE: &str = "Schedule";

/// What flags are by default.
fn own() -> Config {
    Config::default()
}

/// Everything that decides a run's results: the fields of `config.toml`, and the flags of all
/// commands that train. Two runs of one configuration have the same bits, on any number of threads.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, Args)]
#[serde(deny_unknown_fields)]
#[command(next_help_heading = "Data")]
pub struct Config {
    /// fashion-mnist-mini (built in), mnist, fashion-mnist, cifar10, cifar100; folder (images:
    /// train/CLASS/*, meta/..., test/..., or a metadata.csv with file_name and label), arrays
    /// (.npz, .npy, .safetensors with x and y) or csv (numbers and a column of labels)
    #[arg(long, value_name = "NAME", default_value_t = own().dataset)]
    #[serde(with = "As::<DisplayFromStr>")]
    pub dataset: DatasetKind,
    /// Folder with the data set's files; all but the built-in one need it
    #[arg(long, value_name = "DIR")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// Label noise of the training set: none, or with a probability P uniform:P (a label drawn anew
    /// from all classes), flip:P (one wrong class for each), flip2:P (two) [default: none;
    /// uniform:0.6 for the built-in images, if there is no --imbalance]
    #[arg(
        long,
        value_name = "NOISE",
        default_value_t = own().noise,
        default_value_ifs([
            ("imbalance", ArgPredicate::IsPresent, "none"),
            ("dataset", ArgPredicate::Equals("fashion-mnist-mini".into()), "uniform:0.6"),
            ("dataset", ArgPredicate::IsPresent, "none"),
        ]),
        hide_default_value = true
    )]
    #[serde(with = "As::<DisplayFromStr>")]
    pub noise: Noise,
    /// Long tail: the largest class has IF times the images of the smallest
    #[arg(long, value_name = "IF", value_parser = factor)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imbalance: Option<f64>,
    /// Where the meta set comes from: split (set apart from the training samples), dir (it is there
    /// as meta/ or --meta-dir), or train-balanced (meta batches are drawn from the training set
    /// itself, as many of each class) [default: dir where there is one, else split]
    #[arg(long, value_name = "split|dir|train-balanced")]
    #[serde(default, skip_serializing_if = "Option::is_none", with = "As::<Option<DisplayFromStr>>")]
    pub meta_source: Option<MetaSource>,
    /// A folder of clean samples for the meta set: images in folders by class, or a file meta of
    /// the data set's own kind
    #[arg(long, value_name = "DIR")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta_dir: Option<PathBuf>,
    /// Samples set apart for the meta set, the same number of each class [default: 1000, or 10 a
    /// class for a long tail without noise, but at most a tenth of the training samples and half of
    /// the smallest class, and one a class at least]
    #[arg(long, value_name = "N", value_parser = positive)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta_size: Option<usize>,
    /// Samples set apart for the test, where the data have no test set
    #[arg(long, value_name = "N", value_parser = positive)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_size: Option<usize>,
    /// Resize images so that the shorter side has N pixels, and crop the other from the middle
    #[arg(long, value_name = "N", value_parser = positive)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,
    /// Leave out images that cannot be read, and say which
    #[arg(long)]
    #[serde(default, skip_serializing_if = "is_off")]
    pub skip_unreadable: bool,
    /// A file with the labels to train on (.npy, .csv, .txt, .safetensors), one for each training
    /// sample; the set's own are then the truth, for reports only
    #[arg(long, value_name = "FILE")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_labels: Option<PathBuf>,
    /// The column of the labels, with --dataset csv
    #[arg(long, value_name = "NAME", default_value_t = own().label_column)]
    #[serde(default = "label", skip_serializing_if = "is_label")]
    pub label_column: String,
    /// The classifier: a built-in one, or a file of layers (`metatape info --model lenet` prints
    /// one)
    #[arg(long, value_name = MODELS, default_value_t = own().model, value_parser = model)]
    pub model: String,
    /// What that file holds; none for a built-in network. See [`Config::read_model`].
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_text: Option<String>,
    /// Begin with the network of this file, the model.safetensors of a run with as many classes
    #[arg(long, value_name = "FILE")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// SHA-256 of that file when the run began.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_sha256: Option<String>,
    /// What is trained first; the baseline is always uniform.
    #[arg(skip = own().method)]
    #[serde(with = "As::<DisplayFromStr>")]
    pub method: Method,
    /// Whether the uniform baseline is trained beside it.
    #[arg(skip)]
    pub baseline: bool,
    /// Weights of a batch of mwnet (other methods have their own): normalised (V over the sum of V)
    /// or mean (V/n)
    #[arg(long, value_name = "mean|normalised", default_value_t = own().weights, help_heading = STEP)]
    #[serde(with = "As::<DisplayFromStr>")]
    pub weights: Weights,
    /// Of mwnet: differentiate the loss that the weight net reads, too
    #[arg(long, help_heading = STEP)]
    pub undetached: bool,
    /// The virtual step's rule: plain SGD, or momentum and weight decay as in the real step;
    /// mwnet-soft has plain SGD
    #[arg(
        long = "virtual",
        value_name = "plain|momentum",
        default_value_t = own().virtual_step,
        help_heading = STEP
    )]
    #[serde(rename = "virtual", with = "As::<DisplayFromStr>")]
    pub virtual_step: VirtualStep,
    /// Virtual steps, each on a batch of its own, through which the hypergradient goes; 1 as
    /// published, and in mwnet-soft
    #[arg(long, value_name = "K", default_value_t = one(), value_parser = positive, help_heading = STEP)]
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub unroll: usize,
    /// How the hypergradient is computed; mwnet-soft has a jvp of its own
    #[arg(long, value_name = ROUTES, default_value_t = own().route, help_heading = STEP)]
    #[serde(with = "As::<DisplayFromStr>")]
    pub route: Route,
    /// The weight net takes a step once in K steps of the classifier; in mwnet-soft, in each of
    /// those that its settings say
    #[arg(long, value_name = "K", default_value_t = one(), value_parser = positive, help_heading = STEP)]
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub theta_every: usize,
    /// The optimiser of mwnet's weight net (other methods have their own): adam (1e-3, L2 1e-4),
    /// sgd-noise (1e-3, Nesterov 0.9, weight decay 5e-4) or sgd-imbalance (1e-5, the same)
    #[arg(long, value_name = "PRESET", default_value_t = own().weight_net_preset, help_heading = STEP)]
    #[serde(with = "As::<DisplayFromStr>")]
    pub weight_net_preset: Preset,
    /// The weight net's learning rate [default: its optimiser's; 2e-3 for adam with kinks, and in
    /// mwnet-soft]
    #[arg(long, value_name = "LR", value_parser = rate, help_heading = STEP)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_net_lr: Option<f64>,
    /// Where mwnet's weight net begins (other methods have their own): kinks (rising and falling
    /// units spread over the losses, V = 0.5 everywhere), trusting (the same with V = 0.88), or
    /// faithful (PyTorch's default, as published)
    #[arg(long, value_name = "INIT", default_value_t = own().weight_net_init, help_heading = STEP)]
    #[serde(with = "As::<DisplayFromStr>")]
    pub weight_net_init: WeightNetInit,
    /// Momentum of the classifier's SGD
    #[arg(
        long,
        value_name = "MU",
        default_value_t = own().momentum,
        value_parser = share,
        help_heading = STEP
    )]
    pub momentum: f64,
    /// Nesterov's form of that momentum
    #[arg(long, help_heading = STEP)]
    pub nesterov: bool,
    /// L2 coefficient of the classifier, batch norm's scales and biases included
    #[arg(
        long,
        value_name = "L2",
        default_value_t = own().weight_decay,
        value_parser = share,
        help_heading = STEP
    )]
    pub weight_decay: f64,
    /// The largest norm of the gradient that the classifier's real step takes, over all parameters
    /// and before weight decay and momentum: a longer one is scaled down to it. The flag's default
    /// is [`Config::CLIP_GRAD`].
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_grad: Option<f64>,
    /// The classifier's learning rate, in the first epoch; the flag's default is
    /// [`Config::lr_of`] the batch.
    #[arg(skip = own().lr)]
    pub lr: f64,
    /// The methods' own settings, [`Method::settings`], by method and name: `gce.q` and so on.
    /// Those that are left out are as by default.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    pub set: Settings,
    /// Passes over the training set
    #[arg(
        long,
        value_name = "N",
        default_value_t = own().epochs,
        value_parser = positive,
        help_heading = SCHEDULE
    )]
    pub epochs: usize,
    /// Samples of a batch, and of a meta batch
    #[arg(
        long,
        value_name = "N",
        default_value_t = own().batch,
        value_parser = positive,
        help_heading = SCHEDULE
    )]
    pub batch: usize,
    /// Numbers of epochs, ascending, after which the learning rate is divided by 10; those that
    /// training does not go beyond do nothing. The flag's default is [`Config::milestones_of`] the
    /// epochs.
    #[arg(skip = own().milestones)]
    pub milestones: Vec<usize>,
    /// Decides the split, the noise, the first parameters and the order of batches.
    #[arg(skip = own().seed)]
    pub seed: u64,
    /// What was read, when it began: other data are refused then.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Fingerprint>,
    /// Threads that read images; none: as many as the machine has. Not recorded: it decides no
    /// results.
    #[arg(skip)]
    #[serde(skip)]
    pub threads: Option<usize>,
    /// Floating-point numbers: f32 anywhere; f64 on the CPU; on a GPU also tf32 (products of
    /// factors rounded to 10 bits) and bf16 (activations stored in 16 bits, too)
    #[arg(
        long,
        value_name = "f32|f64|tf32|bf16",
        default_value_t = own().precision,
        help_heading = "Machine"
    )]
    #[serde(with = "As::<DisplayFromStr>")]
    pub precision: Precision,
}

impl Default for Config {
    /// What `metatape train` does by default, but for the method: here it is the one whose step the
    /// fields describe.
    fn default() -> Config {
        Config {
            dataset: DatasetKind::FashionMnistMini,
            data_dir: None,
            noise: Noise::Uniform(0.6),
            imbalance: None,
            meta_source: None,
            meta_dir: None,
            meta_size: None,
            test_size: None,
            image_size: None,
            skip_unreadable: false,
            train_labels: None,
            label_column: label(),
            model: "mlp".into(),
            model_text: None,
            init: None,
            init_sha256: None,
            method: Method::MwNet,
            baseline: true,
            unroll: 1,
            theta_every: 1,
            route: Route::Layerwise,
            weights: Weights::Normalised,
            undetached: false,
            virtual_step: VirtualStep::Plain,
            weight_net_preset: Preset::Adam,
            weight_net_lr: None,
            weight_net_init: WeightNetInit::Kinks,
            set: Settings::new(),
            epochs: 20,
            batch: 100,
            lr: Config::lr_of(100),
            milestones: Config::milestones_of(20),
            momentum: 0.9,
            nesterov: false,
            weight_decay: 5e-4,
            clip_grad: None,
            seed: 1,
            data: None,
            threads: None,
            precision: Precision::F32,
        }
    }
}

impl Config {
    /// The same with what of another decides no results: where files are, and how many threads read
    /// them.
    pub fn placed_as(self, other: &Config) -> Config {
        let Config { data_dir, meta_dir, train_labels, init, threads, .. } = other.clone();
        Config { data_dir, meta_dir, train_labels, init, threads, ..self }
    }

    /// What is read, and how.
    pub fn reading(&self) -> Reading {
        Reading {
            kind: self.dataset,
            dir: self.data_dir.clone(),
            meta_dir: self.meta_dir.clone(),
            test_size: self.test_size,
            image_size: self.image_size,
            skip_unreadable: self.skip_unreadable,
            train_labels: self.train_labels.clone(),
            label_column: self.label_column.clone(),
            threads: self.threads,
        }
    }

    /// Where `model` is the path of a file, it becomes its name, and `model_text` what it holds: a
    /// run keeps the network that it began with.
    ///
    /// # Errors
    /// As [`ModelFile::open`].
    pub fn read_model(&mut self) -> Result<()> {
        if self.model.ends_with(".toml") && self.model_text.is_none() {
            let ModelFile { name, text, .. } = ModelFile::open(&self.model)?;
            (self.model, self.model_text) = (name, Some(text));
        }
        Ok(())
    }

    /// The classifier for data of so many classes.
    ///
    /// # Errors
    /// As [`ModelFile::parse`] and [`ModelFile::built_in`].
    pub fn network(&self, classes: usize) -> Result<SharedModel> {
        match &self.model_text {
            Some(text) => Ok(ModelFile::parse(&self.model, text)?.network(classes)),
            None => Ok(ModelFile::built_in(&self.model)?.network(classes)),
        }
    }

    /// The classifier's rule.
    pub fn classifier(&self) -> Sgd {
        let Config { momentum, nesterov, weight_decay, clip_grad: clip, .. } = *self;
        Sgd { momentum, nesterov, weight_decay, clip }
    }

    /// The epochs at whose start the learning rate drops unless told otherwise: ⌊66%⌋ and ⌊85%⌋ of
    /// all, where that is not before the first.
    pub fn milestones_of(epochs: usize) -> Vec<usize> {
        [66, 85].map(|percent| epochs * percent / 100).into_iter().filter(|m| *m > 0).collect()
    }

    /// What bounds the classifier's gradient where a command trains, unless told otherwise. An MLP
    /// on the built-in images stays below it but in its first steps; on CIFAR-10, whose first
    /// gradients are longer, it does not learn without (`train --clip-grad none`).
    pub const CLIP_GRAD: f64 = 2.0;

    /// The classifier's learning rate unless told otherwise: 0.05 for batches of 100 and more,
    /// and for smaller ones in proportion to the batch (Goyal et al. 2017).
    pub fn lr_of(batch: usize) -> f64 {
        batch.min(100) as f64 / 2000.0
    }

    /// What spoils the data, for people: `noise uniform:0.6, imbalance 10`.
    pub fn bias(&self) -> String {
        let tail = self.imbalance.map_or(String::new(), |factor| format!(", imbalance {}", exact(factor)));
        format!("noise {}{tail}", self.noise)
    }

    /// The methods of the run, the main one first.
    pub fn methods(&self) -> Vec<Method> {
        match (self.method, self.baseline) {
            (Method::Uniform, _) | (_, false) => vec![self.method],
            (method, true) => vec![method, Method::Uniform],
        }
    }

    /// Checks what no single field shows.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the flag.
    pub fn check(&self) -> Result<()> {
        let usage = |sentence: String| Err(Error::Usage(sentence));
        if self.epochs == 0 {
            return usage("--epochs 0 trains nothing; give at least 1".into());
        }
        if self.batch == 0 {
            return usage("--batch 0 holds no sample; give at least 1".into());
        }
        if !(self.lr.is_finite() && self.lr > 0.0) {
            return usage(format!("--lr {} is not a positive number", exact(self.lr)));
        }
        if self.theta_every == 0 {
            return usage("--theta-every 0 never moves the weight net; give at least 1".into());
        }
        if self.meta_size.is_some() && self.meta_source.is_some_and(|source| source != MetaSource::Split) {
            return usage(
                "--meta-size is for a meta set that is split off; leave it, or --meta-source, out".into(),
            );
        }
        if self.meta_size.is_some() && self.meta_dir.is_some() {
            return usage("--meta-size is for a meta set that is split off, and --meta-dir names one; leave one of the two out".into());
        }
        if self.meta_dir.is_some() && self.meta_source.is_some_and(|source| source != MetaSource::Dir) {
            return usage("--meta-dir is for --meta-source dir; leave one of the two out".into());
        }
        self.step(self.method).check()?;
        if !self.milestones.is_sorted() {
            let given: Vec<String> = self.milestones.iter().map(usize::to_string).collect();
            return usage(format!(
                "--milestones {}: give numbers of epochs in ascending order",
                given.join(",")
            ));
        }
        Ok(())
    }
}

fn label() -> String {
    Reading::default().label_column
}

fn is_label(column: &String) -> bool {
    *column == label()
}

fn is_off(switch: &bool) -> bool {
    !switch
}

fn one() -> usize {
    1
}

fn is_one(count: &usize) -> bool {
    *count == 1
}
