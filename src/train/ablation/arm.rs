use std::path::Path;

use super::findings::COSINES;
use super::pictures::{STEMS, groups};
use super::probes::Probes;
use super::variant::{IMBALANCE, META_SIZE, Pool, Variant};
use crate::data::{DatasetKind, MetaSource, Noise};
use crate::error::{Error, Result};
use crate::meta::schemes::{Moment, MwNet, Scheme, Seen, TrainStep};
use crate::meta::{MetaStep, Order, Route};
use crate::program::Session;
use crate::tape::{Tape, Var};
use crate::train::checkpoint::{Part, Progress, Saved, save};
use crate::train::history::{History, mean_where};
use crate::train::plots::files as plots;
use crate::train::run::CHECKPOINT;
use crate::train::stepper::Stepper;
use crate::train::study::{Arm, Cell, Plan};
use crate::train::times::Times;
use crate::train::{Config, Learner, Method, Observer, Passed, Prepared, Then};
use crate::words::counted;

/// Images of the full meta set.
pub(super) fn meta_size(config: &Config) -> usize {
    config.meta_size.unwrap_or(META_SIZE)
}

impl Arm for Variant {
    const PLAN: &'static str = "ablate.toml";
    const STUDY: &'static str = "study";
    const ARM: &'static str = "variant";

    fn files(plan: &Plan<Variant>) -> Vec<String> {
        let mut files = plots(groups(&plan.arms).into_iter().map(|group| group.0));
        files.extend(plots(STEMS.map(str::to_owned)));
        files.push(COSINES.into());
        files
    }

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
        let meta_source = Some(MetaSource::Split);
        let apart = Config { meta_size: Some(classes * each), meta_source, ..config.clone() };
        Prepared::new(apart).map_err(|error| {
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
        folder: &Path,
        session: &dyn Fn() -> Result<Session>,
        observer: &mut dyn Observer,
    ) -> Result<Cell> {
        let (mut data, mut session) = (Variant::prepare(&config)?, session()?);
        let account = data.account();
        let pool = Pool::new(&data.split.meta, data.dataset.classes(), meta_size(&config), config.seed);
        let mut probes = Probes::new(self, config);
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
        let mut kept =
            Kept { folder, name: learner.method().to_string(), data: &data, history: History::default() };
        kept.restore(&mut learner, &mut probes)?;
        let outcome = kept.learn(&mut learner, &mut probes, observer);
        let history = kept.history;
        // V over all samples at the end.
        let weights = history.pictures.last().map(|p| p.weights.clone()).unwrap_or_default();
        let mean = |flag| mean_where(&weights, &data.split.train.corrupted, flag);
        let cell = Cell::new(&data, history, outcome)?;
        Ok(Cell {
            account,
            meta_images: if self == Variant::Uniform { 0 } else { cell.meta_images },
            mean_weight: mean(None),
            mean_weight_clean: mean(Some(false)).filter(|_| data.split.train.known),
            mean_weight_corrupted: mean(Some(true)),
            cosines: probes.cosines,
            other_batch: probes.other_batch,
            ..cell
        })
    }
}

/// A cell that is trained, and its folder.
struct Kept<'a> {
    folder: &'a Path,
    /// Of its learner's method.
    name: String,
    data: &'a Prepared,
    history: History,
}

impl Kept<'_> {
    /// All epochs that are not done.
    fn learn(
        &mut self,
        learner: &mut Learner,
        probes: &mut Probes,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let (steps, epochs) = (learner.steps_per_epoch() as f64, self.data.config.epochs);
        while learner.underway().passes < epochs {
            let (epoch, mut then) = (learner.underway().passes, Then::GoOn);
            let mut watch = |method, report| {
                observer.step(method, epoch, report);
                then = observer.then();
                then != Then::GoOn
            };
            if let Passed::Measured(mut measured) = learner.looked_at(self.data, &mut watch, probes)? {
                let row = &mut measured.row;
                // Probing is no part of a step.
                let probing = std::mem::take(&mut probes.seconds);
                row.steps_per_second = steps / (steps / row.steps_per_second - probing);
                observer.epoch(row);
                measured.join(&mut self.history);
                then = observer.then();
            }
            self.keep(learner, probes)?;
            if then == Then::Stop {
                let (step, done) = (learner.underway().sums.steps, learner.underway().passes);
                return Err(Error::Stopped(match step {
                    0 => format!("stopped after epoch {done} of {epochs}"),
                    step => format!("stopped after step {step} of {steps} of epoch {} of {epochs}", done + 1),
                }));
            }
        }
        self.history.pictures.extend(learner.picture(self.data, epochs, true)?);
        Ok(())
    }

    /// Writes a checkpoint.
    fn keep(&self, learner: &mut Learner, probes: &Probes) -> Result<()> {
        let Kept { folder, name: prefix, data, history } = self;
        std::fs::create_dir_all(folder).map_err(Error::io(folder, "create the folder"))?;
        probes.keep(learner.memory_mut());
        let underway = learner.underway().clone();
        Times::of([(prefix.clone(), history, underway.sums.seconds)]).write(folder)?;
        let progress = Progress {
            network: data.network(),
            config: data.config.clone(),
            epochs: underway.passes,
            underway: vec![underway],
            histories: vec![(prefix.clone(), history.clone())],
        };
        let (session, memory) = (learner.session(), learner.memory());
        save(&folder.join(CHECKPOINT), &[Part { prefix, session, memory, pictures: &[] }], &progress)
    }

    /// Takes up what an earlier process has left.
    fn restore(&mut self, learner: &mut Learner, probes: &mut Probes) -> Result<()> {
        let path = self.folder.join(CHECKPOINT);
        if !path.exists() {
            return Ok(());
        }
        let saved = Saved::read(&path)?;
        let config = saved.progress.config.clone().placed_as(&self.data.config);
        let (Some(underway), Some((_, history)), true) =
            (saved.progress.underway.first(), saved.progress.histories.first(), config == self.data.config)
        else {
            return Err(Error::Data(format!("{}: is of another study; remove it", path.display())));
        };
        self.history = history.clone();
        self.history.rename();
        let mut underway = underway.clone();
        underway.sums.seconds = Times::read(self.folder)?.fill(&self.name, &mut self.history);
        saved.restore(&self.name, learner.session_mut())?;
        let memory = saved.memory(&self.name)?;
        probes.recall(&memory);
        learner.restored(memory, underway);
        Ok(())
    }
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
