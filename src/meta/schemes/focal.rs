use super::{Scheme, Seen, probability};
use crate::error::Result;
use crate::tape::{Tape, Unary, Var};

/// Focal weights `(1−p)^γ`, γ = 2 (Lin et al. 2017, "Focal loss for dense object detection"): what
/// is learned already counts little.
///
/// As a reweighting, the factor is a constant for the gradient; the focal loss itself is
/// differentiated through it, too.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Focal {
    /// γ.
    pub gamma: f64,
}

impl Default for Focal {
    fn default() -> Focal {
        Focal { gamma: 2.0 }
    }
}

impl Scheme for Focal {
    fn curve(&self, tape: &mut Tape, seen: &Seen) -> Result<Option<Var>> {
        let losses = seen.losses;
        let p = probability(tape, losses)?;
        let minus = tape.scale(p, -1.0)?;
        let rest = tape.offset(minus, 1.0)?;
        // Rounding can make a loss of 0 a little negative; ln 0 = −∞ becomes the weight 0.
        let rest = tape.relu(rest)?;
        let log = tape.unary(Unary::Log, rest)?;
        let power = tape.scale(log, self.gamma)?;
        tape.unary(Unary::Exp, power).map(Some)
    }
}
