//! A run that goes on: from its checkpoint, with its files moved, with more epochs.

use std::path::Path;

use super::checkpoint::{Progress, Saved};
use super::config::Config;
use super::files::{Claim, write_atomically};
use super::learner::Learner;
use super::run::{CHECKPOINT, CONFIG, Run, SUMMARY, is_drawn, outputs, set_all};
use super::samples;
use super::sealed::{read_toml, to_toml};
use super::times::Times;
use crate::error::{Error, Result};
use crate::meta::schemes::{Memory, Moment, Scheme};
use crate::program::Session;
use crate::words::counted;

impl Run {
    /// The configuration of the run in a folder.
    ///
    /// # Errors
    /// If there is none, or it is damaged.
    pub fn stored_config(out: &Path) -> Result<Config> {
        let path = out.join(CONFIG);
        if !path.exists() {
            return Err(Error::Usage(format!(
                "{} holds no run to resume (there is no {CONFIG}); give the --out of a run, or leave --resume out",
                out.display()
            )));
        }
        read_toml(&path)
    }

    /// The run in a folder, at its last checkpoint; from the start if it was stopped before the
    /// first one.
    ///
    /// # Errors
    /// As [`Run::resume_as`].
    pub fn resume(out: &Path, session: &dyn Fn() -> Result<Session>) -> Result<Run> {
        Run::resume_as(Run::stored_config(out)?, out, session)
    }

    /// The same with a configuration that is the stored one but for the paths of its data, if those
    /// have moved, and for `epochs` and `milestones`: it may have more epochs. They are stored.
    ///
    /// # Errors
    /// If the data are no longer the same, or a file is damaged or of another run; [`Error::Usage`]
    /// for a configuration that is another one, and for more epochs of a method that trains several
    /// networks.
    pub fn resume_as(config: Config, out: &Path, session: &dyn Fn() -> Result<Session>) -> Result<Run> {
        let stored = Run::stored_config(out)?;
        let mut run = Run::set_up(config, None, out, Claim::again(out, &outputs())?, session)?;
        let path = out.join(CHECKPOINT);
        if path.exists() {
            run.restore(&path)?;
            // It is written, never read: whatever has become of it, here it is again.
            run.write_metrics()?;
        } else if out.join(SUMMARY).exists() {
            return Err(Error::Usage(format!(
                "{} holds a finished run without its {CHECKPOINT}, so there is nothing to go on from; give another --out",
                out.display()
            )));
        }
        if run.data.config != stored {
            write_atomically(&out.join(CONFIG), to_toml(&run.data.config)?.as_bytes())?;
        }
        Ok(run)
    }

    /// Where it differs from a run that had all of its epochs from the start, in a sentence each;
    /// nowhere if none were added.
    pub fn departures(&self) -> &[String] {
        &self.departures
    }

    fn restore(&mut self, path: &Path) -> Result<()> {
        let saved = Saved::read(path)?;
        let Progress { network: had, config: then, epochs: done, .. } = &saved.progress;
        let mut then = then.clone();
        // A setting that there was not at that time had its default.
        set_all(&mut then, self.data.dataset.classes());
        let now = &self.data.config;
        let touched = done + usize::from(saved.progress.underway.iter().any(|own| own.sums.steps > 0));
        let grows = then.epochs < now.epochs;
        let rate = |config: &Config, epoch| config.lr_at(config.method, epoch);
        let alike = (0..touched).all(|epoch| rate(&then, epoch) == rate(now, epoch));
        if grows && !alike {
            return Err(Error::Usage(format!(
                "--milestones {}: {} had another learning rate; give those of before again, and then more",
                listed(&now.milestones),
                counted(touched, "epoch")
            )));
        }
        let (epochs, milestones) = (now.epochs, now.milestones.clone());
        let as_now = if grows { Config { epochs, milestones, ..then.clone() } } else { then.clone() };
        same(path, &as_now, now)?;
        let network = self.data.network();
        if *had != network {
            return Err(Error::Data(format!(
                "{}: its network is {had} but the data now ask for {network}; give the data it was trained on, or another --out",
                path.display(),
            )));
        }
        let times = Times::read(&self.out)?;
        let underway = &saved.progress.underway;
        let all = saved.progress.histories.iter().zip(underway);
        for (learner, history) in self.learners.iter_mut().zip(&mut self.histories) {
            let name = learner.method().to_string();
            saved.restore(&name, learner.session_mut())?;
            let found = all.clone().find(|own| own.0.0 == name).ok_or_else(|| {
                Error::Data(format!("{}: has no history of `{name}`; it is of another run", path.display()))
            })?;
            *history = found.0.1.clone();
            history.rename();
            saved.fill(&name, &mut history.pictures)?;
            let mut underway = found.1.clone();
            underway.sums.seconds = times.fill(&name, history);
            learner.restored(saved.memory(&name)?, underway);
        }
        self.done = *done;
        if grows { self.grow(&then, touched) } else { Ok(()) }
    }

