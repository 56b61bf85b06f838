//! What a person may get wrong on a tape and in a session is an error, never a wrong number:
//! derivatives by constants and by values that look alike, values of other tapes, programs of other
//! sessions, inputs that were never fed.

use metatape::backend::cpu::Cpu;
use metatape::bilevel::{Optimiser, Sgd, Unrolling};
use metatape::nn::{Filters, Forward, Normalisation, Params};
use metatape::program::{Options, Program, Session, Values};
use metatape::tape::{Block, Init, Kind, LinearMap, Op, Tape, Var};
use metatape::{Error, Result};

fn session() -> Session {
    Session::new(Box::new(Cpu::<f64>::new(1).unwrap()))
}

/// The scalars that a program of no inputs but the given ones gives.
fn values(tape: &mut Tape, wanted: &[Var], given: &[(&str, f64)]) -> Vec<f64> {
    for (i, var) in wanted.iter().enumerate() {
        tape.output(&format!("value {i}"), *var).unwrap();
    }
    let mut session = session();
    let program = session.compile(tape, Options::default()).unwrap();
    for (name, value) in given {
        session.feed(&program, name, Values::Float(&[*value])).unwrap();
    }
    session.run(&program).unwrap();
    (0..wanted.len()).map(|i| session.fetch(&program, &format!("value {i}")).unwrap()[0]).collect()
}

/// One step of ridge regression with λ = 0.7 and step size 0.1 from `w0`, on one sample
/// `x = 1, y = 1`; then the loss of the sample `x = 3, y = 0.93`. By hand, from w0 = 0.5:
/// `g = (w0 − 1) + λ w0 = −0.15`, `w1 = 0.515`, and
/// `dL/dλ = 3 (3 w1 − 0.93) · (−0.1 w0) = −0.09225`.
fn ridge_step(tape: &mut Tape, w0: Var) -> Result<[Var; 2]> {
    let lambda = tape.input("lambda", Kind::Float, [])?;
    let loss = |tape: &mut Tape, w: Var, x: f64, y: f64| -> Result<Var> {
        let prediction = tape.scale(w, x)?;
        let residual = tape.offset(prediction, -y)?;
        let square = tape.mul(residual, residual)?;
        tape.scale(square, 0.5)
    };
    let data = loss(tape, w0, 1.0, 1.0)?;
    let square = tape.mul(w0, w0)?;
    let penalty = tape.mul(square, lambda)?;
    let penalty = tape.scale(penalty, 0.5)?;
    let inner = tape.add(data, penalty)?;
    let gradient = tape.gradient(inner, &[w0])?[0];
    let step = tape.scale(gradient, 0.1)?;
    let w1 = tape.sub(w0, step)?;
    let outer = loss(tape, w1, 3.0, 0.93)?;
    Ok([gradient, tape.gradient(outer, &[lambda])?[0]])
}

#[test]
fn a_gradient_by_a_constant_is_an_error_and_by_a_variable_of_it_right() {
    let mut tape = Tape::new();
    let constant = tape.constant(0.5, []);
    let error = ridge_step(&mut tape, constant).unwrap_err();
    assert!(matches!(error, Error::Value { .. }), "{error:?}");
    assert!(error.to_string().contains("tape.variable(") && error.to_string().contains("0.5"), "{error}");

    let w0 = tape.variable(constant).unwrap();
    let [gradient, by_lambda] = ridge_step(&mut tape, w0).unwrap();
    let got = values(&mut tape, &[gradient, by_lambda], &[("lambda", 0.7)]);
    assert!((got[0] + 0.15).abs() < 1e-15 && (got[1] + 0.09225).abs() < 1e-15, "{got:?}");
}

#[test]
fn a_constant_is_no_seed_either() {
    let mut tape = Tape::new();
    let (c, one) = (tape.constant(2.0, []), tape.constant(1.0, []));
    let x = tape.input("x", Kind::Float, []).unwrap();
    let y = tape.mul(x, c).unwrap();
    let error = tape.jvp(&[(c, one)], &[y]).unwrap_err().to_string();
    assert!(error.starts_with("jvp") && error.contains("tape.variable("), "{error}");
    // Nor are labels targets.
    let labels = tape.input("labels", Kind::Int, [4]).unwrap();
    let error = tape.gradient(y, &[labels]).unwrap_err().to_string();
    assert!(error.contains("Int"), "{error}");
    // Constants as tangents and cotangents are fine, and a loss may be one.
    assert!(tape.jvp(&[(x, one)], &[y]).is_ok() && tape.gradient(c, &[x]).is_ok());
}

