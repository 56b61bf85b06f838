//! The field's reweighting schemes, one file each: from per-sample losses to per-sample weights, as
//! operations on the tape, so that every scheme runs on every machine and inside one recorded step.
//!
//! With ℓ a sample's loss and p = e^{−ℓ} the probability of its given label:
//!
//! | file | weight |
//! |---|---|
//! | `uniform.rs` | 1 |
//! | `focal.rs` | (1−p)^γ |
//! | `adaboost.rs` | boosting rounds of reweighted networks, SAMME |
//! | `ohem.rs` | 1 on the largest losses of the batch |
//! | `self_paced.rs` | hard `1[ℓ < λ]`, linear `max(0, 1 − ℓ/λ)`, with λ growing |
//! | `geman_mcclure.rs`, `gce.rs` | robust statistics: `(σ²/(ℓ²+σ²))²`, `p^q` |
//! | `class_balanced.rs` | by the effective number of the class' samples |
//! | `mentornet.rs` | `clip(1 − (ℓ−λ₁)/λ₂, 0, 1)` with a moving percentile λ₁ |
//! | `co_teaching.rs` | two networks, each trains on the other's smallest losses |
//! | `l2rw.rs` | the meta gradient in the weights themselves |
//! | `glc.rs` | no weight: the loss corrected by an estimated noise matrix |
//! | `fine_tune.rs` | no weight: the last steps on the meta set |
//! | `mixed.rs` | no weight: the meta set alone, or both sets as one |
//! | `mw_net.rs` | V(ℓ; θ), learned: the published recipes, and V by groups of classes |
//! | `soft_mw_net.rs` | V(ℓ; θ) between the given label and a soft one, and the meta set trained on |
//! | `oracle.rs` | 1 on right labels, 0 on wrong ones, which it is told: what there is to gain |
//!
//! Each is a [`Scheme`]. `weighted.rs` is the training step of those that are a function of the
//! batch, `stages.rs` is for those that train several networks in a row (and look at them,
//! `predictions.rs`), `order.rs` ranks a batch on the tape.

mod adaboost;
mod class_balanced;
mod co_teaching;
mod fine_tune;
mod focal;
mod gce;
mod geman_mcclure;
mod glc;
mod l2rw;
mod mentornet;
mod mixed;
mod mw_net;
mod ohem;
mod oracle;
mod order;
mod predictions;
mod self_paced;
mod soft_mw_net;
mod stages;
mod uniform;
mod weighted;

pub use adaboost::{AdaBoost, Round};
pub use class_balanced::ClassBalanced;
pub use co_teaching::CoTeaching;
pub use fine_tune::FineTune;
pub use focal::Focal;
pub use gce::Gce;
pub use geman_mcclure::GemanMcClure;
pub use glc::{Glc, transition};
pub use l2rw::L2rw;
pub use mentornet::MentorNet;
pub use mixed::{CleanOnly, Mixed};
pub use mw_net::{MwNet, MwNetRecipe, class_groups};
pub use ohem::Ohem;
pub use oracle::Oracle;
pub use predictions::{Predictions, Set, Trained, argmax, softmax};
pub use self_paced::{SelfPaced, SelfPacedForm};
pub use soft_mw_net::SoftMwNet;
pub use stages::{Memory, Stages};
pub use uniform::Uniform;
pub use weighted::TrainStep;

use std::fmt::Debug;

use super::config::Weights;
use crate::error::{Error, Result};
use crate::tape::{Tape, Unary, Var};

/// What a scheme sees of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Per-sample losses `[n]` (cross-entropy in nats), as far as derivatives go constants.
    pub losses: Var,
    /// Given labels `[n]`.
    pub labels: Var,
}

/// When a batch is trained on, for the inputs of a scheme's program.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// Steps of this stage that are done.
    pub step: u64,
    /// Steps of the whole schedule.
    pub steps: u64,
    /// Passes over the training set that are done.
    pub epoch: usize,
    /// Samples of a batch.
    pub batch: usize,
    /// Places in the training set of the batch's samples; empty where there is no batch.
    pub positions: &'a [u32],
    /// What earlier stages handed on.
    pub memory: &'a Memory,
}

