use std::path::{Path, PathBuf};

use super::checkpoint::{Part, Progress, Saved, save};
use super::config::Config;
use super::events::EventFile;
use super::files::{Claim, csv_text, read_toml, to_toml, write_atomically};
use super::history::{EpochRow, History, Summary, mean_where};
use super::learner::{Learner, Measured, SUMMARY_STRIDE, StepReport};
use super::method::{Method, Setting, check_settings};
use super::pictures;
use super::prepared::Prepared;
use super::report;
use super::samples::{SampleReport, ranking};
use super::warnings::warnings;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::meta::schemes::Scheme;
use crate::program::Session;

/// Who wants to know how a run goes.
pub trait Observer {
    /// Training begins, or goes on after `done` passes over the training set.
    fn begin(&mut self, run: &Run, done: usize);
    /// A step of the pass `pass` (from 0) is done; with one stage, passes are epochs.
    fn step(&mut self, method: Method, pass: usize, report: StepReport);
    /// An epoch of one method is done.
    fn epoch(&mut self, row: &EpochRow);
}

/// Nobody does.
impl Observer for () {
    fn begin(&mut self, _: &Run, _: usize) {}
    fn step(&mut self, _: Method, _: usize, _: StepReport) {}
    fn epoch(&mut self, _: &EpochRow) {}
}

/// A training run: its methods side by side, and its folder.
///
/// Files: `config.toml`, `metrics.csv`, `checkpoint.safetensors`, if wanted `tensorboard/<method>/`,
/// and at its end `model.safetensors`, `summary.json`, tables of the training samples and the plots.
pub struct Run {
    /// Data and configuration.
    pub data: Prepared,
    /// The folder of the run's files.
    pub out: PathBuf,
    /// Whether TensorBoard's event files are written, too; so is what is resumed, if it did.
    pub tensorboard: bool,
    /// Those, one for each method.
    events: Vec<EventFile>,
    learners: Vec<Learner>,
    histories: Vec<History>,
    done: usize,
    /// At the end, what is known of each training sample.
    samples: Vec<SampleReport>,
    /// Held as long as the run is.
    _claim: Claim,
}