#[test]
fn two_variables_and_two_detached_values_of_one_value_are_two() {
    // ℓ·e^ℓ at 1, where only the first factor may move: e, not 2e.
    for name in [Tape::variable, Tape::detach] {
        let mut tape = Tape::new();
        let l = tape.input("l", Kind::Float, []).unwrap();
        let (a, b) = (name(&mut tape, l).unwrap(), name(&mut tape, l).unwrap());
        assert_ne!(a, b);
        let e = tape.unary(metatape::tape::Unary::Exp, b).unwrap();
        let y = tape.mul(a, e).unwrap();
        let [by_a, both] = [&[a][..], &[a, b]].map(|by| tape.gradient(y, by).unwrap());
        let sum = tape.add(both[0], both[1]).unwrap();
        let got = values(&mut tape, &[by_a[0], sum], &[("l", 1.0)]);
        let e = std::f64::consts::E;
        assert!((got[0] - e).abs() < 1e-15 && (got[1] - 2.0 * e).abs() < 1e-15, "{got:?}");
        // Through a variable derivatives flow on, through a detached value they do not.
        let through = tape.gradient(y, &[l]).unwrap()[0];
        let flows = tape.node(a).op == Op::Variable;
        assert_eq!(tape.node(through).op.name() != "constant 0", flows);
    }
}

/// `c·(d·x)`, `x − c·y` and a reshape of a reshape are shorter as one operation, but what is in
/// between can be differentiated by.
#[test]
fn values_in_between_are_not_passed_by() {
    let mut tape = Tape::new();
    let x = tape.input("x", Kind::Float, [2, 3]).unwrap();
    let lr = tape.input("lr", Kind::Float, []).unwrap();
    let y = tape.scale(x, 2.0).unwrap();
    let z = tape.scale(y, 3.0).unwrap();
    let step = tape.scale(lr, 0.5).unwrap();
    let moved = tape.sub(lr, step).unwrap();
    let flat = tape.flatten(x).unwrap();
    let tall = tape.reshape(flat, [6]).unwrap();
    let sums = [z, tall].map(|v| tape.sum_all(v).unwrap());
    let by =
        [(sums[0], y), (moved, step), (sums[1], flat)].map(|(of, by)| tape.gradient(of, &[by]).unwrap()[0]);
    let by = by.map(|g| tape.sum_all(g).unwrap());
    for (i, g) in by.iter().enumerate() {
        tape.output(&i.to_string(), *g).unwrap();
    }
    tape.output("z", z).unwrap();
    let mut session = session();
    let program = session.compile(&tape, Options::default()).unwrap();
    session.feed(&program, "x", Values::Float(&[1.0; 6])).unwrap();
    session.run(&program).unwrap();
    let got: Vec<f64> = (0..3).map(|i| session.fetch(&program, &i.to_string()).unwrap()[0]).collect();
    assert_eq!(got, [18.0, -1.0, 6.0]);
    assert_eq!(session.fetch(&program, "z").unwrap(), [6.0; 6]);
    // The program has them as one operation all the same.
    assert_eq!(program.kernels, 1 + 3);
}

#[test]
fn a_seed_that_is_given_twice_moves_along_the_sum() {
    let mut tape = Tape::new();
    let x = tape.input("x", Kind::Float, []).unwrap();
    let y = tape.mul(x, x).unwrap();
    let (one, two) = (tape.constant(1.0, []), tape.constant(2.0, []));
    let moved = tape.jvp(&[(x, one), (x, two)], &[y]).unwrap()[0].unwrap();
    assert_eq!(values(&mut tape, &[moved], &[("x", 5.0)]), [30.0]);
}

