use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::history::{EpochRow, LossBins, WeightPicture, mean_where};
use super::method::Method;
use super::prepared::Prepared;
use super::scores::{accuracy, argmax, softmax};
use super::setup;
use super::step::{Given, StepProgram};
use crate::data::{self, Batcher};
use crate::error::{Error, Result};
use crate::meta::schemes::{AdaBoost, FineTune, Moment, Scheme, transition};
use crate::meta::{Evaluation, Optimiser, adam_corrections};
use crate::nn::{Params, WeightNet};
use crate::program::{Options, Program, Session, Values};
use crate::tape::{Kind, Tape};

/// Images of one evaluation pass.
const EVALUATED_AT_ONCE: usize = 250;
/// Losses at which the curve of V is drawn: 0, 0.05, … 8.
const CURVE_POINTS: usize = 161;
const CURVE_POINTS_PER_UNIT: f64 = 20.0;
/// Of these, the summary shows every fifth: 0, 0.25, … 8.
pub(super) const SUMMARY_STRIDE: usize = 5;

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

/// What a method's earlier stages hand on to the later ones, beside the states.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Memory {
    /// AdaBoost's weights of the training samples, with mean 1.
    pub sample_weights: Vec<f64>,
    /// Votes of the rounds so far `[test images, classes]`.
    pub votes: Vec<f64>,
    /// GLC's matrix `[classes, classes]`.
    pub transition: Vec<f64>,
}

/// What an epoch has measured.
pub struct Measured {
    /// A row of `metrics.csv`.
    pub row: EpochRow,
    /// `[true class][predicted class]`, counts of test images.
    pub confusion: Vec<Vec<u32>>,
    /// Mean weight by loss over the epoch's batches; empty where samples have no weights.
    pub by_loss: Vec<(f64, f64)>,
}

/// One method's programs, and the session that holds its states.
pub struct Learner {
    method: Method,
    session: Session,
    /// One for all stages, or one each.
    steps: Vec<StepProgram>,
    evaluate: Program,
    curve: Option<Program>,
    scheme: Option<Box<dyn Scheme>>,
    rule: Optimiser,
    lr_theta: f64,
    train: Batcher,
    meta: Batcher,
    memory: Memory,
}

impl Learner {
    /// The method's programs on a session, with the first parameters.
    ///
    /// # Errors
    /// If the batch is larger than the training set, the device has no room, or the session is of another precision.
    pub fn new(method: Method, data: &Prepared, mut session: Session) -> Result<Learner> {
        let Prepared { config, net, .. } = data;
        // A run of one precision that went on in the other would do so silently.
        if session.precision() != config.precision {
            let machine = session.describe();
            return Err(Error::Program(format!("a run in {} cannot use {machine}", config.precision)));
        }
        let weight_net = config.weight_net(method);
        let (rule, lr_theta) = config.weight_net_rule(method);
        let (train, meta) = (data.batcher(false)?, data.batcher(true)?);
        let scheme = method.scheme(config, &data.split, net.classes);
        let programs = if method == Method::Glc { method.stages() } else { 1 };
        let steps = (0..programs)
            .map(|stage| StepProgram::new(method, stage, data, scheme.as_deref(), &mut session))
            .collect::<Result<Vec<_>>>()?;
        let mut tape = Tape::new();
        let plain = data.batch(false);
        Evaluation { net, data: &plain, batch: EVALUATED_AT_ONCE }.record(&mut tape)?;
        let evaluate = session.compile(&tape, Options::default())?;
        let curve = match curve_tape(method, &weight_net, scheme.as_deref())? {
            Some(tape) => Some(session.compile(&tape, Options::default())?),
            None => None,
        };
        setup::initialise(&mut session, net, &weight_net, config.seed)?;
        session.write_state("pixels", Values::Byte(data.pixels()))?;
        let mut memory = Memory::default();
        if method == Method::AdaBoost {
            memory.sample_weights = vec![1.0; data.split.train.indices.len()];
            memory.votes = vec![0.0; data.dataset.test.len() * net.classes];
        }
        Ok(Learner { method, session, steps, evaluate, curve, scheme, rule, lr_theta, train, meta, memory })
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

    /// What stands beside the states in a checkpoint.
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Likewise, to be restored.
    pub(super) fn memory_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// Steps of an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.train.batches_per_epoch()
    }

