//! The three steps in other orders, and parts of them: what the question "why three steps?" is
//! answered with.

use super::optimiser::update;
use super::route;
use super::step::MetaStep;
use crate::bilevel::Optimiser;
use crate::error::Result;
use crate::tape::{Kind, Tape};

/// Which of the steps a program takes, and in which order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Virtual step, θ's step, real step with the new θ from the same w: [`MetaStep::record`].
    Published,
    /// w is updated for real with `V(ℓ(w); θ)`; then θ takes its step at that w⁺, and w is not
    /// updated again. The hypergradient is exact for this order: w⁺ depends on θ through its own
    /// (momentum) step, so `u = J_ℓ(w) ∇L_meta(w⁺)` and α is multiplied by the rule's gain. It
    /// saves the real step's gradient; the price is that w is always one θ behind.
    TwoSteps,
    /// The real step alone, with `V(ℓ(w); θ)` at the θ that there is.
    FixedTheta,
    /// The published step's hypergradient alone: nothing is updated, running statistics neither.
    Gradient,
}

impl MetaStep<'_> {
    /// Records the step in this order. Inputs are those of [`MetaStep::record`] that it needs.
    /// Outputs: `loss`, `weight`, `correct`; with a hypergradient `meta_loss`, `hypergrad.*` and,
    /// where the route has it, `u`.
    ///
    /// # Errors
    /// As [`MetaStep::record`].
    pub fn record_in(&self, tape: &mut Tape, order: Order) -> Result<()> {
        if order == Order::Published {
            return self.record(tape, true);
        }
        self.config.check()?;
        let mut start = self.start(tape, order != Order::Gradient)?;
        tape.output("loss", start.losses)?;
        tape.output("correct", start.correct)?;
        let virtual_step = order == Order::Gradient;
        tape.section(if virtual_step { "virtual step" } else { "real step" });
        // A real step takes the weights for numbers; only a virtual one may differentiate the loss
        // that V reads.
        let weighed = self.weigh(tape, &mut start, virtual_step && self.config.undetached)?;
        tape.output("weight", weighed.weights)?;
        let (w, reach) = if virtual_step {
            let gradient = start.gradient(tape, weighed.coefficients)?;
            let (mut w, reach) = self.virtual_step(tape, &start.w, &gradient, start.lr)?;
            for step in 2..=self.config.unroll {
                w = self.further(tape, &mut start, w, step)?;
            }
            (w, reach)
        } else {
            let rule = self.config.classifier;
            let gradient = start.gradient(tape, weighed.coefficients)?;
            let w = update(tape, &Optimiser::Sgd(rule), &start.w, &gradient, start.lr, "momentum")?;
            (w, tape.scale(start.lr, -rule.gain())?)
        };
        if order == Order::FixedTheta {
            return Ok(());
        }
        let recorded = self.meta_gradient(tape, &start, &weighed, w, reach)?;
        tape.output("meta_loss", recorded.meta_loss)?;
        let (hypergrad, u) = route::hypergradient(tape, self.net, self.config, &recorded, false)?;
        if let Some(u) = u {
            tape.output("u", u)?;
        }
        start.theta.with(hypergrad.clone()).output(tape, "hypergrad")?;
        if order == Order::TwoSteps {
            tape.section("weight-net step");
            let lr_theta = tape.input("lr.theta", Kind::Float, [])?;
            update(tape, &self.config.weight_net, &start.theta, &hypergrad, lr_theta, "theta.moment")?;
        }
        Ok(())
    }
}
