//! Second derivatives of any nesting: four ways to the curvature of a small function, and a
//! Hessian-vector product.
//!
//!     cargo run --release --example second_derivative

#![allow(clippy::print_stdout)]

use metatape::backend::cpu::Cpu;
use metatape::program::{Options, Session, Values};
use metatape::tape::{Kind, Tape, Var};
use metatape::{Error, Result};

/// `Σ σ(x)²`.
fn function(tape: &mut Tape, x: Var) -> Result<Var> {
    let s = tape.sigmoid(x)?;
    let square = tape.mul(s, s)?;
    tape.sum_all(square)
}

pub fn main() -> Result<()> {
    let mut tape = Tape::new();
    let x = tape.input("x", Kind::Float, [3])?;
    let v = tape.input("v", Kind::Float, [3])?;
    let y = function(&mut tape, x)?;

    // Forward over reverse: the gradient's change along v is the Hessian times v.
    let gradient = tape.gradient(y, &[x])?;
    let product = tape.jvp(&[(x, v)], &gradient)?[0];
    let product = tape.or_zero(product, x)?;
    // Reverse over reverse: the gradient of ⟨gradient, v⟩.
    let along = tape.mul(gradient[0], v)?;
    let along = tape.sum_all(along)?;
    let twice = tape.gradient(along, &[x])?[0];
    // Forward over forward, and reverse over forward, give the curvature ⟨v, H v⟩.
    let slope = tape.jvp(&[(x, v)], &[y])?[0];
    let slope = tape.or_zero(slope, y)?;
    let bend = tape.jvp(&[(x, v)], &[slope])?[0];
    let bend = tape.or_zero(bend, y)?;
    let mixed = tape.gradient(slope, &[x])?[0];

    for (name, var) in [
        ("forward over reverse", product),
        ("reverse over reverse", twice),
        ("reverse over forward", mixed),
        ("forward over forward", bend),
    ] {
        tape.output(name, var)?;
    }
    let mut session = Session::new(Box::new(Cpu::<f64>::new(1)?));
    let program = session.compile(&tape, Options::default())?;
    let (x, v) = ([0.5, -1.0, 2.0], [1.0, 2.0, -0.5]);
    session.feed(&program, "x", Values::Float(&x))?;
    session.feed(&program, "v", Values::Float(&v))?;
    session.run(&program)?;

    // With s = σ(x): (s²)″ = 2s²(1 − s)(2 − 3s).
    let by_hand = x.map(|x: f64| {
        let s = 1.0 / (1.0 + (-x).exp());
        2.0 * s * s * (1.0 - s) * (2.0 - 3.0 * s)
    });
    for name in ["forward over reverse", "reverse over reverse", "reverse over forward"] {
        let product = session.fetch(&program, name)?;
        println!("{name}: H v = {product:?}");
        let right = product.iter().zip(by_hand).zip(v).all(|((p, h), v)| (p - h * v).abs() < 1e-14);
        if !right {
            return Err(Error::Numeric(format!("{name}: {product:?} is not {by_hand:?} times {v:?}")));
        }
    }
    let bend = session.fetch(&program, "forward over forward")?[0];
    let curvature: f64 = by_hand.iter().zip(v).map(|(h, v)| h * v * v).sum();
    println!("forward over forward: ⟨v, H v⟩ = {bend}");
    if (bend - curvature).abs() > 1e-14 {
        return Err(Error::Numeric(format!("{bend} is not {curvature}")));
    }
    Ok(())
}
