//! What a plan promises: dead code is not run, entrywise work is fused, memory is reused, and
//! states are updated in place without anyone seeing it.

mod common;

use common::{Domain, numbers, rng};
use metatape::backend::cpu::Cpu;
use metatape::program::{Instr, Kernel, Options, Outcome, Place, Plan, Program, Session, Values};
use metatape::tape::{GatherSpec, Geometry, Kind, Op, Scalar, Shape, Tape, Unary, Var, Window};
use rand::RngExt;
use rand_pcg::Pcg64;

const BOTH: [Options; 2] = [Options { fuse: true }, Options { fuse: false }];

fn session() -> Session {
    Session::new(Box::new(Cpu::<f64>::new(2).unwrap()))
}

fn names(tape: &Tape, options: Options) -> Vec<&'static str> {
    Plan::new(tape, options).unwrap().instrs.iter().map(|i| i.kernel.name()).collect()
}

fn state(tape: &mut Tape, name: &str, shape: impl Into<Shape>) -> Var {
    tape.state(name, Kind::Float, shape).unwrap()
}

/// Runs `tape` once on states of the given values; reads all states and outputs afterwards.
fn run_once(tape: &Tape, options: Options, states: &[(&str, &[f64])]) -> (Session, Program) {
    let mut session = session();
    let program = session.compile(tape, options).unwrap();
    for (name, values) in states {
        session.write_state(name, Values::Float(values)).unwrap();
    }
    session.run(&program).unwrap();
    (session, program)
}

#[test]
fn dead_code_is_not_run() {
    let mut tape = Tape::new();
    let x = tape.input("x", Kind::Float, [4, 4]).unwrap();
    let unused = tape.matmul(x, x).unwrap();
    tape.softmax(unused).unwrap();
    let y = tape.scale(x, 2.0).unwrap();
    tape.output("y", y).unwrap();
    for options in BOTH {
        assert_eq!(names(&tape, options), ["entrywise"]);
    }
    // An input that nothing reads can still be fed: callers bind by name.
    tape.input("unread", Kind::Float, [2]).unwrap();
    let mut session = session();
    let program = session.compile(&tape, Options::default()).unwrap();
    session.feed(&program, "unread", Values::Float(&[1.0, 2.0])).unwrap();
}

#[test]
fn a_chain_of_entrywise_operations_is_one_kernel() {
    let mut tape = Tape::new();
    let x = tape.input("x0", Kind::Float, [6, 5]).unwrap();
    let b = tape.input("x1", Kind::Float, [5]).unwrap();
    let y = tape.add_bias(x, b).unwrap();
    let y = tape.relu(y).unwrap();
    let y = tape.sigmoid(y).unwrap();
    let y = tape.mul(y, x).unwrap();
    let y = tape.offset(y, 0.5).unwrap();
    let sum = tape.sum(y, 0, 1).unwrap();
    tape.output("y", y).unwrap();
    tape.output("sum", sum).unwrap();
    assert_eq!(names(&tape, BOTH[0]), ["entrywise"]);
    assert!(names(&tape, BOTH[1]).len() >= 6, "without fusion, one kernel an operation");
    let values: Vec<Vec<f64>> = [30, 5].map(|n| numbers(n, Domain::Signed, &mut rng(3))).into();
    let [fused, plain] =
        BOTH.map(|o| common::evaluate(Box::new(Cpu::<f64>::new(2).unwrap()), &tape, o, &values));
    for (f, p) in fused.iter().flatten().zip(plain.iter().flatten()) {
        assert!((f - p).abs() < 1e-14, "{f} fused, {p} without");
    }
}

