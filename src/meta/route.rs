//! The hypergradient ∂L_meta/∂θ, a function a route. Four are of the step itself, and all of these
//! but finite differences are exact; two are of the inner optimum.

use super::config::{Route, StepConfig};
use super::step::Recorded;
use crate::bilevel::{Solver, length, solve};
use crate::error::{Error, Result};
use crate::nn::{Forward, Model, Normalisation};
use crate::tape::{Tape, Unary, Var};

/// ∂L_meta/∂θ per parameter, and `u` `[n]` where the route computes it or `want_u` asks for it.
pub(super) fn hypergradient(
    tape: &mut Tape,
    net: &dyn Model,
    config: &StepConfig,
    step: &Recorded,
    want_u: bool,
) -> Result<(Vec<Var>, Option<Var>)> {
    // Through several virtual steps there is one way.
    let route = if config.unroll > 1 { Route::Reverse } else { config.route };
    let u = match route {
        Route::Reverse => {
            tape.section("hypergradient");
            let gradients = tape.gradient(step.meta_loss, &step.theta.vars())?;
            let u = if want_u { Some(by_jvp(tape, step)?) } else { None };
            return Ok((gradients, u));
        }
        Route::Jvp => by_jvp(tape, step)?,
        Route::Layerwise => by_layers(tape, step)?,
        Route::FiniteDifference => by_difference(tape, net, config.probe, step)?,
        Route::PerSample => by_matrix(tape, step)?,
        Route::ImplicitCg(iterations) => {
            let solver = Solver::ConjugateGradients { iterations, damping: DAMPING };
            return at_the_optimum(tape, step, solver, want_u);
        }
        Route::Neumann(terms) => {
            let rate = tape.scale(step.reach, -1.0)?;
            return at_the_optimum(tape, step, Solver::Neumann { terms, rate, damping: 0.0 }, want_u);
        }
    };
    tape.section("hypergradient");
    // −α ∇_θ ⟨u, c(θ)⟩
    let cotangent = tape.scale_by(u, step.reach)?;
    Ok((pulled_back(tape, step, cotangent)?, Some(u)))
}

/// The gradient by θ of the virtual step's coefficients, for their cotangents `[n]`.
fn pulled_back(tape: &mut Tape, step: &Recorded, cotangent: Var) -> Result<Vec<Var>> {
    tape.cotangents(&[(step.coefficients, cotangent)], &step.theta.vars())
}

/// Added to the Hessian's diagonal for conjugate gradients: a network's loss is not convex, and at
/// 0.1 a fresh MLP has directions without positive curvature.
const DAMPING: f64 = 1.0;

/// `−∇_θ ⟨J_ℓ(w) v, c(θ)⟩` with `H v = ∇L_meta(ŵ)` and `H` the Hessian of `⟨c, ℓ(w)⟩`
/// ([`crate::bilevel`]). With the first term of the Neumann series alone, `v = α∇L_meta(ŵ)`: the
/// step's own hypergradient.
fn at_the_optimum(
    tape: &mut Tape,
    step: &Recorded,
    solver: Solver,
    want_u: bool,
) -> Result<(Vec<Var>, Option<Var>)> {
    let u = if want_u { Some(by_jvp(tape, step)?) } else { None };
    tape.section("inverse Hessian times the meta gradient");
    let w = step.w.vars();
    // The virtual step's: the tape has it already.
    let gradient = tape.cotangents(&[(step.losses, step.coefficients)], &w)?;
    let (v, residual) = solve(tape, &w, &gradient, &step.meta_grad, solver)?;
    if want_u {
        tape.output("residual", residual)?;
    }
    let seeds: Vec<(Var, Var)> = w.into_iter().zip(v).collect();
    let change = tape.jvp(&seeds, &[step.losses])?[0];
    let change = tape.or_zero(change, step.losses)?;
    tape.section("hypergradient");
    let cotangent = tape.scale(change, -1.0)?;
    Ok((pulled_back(tape, step, cotangent)?, u))
}

/// `u = J_ℓ(w) g` in forward mode.
fn by_jvp(tape: &mut Tape, step: &Recorded) -> Result<Var> {
    tape.section("jvp: u, the losses' change along the meta gradient");
    let seeds: Vec<(Var, Var)> = step.w.vars().into_iter().zip(step.meta_grad.iter().copied()).collect();
    let u = tape.jvp(&seeds, &[step.losses])?[0];
    tape.or_zero(u, step.losses)
}

