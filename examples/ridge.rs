//! The regularisation strength of ridge regression by hypergradient: through 200 unrolled steps,
//! and by the implicit function theorem at the optimum. Both are held against the closed form.
//!
//!     cargo run --release --example ridge
//!
//! Inner: `f(w, λ) = ‖Xw − y‖²/2n + λ‖w‖²/2`; outer: `F(w) = ‖X′w − y′‖²/2n′`. With
//! `H = XᵀX/n + λI` the inner optimum is `w* = H⁻¹Xᵀy/n`, and `dF/dλ = −⟨H⁻¹∇F(w*), w*⟩`.

#![allow(clippy::print_stdout)]

use metatape::backend::cpu::Cpu;
use metatape::bilevel::{Inner, Mode, Optimiser, Route, Sgd, Solver, hypergradient};
use metatape::program::{Options, Session, Values};
use metatape::tape::{Kind, Tape, Var};
use metatape::{Error, Result};

/// Samples of either set.
const N: usize = 12;
/// Features.
const D: usize = 3;
const LAMBDA: f64 = 0.3;

pub fn main() -> Result<()> {
    let exact = closed_form();
    let cg = Solver::ConjugateGradients { iterations: D, damping: 0.0 };
    println!("closed form              dF/dλ = {exact:.15}");
    let neumann = |rate| Solver::Neumann { terms: 400, rate, damping: 0.0 };
    let routes: [(&str, &dyn Fn(Var) -> Route); 4] = [
        ("unrolled, reverse", &|_| Route::Unrolled(Mode::Reverse)),
        ("unrolled, forward", &|_| Route::Unrolled(Mode::Forward)),
        ("implicit, CG", &|_| Route::Implicit(cg)),
        ("implicit, Neumann", &|lr| Route::Implicit(neumann(lr))),
    ];
    for (name, route) in routes {
        let slope = by_hypergradient(route)?;
        let error = (slope - exact).abs() / exact.abs();
        println!("{name:24} dF/dλ = {slope:.15}, relative error {error:.1e}");
        if error > 1e-12 {
            return Err(Error::Numeric(format!("{name}: {slope} is not {exact}")));
        }
    }
    Ok(())
}

/// `‖X·w − y‖²/2n`.
fn squares(tape: &mut Tape, w: Var, x: &str, y: &str) -> Result<Var> {
    let x = tape.input(x, Kind::Float, [N, D])?;
    let y = tape.input(y, Kind::Float, [N, 1])?;
    let predicted = tape.matmul(x, w)?;
    let residual = tape.sub(predicted, y)?;
    let square = tape.mul(residual, residual)?;
    let sum = tape.sum_all(square)?;
    tape.scale(sum, 0.5 / N as f64)
}

/// `route`: from the inner learning rate.
fn by_hypergradient(route: &dyn Fn(Var) -> Route) -> Result<f64> {
    let mut tape = Tape::new();
    let w = tape.input("w", Kind::Float, [D, 1])?;
    let lambda = tape.input("lambda", Kind::Float, [])?;
    let lr = tape.constant(0.5, []);
    let inner = |tape: &mut Tape, w: &[Var], outer: &[Var], _: usize| {
        let fit = squares(tape, w[0], "x", "y")?;
        let square = tape.mul(w[0], w[0])?;
        let norm = tape.sum_all(square)?;
        let half = tape.scale(norm, 0.5)?;
        let penalty = tape.scale_by(half, outer[0])?;
        tape.add(fit, penalty)
    };
    let outer = |tape: &mut Tape, w: &[Var], _: &[Var]| squares(tape, w[0], "x_outer", "y_outer");
    let run = Inner { rule: &Optimiser::Sgd(Sgd::PLAIN), lr, steps: 200 };
    let solution = hypergradient(&mut tape, &(inner, outer), &[w], &[lambda], run, route(lr))?;
    tape.output("slope", solution.hypergradient[0])?;

    let mut session = Session::new(Box::new(Cpu::<f64>::new(1)?));
    let program = session.compile(&tape, Options::default())?;
    let ([x, y], [x_outer, y_outer]) = data();
    for (name, values) in [
        ("x", &x[..]),
        ("y", &y),
        ("x_outer", &x_outer),
        ("y_outer", &y_outer),
        ("lambda", &[LAMBDA]),
        ("w", &[0.0; D]),
    ] {
        session.feed(&program, name, Values::Float(values))?;
    }
    session.run(&program)?;
    Ok(session.fetch(&program, "slope")?[0])
}

/// Numbers of both sets, `x` row-major.
fn data() -> ([Vec<f64>; 2], [Vec<f64>; 2]) {
    let number = |i: usize| ((i as f64 + 1.0) * 12.9898).sin();
    let set = |seed: usize| {
        let x: Vec<f64> = (0..N * D).map(|i| number(i + seed)).collect();
        let y = x.chunks(D).enumerate();
        let y = y.map(|(i, row)| row[0] - 2.0 * row[1] + 0.5 * row[2] + 0.3 * number(i + 7 * seed + 500));
        let y = y.collect();
        [x, y]
    };
    (set(0), set(100))
}

fn closed_form() -> f64 {
    let ([x, y], [x_outer, y_outer]) = data();
    let products = |x: &[f64], y: &[f64]| {
        let mut matrix = [[0.0; D]; D];
        let mut vector = [0.0; D];
        for (row, y) in x.chunks(D).zip(y) {
            for i in 0..D {
                (0..D).for_each(|j| matrix[i][j] += row[i] * row[j] / N as f64);
                vector[i] += row[i] * y / N as f64;
            }
        }
        (matrix, vector)
    };
    let (mut hessian, right) = products(&x, &y);
    (0..D).for_each(|i| hessian[i][i] += LAMBDA);
    let w = solve(hessian, right);
    let (outer, right) = products(&x_outer, &y_outer);
    let gradient: [f64; D] =
        std::array::from_fn(|i| (0..D).map(|j| outer[i][j] * w[j]).sum::<f64>() - right[i]);
    let v = solve(hessian, gradient);
    -v.iter().zip(&w).map(|(v, w)| v * w).sum::<f64>()
}

/// Gaussian elimination; the matrix is positive definite.
fn solve(mut a: [[f64; D]; D], mut b: [f64; D]) -> [f64; D] {
    for i in 0..D {
        for k in i + 1..D {
            let factor = a[k][i] / a[i][i];
            (i..D).for_each(|j| a[k][j] -= factor * a[i][j]);
            b[k] -= factor * b[i];
        }
    }
    for i in (0..D).rev() {
        let rest: f64 = (i + 1..D).map(|j| a[i][j] * b[j]).sum();
        b[i] = (b[i] - rest) / a[i][i];
    }
    b
}
