use super::{Scheme, Seen};
use crate::error::Result;
use crate::tape::{Tape, Unary, Var};

/// Iterative reweighting (De la Torre & Black 2003): ψ(r)/r of Geman and McClure's robust function,
/// with the loss as residual, `(σ²/(ℓ²+σ²))²`, scaled to 1 at loss 0. Each step is one round of
/// iteratively reweighted least squares: the weights of the present losses are constants for the
/// gradient.
///
/// σ = ln K, the loss of an untrained network of K classes: with a smaller one nearly every sample
/// is an outlier at the start, and the few that are not draw the network to their classes (with σ =
/// 1 nat, it learns three of ten and stays there).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GemanMcClure {
    /// σ, in nats: a sample of that loss has weight 1/4.
    pub sigma: f64,
}

impl GemanMcClure {
    /// The default for K classes.
    pub fn new(classes: usize) -> GemanMcClure {
        GemanMcClure { sigma: (classes.max(2) as f64).ln() }
    }
}

impl Scheme for GemanMcClure {
    fn curve(&self, tape: &mut Tape, seen: &Seen) -> Result<Option<Var>> {
        let losses = seen.losses;
        let square = tape.mul(losses, losses)?;
        let relative = tape.scale(square, 1.0 / (self.sigma * self.sigma))?;
        let shifted = tape.offset(relative, 1.0)?;
        let inverse = tape.unary(Unary::Recip, shifted)?;
        tape.mul(inverse, inverse).map(Some)
    }
}
