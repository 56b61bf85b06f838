//! MAML (Finn et al. 2017) on sinusoids: first parameters from which a few steps fit any sine.
//!
//!     cargo run --release --example maml
//!
//! Inner: a regression net fits ten points of one sine in five steps. Outer: its error on ten other
//! points. The outer variables are the first parameters themselves, so the hypergradient goes
//! through the five steps to where they began.

#![allow(clippy::print_stdout)]

use metatape::backend::cpu::Cpu;
use metatape::bilevel::{Optimiser, Sgd, Unrolling};
use metatape::program::{Options, Program, Session, Values};
use metatape::seed::Stream;
use metatape::tape::{First, Init, Kind, Shape, Tape, Var};
use metatape::{Error, Result};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

const POINTS: usize = 10;
const TASKS: usize = 4;
const STEPS: usize = 5;

pub fn main() -> Result<()> {
    let mut tape = Tape::new();
    let w = parameters(&mut tape)?;
    let inner_lr = tape.constant(0.02, []);
    let mut losses = Vec::new();
    for task in 0..TASKS {
        let mut run = Unrolling::new(Optimiser::Sgd(Sgd::PLAIN), &w);
        for _ in 0..STEPS {
            let loss = error(&mut tape, &run.w, task, "support")?;
            let gradient = tape.gradient(loss, &run.w)?;
            run.step(&mut tape, &gradient, inner_lr)?;
        }
        losses.push(error(&mut tape, &run.w, task, "query")?);
    }
    let all = tape.stack(&losses)?;
    let outer = tape.mean_all(all)?;
    tape.output("outer", outer)?;
    // The outer step: through all inner steps to the first parameters.
    let hypergradient = tape.gradient(outer, &w)?;
    let lr = tape.input("lr", Kind::Float, [])?;
    for (w, g) in w.iter().zip(hypergradient) {
        let step = tape.scale_by(g, lr)?;
        let next = tape.sub(*w, step)?;
        tape.update(*w, next)?;
    }

    let mut session = Session::new(Box::new(Cpu::<f32>::new(1)?));
    let program = session.compile(&tape, Options::default())?;
    let mut rng = Pcg64::seed_from_u64(1);
    let untrained = error_after_steps(&mut session, &program, &mut rng, 0.0, 100)?;
    error_after_steps(&mut session, &program, &mut rng, 0.01, 3000)?;
    let trained = error_after_steps(&mut session, &program, &mut rng, 0.0, 100)?;
    println!(
        "squared error on new sines after {STEPS} steps: {untrained:.3} before, {trained:.3} after MAML"
    );
    if trained > 0.5 * untrained {
        return Err(Error::Numeric("MAML has not learned where to begin".into()));
    }
    Ok(())
}

/// 1 – 40 – 40 – 1.
fn parameters(tape: &mut Tape) -> Result<Vec<Var>> {
    let shapes: [(&str, Shape, usize); 6] = [
        ("w1", [1, 40].into(), 1),
        ("b1", [40].into(), 1),
        ("w2", [40, 40].into(), 40),
        ("b2", [40].into(), 40),
        ("w3", [40, 1].into(), 40),
        ("b3", [1].into(), 40),
    ];
    let declare = |(counter, (name, shape, fan_in)): (usize, (&str, Shape, usize))| {
        let first = First { init: Init::torch(fan_in), stream: Stream::Classifier, counter: counter as u64 };
        tape.state_from(name, Kind::Float, shape, first)
    };
    shapes.into_iter().enumerate().map(declare).collect()
}

/// The mean squared error of the net `w` on a task's points.
fn error(tape: &mut Tape, w: &[Var], task: usize, set: &str) -> Result<Var> {
    let x = tape.input(&format!("x.{set}.{task}"), Kind::Float, [POINTS, 1])?;
    let y = tape.input(&format!("y.{set}.{task}"), Kind::Float, [POINTS, 1])?;
    let mut h = x;
    for layer in 0..3 {
        h = tape.linear(h, w[2 * layer], w[2 * layer + 1])?;
        if layer < 2 {
            h = tape.relu(h)?;
        }
    }
    let residual = tape.sub(h, y)?;
    let square = tape.mul(residual, residual)?;
    tape.mean_all(square)
}

/// So many outer steps on new tasks; the mean of the outer objective.
fn error_after_steps(
    session: &mut Session,
    program: &Program,
    rng: &mut Pcg64,
    lr: f64,
    steps: usize,
) -> Result<f64> {
    session.feed(program, "lr", Values::Float(&[lr]))?;
    let mut sum = 0.0;
    for _ in 0..steps {
        for task in 0..TASKS {
            let (amplitude, phase) =
                (rng.random_range(0.5..3.0), rng.random_range(0.0..std::f64::consts::PI));
            for set in ["support", "query"] {
                let x: Vec<f64> = (0..POINTS).map(|_| rng.random_range(-3.0..3.0)).collect();
                let y: Vec<f64> = x.iter().map(|x: &f64| amplitude * (x + phase).sin()).collect();
                session.feed(program, &format!("x.{set}.{task}"), Values::Float(&x))?;
                session.feed(program, &format!("y.{set}.{task}"), Values::Float(&y))?;
            }
        }
        session.run(program)?;
        sum += session.fetch(program, "outer")?[0];
    }
    Ok(sum / steps as f64)
}
