//! What takes no meta set: a training step without weights, and a test.

use super::step::{Batch, Pass, real_step};
use crate::bilevel::Optimiser;
use crate::error::Result;
use crate::nn::{Forward, Model, Normalisation, Params};
use crate::tape::{Kind, Tape};

/// A plain training step with the same weight for every sample: the baseline.
pub struct PlainStep<'a> {
    /// The classifier.
    pub net: &'a dyn Model,
    /// Its rule.
    pub optimiser: Optimiser,
    /// Where batches come from.
    pub data: &'a Batch,
    /// Batch size.
    pub batch: usize,
}

impl PlainStep<'_> {
    /// Records the step. Inputs `x`/`picks`, `y`, `lr`; outputs `loss` `[n]`, `correct` `[n]`.
    ///
    /// # Errors
    /// As [`super::MetaStep::record`].
    pub fn record(&self, tape: &mut Tape) -> Result<()> {
        let lr = tape.input("lr", Kind::Float, [])?;
        let mut w = Params::classifier();
        let Pass { losses, correct, .. } =
            Pass::record(tape, self.net, self.data, self.batch, &mut w, Some("stats"), "")?;
        let coefficients = tape.constant(1.0 / self.batch as f64, [self.batch]);
        real_step(tape, &w, &[(losses, coefficients)], &self.optimiser, lr, "momentum")?;
        tape.output("loss", losses)?;
        tape.output("correct", correct)?;
        Ok(())
    }
}

/// Losses and hits of images at the present parameters, with running statistics: nothing is
/// updated.
pub struct Evaluation<'a> {
    /// The classifier.
    pub net: &'a dyn Model,
    /// Where batches come from.
    pub data: &'a Batch,
    /// Batch size.
    pub batch: usize,
}

impl Evaluation<'_> {
    /// Records the pass. Inputs `x`/`picks`, `y`; outputs `loss` `[n]`, `correct` `[n]`, `logits`
    /// `[n, classes]`.
    ///
    /// # Errors
    /// As [`super::MetaStep::record`].
    pub fn record(&self, tape: &mut Tape) -> Result<()> {
        let mut w = Params::classifier();
        let x = self.data.samples(tape, self.batch, "")?;
        let y = tape.input("y", Kind::Int, [self.batch])?;
        let mut forward = Forward::new(tape, &mut w, Normalisation::Running);
        let logits = self.net.logits(&mut forward, x)?;
        let losses = tape.cross_entropy(logits, y)?;
        let correct = tape.correct(logits, y)?;
        tape.output("loss", losses)?;
        tape.output("correct", correct)?;
        tape.output("logits", logits)?;
        Ok(())
    }
}
