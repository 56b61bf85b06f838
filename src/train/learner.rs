use std::path::Path;
use std::time::Instant;

use super::curve::WeightCurve;
use super::evaluator::{Evaluator, Looked};
use super::history::{EpochRow, History, LossBins, WeightPicture, mean_where};
use super::method::Method;
use super::network_file::NetworkFile;
use super::prepared::Prepared;
use super::samples::{self, Finding, SampleReport};
use super::scores::{accuracy, confusion};
use super::step::{Given, StepProgram};
use crate::data::Batcher;
use crate::error::{Error, Result};
use crate::meta::schemes::{Draw, Memory, Moment, Predictions, Scheme, Set, Stages};
use crate::program::{Program, Session};

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
    /// Of so many.
    pub steps: u64,
    /// Mean loss of the batch.
    pub loss: f64,
    /// Mean loss of the meta batch.
    pub meta_loss: Option<f64>,
    /// Accuracy on the batch, in percent.
    pub accuracy: f64,
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

impl Measured {
    /// Joins what was measured before.
    pub(super) fn join(self, history: &mut History) {
        history.rows.push(self.row);
        (history.confusion, history.by_loss) = (self.confusion, self.by_loss);
    }
}

/// Who looks at the states in between the steps (from 0) of training, and may run programs that
/// change none.
pub(super) trait Look {
    /// The step is next.
    fn before(&mut self, data: &Prepared, session: &mut Session, step: u64) -> Result<()>;
    /// It was done, by this program.
    fn after(&mut self, session: &Session, program: &Program, step: u64) -> Result<()>;
}

/// Nobody does.
impl Look for () {
    fn before(&mut self, _: &Prepared, _: &mut Session, _: u64) -> Result<()> {
        Ok(())
    }
    fn after(&mut self, _: &Session, _: &Program, _: u64) -> Result<()> {
        Ok(())
    }
}

/// One method's programs, and the session that holds its states.
pub struct Learner {
    method: Method,
    session: Session,
    /// One for all stages, or one each.
    steps: Vec<StepProgram>,
    evaluator: Evaluator,
    curve: Option<WeightCurve>,
    scheme: Box<dyn Scheme>,
    train: Batcher,
    meta: Batcher,
    memory: Memory,
    /// Places in the training set of the last step's batch; none where it was one of the meta set.
    positions: Vec<u32>,
}

impl Learner {
    /// The method's programs on a session, with the first parameters.
    ///
    /// # Errors
    /// If the batch is larger than the training set, the device has no room, or the session is of
    /// another precision.
    pub fn new(method: Method, data: &Prepared, session: Session) -> Result<Learner> {
        Learner::of(method, method.scheme(data)?, data, session)
    }

    /// The programs of a scheme of one's own, which reports call `name`.
    ///
    /// # Errors
    /// As [`Learner::new`]; those of recording the scheme; [`Error::Usage`] for the name of a
    /// method.
    pub fn own(
        name: &'static str,
        scheme: Box<dyn Scheme>,
        data: &Prepared,
        session: Session,
    ) -> Result<Learner> {
        if name.parse::<Method>().is_ok() {
            return Err(Error::Usage(format!(
                "`{name}` is a method of this crate; give your scheme another name"
            )));
        }
        Learner::of(Method::Own(name), scheme, data, session)
    }

    fn of(method: Method, scheme: Box<dyn Scheme>, data: &Prepared, mut session: Session) -> Result<Learner> {
        data.begin(&mut session)?;
        let (train, meta) = (data.batcher(false)?, data.batcher(true)?);
        let steps = (0..scheme.stages().map_or(scheme.programs(), Stages::steps))
            .map(|stage| StepProgram::new(scheme.as_ref(), stage, data, &mut session))
            .collect::<Result<Vec<_>>>()?;
        let evaluator = Evaluator::new(data.net(), &data.dataset, &mut session)?;
        let curve = WeightCurve::new(scheme.as_ref(), &mut session)?;
        let (memory, positions) = (Memory::new(), Vec::new());
        Ok(Learner { method, session, steps, evaluator, curve, scheme, train, meta, memory, positions })
    }

    /// Which method this is.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Networks that it trains one after the other.
    pub fn stages(&self) -> usize {
        self.scheme.stages().map_or(1, Stages::count)
    }

