use super::weighted::coefficients;
use crate::error::Result;
use crate::meta::config::{Optimiser, Weights};
use crate::meta::step::{Batch, Pass, meta_losses, real_step};
use crate::nn::{Network, Params};
use crate::tape::{Kind, Tape};

/// Learning to reweight (Ren et al. 2018): no weight net, the samples' weights ε themselves are what the meta gradient moves, anew
/// in every step from 0.
///
/// With the virtual step `ŵ(ε) = w − α Σ_i ε_i ∇ℓ_i(w)`, at ε = 0, where ŵ = w:
///
/// `−∂L_meta(ŵ(ε))/∂ε_i = α ⟨∇L_meta(w), ∇ℓ_i(w)⟩ = α u_i`, `u = J_ℓ(w) ∇L_meta(w)`,
///
/// one jvp of the per-sample losses, as in the meta step. The weights are `max(u_i, 0) / Σ_j max(u_j, 0)`, all 0 where no `u_j`
/// is positive; α drops out. With F one forward pass this is F (losses) + 3F (meta loss and gradient at w) + 2F (jvp) + 2F (real
/// gradient) = 8F. Samples are coupled by train-mode batch norm as in the meta step, and differentiated exactly.
pub struct L2rwStep<'a> {
    /// The classifier.
    pub net: &'a Network,
    /// Its rule.
    pub optimiser: Optimiser,
    /// Where batches come from.
    pub data: &'a Batch,
    /// Training and meta batch sizes.
    pub batch: [usize; 2],
}

impl L2rwStep<'_> {
    /// Records the step. Inputs `x`/`picks`, `y`, `x_meta`/`picks_meta`, `y_meta`, `lr`; outputs `loss` `[n]`, `correct` `[n]`,
    /// `weight` `[n]` (n times the normalised weight, so that 1 is a sample's fair share), `meta_loss` (at w), `u` `[n]`.
    ///
    /// # Errors
    /// As [`crate::meta::MetaStep::record`].
    pub fn record(&self, tape: &mut Tape) -> Result<()> {
        let [n, m] = self.batch;
        let lr = tape.input("lr", Kind::Float, [])?;
        let w = Params::states(tape, "w", &self.net.params())?;
        tape.section("losses at w");
        let Pass { losses, correct, .. } = Pass::record(tape, self.net, self.data, n, &w, Some("stats"))?;
        tape.section("meta loss and its gradient at w");
        let meta_losses = meta_losses(tape, self.net, self.data, m, &w)?;
        let meta_loss = tape.mean_all(meta_losses)?;
        let gradient = tape.gradient(meta_loss, &w.vars())?;
        tape.section("weights");
        let seeds: Vec<_> = w.vars().into_iter().zip(gradient).collect();
        let u = tape.jvp(&seeds, &[losses])?[0];
        let u = tape.or_zero(u, losses);
        let rectified = tape.relu(u)?;
        let rectified = tape.detach(rectified)?;
        let coefficients = coefficients(tape, rectified, Weights::Normalised)?;
        tape.section("real step");
        real_step(tape, &w, &[(losses, coefficients)], &self.optimiser, lr, "momentum")?;
        let weights = tape.scale(coefficients, n as f64)?;
        tape.output("loss", losses);
        tape.output("correct", correct);
        tape.output("weight", weights);
        tape.output("meta_loss", meta_loss);
        tape.output("u", u);
        Ok(())
    }
}
