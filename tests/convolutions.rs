//! Convolutions of the CUDA backend on shapes that lead to each of its tiles, in all roles, held
//! against the CPU in f64.

mod common;

use common::findings::Findings;
use common::machines::{Machine, cards, one_simulator, simulators};
use metatape::Result;
use metatape::backend::cuda::Precision;
use metatape::program::{Backend, Options, Session, Values};
use metatape::tape::{Form, Geometry, Kind, Role, Shape, Tape, Var};

/// x `[n,h,w,ci]`, w `[k,k,ci/groups,co]`.
#[derive(Clone, Copy, Debug)]
struct Conv {
    n: usize,
    h: usize,
    w: usize,
    ci: usize,
    k: usize,
    co: usize,
    stride: usize,
    pad: usize,
    groups: usize,
}

const fn conv([n, h, w, ci]: [usize; 4], [k, co]: [usize; 2], stride: usize, pad: usize) -> Conv {
    Conv { n, h, w, ci, k, co, stride, pad, groups: 1 }
}

const fn grouped(groups: usize, conv: Conv) -> Conv {
    Conv { groups, ..conv }
}

/// All three roles: the layers of ResNet-32 and WRN-28-10 with few pixels, sums over pixels in
/// several parts, and what no network has.
const SMALL: [Conv; 11] = [
    conv([9, 4, 4, 16], [3, 16], 1, 0),
    conv([3, 9, 8, 16], [3, 32], 2, 0),
    conv([1, 5, 6, 32], [3, 64], 1, 0),
    conv([1, 6, 6, 16], [3, 160], 1, 1),
    conv([1, 8, 8, 16], [1, 320], 2, 0),
    conv([2, 8, 8, 3], [3, 16], 1, 1),
    conv([2, 5, 6, 24], [5, 8], 1, 2),
    conv([1, 7, 8, 8], [2, 40], 3, 1),
    conv([1, 3, 1, 8], [3, 8], 2, 1),
    conv([20, 6, 6, 1], [5, 6], 1, 0),
    // Several tiles of weights side by side, each with several parts.
    conv([40, 7, 7, 24], [3, 72], 1, 1),
];

/// Likewise: images that fit into shared memory, as in ResNet-32, and some that no band or strip of
/// pixels divides.
const BORDERED: [Conv; 13] = [
    conv([2, 16, 32, 16], [3, 16], 1, 1),
    conv([3, 16, 16, 32], [3, 32], 1, 1),
    conv([3, 8, 8, 64], [3, 64], 1, 1),
    conv([1, 5, 7, 16], [3, 32], 1, 1),
    conv([3, 5, 7, 64], [3, 16], 1, 1),
    conv([11, 2, 3, 32], [3, 16], 1, 1),
    conv([1, 21, 9, 16], [3, 64], 1, 1),
    conv([1, 9, 37, 64], [3, 32], 1, 1),
    conv([9, 8, 8, 32], [3, 64], 1, 1),
    conv([1, 1, 1, 16], [3, 16], 1, 1),
    conv([2, 8, 16, 16], [3, 32], 2, 1),
    conv([3, 7, 5, 32], [3, 64], 2, 1),
    conv([1, 37, 3, 32], [3, 32], 2, 1),
];

/// All three roles in groups: depthwise, with two outputs of a channel, and groups of 2, 3, 4, 5
/// and 8 channels that no tile divides; one that without groups would stay in shared memory; more
/// outputs of a group than a tile is wide; sums over pixels in several parts, by two.
const GROUPED: [Conv; 10] = [
    grouped(16, conv([2, 9, 8, 16], [3, 16], 1, 1)),
    grouped(37, conv([1, 7, 6, 37], [5, 37], 2, 2)),
    grouped(6, conv([3, 5, 6, 6], [3, 12], 2, 1)),
    grouped(4, conv([1, 6, 5, 8], [3, 12], 1, 0)),
    grouped(3, conv([2, 7, 5, 9], [2, 6], 3, 1)),
    grouped(2, conv([1, 8, 8, 8], [1, 10], 2, 0)),
    grouped(3, conv([1, 5, 7, 15], [3, 3], 1, 1)),
    grouped(2, conv([2, 8, 8, 16], [3, 16], 1, 1)),
    grouped(2, conv([1, 9, 9, 10], [3, 140], 1, 1)),
    grouped(4, conv([40, 9, 9, 16], [3, 32], 2, 1)),
];

/// So many pixels that large tiles keep all processors at work, as wide as each of those tiles in
/// one role.
const LARGE: [(Conv, Role); 10] = [
    (conv([1, 184, 184, 8], [1, 32], 1, 0), Role::C),
    (conv([1, 184, 184, 32], [1, 8], 1, 0), Role::A),
    (conv([1, 130, 130, 8], [1, 64], 1, 0), Role::C),
    (conv([1, 130, 130, 64], [1, 8], 1, 0), Role::A),
    (conv([1, 130, 130, 8], [1, 128], 1, 0), Role::C),
    (conv([1, 130, 130, 128], [1, 8], 1, 0), Role::A),
    (conv([1, 130, 130, 8], [1, 160], 1, 0), Role::C),
    (conv([1, 130, 130, 160], [1, 8], 1, 0), Role::A),
    // A block goes through more bands than it has room for at once.
    (conv([34, 1, 64, 64], [3, 64], 1, 1), Role::B),
    (conv([34, 1, 64, 64], [3, 64], 2, 1), Role::B),
];