#[test]
fn a_sum_of_products_accumulates() {
    let mut tape = Tape::new();
    let a = tape.input("a", Kind::Float, [4, 4]).unwrap();
    let b = tape.input("b", Kind::Float, [4, 4]).unwrap();
    let (p, q) = (tape.matmul(a, b).unwrap(), tape.matmul(b, a).unwrap());
    let sum = tape.add(p, q).unwrap();
    tape.output("sum", sum).unwrap();
    assert_eq!(names(&tape, BOTH[0]), ["gemm", "gemm"]);
    assert_eq!(names(&tape, BOTH[1]), ["gemm", "gemm", "entrywise"]);
}

/// Forward and backward through batch norm, scale and bias: of full-size tensors the result and the
/// gradient are written, with ReLU also the masked cotangent, which three kernels read; never x̂.
#[test]
fn batch_norm_stores_no_normalised_tensor() {
    for (relu, expected) in [(false, 2), (true, 3)] {
        let shape: Shape = [3, 6, 6, 5].into();
        let mut tape = Tape::new();
        let x = tape.input("x", Kind::Float, shape.clone()).unwrap();
        let cotangent = tape.input("cotangent", Kind::Float, shape.clone()).unwrap();
        let (scale, bias) = (state(&mut tape, "scale", [5]), state(&mut tape, "bias", [5]));
        let xhat = tape.normalise(x, 1e-5).unwrap();
        let full = tape.broadcast_to(scale, shape.clone()).unwrap();
        let y = tape.mul(xhat, full).unwrap();
        let y = tape.add_bias(y, bias).unwrap();
        let y = if relu { tape.relu(y).unwrap() } else { y };
        let back = tape.vjp(&[(y, cotangent)], &[x, scale, bias]).unwrap();
        tape.output("y", y).unwrap();
        for (name, gradient) in ["dx", "dscale", "dbias"].iter().zip(back) {
            tape.output(name, gradient.unwrap()).unwrap();
        }
        let written = |options| {
            let plan = Plan::new(&tape, options).unwrap();
            plan.instrs.iter().flat_map(|i| i.outs.clone()).filter(|o| o.len == shape.count()).count()
        };
        assert_eq!(written(BOTH[0]), expected, "relu {relu}: full-size tensors written");
        assert!(written(BOTH[1]) > expected + 1, "relu {relu}: x̂ and its products, without fusion");
        let plan = Plan::new(&tape, BOTH[0]).unwrap();
        let sums = |k: &Kernel| match k {
            Kernel::Group(g) => g.outcomes.iter().filter(|o| matches!(o, Outcome::Sum(..))).count(),
            _ => 0,
        };
        let total: usize = plan.instrs.iter().map(|i| sums(&i.kernel)).sum();
        assert_eq!(total, 2, "relu {relu}: Σv and Σx̂v, each once");
    }
}

/// As the tangent of a convolution is: one kernel that writes the sum once. A third product is
/// added to it, and one of other extents is a kernel of its own.
#[test]
fn two_convolutions_that_are_added_are_one_kernel() {
    let geometry = Geometry { stride: 1, pad: 1, groups: 1 };
    let mut tape = Tape::new();
    let names = ["x0", "x1", "x2", "x3"];
    let [x, v, w, u] = names.map(|name| {
        let shape = if name < "x2" { [2, 5, 4, 3] } else { [3, 3, 3, 4] };
        tape.input(name, Kind::Float, shape).unwrap()
    });
    let k = tape.input("x4", Kind::Float, [1, 1, 3, 4]).unwrap();
    let first = tape.conv(v, w, geometry).unwrap();
    let second = tape.conv(x, u, geometry).unwrap();
    let two = tape.add(first, second).unwrap();
    let third = tape.conv(v, u, geometry).unwrap();
    let three = tape.add(two, third).unwrap();
    tape.output("three", three).unwrap();
    let other = tape.conv(x, k, Geometry { pad: 0, ..geometry }).unwrap();
    let fourth = tape.conv(x, w, geometry).unwrap();
    let apart = tape.add(other, fourth).unwrap();
    tape.output("apart", apart).unwrap();
    let factors = |instr: &Instr| match instr.kernel {
        Kernel::Contract { accumulate, .. } => (instr.args.len(), accumulate),
        _ => panic!("{} is no convolution", instr.kernel.name()),
    };
    let plan = Plan::new(&tape, BOTH[0]).unwrap();
    let all: Vec<(usize, bool)> = plan.instrs.iter().map(factors).collect();
    assert_eq!(all, [(4, false), (2, true), (2, false), (2, true)]);
    let flops: Vec<u64> = plan.instrs.iter().map(Instr::flops).collect();
    assert_eq!((flops[0], plan.flops()), (2 * flops[1], flops.iter().sum()));
    let values: Vec<Vec<f64>> =
        [120, 120, 108, 108, 12].iter().map(|n| numbers(*n, Domain::Signed, &mut rng(*n as u64))).collect();
    let [fused, plain] =
        BOTH.map(|o| common::evaluate(Box::new(Cpu::<f64>::new(2).unwrap()), &tape, o, &values));
    assert_eq!((fused.len(), fused[0].len()), (2, 160));
    for (f, p) in fused.iter().flatten().zip(plain.iter().flatten()) {
        assert!((f - p).abs() <= 1e-14 * p.abs().max(1.0), "{f} fused, {p} without");
    }
}

