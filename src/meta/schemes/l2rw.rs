use super::weighted::coefficients;
use super::{Scheme, TrainStep};
use crate::error::Result;
use crate::meta::config::Weights;
use crate::meta::step::{Pass, meta_losses, real_step};
use crate::nn::Params;
use crate::tape::{Kind, Tape};

/// Learning to reweight (Ren et al. 2018): no weight net, the samples' weights ε themselves are
/// what the meta gradient moves, anew in every step from 0.
///
/// With the virtual step `ŵ(ε) = w − α Σ_i ε_i ∇ℓ_i(w)`, at ε = 0, where ŵ = w:
///
/// `−∂L_meta(ŵ(ε))/∂ε_i = α ⟨∇L_meta(w), ∇ℓ_i(w)⟩ = α u_i`, `u = J_ℓ(w) ∇L_meta(w)`,
///
/// one jvp of the per-sample losses, as in the meta step. The weights are
/// `max(u_i, 0) / Σ_j max(u_j, 0)`, all 0 where no `u_j` is positive; α drops out. With F one
/// forward pass this is F (losses) + 3F (meta loss and gradient at w) + 2F (jvp) + 2F (real
/// gradient) = 8F. Samples are coupled by train-mode batch norm as in the meta step, and
/// differentiated exactly.
///
/// The step's outputs are `loss` `[n]`, `correct` `[n]`, `weight` `[n]` (n times the normalised
/// weight, so that 1 is a sample's fair share), `meta_loss` (at w), `u` `[n]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct L2rw;

impl Scheme for L2rw {
    // No curve, nor weights of the losses alone: they come from gradients.
    fn record(&self, tape: &mut Tape, step: &TrainStep) -> Result<()> {
        let TrainStep { net, optimiser, data, batch: [n, m], .. } = *step;
        let lr = tape.input("lr", Kind::Float, [])?;
        let mut w = Params::classifier();
        tape.section("losses at w");
        let Pass { losses, correct, .. } = Pass::record(tape, net, data, n, &mut w, Some("stats"), "")?;
        tape.section("meta loss and its gradient at w");
        let meta_losses = meta_losses(tape, net, data, m, &mut w)?;
        let meta_loss = tape.mean_all(meta_losses)?;
        let gradient = tape.gradient(meta_loss, &w.vars())?;
        tape.section("weights");
        let seeds: Vec<_> = w.vars().into_iter().zip(gradient).collect();
        let u = tape.jvp(&seeds, &[losses])?[0];
        let u = tape.or_zero(u, losses)?;
        let rectified = tape.relu(u)?;
        let rectified = tape.detach(rectified)?;
        let coefficients = coefficients(tape, rectified, Weights::Normalised)?;
        tape.section("real step");
        real_step(tape, &w, &[(losses, coefficients)], &optimiser, lr, "momentum")?;
        let weights = tape.scale(coefficients, n as f64)?;
        tape.output("loss", losses)?;
        tape.output("correct", correct)?;
        tape.output("weight", weights)?;
        tape.output("meta_loss", meta_loss)?;
        tape.output("u", u)?;
        Ok(())
    }
}
