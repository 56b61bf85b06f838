//! Inner steps on the tape, and forward mode through them.

use super::{Inner, Problem, Unrolling, inner_gradient};
use crate::error::Result;
use crate::tape::{Op, Tape, Var};

/// An inner run as recorded.
pub(super) struct Run {
    pub w: Vec<Var>,
    /// `f` before each step.
    pub losses: Vec<Var>,
}

/// Records the inner steps from `w`.
pub(super) fn run(
    tape: &mut Tape,
    problem: &dyn Problem,
    w: &[Var],
    outer: &[Var],
    inner: Inner,
) -> Result<Run> {
    let mut unrolling = Unrolling::new(*inner.rule, w);
    let mut losses = Vec::with_capacity(inner.steps);
    for step in 0..inner.steps {
        tape.section(&format!("inner step {}", step + 1));
        let loss = problem.inner(tape, &unrolling.w, outer, step)?;
        // Once is enough, and a long run's tape is not gone through for each step.
        let start = if step == 1 { w } else { &[] };
        let gradient = inner_gradient(tape, loss, &unrolling.w, start)?;
        unrolling.step(tape, &gradient, inner.lr)?;
        losses.push(loss);
    }
    Ok(Run { w: unrolling.w, losses })
}

/// `dF/dλ` in forward mode: one walk along each number of the outer variables.
pub(super) fn forward(tape: &mut Tape, value: Var, outer: &[Var]) -> Result<Vec<Var>> {
    let along = |variable: &Var| {
        let shape = tape.shape(*variable).clone();
        let mut slopes = Vec::with_capacity(shape.count());
        for i in 0..shape.count() {
            let one = tape.constant(1.0, []);
            let tangent = tape.push(Op::Unrow(i), &[one], Some(&[shape.count()].into()))?;
            let tangent = tape.reshape(tangent, shape.clone())?;
            let slope = tape.jvp(&[(*variable, tangent)], &[value])?[0];
            let slope = tape.or_zero(slope, value)?;
            slopes.push(tape.reshape(slope, [])?);
        }
        tape.stack(&slopes).and_then(|stacked| tape.reshape(stacked, shape))
    };
    outer.iter().map(along).collect()
}
