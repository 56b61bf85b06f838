//! What lies at the edge of numbers and of memory: NaN stays NaN, nothing overflows in silence, and
//! what cannot be is an error, on every machine.

mod common;

use std::collections::HashMap;

use common::machines::{Machine, cpus, one_simulator};
use metatape::backend::cpu::{Cpu, MOST_THREADS};
use metatape::program::{Options, Session, Values};
use metatape::seed::Stream;
use metatape::tape::{First, Geometry, Init, Kind, Scalar, Strided, Tape, Unary, Var, Window};

fn first(init: Init) -> First {
    First { init, stream: Stream::Classifier, counter: 0 }
}

/// The outputs of a program of the input `x`, on all machines that there are, fused and not.
fn each(shape: &[usize], x: &[f64], record: impl Fn(&mut Tape, Var) -> Var, see: impl Fn(&str, &[f64])) {
    let simulators = if cfg!(simulator) { one_simulator() } else { Vec::new() };
    for Machine { name, backend, .. } in cpus().into_iter().chain(simulators) {
        let mut session = Session::new(backend);
        for fuse in [true, false] {
            let mut tape = Tape::new();
            let input = tape.input("x", Kind::Float, shape.to_vec()).unwrap();
            let y = record(&mut tape, input);
            tape.output("y", y).unwrap();
            let program = session.compile(&tape, Options { fuse }).unwrap();
            session.feed(&program, "x", Values::Float(x)).unwrap();
            session.run(&program).unwrap();
            see(&format!("{name}, fused: {fuse}"), &session.fetch(&program, "y").unwrap());
        }
    }
}

#[test]
fn relu_keeps_what_is_not_a_number() {
    let x = [-1.0, f64::NAN, 2.0, -0.0];
    let relu = |tape: &mut Tape, x| tape.relu(x).unwrap();
    each(&[4], &x, relu, |what, y| {
        assert_eq!((y[0], y[1].is_nan(), y[2], y[3]), (0.0, true, 2.0, 0.0), "{what}: {y:?}");
    });
    // And a pool behind it, or before it, as a plan may have it.
    let pooled = |tape: &mut Tape, x| {
        let relu = tape.relu(x).unwrap();
        tape.max_pool(relu, Window { size: 2, stride: 2 }).unwrap()
    };
    each(&[1, 2, 2, 1], &[5.0, f64::NAN, 1.0, 2.0], pooled, |what, y| {
        assert!(y[0].is_nan(), "{what}: {y:?}")
    });
}

#[test]
fn logits_that_are_no_numbers_are_no_hit() {
    let (nan, none) = (f64::NAN, f64::NEG_INFINITY);
    let rows =
        [[nan, 0.0, 1.0], [0.0, nan, 1.0], [none, none, none], [f64::INFINITY, 0.0, 0.0], [0.0, 2.0, 1.0]];
    let simulators = if cfg!(simulator) { one_simulator() } else { Vec::new() };
    for Machine { name, backend, .. } in cpus().into_iter().chain(simulators) {
        let mut session = Session::new(backend);
        let mut tape = Tape::new();
        let z = tape.input("z", Kind::Float, [5, 3]).unwrap();
        let y = tape.input("y", Kind::Int, [5]).unwrap();
        let hit = tape.correct(z, y).unwrap();
        tape.output("hit", hit).unwrap();
        let program = session.compile(&tape, Options::default()).unwrap();
        session.feed(&program, "z", Values::Float(rows.as_flattened())).unwrap();
        session.feed(&program, "y", Values::Int(&[0, 2, 0, 0, 1])).unwrap();
        session.run(&program).unwrap();
        assert_eq!(session.fetch(&program, "hit").unwrap(), [0.0, 0.0, 0.0, 1.0, 1.0], "{name}");
    }
}

#[test]
fn factors_that_have_no_product_are_not_joined() {
    let twice = |by: f64| {
        move |tape: &mut Tape, x: Var| {
            let once = tape.scale(x, by).unwrap();
            tape.scale(once, by).unwrap()
        }
    };
    for (x, by, want) in [(1e-30, 1e25, 1e20), (1e30, 1e-25, 1e-20), (2.0, 3.0, 18.0)] {
        each(&[1], &[x], twice(by), |what, y| {
            assert!((y[0] / want - 1.0).abs() < 1e-2, "{what}: {} for {want}", y[0]);
        });
    }
}

#[test]
fn a_variance_beyond_all_numbers_is_not_zero() {
    let x = [-1e160, 1e160, 2e160, 3e160];
    let mut tape = Tape::new();
    let input = tape.input("x", Kind::Float, [4, 1]).unwrap();
    let variance = tape.moments(input).unwrap().1;
    tape.output("variance", variance).unwrap();
    let mut session = Session::new(Box::new(Cpu::<f64>::new(1).unwrap()));
    let program = session.compile(&tape, Options::default()).unwrap();
    session.feed(&program, "x", Values::Float(&x)).unwrap();
    session.run(&program).unwrap();
    let found = session.fetch(&program, "variance").unwrap();
    assert!(!found[0].is_finite(), "{found:?}");
}

