use std::time::Instant;

use super::config::{Config, Method};
use super::history::{EpochRow, WeightPicture, mean_where};
use super::setup;
use crate::data::{self, Batcher, Dataset, Split, SplitConfig, Stream};
use crate::error::{Error, Result};
use crate::meta::{Batch, Evaluation, MetaStep, Optimiser, PlainStep, adam_corrections};
use crate::nn::{Network, Params, WeightNet};
use crate::program::{InputId, Options, OutputId, Program, Session, Values};
use crate::tape::{GatherSpec, Kind, Scalar, Tape};

/// Images of one evaluation pass.
const EVALUATED_AT_ONCE: usize = 250;
/// Losses at which the curve of V is drawn: 0, 0.05, … 8.
const CURVE_POINTS: usize = 161;
const CURVE_POINTS_PER_UNIT: f64 = 20.0;
/// Of these, the summary shows every fifth: 0, 0.25, … 8.
pub(super) const SUMMARY_STRIDE: usize = 5;

/// The data of a run, ready for training: shared by all methods.
pub struct Prepared {
    /// Everything that decides the run.
    pub config: Config,
    /// The images.
    pub dataset: Dataset,
    /// Which of them train, with which labels.
    pub split: Split,
    /// The classifier.
    pub net: Network,
    /// All images, the training set's first: what lies on the device.
    pixels: Vec<u8>,
}

impl Prepared {
    /// Loads, splits and corrupts the data that a configuration names.
    ///
    /// # Errors
    /// As [`data::load`] and [`data::split`], and for images that the model cannot take.
    pub fn new(config: Config) -> Result<Prepared> {
        config.check()?;
        let dataset = data::load(config.dataset, config.data_dir.as_deref())?;
        let how = SplitConfig {
            noise: config.noise,
            imbalance: config.imbalance,
            meta_size: config.meta_size.unwrap_or_else(|| {
                data::default_meta_size(dataset.classes(), config.noise, config.imbalance)
            }),
            seed: config.seed,
        };
        let split = data::split(&dataset, &how)?;
        let train = &dataset.train;
        let image = [train.height, train.width, train.channels];
        let net = Network::named(&config.model, image, dataset.classes())?;
        let pixels = [&dataset.train.pixels[..], &dataset.test.pixels[..]].concat();
        Ok(Prepared { config, dataset, split, net, pixels })
    }