impl Moment<'_> {
    /// Share of all steps that are done, in `0..=1`.
    pub fn progress(&self) -> f64 {
        self.step as f64 / self.steps.max(1) as f64
    }
}

/// Where a step's batch is drawn from.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Draw {
    /// The training set.
    Train,
    /// The meta set, at this multiple of the schedule's first learning rate; none: at the
    /// schedule's own.
    Meta(Option<f64>),
}

/// A reweighting scheme: per-sample losses to per-sample weights, as operations. A scheme is either
/// a curve over the loss (or a few of them, by the sample's class), or weights of its own from what
/// it sees of a batch, or (if the network itself takes part) a training step of its own; only the
/// first of these that fits needs to be written.
///
/// What changes from step to step (thresholds, progress) is an input of the program, never a number
/// baked in.
pub trait Scheme: Debug + Send {
    /// The weight `[n]` as a function of the loss, and at most of the label; `None` for a scheme
    /// that has no such curve, or a flat one. Reads states and inputs, changes none.
    ///
    /// # Errors
    /// The tape's own.
    fn curve(&self, _tape: &mut Tape, _seen: &Seen) -> Result<Option<Var>> {
        Ok(None)
    }

    /// What the curve reads of the training samples, in their order, where these are their labels
    /// and the network's losses at them: the losses, unless the scheme remembers something better.
    fn reads(&self, _memory: &Memory, _labels: &[i32], losses: Vec<f64>) -> Vec<f64> {
        losses
    }

    /// For a curve that differs between groups of classes, each group's name and a label in it;
    /// empty if it is one for all.
    fn groups(&self) -> Vec<(&'static str, i32)> {
        Vec::new()
    }

    /// Weights `[n]` of a batch.
    ///
    /// # Errors
    /// The tape's own.
    fn weights(&self, tape: &mut Tape, seen: &Seen) -> Result<Var> {
        let weights = self.curve(tape, seen)?;
        weights.ok_or_else(|| Error::Program(format!("{self:?} has neither a curve nor weights of its own")))
    }

    /// Whether the batch's loss is `Σ vℓ / n` or `Σ vℓ / Σ v`.
    fn over(&self) -> Weights {
        Weights::Mean
    }

    /// Records the whole training step. Outputs `loss` `[n]` and `correct` `[n]`; `weight` `[n]`
    /// where samples have weights, and `meta_loss` where the meta set takes part.
    ///
    /// # Errors
    /// As [`crate::meta::MetaStep::record`].
    fn record(&self, tape: &mut Tape, step: &TrainStep) -> Result<()> {
        step.weighted(tape, self)
    }

    /// The inputs that the scheme's operations declared, with their values.
    fn inputs(&self, _now: &Moment) -> Vec<(&'static str, Vec<f64>)> {
        Vec::new()
    }

    /// Keeps what its later steps need of a step's output [`PREDICTIONS`] `[n, classes]`, for the
    /// samples at these places in the training set.
    fn remember(&self, _memory: &mut Memory, _positions: &[u32], _predictions: &[f64]) {}

    /// Programs that the steps of its one network take turns with; [`TrainStep::stage`] says which
    /// is recorded.
    fn programs(&self) -> usize {
        1
    }

    /// Which of them a step (from 0) runs.
    fn program(&self, _step: u64) -> usize {
        0
    }

    /// Where a step (from 0, of so many) takes its batch.
    fn draws(&self, _step: u64, _steps: u64) -> Draw {
        Draw::Train
    }

    /// The stages of a scheme that trains several networks.
    fn stages(&self) -> Option<&dyn Stages> {
        None
    }
}

/// The output of a step whose scheme keeps something of each sample ([`Scheme::remember`]).
pub const PREDICTIONS: &str = "predictions";

/// `e^{−ℓ}`: the probability of the given label.
fn probability(tape: &mut Tape, losses: Var) -> Result<Var> {
    let minus = tape.scale(losses, -1.0)?;
    tape.unary(Unary::Exp, minus)
}

/// 1 where `x > 0`, else 0.
fn positive(tape: &mut Tape, x: Var) -> Result<Var> {
    let ones = tape.constant(1.0, tape.shape(x).clone());
    tape.mask(ones, x)
}
