//! Layer 5: one test body for every operation, on every backend, held against the CPU in f64 without fusion.

mod common;

use common::{Case, Size, cases, declare, evaluate, numbers, rng};
use metatape::backend::cpu::Cpu;
use metatape::program::{Backend, Options};
use metatape::tape::Tape;

/// A machine under test.
struct Machine {
    name: &'static str,
    /// Largest difference from the reference, relative to the largest entry of the tensor.
    tolerance: f64,
    /// Machines of one family give the same bits.
    family: &'static str,
    backend: Box<dyn Backend>,
}

/// Tolerances per precision. Sums run over at most a few thousand products here.
const F32: f64 = 2e-5;
const F64: f64 = 1e-13;

/// Entries below this are held to it instead: inputs are about 1 in size, so smaller results are differences of larger numbers.
const FLOOR: f64 = 0.1;

/// Every backend; a further one joins by one line.
fn backends() -> Vec<Machine> {
    fn machine(
        name: &'static str,
        tolerance: f64,
        family: &'static str,
        b: impl Backend + 'static,
    ) -> Machine {
        Machine { name, tolerance, family, backend: Box::new(b) }
    }
    vec![
        machine("cpu f64, 1 thread", F64, "cpu f64", Cpu::<f64>::new(1).unwrap()),
        machine("cpu f64, 3 threads", F64, "cpu f64", Cpu::<f64>::new(3).unwrap()),
        machine("cpu f32, 1 thread", F32, "cpu f32", Cpu::<f32>::new(1).unwrap()),
        machine("cpu f32, 3 threads", F32, "cpu f32", Cpu::<f32>::new(3).unwrap()),
    ]
}

/// The case's value and, where there is one, its gradient for a fixed cotangent.
fn record(case: &Case) -> (Tape, Vec<Vec<f64>>) {
    let (mut tape, mut rng) = (Tape::new(), rng(7));
    let mut values = case.values(&mut rng);
    let mut shapes = case.shapes();
    let x = declare(&mut tape, &shapes).unwrap();
    let y = (case.build)(&mut tape, &x).unwrap();
    tape.output("y", y);
    if case.smooth {
        let shape = tape.shape(y).clone();
        values.push(numbers(shape.count(), common::Domain::Signed, &mut rng));
        shapes.push(shape);
        let cotangent = declare(&mut tape, &shapes).unwrap()[x.len()];
        for (i, gradient) in tape.vjp(&[(y, cotangent)], &x).unwrap().into_iter().enumerate() {
            if let Some(gradient) = gradient {
                tape.output(&format!("gradient {i}"), gradient);
            }
        }
    }
    (tape, values)
}

fn hold(size: Size) {
    for case in cases(size) {
        let (tape, values) = record(&case);
        let plain = Options { fuse: false };
        let reference = evaluate(Box::new(Cpu::<f64>::new(1).unwrap()), &tape, plain, &values);
        assert!(reference.iter().flatten().all(|v| v.is_finite()), "{size:?} {}: not finite", case.name);
        for fuse in [true, false] {
            let mut families: Vec<(&str, Vec<Vec<f64>>)> = Vec::new();
            for machine in backends() {
                let what = format!("{size:?} {} on {}, fuse {fuse}", case.name, machine.name);
                let got = evaluate(machine.backend, &tape, Options { fuse }, &values);
                for (output, (got, want)) in tape.outputs().iter().zip(got.iter().zip(&reference)) {
                    let largest = want.iter().fold(FLOOR, |m: f64, v| m.max(v.abs()));
                    for (i, (g, w)) in got.iter().zip(want).enumerate() {
                        let error = (g - w).abs() / largest;
                        assert!(error <= machine.tolerance, "{what}: {}[{i}] is {g}, not {w}", output.0);
                    }
                }
                match families.iter().find(|f| f.0 == machine.family) {
                    Some((_, bits)) => {
                        let same = bits.iter().flatten().zip(got.iter().flatten());
                        assert!(
                            same.into_iter().all(|(a, b)| a.to_bits() == b.to_bits()),
                            "{what}: other bits"
                        );
                    }
                    None => families.push((machine.family, got)),
                }
            }
        }
    }
}

#[test]
fn one_odd_image() {
    hold(Size { n: 1, h: 7, c: 3 });
}

#[test]
fn ten_channels() {
    hold(Size { n: 3, h: 7, c: 10 });
}

#[test]
fn seventeen_channels() {
    hold(Size { n: 5, h: 9, c: 17 });
}
