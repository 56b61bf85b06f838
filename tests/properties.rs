//! Properties of random programs over the closed set of operations: derivatives to second order are
//! those of differences, fusion changes nothing, no two tensors that are needed share memory, and
//! CUDA's kernels compute the same.
//!
//! `PROPTEST_CASES` and `PROPTEST_RNG_SEED` ask for more cases, and for others.

mod common;

use std::collections::BTreeMap;

use common::machines::simulators;
use common::{Domain, declare, evaluate, numbers, rng};
use metatape::Result;
use metatape::backend::cpu::Cpu;
use metatape::backend::cuda::Precision;
use metatape::check::{Modes, Point, check_grads};
use metatape::program::{Options, Place, Plan, Tensor};
use metatape::tape::{Form, Geometry, Op, Role, Scalar, Shape, Strided, Tape, Unary, Var, Window};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};

/// What a program is made of: an operation, its two arguments among all that there is, and a choice
/// of its own.
type Draw = (usize, usize, usize, usize);

#[derive(Clone, Debug)]
struct Sketch {
    /// Batch, height, channels.
    size: (usize, usize, usize),
    draws: Vec<Draw>,
    seed: u64,
}

fn sketches(most: usize) -> impl Strategy<Value = Sketch> {
    let draw = (any::<usize>(), any::<usize>(), any::<usize>(), any::<usize>());
    let size = (1..4usize, 3..7usize, 1..5usize);
    let draws = proptest::collection::vec(draw, 1..most);
    (size, draws, any::<u64>()).prop_map(|(size, draws, seed)| Sketch { size, draws, seed })
}

/// The same cases every time, unless others are asked for.
fn config(cases: u32) -> Config {
    let (asked, default) = (Config::default(), Config { cases, ..Config::default() });
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { asked.cases } else { default.cases };
    let rng_seed = match asked.rng_seed {
        RngSeed::Random => RngSeed::Fixed(1),
        given => given,
    };
    Config { cases, rng_seed, failure_persistence: None, ..default }
}

const SMOOTH: usize = 26;
/// With those whose derivatives jump.
const ALL: usize = 32;

impl Sketch {
    fn shapes(&self) -> Vec<Shape> {
        let (n, h, c) = self.size;
        let kernel = if self.seed.is_multiple_of(2) { 3 } else { 1 };
        vec![
            [n, h, h, c].into(),
            [n, c].into(),
            [c].into(),
            [kernel, kernel, c, c].into(),
            [c, c].into(),
            [n, c].into(),
        ]
    }

    fn values(&self) -> Vec<(Shape, Vec<f64>)> {
        let mut rng = rng(self.seed);
        self.shapes().into_iter().map(|s| (s.clone(), numbers(s.count(), Domain::Signed, &mut rng))).collect()
    }

    /// Records what fits of the draws; all values, the inputs first. What does not fit must be an
    /// error and no panic.
    fn record(&self, tape: &mut Tape, inputs: &[Var], kinds: usize) -> Vec<Var> {
        let mut all = inputs.to_vec();
        for (kind, a, b, own) in &self.draws {
            let (a, b) = (all[a % all.len()], all[b % all.len()]);
            all.extend(self.operation(tape, kind % kinds, [a, b], *own));
        }
        all
    }

