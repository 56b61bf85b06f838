//! One inner step with a central difference: `−η ∂²f/∂λ∂w · ∇F` from two gradients by λ.

use super::{Inner, Optimiser, Problem, Sgd, detached, inner_product};
use crate::error::{Error, Result};
use crate::tape::{Op, Tape, Unary, Var};

/// `dF/dλ ≈ ∂F/∂λ − ⟨g, ∇_w f⟩ ∂η/∂λ − η (∇_λ f(w + εg, λ) − ∇_λ f(w − εg, λ)) / 2ε` with
/// `g = ∇F` after the step and `ε = probe/‖g‖`.
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
    let held = detached(tape, after)?;
    let direct = problem.outer(tape, &held, outer)?;
    let mut direct = tape.gradient(direct, outer)?;
    // And by the rate, if that depends on λ: w moves by −∇f as it grows.
    if !matches!(tape.node(inner.lr).op, Op::Constant(_)) {
        let seeds: Vec<_> = after.iter().copied().zip(g.iter().copied()).collect();
        let slope = tape.cotangents(&seeds, &[inner.lr])?[0];
        let by_rate = tape.cotangents(&[(inner.lr, slope)], outer)?;
        let one = tape.constant(1.0, []);
        direct = super::moved(tape, &direct, one, &by_rate)?;
    }
    let mut sides = Vec::with_capacity(2);
    for side in [probe, -probe] {
        let eps = tape.scale(inverse, side)?;
        let moved = super::moved(tape, w, eps, &g)?;
        let moved = detached(tape, &moved)?;
        let loss = problem.inner(tape, &moved, outer, 0)?;
        sides.push(tape.gradient(loss, outer)?);
    }
    let reach = tape.mul(norm, inner.lr)?;
    let reach = tape.scale(reach, -0.5 / probe)?;
    let difference = |i: usize| tape.sub(sides[0][i], sides[1][i]);
    let differences = (0..outer.len()).map(difference).collect::<Result<Vec<_>>>()?;
    super::moved(tape, &direct, reach, &differences)
}