/// Tiles that round factors at different places: filters cast for the product or by the kernel, by
/// rows or by columns.
const ROUGH: [(Conv, Role); 10] = [
    (conv([1, 130, 130, 8], [1, 128], 1, 0), Role::C),
    (conv([1, 130, 130, 160], [1, 8], 1, 0), Role::A),
    (conv([1, 9, 9, 32], [3, 32], 1, 0), Role::C),
    (conv([1, 9, 9, 32], [3, 32], 1, 0), Role::A),
    (conv([1, 9, 9, 32], [3, 32], 1, 1), Role::C),
    (conv([1, 9, 9, 32], [3, 32], 1, 1), Role::A),
    (conv([1, 9, 9, 32], [3, 32], 1, 1), Role::B),
    (conv([1, 9, 9, 48], [3, 160], 1, 1), Role::B),
    // Large tiles that go through all taps of a step's channels, then of the next ones; in the
    // second, of many classes of pixels.
    (conv([1, 131, 131, 32], [2, 128], 1, 0), Role::C),
    (conv([1, 24, 24, 128], [13, 64], 12, 6), Role::A),
];

/// What Hopper's warpgroups compute in bf16: as wide and deep as they want it, in tiles that do not
/// fit. Channels that come by taps, an odd number of parts among them, and others.
const WIDE: [(Conv, Role); 13] = [
    (conv([1, 127, 127, 72], [3, 136], 1, 1), Role::C),
    (conv([1, 117, 117, 96], [3, 160], 1, 1), Role::C),
    (conv([1, 151, 299, 64], [3, 192], 2, 1), Role::C),
    (conv([2, 53, 107, 520], [1, 192], 1, 0), Role::C),
    (conv([1, 127, 127, 136], [3, 72], 1, 1), Role::A),
    (conv([1, 83, 83, 320], [3, 96], 1, 1), Role::A),
    (conv([1, 127, 126, 136], [3, 256], 2, 1), Role::A),
    (conv([1, 119, 120, 160], [3, 232], 2, 1), Role::A),
    (conv([2, 17, 17, 64], [3, 128], 1, 1), Role::B),
    (conv([2, 35, 33, 72], [3, 136], 2, 1), Role::B),
    (conv([5, 23, 29, 96], [3, 160], 1, 1), Role::B),
    (conv([3, 40, 41, 520], [1, 192], 1, 0), Role::B),
    (conv([1, 41, 41, 160], [2, 320], 1, 0), Role::B),
];

/// The same, of which the products are added to others.
const WIDE_ADDED: Conv = conv([1, 130, 131, 128], [2, 128], 1, 1);

/// What is asked of a convolution, besides its product.
#[derive(Clone, Copy, Debug, Default)]
struct How {
    /// Numbers that tf32 and bf16 must round. Filters are f32 in any precision, as in a network.
    rough: bool,
    /// The product is added to another one, too.
    added: bool,
    /// Products can be read after the run, and so are f32 in any precision.
    readable: bool,
}

fn input(t: &mut Tape, name: &str, shape: &Shape) -> Result<Var> {
    let x = t.input(name, Kind::Float, shape.clone())?;
    // In bf16 what lies between an input and a convolution is an activation. Exact, so it costs
    // nothing in accuracy.
    t.scale(x, 2.0)
}

/// Each of the roles alone and, if wanted, added to another product.
fn record(c: Conv, roles: &[Role], how: How) -> Result<Tape> {
    let geometry = Geometry { stride: c.stride, pad: c.pad, groups: c.groups };
    let form = Form::Conv(geometry);
    let out = |e: usize| (e + 2 * c.pad - c.k) / c.stride + 1;
    let shapes: [Shape; 3] = [
        [c.n, c.h, c.w, c.ci].into(),
        [c.k, c.k, c.ci / c.groups, c.co].into(),
        [c.n, out(c.h), out(c.w), c.co].into(),
    ];
    let mut t = Tape::new();
    let mut tensors = Vec::new();
    for i in 0..2 {
        for (name, shape) in ["x", "w", "y"].iter().zip(&shapes) {
            let name = format!("{name}{i}");
            tensors.push(match how.rough && name.starts_with('w') {
                true => t.input(&name, Kind::Float, shape.clone())?,
                false => input(&mut t, &name, shape)?,
            });
        }
    }
    for role in roles {
        let [first, second] = role.others().map(|r| r as usize);
        let to = shapes[*role as usize].clone();
        let one = t.contract(form, *role, [tensors[first], tensors[second]], Some(&to))?;
        let result = if how.readable { one } else { t.scale(one, 0.5)? };
        t.output(&format!("{role:?} alone"), result).unwrap();
        if how.added {
            let other = t.contract(form, *role, [tensors[3 + first], tensors[3 + second]], Some(&to))?;
            let third = t.contract(form, *role, [tensors[first], tensors[3 + second]], Some(&to))?;
            let mut sum = t.add(other, third)?;
            if *role == Role::C {
                // Two that give C are one kernel; another one is added to what is there.
                let fourth = t.contract(form, *role, [tensors[3 + first], tensors[second]], Some(&to))?;
                sum = t.add(sum, fourth)?;
            }
            let result = if how.readable { sum } else { t.scale(sum, 0.5)? };
            t.output(&format!("{role:?} added"), result).unwrap();
        }
    }
    Ok(t)
}