    /// Trains for one pass over the training set (from 0, over all of the method's stages) and, in the last stage, evaluates;
    /// `watch` is called after every step. `None` in a stage that only prepares the last one.
    ///
    /// # Errors
    /// [`Error::Numeric`] if a loss is no longer a finite number.
    pub fn pass(
        &mut self,
        data: &Prepared,
        pass: usize,
        watch: &mut dyn FnMut(Method, StepReport),
    ) -> Result<Option<Measured>> {
        let epochs = data.config.epochs;
        let (stage, epoch) = (pass / epochs, pass % epochs);
        if stage + 1 == self.method.stages() {
            return self.epoch(data, stage, epoch, watch).map(Some);
        }
        self.train_epoch(data, stage, epoch, watch)?;
        if epoch + 1 == epochs {
            self.next_stage(data, stage)?;
        }
        Ok(None)
    }

    fn epoch(
        &mut self,
        data: &Prepared,
        stage: usize,
        epoch: usize,
        watch: &mut dyn FnMut(Method, StepReport),
    ) -> Result<Measured> {
        let began = Instant::now();
        let sums = self.train_epoch(data, stage, epoch, watch)?;
        let training = began.elapsed().as_secs_f64();
        let (test_loss, confusion) = self.test(data)?;
        if !test_loss.is_finite() {
            return Err(self.diverged(data, epoch + 1, &format!("the test loss is {test_loss} at the end")));
        }
        let steps = self.steps_per_epoch() as f64;
        let row = EpochRow {
            epoch: epoch + 1,
            method: self.method.to_string(),
            lr: data.config.lr_at(epoch),
            train_loss: sums.loss / steps,
            train_accuracy: 100.0 * sums.hits / steps,
            meta_loss: self.steps.last().and_then(|s| s.meta_loss).map(|_| sums.meta_loss / steps),
            test_loss,
            test_accuracy: accuracy(&confusion),
            mean_weight_clean: mean_where(&sums.weights, &sums.corrupted, false),
            mean_weight_corrupted: mean_where(&sums.weights, &sums.corrupted, true),
            steps_per_second: steps / training,
            seconds: began.elapsed().as_secs_f64(),
        };
        Ok(Measured { row, confusion, by_loss: sums.by_loss.means() })
    }

    /// The steps of an epoch of one stage.
    fn train_epoch(
        &mut self,
        data: &Prepared,
        stage: usize,
        epoch: usize,
        watch: &mut dyn FnMut(Method, StepReport),
    ) -> Result<Sums> {
        let (steps, n) = (self.steps_per_epoch(), data.config.batch);
        let (mut losses, mut hits, mut weights) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
        let mut meta_loss = [0.0];
        let mut sums = Sums::default();
        let at = stage.min(self.steps.len() - 1);
        for i in 0..steps {
            let step = epoch as u64 * steps + i;
            self.one_step(data, at, step)?;
            let program = &self.steps[at];
            self.session.read_into(&program.program, program.loss, &mut losses)?;
            self.session.read_into(&program.program, program.correct, &mut hits)?;
            let loss = losses.iter().sum::<f64>() / n as f64;
            let hit = hits.iter().sum::<f64>() / n as f64;
            if let Some(meta) = program.meta_loss {
                self.session.read_into(&program.program, meta, &mut meta_loss)?;
            }
            if let Some(weight) = program.weight {
                self.session.read_into(&program.program, weight, &mut weights)?;
                sums.weights.extend_from_slice(&weights);
                let positions = &self.train.batch(step).positions;
                sums.corrupted.extend(positions.iter().map(|p| data.split.train.corrupted[*p as usize]));
                sums.by_loss.add(&losses, &weights);
            }
            if !(loss + meta_loss[0]).is_finite() {
                let what = format!("the loss is {loss} and the meta loss {} at step {}", meta_loss[0], i + 1);
                return Err(self.diverged(data, epoch + 1, &what));
            }
            sums.loss += loss;
            sums.hits += hit;
            sums.meta_loss += meta_loss[0];
            let meta_loss = self.steps[at].meta_loss.map(|_| meta_loss[0]);
            watch(self.method, StepReport { step: i + 1, loss, meta_loss, accuracy: 100.0 * hit });
        }
        Ok(sums)
    }

