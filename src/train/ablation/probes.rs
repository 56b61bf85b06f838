//! A variant's hypergradient beside the exact one, along a training.

use std::time::Instant;

use super::variant::Variant;
use crate::error::Result;
use crate::meta::schemes::Memory;
use crate::program::{Program, Session};
use crate::train::learner::Look;
use crate::train::stepper::{At, Stepper, hypergrad};
use crate::train::study::Probe;
use crate::train::{Config, Method, Prepared};

/// Cosines that are measured in an epoch, if it has so many steps.
const PROBES_PER_EPOCH: u64 = 2;

/// In a checkpoint, by name: the last hypergradient that θ moved by; and step, epoch and cosine of
/// all probes.
const LATEST: &str = "probes.latest";
const COSINES: &str = "probes.cosines";
const OTHER: &str = "probes.other";

/// Compares hypergradients along a training.
#[derive(Default)]
pub(super) struct Probes {
    variant: Variant,
    config: Config,
    pub per_epoch: u64,
    /// The exact hypergradient: the published step's, on the clean meta set's batch.
    pub exact: Option<Stepper>,
    /// The variant's own, where neither its step nor `exact` has it.
    pub own: Option<Stepper>,
    /// The exact one before the present step, and the last that θ moved by.
    reference: Vec<f64>,
    latest: Vec<f64>,
    pub cosines: Vec<Probe>,
    pub other_batch: Vec<Probe>,
    /// Spent on this in the present epoch.
    pub seconds: f64,
}

impl Probes {
    /// None yet.
    pub fn new(variant: Variant, config: Config) -> Probes {
        Probes { variant, config, ..Probes::default() }
    }

    /// Leaves what a stopped training needs to go on.
    pub fn keep(&self, memory: &mut Memory) {
        let flat = |probes: &[Probe]| {
            let one = |p: &Probe| [p.step as f64, p.epoch as f64, p.cosine.unwrap_or(f64::NAN)];
            probes.iter().flat_map(one).collect()
        };
        memory.set(LATEST, self.latest.clone());
        memory.set(COSINES, flat(&self.cosines));
        memory.set(OTHER, flat(&self.other_batch));
    }

    /// Takes it up again.
    pub fn recall(&mut self, memory: &Memory) {
        let probes = |name| {
            let (all, _) = memory.get(name).as_chunks::<3>();
            let one = |[step, epoch, cosine]: &[f64; 3]| Probe {
                step: *step as u64,
                epoch: *epoch as usize,
                cosine: Some(*cosine).filter(|cosine| !cosine.is_nan()),
            };
            all.iter().map(one).collect()
        };
        self.latest = memory.get(LATEST).to_vec();
        (self.cosines, self.other_batch) = (probes(COSINES), probes(OTHER));
    }

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
