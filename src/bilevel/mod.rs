//! Bilevel problems: hypergradients through an inner optimisation.
//!
//! An inner objective `f(w, λ)` is minimised over `w`; an outer objective `F(w, λ)` judges the
//! result. The *hypergradient* is `dF/dλ`, with `w` a function of the outer variables `λ`.
//! Meta-Weight-Net is one such problem ([`crate::meta`]), and so are learned learning rates,
//! regularisation strengths, data hyper-cleaning and MAML (`examples/`).
//!
//! | file | route | cost | exact |
//! |---|---|---|---|
//! | `unrolled.rs` | reverse mode through k inner steps | memory grows with k | yes, for those k steps |
//! | `unrolled.rs` | forward mode, one walk an outer number | one walk for each number of λ | yes, likewise |
//! | `implicit.rs` | the implicit function theorem at the inner optimum, by conjugate gradients | a Hessian-vector product an iteration | at the optimum, once CG has converged |
//! | `implicit.rs` | the same by a Neumann series | likewise | as the series converges |
//! | `difference.rs` | a central difference for the mixed second derivative of one step | two more gradients of f | no |
//!
//! **Unrolled.** `w_{t+1} = w_t − η d(∇_w f(w_t, λ))` for k steps; `dF/dλ` is the derivative of the
//! program that does this. Everything is on one tape, so it is one walk over it.
//!
//! **Implicit** (Bengio 2000; Lorraine et al. 2020). Where `∇_w f(w*, λ) = 0`,
//! `dw*/dλ = −H⁻¹ ∂²f/∂w∂λ` with `H = ∂²f/∂w²`, so
//!
//! ```text
//! dF/dλ = ∂F/∂λ − ∂/∂λ ⟨∇_w f(w*, λ), v⟩,   H v = ∇_w F(w*, λ)
//! ```
//!
//! with `v` held. `H v` is one jvp of the gradient; no Hessian is formed.

mod difference;
mod implicit;
mod rule;
mod unrolled;

pub use implicit::{Solver, solve};
pub use rule::{Adam, Optimiser, Sgd, Unrolling};

use crate::error::{Error, Result};
use crate::tape::{Tape, Unary, Var};

/// An inner and an outer objective, as functions on a tape. A pair of closures is a problem.
pub trait Problem {
    /// `f(w, λ)`, one number, at the inner step `step` (from 0), which may decide the batch.
    ///
    /// # Errors
    /// The tape's own.
    fn inner(&self, tape: &mut Tape, w: &[Var], outer: &[Var], step: usize) -> Result<Var>;

    /// `F(w, λ)`, one number.
    ///
    /// # Errors
    /// The tape's own.
    fn outer(&self, tape: &mut Tape, w: &[Var], outer: &[Var]) -> Result<Var>;
}

impl<I, O> Problem for (I, O)
where
    I: Fn(&mut Tape, &[Var], &[Var], usize) -> Result<Var>,
    O: Fn(&mut Tape, &[Var], &[Var]) -> Result<Var>,
{
    fn inner(&self, tape: &mut Tape, w: &[Var], outer: &[Var], step: usize) -> Result<Var> {
        (self.0)(tape, w, outer, step)
    }

    fn outer(&self, tape: &mut Tape, w: &[Var], outer: &[Var]) -> Result<Var> {
        (self.1)(tape, w, outer)
    }
}

/// Which walk differentiates unrolled steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Backward from the outer objective: for many outer variables.
    Reverse,
    /// Forward along each number of the outer variables: for few, with long inner runs.
    Forward,
}

/// How the hypergradient is computed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Route {
    /// Through the inner steps that are taken.
    Unrolled(Mode),
    /// By the implicit function theorem at the `w` that the inner steps lead to, which should be
    /// near the inner optimum: what is missing there is missing in the result.
    Implicit(Solver),
    /// One inner step, with a central difference of `∇_λ f` along `∇F` in the place of the mixed
    /// second derivative (DARTS, Liu et al. 2019); the length of the probe `ε·∇F`.
    FiniteDifference(f64),
}

/// The inner run: the rule, its learning rate and the number of its steps.
#[derive(Clone, Copy, Debug)]
pub struct Inner<'a> {
    /// The rule.
    pub rule: &'a Optimiser,
    /// The learning rate, one number; it may be an outer variable, or depend on one.
    pub lr: Var,
    /// How many steps are taken from the given `w`.
    pub steps: usize,
}