    fn operation(&self, tape: &mut Tape, kind: usize, [a, b]: [Var; 2], own: usize) -> Result<Var> {
        let (n, h, c) = self.size;
        let shapes = self.shapes();
        let to = &shapes[own % shapes.len()];
        let geometry = Geometry { stride: 1 + own % 2, pad: own / 2 % 2, groups: 1 };
        let role = [Role::A, Role::B, Role::C][own % 3];
        let window = Window { size: 2 + own % 2, stride: 1 + own / 2 % 2 };
        let strided = Strided { stride: 1 + own % 2, before: own % 3, after: own / 3 % 2 };
        match kind {
            0 | 1 => tape.add(a, b),
            2 => tape.mul(a, b),
            3 => tape.scale(a, -0.7),
            4 => tape.offset(a, 0.3),
            5 => tape.sigmoid(a),
            6 => tape.unary([Unary::Tanh, Unary::Softplus, Unary::Erf][own % 3], a),
            // Where they are defined.
            7 => {
                let positive = tape.unary(Unary::Softplus, a)?;
                let positive = tape.offset(positive, 0.5)?;
                tape.unary(
                    [Unary::Sqrt, Unary::Log, Unary::Recip, Unary::Pow(Scalar(1.5))][own % 4],
                    positive,
                )
            }
            8 => {
                let bounded = tape.tanh(a)?;
                tape.unary(Unary::Exp, bounded)
            }
            9 => tape.sum(a, own % 4, own % 4 + 1),
            10 => tape.mean(a, own % 2, own % 2 + 1 + own % 3),
            11 => tape.broadcast_to(a, to.clone()),
            12 => tape.matmul(a, b),
            13 => tape.contract(Form::Gemm, role, [a, b], Some(to)),
            14 => tape.conv(a, b, geometry),
            15 => tape.contract(Form::Conv(geometry), role, [a, b], Some(to)),
            16 => tape.flatten(a),
            17 => tape.row(a, own % (n + 1)),
            18 => tape.stack(&[a, b, a]),
            19 => tape.push(Op::Unrow(own % 3), &[a], Some(to)),
            20 => tape.subsample(a, strided),
            21 => tape.push(Op::Embed(strided), &[a], Some(&[n, h, h, c].into())),
            22 => tape.normalise(a, 0.1),
            23 => tape.push(Op::NormJacobian(Scalar(0.1)), &[a, b], None),
            24 => tape.softmax(a),
            25 => tape.push(Op::Variance, &[a], None),
            26 => tape.relu(a),
            27 => tape.mask(a, b),
            28 => tape.maximum(a, b),
            29 => tape.max_pool(a, window),
            30 => tape.push(Op::Select(window), &[a, b], None),
            _ => tape.push(Op::Unselect(window), &[a, b], None),
        }
    }

    /// A tape whose outputs are three of the values and the gradients of the last one's sum.
    fn tape(&self, kinds: usize) -> Tape {
        let mut tape = Tape::new();
        let inputs = declare(&mut tape, &self.shapes()).unwrap();
        let all = self.record(&mut tape, &inputs, kinds);
        let last = all[all.len() - 1];
        let picked = [last, all[self.seed as usize % all.len()], all[all.len() / 2]];
        let mut outputs: BTreeMap<String, Var> =
            picked.into_iter().map(|v| (format!("value {}", v.index()), v)).collect();
        let square = tape.mul(last, last).unwrap();
        let loss = tape.sum_all(square).unwrap();
        let one = tape.constant(1.0, []);
        for (i, gradient) in tape.vjp(&[(loss, one)], &inputs).unwrap().into_iter().enumerate() {
            outputs.extend(gradient.map(|g| (format!("gradient {i}"), g)));
        }
        outputs.iter().for_each(|(name, var)| tape.output(name, *var).unwrap());
        tape
    }
}

fn run(
    backend: Box<dyn metatape::program::Backend>,
    tape: &Tape,
    fuse: bool,
    sketch: &Sketch,
) -> Vec<Vec<f64>> {
    let values: Vec<Vec<f64>> = sketch.values().into_iter().map(|v| v.1).collect();
    evaluate(backend, tape, Options { fuse }, &values)
}

fn close(
    got: &[Vec<f64>],
    want: &[Vec<f64>],
    tolerance: f64,
    what: &str,
) -> std::result::Result<(), TestCaseError> {
    for (output, (got, want)) in got.iter().zip(want).enumerate() {
        let largest = want.iter().fold(1.0, |m: f64, v| m.max(v.abs()));
        prop_assert_eq!(got.len(), want.len());
        for (g, w) in got.iter().zip(want) {
            let fine = (g - w).abs() <= tolerance * largest || g.to_bits() == w.to_bits();
            prop_assert!(fine, "{what}: output {output} is {g}, not {w}");
        }
    }
    Ok(())
}

/// Goes through a plan as a machine would, and writes down in each entry of the arena which kernel
/// wrote it last: what a kernel reads must be one kernel's work, and whole, and what it writes must
/// not lie partly in what it reads.
fn memory_is_sound(plan: &Plan) -> std::result::Result<(), String> {
    let mut writer: Vec<Option<usize>> = vec![None; plan.arena];
    let range = |tensor: &Tensor| match tensor.place {
        Place::Arena(at) => Some(at..at + tensor.len),
        Place::State(..) | Place::Input(..) => None,
    };
    let whole = |writer: &[Option<usize>], tensor: &Tensor, what: &str| match range(tensor) {
        Some(range) if range.end > writer.len() => Err(format!("{what} lies beyond the arena")),
        Some(range) if writer[range.clone()].iter().any(Option::is_none) => {
            Err(format!("{what} at {range:?} is read before it is written"))
        }
        Some(range) if writer[range.clone()].iter().any(|by| *by != writer[range.start]) => {
            Err(format!("{what} at {range:?} is the work of several kernels"))
        }
        _ => Ok(()),
    };
    for (i, instr) in plan.instrs.iter().enumerate() {
        for arg in &instr.args {
            whole(&writer, arg, &format!("an argument of kernel {i}"))?;
        }
        let outs: Vec<_> = instr.outs.iter().filter_map(range).collect();
        for (k, out) in outs.iter().enumerate() {
            let meets = |other: &std::ops::Range<usize>| out.start < other.end && other.start < out.end;
            if outs[..k].iter().any(meets) {
                return Err(format!("two results of kernel {i} lie in each other"));
            }
            if let Some(arg) = instr.args.iter().filter_map(range).find(|arg| meets(arg) && arg != out) {
                let adds = arg.start <= out.start && out.end <= arg.end;
                if !adds {
                    return Err(format!("kernel {i} writes {out:?} over {arg:?}, which it reads"));
                }
            }
            writer[out.clone()].fill(Some(i));
        }
    }
    plan.outputs.iter().try_for_each(|(named, tensor)| whole(&writer, tensor, &named.name))
}

