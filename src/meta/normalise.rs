//! The factor that makes weights sum to 1.

use crate::error::Result;
use crate::tape::{Tape, Unary, Var};

/// Sums below this are nothing: in f32 their inverse would leave the range of numbers.
const NOTHING: f64 = 1e-30;

/// `1/Σv`; 1 where the sum is nothing, so that weights which are all 0 stay 0, as the official code
/// has it ("if Σ ≠ 0"). The choice itself has no derivative.
pub(super) fn inverse_sum(tape: &mut Tape, weights: Var) -> Result<Var> {
    let total = tape.sum_all(weights)?;
    let one = tape.constant(1.0, tape.shape(total).clone());
    let above = tape.offset(total, -NOTHING)?;
    let something = tape.mask(one, above)?;
    let nothing = tape.sub(one, something)?;
    let divisor = tape.add(total, nothing)?;
    tape.unary(Unary::Recip, divisor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;
    use crate::program::{Options, Session, Values};
    use crate::tape::Kind;

    #[test]
    fn weights_that_are_all_nothing_stay_so_and_have_a_gradient() {
        let mut tape = Tape::new();
        let v = tape.input("v", Kind::Float, [3]).unwrap();
        let inverse = inverse_sum(&mut tape, v).unwrap();
        let first = tape.row(v, 0).unwrap();
        let share = tape.mul(first, inverse).unwrap();
        let gradient = tape.gradient(share, &[v]).unwrap()[0];
        tape.output("share", share).unwrap();
        tape.output("gradient", gradient).unwrap();
        let mut session = Session::new(Box::new(Cpu::<f32>::new(1).unwrap()));
        let program = session.compile(&tape, Options::default()).unwrap();
        for (v, share, gradient) in [
            ([1.0, 2.0, 1.0], 0.25, [0.1875, -0.0625, -0.0625]),
            ([0.0; 3], 0.0, [1.0, 0.0, 0.0]),
            ([1e-40, 1e-39, 0.0], 1e-40, [1.0, 0.0, 0.0]),
        ] {
            session.feed(&program, "v", Values::Float(&v)).unwrap();
            session.run(&program).unwrap();
            let got = session.fetch(&program, "gradient").unwrap();
            assert!((session.fetch(&program, "share").unwrap()[0] - share).abs() < 1e-7, "{v:?}");
            assert!(got.iter().zip(gradient).all(|(g, w)| (g - w).abs() < 1e-6), "{v:?}: {got:?}");
        }
    }
}