/// A window of zeros has no largest number above 0, and one of equal ones has two: what ReLU and
/// the bias do to them must not change what is picked.
#[test]
fn pooling_comes_before_relu_and_bias() {
    let mut tape = Tape::new();
    let x = tape.input("x0", Kind::Float, [3, 4, 6, 5]).unwrap();
    let bias = tape.input("x1", Kind::Float, [5]).unwrap();
    let direction = tape.input("x2", Kind::Float, [3, 4, 6, 5]).unwrap();
    let y = tape.add_bias(x, bias).unwrap();
    let y = tape.relu(y).unwrap();
    let y = tape.max_pool(y, Window { size: 2, stride: 2 }).unwrap();
    let cube = [y, y].iter().try_fold(y, |p, y| tape.mul(p, *y)).unwrap();
    // Its slope is not 0 where y is.
    let sum = tape.add(cube, y).unwrap();
    let loss = tape.sum_all(sum).unwrap();
    let gradient = tape.gradient(loss, &[x, bias]).unwrap();
    let tangents = tape.jvp(&[(x, direction)], &[y, gradient[0], gradient[1]]).unwrap();
    for (i, var) in [y, loss].into_iter().chain(gradient).chain(tangents.into_iter().flatten()).enumerate() {
        tape.output(&format!("y{i}"), var).unwrap();
    }
    let plan = Plan::new(&tape, BOTH[0]).unwrap();
    let touches = |i: &&Instr| i.args.iter().chain(&i.outs).any(|t| t.len == 3 * 4 * 6 * 5);
    let names: Vec<_> = plan.instrs.iter().filter(touches).map(|i| i.kernel.name()).collect();
    assert!(!names.contains(&"entrywise"), "what is entrywise works on what was picked: {names:?}");

    let mut values: Vec<Vec<f64>> =
        [360, 5, 360].iter().map(|n| numbers(*n, Domain::Signed, &mut rng(*n as u64))).collect();
    // Of the first image, windows below 0 after the bias; of the second, equal numbers.
    values[0][..120].iter_mut().for_each(|x| *x -= 10.0);
    values[0][120..240].fill(2.0);
    let [fused, plain] =
        BOTH.map(|o| common::evaluate(Box::new(Cpu::<f64>::new(2).unwrap()), &tape, o, &values));
    assert_eq!((fused.len(), &fused[0]), (7, &plain[0]), "the pooled values to the bit");
    for (i, (f, p)) in fused.iter().zip(&plain).enumerate() {
        assert!(p.iter().any(|v| *v != 0.0), "output {i} shows nothing");
        for (f, p) in f.iter().zip(p) {
            assert!((f - p).abs() <= 1e-14 * p.abs().max(1.0), "output {i}: {f} fused, {p} without");
        }
    }
}