    /// All images, the training set's first: what lies on the device as `pixels`.
    pub(super) fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The images on the device, and their normalisation; `augmented` with the border that crops are taken from.
    pub(super) fn batch(&self, augmented: bool) -> Batch {
        let scalars = |v: &[f64]| v.iter().copied().map(Scalar).collect();
        let pad = self.dataset.augment.filter(|_| augmented).map_or(0, |a| a.pad);
        let spec = GatherSpec { mean: scalars(&self.dataset.mean), std: scalars(&self.dataset.std), pad };
        Batch::Picked { count: self.dataset.train.len() + self.dataset.test.len(), spec }
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

/// What is measured while an epoch goes on.
#[derive(Clone, Copy, Debug)]
pub struct StepReport {
    /// Steps of this epoch that are done.
    pub step: u64,
    /// Mean loss of the batch.
    pub loss: f64,
    /// Mean loss of the meta batch.
    pub meta_loss: Option<f64>,
    /// Accuracy on the batch, in percent.
    pub accuracy: f64,
}

/// One method's programs, and the session that holds its states.
pub struct Learner {
    method: Method,
    session: Session,
    step: Program,
    inputs: Inputs,
    outputs: Outputs,
    evaluate: Program,
    curve: Option<Program>,
    rule: Optimiser,
    lr_theta: f64,
    train: Batcher,
    meta: Batcher,
}

/// Inputs of the step program.
struct Inputs {
    picks: InputId,
    y: InputId,
    lr: InputId,
    meta: Option<[InputId; 3]>,
    corrections: Option<[InputId; 2]>,
}

struct Outputs {
    loss: OutputId,
    correct: OutputId,
    meta: Option<[OutputId; 2]>,
}

impl Learner {
    /// The method's programs on a session, with the first parameters.
    ///
    /// # Errors
    /// If the batch is larger than the training set, the device has no room, or the session is of another precision.
    pub fn new(method: Method, data: &Prepared, mut session: Session) -> Result<Learner> {
        let Prepared { config, net, .. } = data;
        // A run of one precision that went on in the other would do so silently.
        if (session.float_bytes() == 8) != (config.precision == "f64") {
            let machine = session.describe();
            return Err(Error::Program(format!("a run in {} cannot use {machine}", config.precision)));
        }
        let (weight_net, step_config) = (config.weight_net(), config.step());
        let (rule, lr_theta) = config.weight_net_rule();
        // First of all: they refuse a batch that the memory might not hold either.
        let (train, meta) = (data.batcher(false)?, data.batcher(true)?);
        let batch = data.batch(true);
        let mut tape = Tape::new();
        if method.is_meta() {
            let sizes = [config.batch; 2];
            MetaStep { net, weight_net: &weight_net, config: &step_config, data: &batch, batch: sizes }
                .record(&mut tape, false)?;
        } else {
            let optimiser = Optimiser::Sgd(config.classifier());
            PlainStep { net, optimiser, data: &batch, batch: config.batch }.record(&mut tape)?;
        }
        let step = session.compile(&tape, Options::default())?;
        let mut tape = Tape::new();
        let plain = data.batch(false);
        Evaluation { net, data: &plain, batch: EVALUATED_AT_ONCE }.record(&mut tape)?;
        let evaluate = session.compile(&tape, Options::default())?;
        let curve = match method.is_meta() {
            true => {
                Some(session.compile(&weight_program(&weight_net, EVALUATED_AT_ONCE)?, Options::default())?)
            }
            false => None,
        };
        setup::initialise(&mut session, net, &weight_net, config.seed)?;
        session.write_state("pixels", Values::Byte(&data.pixels))?;
        let meta_inputs = || -> Result<_> {
            Ok([step.input("picks_meta")?, step.input("y_meta")?, step.input("lr.theta")?])
        };
        let inputs = Inputs {
            picks: step.input("picks")?,
            y: step.input("y")?,
            lr: step.input("lr")?,
            meta: if method.is_meta() { Some(meta_inputs()?) } else { None },
            corrections: match (method.is_meta(), rule) {
                (true, Optimiser::Adam(_)) => {
                    Some([step.input("adam.correction1")?, step.input("adam.correction2")?])
                }
                _ => None,
            },
        };
        let outputs = Outputs {
            loss: step.output("loss")?,
            correct: step.output("correct")?,
            meta: match method.is_meta() {
                true => Some([step.output("meta_loss")?, step.output("weight")?]),
                false => None,
            },
        };
        Ok(Learner { method, session, step, inputs, outputs, evaluate, curve, rule, lr_theta, train, meta })
    }

    /// Which method this is.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The states, for a checkpoint.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The states, to be restored.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Steps of an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.train.batches_per_epoch()
    }

    /// Trains for one epoch (from 0) and evaluates; `watch` is called after every step.
    ///
    /// # Errors
    /// [`Error::Numeric`] if a loss is no longer a finite number.
    pub fn epoch(
        &mut self,
        data: &Prepared,
        epoch: usize,
        watch: &mut dyn FnMut(Method, StepReport),
    ) -> Result<EpochRow> {
        let began = Instant::now();
        let (steps, n) = (self.steps_per_epoch(), data.config.batch);
        let lr = data.config.lr_at(epoch);
        let (mut losses, mut hits) = (vec![0.0; n], vec![0.0; n]);
        let (mut loss_sum, mut hit_sum, mut meta_sum) = (0.0, 0.0, 0.0);
        let mut meta_loss = [0.0];
        let mut weights = vec![0.0; n];
        let (mut seen, mut flags) = (Vec::new(), Vec::new());
        for i in 0..steps {
            let step = epoch as u64 * steps + i;
            self.one_step(step, lr)?;
            self.session.read_into(&self.step, self.outputs.loss, &mut losses)?;
            self.session.read_into(&self.step, self.outputs.correct, &mut hits)?;
            let loss = losses.iter().sum::<f64>() / n as f64;
            let hit = hits.iter().sum::<f64>() / n as f64;
            if let Some([meta, weight]) = self.outputs.meta {
                self.session.read_into(&self.step, meta, &mut meta_loss)?;
                self.session.read_into(&self.step, weight, &mut weights)?;
                seen.extend_from_slice(&weights);
                let positions = &self.train.batch(step).positions;
                flags.extend(positions.iter().map(|p| data.split.train.corrupted[*p as usize]));
            }
            if !(loss + meta_loss[0]).is_finite() {
                let what = format!("the loss is {loss} and the meta loss {} at step {}", meta_loss[0], i + 1);
                return Err(self.diverged(data, epoch + 1, &what));
            }
            (loss_sum, hit_sum, meta_sum) = (loss_sum + loss, hit_sum + hit, meta_sum + meta_loss[0]);
            let meta_loss = self.outputs.meta.map(|_| meta_loss[0]);
            watch(self.method, StepReport { step: i + 1, loss, meta_loss, accuracy: 100.0 * hit });
        }
        let training = began.elapsed().as_secs_f64();
        let (test_loss, test_accuracy) = self.test(data)?;
        if !test_loss.is_finite() {
            return Err(self.diverged(data, epoch + 1, &format!("the test loss is {test_loss} at the end")));
        }
        let per_step = 1.0 / steps as f64;
        Ok(EpochRow {
            epoch: epoch + 1,
            method: self.method.to_string(),
            lr,
            train_loss: loss_sum * per_step,
            train_accuracy: 100.0 * hit_sum * per_step,
            meta_loss: self.outputs.meta.map(|_| meta_sum * per_step),
            test_loss,
            test_accuracy,
            mean_weight_clean: mean_where(&seen, &flags, false),
            mean_weight_corrupted: mean_where(&seen, &flags, true),
            steps_per_second: steps as f64 / training,
            seconds: began.elapsed().as_secs_f64(),
        })
    }

    /// The error of a number that is no longer finite; it must not reach a checkpoint.
    fn diverged(&self, data: &Prepared, epochs: usize, what: &str) -> Error {
        Error::Numeric(format!(
            "{}: {what} of epoch {epochs}; train again with a smaller --lr than {}",
            self.method, data.config.lr
        ))
    }

    fn one_step(&mut self, step: u64, lr: f64) -> Result<()> {
        let Learner { session, step: program, inputs, train, meta, .. } = self;
        let batch = train.batch(step);
        session.write_input(program, inputs.picks, Values::Int(bytemuck::cast_slice(&batch.picks)))?;
        session.write_input(program, inputs.y, Values::Int(&batch.labels))?;
        session.write_input(program, inputs.lr, Values::Float(&[lr]))?;
        if let Some([picks, y, lr_theta]) = inputs.meta {
            let batch = meta.batch(step);
            session.write_input(program, picks, Values::Int(bytemuck::cast_slice(&batch.picks)))?;
            session.write_input(program, y, Values::Int(&batch.labels))?;
            session.write_input(program, lr_theta, Values::Float(&[self.lr_theta]))?;
        }
        if let (Some(ids), Optimiser::Adam(adam)) = (inputs.corrections, &self.rule) {
            for (id, value) in ids.into_iter().zip(adam_corrections(adam, step + 1)) {
                session.write_input(program, id, Values::Float(&[value]))?;
            }
        }
        session.run(program)
    }

    /// Mean loss and accuracy (percent) on the test set.
    pub(super) fn test(&mut self, data: &Prepared) -> Result<(f64, f64)> {
        let first = data.dataset.train.len() as u32;
        let labels = &data.dataset.test.labels;
        let indices: Vec<u32> = (first..first + labels.len() as u32).collect();
        let (losses, hits) = self.evaluate(&indices, labels)?;
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len().max(1) as f64;
        Ok((mean(&losses), 100.0 * mean(&hits)))
    }

    /// Per image, loss and hit (0 or 1) with running statistics.
    fn evaluate(&mut self, indices: &[u32], labels: &[i32]) -> Result<(Vec<f64>, Vec<f64>)> {
        let Learner { session, evaluate: program, .. } = self;
        let (picks, y) = (program.input("picks")?, program.input("y")?);
        let (mut losses, mut hits) = (Vec::new(), Vec::new());
        for (batch, rows) in data::in_order(indices, labels, EVALUATED_AT_ONCE) {
            session.write_input(program, picks, Values::Int(bytemuck::cast_slice(&batch.picks)))?;
            session.write_input(program, y, Values::Int(&batch.labels))?;
            session.run(program)?;
            losses.extend_from_slice(&session.fetch(program, "loss")?[..rows]);
            hits.extend_from_slice(&session.fetch(program, "correct")?[..rows]);
        }
        Ok((losses, hits))
    }

    /// V over losses and over the training samples, after `epoch` epochs; `None` for a method that learns no weights.
    ///
    /// # Errors
    /// [`Error::Numeric`] if one of them is no longer a finite number.
    pub fn picture(&mut self, data: &Prepared, epoch: usize) -> Result<Option<WeightPicture>> {
        if self.curve.is_none() {
            return Ok(None);
        }
        let train = &data.split.train;
        let (losses, _) = self.evaluate(&train.indices, &train.labels)?;
        let weights = self.weights(&losses)?;
        if let Some(bad) = losses.iter().chain(&weights).find(|v| !v.is_finite()) {
            let what = format!("a training image has a loss or a weight of {bad} at the end");
            return Err(self.diverged(data, epoch, &what));
        }
        let points: Vec<f64> = (0..CURVE_POINTS).map(|i| i as f64 / CURVE_POINTS_PER_UNIT).collect();
        let values = self.weights(&points)?;
        Ok(Some(WeightPicture { epoch, curve: points.into_iter().zip(values).collect(), losses, weights }))
    }

    /// V of each loss.
    fn weights(&mut self, losses: &[f64]) -> Result<Vec<f64>> {
        let Learner { session, curve: Some(program), .. } = self else { return Ok(Vec::new()) };
        let mut all = Vec::with_capacity(losses.len());
        for part in losses.chunks(EVALUATED_AT_ONCE) {
            let mut padded = part.to_vec();
            padded.resize(EVALUATED_AT_ONCE, 0.0);
            session.feed(program, "loss", Values::Float(&padded))?;
            session.run(program)?;
            all.extend_from_slice(&session.fetch(program, "weight")?[..part.len()]);
        }
        Ok(all)
    }
}

fn weight_program(weight_net: &WeightNet, n: usize) -> Result<Tape> {
    let mut tape = Tape::new();
    let losses = tape.input("loss", Kind::Float, [n])?;
    let theta = Params::states(&mut tape, "theta", &weight_net.params())?;
    let weights = weight_net.weights(&mut tape, &theta, losses)?;
    tape.output("weight", weights);
    Ok(tape)
}
