//! The implicit function theorem: `dF/dλ = ∂F/∂λ − ∂/∂λ ⟨∇_w f, v⟩` with `H v = ∇_w F`.

use super::{Problem, detached, inner_gradient, inner_product, length, moved, pairs};
use crate::error::Result;
use crate::tape::{Tape, Unary, Var};

/// How `H v = g` is solved, each iteration a Hessian-vector product.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Solver {
    /// Conjugate gradients from 0 (Hestenes & Stiefel 1952), for a positive definite `H + damping`.
    /// As many iterations as there are numbers in `w` are enough without rounding. They end at a
    /// direction without positive curvature, as truncated Newton methods do (Nocedal & Wright 2006,
    /// algorithm 7.1), and what [`solve`] gives besides shows it. If that direction is the first,
    /// `v` is the target over the damping, and 0 without damping.
    ConjugateGradients {
        /// How many.
        iterations: usize,
        /// Added to the Hessian's diagonal; 0 for a strongly convex inner objective.
        damping: f64,
    },
    /// `rate · Σ_{j<terms} (I − rate·(H + damping))ʲ g` (Lorraine et al. 2020): what as many more
    /// inner SGD steps at this rate would show. It converges for `rate` below `2/λ_max`.
    Neumann {
        /// How many; at least one is taken.
        terms: usize,
        /// η, one number.
        rate: Var,
        /// Added to the Hessian's diagonal.
        damping: f64,
    },
}

/// A squared length below this is nothing, where the target has length 1: its inverse would leave
/// the range of f32.
const NOTHING: f64 = 1e-30;

/// `dF/dλ` at `w`, to which inner steps from `start` led, and what [`solve`] says of it.
pub(super) fn hypergradient(
    tape: &mut Tape,
    problem: &dyn Problem,
    [start, w]: [&[Var]; 2],
    outer: &[Var],
    step: usize,
    solver: Solver,
) -> Result<(Vec<Var>, Var)> {
    // `w` as a point of its own: how the inner steps came there is of no interest to this route.
    let point = detached(tape, w)?;
    let value = problem.outer(tape, &point, outer)?;
    let loss = problem.inner(tape, &point, outer, step)?;
    let gradient = inner_gradient(tape, loss, &point, &[start, w].concat())?;
    let target = tape.gradient(value, &point)?;
    let (v, residual) = solve(tape, &point, &gradient, &target, solver)?;
    let direct = tape.gradient(value, outer)?;
    // ∂/∂λ ⟨∇_w f, v⟩: the cotangents of the inner gradient are v.
    let through = tape.cotangents(&pairs(&gradient, &v)?, outer)?;
    let minus = tape.constant(-1.0, []);
    Ok((moved(tape, &direct, minus, &through)?, residual))
}

/// `v` with `(H + damping) v = target`, where `H` is the Jacobian of `gradient` by `point`,
/// symmetric: the gradient of one number. And what is missing in it, one number: `‖target − (H +
/// damping) v‖ / ‖target‖`, of conjugate gradients as their recurrence has it. Where it is not
/// small, the iterations are too few, the rate is too large, or `H + damping` is not positive
/// definite.
///
/// # Errors
/// If the lists are of different lengths; the tape's own.
pub fn solve(
    tape: &mut Tape,
    point: &[Var],
    gradient: &[Var],
    target: &[Var],
    solver: Solver,
) -> Result<(Vec<Var>, Var)> {
    let hessian = |tape: &mut Tape, v: &[Var], damping: f64| -> Result<Vec<Var>> {
        let products = tape.jvp(&pairs(point, v)?, gradient)?;
        let damped = products.into_iter().zip(v).map(|(product, v)| {
            let damped = tape.scale(*v, damping)?;
            tape.or_zero(product, *v).and_then(|product| tape.add(product, damped))
        });
        damped.collect()
    };
    pairs(gradient, target)?;
    let whole = length(tape, target)?;
    match solver {
        Solver::Neumann { terms, rate, damping } => {
            let (mut term, mut sum) = (target.to_vec(), target.to_vec());
            let one = tape.constant(1.0, []);
            let minus = tape.scale(rate, -1.0)?;
            for number in 1..=terms.max(1) {
                let product = hessian(tape, &term, damping)?;
                // The first term that is left out is what is missing.
                term = moved(tape, &term, minus, &product)?;
                if number < terms {
                    sum = moved(tape, &sum, one, &term)?;
                }
            }
            let v = sum.into_iter().map(|s| tape.scale_by(s, rate)).collect::<Result<_>>()?;
            let missing = length(tape, &term)?;
            Ok((v, tape.div(missing, whole)?))
        }
        Solver::ConjugateGradients { iterations, damping } => {
            let zeros = target.iter().map(|t| tape.or_zero(None, *t));
            let mut v = zeros.collect::<Result<Vec<_>>>()?;
            // Of length 1, and `v` in its measure: what is nothing does not depend on the unit.
            let inverse = tape.unary(Unary::Recip, whole)?;
            let mut residual = moved(tape, &v, inverse, target)?;
            let mut direction = residual.clone();
            let mut square = inner_product(tape, &residual, &residual)?;
            // 1 until a direction has no positive curvature, then 0: the iteration ends there.
            let mut going = tape.constant(1.0, []);
            for iteration in 0..iterations {
                let product = hessian(tape, &direction, damping)?;
                let curvature = inner_product(tape, &direction, &product)?;
                let (length, positive) = share(tape, square, curvature)?;
                going = tape.mul(going, positive)?;
                let mut length = tape.mul(length, going)?;
                if iteration == 0 && damping > 0.0 {
                    let otherwise = tape.scale(going, -1.0 / damping)?;
                    let otherwise = tape.offset(otherwise, 1.0 / damping)?;
                    length = tape.add(length, otherwise)?;
                }
                v = moved(tape, &v, length, &direction)?;
                let back = tape.scale(length, -1.0)?;
                residual = moved(tape, &residual, back, &product)?;
                let next = inner_product(tape, &residual, &residual)?;
                let kept = share(tape, next, square)?.0;
                direction = moved(tape, &residual, kept, &direction)?;
                square = next;
            }
            let v = v.into_iter().map(|v| tape.scale_by(v, whole)).collect::<Result<_>>()?;
            Ok((v, tape.unary(Unary::Sqrt, square)?))
        }
    }
}

/// `a / b` and 1, or 0 and 0 where `b` is not above nothing: there the system is solved, or the
/// direction has no positive curvature.
fn share(tape: &mut Tape, a: Var, b: Var) -> Result<(Var, Var)> {
    let (one, above) = (tape.constant(1.0, []), tape.offset(b, -NOTHING)?);
    let (divisor, something) = (tape.mask(b, above)?, tape.mask(one, above)?);
    Ok((tape.div(a, divisor)?, something))
}
