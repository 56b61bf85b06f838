use std::path::{Path, PathBuf};

use super::checkpoint::{Progress, Saved, save, write_atomically};
use super::config::Config;
use super::history::{EpochRow, History, Summary, mean_where};
use super::learner::{Learner, Measured, SUMMARY_STRIDE, StepReport};
use super::method::Method;
use super::pictures;
use super::prepared::Prepared;
use crate::error::{Error, Result};
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

/// A training run: its methods side by side, and its folder.
///
/// Files: `config.toml`, `metrics.csv`, `checkpoint.safetensors`, `summary.json` and the plots.
pub struct Run {
    /// Data and configuration.
    pub data: Prepared,
    /// The folder of the run's files.
    pub out: PathBuf,
    learners: Vec<Learner>,
    histories: Vec<History>,
    done: usize,
}

pub(super) const CONFIG: &str = "config.toml";
pub(super) const CHECKPOINT: &str = "checkpoint.safetensors";

impl Run {
    /// A new run in the folder `out`, which is made if it is not there. `session` gives each method a session of its own.
    ///
    /// # Errors
    /// If `out` holds a run already or cannot be written to; as [`Prepared::new`] and [`Learner::new`].
    pub fn start(config: Config, out: &Path, session: &dyn Fn() -> Result<Session>) -> Result<Run> {
        if let Some(file) =
            [CONFIG, CHECKPOINT, "metrics.csv", "summary.json"].iter().find(|f| out.join(f).exists())
        {
            return Err(Error::Usage(format!(
                "{} holds a run already (it has {file}); continue it with --resume, or give another --out",
                out.display()
            )));
        }
        let run = Run::set_up(config, out, session)?;
        std::fs::create_dir_all(out).map_err(Error::io(out, "create the folder"))?;
        let text = toml::to_string(&run.data.config).map_err(|e| Error::Program(e.to_string()))?;
        write_atomically(&out.join(CONFIG), text.as_bytes())?;
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
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
        toml::from_str(&text).map_err(|e| {
            let byte = e.span().map_or(0, |s| s.start as u64);
            Error::Format { path, byte, detail: e.message().replace('\n', " ") }
        })
    }

    /// The run in a folder, at its last checkpoint; from the start if it was stopped before the first one.
    ///
    /// # Errors
    /// As [`Run::stored_config`]; if the checkpoint is damaged or of another model.
    pub fn resume(out: &Path, session: &dyn Fn() -> Result<Session>) -> Result<Run> {
        let mut run = Run::set_up(Run::stored_config(out)?, out, session)?;
        let path = out.join(CHECKPOINT);
        if !path.exists() {
            return Ok(run);
        }
        let saved = Saved::read(&path)?;
        let (progress, config) = (&saved.progress, &run.data.config);
        let (network, precision) = (run.data.net.signature(), &config.precision);
        if progress.network != network || progress.precision != *precision {
            return Err(Error::Data(format!(
                "{}: is of {} in {}, but {CONFIG} asks for {network} in {precision}; they are not of one run",
                path.display(),
                progress.network,
                progress.precision
            )));
        }
        for (learner, history) in run.learners.iter_mut().zip(&mut run.histories) {
            let name = learner.method().to_string();
            saved.restore(&name, learner.session_mut())?;
            let found = progress.histories.iter().find(|h| h.0 == name);
            *history = found.map(|h| h.1.clone()).ok_or_else(|| {
                Error::Data(format!("{}: has no history of `{name}`; it is of another run", path.display()))
            })?;
            if let Some((_, memory)) = progress.memories.iter().find(|m| m.0 == name) {
                *learner.memory_mut() = memory.clone();
            }
        }
        run.done = progress.epochs;
        Ok(run)
    }

    fn set_up(config: Config, out: &Path, session: &dyn Fn() -> Result<Session>) -> Result<Run> {
        let data = Prepared::new(config)?;
        let learners = data
            .config
            .methods()
            .into_iter()
            .map(|method| Learner::new(method, &data, session()?))
            .collect::<Result<Vec<_>>>()?;
        let histories = vec![History::default(); learners.len()];
        Ok(Run { data, out: out.to_path_buf(), learners, histories, done: 0 })
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
        let stages = self.learners.iter().map(|l| l.method().stages()).max().unwrap_or(1);
        stages * self.data.config.epochs
    }

    /// Trains to the end, writing a checkpoint and the metrics after every epoch, then the summary and the plots.
    ///
    /// # Errors
    /// A loss that is no longer finite; files that cannot be written.
    pub fn train(&mut self, observer: &mut dyn Observer) -> Result<Summary> {
        let summary = self.finish(observer)?;
        pictures::draw(&self.data, &self.histories, &self.out)?;
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
        for pass in self.done..passes {
            for (learner, history) in self.learners.iter_mut().zip(&mut self.histories) {
                // All methods end together.
                let Some(own) = (pass + learner.method().stages() * epochs).checked_sub(passes) else {
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
            if epoch == epochs || (epoch > 0 && epoch == epochs / 2) {
                self.take_pictures(epoch)?;
            }
            self.write_progress()?;
        }
        let summary = self.summary();
        let text = serde_json::to_string_pretty(&summary).map_err(|e| Error::Program(e.to_string()))?;
        write_atomically(&self.out.join("summary.json"), (text + "\n").as_bytes())?;
        Ok(summary)
    }

    fn take_pictures(&mut self, epoch: usize) -> Result<()> {
        for (learner, history) in self.learners.iter_mut().zip(&mut self.histories) {
            if let Some(picture) = learner.picture(&self.data, epoch)? {
                history.pictures.push(picture);
            }
        }
        Ok(())
    }

    fn write_progress(&self) -> Result<()> {
        let names: Vec<String> = self.learners.iter().map(|l| l.method().to_string()).collect();
        let progress = Progress {
            network: self.data.net.signature(),
            precision: self.data.config.precision.clone(),
            epochs: self.done,
            histories: names.iter().cloned().zip(self.histories.iter().cloned()).collect(),
            memories: names.iter().cloned().zip(self.learners.iter().map(|l| l.memory().clone())).collect(),
        };
        let sessions: Vec<_> = names.into_iter().zip(self.learners.iter().map(Learner::session)).collect();
        // Metrics first: what a checkpoint claims is then on the disk.
        let mut csv = csv::Writer::from_writer(Vec::new());
        let path = self.out.join("metrics.csv");
        for epoch in 0..self.data.config.epochs {
            for row in self.histories.iter().filter_map(|h| h.rows.get(epoch)) {
                csv.serialize(row).map_err(|e| Error::Program(format!("{}: {e}", path.display())))?;
            }
        }
        let bytes = csv.into_inner().map_err(|e| Error::Program(format!("{}: {e}", path.display())))?;
        write_atomically(&path, &bytes)?;
        save(&self.out.join(CHECKPOINT), &sessions, &progress)
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
            meta_steps_per_second: config.method.is_meta().then(|| meta_speed(main)),
            seconds: self.histories.iter().map(History::seconds).sum(),
            epochs: main.rows.len(),
            steps_per_epoch: self.steps_per_epoch(),
            train_samples: train.indices.len(),
            meta_samples: self.data.split.meta.indices.len(),
            corrupted_percent: 100.0 * corrupted as f64 / train.indices.len().max(1) as f64,
        }
    }
}