#[test]
fn a_deep_chain_takes_little_memory() {
    for (depth, options) in [(5, BOTH[0]), (60, BOTH[0]), (5, BOTH[1]), (60, BOTH[1])] {
        let mut tape = Tape::new();
        let mut x = tape.input("x", Kind::Float, [32, 32]).unwrap();
        let w = state(&mut tape, "w", [32, 32]);
        for _ in 0..depth {
            x = tape.matmul(x, w).unwrap();
            x = tape.relu(x).unwrap();
        }
        tape.output("y", x).unwrap();
        let arena = Plan::new(&tape, options).unwrap().arena;
        assert!(arena <= 2 * 32 * 32, "depth {depth}: {arena} entries for tensors of {}", 32 * 32);
    }
}

/// Equal steps of a group are one; these two only compare as equal.
#[test]
fn zero_and_minus_zero_are_two_numbers() {
    let mut tape = Tape::new();
    let x = state(&mut tape, "x", [3]);
    let product = tape.mul(x, x).unwrap();
    for (name, c) in [("plus", 0.0), ("minus", -0.0)] {
        let y = tape.scale(product, c).unwrap();
        tape.output(name, y).unwrap();
    }
    for options in BOTH {
        let (session, program) = run_once(&tape, options, &[("x", &[1.0, 2.0, 3.0])]);
        for (name, negative) in [("plus", false), ("minus", true)] {
            let got = session.read(&program, program.output(name).unwrap()).unwrap();
            assert!(got.iter().all(|v| *v == 0.0 && v.is_sign_negative() == negative), "{name}: {got:?}");
        }
    }
}

/// `h` lies idle while a chain of products fills the memory. Where its source is needed afterwards
/// anyway, `h` is made again from it, to the same bits.
#[test]
fn what_lies_idle_where_memory_is_fullest_is_made_again() {
    const N: usize = 48;
    let chain = |with_source: bool, is_output: bool| {
        let mut tape = Tape::new();
        let (x, w) = (state(&mut tape, "x", [N, N]), state(&mut tape, "w", [N, N]));
        let z = tape.matmul(x, w).unwrap();
        let sum = tape.add(z, x).unwrap();
        let h = tape.relu(sum).unwrap();
        let mut last = tape.matmul(h, w).unwrap();
        let mut product = last;
        for _ in 0..3 {
            last = tape.matmul(last, w).unwrap();
            product = tape.mul(product, last).unwrap();
        }
        let total = tape.sum_all(product).unwrap();
        let total = tape.broadcast_to(total, [N, N].into()).unwrap();
        let scaled = tape.mul(if with_source { z } else { w }, total).unwrap();
        let late = tape.mul(h, scaled).unwrap();
        let late = tape.matmul(late, w).unwrap();
        let y = tape.matmul(h, late).unwrap();
        tape.output("y", y).unwrap();
        if is_output {
            tape.output("h", h).unwrap();
        }
        tape
    };
    let mut rng = rng(7);
    let [x, w] = [(); 2].map(|()| numbers(N * N, Domain::Signed, &mut rng));
    // At the fullest moment four factors are there and what waits: z, or h, or both.
    for (with_source, is_output, waiting) in [(true, false, 1), (false, false, 1), (true, true, 2)] {
        let tape = chain(with_source, is_output);
        let arena = Plan::new(&tape, Options::default()).unwrap().arena;
        let tensors = arena / (N * N);
        assert_eq!(tensors, 4 + waiting, "source needed: {with_source}, an output: {is_output}");
        let [y, plain] = BOTH.map(|options| {
            let (session, program) = run_once(&tape, options, &[("x", &x), ("w", &w)]);
            session.read(&program, program.output("y").unwrap()).unwrap()
        });
        assert!(y == plain, "other bits: source needed: {with_source}, an output: {is_output}");
    }
}

