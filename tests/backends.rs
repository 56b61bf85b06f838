//! Layer 5: one test body for every operation, on every backend, held against the CPU in f64
//! without fusion.

mod common;

use std::collections::BTreeMap;

use common::findings::Findings;
use common::machines::{Machine, cards, cpus, simulators};
use common::{Case, Domain, Size, cases, declare, feed, numbers, rng};
use metatape::backend::cuda::Precision;
use metatape::program::{Backend, Options, Session};
use metatape::tape::{Form, Geometry, Op, Shape, Tape, Var};

const SIZES: [Size; 3] = [Size { n: 1, h: 7, c: 3 }, Size { n: 3, h: 7, c: 10 }, Size { n: 5, h: 9, c: 17 }];

/// How a case stands in its program.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Setting {
    /// Between inputs and outputs.
    Alone,
    /// Between two convolutions with the identity, wherever a tensor is an image: what bf16 stores
    /// as activations.
    BetweenConvolutions,
}

/// Passes images through a convolution with the identity.
struct Identities {
    wanted: bool,
    /// By number of channels.
    weights: BTreeMap<usize, Var>,
}

impl Identities {
    fn of(&mut self, tape: &mut Tape, image: Var, values: &mut Vec<Vec<f64>>) -> Var {
        let shape = tape.shape(image).clone();
        if !self.wanted || shape.len() != 4 {
            return image;
        }
        let c = shape[3];
        let weight = *self.weights.entry(c).or_insert_with(|| {
            values.push((0..c * c).map(|i| f64::from(u8::from(i / c == i % c))).collect());
            let shape = Shape::from([1, 1, c, c]);
            tape.input(&format!("x{}", values.len() - 1), metatape::tape::Kind::Float, shape).unwrap()
        });
        tape.conv(image, weight, Geometry { stride: 1, pad: 0, groups: 1 }).unwrap()
    }
}

/// The case's value and, where there is one, its gradient for a fixed cotangent.
fn record(case: &Case, setting: Setting) -> (Tape, Vec<Vec<f64>>) {
    let (mut tape, mut rng) = (Tape::new(), rng(7));
    let mut values = case.values(&mut rng);
    let mut identities =
        Identities { wanted: setting == Setting::BetweenConvolutions, weights: BTreeMap::new() };
    let x = declare(&mut tape, &case.shapes()).unwrap();
    let inner: Vec<Var> = x.iter().map(|x| identities.of(&mut tape, *x, &mut values)).collect();
    let y = (case.build)(&mut tape, &inner).unwrap();
    let y = identities.of(&mut tape, y, &mut values);
    tape.output("y", y).unwrap();
    if case.smooth {
        let shape = tape.shape(y).clone();
        let cotangent =
            tape.input(&format!("x{}", values.len()), metatape::tape::Kind::Float, shape.clone()).unwrap();
        values.push(numbers(shape.count(), Domain::Signed, &mut rng));
        for (i, gradient) in tape.vjp(&[(y, cotangent)], &x).unwrap().into_iter().enumerate() {
            if let Some(gradient) = gradient {
                tape.output(&format!("gradient {i}"), gradient).unwrap();
            }
        }
    }
    (tape, values)
}

/// The values of all outputs in order. The program runs three times (one by one, captured and
/// replayed, replayed, where the machine has graphs), each time with the same bits.
fn evaluate(
    backend: Box<dyn Backend>,
    tape: &Tape,
    fuse: bool,
    values: &[Vec<f64>],
) -> Result<Vec<Vec<f64>>, String> {
    let mut session = Session::new(backend);
    let program = session.compile(tape, Options { fuse }).map_err(|e| e.to_string())?;
    feed(&mut session, &program, values);
    let mut run = || -> Result<Vec<Vec<f64>>, String> {
        let ran = session.run(&program);
        let fetched =
            ran.and_then(|()| program.outputs().map(|o| session.fetch(&program, &o.name)).collect());
        fetched.map_err(|e| e.to_string())
    };
    let first = run()?;
    for again in ["second", "third"] {
        if !same_bits(&first, &run()?) {
            return Err(format!("the {again} run gives other bits"));
        }
    }
    Ok(first)
}

fn same_bits(a: &[Vec<f64>], b: &[Vec<f64>]) -> bool {
    let (a, b) = (a.iter().flatten(), b.iter().flatten());
    a.map(|v| v.to_bits()).eq(b.map(|v| v.to_bits()))
}

