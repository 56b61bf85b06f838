use super::order::{index, ranks};
use super::{Moment, Scheme, Seen, positive};
use crate::error::Result;
use crate::tape::{Kind, Tape, Var};

/// MentorNet's predefined curriculum (Jiang et al. 2018): `clip(1 − (ℓ−λ₁)/λ₂, 0, 1)`, where λ₁
/// follows a percentile of the batches' losses. In the first 20% of training (the burn-in) every
/// weight is 1. Defaults: the median, followed with an inertia of 0.95, and λ₂ = 1. The original's
/// random drop-out of samples is left out.
///
/// State: `scheme.threshold` (λ₁, in nats). Input: `scheme.open`, 1 in the burn-in and 0 after it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MentorNet {
    /// Which percentile λ₁ follows, as a share of the batch with lower losses.
    pub percentile: f64,
    /// Share of the old λ₁ in the new one, a step.
    pub inertia: f64,
    /// λ₂, in nats.
    pub width: f64,
    /// Share of training in which every weight is 1.
    pub burn_in: f64,
}

impl Default for MentorNet {
    fn default() -> MentorNet {
        MentorNet { percentile: 0.5, inertia: 0.95, width: 1.0, burn_in: 0.2 }
    }
}

const OPEN: &str = "scheme.open";

impl MentorNet {
    /// The batch's percentile, exactly one of its losses.
    fn batch_percentile(&self, tape: &mut Tape, losses: Var) -> Result<Var> {
        let n = tape.shape(losses).count() as f64;
        // Ranks count from the largest.
        let rank = ((1.0 - self.percentile) * (n - 1.0)).round();
        let ranks = ranks(tape, losses)?;
        let distance = tape.offset(ranks, -rank)?;
        let square = tape.mul(distance, distance)?;
        let minus = tape.scale(square, -1.0)?;
        let near = tape.offset(minus, 0.5)?;
        let chosen = positive(tape, near)?;
        let value = tape.mul(chosen, losses)?;
        tape.sum_all(value)
    }

    /// The weights at a threshold.
    fn clipped(&self, tape: &mut Tape, losses: Var, threshold: Var) -> Result<Var> {
        let threshold = tape.broadcast_to(threshold, tape.shape(losses).clone())?;
        let room = tape.sub(threshold, losses)?;
        let relative = tape.scale(room, 1.0 / self.width)?;
        let open = tape.offset(relative, 1.0)?;
        let (above_0, above_1) = (tape.relu(open)?, tape.relu(relative)?);
        let clipped = tape.sub(above_0, above_1)?;
        // 1 in the burn-in: open + (1 − open)·clipped
        let burn_in = tape.input(OPEN, Kind::Float, [])?;
        let shut = tape.scale(burn_in, -1.0)?;
        let shut = tape.offset(shut, 1.0)?;
        let gated = tape.scale_by(clipped, shut)?;
        let burn_in = tape.broadcast_to(burn_in, tape.shape(losses).clone())?;
        tape.add(gated, burn_in)
    }
}

impl Scheme for MentorNet {
    fn curve(&self, tape: &mut Tape, seen: &Seen) -> Result<Option<Var>> {
        let losses = seen.losses;
        let threshold = tape.state("scheme.threshold", Kind::Float, [])?;
        self.clipped(tape, losses, threshold).map(Some)
    }

    fn weights(&self, tape: &mut Tape, seen: &Seen) -> Result<Var> {
        let threshold = tape.state("scheme.threshold", Kind::Float, [])?;
        let kept = tape.scale(threshold, self.inertia)?;
        let percentile = self.batch_percentile(tape, seen.losses)?;
        let new = tape.scale(percentile, 1.0 - self.inertia)?;
        let next = tape.add(kept, new)?;
        tape.update(threshold, next)?;
        self.clipped(tape, seen.losses, next)
    }

    fn inputs(&self, now: &Moment) -> Vec<(&'static str, Vec<f64>)> {
        vec![index(now.batch), (OPEN, vec![if now.progress() < self.burn_in { 1.0 } else { 0.0 }])]
    }
}
