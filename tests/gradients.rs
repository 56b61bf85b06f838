//! Layer 2: derivatives of first and second order against finite differences, over all mixes of
//! forward and reverse mode, for every operation; and what must not have a derivative. Then what
//! the tape itself promises: sharing and a readable print.

mod common;

use std::collections::BTreeSet;

use common::{OP_KINDS, Size, cases, declare, op_kind, rng};
use metatape::backend::cpu::Cpu;
use metatape::check::{Modes, Point, check_grads};
use metatape::program::{Options, Session, Values};
use metatape::tape::{Kind, Op, Tape, Var, Window};
use metatape::{Error, Result};

/// Of the cases' samples.
const LABELS: [i32; 2] = [1, 2];

#[test]
fn every_operation_to_second_order_in_all_mixes_of_modes() {
    let mut rng = rng(1);
    for case in cases(Size { n: 2, h: 4, c: 3 }) {
        if case.smooth {
            let variables: Vec<_> = case.shapes().into_iter().zip(case.values(&mut rng)).collect();
            let point = Point { variables: &variables, given: &[("labels", Values::Int(&LABELS))] };
            let worst = check_grads(&|tape, v| Ok(vec![(case.build)(tape, v)?]), point, 2, Modes::Both);
            worst.unwrap_or_else(|e| panic!("{}: {e}", case.name));
        }
    }
}

/// A rule that is wrong is found, and named by its walk; so is one that is right to first order
/// only.
#[test]
fn the_check_finds_a_wrong_derivative() {
    let variables = [([3].into(), vec![0.5, -0.7, 1.1])];
    let point = Point { variables: &variables, given: &[] };
    // x·detach(x): half of the derivative is missing.
    let wrong = |tape: &mut Tape, x: &[Var]| {
        let held = tape.detach(x[0])?;
        Ok(vec![tape.mul(x[0], held)?])
    };
    for (modes, walk) in [(Modes::Forward, "jvp"), (Modes::Reverse, "vjp"), (Modes::Both, "jvp")] {
        let error = check_grads(&wrong, point, 1, modes).unwrap_err();
        assert!(matches!(error, Error::Numeric(_)) && error.to_string().starts_with(walk), "{error}");
    }
    // 2x·detach(x) − detach(x)²: the right value and slope, but no second derivative.
    let flat = |tape: &mut Tape, x: &[Var]| {
        let held = tape.detach(x[0])?;
        let (product, square) = (tape.mul(x[0], held)?, tape.mul(held, held)?);
        let double = tape.scale(product, 2.0)?;
        Ok(vec![tape.sub(double, square)?])
    };
    assert!(check_grads(&flat, point, 1, Modes::Both).unwrap() < 1e-8);
    let error = check_grads(&flat, point, 2, Modes::Reverse).unwrap_err().to_string();
    assert!(error.starts_with("vjp, vjp: "), "{error}");
    // What has no derivatives is not right for that.
    for (of, given) in [(true, &variables[..0]), (false, &variables[..])] {
        let none = |_: &mut Tape, x: &[Var]| Ok(if of { x.to_vec() } else { Vec::new() });
        let error = check_grads(&none, Point { variables: given, given: &[] }, 1, Modes::Both).unwrap_err();
        assert!(error.to_string().contains("no derivative to check"), "{error}");
    }
}

#[test]
fn the_table_holds_every_operation() {
    let mut seen = BTreeSet::new();
    for case in cases(Size { n: 2, h: 5, c: 3 }) {
        let mut tape = Tape::new();
        let x = declare(&mut tape, &case.shapes()).unwrap();
        let y = (case.build)(&mut tape, &x).unwrap();
        // A case is of the operation that it ends in.
        seen.insert(op_kind(&tape.node(y).op));
    }
    let missing: Vec<_> = OP_KINDS.iter().filter(|k| !seen.contains(*k)).collect();
    assert!(missing.is_empty(), "operations without a case: {missing:?}");
}

/// Checks that both walks through `y` refuse, and name the operation.
fn refuses(tape: &mut Tape, x: Var, y: Var, operation: &str) {
    let (tangent, cotangent) =
        (tape.constant(1.0, tape.shape(x).clone()), tape.constant(1.0, tape.shape(y).clone()));
    let errors =
        [tape.jvp(&[(x, tangent)], &[y]).unwrap_err(), tape.vjp(&[(y, cotangent)], &[x]).unwrap_err()];
    for error in errors {
        assert!(matches!(&error, Error::MissingRule { op, .. } if op == operation), "{error:?}");
        let message = error.to_string();
        assert!(message.contains(&format!("`{operation}`")) && message.contains(": "), "{message}");
    }
}