#[test]
fn shapes_that_no_memory_holds_are_errors() {
    let mut tape = Tape::new();
    let huge = 1_usize << 32;
    let says = |result: metatape::Result<Var>, part: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    says(tape.input("x", Kind::Float, [huge, huge]), "more than any memory holds");
    says(tape.state("s", Kind::Byte, [huge, huge]), "more than any memory holds");
    let two = tape.input("two", Kind::Float, [2]).unwrap();
    says(tape.broadcast(two, 0, 1, &[(1 << 63) + 1, 2].into()), "more than any memory holds");
    let image = tape.input("image", Kind::Float, [1, 3, 3, 1]).unwrap();
    let kernel = tape.input("kernel", Kind::Float, [3, 3, 1, 1]).unwrap();
    says(tape.conv(image, kernel, Geometry { stride: 1, pad: 1 << 63, groups: 1 }), "must fit");
    let strided = Strided { stride: 1, before: usize::MAX, after: 0 };
    assert!(tape.subsample(image, strided).is_err());
    let none = tape.input("none", Kind::Float, [2, 0]).unwrap();
    says(tape.softmax(none), "k > 0");
}

#[test]
fn first_values_fit_or_are_refused() {
    let mut tape = Tape::new();
    for (kind, init) in [
        (Kind::Float, Init::Given(vec![7.0])),
        (Kind::Float, Init::Given(vec![7.0; 9])),
        (Kind::Float, Init::Uniform(-1.0)),
        (Kind::Float, Init::Uniform(f64::NAN)),
        (Kind::Float, Init::Normal(f64::INFINITY)),
        (Kind::Float, Init::kaiming(0)),
        (Kind::Int, Init::Constant(1.0)),
    ] {
        let error = tape.state_from("unfit", kind, [3], first(init.clone())).unwrap_err();
        assert!(
            error.to_string().contains("its first value is not one finite number for each of [3]"),
            "{init:?}: {error}"
        );
    }
    assert!(tape.state_from("fits", Kind::Float, [3], first(Init::Given(vec![1.0, 2.0, 3.0]))).is_ok());
}

#[test]
fn what_was_refused_is_refused_again() {
    let mut session = Session::new(Box::new(Cpu::<f64>::new(1).unwrap()));
    session.begin_with(HashMap::from([("q".to_owned(), vec![1.0; 5])]));
    let mut tape = Tape::new();
    let q = tape.state("q", Kind::Float, [1]).unwrap();
    tape.output("q", q).unwrap();
    for _ in 0..2 {
        assert!(session.compile(&tape, Options::default()).is_err());
    }
}

#[test]
fn more_threads_or_pixels_than_there_can_be_are_errors() {
    for threads in [MOST_THREADS + 1, usize::MAX] {
        let error = Cpu::<f32>::new(threads).err().unwrap().to_string();
        assert!(error.contains(&format!("{threads} threads")), "{error}");
    }
    let mut tape = Tape::new();
    tape.input("pixels", Kind::Byte, [1 << 46]).unwrap();
    let x = tape.input("x", Kind::Float, [1]).unwrap();
    tape.output("x", x).unwrap();
    let mut session = Session::new(Box::new(Cpu::<f32>::new(1).unwrap()));
    let refused = session.compile(&tape, Options::default());
    assert!(refused.err().is_some_and(|error| error.to_string().contains("memory")));
}

#[test]
fn one_hot_is_one_and_nothing_else() {
    let simulators = if cfg!(simulator) { one_simulator() } else { Vec::new() };
    for Machine { name, backend, .. } in cpus().into_iter().chain(simulators) {
        let mut session = Session::new(backend);
        for classes in [1, 2, 3, 7, 10] {
            let mut tape = Tape::new();
            let labels = tape.input("labels", Kind::Int, [3]).unwrap();
            let rows = tape.one_hot(labels, classes).unwrap();
            tape.output("rows", rows).unwrap();
            let program = session.compile(&tape, Options::default()).unwrap();
            let y = [0, classes as i32 - 1, classes as i32 / 2];
            session.feed(&program, "labels", Values::Int(&y)).unwrap();
            session.run(&program).unwrap();
            let want = y.iter().flat_map(|y| (0..classes as i32).map(move |j| f64::from(j == *y)));
            assert_eq!(
                session.fetch(&program, "rows").unwrap(),
                want.collect::<Vec<_>>(),
                "{name}, {classes}"
            );
        }
    }
}

#[test]
fn a_power_of_nought_is_flat_everywhere() {
    let slope = |tape: &mut Tape, x: Var| {
        let y = tape.unary(Unary::Pow(Scalar(0.0)), x).unwrap();
        let sum = tape.sum_all(y).unwrap();
        tape.gradient(sum, &[x]).unwrap()[0]
    };
    each(&[3], &[0.0, 2.0, -1.0], slope, |what, y| assert_eq!(y, [0.0; 3], "{what}"));
}

/// A stride beyond the image is one place, as any other beyond it.
#[test]
fn strides_beyond_the_image_are_one_place() {
    let x: Vec<f64> = (0..16).map(f64::from).collect();
    for stride in [5, 1000, usize::MAX] {
        let pooled = |tape: &mut Tape, x: Var| tape.max_pool(x, Window { size: 2, stride }).unwrap();
        let convolved = |tape: &mut Tape, x: Var| {
            let w = tape.constant(1.0, [2, 2, 1, 1]);
            let y = tape.conv(x, w, Geometry { stride, pad: 1, groups: 1 }).unwrap();
            let sum = tape.sum_all(y).unwrap();
            let back = tape.gradient(sum, &[x]).unwrap()[0];
            let back = tape.reshape(back, [16]).unwrap();
            let first = tape.row(back, 0).unwrap();
            let y = tape.reshape(y, []).unwrap();
            tape.stack(&[y, first]).unwrap()
        };
        each(&[1, 4, 4, 1], &x, pooled, |what, y| assert_eq!(y, [5.0], "{what}, stride {stride}"));
        each(&[1, 4, 4, 1], &x, convolved, |what, y| assert_eq!(y, [0.0, 1.0], "{what}, stride {stride}"));
    }
}
