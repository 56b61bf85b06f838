use super::Scheme;
use crate::error::Result;
use crate::tape::{Tape, Unary, Var};

/// Iterative reweighting (De la Torre & Black 2003): ψ(r)/r of Geman and McClure's robust function, with the loss as
/// residual, `(σ²/(ℓ²+σ²))²`, scaled to 1 at loss 0; σ = 1 nat. Each step is one round of iteratively reweighted least squares:
/// the weights of the present losses are constants for the gradient.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GemanMcClure {
    /// σ, in nats: a sample of that loss has weight 1/4.
    pub sigma: f64,
}

impl Default for GemanMcClure {
    fn default() -> GemanMcClure {
        GemanMcClure { sigma: 1.0 }
    }
}

impl Scheme for GemanMcClure {
    fn curve(&self, tape: &mut Tape, losses: Var) -> Result<Option<Var>> {
        let square = tape.mul(losses, losses)?;
        let relative = tape.scale(square, 1.0 / (self.sigma * self.sigma))?;
        let shifted = tape.offset(relative, 1.0)?;
        let inverse = tape.unary(Unary::Recip, shifted)?;
        tape.mul(inverse, inverse).map(Some)
    }
}
