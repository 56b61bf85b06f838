//! Rules that turn gradients into steps, as operations on a tape: plain functions of gradient and
//! moments, which a training step keeps in states and an unrolled run on the tape.

use super::{inner_product, pairs};
use crate::error::{Error, Result};
use crate::tape::{Kind, Tape, Unary, Var};

/// `buffer ← momentum·buffer + (gradient + weight_decay·w)`, `w ← w − lr·buffer` (with Nesterov:
/// `w ← w − lr·(gradient + weight_decay·w + momentum·buffer)`), as PyTorch's SGD.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sgd {
    /// 0: none.
    pub momentum: f64,
    /// Nesterov's form.
    pub nesterov: bool,
    /// L2 coefficient, added to the gradient.
    pub weight_decay: f64,
    /// The largest norm that the gradient of all parameters together has before all else, as by
    /// PyTorch's `clip_grad_norm_`. It needs that whole gradient: [`Optimiser::clipped`].
    pub clip: Option<f64>,
}

/// Adam (Kingma & Ba 2015) with L2 in the gradient, as PyTorch's.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Adam {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// L2 coefficient, added to the gradient.
    pub weight_decay: f64,
}

/// A rule that turns gradients into steps.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Optimiser {
    /// See [`Sgd`].
    Sgd(Sgd),
    /// See [`Adam`].
    Adam(Adam),
}

impl Sgd {
    /// Without momentum and weight decay.
    pub const PLAIN: Sgd = Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0, clip: None };

    /// The direction `d` of the step `w ← w − lr·d` and the next momentum buffer, from the gradient
    /// `g` and the buffer, if there is one.
    ///
    /// # Errors
    /// The tape's own.
    pub fn direction(&self, tape: &mut Tape, w: Var, g: Var, buffer: Option<Var>) -> Result<(Var, Var)> {
        let g = decayed(tape, w, g, self.weight_decay)?;
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
    pub fn gain(&self) -> f64 {
        if self.nesterov { 1.0 + self.momentum } else { 1.0 }
    }
}

impl Adam {
    /// The direction `d` of the step `w ← w − lr·d` and the next moments, from the gradient `g`,
    /// both moments, and the bias corrections `1/(1−β₁ᵗ)` and `1/(1−β₂ᵗ)` of this step. `floor` is
    /// added under the root: 0, or a little where the step is differentiated, since a root has no
    /// slope at 0.
    ///
    /// # Errors
    /// The tape's own.
    pub fn direction(
        &self,
        tape: &mut Tape,
        w: Var,
        g: Var,
        moments: [Var; 2],
        corrections: [Var; 2],
        floor: f64,
    ) -> Result<(Var, [Var; 2])> {
        let g = decayed(tape, w, g, self.weight_decay)?;
        let average = |tape: &mut Tape, old: Var, beta: f64, x: Var| -> Result<Var> {
            let old = tape.scale(old, beta)?;
            let new = tape.scale(x, 1.0 - beta)?;
            tape.add(old, new)
        };
        let first = average(tape, moments[0], self.beta1, g)?;
        let square = tape.mul(g, g)?;
        let second = average(tape, moments[1], self.beta2, square)?;
        let mean = tape.scale_by(first, corrections[0])?;
        let power = tape.scale_by(second, corrections[1])?;
        let power = if floor == 0.0 { power } else { tape.offset(power, floor)? };
        let root = tape.unary(Unary::Sqrt, power)?;
        let root = tape.offset(root, self.eps)?;
        let inverse = tape.unary(Unary::Recip, root)?;
        Ok((tape.mul(mean, inverse)?, [first, second]))
    }
}

impl Optimiser {
    /// The gradient of all parameters as the rule takes it: times `min(1, clip/‖g‖)`, the norm
    /// being that of all its parts together; as it is where the rule has no [`Sgd::clip`]. `floor`
    /// is added under the norm's root, as in [`Adam::direction`].
    ///
    /// # Errors
    /// If the rule's clip is not above 0; the tape's own.
    pub fn clipped(&self, tape: &mut Tape, gradient: &[Var], floor: f64) -> Result<Vec<Var>> {
        let Optimiser::Sgd(Sgd { clip: Some(clip), .. }) = self else { return Ok(gradient.to_vec()) };
        if clip.is_nan() || *clip <= 0.0 {
            let detail = format!("a gradient's largest norm must be above 0, got {clip}");
            return Err(Error::Value { op: "clip".into(), detail });
        }
        let power = inner_product(tape, gradient, gradient)?;
        let power = if floor == 0.0 { power } else { tape.offset(power, floor)? };
        let norm = tape.unary(Unary::Sqrt, power)?;
        // 1/(1 + max(0, ‖g‖/clip − 1)): exactly 1 below the bound, and no difference of two large
        // numbers far above it.
        let ratio = tape.scale(norm, 1.0 / clip)?;
        let over = tape.offset(ratio, -1.0)?;
        let over = tape.relu(over)?;
        let times = tape.offset(over, 1.0)?;
        let factor = tape.unary(Unary::Recip, times)?;
        gradient.iter().map(|g| tape.scale_by(*g, factor)).collect()
    }

