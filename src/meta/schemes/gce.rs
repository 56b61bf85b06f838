use super::{Scheme, Seen, probability};
use crate::error::Result;
use crate::tape::{Tape, Var};

/// Weights `p^q`, q = 0.7: those by which the gradient of the generalised cross-entropy
/// `(1 − p^q)/q` differs from cross-entropy's (Zhang & Sabuncu 2018). q → 0 is cross-entropy, q = 1
/// the mean absolute error.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Gce {
    /// q, in (0, 1].
    pub q: f64,
}

impl Default for Gce {
    fn default() -> Gce {
        Gce { q: 0.7 }
    }
}

impl Scheme for Gce {
    fn curve(&self, tape: &mut Tape, seen: &Seen) -> Result<Option<Var>> {
        let losses = seen.losses;
        // p^q = e^{−qℓ}
        let scaled = tape.scale(losses, self.q)?;
        probability(tape, scaled).map(Some)
    }
}