/// `tanh` is written over the product that nothing else reads; not so where it is a result, too, or
/// read once more, or of another size than what is written.
#[test]
fn a_result_is_written_over_what_nothing_else_reads() {
    let places = |is_output: bool, again: bool, rows: usize| {
        let mut tape = Tape::new();
        let (x, w) = (state(&mut tape, "x", [rows, 40]), state(&mut tape, "w", [40, 40]));
        let z = tape.matmul(x, w).unwrap();
        let full = if rows == 1 { tape.reshape(z, [40]).unwrap() } else { z };
        let full = tape.broadcast_to(full, [40, 40].into()).unwrap();
        let y = tape.mul(full, w).unwrap();
        let mut last = tape.matmul(y, w).unwrap();
        if again {
            last = tape.matmul(z, last).unwrap();
        }
        tape.output("last", last).unwrap();
        if is_output {
            tape.output("z", z).unwrap();
        }
        let plan = Plan::new(&tape, Options::default()).unwrap();
        let group = plan.instrs.iter().find(|i| matches!(i.kernel, Kernel::Group(_))).unwrap();
        (plan.instrs[0].outs[0].place, group.outs[0].place)
    };
    let (z, y) = places(false, false, 40);
    assert_eq!(z, y);
    for (is_output, again, rows) in [(true, false, 40), (false, true, 40), (false, false, 1)] {
        let (z, y) = places(is_output, again, rows);
        assert_ne!(z, y, "an output: {is_output}, read again: {again}, {rows} rows");
    }
}

#[test]
fn updates_happen_in_place() {
    let mut tape = Tape::new();
    let (w, m) = (state(&mut tape, "w", [40]), state(&mut tape, "m", [40]));
    let g = tape.input("g", Kind::Float, [40]).unwrap();
    let kept = tape.scale(m, 0.9).unwrap();
    let buffer = tape.add(kept, g).unwrap();
    let step = tape.scale(buffer, -0.1).unwrap();
    let next = tape.add(w, step).unwrap();
    tape.update(m, buffer).unwrap();
    tape.update(w, next).unwrap();
    let plan = Plan::new(&tape, Options::default()).unwrap();
    assert_eq!(plan.arena, 0, "nothing but the states is needed");
    assert!(plan.instrs.iter().all(|i| !matches!(i.kernel, Kernel::Copy)));
    for instr in &plan.instrs {
        assert!(instr.outs.iter().all(|o| matches!(o.place, Place::State(..))), "{instr:?}");
    }
    for options in BOTH {
        let mut session = session();
        let program = session.compile(&tape, options).unwrap();
        session.feed(&program, "g", Values::Float(&[1.0; 40])).unwrap();
        let (mut w, mut m) = (0.0, 0.0);
        for _ in 0..3 {
            session.run(&program).unwrap();
            m = 0.9 * m + 1.0;
            w -= 0.1 * m;
            for (name, want) in [("m", m), ("w", w)] {
                let got = session.read_state(name).unwrap();
                assert!(got.iter().all(|v: &f64| (v - want).abs() < 1e-14), "{name}: {got:?}, not {want}");
            }
        }
    }
}

