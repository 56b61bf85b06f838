//! One inner step with a central difference: `−η ∂²f/∂λ∂w · ∇F` from two gradients by λ.

use super::{Inner, Optimiser, Problem, Sgd, inner_product};
use crate::error::{Error, Result};
use crate::tape::{Tape, Unary, Var};

/// `dF/dλ ≈ ∂F/∂λ − η (∇_λ f(w + εg, λ) − ∇_λ f(w − εg, λ)) / 2ε` with `g = ∇F` after the step and
/// `ε = probe/‖g‖`.
#[allow(clippy::too_many_arguments)]
pub(super) fn hypergradient(
    tape: &mut Tape,
    problem: &dyn Problem,
    w: &[Var],
    after: &[Var],
    outer: &[Var],
    value: Var,
    inner: Inner,
    probe: f64,
) -> Result<Vec<Var>> {
    let plain =
        matches!(inner.rule, Optimiser::Sgd(Sgd { momentum: 0.0, weight_decay: 0.0, clip: None, .. }));
    if inner.steps != 1 || !plain {
        return Err(Error::Program(
            "the finite-difference route is of one step of plain SGD; take the unrolled route for others"
                .into(),
        ));
    }
    let g = tape.gradient(value, after)?;
    let square = inner_product(tape, &g, &g)?;
    let norm = tape.unary(Unary::Sqrt, square)?;
    let inverse = tape.unary(Unary::Recip, norm)?;
    // F's own dependence on λ, `w` after the step held.
    let mut held = Vec::with_capacity(after.len());
    for w in after {
        held.push(tape.detach(*w)?);
    }
    let direct = problem.outer(tape, &held, outer)?;
    let direct = tape.gradient(direct, outer)?;
    let mut sides = Vec::with_capacity(2);
    for side in [probe, -probe] {
        let eps = tape.scale(inverse, side)?;
        let mut moved = super::moved(tape, w, eps, &g)?;
        for w in &mut moved {
            *w = tape.detach(*w)?;
        }
        let loss = problem.inner(tape, &moved, outer, 0)?;
        sides.push(tape.gradient(loss, outer)?);
    }
    let reach = tape.mul(norm, inner.lr)?;
    let reach = tape.scale(reach, -0.5 / probe)?;
    let mut all = Vec::with_capacity(outer.len());
    for i in 0..outer.len() {
        let difference = tape.sub(sides[0][i], sides[1][i])?;
        let through = tape.scale_by(difference, reach)?;
        all.push(tape.add(direct[i], through)?);
    }
    Ok(all)
}