#[test]
fn a_value_of_another_tape_is_an_error_wherever_it_is_given() {
    let mut other = Tape::new();
    let strange = other.input("strange", Kind::Float, [2]).unwrap();
    let mut tape = Tape::new();
    let x = tape.input("x", Kind::Float, [2]).unwrap();
    let s = tape.state("s", Kind::Float, [2]).unwrap();
    let y = tape.sum_all(x).unwrap();
    let map = LinearMap { block: Block::Identity, from: [2].into(), to: [2].into() };
    let held = LinearMap { block: Block::Mask(strange), from: [2].into(), to: [2].into() };
    let images = other.input("images", Kind::Float, [1, 4, 4, 2]).unwrap();
    let mut params = Params::classifier();
    let mut layer = |of: &dyn Fn(&mut Forward) -> Result<Var>| {
        let mut f = Forward::new(&mut tape, &mut params, Normalisation::Batch);
        of(&mut f).unwrap_err().to_string().replace("%1 is", "%0 is")
    };
    let layers = [
        layer(&|f| f.linear("fc", strange, 3)),
        layer(&|f| f.conv("conv", images, Filters::same(2, 3), Init::kaiming(18))),
        layer(&|f| f.bias("conv", images, Init::Constant(0.0))),
        layer(&|f| f.batch_norm("bn", images)),
        layer(&|f| f.layer_norm("ln", images, 1)),
        layer(&|f| f.dropout("drop", images, 0.5)),
    ];
    let plain = Optimiser::Sgd(Sgd::PLAIN);
    let one = tape.constant(1.0, []);
    let mut rule = |w: Var, g: Var, lr: Var| {
        [
            plain.update(&mut tape, "m", "w", w, g, lr).unwrap_err().to_string(),
            Unrolling::new(plain, &[w]).step(&mut tape, &[g], lr).unwrap_err().to_string(),
        ]
    };
    let rules = [rule(strange, x, one), rule(s, strange, one), rule(s, x, strange)];
    let refused = [
        tape.add(x, strange).unwrap_err(),
        tape.add_bias(strange, x).unwrap_err(),
        tape.add_bias(x, strange).unwrap_err(),
        tape.scale_by(strange, y).unwrap_err(),
        tape.sum_all(strange).unwrap_err(),
        tape.mean_all(strange).unwrap_err(),
        tape.flatten(strange).unwrap_err(),
        tape.broadcast_samples(strange, &[2, 3].into()).unwrap_err(),
        tape.one_hot(strange, 3).unwrap_err(),
        tape.stack(&[x, strange]).unwrap_err(),
        tape.variable(strange).unwrap_err(),
        tape.output("y", strange).unwrap_err(),
        tape.update(s, strange).unwrap_err(),
        tape.update(strange, x).unwrap_err(),
        tape.gradient(strange, &[x]).unwrap_err(),
        tape.gradient(y, &[strange]).unwrap_err(),
        tape.jvp(&[(strange, x)], &[y]).unwrap_err(),
        tape.jvp(&[(x, strange)], &[y]).unwrap_err(),
        tape.jvp(&[(x, x)], &[strange]).unwrap_err(),
        tape.vjp(&[(strange, x)], &[x]).unwrap_err(),
        tape.vjp(&[(x, strange)], &[x]).unwrap_err(),
        tape.or_zero(None, strange).unwrap_err(),
        tape.or_zero(Some(strange), x).unwrap_err(),
        tape.jacobian_block(strange, 0).unwrap_err(),
        map.apply(&mut tape, strange).unwrap_err(),
        held.apply(&mut tape, x).unwrap_err(),
    ];
    let refused = refused.map(|error| error.to_string());
    for error in refused.iter().chain(&layers).chain(rules.as_flattened()) {
        assert!(error.contains("%0 is a value of another tape"), "{error}");
    }
}

#[test]
fn a_state_takes_one_value_at_the_end_of_a_run() {
    let mut tape = Tape::new();
    let x = tape.input("x", Kind::Float, [2]).unwrap();
    let s = tape.state("s", Kind::Float, [2]).unwrap();
    tape.update(s, x).unwrap();
    tape.update(s, x).unwrap();
    let double = tape.scale(x, 2.0).unwrap();
    let error = tape.update(s, double).unwrap_err().to_string();
    assert!(error.contains("s cannot take %2") && error.contains("%0 already"), "{error}");
    // Two parameters whose rules share a name's moments.
    let rule = Optimiser::Sgd(Sgd { momentum: 0.9, ..Sgd::PLAIN });
    let [a, b] = ["a", "b"].map(|name| tape.state(name, Kind::Float, [2]).unwrap());
    let lr = tape.constant(0.1, []);
    rule.update(&mut tape, "m", "w", a, x, lr).unwrap();
    let error = rule.update(&mut tape, "m", "w", b, double, lr).unwrap_err().to_string();
    assert!(error.contains("m.w cannot take"), "{error}");
}

#[test]
fn an_output_is_read_after_a_run() {
    let mut session = session();
    let double = times(&mut session, 2.0);
    session.feed(&double, "x", Values::Float(&[1.0])).unwrap();
    let error = session.fetch(&double, "y").unwrap_err().to_string();
    assert!(error.contains("program with `y` has not run yet"), "{error}");
    session.run(&double).unwrap();
    assert_eq!(session.fetch(&double, "y").unwrap(), [2.0]);
}