/// Updates take the values of before the run, whatever their order.
#[test]
fn states_that_are_read_after_their_update_keep_the_old_value() {
    const A: [f64; 3] = [1.0, 2.0, 3.0];
    const B: [f64; 3] = [10.0, 20.0, 30.0];
    type Make = fn(&mut Tape, Var, Var) -> [Var; 2];
    let cases: [(&str, Make, [[f64; 3]; 2]); 6] = [
        ("a ← b, b ← a", |_, a, b| [b, a], [B, A]),
        ("a ← a + b, b ← a", |t, a, b| [t.add(a, b).unwrap(), a], [[11.0, 22.0, 33.0], A]),
        ("a ← b, b ← 2a", |t, a, _b| [_b, t.scale(a, 2.0).unwrap()], [B, [2.0, 4.0, 6.0]]),
        (
            "a ← a + b, b ← a − b",
            |t, a, b| [t.add(a, b).unwrap(), t.sub(a, b).unwrap()],
            [[11.0, 22.0, 33.0], [-9.0, -18.0, -27.0]],
        ),
        (
            "a ← Σa·b, b ← a again",
            |t, a, b| {
                let sum = t.sum_all(a).unwrap();
                let shape = t.shape(a).clone();
                let sum = t.broadcast_to(sum, shape).unwrap();
                [t.mul(sum, b).unwrap(), t.reshape(a, [3]).unwrap()]
            },
            [[60.0, 120.0, 180.0], A],
        ),
        (
            "a ← a + b, b ← the same",
            |t, a, b| {
                let sum = t.add(a, b).unwrap();
                [sum, sum]
            },
            [[11.0, 22.0, 33.0]; 2],
        ),
    ];
    for (what, make, [want_a, want_b]) in cases {
        for options in BOTH {
            for first in [0, 1] {
                let mut tape = Tape::new();
                let slots = [state(&mut tape, "a", [3]), state(&mut tape, "b", [3])];
                let values = make(&mut tape, slots[0], slots[1]);
                for i in [first, 1 - first] {
                    tape.update(slots[i], values[i]).unwrap();
                }
                // Outputs are values on the tape, too: those of before.
                tape.output("old a", slots[0]).unwrap();
                let (session, program) = run_once(&tape, options, &[("a", &A), ("b", &B)]);
                let got = [session.read_state("a").unwrap(), session.read_state("b").unwrap()];
                assert_eq!(got, [want_a.to_vec(), want_b.to_vec()], "{what}, {options:?}");
                assert_eq!(session.fetch(&program, "old a").unwrap(), A, "{what}, {options:?}: output");
            }
        }
    }
}

#[test]
fn programs_of_one_session_see_each_others_updates() {
    let mut add = Tape::new();
    let (w, by) = (state(&mut add, "w", [2]), add.input("by", Kind::Float, [2]).unwrap());
    let sum = add.add(w, by).unwrap();
    add.update(w, sum).unwrap();
    let mut double = Tape::new();
    state(&mut double, "other", [5]); // states are matched by name, not by place
    let w = state(&mut double, "w", [2]);
    let twice = double.scale(w, 2.0).unwrap();
    double.update(w, twice).unwrap();
    double.output("before", w).unwrap();
    let mut session = session();
    let add = session.compile(&add, Options::default()).unwrap();
    let double = session.compile(&double, Options::default()).unwrap();
    session.feed(&add, "by", Values::Float(&[1.0, 3.0])).unwrap();
    for program in [&add, &double, &add, &double] {
        session.run(program).unwrap();
    }
    assert_eq!(session.read_state("w").unwrap(), [6.0, 18.0]);
    assert_eq!(session.fetch(&double, "before").unwrap(), [3.0, 9.0]);
    assert_eq!(session.read_state("other").unwrap(), [0.0; 5]);
}

