use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::method::Method;
use crate::data::{DatasetKind, Noise};
use crate::error::{Error, Result};
use crate::meta::schemes::MwNetRecipe;
use crate::meta::{Optimiser, Preset, Route, Sgd, StepConfig, VirtualStep, Weights, probe};
use crate::nn::{WeightNet, WeightNetInit};

/// Everything that decides a run's results. Two runs of one configuration have the same bits, on
/// any number of threads.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Which data set.
    #[serde(with = "text")]
    pub dataset: DatasetKind,
    /// Where it lies, unless it is built in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// Label noise.
    #[serde(with = "text")]
    pub noise: Noise,
    /// Imbalance factor of a long tail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imbalance: Option<f64>,
    /// Images of the meta set, if not [`crate::data::default_meta_size`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta_size: Option<usize>,
    /// The classifier, by name.
    pub model: String,
    /// What is trained first; the baseline is always uniform.
    #[serde(with = "text")]
    pub method: Method,
    /// Whether the uniform baseline is trained beside it.
    pub baseline: bool,
    /// Virtual steps of a meta step, each on a batch of its own.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub unroll: usize,
    /// The weight net takes a step once in this many steps.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub theta_every: usize,
    /// How the hypergradient is computed.
    #[serde(with = "text")]
    pub route: Route,
    /// Mean or normalised weights.
    #[serde(with = "text")]
    pub weights: Weights,
    /// Whether the loss that V reads is differentiated through.
    pub undetached: bool,
    /// The virtual step's rule.
    #[serde(rename = "virtual", with = "text")]
    pub virtual_step: VirtualStep,
    /// V's optimiser.
    #[serde(with = "text")]
    pub weight_net_preset: Preset,
    /// V's learning rate, if not [`Preset::lr`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_net_lr: Option<f64>,
    /// Where V's parameters begin.
    #[serde(with = "text")]
    pub weight_net_init: WeightNetInit,
    /// Passes over the training set.
    pub epochs: usize,
    /// Images of a training batch, and of a meta batch.
    pub batch: usize,
    /// Learning rate of the first epoch.
    pub lr: f64,
    /// Epochs (from 0) at whose start the learning rate is divided by 10.
    pub milestones: Vec<usize>,
    /// Momentum of the classifier's SGD.
    pub momentum: f64,
    /// Nesterov's form of it.
    pub nesterov: bool,
    /// L2 coefficient of the classifier, batch norm's scales and biases included.
    pub weight_decay: f64,
    /// Decides the split, the noise, the first parameters and the order of batches.
    pub seed: u64,
    /// `f32`, `f64`, `tf32` or `bf16`.
    pub precision: String,
}

impl Default for Config {
    /// What `metatape train` does by default.
    fn default() -> Config {
        Config {
            dataset: DatasetKind::FashionMnistMini,
            data_dir: None,
            noise: Noise::Uniform(0.6),
            imbalance: None,
            meta_size: None,
            model: "mlp".into(),
            method: Method::MwNet,
            baseline: true,
            unroll: 1,
            theta_every: 1,
            route: Route::Jvp,
            weights: Weights::Normalised,
            undetached: false,
            virtual_step: VirtualStep::Plain,
            weight_net_preset: Preset::Adam,
            weight_net_lr: None,
            weight_net_init: WeightNetInit::Kinks,
            epochs: 20,
            batch: 100,
            lr: 0.05,
            milestones: vec![13, 17],
            momentum: 0.9,
            nesterov: false,
            weight_decay: 5e-4,
            seed: 1,
            precision: "f32".into(),
        }
    }
}

impl Config {
    /// A method's meta step.
    pub fn step(&self, method: Method) -> StepConfig {
        let MwNetRecipe { weights, undetached, weight_net } = self.recipe(method);
        StepConfig {
            weights,
            undetached,
            virtual_step: self.virtual_step,
            unroll: self.unroll,
            route: self.route,
            classifier: self.classifier(),
            weight_net: weight_net.optimiser().0,
            probe: probe(self.precision == "f64"),
        }
    }

    /// Meta-Weight-Net's recipe: that of the fields, unless the method names one.
    fn recipe(&self, method: Method) -> MwNetRecipe {
        match method {
            Method::MwNetLongTail => MwNetRecipe::LONG_TAIL,
            Method::CmwNet => MwNetRecipe::CLASS_AWARE,
            _ => MwNetRecipe {
                weights: self.weights,
                undetached: self.undetached,
                weight_net: self.weight_net_preset,
            },
        }
    }

    /// The classifier's rule.
    pub fn classifier(&self) -> Sgd {
        Sgd { momentum: self.momentum, nesterov: self.nesterov, weight_decay: self.weight_decay }
    }

    /// The weight net, 1–100–1 as published, with one V for all classes.
    pub fn weight_net(&self, method: Method) -> WeightNet {
        // The kinks were made for label noise; the recipe for long tails begins as published, too.
        let init = match method {
            Method::MwNetLongTail => WeightNetInit::Faithful,
            Method::CmwNet => WeightNetInit::Kinks,
            _ => self.weight_net_init,
        };
        WeightNet { hidden: 100, init, slope: self.recipe(method).weight_net.slope(), groups: Vec::new() }
    }

    /// V's rule and learning rate.
    pub fn weight_net_rule(&self, method: Method) -> (Optimiser, f64) {
        let preset = self.recipe(method).weight_net;
        let lr = preset.lr(self.weight_net(method).init);
        (preset.optimiser().0, self.weight_net_lr.unwrap_or(lr))
    }

    /// The classifier's learning rate in an epoch (from 0): divided by 10 at every milestone.
    pub fn lr_at(&self, epoch: usize) -> f64 {
        let drops = self.milestones.iter().filter(|m| epoch >= **m).count();
        self.lr / 10f64.powi(drops as i32)
    }

    /// What spoils the data, for people: `noise uniform:0.6, imbalance 10`.
    pub fn bias(&self) -> String {
        let tail = self.imbalance.map_or(String::new(), |factor| format!(", imbalance {factor}"));
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
            return usage(format!("--lr {} is not a positive number", self.lr));
        }
        if !["f32", "f64", "tf32", "bf16"].contains(&self.precision.as_str()) {
            let known = "f32, f64, tf32, bf16";
            return usage(format!("--precision `{}` is not known; choose one of {known}", self.precision));
        }
        if self.theta_every == 0 {
            return usage("--theta-every 0 never moves the weight net; give at least 1".into());
        }
        if !self.method.is_meta() && (self.unroll, self.theta_every) != (1, 1) {
            return usage(format!(
                "--unroll and --theta-every are of the weight net; {} has none",
                self.method
            ));
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

fn one() -> usize {
    1
}

fn is_one(count: &usize) -> bool {
    *count == 1
}

/// Fields that are written as people type them.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}
