use super::{Scheme, Seen};
use crate::bilevel::Optimiser;
use crate::error::{Error, Result};
use crate::meta::config::Weights;
use crate::meta::normalise::inverse_sum;
use crate::meta::plain::PlainStep;
use crate::meta::step::{Batch, Pass, real_step};
use crate::nn::{Model, Params};
use crate::tape::{Kind, Tape, Var};

/// A training step but for its weights: what schemes record theirs for.
pub struct TrainStep<'a> {
    /// The classifier.
    pub net: &'a dyn Model,
    /// Its rule.
    pub optimiser: Optimiser,
    /// Where batches come from.
    pub data: &'a Batch,
    /// Training and meta batch sizes.
    pub batch: [usize; 2],
    /// Which of the method's networks is trained, from 0 ([`super::Stages`]).
    pub stage: usize,
}

impl TrainStep<'_> {
    /// Records the step on a batch with a scheme's weights. Inputs `x`/`picks`, `y`, `lr` and the
    /// scheme's; outputs `loss` `[n]`, `correct` `[n]`, `weight` `[n]`.
    ///
    /// # Errors
    /// As [`crate::meta::MetaStep::record`].
    pub fn weighted<S: Scheme + ?Sized>(&self, tape: &mut Tape, scheme: &S) -> Result<()> {
        let lr = tape.input("lr", Kind::Float, [])?;
        let mut w = Params::classifier();
        tape.section("losses");
        let Pass { y, losses, correct, .. } =
            Pass::record(tape, self.net, self.data, self.batch[0], &mut w, Some("stats"), "")?;
        tape.section("weights");
        let detached = tape.detach(losses)?;
        let weights = scheme.weights(tape, &Seen { losses: detached, labels: y })?;
        let (got, want) = (tape.shape_of("weights", weights)?, tape.shape(losses));
        if got != *want {
            let detail = format!("weights must be {want}, one for each loss, got {got}");
            return Err(Error::shape(format!("{scheme:?}"), detail));
        }
        let coefficients = coefficients(tape, weights, scheme.over())?;
        tape.section("step");
        real_step(tape, &w, &[(losses, coefficients)], &self.optimiser, lr, "momentum")?;
        tape.output("loss", losses)?;
        tape.output("correct", correct)?;
        tape.output("weight", weights)?;
        Ok(())
    }

    /// Records the step on a batch whose samples have no weights. Inputs `x`/`picks`, `y`, `lr`;
    /// outputs `loss` `[n]`, `correct` `[n]`.
    ///
    /// # Errors
    /// As [`crate::meta::MetaStep::record`].
    pub fn plain(&self, tape: &mut Tape) -> Result<()> {
        let TrainStep { net, optimiser, data, batch: [batch, _], .. } = *self;
        PlainStep { net, optimiser, data, batch }.record(tape)
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