#[test]
fn an_operation_without_a_rule_is_an_error_that_names_it() {
    let mut tape = Tape::new();
    let x = tape.input("x", Kind::Float, [4, 3]).unwrap();
    let moments = tape.push(Op::Moments, &[x], None).unwrap();
    let sum = tape.sum_all(moments).unwrap();
    refuses(&mut tape, x, sum, "moments");

    let labels = tape.input("labels", Kind::Int, [4]).unwrap();
    let weights = tape.input("weights", Kind::Float, [4]).unwrap();
    let residual = tape.push(Op::WeightedResidual, &[x, labels, weights], None).unwrap();
    let squared = tape.mul(residual, residual).unwrap();
    refuses(&mut tape, x, squared, "weighted residual");
    refuses(&mut tape, weights, squared, "weighted residual");

    // Where nothing flows through it, the missing rule is not asked for.
    let other = tape.scale(x, 2.0).unwrap();
    let total = tape.sum_all(other).unwrap();
    assert!(tape.gradient(total, &[x]).is_ok());
}

#[test]
fn detach_labels_and_conditions_carry_no_derivative() {
    let mut tape = Tape::new();
    let x = tape.input("x", Kind::Float, [2, 4, 4, 3]).unwrap();
    let v = tape.input("v", Kind::Float, [2, 4, 4, 3]).unwrap();
    let one = tape.constant(1.0, [2, 4, 4, 3]);
    let detached = tape.detach(x).unwrap();
    let masked = tape.mask(v, x).unwrap();
    let window = Window { size: 2, stride: 2 };
    let selected = tape.push(Op::Select(window), &[v, x], None).unwrap();
    let unselected = tape.push(Op::Unselect(window), &[selected, x], None).unwrap();
    for y in [detached, masked, selected, unselected] {
        let ones = tape.constant(1.0, tape.shape(y).clone());
        let name = tape.node(y).op.name();
        assert_eq!(tape.jvp(&[(x, one)], &[y]).unwrap(), [None], "{name}");
        assert_eq!(tape.vjp(&[(y, ones)], &[x]).unwrap(), [None], "{name}");
        let steered = tape.node(y).args.iter().position(|a| *a == x).unwrap();
        assert!(matches!(tape.jacobian_block(y, steered), Err(Error::MissingRule { .. })), "{name}");
    }
    // x ∘ detach(x): the derivative is x, not 2x.
    let product = tape.mul(x, detached).unwrap();
    let sum = tape.sum_all(product).unwrap();
    let gradient = tape.gradient(sum, &[x]).unwrap()[0];
    assert_eq!(gradient, detached);
    // A label is no place for a (co)tangent.
    let labels = tape.input("labels", Kind::Int, [4]).unwrap();
    let tangent = tape.constant(1.0, [4]);
    let error = tape.jvp(&[(labels, tangent)], &[sum]).unwrap_err().to_string();
    assert!(error.contains("Int"), "{error}");
}

#[test]
fn relu_has_slope_zero_at_zero() {
    let mut tape = Tape::new();
    let x = tape.input("x0", Kind::Float, [4]).unwrap();
    let y = tape.relu(x).unwrap();
    let one = tape.constant(1.0, [4]);
    let (forward, back) =
        (tape.jvp(&[(x, one)], &[y]).unwrap()[0].unwrap(), tape.vjp(&[(y, one)], &[x]).unwrap()[0].unwrap());
    tape.output("forward", forward).unwrap();
    tape.output("back", back).unwrap();
    for fuse in [true, false] {
        let backend = Box::new(Cpu::<f64>::new(1).unwrap());
        let values =
            common::evaluate(backend, &tape, Options { fuse }, &[vec![-1.0, 0.0, -0.0, f64::MIN_POSITIVE]]);
        assert_eq!(values, [[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]]);
    }
}