/// Labels that were written for one program are looked at again when another one asks more of them.
#[test]
fn integers_of_a_state_are_held_against_each_program() {
    let mut session = session();
    let mut compiled = |classes: usize| {
        let mut tape = Tape::new();
        let z = tape.input("z", Kind::Float, [2, classes]).unwrap();
        let labels = tape.state("labels", Kind::Int, [2]).unwrap();
        let losses = tape.cross_entropy(z, labels).unwrap();
        tape.output("losses", losses).unwrap();
        let program = session.compile(&tape, Options::default());
        if classes == 5 {
            session.write_state("labels", Values::Int(&[4, 0])).unwrap();
        }
        program
    };
    compiled(5).unwrap();
    let error = compiled(3).unwrap_err().to_string();
    assert!(error.contains("`labels`: label 4 of sample 0 is none of the 3 classes"), "{error}");
    compiled(6).unwrap();
    // What was refused asks nothing.
    compiled(5).unwrap();
}

#[test]
fn sums_of_no_maps_and_lists_of_no_values_do_not_panic() {
    let mut tape = Tape::new();
    let x = tape.input("x", Kind::Float, [2]).unwrap();
    let none = LinearMap { block: Block::Plus(Vec::new()), from: [2].into(), to: [3].into() };
    let zeros = none.apply(&mut tape, x).unwrap();
    assert_eq!(tape.shape(zeros)[..], [3]);
    assert!(matches!(tape.node(zeros).op, Op::Constant(c) if c.0 == 0.0));
    let mut params = Params::classifier();
    params.param(&mut tape, "fc.weight", [2, 2], Init::Constant(0.0)).unwrap();
    let mut empty = params.with(Vec::new());
    let error = empty.param(&mut tape, "fc.weight", [2, 2], Init::Constant(0.0)).unwrap_err().to_string();
    assert!(error.contains("no parameter `fc.weight`"), "{error}");
}

/// `factor · x` for the input x.
fn times(session: &mut Session, factor: f64) -> Program {
    let mut tape = Tape::new();
    let x = tape.input("x", Kind::Float, []).unwrap();
    let y = tape.scale(x, factor).unwrap();
    tape.output("y", y).unwrap();
    tape.input("unread", Kind::Float, []).unwrap();
    session.compile(&tape, Options::default()).unwrap()
}

#[test]
fn a_program_of_another_session_is_refused_by_name() {
    let (mut one, mut two) = (session(), session());
    let (double, hundred) = (times(&mut one, 2.0), times(&mut two, 100.0));
    let (input, output) = (hundred.input("x").unwrap(), hundred.output("y").unwrap());
    for error in [
        one.run(&hundred).unwrap_err(),
        one.feed(&hundred, "x", Values::Float(&[1.0])).unwrap_err(),
        one.fetch(&hundred, "y").unwrap_err(),
        one.profile(&hundred).unwrap_err(),
    ] {
        let message = error.to_string();
        assert!(message.contains("program with `y`") && message.contains("another session"), "{message}");
    }
    for error in [
        one.write_input(&double, input, Values::Float(&[1.0])).unwrap_err(),
        one.read(&double, output).unwrap_err(),
        one.read_into(&double, output, &mut [0.0]).unwrap_err(),
    ] {
        assert!(error.to_string().contains("of another one"), "{error}");
    }
}

#[test]
fn an_input_that_was_never_fed_is_an_error_that_names_it() {
    let mut session = session();
    let (double, triple) = (times(&mut session, 2.0), times(&mut session, 3.0));
    let message = session.run(&double).unwrap_err().to_string();
    assert!(message.contains("never given `x`") && !message.contains("unread"), "{message}");
    session.feed(&triple, "x", Values::Float(&[1.0])).unwrap();
    assert!(session.run(&double).is_err(), "fed to the other program");
    session.feed(&double, "x", Values::Float(&[1.0])).unwrap();
    session.run(&double).unwrap();
    session.run(&double).unwrap();
    assert_eq!(session.fetch(&double, "y").unwrap(), [2.0]);
    // An input that is an output, and nothing else.
    let mut tape = Tape::new();
    let x = tape.input("x", Kind::Float, []).unwrap();
    tape.output("y", x).unwrap();
    let program = session.compile(&tape, Options::default()).unwrap();
    assert!(session.run(&program).unwrap_err().to_string().contains("`x`"));
}