#[test]
fn wrong_use_is_a_sentence_that_names_the_thing() {
    let mut tape = Tape::new();
    let x = tape.input("x", Kind::Float, [2, 3]).unwrap();
    let labels = tape.input("labels", Kind::Int, [2]).unwrap();
    let w = state(&mut tape, "w", [2, 3]);
    let losses = tape.cross_entropy(x, labels).unwrap();
    tape.output("losses", losses).unwrap();
    let mut session = session();
    let program = session.compile(&tape, Options::default()).unwrap();
    let mut wider = Tape::new();
    state(&mut wider, "w", [5]);
    let says = |error: metatape::Error, parts: &[&str]| {
        let message = error.to_string();
        assert!(parts.iter().all(|p| message.contains(p)), "{message}");
    };
    says(session.fetch(&program, "loss").unwrap_err(), &["output", "`loss`"]);
    says(program.input("z").unwrap_err(), &["input", "`z`"]);
    says(session.read_state("v").unwrap_err(), &["state", "`v`"]);
    says(session.write_state("v", Values::Float(&[])).unwrap_err(), &["state", "`v`"]);
    let six = [0.0; 6];
    says(session.feed(&program, "x", Values::Float(&six[..5])).unwrap_err(), &["`x`", "[2, 3]", "5"]);
    says(session.feed(&program, "x", Values::Int(&[0; 6])).unwrap_err(), &["`x`", "Float", "Int"]);
    says(
        session.feed(&program, "labels", Values::Float(&six[..2])).unwrap_err(),
        &["`labels`", "Int", "Float"],
    );
    for bad in [[0, 3], [-1, 0]] {
        says(
            session.feed(&program, "labels", Values::Int(&bad)).unwrap_err(),
            &["`labels`", "3 classes", "0 to 2"],
        );
    }
    says(session.write_state("w", Values::Byte(&[0; 6])).unwrap_err(), &["`w`", "Float", "Byte"]);
    says(session.compile(&wider, Options::default()).unwrap_err(), &["`w`", "[2, 3]", "[5]"]);
    let output = program.output("losses").unwrap();
    says(session.read_into(&program, output, &mut [0.0; 3]).unwrap_err(), &["`losses`", "2", "3"]);
    says(tape.update(x, w).unwrap_err(), &["update", "[2, 3]"]);
    let kept = tape.state("kept labels", Kind::Int, [2]).unwrap();
    says(tape.update(kept, labels).unwrap_err(), &["update", "Int"]);
    let short = tape.sum(w, 0, 1).unwrap();
    says(tape.update(w, short).unwrap_err(), &["update", "[2, 3]", "[3]"]);
}

#[test]
fn picks_out_of_range_are_refused_before_they_are_used() {
    let mut tape = Tape::new();
    let pixels = tape.state("pixels", Kind::Byte, [5, 4, 4, 1]).unwrap();
    let picks = tape.input("picks", Kind::Int, [1, 4]).unwrap();
    let spec = |pad| GatherSpec { mean: vec![Scalar(0.5)], std: vec![Scalar(0.25)], pad };
    let wide = tape.gather(pixels, picks, spec(4)).unwrap_err().to_string();
    assert!(wide.contains("narrower than the image"), "{wide}");
    let x = tape.gather(pixels, picks, spec(2)).unwrap();
    tape.output("x", x).unwrap();
    let mut session = session();
    let program = session.compile(&tape, Options::default()).unwrap();
    session.feed(&program, "picks", Values::Int(&[4, -2, 2, 1])).unwrap();
    session.run(&program).unwrap();
    for (bad, part) in [
        ([5, 0, 0, 0], "image 5"),
        ([-1, 0, 0, 0], "image -1"),
        ([0, 3, 0, 0], "(3, 0)"),
        ([0, 0, i32::MIN, 0], "padding"),
    ] {
        let message = session.feed(&program, "picks", Values::Int(&bad)).unwrap_err().to_string();
        assert!(message.contains("`picks`") && message.contains(part), "{message}");
    }
}