    /// The error of a number that is no longer finite; it must not reach a checkpoint.
    fn diverged(&self, data: &Prepared, epochs: usize, what: &str) -> Error {
        let config = &data.config;
        let weight_net = match config.weight_net_lr {
            Some(lr) if self.method.is_meta() => format!(" or --weight-net-lr than {lr}"),
            _ => String::new(),
        };
        Error::Numeric(format!(
            "{}: {what} of epoch {epochs}; train again with a smaller --lr than {:e}{weight_net}, in another --out",
            self.method, config.lr
        ))
    }

    /// The step `step` (from 0) of a stage, with its program.
    fn one_step(&mut self, data: &Prepared, program: usize, step: u64) -> Result<()> {
        let Learner { session, steps, scheme, rule, train, meta, memory, .. } = self;
        let (program, config) = (&steps[program], &data.config);
        let per_epoch = train.batches_per_epoch();
        let all = per_epoch * config.epochs as u64;
        let epoch = (step / per_epoch) as usize;
        let mut lr = config.lr_at(epoch);
        let tuning = FineTune::default();
        let on_meta = self.method == Method::FineTune && tuning.on_meta(step, all);
        if on_meta {
            lr = config.lr * tuning.lr;
        }
        let batch = train.batch(step);
        let meta = if program.reads_meta() || on_meta { meta.batch(step) } else { batch };
        let sample_weights: Vec<f64> = match self.method {
            Method::AdaBoost => batch.positions.iter().map(|p| memory.sample_weights[*p as usize]).collect(),
            _ => Vec::new(),
        };
        let moment = Moment {
            epoch,
            progress: step as f64 / all as f64,
            batch: config.batch,
            sample_weights: &sample_weights,
        };
        let given = Given {
            batch: if on_meta { meta } else { batch },
            meta,
            lr,
            lr_theta: self.lr_theta,
            corrections: match rule {
                Optimiser::Adam(adam) => adam_corrections(adam, step + 1),
                Optimiser::Sgd(_) => [1.0; 2],
            },
            transition: &memory.transition,
            scheme: &scheme.as_ref().map(|s| s.inputs(&moment)).unwrap_or_default(),
        };
        program.run(session, &given)
    }

    /// What the next stage needs of the network just trained; then a network anew.
    fn next_stage(&mut self, data: &Prepared, stage: usize) -> Result<()> {
        let classes = data.net.classes;
        let mut seed = data.config.seed;
        if self.method == Method::AdaBoost {
            let (votes, weights) = self.votes(data)?;
            (self.memory.votes, self.memory.sample_weights) = (votes, weights);
            // Each round's network begins elsewhere.
            seed = seed.wrapping_add((stage as u64 + 1) << 32);
        } else {
            let meta = &data.split.meta;
            let seen = self.evaluate(&meta.indices, &meta.labels)?;
            let probabilities: Vec<f64> = seen.logits.chunks(classes).flat_map(softmax).collect();
            self.memory.transition = transition(&probabilities, &meta.labels, classes);
        }
        setup::initialise(&mut self.session, &data.net, &data.config.weight_net(self.method), seed)
    }

    /// AdaBoost: votes on the test images, the present network's included, and the next weights of the training samples.
    fn votes(&mut self, data: &Prepared) -> Result<(Vec<f64>, Vec<f64>)> {
        let classes = data.net.classes;
        let train = &data.split.train;
        let wrong: Vec<bool> =
            self.evaluate(&train.indices, &train.labels)?.hits.iter().map(|hit| *hit == 0.0).collect();
        let round = AdaBoost::round(&self.memory.sample_weights, &wrong, classes);
        let mut votes = self.memory.votes.clone();
        let seen = self.evaluate(&data.test_indices(), &data.dataset.test.labels)?;
        for (row, logits) in votes.chunks_mut(classes).zip(seen.logits.chunks(classes)) {
            // The least vote decides only while nobody else has voted.
            row[argmax(logits)] += round.vote.max(1e-9);
        }
        Ok((votes, round.weights))
    }

    /// Mean loss on the test set, and which classes its images were taken for.
    pub(super) fn test(&mut self, data: &Prepared) -> Result<(f64, Vec<Vec<u32>>)> {
        let (classes, labels) = (data.net.classes, &data.dataset.test.labels);
        let seen = self.evaluate(&data.test_indices(), labels)?;
        let scores = match self.method {
            Method::AdaBoost => self.votes(data)?.0,
            _ => seen.logits,
        };
        let mut confusion = vec![vec![0; classes]; classes];
        for (scores, label) in scores.chunks(classes).zip(labels) {
            confusion[*label as usize][argmax(scores)] += 1;
        }
        Ok((seen.losses.iter().sum::<f64>() / seen.losses.len().max(1) as f64, confusion))
    }