/// Holds machines to the reference on all cases of a size.
fn hold(size: Size, setting: Setting, machines: &dyn Fn() -> Vec<Machine>) {
    let mut findings = Findings::default();
    for case in cases(size) {
        let (tape, values) = record(&case, setting);
        for fuse in [true, false] {
            let mut families: Vec<(&str, Vec<Vec<f64>>)> = Vec::new();
            let mut reference: Option<Vec<Vec<f64>>> = None;
            for machine in machines() {
                let what = format!("{size:?} {} {setting:?} on {}, fuse {fuse}", case.name, machine.name);
                let want = reference.get_or_insert_with(|| {
                    // What is rounded depends on what is fused; the CPU's own fusion is held to the
                    // CPU without.
                    let fuse = fuse && machine.precision.is_some();
                    let want = evaluate(machine.reference(1), &tape, fuse, &values);
                    want.unwrap_or_else(|e| panic!("{}: {e}", case.name))
                });
                assert!(want.iter().flatten().all(|v| v.is_finite()), "{size:?} {}: not finite", case.name);
                let mut tolerance = machine.tolerance;
                if tape.vars().any(|v| matches!(tape.node(v).op, Op::Contract { form: Form::Gemm, .. })) {
                    tolerance.operation = tolerance.products;
                }
                let got = evaluate(machine.backend, &tape, fuse, &values);
                let Some(got) = findings.take(got, &what) else { continue };
                for (output, (got, want)) in tape.outputs().iter().zip(got.iter().zip(want.iter())) {
                    findings.tensor(&tolerance, got, want, &format!("{what}: {}", output.0));
                }
                match families.iter().find(|f| f.0 == machine.family) {
                    Some((_, bits)) => findings.hold(same_bits(bits, &got), || format!("{what}: other bits")),
                    None => families.push((machine.family, got)),
                }
            }
        }
    }
}

fn hold_cuda(size: Size, precision: Precision, machines: fn(Precision) -> Vec<Machine>) {
    hold(size, Setting::Alone, &|| machines(precision));
    if precision == Precision::Bf16 {
        hold(size, Setting::BetweenConvolutions, &|| machines(precision));
    }
}

#[test]
#[should_panic(expected = "3 deviations")]
fn a_test_goes_on_after_a_deviation_and_fails_at_its_end() {
    let mut findings = Findings::default();
    let tolerance = cpus()[2].tolerance;
    findings.tensor(&tolerance, &[1.0, 2.0, 3.00001], &[1.0, 2.0, 3.0], "within");
    findings.tensor(&tolerance, &[1.0, 2.1], &[1.0, 2.0], "beyond");
    findings.tensor(&tolerance, &[1.0, f64::NAN], &[1.0, 2.0], "not a number");
    findings.error(f64::NAN, 1.0, "not a number, either:");
    findings.error(0.5, 1.0, "within:");
}

#[test]
fn cpu_one_odd_image() {
    hold(SIZES[0], Setting::Alone, &cpus);
}

#[test]
fn cpu_ten_channels() {
    hold(SIZES[1], Setting::Alone, &cpus);
}

#[test]
fn cpu_seventeen_channels() {
    hold(SIZES[2], Setting::Alone, &cpus);
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator_f32_one_odd_image() {
    hold_cuda(SIZES[0], Precision::F32, simulators);
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator_f32_ten_channels() {
    hold_cuda(SIZES[1], Precision::F32, simulators);
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator_f32_seventeen_channels() {
    hold_cuda(SIZES[2], Precision::F32, simulators);
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator_tf32_one_odd_image() {
    hold_cuda(SIZES[0], Precision::Tf32, simulators);
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator_tf32_ten_channels() {
    hold_cuda(SIZES[1], Precision::Tf32, simulators);
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator_tf32_seventeen_channels() {
    hold_cuda(SIZES[2], Precision::Tf32, simulators);
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator_bf16_one_odd_image() {
    hold_cuda(SIZES[0], Precision::Bf16, simulators);
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator_bf16_ten_channels() {
    hold_cuda(SIZES[1], Precision::Bf16, simulators);
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator_bf16_seventeen_channels() {
    hold_cuda(SIZES[2], Precision::Bf16, simulators);
}

#[test]
#[ignore = "needs an NVIDIA GPU; run with --ignored card"]
fn card_f32() {
    SIZES.iter().for_each(|size| hold_cuda(*size, Precision::F32, cards));
}

#[test]
#[ignore = "needs an NVIDIA GPU; run with --ignored card"]
fn card_tf32() {
    SIZES.iter().for_each(|size| hold_cuda(*size, Precision::Tf32, cards));
}

#[test]
#[ignore = "needs an NVIDIA GPU; run with --ignored card"]
fn card_bf16() {
    SIZES.iter().for_each(|size| hold_cuda(*size, Precision::Bf16, cards));
}
