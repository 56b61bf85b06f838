use std::path::{Path, PathBuf};

use serde::Serialize;

use super::checkpoint::{Part, Progress, save};
use super::config::Config;
use super::events::EventFile;
use super::files::{Claim, Outputs, csv_text, write_atomically};
use super::history::{History, Summary};
use super::learner::{Learner, Passed, StepReport};
use super::method::{Method, Setting, check_settings};
use super::observer::{Observer, Then};
use super::pictures;
use super::prepared::Prepared;
use super::report;
use super::samples::{SampleReport, ranking};
use super::sealed::to_toml;
use super::times::{self, Times};

use crate::error::{Error, Result};
use crate::meta::schemes::Scheme;
use crate::program::Session;

/// A training run: its methods side by side, and its folder.
///
/// Files: `config.toml`, `metrics.csv`, `times.json`, `checkpoint.safetensors`, if wanted
/// `tensorboard/<method>/`, and at its end `summary.json`, `model.safetensors`, tables of the
/// training samples and the plots. Two runs of one configuration leave the same bytes, but for
/// times.
pub struct Run {
    /// Data and configuration.
    pub data: Prepared,
    /// The folder of the run's files.
    pub out: PathBuf,
    /// Whether TensorBoard's event files are written, too; so is what is resumed, if it did.
    pub tensorboard: bool,
    /// Those, one for each method.
    events: Vec<EventFile>,
    pub(super) learners: Vec<Learner>,
    pub(super) histories: Vec<History>,
    pub(super) done: usize,
    /// Where a run that was given more epochs differs from one that had them from the start.
    pub(super) departures: Vec<String>,
    /// At the end, what is known of each training sample.
    samples: Vec<SampleReport>,
    /// Held as long as the run is.
    _claim: Claim,
}

pub(super) const CONFIG: &str = "config.toml";
pub(super) const CHECKPOINT: &str = "checkpoint.safetensors";
/// A run keeps about so many curves of its weight.
const MOST_CURVES: usize = 40;
pub(super) const METRICS: &str = "metrics.csv";
const EVENTS: &str = "tensorboard";
const SAMPLES: &str = "samples.csv";
const SUSPECTS: &str = "suspects.csv";
pub(super) const SUMMARY: &str = "summary.json";
pub(super) const MODEL: &str = "model.safetensors";

/// All that a run writes.
pub(super) fn outputs() -> Outputs {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let last = names(&[SUMMARY, SAMPLES, SUSPECTS, MODEL, report::FILE]);
    Outputs {
        first: names(&[CONFIG, CHECKPOINT, METRICS, times::FILE, EVENTS]),
        last: last.into_iter().chain(pictures::files()).collect(),
    }
}

impl Run {
    /// A new run in the folder `out`, which is made if it is not there. `session` gives each method
    /// a session of its own.
    ///
    /// # Errors
    /// If `out` holds a run already or cannot be written to; as [`Prepared::new`] and
    /// [`Learner::new`].
    pub fn start(config: Config, out: &Path, session: &dyn Fn() -> Result<Session>) -> Result<Run> {
        Run::begin(config, None, out, session)
    }

    /// A new run of a scheme of one's own in the place of the configuration's method. Its files,
    /// pictures and summary call it `name`. It cannot be resumed: a folder does not hold the
    /// scheme.
    ///
    /// # Errors
    /// As [`Run::start`] and [`Learner::own`].
    pub fn own(
        name: &'static str,
        scheme: Box<dyn Scheme>,
        config: Config,
        out: &Path,
        session: &dyn Fn() -> Result<Session>,
    ) -> Result<Run> {
        Run::begin(Config { method: Method::Own(name), ..config }, Some(scheme), out, session)
    }

    fn begin(
        mut config: Config,
        own: Option<Box<dyn Scheme>>,
        out: &Path,
        session: &dyn Fn() -> Result<Session>,
    ) -> Result<Run> {
        config.read_model()?;
        config.check_used(&config.methods(), |_| false)?;
        config = config.with_recipe();
        // Early, before anything is read.
        to_toml(&config)?;
        let claim = Claim::fresh(out, &outputs())?;
        let made = claim.made;
        let run = Run::set_up(config, own, out, claim, session).inspect_err(|_| {
            // Nothing has come of it: an empty folder would only be in the way.
            let _ = if made { std::fs::remove_dir(out) } else { Ok(()) };
        })?;
        write_atomically(&out.join(CONFIG), to_toml(&run.data.config)?.as_bytes())?;
        Ok(run)
    }

