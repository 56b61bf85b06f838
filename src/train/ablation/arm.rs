use std::path::Path;
use std::time::Instant;

use super::variant::{IMBALANCE, META_SIZE, Pool, Variant};
use crate::data::{DatasetKind, Noise};
use crate::error::{Error, Result};
use crate::meta::schemes::{Moment, MwNet, Scheme, Seen, TrainStep};
use crate::meta::{MetaStep, Order, Route};
use crate::program::{Program, Session};
use crate::tape::{Tape, Var};
use crate::train::history::{History, mean_where};
use crate::train::learner::Look;
use crate::train::stepper::{At, Stepper, hypergrad};
use crate::train::study::{Arm, Cell, Plan, Probe};
use crate::train::{Config, Learner, Method, Observer, Prepared};
use crate::words::counted;

/// Cosines that are measured in an epoch, if it has so many steps.
const PROBES_PER_EPOCH: u64 = 2;

/// Images of the full meta set.
pub(super) fn meta_size(config: &Config) -> usize {
    config.meta_size.unwrap_or(META_SIZE)
}

impl Arm for Variant {
    const PLAN: &'static str = "ablate.toml";
    const STUDY: &'static str = "study";
    const ARM: &'static str = "variant";

    fn check(plan: &Plan<Variant>) -> Result<()> {
        let usage = |sentence: String| Err(Error::Usage(sentence));
        if plan.arms.first() != Some(&Variant::Published) {
            return usage("--variants must have `published`, with which all others are compared".into());
        }
        let full = meta_size(&plan.config);
        let images = |variant: &Variant| variant.images().unwrap_or(0);
        if let Some(variant) = plan.arms.iter().find(|variant| images(variant) > full) {
            return usage(format!(
                "--variants {variant}: the meta set has {}; give at least --meta-size {}",
                counted(full, "image"),
                images(variant)
            ));
        }
        let noisy = plan.arms.iter().find(|variant| matches!(variant, Variant::Noisy(_)));
        match (plan.config.noise, noisy) {
            (Noise::None, Some(variant)) => usage(format!(
                "--variants {variant}: without noise no label is wrong; add --noise, or leave it out"
            )),
            _ => Ok(()),
        }
    }

    /// Its meta set is the images set apart for all meta sets.
    fn prepare(config: &Config) -> Result<Prepared> {
        let classes = match config.dataset {
            // Known without reading the files twice.
            DatasetKind::Cifar100 => 100,
            DatasetKind::Folder | DatasetKind::Arrays | DatasetKind::Csv => {
                config.reading().load()?.classes()
            }
            _ => 10,
        };
        let full = meta_size(config);
        let each = Pool::per_class(classes, full);
        Prepared::new(Config { meta_size: Some(classes * each), ..config.clone() }).map_err(|error| {
            match error {
                Error::Data(text) | Error::Usage(text) if text.contains("--meta-size") => {
                    Error::Data(format!(
                        "a meta set of {} in a long tail of {IMBALANCE} needs {each} of each class set apart, and there are not so \
                         many ({text})",
                        counted(full, "image"),
                    ))
                }
                error => error,
            }
        })
    }

    fn train(
        self,
        config: Config,
        _: &Path,
        session: &dyn Fn() -> Result<Session>,
        observer: &mut dyn Observer,
    ) -> Result<Cell> {
        let (mut data, mut session) = (Variant::prepare(&config)?, session()?);
        let pool = Pool::new(&data.split.meta, data.dataset.classes(), meta_size(&config), config.seed);
        let mut probes = Probes { variant: self, config, ..Probes::default() };
        data.split.meta = Variant::Published.meta_set(&pool, &data.split.train, data.config.noise)?;
        if self != Variant::Uniform {
            probes.exact = Some(Stepper::new(&data, Order::Gradient, &data.split.meta, &mut session)?);
        }
        data.split.meta = self.meta_set(&pool, &data.split.train, data.config.noise)?;
        match self {
            Variant::FiniteDifference => data.config.route = Route::FiniteDifference,
            Variant::Unroll(k) => data.config.unroll = k,
            Variant::Every(k) => data.config.theta_every = k,
            _ => {}
        }
        if self.about_meta_set() || matches!(self, Variant::FiniteDifference | Variant::Unroll(_)) {
            probes.own = Some(Stepper::new(&data, Order::Gradient, &data.split.meta, &mut session)?);
        }
        let mut learner = match self {
            Variant::Uniform => Learner::new(Method::Uniform, &data, session)?,
            Variant::TwoSteps => Learner::own("two-steps", Box::new(TwoSteps::new(&data)), &data, session)?,
            _ => Learner::new(Method::MwNet, &data, session)?,
        };
        probes.per_epoch = learner.steps_per_epoch();
        let mut history = History::default();
        let outcome = learn(&mut learner, &data, &mut history, &mut probes, observer);
        // V over all samples at the end.
        let weights = history.pictures.last().map(|p| p.weights.clone()).unwrap_or_default();
        let mean = |flag| mean_where(&weights, &data.split.train.corrupted, flag);
        let cell = Cell::new(&data, history, outcome)?;
        Ok(Cell {
            meta_images: if self == Variant::Uniform { 0 } else { cell.meta_images },
            mean_weight_clean: mean(false),
            mean_weight_corrupted: mean(true),
            cosines: probes.cosines,
            other_batch: probes.other_batch,
            ..cell
        })
    }
}

