//! The implicit function theorem: `dF/dλ = ∂F/∂λ − ∂/∂λ ⟨∇_w f, v⟩` with `H v = ∇_w F`.

use super::{Problem, detached, inner_product, moved, one_number};
use crate::error::Result;
use crate::tape::{Tape, Unary, Var};

/// How `H v = g` is solved, each iteration a Hessian-vector product.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Solver {
    /// Conjugate gradients from 0 (Hestenes & Stiefel 1952), for a positive definite `H + damping`.
    /// As many iterations as there are numbers in `w` are enough without rounding. They end at a
    /// direction without positive curvature, as truncated Newton methods do (Nocedal & Wright 2006,
    /// algorithm 7.1), and nothing says so: hold `(H + damping) v` against the target if H may have
    /// no or negative curvature. If that direction is the first, `v` is the target over the
    /// damping, and 0 without damping.
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

/// A squared length below this is nothing: its inverse would leave the range of f32.
const NOTHING: f64 = 1e-30;

/// `dF/dλ` at `w`.
pub(super) fn hypergradient(
    tape: &mut Tape,
    problem: &dyn Problem,
    w: &[Var],
    outer: &[Var],
    step: usize,
    solver: Solver,
) -> Result<Vec<Var>> {
    // `w` as a point of its own: how the inner steps came there is of no interest to this route.
    let point = detached(tape, w)?;
    let value = problem.outer(tape, &point, outer)?;
    let loss = problem.inner(tape, &point, outer, step)?;
    one_number(tape, loss, "the inner objective")?;
    let gradient = tape.gradient(loss, &point)?;
    let target = tape.gradient(value, &point)?;
    let v = solve(tape, &point, &gradient, &target, solver)?;
    // −∂/∂λ ⟨∇_w f, v⟩: the cotangents of the inner gradient are −v.
    let minus = v.into_iter().map(|v| tape.scale(v, -1.0)).collect::<Result<Vec<_>>>()?;
    let mut seeds: Vec<_> = gradient.into_iter().zip(minus).collect();
    seeds.push((value, tape.constant(1.0, tape.shape(value).clone())));
    tape.cotangents(&seeds, outer)
}

/// `v` with `(H + damping) v = target`, where `H` is the Jacobian of `gradient` by `point`,
/// symmetric: the gradient of one number.
///
/// # Errors
/// The tape's own.
pub fn solve(
    tape: &mut Tape,
    point: &[Var],
    gradient: &[Var],
    target: &[Var],
    solver: Solver,
) -> Result<Vec<Var>> {
    let hessian = |tape: &mut Tape, v: &[Var], damping: f64| -> Result<Vec<Var>> {
        let seeds: Vec<(Var, Var)> = point.iter().copied().zip(v.iter().copied()).collect();
        let products = tape.jvp(&seeds, gradient)?;
        let damped = products.into_iter().zip(v).map(|(product, v)| {
            let damped = tape.scale(*v, damping)?;
            tape.or_zero(product, *v).and_then(|product| tape.add(product, damped))
        });
        damped.collect()
    };
    match solver {
        Solver::Neumann { terms, rate, damping } => {
            let mut term = target.to_vec();
            let mut sum = target.to_vec();
            let one = tape.constant(1.0, []);
            let rate = tape.reshape(rate, [])?;
            let minus = tape.scale(rate, -1.0)?;
            for _ in 1..terms {
                let product = hessian(tape, &term, damping)?;
                term = moved(tape, &term, minus, &product)?;
                sum = moved(tape, &sum, one, &term)?;
            }
            sum.into_iter().map(|s| tape.scale_by(s, rate)).collect()
        }
        Solver::ConjugateGradients { iterations, damping } => {
            let zeros = target.iter().map(|t| tape.constant(0.0, tape.shape(*t).clone()));
            let mut v: Vec<Var> = zeros.collect();
            let (mut residual, mut direction) = (target.to_vec(), target.to_vec());
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
            Ok(v)
        }
    }
}

/// `a / b` and 1, or 0 and 0 where `b` is not above nothing: there the system is solved, or the
/// direction has no positive curvature.
fn share(tape: &mut Tape, a: Var, b: Var) -> Result<(Var, Var)> {
    let one = tape.constant(1.0, tape.shape(b).clone());
    let above = tape.offset(b, -NOTHING)?;
    let something = tape.mask(one, above)?;
    let nothing = tape.sub(one, something)?;
    let kept = tape.mul(b, something)?;
    let divisor = tape.add(kept, nothing)?;
    let inverse = tape.unary(Unary::Recip, divisor)?;
    let quotient = tape.mul(a, inverse)?;
    Ok((tape.mul(quotient, something)?, something))
}
