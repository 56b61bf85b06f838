//! One inner step with a central difference: `−η ∂²f/∂λ∂w · ∇F` from two gradients by λ.

use super::unrolled::Run;
use super::{Inner, Optimiser, Problem, Sgd, detached, inner_gradient, length, moved, pairs};
use crate::error::{Error, Result};
use crate::tape::{Tape, Unary, Var};

/// `dF/dλ ≈ ∂F/∂λ − ⟨g, ∇_w f⟩ ∂η/∂λ − η (∇_λ f(w + εg, λ) − ∇_λ f(w − εg, λ)) / 2ε` with
/// `g = ∇F` after the step and `ε = probe/‖g‖`.
#[allow(clippy::too_many_arguments)]
pub(super) fn hypergradient(
    tape: &mut Tape,
    problem: &dyn Problem,
    w: &[Var],
    run: &Run,
    outer: &[Var],
    value: Var,
    inner: Inner,
    probe: f64,
) -> Result<Vec<Var>> {
    let plain =
        matches!(inner.rule, Optimiser::Sgd(Sgd { momentum: 0.0, weight_decay: 0.0, clip: None, .. }));
    if inner.steps != 1 || !plain || tape.vjp(&pairs(w, w)?, outer)?.iter().any(Option::is_some) {
        return Err(Error::Program(
            "the finite-difference route is of one step of plain SGD from a `w` that does not depend on the outer \
             variables; take the unrolled route for others"
                .into(),
        ));
    }
    let g = tape.gradient(value, &run.w)?;
    let norm = length(tape, &g)?;
    let inverse = tape.unary(Unary::Recip, norm)?;
    // F's own dependence on λ, and that through the rate: w moves by −∇f, held here, as it grows.
    let gradient = tape.gradient(run.losses[0], w)?;
    let held = detached(tape, &gradient)?;
    let minus = tape.scale(inner.lr, -1.0)?;
    let held = moved(tape, w, minus, &held)?;
    let direct = problem.outer(tape, &held, outer)?;
    let direct = tape.gradient(direct, outer)?;
    let mut sides = Vec::with_capacity(2);
    for side in [probe, -probe] {
        let eps = tape.scale(inverse, side)?;
        let point = moved(tape, w, eps, &g)?;
        let point = detached(tape, &point)?;
        let loss = problem.inner(tape, &point, outer, 0)?;
        // For what it refuses.
        inner_gradient(tape, loss, &point, w)?;
        sides.push(tape.gradient(loss, outer)?);
    }
    let reach = tape.mul(norm, inner.lr)?;
    let reach = tape.scale(reach, -0.5 / probe)?;
    let difference = |i: usize| tape.sub(sides[0][i], sides[1][i]);
    let differences = (0..outer.len()).map(difference).collect::<Result<Vec<_>>>()?;
    moved(tape, &direct, reach, &differences)
}