    /// Writes the network to a file.
    pub(super) fn write_model(&self, path: &Path, data: &Prepared) -> Result<()> {
        let last = self.scheme.stages().filter(|stages| stages.votes());
        let note = last.map(|stages| {
            format!("the last of {} networks, which the run tests by their votes together", stages.count())
        });
        NetworkFile::write(path, data, &self.session, self.method.to_string(), note)
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

    /// Trains for one pass over the training set (from 0, over all of the method's stages) and, in
    /// the last stage, evaluates; `watch` is called after every step. `None` in a stage that only
    /// prepares the last one.
    ///
    /// # Errors
    /// [`Error::Numeric`] if a loss is no longer a finite number.
    pub fn pass(
        &mut self,
        data: &Prepared,
        pass: usize,
        watch: &mut dyn FnMut(Method, StepReport),
    ) -> Result<Option<Measured>> {
        self.looked_at(data, pass, watch, &mut ())
    }

    /// [`Learner::pass`] with someone who looks at it step by step.
    pub(super) fn looked_at(
        &mut self,
        data: &Prepared,
        pass: usize,
        watch: &mut dyn FnMut(Method, StepReport),
        look: &mut dyn Look,
    ) -> Result<Option<Measured>> {
        let epochs = data.config.epochs;
        let (stage, epoch) = (pass / epochs, pass % epochs);
        if stage + 1 == self.stages() {
            return self.epoch(data, stage, epoch, watch, look).map(Some);
        }
        self.train_epoch(data, stage, epoch, watch, look)?;
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
        look: &mut dyn Look,
    ) -> Result<Measured> {
        let began = Instant::now();
        let sums = self.train_epoch(data, stage, epoch, watch, look)?;
        let training = began.elapsed().as_secs_f64();
        let (test_loss, confusion) = self.test(data)?;
        if !test_loss.is_finite() {
            return Err(self.diverged(data, epoch + 1, &format!("the test loss is {test_loss} at the end")));
        }
        let steps = self.steps_per_epoch() as f64;
        let row = EpochRow {
            epoch: epoch + 1,
            method: self.method.to_string(),
            lr: data.config.lr_at(self.method, epoch),
            train_loss: sums.loss / steps,
            train_accuracy: 100.0 * sums.hits / steps,
            meta_loss: (sums.meta_steps > 0).then(|| sums.meta_loss / sums.meta_steps as f64),
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
        look: &mut dyn Look,
    ) -> Result<Sums> {
        let (steps, n) = (self.steps_per_epoch(), data.config.batch);
        let (mut losses, mut hits, mut weights) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
        let (mut meta_loss, mut rows) = ([0.0], Vec::new());
        let mut sums = Sums::default();
        let judged = samples::counts(epoch, data.config.epochs);
        for i in 0..steps {
            let step = epoch as u64 * steps + i;
            let at = match self.scheme.stages() {
                Some(_) => stage.min(self.steps.len() - 1),
                None => self.scheme.program(step),
            };
            look.before(data, &mut self.session, step)?;
            self.one_step(data, at, step)?;
            let program = &self.steps[at];
            look.after(&self.session, &program.fed.program, step)?;
            self.session.read_into(&program.fed.program, program.loss, &mut losses)?;
            self.session.read_into(&program.fed.program, program.correct, &mut hits)?;
            let loss = losses.iter().sum::<f64>() / n as f64;
            let hit = hits.iter().sum::<f64>() / n as f64;
            if let Some(meta) = program.meta_loss {
                self.session.read_into(&program.fed.program, meta, &mut meta_loss)?;
                sums.meta_loss += meta_loss[0];
                sums.meta_steps += 1;
            }
            if let Some(weight) = program.weight {
                self.session.read_into(&program.fed.program, weight, &mut weights)?;
                sums.weights.extend_from_slice(&weights);
                sums.corrupted.extend(self.positions.iter().map(|p| data.split.train.corrupted[*p as usize]));
                sums.by_loss.add(&losses, &weights);
            }
            if let Some(predictions) = program.predictions {
                rows.resize(n * data.dataset.classes(), 0.0);
                self.session.read_into(&program.fed.program, predictions, &mut rows)?;
                self.scheme.remember(&mut self.memory, &self.positions, &rows);
            }
            if stage + 1 == self.stages() {
                let weights = program.weight.map(|_| &weights[..]);
                let n = data.split.train.indices.len();
                samples::add(&mut self.memory, n, &self.positions, &losses, weights, judged);
            }
            if !(loss + meta_loss[0]).is_finite() {
                let what = format!("the loss is {loss} and the meta loss {} at step {}", meta_loss[0], i + 1);
                return Err(self.diverged(data, epoch + 1, &what));
            }
            sums.loss += loss;
            sums.hits += hit;
            let meta_loss = self.steps[at].meta_loss.map(|_| meta_loss[0]);
            watch(self.method, StepReport { step: i + 1, steps, loss, meta_loss, accuracy: 100.0 * hit });
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
            self.method,
            config.rate(self.method)
        ))
    }

    /// The step `step` (from 0) of a stage, with its program.
    fn one_step(&mut self, data: &Prepared, program: usize, step: u64) -> Result<()> {
        let Learner { method, session, steps, scheme, train, meta, memory, positions, .. } = self;
        let (program, config) = (&mut steps[program], &data.config);
        let steps = train.batches_per_epoch() * config.epochs as u64;
        let epoch = (step / train.batches_per_epoch()) as usize;
        let (draw, lr) = (scheme.draws(step, steps), config.lr_at(*method, epoch));
        let ahead: Vec<_> =
            (1..=program.fed.ahead() as u64).map(|further| train.batch(step + further).clone()).collect();
        let batch = train.batch(step);
        let meta = if program.fed.reads_meta() || draw != Draw::Train { meta.batch(step) } else { batch };
        let (batch, lr) = match draw {
            Draw::Train => (batch, lr),
            Draw::Meta(factor) => (meta, factor.map_or(lr, |factor| config.rate(*method) * factor)),
        };
        positions.clear();
        if draw == Draw::Train {
            positions.extend_from_slice(&batch.positions);
        }
        let now = Moment { step, steps, epoch, batch: config.batch, positions: &batch.positions, memory };
        let scheme = scheme.inputs(&now);
        let at = [config.seed, step];
        let data = &data.dataset;
        program.fed.run(session, &Given { data, batch, ahead: &ahead, meta, lr, at, scheme: &scheme })
    }

    /// What the next stage needs of the network just trained; then a network anew.
    fn next_stage(&mut self, data: &Prepared, stage: usize) -> Result<()> {
        let Learner { session, evaluator, scheme, memory, .. } = self;
        let Some(stages) = scheme.stages() else { return Ok(()) };
        stages.next(memory, &mut Looked { evaluator, session, data })?;
        let seed = stages.seed(data.config.seed, stage + 1);
        session.initialise(seed)
    }

    /// Mean loss on the test set, and which classes its images were taken for.
    pub(super) fn test(&mut self, data: &Prepared) -> Result<(f64, Vec<Vec<u32>>)> {
        let Learner { session, evaluator, scheme, memory, .. } = self;
        let (classes, labels) = (data.dataset.classes(), data.labels(Set::Test));
        let Predictions { losses, logits, .. } = evaluator.see(session, data, Set::Test)?;
        let scores = match scheme.stages() {
            Some(stages) => stages.scores(memory, logits, &mut Looked { evaluator, session, data })?,
            None => logits,
        };
        Ok((losses.iter().sum::<f64>() / losses.len().max(1) as f64, confusion(classes, &scores, labels)))
    }

    /// What training tells about each of its samples, in their order, and how well that finds the
    /// wrong labels, where they are known.
    ///
    /// # Errors
    /// The machine's.
    pub fn judge(&mut self, data: &Prepared) -> Result<(Vec<SampleReport>, Option<Finding>)> {
        let seen = self.evaluator.see(&mut self.session, data, Set::Train)?;
        let rows = samples::report(data, &self.memory, &seen);
        let finding = samples::finding(data, &rows, &seen);
        Ok((rows, finding))
    }

    /// The weight over losses, and if asked over the training `samples`, after `epoch` epochs;
    /// `None` for a method whose weight is not a function of the loss, or the same for all.
    ///
    /// # Errors
    /// [`Error::Numeric`] if one of them is no longer a finite number.
    pub fn picture(&mut self, data: &Prepared, epoch: usize, samples: bool) -> Result<Option<WeightPicture>> {
        let Learner { session, evaluator, curve: Some(curve), scheme, memory, .. } = self else {
            return Ok(None);
        };
        let losses = if samples { evaluator.see(session, data, Set::Train)?.losses } else { Vec::new() };
        let per_epoch = self.train.batches_per_epoch();
        let now = Moment {
            step: per_epoch * epoch as u64,
            steps: per_epoch * data.config.epochs as u64,
            epoch: epoch.saturating_sub(1),
            batch: data.config.batch,
            positions: &[],
            memory,
        };
        let points: Vec<f64> = (0..CURVE_POINTS).map(|i| i as f64 / CURVE_POINTS_PER_UNIT).collect();
        let mut at =
            |losses: &[f64], labels: &[i32]| curve.weights(session, scheme.as_ref(), losses, labels, &now);
        let labels = if samples { data.labels(Set::Train) } else { &[] };
        let weights = at(&losses, labels)?;
        let mut over_losses = |label: i32| at(&points, &[label; CURVE_POINTS]);
        let mut groups = Vec::new();
        for (name, label) in scheme.groups() {
            groups.push((name.to_owned(), over_losses(label)?));
        }
        let values = match groups.first() {
            Some((_, values)) => values.clone(),
            None => over_losses(0)?,
        };
        if let Some(bad) = losses.iter().chain(&weights).find(|v| !v.is_finite()) {
            let what = format!("a training image has a loss or a weight of {bad} at the end");
            return Err(self.diverged(data, epoch, &what));
        }
        Ok(Some(WeightPicture {
            epoch,
            curve: points.into_iter().zip(values).collect(),
            groups,
            losses,
            weights,
        }))
    }
}

/// What is added up over an epoch's steps.
#[derive(Default)]
struct Sums {
    loss: f64,
    hits: f64,
    meta_loss: f64,
    /// Steps that had one.
    meta_steps: u64,
    /// Of every sample of every batch, and whether its label is wrong.
    weights: Vec<f64>,
    corrupted: Vec<bool>,
    by_loss: LossBins,
}