    /// Per image, loss, hit (0 or 1) and logits with running statistics.
    fn evaluate(&mut self, indices: &[u32], labels: &[i32]) -> Result<Evaluated> {
        let Learner { session, evaluate: program, .. } = self;
        let (picks, y) = (program.input("picks")?, program.input("y")?);
        let mut all = Evaluated::default();
        for (batch, rows) in data::in_order(indices, labels, EVALUATED_AT_ONCE) {
            session.write_input(program, picks, Values::Int(bytemuck::cast_slice(&batch.picks)))?;
            session.write_input(program, y, Values::Int(&batch.labels))?;
            session.run(program)?;
            all.losses.extend_from_slice(&session.fetch(program, "loss")?[..rows]);
            all.hits.extend_from_slice(&session.fetch(program, "correct")?[..rows]);
            let logits = session.fetch(program, "logits")?;
            all.logits.extend_from_slice(&logits[..logits.len() / EVALUATED_AT_ONCE * rows]);
        }
        Ok(all)
    }

    /// The weight over losses and over the training samples, after `epoch` epochs; `None` for a method whose weight is not
    /// a function of the loss, or the same for all.
    ///
    /// # Errors
    /// [`Error::Numeric`] if one of them is no longer a finite number.
    pub fn picture(&mut self, data: &Prepared, epoch: usize) -> Result<Option<WeightPicture>> {
        if self.curve.is_none() {
            return Ok(None);
        }
        let train = &data.split.train;
        let losses = self.evaluate(&train.indices, &train.labels)?.losses;
        let moment = Moment {
            epoch: epoch.saturating_sub(1),
            progress: epoch as f64 / data.config.epochs as f64,
            batch: data.config.batch,
            sample_weights: &[],
        };
        let weights = self.weights(&losses, &moment)?;
        if let Some(bad) = losses.iter().chain(&weights).find(|v| !v.is_finite()) {
            let what = format!("a training image has a loss or a weight of {bad} at the end");
            return Err(self.diverged(data, epoch, &what));
        }
        let points: Vec<f64> = (0..CURVE_POINTS).map(|i| i as f64 / CURVE_POINTS_PER_UNIT).collect();
        let values = self.weights(&points, &moment)?;
        Ok(Some(WeightPicture { epoch, curve: points.into_iter().zip(values).collect(), losses, weights }))
    }

    /// The weight of each loss.
    fn weights(&mut self, losses: &[f64], moment: &Moment) -> Result<Vec<f64>> {
        let Learner { session, curve: Some(program), scheme, .. } = self else { return Ok(Vec::new()) };
        for (name, values) in scheme.as_ref().map(|s| s.inputs(moment)).unwrap_or_default() {
            // A curve needs some of what a batch's weights need.
            if let Ok(input) = program.input(name) {
                session.write_input(program, input, Values::Float(&values))?;
            }
        }
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

/// What is added up over an epoch's steps.
#[derive(Default)]
struct Sums {
    loss: f64,
    hits: f64,
    meta_loss: f64,
    /// Of every sample of every batch, and whether its label is wrong.
    weights: Vec<f64>,
    corrupted: Vec<bool>,
    by_loss: LossBins,
}

/// Per image.
#[derive(Default)]
struct Evaluated {
    losses: Vec<f64>,
    hits: Vec<f64>,
    /// `[images, classes]`.
    logits: Vec<f64>,
}

/// The weight as a function of the loss, for methods where it is one and not the same for all.
fn curve_tape(method: Method, weight_net: &WeightNet, scheme: Option<&dyn Scheme>) -> Result<Option<Tape>> {
    let mut tape = Tape::new();
    let losses = tape.input("loss", Kind::Float, [EVALUATED_AT_ONCE])?;
    let weights = match scheme {
        _ if method.is_meta() => {
            let theta = Params::states(&mut tape, "theta", &weight_net.params())?;
            Some(weight_net.weights(&mut tape, &theta, losses)?)
        }
        Some(scheme) if method != Method::Uniform => scheme.curve(&mut tape, losses)?,
        _ => None,
    };
    Ok(weights.map(|weights| {
        tape.output("weight", weights);
        tape
    }))
}
