//! A network of one's own in the whole meta step of Meta-Weight-Net: one closure, no list of
//! parameters, any input.
//!
//!     cargo run --release --example own_network
//!
//! Features `[n, 2]` in two rings, 40% of the labels wrong; 50 clean samples as the meta set.

#![allow(clippy::print_stdout)]

use metatape::backend::cpu::Cpu;
use metatape::meta::{Batch, MetaStep, StepConfig};
use metatape::nn::{Forward, WeightNet, WeightNetInit};
use metatape::program::{Options, Session, Values};
use metatape::tape::{Tape, Var};
use metatape::{Error, Result};

const N: usize = 400;
const M: usize = 50;

pub fn main() -> Result<()> {
    // Two hidden layers, with a skip connection around the second.
    let net = |f: &mut Forward, x: Var| {
        let h = f.linear("first", x, 32)?;
        let h = f.tape.relu(h)?;
        let g = f.linear("second", h, 32)?;
        let g = f.tape.relu(g)?;
        let sum = f.tape.add(h, g)?;
        f.linear("out", sum, 2)
    };
    let weight_net = WeightNet { hidden: 20, init: WeightNetInit::Kinks, slope: 0.04, groups: Vec::new() };
    let config = StepConfig::default();
    let data = Batch::Given([2].into());

    let mut tape = Tape::new();
    MetaStep { net: &net, weight_net: &weight_net, config: &config, data: &data, batch: [N, M] }
        .record(&mut tape, false)?;
    let mut session = Session::new(Box::new(Cpu::<f32>::new(1)?));
    session.initialise(1)?;
    let program = session.compile(&tape, Options::default())?;

    let (x, right) = rings(N, 0);
    let wrong: Vec<bool> = (0..N).map(|i| (i * 7919) % 10 < 4).collect();
    let y: Vec<i32> = right.iter().zip(&wrong).map(|(y, wrong)| y ^ i32::from(*wrong)).collect();
    let (x_meta, y_meta) = rings(M, 1000);
    session.feed(&program, "x", Values::Float(&x))?;
    session.feed(&program, "y", Values::Int(&y))?;
    session.feed(&program, "x_meta", Values::Float(&x_meta))?;
    session.feed(&program, "y_meta", Values::Int(&y_meta))?;
    session.feed(&program, "lr", Values::Float(&[0.05]))?;
    session.feed(&program, "lr.theta", Values::Float(&[1e-2]))?;
    for _ in 0..600 {
        session.run(&program)?;
    }
    let weights = session.fetch(&program, "weight")?;
    let mean = |of: bool| {
        let chosen: Vec<f64> = weights.iter().zip(&wrong).filter(|w| *w.1 == of).map(|w| *w.0).collect();
        chosen.iter().sum::<f64>() / chosen.len() as f64
    };
    println!(
        "mean weight of samples with the right label {:.3}, with a wrong one {:.3}",
        mean(false),
        mean(true)
    );
    println!("meta loss {:.3}", session.fetch(&program, "meta_loss")?[0]);
    if mean(false) < 2.0 * mean(true) {
        return Err(Error::Numeric("V has not learned to tell them apart".into()));
    }
    Ok(())
}

/// Points in two rings, and which ring each is in.
fn rings(count: usize, seed: usize) -> (Vec<f64>, Vec<i32>) {
    let number = |i: usize| ((i as f64 + 1.0) * 78.233).sin() * 43758.5453;
    let share = |i: usize| number(i) - number(i).floor();
    let mut x = Vec::new();
    for i in 0..count {
        let angle = std::f64::consts::TAU * share(3 * i + seed);
        let radius = if i % 2 == 0 { 0.7 } else { 1.5 } + 0.3 * share(3 * i + 1 + seed);
        x.extend([radius * angle.cos(), radius * angle.sin()]);
    }
    (x, (0..count as i32).map(|i| i % 2).collect())
}
