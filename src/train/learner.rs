use std::path::Path;
use std::time::Instant;

use super::curve::WeightCurve;
use super::evaluator::Evaluator;
use super::history::{EpochRow, History};
use super::method::Method;
use super::network_file::NetworkFile;
use super::prepared::Prepared;
use super::samples;
use super::scores::accuracy;
use super::step::{Given, StepProgram};
use super::sums::Underway;
use crate::data::Batcher;
use crate::error::{Error, Result};
use crate::meta::schemes::{Draw, Memory, Moment, Scheme, Stages};
use crate::program::{Program, Session};

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

/// How far a pass over the training set has come.
pub enum Passed {
    /// Not to its end: whoever watches wanted it to pause. The next call goes on.
    Paused,
    /// To its end; its stage only prepares the last one.
    Prepared,
    /// To its end, and the network was tested.
    Measured(Box<Measured>),
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
    pub(super) session: Session,
    /// One for all stages, or one each.
    steps: Vec<StepProgram>,
    pub(super) evaluator: Evaluator,
    pub(super) curve: Option<WeightCurve>,
    pub(super) scheme: Box<dyn Scheme>,
    train: Batcher,
    meta: Batcher,
    pub(super) memory: Memory,
    underway: Underway,
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
        Ok(Learner {
            method,
            session,
            steps,
            evaluator,
            curve,
            scheme,
            train,
            meta,
            memory: Memory::new(),
            underway: Underway::default(),
            positions: Vec::new(),
        })
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

    /// Likewise.
    pub(super) fn underway(&self) -> &Underway {
        &self.underway
    }

    pub(super) fn memory_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// Both, to be restored.
    pub(super) fn restored(&mut self, memory: Memory, underway: Underway) {
        (self.memory, self.underway) = (memory, underway);
    }

    /// Steps of an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.train.batches_per_epoch()
    }

    /// Trains for the next pass over the training set (over all of the method's stages) and, in the
    /// last stage, evaluates. `watch` is called after every step, and says whether to pause behind
    /// it.
    ///
    /// # Errors
    /// [`Error::Numeric`] if a loss is no longer a finite number.
    pub fn pass(
        &mut self,
        data: &Prepared,
        watch: &mut dyn FnMut(Method, StepReport) -> bool,
    ) -> Result<Passed> {
        self.looked_at(data, watch, &mut ())
    }

    /// [`Learner::pass`] with someone who looks at it step by step.
    pub(super) fn looked_at(
        &mut self,
        data: &Prepared,
        watch: &mut dyn FnMut(Method, StepReport) -> bool,
        look: &mut dyn Look,
    ) -> Result<Passed> {
        let epochs = data.config.epochs;
        let (stage, epoch) = (self.underway.passes / epochs, self.underway.passes % epochs);
        let began = Instant::now();
        let paused = self.train_epoch(data, stage, epoch, watch, look)?;
        self.underway.sums.seconds += began.elapsed().as_secs_f64();
        if paused {
            return Ok(Passed::Paused);
        }
        let passed = if stage + 1 == self.stages() {
            Passed::Measured(Box::new(self.measure(data, epoch)?))
        } else {
            if epoch + 1 == epochs {
                self.next_stage(data, stage)?;
            }
            Passed::Prepared
        };
        self.underway = Underway { passes: self.underway.passes + 1, ..Underway::default() };
        Ok(passed)
    }

    /// Tests the network after an epoch's steps.
    fn measure(&mut self, data: &Prepared, epoch: usize) -> Result<Measured> {
        let began = Instant::now();
        let (test_loss, confusion) = self.test(data)?;
        let sums = &self.underway.sums;
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
            mean_weight: sums.mean_weight(None),
            mean_weight_clean: sums.mean_weight(Some(false)).filter(|_| data.split.train.known),
            mean_weight_corrupted: sums.mean_weight(Some(true)),
            steps_per_second: steps / sums.seconds,
            seconds: sums.seconds + began.elapsed().as_secs_f64(),
        };
        Ok(Measured { row, confusion, by_loss: sums.by_loss.means() })
    }

    /// The steps of an epoch of one stage that are not done; whether it was to pause.
    fn train_epoch(
        &mut self,
        data: &Prepared,
        stage: usize,
        epoch: usize,
        watch: &mut dyn FnMut(Method, StepReport) -> bool,
        look: &mut dyn Look,
    ) -> Result<bool> {
        let (steps, n) = (self.steps_per_epoch(), data.config.batch);
        let (mut losses, mut hits, mut weights) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
        let (mut meta_loss, mut rows) = ([0.0], Vec::new());
        let judged = samples::counts(epoch, data.config.epochs);
        let last_stage = stage + 1 == self.stages();
        for i in self.underway.sums.steps..steps {
            let step = epoch as u64 * steps + i;
            let at = match self.scheme.stages() {
                Some(_) => stage.min(self.steps.len() - 1),
                None => self.scheme.program(step),
            };
            look.before(data, &mut self.session, step)?;
            self.one_step(data, at, step)?;
            let (program, sums) = (&self.steps[at], &mut self.underway.sums);
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
                let wrong = &data.split.train.corrupted;
                sums.weigh(&losses, &weights, self.positions.iter().map(|p| wrong[*p as usize]));
            }
            if let Some(predictions) = program.predictions {
                rows.resize(n * data.dataset.classes(), 0.0);
                self.session.read_into(&program.fed.program, predictions, &mut rows)?;
                self.scheme.remember(&mut self.memory, &self.positions, &rows);
            }
            if last_stage {
                let weights = program.weight.map(|_| &weights[..]);
                let n = data.split.train.indices.len();
                samples::add(&mut self.memory, n, &self.positions, &losses, weights, judged);
            }
            let weight = if program.weight.is_some() { weights.iter().sum() } else { 0.0 };
            if !(loss + meta_loss[0] + weight).is_finite() {
                let what = match weight.is_finite() {
                    true => {
                        format!("the loss is {loss} and the meta loss {} at step {}", meta_loss[0], i + 1)
                    }
                    false => format!("the weights' sum is {weight} at step {}", i + 1),
                };
                return Err(self.diverged(data, epoch + 1, &what));
            }
            sums.loss += loss;
            sums.hits += hit;
            sums.steps = i + 1;
            let meta_loss = program.meta_loss.map(|_| meta_loss[0]);
            if watch(self.method, StepReport { step: i + 1, steps, loss, meta_loss, accuracy: 100.0 * hit }) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The error of a number that is no longer finite; it must not reach a checkpoint.
    pub(super) fn diverged(&self, data: &Prepared, epochs: usize, what: &str) -> Error {
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
}