/// −1 to 1 in steps of 1/64: exact in bf16, as are products in f32.
fn number(i: usize) -> f64 {
    ((i * 7919 + 13) % 129) as f64 / 64.0 - 1.0
}

fn evaluate(backend: Box<dyn Backend>, tape: &Tape, fuse: bool, scale: f64) -> Result<Vec<Vec<f64>>> {
    let mut session = Session::new(backend);
    let program = session.compile(tape, Options { fuse })?;
    for (at, input) in program.inputs().to_vec().into_iter().enumerate() {
        let values: Vec<f64> = (0..input.shape.count()).map(|i| scale * number(i + 31 * at)).collect();
        session.feed(&program, &input.name, Values::Float(&values))?;
    }
    session.run(&program)?;
    program.outputs().map(|o| session.fetch(&program, &o.name)).collect()
}

fn hold(findings: &mut Findings, c: Conv, roles: &[Role], fuse: bool, how: How, machines: Vec<Machine>) {
    let tape = record(c, roles, how).unwrap();
    let scale = if how.rough { 0.77 } else { 1.0 };
    let reference = evaluate(machines[0].reference(2), &tape, fuse, scale).unwrap();
    for machine in machines {
        let what = format!("{c:?}, {how:?} on {}, fuse {fuse}", machine.name);
        let Some(got) = findings.take(evaluate(machine.backend, &tape, fuse, scale), &what) else { continue };
        for ((output, got), want) in tape.outputs().iter().zip(&got).zip(&reference) {
            findings.tensor(&machine.tolerance, got, want, &format!("{what}: {}", output.0));
        }
    }
}

fn hold_all(findings: &mut Findings, precision: Precision, machines: fn(Precision) -> Vec<Machine>) {
    let one = || machines(precision).into_iter().take(1).collect();
    for c in SMALL.into_iter().chain(GROUPED) {
        for fuse in [true, false] {
            let how = How { added: true, ..How::default() };
            hold(findings, c, &[Role::C, Role::A, Role::B], fuse, how, machines(precision));
        }
    }
    for c in BORDERED {
        let how = How { added: true, ..How::default() };
        hold(findings, c, &[Role::C, Role::A, Role::B], true, how, machines(precision));
        // Both gradients in one launch.
        hold(findings, c, &[Role::A, Role::B], true, How::default(), machines(precision));
    }
    for (c, role) in LARGE {
        hold(findings, c, &[role], true, How::default(), one());
    }
    for (c, role) in ROUGH {
        hold(findings, c, &[role], true, How { rough: true, ..How::default() }, one());
    }
}

fn hold_wide(findings: &mut Findings, machines: fn(Precision) -> Vec<Machine>) {
    let one = || machines(Precision::Bf16).into_iter().take(1).collect();
    for (i, (c, role)) in WIDE.into_iter().enumerate() {
        // In turn, as all of them come to every tile.
        let how = How { rough: i % 2 == 1, readable: i % 3 == 1, added: false };
        hold(findings, c, &[role], true, how, one());
    }
    let added = How { added: true, ..How::default() };
    hold(findings, WIDE_ADDED, &[Role::A, Role::B], true, added, one());
    hold(findings, WIDE_ADDED, &[Role::C], true, How { readable: true, ..added }, one());
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator_f32() {
    hold_all(&mut Findings::default(), Precision::F32, simulators);
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator_tf32() {
    hold_all(&mut Findings::default(), Precision::Tf32, simulators);
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator_bf16() {
    hold_all(&mut Findings::default(), Precision::Bf16, simulators);
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator_bf16_of_warpgroups() {
    hold_wide(&mut Findings::default(), simulators);
}

/// Kernels of one name are in the files of all three precisions; a driver that serves all must not
/// mix them up.
#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator_shared_by_all_precisions() {
    let mut findings = Findings::default();
    for machine in one_simulator() {
        let how = How { rough: true, added: true, ..How::default() };
        hold(&mut findings, SMALL[1], &[Role::C, Role::A, Role::B], true, how, vec![machine]);
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU; run with --ignored card"]
fn card() {
    let mut findings = Findings::default();
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        hold_all(&mut findings, precision, cards);
    }
    hold_wide(&mut findings, cards);
}