    pub(super) fn set_up(
        config: Config,
        mut own: Option<Box<dyn Scheme>>,
        out: &Path,
        claim: Claim,
        session: &dyn Fn() -> Result<Session>,
    ) -> Result<Run> {
        check_settings(&config.set, &config.methods())?;
        let mut data = Prepared::new(config)?;
        // What is recorded is what runs: also what nobody has asked for.
        let classes = data.dataset.classes();
        set_all(&mut data.config, classes);
        let learners = data
            .config
            .methods()
            .into_iter()
            .map(|method| match (method, own.take()) {
                (Method::Own(name), Some(scheme)) => Learner::own(name, scheme, &data, session()?),
                (method, _) => Learner::new(method, &data, session()?),
            })
            .collect::<Result<Vec<_>>>()?;
        let histories = vec![History::default(); learners.len()];
        Ok(Run {
            data,
            out: out.to_path_buf(),
            tensorboard: out.join(EVENTS).is_dir(),
            events: Vec::new(),
            learners,
            histories,
            done: 0,
            departures: Vec::new(),
            samples: Vec::new(),
            _claim: claim,
        })
    }

    /// What training tells about each of its samples, in their order; empty before its end.
    pub fn samples(&self) -> &[SampleReport] {
        &self.samples
    }

    /// Histories, the main method's first.
    pub fn histories(&self) -> &[History] {
        &self.histories
    }

    /// Steps of an epoch of each method.
    pub fn steps_per_epoch(&self) -> u64 {
        self.learners[0].steps_per_epoch()
    }

    /// The machine, for people.
    pub fn machine(&self) -> String {
        self.learners[0].session().describe()
    }

    /// Passes over the training set until the end: the epochs of the method with the most stages.
    pub fn passes(&self) -> usize {
        let stages = self.learners.iter().map(Learner::stages).max().unwrap_or(1);
        stages * self.data.config.epochs
    }

    /// Trains to the end, writing a checkpoint and the metrics after every epoch, then the summary
    /// and the plots.
    ///
    /// # Errors
    /// A loss that is no longer finite; files that cannot be written.
    pub fn train(&mut self, observer: &mut dyn Observer) -> Result<Summary> {
        let summary = self.finish(observer)?;
        pictures::draw(&self.data, &self.histories, &self.out)?;
        report::of_run(self, &summary)?;
        Ok(summary)
    }

    /// As [`Run::train`], without the plots.
    ///
    /// # Errors
    /// Likewise.
    pub fn finish(&mut self, observer: &mut dyn Observer) -> Result<Summary> {
        observer.begin(self, self.done);
        let (epochs, passes) = (self.data.config.epochs, self.passes());
        if self.done == 0 && self.histories.iter().all(|history| history.pictures.is_empty()) {
            self.take_pictures(0)?;
        }
        let events = self.out.join(EVENTS);
        if self.tensorboard && (self.done < passes || !events.exists()) {
            let methods = self.learners.iter().map(|l| l.method().to_string()).zip(&self.histories);
            let files = methods.map(|(name, history)| EventFile::begin(&events.join(name), &history.rows));
            self.events = files.collect::<Result<_>>()?;
        }
        for pass in self.done..passes {
            (0..self.learners.len()).try_for_each(|learner| self.pass(learner, pass, observer))?;
            self.done = pass + 1;
            // In the last stage.
            let epoch = (self.done + epochs).saturating_sub(passes);
            if epoch > 0 && is_drawn(epoch, epochs) {
                self.take_pictures(epoch)?;
            }
            self.write_progress()?;
            if observer.then() == Then::Stop {
                return Err(Error::Stopped(format!("stopped after pass {} of {passes}", self.done)));
            }
        }
        let (samples, finding) = self.learners[0].judge(&self.data)?;
        // First of what stands at the end: it says that the others are ours.
        let summary = Summary { finding, ..self.summary() };
        let text = serde_json::to_string_pretty(&summary).map_err(|e| Error::Program(e.to_string()))?;
        write_atomically(&self.out.join(SUMMARY), (text + "\n").as_bytes())?;
        self.write_csv(SAMPLES, &samples)?;
        self.write_csv(SUSPECTS, ranking(&samples).into_iter().map(|place| &samples[place]))?;
        self.samples = samples;
        self.learners[0].write_model(&self.out.join(MODEL), &self.data)?;
        Ok(summary)
    }