/// A random program over a few shapes: entrywise work, sums, broadcasts, products, views, updates
/// of states by values and by other states.
fn random_program(rng: &mut Pcg64) -> (Tape, Vec<Var>) {
    let mut tape = Tape::new();
    let shapes: [Shape; 4] = [[6, 4].into(), [4].into(), [4, 4].into(), [6, 4].into()];
    let slots: Vec<Var> =
        shapes.iter().enumerate().map(|(i, s)| state(&mut tape, &format!("s{i}"), s.clone())).collect();
    let mut all = slots.clone();
    for _ in 0..rng.random_range(3..25) {
        let a = all[rng.random_range(0..all.len())];
        let b = all[rng.random_range(0..all.len())];
        let recorded = match rng.random_range(0..17) {
            0 | 1 => tape.add(a, b),
            2 => tape.mul(a, b),
            3 => tape.scale(a, -0.7),
            4 => tape.offset(a, 0.2),
            5 => tape.mask(a, b),
            6 => tape.sigmoid(a),
            7 => tape.sum(a, 0, 1),
            8 => tape.broadcast_to(a, [6, 4].into()),
            9 => tape.broadcast_to(a, [4, 4].into()),
            10 | 11 => tape.matmul(a, b),
            12 => tape.row(a, 2),
            13 => tape.normalise(a, 0.1),
            14 => tape.maximum(a, b),
            15 => tape.tanh(a),
            _ => tape.push(Op::NormJacobian(Scalar(0.1)), &[a, b], None),
        };
        // What does not fit is not recorded.
        if let Ok(var) = recorded {
            all.push(tape.unary(Unary::Sigmoid, var).ok().filter(|_| rng.random_bool(0.1)).unwrap_or(var));
        }
    }
    (tape, all)
}

/// Fusion, reuse of memory and updates in place, against a program that does none of it: every
/// value an output, no updates, no fusion.
#[test]
fn random_programs_compute_what_is_written_on_the_tape() {
    for seed in 0..400 {
        let mut rng = rng(seed);
        let (mut tape, all) = random_program(&mut rng);
        let contents: Vec<(String, Vec<f64>)> = tape
            .states()
            .iter()
            .map(|(name, v)| (name.clone(), numbers(tape.shape(*v).count(), Domain::Signed, &mut rng)))
            .collect();
        let states: Vec<(&str, &[f64])> = contents.iter().map(|(n, v)| (n.as_str(), &v[..])).collect();
        let all_names: Vec<(String, Var)> = all.iter().map(|v| (format!("{}", v.index()), *v)).collect();
        for (name, var) in &all_names {
            tape.output(name, *var).unwrap();
        }
        let (session, program) = run_once(&tape, BOTH[1], &states);
        let truth = |v: Var| -> Vec<f64> { session.fetch(&program, &v.index().to_string()).unwrap() };

        // The same values on a tape with few outputs and with updates.
        let mut rng = common::rng(seed);
        let (mut tape, same) = random_program(&mut rng);
        assert!(all.iter().map(|v| v.index()).eq(same.iter().map(|v| v.index())));
        let all = same;
        let outputs: Vec<Var> = (0..3).map(|_| all[rng.random_range(0..all.len())]).collect();
        for var in &outputs {
            tape.output(&var.index().to_string(), *var).unwrap();
        }
        let mut updates = Vec::new();
        for slot in tape.states().iter().map(|s| s.1).collect::<Vec<_>>() {
            let fit: Vec<Var> = all.iter().copied().filter(|v| tape.shape(*v) == tape.shape(slot)).collect();
            if rng.random_bool(0.7) {
                let value = fit[rng.random_range(0..fit.len())];
                tape.update(slot, value).unwrap();
                updates.push((slot, value));
            }
        }
        for options in BOTH {
            let (session, program) = run_once(&tape, options, &states);
            let close = |got: Vec<f64>, want: Vec<f64>, what: String| {
                let largest = want.iter().fold(1.0, |m: f64, v| m.max(v.abs()));
                for (g, w) in got.iter().zip(&want) {
                    let fine = (g - w).abs() <= 1e-11 * largest || g.to_bits() == w.to_bits();
                    assert!(fine, "seed {seed}, {options:?}: {what} is {g}, not {w}\n{tape}");
                }
            };
            for var in &outputs {
                let name = var.index().to_string();
                close(session.fetch(&program, &name).unwrap(), truth(*var), format!("output {name}"));
            }
            for (slot, value) in &updates {
                let name = tape.var_name(*slot);
                close(session.read_state(&name).unwrap(), truth(*value), format!("state {name}"));
            }
        }
    }
}