/// `u` from the virtual step's backward signals.
fn by_layers(tape: &mut Tape, step: &Recorded) -> Result<Var> {
    let Some(signals) = &step.signals else { return by_jvp(tape, step) };
    tape.section("u layer by layer: each layer's signal times its change along the meta gradient");
    signals.along(tape, &step.meta_grad)
}

/// `u ≈ (ℓ(w + εg) − ℓ(w − εg)) / 2ε` with `ε = probe/‖g‖`.
fn by_difference(tape: &mut Tape, net: &dyn Model, probe: f64, step: &Recorded) -> Result<Var> {
    tape.section("u by a finite difference");
    let norm = length(tape, &step.meta_grad)?;
    let inverse = tape.unary(Unary::Recip, norm)?;
    let mut sides = Vec::new();
    for side in [probe, -probe] {
        let eps = tape.scale(inverse, side)?;
        let mut moved = Vec::new();
        for (w, g) in step.w.vars().into_iter().zip(&step.meta_grad) {
            let probe = tape.scale_by(*g, eps)?;
            moved.push(tape.add(w, probe)?);
        }
        let mut moved = step.w.with(moved);
        // The training batch's pass again: it drops what that one drops.
        let mut forward = Forward::new(tape, &mut moved, Normalisation::Batch);
        let logits = net.logits(&mut forward, step.batch.0)?;
        sides.push(tape.cross_entropy(logits, step.batch.1)?);
    }
    let difference = tape.sub(sides[0], sides[1])?;
    let slope = tape.scale_by(difference, norm)?;
    tape.scale(slope, 0.5 / probe)
}

/// `u_i = (1/m) Σ_j G_ij` with the explicit matrix `G_ij = ⟨∇ℓ_j^meta(ŵ), ∇ℓ_i(w)⟩`, also the
/// output `G` `[n, m]`.
fn by_matrix(tape: &mut Tape, step: &Recorded) -> Result<Var> {
    tape.section("u by the explicit matrix G");
    let train = per_sample_gradients(tape, step.losses, &step.w.vars())?;
    let meta = per_sample_gradients(tape, step.meta_losses, &step.virtual_w.vars())?;
    let mut matrix = None;
    for (a, b) in train.into_iter().zip(meta) {
        let form = crate::tape::Form::Gemm;
        // (B [k,m], C [n,m]) would give A; here A·Bᵀ with both stored by rows is the role-A
        // product.
        let part = tape.contract(form, crate::tape::Role::A, [b, a], None)?;
        matrix = Some(tape.add_to(matrix, part)?);
    }
    let Some(matrix) = matrix else { return Ok(tape.constant(0.0, tape.shape(step.losses).clone())) };
    tape.output("G", matrix)?;
    tape.mean(matrix, 1, 2)
}

/// Reverse walks that are recorded for one batch: beyond, recording alone takes minutes.
const MOST_WALKS: usize = 1000;

/// Per parameter, the matrix `[n, count]` of the losses' gradients, one reverse walk a sample.
fn per_sample_gradients(tape: &mut Tape, losses: Var, params: &[Var]) -> Result<Vec<Var>> {
    let n = tape.shape(losses).count();
    if n > MOST_WALKS {
        return Err(Error::Usage(format!(
            "--route per-sample records a reverse walk for each of the {n} samples of a batch, and at most {MOST_WALKS}; \
             take a smaller --batch, or another --route"
        )));
    }
    let mut rows: Vec<Vec<Var>> = vec![Vec::with_capacity(n); params.len()];
    for i in 0..n {
        let one = tape.constant(1.0, []);
        let shape = tape.shape(losses).clone();
        let one_hot = tape.push(crate::tape::Op::Unrow(i), &[one], Some(&shape))?;
        for (g, rows) in tape.cotangents(&[(losses, one_hot)], params)?.into_iter().zip(&mut rows) {
            let count = tape.shape(g).count();
            rows.push(tape.reshape(g, [count])?);
        }
    }
    rows.iter().map(|rows| tape.stack(rows)).collect()
}