    /// What is left of a learner's part in a pass.
    fn pass(&mut self, at: usize, pass: usize, observer: &mut dyn Observer) -> Result<()> {
        let (epochs, passes) = (self.data.config.epochs, self.passes());
        loop {
            let learner = &mut self.learners[at];
            // All methods end together.
            let own = (pass + learner.stages() * epochs).checked_sub(passes);
            if own.is_none_or(|own| learner.underway().passes > own) {
                return Ok(());
            }
            let (mut then, mut when) = (Then::GoOn, String::new());
            let passed = learner.pass(&self.data, &mut |method, report| {
                observer.step(method, pass, report);
                then = observer.then();
                if then == Then::Stop {
                    let StepReport { step, steps, .. } = report;
                    when =
                        format!("after step {step} of {steps} of {method}'s pass {} of {passes}", pass + 1);
                }
                then != Then::GoOn
            })?;
            match passed {
                Passed::Paused => self.write_progress()?,
                Passed::Prepared => {}
                Passed::Measured(measured) => {
                    observer.epoch(&measured.row);
                    measured.join(&mut self.histories[at]);
                }
            }
            if then == Then::Stop {
                return Err(Error::Stopped(format!("stopped {when}")));
            }
        }
    }

    fn take_pictures(&mut self, epoch: usize) -> Result<()> {
        let samples = epoch == self.data.config.epochs;
        for (learner, history) in self.learners.iter_mut().zip(&mut self.histories) {
            if let Some(picture) = learner.picture(&self.data, epoch, samples)? {
                history.pictures.push(picture);
            }
        }
        Ok(())
    }

    pub(super) fn write_progress(&mut self) -> Result<()> {
        let names: Vec<String> = self.learners.iter().map(|l| l.method().to_string()).collect();
        let progress = Progress {
            network: self.data.network(),
            config: self.data.config.clone(),
            epochs: self.done,
            underway: self.learners.iter().map(|l| l.underway().clone()).collect(),
            histories: names.iter().cloned().zip(self.histories.iter().cloned()).collect(),
        };
        let learners = names.iter().zip(self.learners.iter().zip(&self.histories));
        let parts: Vec<Part> = learners
            .map(|(prefix, (learner, history))| Part {
                prefix,
                session: learner.session(),
                memory: learner.memory(),
                pictures: &history.pictures,
            })
            .collect();
        // Metrics and times first: what a checkpoint claims is then on the disk.
        self.write_metrics()?;
        let times = names.iter().zip(&self.histories).zip(&self.learners);
        let times = times.map(|((n, history), own)| (n.clone(), history, own.underway().sums.seconds));
        Times::of(times).write(&self.out)?;
        for (file, history) in self.events.iter_mut().zip(&self.histories) {
            file.write(&history.rows)?;
        }
        save(&self.out.join(CHECKPOINT), &parts, &progress)
    }

    pub(super) fn write_metrics(&self) -> Result<()> {
        let epochs = 0..self.data.config.epochs;
        let rows = epochs.flat_map(|epoch| self.histories.iter().filter_map(move |h| h.rows.get(epoch)));
        self.write_csv(METRICS, rows)
    }

    fn write_csv<T: Serialize>(&self, file: &str, rows: impl IntoIterator<Item = T>) -> Result<()> {
        write_atomically(&self.out.join(file), &csv_text(&[], rows)?)
    }
}

/// Gives the methods' own settings their defaults, where they have no value.
pub(super) fn set_all(config: &mut Config, classes: usize) {
    for method in config.methods() {
        for Setting { name, default, .. } in method.settings(classes, config.noise) {
            config.set.entry(format!("{method}.{name}")).or_insert(default);
        }
    }
}

/// Whether there is a picture after so many epochs.
pub(super) fn is_drawn(epoch: usize, epochs: usize) -> bool {
    whole_picture(epoch, epochs) || epoch > 0 && epoch.is_multiple_of(epochs.div_ceil(MOST_CURVES))
}

/// Whether the curve after so many epochs is in the plot: at the start, in the middle, at the end.
pub(super) fn whole_picture(epoch: usize, epochs: usize) -> bool {
    [0, epochs / 2, epochs].contains(&epoch)
}