/// The check sees a result that is written over another one which is still to be read.
#[test]
fn shared_memory_is_found() {
    let mut tape = Tape::new();
    let x = declare(&mut tape, &[[40].into()]).unwrap()[0];
    let (a, b) = (tape.sum(x, 0, 1).unwrap(), tape.tanh(x).unwrap());
    tape.output("b", b).unwrap();
    tape.output("a", a).unwrap();
    let mut plan = Plan::new(&tape, Options { fuse: false }).unwrap();
    memory_is_sound(&plan).unwrap();
    let all: Vec<Tensor> = plan.instrs.iter().map(|i| i.outs[0]).collect();
    let large = usize::from(all[0].len < all[1].len);
    plan.instrs.swap(0, large);
    plan.instrs[1].outs[0].place = all[large].place;
    assert!(memory_is_sound(&plan).unwrap_err().contains("the work of several kernels"));
}

proptest! {
    #![proptest_config(config(48))]

    /// Every derivative of a smooth program, by all mixes of forward and reverse mode to second
    /// order, is that of differences.
    #[test]
    fn derivatives_are_those_of_differences(sketch in sketches(7)) {
        let values = sketch.values();
        let record = |tape: &mut Tape, x: &[Var]| -> Result<Vec<Var>> {
            let all = sketch.record(tape, x, SMOOTH);
            // Numbers stay of a size that differences can tell.
            Ok(vec![tape.tanh(all[all.len() - 1])?])
        };
        let worst = check_grads(&record, Point { variables: &values, given: &[] }, 2, Modes::Both);
        prop_assert!(worst.is_ok(), "{:?}", worst);
    }
}

proptest! {
    #![proptest_config(config(300))]

    /// Whatever is rewritten, fused and laid out: the values are those of one kernel an operation,
    /// each as long as its shape says.
    #[test]
    fn fusion_changes_nothing(sketch in sketches(25)) {
        let tape = sketch.tape(ALL);
        let plain = run(Box::new(Cpu::<f64>::new(1).unwrap()), &tape, false, &sketch);
        for ((_, var), values) in tape.outputs().iter().zip(&plain) {
            prop_assert_eq!(tape.shape(*var).count(), values.len());
        }
        // Beyond, sums of huge numbers in another order are other sums.
        prop_assume!(plain.iter().flatten().all(|v| v.abs() < 1e6));
        for threads in [1, 3] {
            let fused = run(Box::new(Cpu::<f64>::new(threads).unwrap()), &tape, true, &sketch);
            close(&fused, &plain, 1e-11, "fused")?;
        }
    }

    /// No two tensors that are needed at a time share memory.
    #[test]
    fn plans_are_sound(sketch in sketches(40)) {
        for kinds in [SMOOTH, ALL] {
            let tape = sketch.tape(kinds);
            for fuse in [true, false] {
                let sound = memory_is_sound(&Plan::new(&tape, Options { fuse }).unwrap());
                prop_assert!(sound.is_ok(), "fuse {fuse}: {:?}\n{tape}", sound);
            }
        }
    }
}

proptest! {
    #![proptest_config(config(6))]

    /// CUDA's kernels, generated ones among them, compute what the CPU does.
    #[test]
    #[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
    fn the_simulator_computes_the_same(sketch in sketches(12)) {
        let tape = sketch.tape(SMOOTH);
        for machine in simulators(Precision::F32) {
            let want = run(machine.reference(1), &tape, true, &sketch);
            prop_assume!(want.iter().flatten().all(|v| v.abs() < 1e3));
            let got = run(machine.backend, &tape, true, &sketch);
            close(&got, &want, 1e-4, &machine.name)?;
        }
    }
}