/// Values and slopes where a function has a kink, or its terms leave the range of numbers.
#[test]
fn kinks_and_extremes_are_as_documented() {
    type Function = fn(&mut Tape, Var) -> Result<Var>;
    let inf = f64::INFINITY;
    let cases: [(&str, Function, &[[f64; 3]]); 5] = [
        // x, f(x), f′(x)
        ("abs", Tape::abs, &[[0.0, 0.0, 0.0], [-2.0, 2.0, -1.0], [3.0, 3.0, 1.0]]),
        ("tanh", Tape::tanh, &[[0.0, 0.0, 1.0], [800.0, 1.0, 0.0], [-800.0, -1.0, 0.0]]),
        ("softplus", Tape::softplus, &[[-800.0, 0.0, 0.0], [800.0, 800.0, 1.0], [0.0, 2f64.ln(), 0.5]]),
        ("gelu", Tape::gelu, &[[-40.0, 0.0, 0.0], [40.0, 40.0, 1.0], [0.0, 0.0, 0.5]]),
        ("power", |t, x| t.powf(x, -2.0), &[[0.0, inf, -inf], [2.0, 0.25, -0.25], [-2.0, 0.25, 0.25]]),
    ];
    for (name, f, points) in cases {
        let mut tape = Tape::new();
        let x = tape.input("x0", Kind::Float, [3]).unwrap();
        let y = f(&mut tape, x).unwrap();
        let one = tape.constant(1.0, [3]);
        let slope = tape.vjp(&[(y, one)], &[x]).unwrap()[0].unwrap();
        tape.output("y", y).unwrap();
        tape.output("slope", slope).unwrap();
        let values = [points.iter().map(|p| p[0]).collect()];
        for fuse in [true, false] {
            let cpu = Box::new(Cpu::<f64>::new(1).unwrap());
            let got = common::evaluate(cpu, &tape, Options { fuse }, &values);
            for (i, [x, want, slope]) in points.iter().enumerate() {
                assert!(
                    got[0][i] == *want || (got[0][i] - want).abs() < 1e-15,
                    "{name}({x}) = {}",
                    got[0][i]
                );
                assert!(
                    got[1][i] == *slope || (got[1][i] - slope).abs() < 1e-15,
                    "{name}′({x}) = {}",
                    got[1][i]
                );
            }
        }
    }
    // Equal arguments of max and min: the first one takes the derivative. A number that is none
    // stays none.
    for f in [Tape::maximum, Tape::minimum] {
        let mut tape = Tape::new();
        let x = ["x0", "x1"].map(|name| tape.input(name, Kind::Float, [3]).unwrap());
        let y = f(&mut tape, x[0], x[1]).unwrap();
        let one = tape.constant(1.0, [3]);
        let back = tape.vjp(&[(y, one)], &x).unwrap();
        tape.output("y", y).unwrap();
        tape.output("first", back[0].unwrap()).unwrap();
        tape.output("second", back[1].unwrap()).unwrap();
        let values = [vec![2.0, f64::NAN, 1.0], vec![2.0, 1.0, f64::NAN]];
        let cpu = Box::new(Cpu::<f64>::new(1).unwrap());
        let got = common::evaluate(cpu, &tape, Options::default(), &values);
        assert!(got[0][0] == 2.0 && got[0][1].is_nan() && got[0][2].is_nan(), "{got:?}");
        assert_eq!((got[1][0], got[2][0]), (1.0, 0.0));
    }
}

#[test]
fn targets_and_seeds_are_independent() {
    let mut tape = Tape::new();
    let x = tape.input("x", Kind::Float, []).unwrap();
    let y = tape.scale(x, 3.0).unwrap();
    let z = tape.mul(x, y).unwrap();
    let (one, two) = (tape.constant(1.0, []), tape.constant(2.0, []));
    // ∂z/∂x with y held, and ∂z/∂y.
    assert_eq!(tape.vjp(&[(z, one)], &[x, y]).unwrap(), [Some(y), Some(x)]);
    // y takes its own tangent alone: 1·y + x·2.
    let moved = tape.jvp(&[(x, one), (y, two)], &[z, y]).unwrap();
    let twice = tape.scale(x, 2.0).unwrap();
    let sum = tape.add(y, twice).unwrap();
    assert_eq!(moved, [Some(sum), Some(two)]);
    // What does not depend on a target has no cotangent; `gradient` makes zeros of it.
    let other = tape.input("other", Kind::Float, [3]).unwrap();
    assert_eq!(tape.vjp(&[(z, one)], &[other]).unwrap(), [None]);
    let zeros = tape.gradient(z, &[other]).unwrap()[0];
    assert_eq!((tape.node(zeros).op.name().as_str(), &tape.shape(zeros)[..]), ("constant 0", &[3][..]));
    let error = tape.gradient(other, &[x]).unwrap_err().to_string();
    assert!(error.contains("one number") && error.contains("[3]"), "{error}");
}

