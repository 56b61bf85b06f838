//! From flags to the configuration of a run, or of one that a study or a walk is made of.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use metatape::meta::Route;
use metatape::train::{Config, Method};
use metatape::{Error, Result};

use super::args::{DataArgs, DeviceArgs, RunArgs, StepArgs};

/// What subcommands give.
pub struct Flags<'a> {
    /// Data set, noise, long tail, meta set.
    pub data: &'a DataArgs,
    /// The meta step.
    pub step: &'a StepArgs,
    /// Precision.
    pub device: &'a DeviceArgs,
    /// The classifier.
    pub model: &'a str,
    /// Samples of a batch.
    pub batch: usize,
    /// Passes over the training set.
    pub epochs: usize,
    /// Where the learning rate is divided by 10.
    pub milestones: Vec<usize>,
    /// The weight net takes a step once in this many.
    pub theta_every: usize,
    /// How the hypergradient is computed.
    pub route: Route,
    /// What is trained.
    pub method: Method,
    /// Whether the uniform baseline is trained beside it.
    pub baseline: bool,
    /// The seed.
    pub seed: u64,
}

/// The run that flags ask for, of a method and a seed.
pub fn config(args: &RunArgs, method: Method, baseline: bool, seed: u64) -> Result<Config> {
    let flags = Flags {
        data: &args.data,
        step: &args.step,
        device: &args.device,
        model: &args.model,
        batch: args.batch,
        epochs: args.epochs,
        milestones: args.milestones(),
        theta_every: args.theta_every,
        route: args.route,
        method,
        baseline,
        seed,
    };
    flags.config()
}

impl Flags<'_> {
    /// As a configuration.
    pub fn config(self) -> Result<Config> {
        // So that it can be resumed from another folder.
        let absolute = |dir| std::path::absolute(dir).map_err(Error::io(dir, "find"));
        Ok(Config {
            dataset: self.data.dataset,
            data_dir: self.data.data_dir.as_ref().map(absolute).transpose()?,
            noise: self.data.noise(),
            imbalance: self.data.imbalance,
            meta_size: self.data.meta_size,
            model: self.model.to_owned(),
            method: self.method,
            baseline: self.baseline,
            unroll: self.step.unroll,
            theta_every: self.theta_every,
            route: self.route,
            weights: self.step.weights,
            undetached: self.step.undetached,
            virtual_step: self.step.virtual_step,
            weight_net_preset: self.step.weight_net_preset,
            weight_net_lr: self.step.weight_net_lr,
            weight_net_init: self.step.weight_net_init,
            epochs: self.epochs,
            batch: self.batch,
            lr: self.step.lr,
            milestones: self.milestones,
            momentum: self.step.momentum,
            nesterov: self.step.nesterov,
            weight_decay: self.step.weight_decay,
            seed: self.seed,
            precision: self.device.precision.to_string(),
        })
    }
}

/// Begins results in the folder that was given, or else in `runs/<date-name>`, with a number behind
/// it if that is taken.
pub fn in_folder<R>(given: Option<&Path>, name: &str, begin: impl FnOnce(&Path) -> Result<R>) -> Result<R> {
    let Some(out) = given else {
        let out = new_folder(name)?;
        // If nothing comes of it, neither is its folder left.
        return begin(&out).inspect_err(|_| drop(std::fs::remove_dir(&out)));
    };
    begin(out)
}

fn new_folder(name: &str) -> Result<PathBuf> {
    let runs = Path::new("runs");
    std::fs::create_dir_all(runs).map_err(|e| {
        Error::Data(format!("the folder runs cannot be made here ({e}); name another with --out"))
    })?;
    let date = jiff::ZonedDateTime::now().strftime("%Y-%m-%d-%H%M%S").to_string();
    let first = runs.join(format!("{date}-{name}"));
    let numbered = (2..).map(|i| runs.join(format!("{date}-{name}-{i}")));
    for out in std::iter::once(first).chain(numbered) {
        // Of several runs that begin in one second only one makes it.
        match std::fs::create_dir(&out) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(|()| out.clone()).map_err(Error::io(&out, "create the folder")),
        }
    }
    unreachable!("there is a number that is not taken")
}