pub(super) const CONFIG: &str = "config.toml";
pub(super) const CHECKPOINT: &str = "checkpoint.safetensors";
/// A run keeps about so many curves of its weight.
const MOST_CURVES: usize = 40;
const METRICS: &str = "metrics.csv";
const EVENTS: &str = "tensorboard";
const SAMPLES: &str = "samples.csv";
const SUSPECTS: &str = "suspects.csv";
const SUMMARY: &str = "summary.json";
pub(super) const MODEL: &str = "model.safetensors";

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
        let mut taken = vec![
            CONFIG.to_owned(),
            CHECKPOINT.into(),
            METRICS.into(),
            EVENTS.into(),
            SAMPLES.into(),
            SUSPECTS.into(),
            SUMMARY.into(),
            MODEL.into(),
        ];
        taken.extend(pictures::files().chain([report::FILE.to_owned()]));
        let claim = Claim::fresh(out, &taken.iter().map(String::as_str).collect::<Vec<_>>())?;
        let made = claim.made;
        let run = Run::set_up(config, own, out, claim, session).inspect_err(|_| {
            // Nothing has come of it: an empty folder would only be in the way.
            let _ = if made { std::fs::remove_dir(out) } else { Ok(()) };
        })?;
        write_atomically(&out.join(CONFIG), to_toml(&run.data.config)?.as_bytes())?;
        Ok(run)
    }

    /// The configuration of the run in a folder.
    ///
    /// # Errors
    /// If there is none, or it cannot be understood.
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
    /// As [`Run::stored_config`]; if the checkpoint is damaged or of another model.
    pub fn resume(out: &Path, session: &dyn Fn() -> Result<Session>) -> Result<Run> {
        let config = Run::stored_config(out)?;
        let mut run = Run::set_up(config, None, out, Claim::new(out)?, session)?;
        let path = out.join(CHECKPOINT);
        if !path.exists() {
            return match out.join(SUMMARY).exists() {
                false => Ok(run),
                true => Err(Error::Usage(format!(
                    "{} holds a finished run without its {CHECKPOINT}, so there is nothing to go on from; give another --out",
                    out.display()
                ))),
            };
        }
        let saved = Saved::read(&path)?;
        let progress = &saved.progress;
        let mut then = progress.config.clone();
        // A setting that there was not at that time had its default.
        set_all(&mut then, run.data.dataset.classes());
        same(&path, &then, &run.data.config)?;
        let network = run.data.network();
        if progress.network != network {
            return Err(Error::Data(format!(
                "{}: its network is {} but the data now ask for {network}; give the data it was trained on, or another --out",
                path.display(),
                progress.network
            )));
        }
        for (learner, history) in run.learners.iter_mut().zip(&mut run.histories) {
            let name = learner.method().to_string();
            saved.restore(&name, learner.session_mut())?;
            let found = progress.histories.iter().find(|h| h.0 == name);
            *history = found.map(|h| h.1.clone()).ok_or_else(|| {
                Error::Data(format!("{}: has no history of `{name}`; it is of another run", path.display()))
            })?;
            saved.fill(&name, &mut history.pictures)?;
            *learner.memory_mut() = saved.memory(&name)?;
        }
        run.done = progress.epochs;
        Ok(run)
    }

    fn set_up(
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
        if self.done == 0 {
            self.take_pictures(0)?;
        }
        let events = self.out.join(EVENTS);
        if self.tensorboard && (self.done < passes || !events.exists()) {
            let methods = self.learners.iter().map(|l| l.method().to_string()).zip(&self.histories);
            let files = methods.map(|(name, history)| EventFile::begin(&events.join(name), &history.rows));
            self.events = files.collect::<Result<_>>()?;
        }
        for pass in self.done..passes {
            for (learner, history) in self.learners.iter_mut().zip(&mut self.histories) {
                // All methods end together.
                let Some(own) = (pass + learner.stages() * epochs).checked_sub(passes) else {
                    continue;
                };
                let mut watch = |method, report| observer.step(method, pass, report);
                if let Some(Measured { row, confusion, by_loss }) =
                    learner.pass(&self.data, own, &mut watch)?
                {
                    observer.epoch(&row);
                    history.rows.push(row);
                    (history.confusion, history.by_loss) = (confusion, by_loss);
                }
            }
            self.done = pass + 1;
            // In the last stage.
            let epoch = (self.done + epochs).saturating_sub(passes);
            if epoch > 0 && (whole_picture(epoch, epochs) || epoch % epochs.div_ceil(MOST_CURVES) == 0) {
                self.take_pictures(epoch)?;
            }
            self.write_progress()?;
        }
        let (samples, finding) = self.learners[0].judge(&self.data)?;
        self.write_csv(SAMPLES, &samples)?;
        self.write_csv(SUSPECTS, ranking(&samples).into_iter().map(|place| &samples[place]))?;
        self.samples = samples;
        self.learners[0].write_model(&self.out.join(MODEL), &self.data)?;
        let summary = Summary { finding, ..self.summary() };
        let text = serde_json::to_string_pretty(&summary).map_err(|e| Error::Program(e.to_string()))?;
        write_atomically(&self.out.join(SUMMARY), (text + "\n").as_bytes())?;
        Ok(summary)
    }

    fn take_pictures(&mut self, epoch: usize) -> Result<()> {
        let whole = whole_picture(epoch, self.data.config.epochs);
        for (learner, history) in self.learners.iter_mut().zip(&mut self.histories) {
            if let Some(picture) = learner.picture(&self.data, epoch, whole)? {
                history.pictures.push(picture);
            }
        }
        Ok(())
    }

    fn write_progress(&mut self) -> Result<()> {
        let names: Vec<String> = self.learners.iter().map(|l| l.method().to_string()).collect();
        let progress = Progress {
            network: self.data.network(),
            config: self.data.config.clone(),
            epochs: self.done,
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
        // Metrics first: what a checkpoint claims is then on the disk.
        let epochs = 0..self.data.config.epochs;
        let rows = epochs.flat_map(|epoch| self.histories.iter().filter_map(move |h| h.rows.get(epoch)));
        self.write_csv(METRICS, rows)?;
        for (file, history) in self.events.iter_mut().zip(&self.histories) {
            file.write(&history.rows)?;
        }
        save(&self.out.join(CHECKPOINT), &parts, &progress)
    }

    fn write_csv<T: Serialize>(&self, file: &str, rows: impl IntoIterator<Item = T>) -> Result<()> {
        write_atomically(&self.out.join(file), &csv_text(&[], rows)?)
    }

    /// What went wrong with each method.
    fn warnings(&self) -> Vec<String> {
        let methods = self.data.config.methods().into_iter().zip(&self.histories);
        let all = methods.map(|(method, history)| (method, warnings(method, &self.data.config, history)));
        all.flat_map(|(method, all)| all.into_iter().map(move |what| format!("{method}: {what}"))).collect()
    }

    fn summary(&self) -> Summary {
        let (main, baseline) = (&self.histories[0], self.histories.get(1));
        let train = &self.data.split.train;
        let last = main.pictures.last();
        let row = main.rows.last();
        let mean = |flag| last.and_then(|p| mean_where(&p.weights, &train.corrupted, flag));
        let corrupted = train.corrupted.iter().filter(|c| **c).count();
        let meta_speed = |h: &History| {
            let (mut steps, mut seconds) = (0.0, 0.0);
            for row in &h.rows {
                steps += self.steps_per_epoch() as f64;
                seconds += self.steps_per_epoch() as f64 / row.steps_per_second;
            }
            steps / seconds
        };
        let thinned = |(name, values): &(String, Vec<f64>)| {
            (name.clone(), values.iter().step_by(SUMMARY_STRIDE).copied().collect())
        };
        let config = &self.data.config;
        Summary {
            method: config.method.to_string(),
            seed: config.seed,
            final_test_accuracy: main.final_accuracy().unwrap_or(f64::NAN),
            best_test_accuracy: main.best_accuracy().unwrap_or(f64::NAN),
            baseline_final_test_accuracy: baseline.and_then(History::final_accuracy),
            baseline_best_test_accuracy: baseline.and_then(History::best_accuracy),
            mean_weight_clean: mean(false).or_else(|| row?.mean_weight_clean),
            mean_weight_corrupted: mean(true).or_else(|| row?.mean_weight_corrupted),
            weight_curve: last
                .map(|p| p.curve.iter().step_by(SUMMARY_STRIDE).copied().collect())
                .unwrap_or_default(),
            weight_curves_by_group: last
                .map(|p| &p.groups[..])
                .unwrap_or_default()
                .iter()
                .map(thinned)
                .collect(),
            meta_steps_per_second: config.method.is_meta().then(|| meta_speed(main)),
            seconds: self.histories.iter().map(History::seconds).sum(),
            epochs: main.rows.len(),
            steps_per_epoch: self.steps_per_epoch(),
            train_samples: train.indices.len(),
            meta_samples: self.data.split.meta.indices.len(),
            finding: None,
            warnings: self.warnings(),
            corrupted_percent: 100.0 * corrupted as f64 / train.indices.len().max(1) as f64,
        }
    }
}

/// Gives the methods' own settings their defaults, where they have no value.
fn set_all(config: &mut Config, classes: usize) {
    for method in config.methods() {
        for Setting { name, default, .. } in method.settings(classes, config.noise) {
            config.set.entry(format!("{method}.{name}")).or_insert(default);
        }
    }
}

/// Whether the picture after so many epochs has every sample: at the start, in the middle, at the
/// end.
pub(super) fn whole_picture(epoch: usize, epochs: usize) -> bool {
    [0, epochs / 2, epochs].contains(&epoch)
}

/// A checkpoint goes on only with the configuration that it was written under; files may have moved.
fn same(path: &Path, then: &Config, now: &Config) -> Result<()> {
    let fields = |config: &Config| -> Result<_> {
        let config = Config { data_dir: None, init: None, ..config.clone() };
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