/// All epochs.
fn learn(
    learner: &mut Learner,
    data: &Prepared,
    history: &mut History,
    probes: &mut Probes,
    observer: &mut dyn Observer,
) -> Result<()> {
    let (steps, epochs) = (learner.steps_per_epoch() as f64, data.config.epochs);
    for epoch in 0..epochs {
        let mut watch = |method, report| observer.step(method, epoch, report);
        let measured = learner.looked_at(data, epoch, &mut watch, probes)?;
        let Some(mut measured) = measured else { continue };
        // Probing is no part of a step.
        let probing = std::mem::take(&mut probes.seconds);
        let speed = &mut measured.row.steps_per_second;
        *speed = steps / (steps / *speed - probing);
        observer.epoch(&measured.row);
        measured.join(history);
    }
    history.pictures.extend(learner.picture(data, epochs, true)?);
    Ok(())
}

/// Meta-Weight-Net in [`Order::TwoSteps`].
#[derive(Debug)]
struct TwoSteps(MwNet);

impl TwoSteps {
    fn new(data: &Prepared) -> TwoSteps {
        let (config, method) = (&data.config, Method::MwNet);
        let lr = config.weight_net_rule(method).1;
        let weight_net = data.weight_net(method);
        TwoSteps(MwNet { weight_net, config: config.step(method), lr, theta_every: 1 })
    }
}

impl Scheme for TwoSteps {
    fn curve(&self, tape: &mut Tape, seen: &Seen) -> Result<Option<Var>> {
        self.0.curve(tape, seen)
    }

    fn record(&self, tape: &mut Tape, step: &TrainStep) -> Result<()> {
        let MwNet { weight_net, config, .. } = &self.0;
        let meta = MetaStep { net: step.net, weight_net, config, data: step.data, batch: step.batch };
        meta.record_in(tape, Order::TwoSteps)
    }

    fn inputs(&self, now: &Moment) -> Vec<(&'static str, Vec<f64>)> {
        self.0.inputs(now)
    }
}

/// Compares hypergradients along a training.
#[derive(Default)]
struct Probes {
    variant: Variant,
    config: Config,
    per_epoch: u64,
    /// The exact hypergradient: the published step's, on the clean meta set's batch.
    exact: Option<Stepper>,
    /// The variant's own, where neither its step nor `exact` has it.
    own: Option<Stepper>,
    /// The exact one before the present step, and the last that θ moved by.
    reference: Vec<f64>,
    latest: Vec<f64>,
    cosines: Vec<Probe>,
    other_batch: Vec<Probe>,
    /// Spent on this in the present epoch.
    seconds: f64,
}

impl Probes {
    fn epoch(&self, step: u64) -> usize {
        (step / self.per_epoch) as usize
    }

    /// Whether the step is one of those at which cosines are measured: in the middle of each
    /// stretch, so that it falls on no step of an alternation in particular.
    fn probed(&self, step: u64) -> bool {
        let distance = (self.per_epoch / PROBES_PER_EPOCH).max(1);
        self.exact.is_some() && step % distance == distance / 2
    }

    fn probe(&self, step: u64, gradient: &[f64]) -> Probe {
        Probe { step, epoch: self.epoch(step) + 1, cosine: cosine(gradient, &self.reference) }
    }

    /// At the present w and θ.
    fn look(&mut self, data: &Prepared, session: &mut Session, step: u64) -> Result<()> {
        let moves = matches!(self.variant, Variant::Every(k) if step.is_multiple_of(k as u64));
        let (probed, lr) = (self.probed(step), self.config.lr_at(Method::MwNet, self.epoch(step)));
        let Some(exact) = self.exact.as_mut().filter(|_| moves || probed) else { return Ok(()) };
        let at = At { step, meta_step: step, lr };
        self.reference = gradient(exact, data, session, at)?;
        if moves || self.variant == Variant::Published {
            self.latest.clone_from(&self.reference);
        }
        if let Some(own) = &mut self.own {
            self.latest = gradient(own, data, session, at)?;
        }
        if self.variant == Variant::Published {
            // A batch that training does not come to.
            let meta_step = self.per_epoch * self.config.epochs as u64 + step;
            let other = gradient(exact, data, session, At { meta_step, ..at })?;
            self.other_batch.push(self.probe(step, &other));
        }
        Ok(())
    }
}

impl Look for Probes {
    fn before(&mut self, data: &Prepared, session: &mut Session, step: u64) -> Result<()> {
        let began = Instant::now();
        self.look(data, session, step)?;
        self.seconds += began.elapsed().as_secs_f64();
        Ok(())
    }

    fn after(&mut self, session: &Session, program: &Program, step: u64) -> Result<()> {
        if self.probed(step) {
            let began = Instant::now();
            if self.variant == Variant::TwoSteps {
                self.latest = hypergrad(session, program)?;
            }
            self.cosines.push(self.probe(step, &self.latest));
            self.seconds += began.elapsed().as_secs_f64();
        }
        Ok(())
    }
}

fn gradient(stepper: &mut Stepper, data: &Prepared, session: &mut Session, at: At) -> Result<Vec<f64>> {
    stepper.run(data, session, at)?;
    hypergrad(session, stepper.program())
}

fn cosine(a: &[f64], b: &[f64]) -> Option<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    (lengths > 0.0 && lengths.is_finite()).then(|| dot(a, b) / lengths)
}
