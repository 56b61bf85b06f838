//! The field's reweighting schemes, one file each: from per-sample losses to per-sample weights, as operations on the tape, so that
//! every scheme runs on every machine and inside one recorded step.
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
//! | `mw_net.rs` | V(ℓ; θ), learned: the published recipes |
//!
//! `weighted.rs` is the training step of all schemes that are a function of the batch, `order.rs` ranks a batch on the tape.

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
mod mw_net;
mod ohem;
mod order;
mod self_paced;
mod uniform;
mod weighted;

pub use adaboost::{AdaBoost, Round};
pub use class_balanced::ClassBalanced;
pub use co_teaching::{CoTeaching, CoTeachingStep};
pub use fine_tune::FineTune;
pub use focal::Focal;
pub use gce::Gce;
pub use geman_mcclure::GemanMcClure;
pub use glc::{GlcStep, transition};
pub use l2rw::L2rwStep;
pub use mentornet::MentorNet;
pub use mw_net::MwNetRecipe;
pub use ohem::Ohem;
pub use self_paced::{SelfPaced, SelfPacedForm};
pub use uniform::Uniform;
pub use weighted::WeightedStep;

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
    /// Passes over the training set that are done.
    pub epoch: usize,
    /// Share of all steps that are done, in `0..1`.
    pub progress: f64,
    /// Samples of a batch.
    pub batch: usize,
    /// Per sample of the batch, the weight that earlier rounds gave it ([`AdaBoost`]); empty for other schemes.
    pub sample_weights: &'a [f64],
}

/// A reweighting scheme: per-sample losses to per-sample weights, as operations.
///
/// What changes from step to step (thresholds, progress) is an input of the program, called `scheme.<name>`, never a number baked in.
pub trait Scheme: Debug + Send {
    /// The weight as a function of the loss alone, `[n]` from losses `[n]`; `None` for a scheme that has no such curve. Reads
    /// states and inputs, changes none.
    ///
    /// # Errors
    /// The tape's own.
    fn curve(&self, tape: &mut Tape, losses: Var) -> Result<Option<Var>>;

    /// Weights `[n]` of a batch.
    ///
    /// # Errors
    /// The tape's own.
    fn weights(&self, tape: &mut Tape, seen: &Seen) -> Result<Var> {
        let weights = self.curve(tape, seen.losses)?;
        weights.ok_or_else(|| Error::Program(format!("{self:?} has neither a curve nor weights of its own")))
    }

    /// Whether the batch's loss is `Σ vℓ / n` or `Σ vℓ / Σ v`.
    fn over(&self) -> Weights {
        Weights::Mean
    }

    /// The inputs that the scheme's operations declared, with their values.
    fn inputs(&self, _now: &Moment) -> Vec<(&'static str, Vec<f64>)> {
        Vec::new()
    }
}

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
