//! SGD and Adam as operations on the tape: moments are states, everything that changes with time is an input.

use super::config::{Adam, Optimiser, Sgd};
use crate::error::Result;
use crate::nn::Params;
use crate::tape::{Kind, Tape, Unary, Var};

/// Adam's bias corrections at step `t` (from 1): `1/(1−β₁^t)` and `1/(1−β₂^t)`.
pub fn adam_corrections(adam: &Adam, t: u64) -> [f64; 2] {
    let t = t as f64;
    [1.0 / (1.0 - adam.beta1.powf(t)), 1.0 / (1.0 - adam.beta2.powf(t))]
}

/// Inputs that carry Adam's bias corrections, named `adam.correction1` and `adam.correction2`.
#[derive(Clone, Copy, Debug)]
pub struct AdamClock {
    correction1: Var,
    correction2: Var,
}

impl AdamClock {
    fn declare(tape: &mut Tape) -> Result<AdamClock> {
        Ok(AdamClock {
            correction1: tape.input("adam.correction1", Kind::Float, [])?,
            correction2: tape.input("adam.correction2", Kind::Float, [])?,
        })
    }
}

impl Sgd {
    /// The direction `d` of the step `w ← w − lr·d` and the next momentum buffer, from the gradient `g`.
    pub(super) fn direction(
        &self,
        tape: &mut Tape,
        w: Var,
        g: Var,
        buffer: Option<Var>,
    ) -> Result<(Var, Var)> {
        let decay = tape.scale(w, self.weight_decay)?;
        let g = if self.weight_decay == 0.0 { g } else { tape.add(g, decay)? };
        let Some(buffer) = buffer else { return Ok((g, g)) };
        let kept = tape.scale(buffer, self.momentum)?;
        let next = tape.add(kept, g)?;
        if !self.nesterov {
            return Ok((next, next));
        }
        let ahead = tape.scale(next, self.momentum)?;
        Ok((tape.add(g, ahead)?, next))
    }

    /// ∂(direction)/∂(gradient): 1, or 1 + momentum with Nesterov.
    pub(super) fn gain(&self) -> f64 {
        if self.nesterov { 1.0 + self.momentum } else { 1.0 }
    }

    /// The momentum buffer of parameter `name`, the state `<prefix>.<name>`; none without momentum.
    pub(super) fn buffer(&self, tape: &mut Tape, prefix: &str, name: &str, w: Var) -> Result<Option<Var>> {
        if self.momentum == 0.0 {
            return Ok(None);
        }
        let shape = tape.shape(w).clone();
        tape.state(&format!("{prefix}.{name}"), Kind::Float, shape).map(Some)
    }
}

impl Optimiser {
    /// Records the updates of all parameters and their moments; gives the next parameters. `prefix` names the moments'
    /// states (`<prefix>.<param>`, `<prefix>2.<param>`), `lr` is a scalar.
    pub(super) fn update(
        &self,
        tape: &mut Tape,
        params: &Params,
        gradients: &[Var],
        lr: Var,
        prefix: &str,
    ) -> Result<Params> {
        let clock = match self {
            Optimiser::Adam(_) => Some(AdamClock::declare(tape)?),
            Optimiser::Sgd(_) => None,
        };
        let mut next = Vec::with_capacity(gradients.len());
        for ((name, w), g) in params.list.iter().zip(gradients) {
            let direction = match (self, clock) {
                (Optimiser::Adam(adam), Some(clock)) => adam.direction(tape, clock, *w, *g, prefix, name)?,
                (Optimiser::Sgd(sgd), _) => {
                    let buffer = sgd.buffer(tape, prefix, name, *w)?;
                    let (direction, kept) = sgd.direction(tape, *w, *g, buffer)?;
                    if let Some(buffer) = buffer {
                        tape.update(buffer, kept)?;
                    }
                    direction
                }
                (Optimiser::Adam(_), None) => continue,
            };
            let step = tape.scale_by(direction, lr)?;
            let moved = tape.sub(*w, step)?;
            tape.update(*w, moved)?;
            next.push(moved);
        }
        Ok(params.with(next))
    }
}

impl Adam {
    fn direction(
        &self,
        tape: &mut Tape,
        clock: AdamClock,
        w: Var,
        g: Var,
        prefix: &str,
        name: &str,
    ) -> Result<Var> {
        let shape = tape.shape(w).clone();
        let m = tape.state(&format!("{prefix}.{name}"), Kind::Float, shape.clone())?;
        let v = tape.state(&format!("{prefix}2.{name}"), Kind::Float, shape)?;
        let decay = tape.scale(w, self.weight_decay)?;
        let g = tape.add(g, decay)?;
        let average = |tape: &mut Tape, slot: Var, beta: f64, x: Var| -> Result<Var> {
            let old = tape.scale(slot, beta)?;
            let new = tape.scale(x, 1.0 - beta)?;
            let next = tape.add(old, new)?;
            tape.update(slot, next)?;
            Ok(next)
        };
        let m = average(tape, m, self.beta1, g)?;
        let square = tape.mul(g, g)?;
        let v = average(tape, v, self.beta2, square)?;
        let m = tape.scale_by(m, clock.correction1)?;
        let v = tape.scale_by(v, clock.correction2)?;
        let root = tape.unary(Unary::Sqrt, v)?;
        let root = tape.offset(root, self.eps)?;
        let inverse = tape.unary(Unary::Recip, root)?;
        tape.mul(m, inverse)
    }
}
