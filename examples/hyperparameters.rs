//! Learning rate and weight decay of a small net by hypergradient: both are outer variables of its
//! whole training.
//!
//!     cargo run --release --example hyperparameters
//!
//! Inner: 60 steps of SGD on 60 noisy samples, loss + decay·‖w‖²/2. Outer: the loss on 60 others.
//! The logarithms of both move along the hypergradient, in forward mode: with two outer numbers,
//! two walks, whatever the number of inner steps.

#![allow(clippy::print_stdout)]

use metatape::backend::cpu::Cpu;
use metatape::bilevel::{Adam, Inner, Mode, Optimiser, Route, Sgd, hypergradient};
use metatape::program::{Options, Session, Values};
use metatape::seed::Stream;
use metatape::tape::{First, Init, Kind, Shape, Tape, Unary, Var};
use metatape::{Error, Result};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

const N: usize = 60;
const HIDDEN: usize = 20;

/// The mean squared error of the net on a set.
fn error(tape: &mut Tape, w: &[Var], suffix: &str) -> Result<Var> {
    let x = tape.input(&format!("x{suffix}"), Kind::Float, [N, 2])?;
    let y = tape.input(&format!("y{suffix}"), Kind::Float, [N, 1])?;
    let h = tape.linear(x, w[0], w[1])?;
    let h = tape.relu(h)?;
    let h = tape.linear(h, w[2], w[3])?;
    let residual = tape.sub(h, y)?;
    let square = tape.mul(residual, residual)?;
    tape.mean_all(square)
}

pub fn main() -> Result<()> {
    let mut tape = Tape::new();
    let shapes: [(&str, Shape, usize); 4] = [
        ("w1", [2, HIDDEN].into(), 2),
        ("b1", [HIDDEN].into(), 2),
        ("w2", [HIDDEN, 1].into(), HIDDEN),
        ("b2", [1].into(), HIDDEN),
    ];
    let mut w = Vec::new();
    for (counter, (name, shape, fan_in)) in shapes.into_iter().enumerate() {
        let first = First { init: Init::torch(fan_in), stream: Stream::Classifier, counter: counter as u64 };
        w.push(tape.state_from(name, Kind::Float, shape, first)?);
    }
    // Logarithms, so that both stay positive and steps are shares.
    let mut outer_variable = |name: &str, first: f64| {
        let first = First { init: Init::Given(vec![first.ln()]), stream: Stream::Classifier, counter: 0 };
        tape.state_from(name, Kind::Float, [], first)
    };
    let outer = [outer_variable("log lr", 0.01)?, outer_variable("log decay", 1.0)?];
    let lr = tape.unary(Unary::Exp, outer[0])?;

    let train = |tape: &mut Tape, w: &[Var], outer: &[Var], _: usize| {
        let mut loss = error(tape, w, "")?;
        let decay = tape.unary(Unary::Exp, outer[1])?;
        let half = tape.scale(decay, 0.5)?;
        for w in w {
            let square = tape.mul(*w, *w)?;
            let norm = tape.sum_all(square)?;
            let penalty = tape.scale_by(norm, half)?;
            loss = tape.add(loss, penalty)?;
        }
        Ok(loss)
    };
    let judge = |tape: &mut Tape, w: &[Var], _: &[Var]| error(tape, w, "_held_out");
    let rule = Optimiser::Sgd(Sgd::PLAIN);
    let run = Inner { rule: &rule, lr, steps: 60 };
    let route = Route::Unrolled(Mode::Forward);
    let solution = hypergradient(&mut tape, &(train, judge), &w, &outer, run, route)?;
    let adam = Optimiser::Adam(Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 });
    let outer_lr = tape.constant(0.1, []);
    for ((name, variable), g) in ["log lr", "log decay"].iter().zip(outer).zip(&solution.hypergradient) {
        adam.update(&mut tape, "moment", name, variable, *g, outer_lr)?;
    }
    tape.output("held out", solution.outer)?;

    let mut session = Session::new(Box::new(Cpu::<f64>::new(1)?));
    let program = session.compile(&tape, Options::default())?;
    let mut rng = Pcg64::seed_from_u64(1);
    for suffix in ["", "_held_out"] {
        let x: Vec<f64> = (0..2 * N).map(|_| rng.random_range(-1.0..1.0)).collect();
        let y: Vec<f64> =
            x.chunks(2).map(|x| (3.0 * x[0]).sin() + x[1] * x[1] + rng.random_range(-0.5..0.5)).collect();
        session.feed(&program, &format!("x{suffix}"), Values::Float(&x))?;
        session.feed(&program, &format!("y{suffix}"), Values::Float(&y))?;
    }
    session.run(&program)?;
    let first = session.fetch(&program, "held out")?[0];
    for _ in 0..100 {
        session.run(&program)?;
    }
    let last = session.fetch(&program, "held out")?[0];
    let value = |name: &str| Ok::<f64, Error>(session.read_state(name)?[0].exp());
    println!("held-out error after 60 steps: {first:.4} at first, {last:.4} with what was learned");
    println!("learning rate {:.4}, weight decay {:.1e}", value("log lr")?, value("log decay")?);
    if last > 0.7 * first {
        return Err(Error::Numeric("the hypergradient has not found better ones".into()));
    }
    Ok(())
}
