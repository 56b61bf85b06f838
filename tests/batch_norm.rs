//! Nested derivatives of batch norm in training mode, against numbers from outside: the case of
//! PyTorch's issue 196699, where PyTorch 2.15 gives −2.1324 for the second derivative and refuses
//! the third.

use metatape::Result;
use metatape::backend::cpu::Cpu;
use metatape::check::{Modes, Point, check_grads};
use metatape::program::{Options, Session, Values};
use metatape::tape::{Kind, Shape, Tape, Var};

const AT: f64 = -6.0;
const VALUE: f64 = 36.168_777_566_306_48;
const FIRST: f64 = -0.449_632_064_715_753_8;
const SECOND: f64 = -0.207_030_156_469_931_95;

/// One walk of one number by another: forward or reverse.
type Walk = fn(&mut Tape, Var, Var) -> Result<Var>;

fn jvp(tape: &mut Tape, y: Var, t: Var) -> Result<Var> {
    let one = tape.constant(1.0, []);
    let moved = tape.jvp(&[(t, one)], &[y])?[0];
    tape.or_zero(moved, y)
}

fn vjp(tape: &mut Tape, y: Var, t: Var) -> Result<Var> {
    Ok(tape.gradient(y, &[t])?[0])
}

const WALKS: [(&str, Walk); 2] = [("jvp", jvp), ("vjp", vjp)];

/// Numbers by their place in `[2,2,2]` with channels on axis 1, put in the order of `[2,2,2]` with
/// channels last.
fn channels_last(at: impl Fn(usize) -> f64) -> Vec<f64> {
    let place = |(n, h, c): (usize, usize, usize)| at(4 * n + 2 * c + h);
    (0..8).map(|i| place((i / 4, i / 2 % 2, i % 2))).collect()
}

/// What the function reads besides t.
fn given() -> [(&'static str, Vec<f64>); 6] {
    [
        ("linear", channels_last(|i| i as f64 + 1.0)),
        ("square", channels_last(|i| (i % 3) as f64 - 1.0)),
        ("shift", channels_last(|i| i as f64)),
        ("weight", channels_last(|i| i as f64 + 1.0)),
        ("scale", vec![1.5, -0.5]),
        ("bias", vec![0.25, 1.0]),
    ]
}

/// `Σ weight ∘ (scale · x̂ + bias)` of `x_i = (i+1) t + (i mod 3 − 1) t² + i`, i = 0 … 7.
fn function(tape: &mut Tape, t: Var) -> Result<Var> {
    let shape: Shape = [2, 2, 2].into();
    let mut read = |name: &str| {
        let shape = if ["scale", "bias"].contains(&name) { [2].into() } else { shape.clone() };
        tape.input(name, Kind::Float, shape)
    };
    let (linear, square, shift) = (read("linear")?, read("square")?, read("shift")?);
    let (weight, scale, bias) = (read("weight")?, read("scale")?, read("bias")?);
    let t2 = tape.mul(t, t)?;
    let (first, second) = (tape.scale_by(linear, t)?, tape.scale_by(square, t2)?);
    let x = tape.add(first, second)?;
    let x = tape.add(x, shift)?;
    let xhat = tape.normalise(x, 0.25)?;
    let scale = tape.broadcast_to(scale, shape)?;
    let y = tape.mul(xhat, scale)?;
    let y = tape.add_bias(y, bias)?;
    let y = tape.mul(y, weight)?;
    tape.sum_all(y)
}

/// Derivatives of the orders 0, 1, … by the given walks, at several t.
fn derivatives(walks: &[Walk], fuse: bool, at: &[f64]) -> Vec<Vec<f64>> {
    let mut tape = Tape::new();
    let t = tape.input("t", Kind::Float, []).unwrap();
    let mut y = function(&mut tape, t).unwrap();
    tape.output("0", y).unwrap();
    for (i, walk) in walks.iter().enumerate() {
        y = walk(&mut tape, y, t).unwrap();
        tape.output(&(i + 1).to_string(), y).unwrap();
    }
    let mut session = Session::new(Box::new(Cpu::<f64>::new(1).unwrap()));
    let program = session.compile(&tape, Options { fuse }).unwrap();
    for (name, values) in given() {
        session.feed(&program, name, Values::Float(&values)).unwrap();
    }
    let mut all = Vec::new();
    for t in at {
        session.feed(&program, "t", Values::Float(&[*t])).unwrap();
        session.run(&program).unwrap();
        all.push((0..=walks.len()).map(|i| session.fetch(&program, &i.to_string()).unwrap()[0]).collect());
    }
    all
}

fn close(got: f64, want: f64, tolerance: f64, what: &str) {
    assert!((got - want).abs() <= tolerance, "{what}: {got}, not {want}");
}

#[test]
fn second_derivatives_by_all_four_orders_of_the_walks() {
    for (inner, first) in WALKS {
        for (outer, second) in WALKS {
            for fuse in [true, false] {
                let got = &derivatives(&[first, second], fuse, &[AT])[0];
                let what = format!("{outer} of {inner}, fuse {fuse}");
                close(got[0], VALUE, 1e-12, &format!("value, {what}"));
                close(got[1], FIRST, 1e-12, &format!("first, {what}"));
                close(got[2], SECOND, 1e-12, &format!("second, {what}"));
            }
        }
    }
}

#[test]
fn third_derivatives_by_all_eight_orders_against_differences_of_the_second() {
    // The error of this quotient is of fourth order in h.
    let h = 1e-2;
    let seconds = derivatives(&[vjp, jvp], true, &[AT + h, AT - h, AT + 2.0 * h, AT - 2.0 * h]);
    let s: Vec<f64> = seconds.iter().map(|d| d[2]).collect();
    let want = (8.0 * (s[0] - s[1]) - (s[2] - s[3])) / (12.0 * h);
    assert!(want.abs() > 1e-2, "a third derivative of {want} tells nothing");
    for (a, first) in WALKS {
        for (b, second) in WALKS {
            for (c, third) in WALKS {
                let got = derivatives(&[first, second, third], true, &[AT])[0][3];
                close(got, want, 1e-8, &format!("{c} of {b} of {a}"));
            }
        }
    }
}

#[test]
fn the_public_check_agrees_to_third_order() {
    let given = given();
    let given: Vec<(&str, Values)> = given.iter().map(|(name, v)| (*name, Values::Float(v))).collect();
    let point = Point { variables: &[(Shape::scalar(), vec![AT])], given: &given };
    let worst = check_grads(&|tape, t| Ok(vec![function(tape, t[0])?]), point, 3, Modes::Both).unwrap();
    assert!(worst < 1e-8, "{worst}");
}