#[test]
fn recording_the_same_operation_twice_gives_the_same_value() {
    let mut tape = Tape::new();
    let a = tape.input("a", Kind::Float, [2, 3]).unwrap();
    let b = tape.input("b", Kind::Float, [2, 3]).unwrap();
    let sum = tape.add(a, b).unwrap();
    let product = tape.mul(a, b).unwrap();
    let length = tape.len();
    assert_eq!(tape.add(a, b).unwrap(), sum);
    assert_eq!(tape.add(b, a).unwrap(), sum);
    assert_eq!(tape.mul(b, a).unwrap(), product);
    assert_eq!(tape.input("a", Kind::Float, [2, 3]).unwrap(), a);
    assert_eq!(tape.len(), length, "nothing was recorded again");
    // Different numbers, shapes and arguments are different values; 0 and −0 too.
    assert_ne!(tape.scale(a, 2.0).unwrap(), tape.scale(a, 3.0).unwrap());
    assert_ne!(tape.mask(a, b).unwrap(), tape.mask(b, a).unwrap());
    assert_ne!(tape.constant(0.0, [2]), tape.constant(-0.0, [2]));
    let (wide, tall) = (tape.reshape(a, [6, 1]).unwrap(), tape.reshape(a, [1, 6]).unwrap());
    assert_ne!(wide, tall);
    let error = tape.input("a", Kind::Float, [3, 2]).unwrap_err().to_string();
    assert!(error.contains("a") && error.contains("[2, 3]") && error.contains("[3, 2]"), "{error}");
    // A second derivative walk over the same values adds nothing.
    let loss = tape.sum_all(product).unwrap();
    let first = tape.gradient(loss, &[a, b]).unwrap();
    let length = tape.len();
    assert_eq!(tape.gradient(loss, &[a, b]).unwrap(), first);
    assert_eq!(tape.len(), length, "the walk was recorded again");
}

#[test]
fn the_printed_tape_reads_as_a_program() {
    let mut tape = Tape::new();
    tape.section("losses");
    let x = tape.input("x", Kind::Float, [4, 3]).unwrap();
    let w = tape.state("w", Kind::Float, [3, 2]).unwrap();
    let labels = tape.input("y", Kind::Int, [4]).unwrap();
    let logits = tape.matmul(x, w).unwrap();
    let losses = tape.cross_entropy(logits, labels).unwrap();
    let loss = tape.mean_all(losses).unwrap();
    tape.section("step");
    let gradient = tape.gradient(loss, &[w]).unwrap()[0];
    let step = tape.scale(gradient, -0.1).unwrap();
    let next = tape.add(w, step).unwrap();
    tape.output("loss", loss).unwrap();
    tape.update(w, next).unwrap();
    let expected = "\
# losses
x = input : [4, 3]
w = state : [3, 2]
y = input : [4] ints
%3 = gemm x, w : [4, 2]
%4 = cross-entropy %3, y : [4]
%5 = sum axes 0..1 %4 : []
%6 = scale 0.25 %5 : []
# step
%7 = constant 1 : []
%8 = constant 0.25 : []
%9 = constant 0.25 : [4]
%10 = residual %3, y : [4, 2]
%11 = constant 0.25 : [4, 2]
%12 = scale 0.25 %10 : [4, 2]
%13 = gemm→B (A, C ↦ Aᵀ·C) x, %12 : [3, 2]
%14 = scale -0.1 %13 : [3, 2]
%15 = add w, %14 : [3, 2]
output loss = %6
update w ← %15
";
    assert_eq!(tape.to_string(), expected);
}

#[test]
fn errors_of_the_tape_name_the_operation_and_both_shapes() {
    let mut tape = Tape::new();
    let a = tape.input("a", Kind::Float, [2, 3]).unwrap();
    let b = tape.input("b", Kind::Float, [4, 5]).unwrap();
    let length = tape.len();
    for (error, name) in [
        (tape.add(a, b).unwrap_err(), "add"),
        (tape.matmul(a, b).unwrap_err(), "gemm"),
        (tape.mul(a, b).unwrap_err(), "mul"),
        (tape.mask(a, b).unwrap_err(), "mask"),
    ] {
        let message = error.to_string();
        assert!([name, "[2, 3]", "[4, 5]"].iter().all(|part| message.contains(part)), "{message}");
    }
    let scalar = tape.input("scalar", Kind::Float, []).unwrap();
    let message = tape.normalise(scalar, 1e-5).unwrap_err().to_string();
    assert!(message.contains("normalise") && message.contains("axis"), "{message}");
    assert_eq!(tape.len(), length + 1, "nothing but the scalar was recorded");
    let mut session = Session::new(Box::new(Cpu::<f64>::new(1).unwrap()));
    tape.output("a", a).unwrap();
    let program = session.compile(&tape, Options::default()).unwrap();
    let error = session.feed(&program, "a", Values::Float(&[1.0])).unwrap_err().to_string();
    assert!(error.contains("`a`") && error.contains("[2, 3]"), "{error}");
}
