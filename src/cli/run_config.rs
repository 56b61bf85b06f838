//! From flags to the configuration of a run, or of one that a study or a walk is made of.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use metatape::train::{Config, Method};
use metatape::{Error, Result};

use super::args::{DataArgs, DeviceArgs, RunArgs, StepArgs};

/// What the flags of data, meta step and machine say; the rest as it is by default.
///
/// # Errors
/// If the data's folder has no absolute path: a run can be resumed from another folder.
pub fn common(data: &DataArgs, step: &StepArgs, device: &DeviceArgs) -> Result<Config> {
    let absolute = |dir| std::path::absolute(dir).map_err(Error::io(dir, "find"));
    Ok(Config {
        dataset: data.dataset,
        data_dir: data.data_dir.as_ref().map(absolute).transpose()?,
        noise: data.noise(),
        imbalance: data.imbalance,
        meta_size: data.meta_size,
        unroll: step.unroll,
        weights: step.weights,
        undetached: step.undetached,
        virtual_step: step.virtual_step,
        weight_net_preset: step.weight_net_preset,
        weight_net_lr: step.weight_net_lr,
        weight_net_init: step.weight_net_init,
        lr: step.lr,
        momentum: step.momentum,
        nesterov: step.nesterov,
        weight_decay: step.weight_decay,
        precision: device.precision.to_string(),
        ..Config::default()
    })
}

/// The run that flags ask for, of a method and a seed.
///
/// # Errors
/// As [`common`].
pub fn config(args: &RunArgs, method: Method, baseline: bool, seed: u64) -> Result<Config> {
    Ok(Config {
        model: args.model.clone(),
        batch: args.batch,
        epochs: args.epochs,
        milestones: args.milestones(),
        theta_every: args.theta_every,
        route: args.route,
        method,
        baseline,
        seed,
        ..common(&args.data, &args.step, &args.device)?
    })
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
