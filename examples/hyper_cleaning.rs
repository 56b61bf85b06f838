//! Data hyper-cleaning (Franceschi et al. 2017): a weight for every training sample, learned so
//! that a classifier trained with them does well on a few clean samples. Meta-Weight-Net is the
//! same with the weights a function of the loss.
//!
//!     cargo run --release --example hyper_cleaning
//!
//! Inner: softmax regression with weights σ(λ_i) on 120 samples, a third of them with a wrong
//! label, 30 steps with momentum. Outer: the loss on 30 clean samples. λ moves by Adam along the
//! hypergradient through all 30 steps.

#![allow(clippy::print_stdout)]

use metatape::backend::cpu::Cpu;
use metatape::bilevel::{Adam, Inner, Mode, Optimiser, Route, Sgd, hypergradient};
use metatape::program::{Options, Session, Values};
use metatape::tape::{Kind, Tape, Var};
use metatape::{Error, Result};
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64;

const N: usize = 120;
const M: usize = 30;
const FEATURES: usize = 8;
const CLASSES: usize = 3;

/// Per-sample losses `[n]` of softmax regression.
fn losses(tape: &mut Tape, w: &[Var], n: usize, suffix: &str) -> Result<Var> {
    let x = tape.input(&format!("x{suffix}"), Kind::Float, [n, FEATURES])?;
    let y = tape.input(&format!("y{suffix}"), Kind::Int, [n])?;
    let logits = tape.linear(x, w[0], w[1])?;
    tape.cross_entropy(logits, y)
}

pub fn main() -> Result<()> {
    let mut tape = Tape::new();
    let w = [tape.state("w", Kind::Float, [FEATURES, CLASSES])?, tape.state("b", Kind::Float, [CLASSES])?];
    let lambda = tape.state("lambda", Kind::Float, [N])?;
    let inner = |tape: &mut Tape, w: &[Var], outer: &[Var], _: usize| {
        let losses = losses(tape, w, N, "")?;
        let weights = tape.sigmoid(outer[0])?;
        let weighted = tape.mul(weights, losses)?;
        tape.mean_all(weighted)
    };
    let outer = |tape: &mut Tape, w: &[Var], _: &[Var]| {
        let losses = losses(tape, w, M, "_clean")?;
        tape.mean_all(losses)
    };
    let rule = Optimiser::Sgd(Sgd { momentum: 0.9, weight_decay: 1e-3, ..Sgd::PLAIN });
    let lr = tape.constant(0.2, []);
    let run = Inner { rule: &rule, lr, steps: 30 };
    let route = Route::Unrolled(Mode::Reverse);
    let solution = hypergradient(&mut tape, &(inner, outer), &w, &[lambda], run, route)?;

    let adam = Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    let outer_lr = tape.constant(0.1, []);
    Optimiser::Adam(adam).update(
        &mut tape,
        "moment",
        "lambda",
        lambda,
        solution.hypergradient[0],
        outer_lr,
    )?;
    tape.output("outer", solution.outer)?;
    let weights = tape.sigmoid(lambda)?;
    tape.output("weights", weights)?;

    let mut session = Session::new(Box::new(Cpu::<f32>::new(1)?));
    let program = session.compile(&tape, Options::default())?;
    let mut rng = Pcg64::seed_from_u64(1);
    let (x, right) = samples(&mut rng, N);
    let wrong: Vec<bool> = (0..N).map(|_| rng.random_bool(1.0 / 3.0)).collect();
    let y: Vec<i32> =
        right.iter().zip(&wrong).map(|(y, wrong)| (y + i32::from(*wrong)) % CLASSES as i32).collect();
    let (x_clean, y_clean) = samples(&mut rng, M);
    session.feed(&program, "x", Values::Float(&x))?;
    session.feed(&program, "y", Values::Int(&y))?;
    session.feed(&program, "x_clean", Values::Float(&x_clean))?;
    session.feed(&program, "y_clean", Values::Int(&y_clean))?;
    let mut first = None;
    for _ in 0..150 {
        session.run(&program)?;
        first.get_or_insert(session.fetch(&program, "outer")?[0]);
    }
    let last = session.fetch(&program, "outer")?[0];
    let weights = session.fetch(&program, "weights")?;
    let mean = |of: bool| {
        let chosen: Vec<f64> = weights.iter().zip(&wrong).filter(|w| *w.1 == of).map(|w| *w.0).collect();
        chosen.iter().sum::<f64>() / chosen.len() as f64
    };
    println!(
        "loss on the clean samples: {:.3} with equal weights, {last:.3} with learned ones",
        first.unwrap_or(0.0)
    );
    println!("mean weight: right labels {:.3}, wrong labels {:.3}", mean(false), mean(true));
    if mean(false) < 2.0 * mean(true) {
        return Err(Error::Numeric("the weights have not learned to tell them apart".into()));
    }
    Ok(())
}

/// Points around a centre for each class, and their classes.
fn samples(rng: &mut Pcg64, count: usize) -> (Vec<f64>, Vec<i32>) {
    let mut x = Vec::with_capacity(count * FEATURES);
    for i in 0..count {
        let centre = |feature: usize| if feature % CLASSES == i % CLASSES { 1.2 } else { 0.0 };
        for feature in 0..FEATURES {
            let noise: f64 = StandardNormal.sample(rng);
            x.push(centre(feature) + noise);
        }
    }
    (x, (0..count).map(|i| (i % CLASSES) as i32).collect())
}
