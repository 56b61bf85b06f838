use super::{Scheme, Seen};
use crate::error::Result;
use crate::meta::config::{Optimiser, Weights};
use crate::meta::normalise::inverse_sum;
use crate::meta::step::{Batch, Pass, real_step};
use crate::nn::{Network, Params};
use crate::tape::{Kind, Tape, Var};

/// A training step whose samples are weighted by a scheme.
pub struct WeightedStep<'a> {
    /// The classifier.
    pub net: &'a Network,
    /// Its rule.
    pub optimiser: Optimiser,
    /// Where batches come from.
    pub data: &'a Batch,
    /// Batch size.
    pub batch: usize,
    /// From losses to weights.
    pub scheme: &'a dyn Scheme,
}

impl WeightedStep<'_> {
    /// Records the step. Inputs `x`/`picks`, `y`, `lr` and the scheme's; outputs `loss` `[n]`, `correct` `[n]`, `weight` `[n]`.
    ///
    /// # Errors
    /// As [`crate::meta::MetaStep::record`].
    pub fn record(&self, tape: &mut Tape) -> Result<()> {
        let lr = tape.input("lr", Kind::Float, [])?;
        let w = Params::states(tape, "w", &self.net.params())?;
        tape.section("losses");
        let Pass { y, losses, correct, .. } =
            Pass::record(tape, self.net, self.data, self.batch, &w, Some("stats"))?;
        tape.section("weights");
        let detached = tape.detach(losses)?;
        let weights = self.scheme.weights(tape, &Seen { losses: detached, labels: y })?;
        let coefficients = coefficients(tape, weights, self.scheme.over())?;
        tape.section("step");
        real_step(tape, &w, &[(losses, coefficients)], &self.optimiser, lr, "momentum")?;
        tape.output("loss", losses);
        tape.output("correct", correct);
        tape.output("weight", weights);
        Ok(())
    }
}

/// What each sample's gradient is multiplied by: `v/n`, or `v/Σv` (0 where all weights are 0).
pub(super) fn coefficients(tape: &mut Tape, weights: Var, over: Weights) -> Result<Var> {
    match over {
        Weights::Mean => tape.scale(weights, 1.0 / tape.shape(weights).count().max(1) as f64),
        Weights::Normalised => {
            let inverse = inverse_sum(tape, weights)?;
            tape.scale_by(weights, inverse)
        }
    }
}
