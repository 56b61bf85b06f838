//! Signals of samples that do not couple: weighted gradients and directional derivatives as the two
//! walks give them, and no signals where samples couple.

mod common;

use common::steps::{networks, relative_error};
use metatape::Result;
use metatape::backend::cpu::Cpu;
use metatape::nn::{Forward, Model, Normalisation, Params};
use metatape::program::{Options, Session, Values};
use metatape::tape::{Init, Kind, Shape, Tape, Var};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

const N: usize = 4;

/// Losses `[N]` of a model, its parameters, coefficients `[N]`, and a tangent for each parameter.
struct Recorded {
    tape: Tape,
    losses: Var,
    w: Vec<Var>,
    c: Var,
    tangents: Vec<Var>,
}

fn record(model: &dyn Model, sample: &Shape) -> Result<Recorded> {
    let mut tape = Tape::new();
    let mut w = Params::classifier();
    let x = tape.input("x", Kind::Float, sample.with(0, &[N]))?;
    let y = tape.input("y", Kind::Int, [N])?;
    let logits = model.logits(&mut Forward::new(&mut tape, &mut w, Normalisation::Batch), x)?;
    let losses = tape.cross_entropy(logits, y)?;
    let c = tape.input("c", Kind::Float, [N])?;
    let w = w.vars();
    let tangent = |(i, w): (usize, &Var)| {
        let shape = tape.shape(*w).clone();
        tape.input(&format!("tangent {i}"), Kind::Float, shape)
    };
    let tangents = w.iter().enumerate().map(tangent).collect::<Result<_>>()?;
    Ok(Recorded { tape, losses, w, c, tangents })
}

/// Both derivatives by the signals and by the walks.
fn check(name: &str, model: &dyn Model, sample: &Shape) {
    let Recorded { mut tape, losses, w, c, tangents } = record(model, sample).unwrap();
    let signals = tape.sample_signals(losses, &w).unwrap().unwrap_or_else(|| panic!("{name}: no signals"));
    let own = signals.gradient(&mut tape, c).unwrap();
    let walked = tape.vjp(&[(losses, c)], &w).unwrap();
    for (i, (own, walked)) in own.iter().zip(walked).enumerate() {
        let walked = tape.or_zero(walked, w[i]).unwrap();
        tape.output(&format!("own {i}"), *own).unwrap();
        tape.output(&format!("walked {i}"), walked).unwrap();
    }
    let along = signals.along(&mut tape, &tangents).unwrap();
    let seeds: Vec<(Var, Var)> = w.iter().copied().zip(tangents).collect();
    let moved = tape.jvp(&seeds, &[losses]).unwrap()[0].unwrap();
    tape.output("own u", along).unwrap();
    tape.output("walked u", moved).unwrap();

    let mut session = Session::new(Box::new(Cpu::<f64>::new(1).unwrap()));
    let program = session.compile(&tape, Options::default()).unwrap();
    let mut rng = Pcg64::seed_from_u64(3);
    let mut numbers = |n: usize| -> Vec<f64> { (0..n).map(|_| rng.random_range(-1.0..1.0)).collect() };
    for state in session.states().to_vec() {
        session.write_state(&state.name, Values::Float(&numbers(state.shape.count()))).unwrap();
    }
    for input in program.inputs().to_vec() {
        match input.kind {
            Kind::Int => session.feed(&program, &input.name, Values::Int(&[0, 2, 1, 2])).unwrap(),
            _ => session.feed(&program, &input.name, Values::Float(&numbers(input.shape.count()))).unwrap(),
        }
    }
    session.run(&program).unwrap();
    for what in (0..w.len()).map(|i| i.to_string()).chain(["u".into()]) {
        let of = |by: &str| session.fetch(&program, &format!("{by} {what}")).unwrap();
        let error = relative_error(&of("own"), &of("walked"));
        assert!(error < 1e-13, "{name}, {what}: {error:e}");
    }
}

#[test]
fn networks_without_batch_norm_have_signals() {
    for net in networks() {
        let sample = Shape::from(net.image);
        if net.summary().couples_samples() {
            let Recorded { mut tape, losses, w, .. } = record(net.model.as_ref(), &sample).unwrap();
            assert!(tape.sample_signals(losses, &w).unwrap().is_none(), "{net:?}");
        } else {
            check(net.name, net.model.as_ref(), &sample);
        }
    }
}

/// Ways on which a value is read twice, parameters that are made of others, a parameter with as
/// many rows as the batch has samples, and one that is the same for all.
#[test]
fn parameters_meet_samples_in_many_ways() {
    let skip = |f: &mut Forward, x: Var| {
        let h = f.linear("fc1", x, 6)?;
        let h = f.tape.tanh(h)?;
        let branch = f.linear("fc2", h, 6)?;
        let branch = f.tape.relu(branch)?;
        let h = f.tape.add(h, branch)?;
        // The same weights once more.
        f.again("fc2");
        let again = f.linear("fc2", h, 6)?;
        let h = f.tape.maximum(again, h)?;
        f.linear("fc3", h, 3)
    };
    check("skip", &skip, &Shape::from([5]));

    let made = |f: &mut Forward, x: Var| {
        // [4, 3]: four rows, as the batch.
        let a = f.param("a", [4, 3], Init::torch(4))?;
        let b = f.param("b", [3, 3], Init::torch(3))?;
        let square = f.tape.mul(b, b)?;
        let product = f.tape.matmul(a, square)?;
        let h = f.tape.matmul(x, product)?;
        let scale = f.param("scale", [3], Init::Constant(1.0))?;
        let scale = f.tape.broadcast_to(scale, [N, 3].into())?;
        f.tape.mul(h, scale)
    };
    check("made", &made, &Shape::from([4]));

    let norm = |f: &mut Forward, x: Var| {
        let h = f.linear("fc1", x, 6)?;
        let h = f.layer_norm("norm", h, 1)?;
        f.linear("fc2", h, 3)
    };
    check("layer norm", &norm, &Shape::from([5]));
}

/// Samples that are summed, or that meet as a matrix, couple.
#[test]
fn samples_that_meet_have_no_signals() {
    let mean = |f: &mut Forward, x: Var| {
        let h = f.linear("fc1", x, 3)?;
        let mean = f.tape.mean(h, 0, 1)?;
        let mean = f.tape.broadcast_to(mean, [N, 3].into())?;
        f.tape.sub(h, mean)
    };
    let attention = |f: &mut Forward, x: Var| {
        let h = f.linear("fc1", x, N)?;
        f.tape.matmul(h, h)
    };
    for (name, model) in [("mean", &mean as &dyn Model), ("attention", &attention)] {
        let Recorded { mut tape, losses, w, .. } = record(model, &Shape::from([5])).unwrap();
        assert!(tape.sample_signals(losses, &w).unwrap().is_none(), "{name}");
    }
}