    /// Makes of what was kept of a run of fewer epochs, so many of which were begun, what one of
    /// all epochs would have; and says where that cannot be done.
    fn grow(&mut self, then: &Config, touched: usize) -> Result<()> {
        let now = self.data.config.clone();
        let mut departures = Vec::new();
        if let Some(learner) = self.learners.iter().find(|learner| learner.stages() > 1) {
            return Err(Error::Usage(format!(
                "--epochs {}: {} trains {} networks one after the other, each over all epochs; start anew in another --out",
                now.epochs,
                learner.method(),
                learner.stages()
            )));
        }
        let usual = Config::milestones_of(now.epochs);
        if then.milestones == now.milestones
            && then.milestones == Config::milestones_of(then.epochs)
            && usual != now.milestones
        {
            departures.push(format!(
                "the learning rate falls after epochs {}, as usual for {} epochs, and not after {}",
                listed(&now.milestones),
                then.epochs,
                listed(&usual)
            ));
        }
        let judged = |epochs: usize| (0..touched).filter(move |epoch| samples::counts(*epoch, epochs));
        let forget = judged(now.epochs).next().is_none();
        if !forget && !judged(now.epochs).eq(judged(then.epochs)) {
            departures.push(
                "loss and weight in samples.csv are means over more than the last third of the epochs".into(),
            );
        }
        let mut gone = false;
        for (learner, history) in self.learners.iter_mut().zip(&mut self.histories) {
            if forget {
                samples::forget(learner.memory_mut());
            }
            let pictures = &mut history.pictures;
            pictures.retain(|picture| is_drawn(picture.epoch, now.epochs));
            pictures.iter_mut().for_each(|p| (p.losses, p.weights) = (Vec::new(), Vec::new()));
            let wanted = (0..=self.done).filter(|epoch| is_drawn(*epoch, now.epochs)).count();
            gone |= !pictures.is_empty() && pictures.len() < wanted;
        }
        if gone {
            departures.push("some curves of the weight over the epochs are missing".into());
        }
        for learner in &self.learners {
            let steps = learner.steps_per_epoch();
            let done = self.done as u64 * steps + learner.underway().sums.steps;
            self.data.config.epochs = then.epochs;
            let before = learner.method().scheme(&self.data);
            self.data.config.epochs = now.epochs;
            if !alike(learner, &*before?, done, [then.epochs, now.epochs]) {
                let method = learner.method();
                departures.push(format!("what {method} does goes by the share of all steps that are done"));
            }
        }
        self.departures = departures;
        Ok(())
    }
}

fn listed(milestones: &[usize]) -> String {
    match milestones {
        [] => "none".to_owned(),
        _ => milestones.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
    }
}

/// Whether the steps that are done were those of a training of the larger number of epochs.
fn alike(learner: &Learner, before: &dyn Scheme, done: u64, epochs: [usize; 2]) -> bool {
    let (per_epoch, memory) = (learner.steps_per_epoch(), Memory::new());
    let does = |scheme: &dyn Scheme, step: u64, epochs: usize| {
        let (steps, epoch) = (per_epoch * epochs as u64, (step / per_epoch) as usize);
        let (batch, positions) = (1, &[][..]);
        let now = Moment { step, steps, epoch, batch, positions, memory: &memory };
        (scheme.program(step), scheme.draws(step, steps), scheme.inputs(&now))
    };
    (0..done).all(|step| does(before, step, epochs[0]) == does(learner.scheme.as_ref(), step, epochs[1]))
}

/// A checkpoint goes on only with the configuration that it was written under; files may have
/// moved.
fn same(path: &Path, then: &Config, now: &Config) -> Result<()> {
    let fields = |config: &Config| -> Result<_> {
        let config = config.clone().placed_as(&Config::default());
        serde_json::to_value(config).map_err(|e| Error::Program(e.to_string()))
    };
    let (then, now) = (fields(then)?, fields(now)?);
    let none = serde_json::Map::new();
    let (then, now) = (then.as_object().unwrap_or(&none), now.as_object().unwrap_or(&none));
    match then.keys().chain(now.keys()).find(|key| then.get(*key) != now.get(*key)) {
        None => Ok(()),
        // Both texts in one sentence would hide it.
        Some(key) if key == "model_text" => Err(Error::Data(format!(
            "{}: was written with another {key} than {CONFIG} now has; put it back, or start anew in another --out",
            path.display()
        ))),
        Some(key) => {
            let shown = |map: &serde_json::Map<_, serde_json::Value>| {
                map.get(key).map_or("none".to_owned(), serde_json::Value::to_string)
            };
            Err(Error::Data(format!(
                "{}: was written with {key} = {}, but {CONFIG} now has {}; put it back, or start anew in another --out",
                path.display(),
                shown(then),
                shown(now)
            )))
        }
    }
}