/// What a bilevel program gives.
#[derive(Clone, Debug)]
pub struct Solution {
    /// `w` after the inner steps.
    pub w: Vec<Var>,
    /// `f` before each inner step.
    pub inner: Vec<Var>,
    /// `F` at that `w`.
    pub outer: Var,
    /// `dF/dλ`, of the outer variables' shapes.
    pub hypergradient: Vec<Var>,
    /// For [`Route::Implicit`], how far its linear system is from being solved: see [`solve`].
    pub residual: Option<Var>,
}

/// Records the inner steps from `w`, the outer objective, and its derivative by the `outer`
/// variables.
///
/// `w` and `outer` are leaves of the tape (states, inputs, [`Tape::variable`]s).
///
/// # Errors
/// If an objective is not one number, or the inner one reads `w` from outside in the place of its
/// argument; the tape's own; for [`Route::FiniteDifference`], if the rule is not plain SGD, there
/// is more than one step, or `w` depends on the outer variables.
pub fn hypergradient(
    tape: &mut Tape,
    problem: &dyn Problem,
    w: &[Var],
    outer: &[Var],
    inner: Inner,
    route: Route,
) -> Result<Solution> {
    let run = unrolled::run(tape, problem, w, outer, inner)?;
    tape.section("outer objective");
    let value = problem.outer(tape, &run.w, outer)?;
    let value = tape.number("the outer objective", value)?;
    tape.section("hypergradient");
    let (hypergradient, residual) = match route {
        Route::Unrolled(Mode::Reverse) => (tape.gradient(value, outer)?, None),
        Route::Unrolled(Mode::Forward) => (unrolled::forward(tape, value, outer)?, None),
        Route::Implicit(solver) => {
            let (all, residual) =
                implicit::hypergradient(tape, problem, [w, &run.w], outer, inner.steps, solver)?;
            (all, Some(residual))
        }
        Route::FiniteDifference(probe) => {
            (difference::hypergradient(tape, problem, w, &run, outer, value, inner, probe)?, None)
        }
    };
    Ok(Solution { w: run.w, inner: run.losses, outer: value, hypergradient, residual })
}

/// `∇_w f`, for the inner objective `loss` at `w`, a point that inner steps from `start` led to.
fn inner_gradient(tape: &mut Tape, loss: Var, w: &[Var], start: &[Var]) -> Result<Vec<Var>> {
    let (loss, one) = (tape.number("the inner objective", loss)?, tape.constant(1.0, []));
    let cotangents = tape.vjp(&[(loss, one)], &[w, start].concat())?;
    let (own, past) = cotangents.split_at(w.len());
    let lost = |i: &usize| own[*i].is_none() && past.iter().skip(*i).step_by(w.len()).any(Option::is_some);
    if let Some(i) = (0..w.len()).find(lost) {
        return Err(Error::Program(format!(
            "the inner objective reads number {i} (from 0) of the `w` that the inner run begins with, and not of the `w` \
             that it is given for each step; build it on its argument"
        )));
    }
    own.iter().zip(w).map(|(g, w)| tape.or_zero(*g, *w)).collect()
}

/// Two lists that go together.
fn pairs(a: &[Var], b: &[Var]) -> Result<Vec<(Var, Var)>> {
    if a.len() == b.len() {
        return Ok(a.iter().copied().zip(b.iter().copied()).collect());
    }
    Err(Error::Program(format!("{} tensors were given for {}; there must be one for each", b.len(), a.len())))
}

/// `Σ ⟨a_i, b_i⟩`, one number.
fn inner_product(tape: &mut Tape, a: &[Var], b: &[Var]) -> Result<Var> {
    let mut total = None;
    for (a, b) in pairs(a, b)? {
        let next = tape.mul(a, b).and_then(|product| tape.sum_all(product))?;
        total = Some(tape.add_to(total, next)?);
    }
    Ok(total.unwrap_or_else(|| tape.constant(0.0, [])))
}

/// `‖x‖`, one number.
pub(crate) fn length(tape: &mut Tape, x: &[Var]) -> Result<Var> {
    let square = inner_product(tape, x, x)?;
    tape.unary(Unary::Sqrt, square)
}

/// `a_i + s·b_i` for one number `s`.
fn moved(tape: &mut Tape, a: &[Var], s: Var, b: &[Var]) -> Result<Vec<Var>> {
    pairs(a, b)?.into_iter().map(|(a, b)| tape.scale_by(b, s).and_then(|step| tape.add(a, step))).collect()
}

/// Each as a value of its own: how it came about is of no interest.
fn detached(tape: &mut Tape, values: &[Var]) -> Result<Vec<Var>> {
    values.iter().map(|value| tape.detach(*value)).collect()
}
