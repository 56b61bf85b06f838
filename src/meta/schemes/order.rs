//! The order of a batch, without sorting: a matrix of comparisons, made of operations that every
//! machine has.

use super::positive;
use crate::error::Result;
use crate::tape::{Kind, Tape, Var};

/// Input of the samples' places in the batch, by which ties are broken.
const INDEX: &str = "scheme.index";

/// How many of `values` `[n]` are larger than each of them; of equal ones the first in the batch
/// counts as the largest, so the ranks are 0, 1, …, n−1, each once. n² comparisons, little beside a
/// network's work for n samples. Input: [`INDEX`].
pub(super) fn ranks(tape: &mut Tape, values: Var) -> Result<Var> {
    let n = tape.shape(values).count();
    let index = tape.input(INDEX, Kind::Float, [n])?;
    // [i, j]: v_j − v_i, and the same of the places.
    let difference = |tape: &mut Tape, v: Var| -> Result<Var> {
        let square = [n, n].into();
        let (of_column, of_row) = (tape.broadcast(v, 0, 1, &square)?, tape.broadcast(v, 1, 2, &square)?);
        tape.sub(of_column, of_row)
    };
    let above = difference(tape, values)?;
    let below = tape.scale(above, -1.0)?;
    let (above, below) = (positive(tape, above)?, positive(tape, below)?);
    let unequal = tape.add(above, below)?;
    let equal = tape.scale(unequal, -1.0)?;
    let equal = tape.offset(equal, 1.0)?;
    let later = difference(tape, index)?;
    let earlier = tape.scale(later, -1.0)?;
    let tied = tape.mask(equal, earlier)?;
    let before = tape.add(above, tied)?;
    tape.sum(before, 1, 2)
}

/// The value of [`INDEX`].
pub(super) fn index(n: usize) -> (&'static str, Vec<f64>) {
    (INDEX, (0..n).map(|i| i as f64).collect())
}