    /// Records the step of a parameter that is a state: `w ← w − lr·d` at the end of a run, and its
    /// next moments. Gives the next `w`. The gradient is [`Optimiser::clipped`] already.
    ///
    /// Moments are the states `<moments>.<name>` and `<moments>2.<name>`, Adam's clock the states
    /// `<moments>.clock1` and `.clock2`, shared by all parameters with these moments.
    ///
    /// # Errors
    /// If `w` is not a state, or another parameter has this name with these moments; the tape's
    /// own.
    pub fn update(&self, tape: &mut Tape, moments: &str, name: &str, w: Var, g: Var, lr: Var) -> Result<Var> {
        let shape = tape.shape_of("update", w)?;
        let slot = |tape: &mut Tape, order: &str| {
            tape.state(&format!("{moments}{order}.{name}"), Kind::Float, shape.clone())
        };
        let direction = match self {
            Optimiser::Sgd(sgd) if sgd.momentum == 0.0 => sgd.direction(tape, w, g, None)?.0,
            Optimiser::Sgd(sgd) => {
                let buffer = slot(tape, "")?;
                let (direction, next) = sgd.direction(tape, w, g, Some(buffer))?;
                tape.update(buffer, next)?;
                direction
            }
            Optimiser::Adam(adam) => {
                let slots = [slot(tape, "")?, slot(tape, "2")?];
                let corrections =
                    [clock(tape, moments, 1, adam.beta1)?, clock(tape, moments, 2, adam.beta2)?];
                let (direction, next) = adam.direction(tape, w, g, slots, corrections, 0.0)?;
                for (slot, next) in slots.into_iter().zip(next) {
                    tape.update(slot, next)?;
                }
                direction
            }
        };
        let step = tape.scale_by(direction, lr)?;
        let next = tape.sub(w, step)?;
        tape.update(w, next)?;
        Ok(next)
    }
}

/// Adam's bias correction `1/(1 − βᵗ)` at this run's step t, from the state
/// `<moments>.clock<order>`, which holds `1 − βᵗ⁻¹`: `u ← βu + (1 − β)` is the sum of the weights
/// of the moment's own average, so nothing cancels.
fn clock(tape: &mut Tape, moments: &str, order: usize, beta: f64) -> Result<Var> {
    let clock = tape.state(&format!("{moments}.clock{order}"), Kind::Float, [])?;
    let kept = tape.scale(clock, beta)?;
    let next = tape.offset(kept, 1.0 - beta)?;
    tape.update(clock, next)?;
    tape.unary(Unary::Recip, next)
}

/// `g + decay·w`.
fn decayed(tape: &mut Tape, w: Var, g: Var, decay: f64) -> Result<Var> {
    if decay == 0.0 {
        return Ok(g);
    }
    let decay = tape.scale(w, decay)?;
    tape.add(g, decay)
}

/// Under Adam's root, and that of a norm, where a step is differentiated: far below `eps²`, and its
/// inverse root is a number in f32.
const FLOOR: f64 = 1e-30;

/// Steps of a rule on the tape, each from the one before: what an unrolled run is made of. Moments
/// begin as zeros.
#[derive(Clone, Debug)]
pub struct Unrolling {
    /// The parameters after the steps so far.
    pub w: Vec<Var>,
    rule: Optimiser,
    /// Momentum buffers, or Adam's two moments, of each parameter; empty before the first step.
    moments: Vec<[Var; 2]>,
    steps: i32,
}

impl Unrolling {
    /// Before the first step from `w`.
    pub fn new(rule: Optimiser, w: &[Var]) -> Unrolling {
        Unrolling { w: w.to_vec(), rule, moments: Vec::new(), steps: 0 }
    }

    /// Records a step along a gradient, with the learning rate `lr`, one number.
    ///
    /// # Errors
    /// If there is not one gradient for each parameter; the tape's own.
    pub fn step(&mut self, tape: &mut Tape, gradient: &[Var], lr: Var) -> Result<()> {
        if self.steps == 0 {
            let zeros = |w: &Var| tape.or_zero(None, *w).map(|zero| [zero; 2]);
            self.moments = self.w.iter().map(zeros).collect::<Result<_>>()?;
        }
        self.steps += 1;
        pairs(&self.w, gradient)?;
        let gradient = self.rule.clipped(tape, gradient, FLOOR)?;
        for ((w, g), moments) in self.w.iter_mut().zip(&gradient).zip(&mut self.moments) {
            let direction = match self.rule {
                Optimiser::Sgd(sgd) => {
                    let buffer = (sgd.momentum != 0.0).then_some(moments[0]);
                    let (direction, next) = sgd.direction(tape, *w, *g, buffer)?;
                    moments[0] = next;
                    direction
                }
                Optimiser::Adam(adam) => {
                    let correction = |beta: f64| 1.0 / (1.0 - beta.powi(self.steps));
                    let corrections =
                        [correction(adam.beta1), correction(adam.beta2)].map(|c| tape.constant(c, []));
                    let (direction, next) = adam.direction(tape, *w, *g, *moments, corrections, FLOOR)?;
                    *moments = next;
                    direction
                }
            };
            let step = tape.scale_by(direction, lr)?;
            *w = tape.sub(*w, step)?;
        }
        Ok(())
    }
}
