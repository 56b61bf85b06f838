//! Layer 1: `⟨y, L x⟩ = ⟨Lᵀ y, x⟩` for every kind of Jacobian block, on random shapes, in f64.

mod common;

use std::collections::BTreeSet;

use common::{Domain, Size, cases, declare, feed, numbers, rng};
use metatape::backend::cpu::Cpu;
use metatape::program::{Options, Session};
use metatape::tape::{
    Block, Form, Geometry, Kind, LinearMap, Role, Scalar, Shape, Strided, Tape, Var, Window,
};
use rand::RngExt;
use rand_pcg::Pcg64;

/// Relative to the sum of the products' sizes; both sides add the same products in another order.
const TOLERANCE: f64 = 1e-13;

/// The block's bare name. There is no `_` arm: a new kind must be built below.
fn kind(block: &Block) -> &'static str {
    match block {
        Block::Identity => "identity",
        Block::Scale(_) => "scale",
        Block::Mask(_) => "mask",
        Block::Contract { form: Form::Mul, .. } => "mul",
        Block::Contract { form: Form::Gemm, .. } => "gemm",
        Block::Contract { form: Form::Conv(_), .. } => "conv",
        Block::Sum(..) => "sum",
        Block::Broadcast(..) => "broadcast",
        Block::Select(..) => "select",
        Block::Unselect(..) => "unselect",
        Block::Subsample(_) => "subsample",
        Block::Embed(_) => "embed",
        Block::Row(_) => "row",
        Block::Unrow(_) => "unrow",
        Block::NormJacobian(..) => "norm-jacobian",
        Block::Chain(_) => "chain",
        Block::Plus(_) => "plus",
    }
}

/// What [`kind`] gives.
const KINDS: [&str; 17] = [
    "identity",
    "scale",
    "mask",
    "mul",
    "gemm",
    "conv",
    "sum",
    "broadcast",
    "select",
    "unselect",
    "subsample",
    "embed",
    "row",
    "unrow",
    "norm-jacobian",
    "chain",
    "plus",
];

/// A tape with maps on it, their probes and what the two sides of the identity are read from.
#[derive(Default)]
struct Bench {
    tape: Tape,
    values: Vec<Vec<f64>>,
    /// Per map: what it is, probe `x` and `y` by number.
    probes: Vec<(String, usize, usize)>,
}

impl Bench {
    fn input(&mut self, shape: &Shape, domain: Domain, rng: &mut Pcg64) -> Var {
        self.values.push(numbers(shape.count(), domain, rng));
        self.tape.input(&format!("x{}", self.values.len() - 1), Kind::Float, shape.clone()).unwrap()
    }

    fn add(&mut self, what: String, map: &LinearMap, rng: &mut Pcg64) {
        assert_eq!(&map.transpose().transpose(), map, "{what}: the transpose's transpose");
        let i = self.probes.len();
        let (x, y) = (self.input(&map.from, Domain::Signed, rng), self.input(&map.to, Domain::Signed, rng));
        self.probes.push((what, self.values.len() - 2, self.values.len() - 1));
        let forward = map.apply(&mut self.tape, x).unwrap();
        let back = map.transpose().apply(&mut self.tape, y).unwrap();
        assert_eq!(self.tape.shape(forward), &map.to);
        assert_eq!(self.tape.shape(back), &map.from);
        self.tape.output(&format!("{i} forward"), forward).unwrap();
        self.tape.output(&format!("{i} back"), back).unwrap();
    }

    fn check(&self) {
        let mut session = Session::new(Box::new(Cpu::<f64>::new(1).unwrap()));
        let program = session.compile(&self.tape, Options { fuse: false }).unwrap();
        feed(&mut session, &program, &self.values);
        session.run(&program).unwrap();
        let dot = |a: &[f64], b: &[f64]| -> (f64, f64) {
            let products = || a.iter().zip(b).map(|(a, b)| a * b);
            (products().sum(), products().map(f64::abs).sum())
        };
        for (i, (what, x, y)) in self.probes.iter().enumerate() {
            let forward = session.fetch(&program, &format!("{i} forward")).unwrap();
            let back = session.fetch(&program, &format!("{i} back")).unwrap();
            let (left, size) = dot(&self.values[*y], &forward);
            let (right, _) = dot(&back, &self.values[*x]);
            let error = (left - right).abs();
            assert!(error <= TOLERANCE * (1.0 + size), "{what}: ⟨y, L x⟩ = {left}, ⟨Lᵀ y, x⟩ = {right}");
        }
    }
}

/// Each kind of block on random shapes.
fn by_hand(bench: &mut Bench, rng: &mut Pcg64) -> Vec<LinearMap> {
    let mut dims = |from: usize, to: usize| rng.random_range(from..=to);
    let (n, h, w, c, o) = (dims(1, 3), dims(3, 8), dims(3, 8), dims(1, 9), dims(1, 9));
    let image: Shape = [n, h, w, c].into();
    let (window, stride, pad) = (Window { size: dims(1, 3), stride: dims(1, 3) }, dims(1, 3), dims(0, 2));
    let groups = dims(1, 3);
    let how = Strided { stride: dims(1, 3), before: dims(0, 3), after: dims(0, 3) };
    let (from, row) = (dims(0, 3), dims(0, 2));
    let to = dims(from, 4);
    let fixed = bench.input(&image, Domain::Signed, rng);
    let steering = bench.input(&image, Domain::Distinct, rng);
    let map = |block, from: &Shape, to: &Shape| LinearMap { block, from: from.clone(), to: to.clone() };
    let same = |block| map(block, &image, &image);
    let pool = |e: usize| (e - window.size) / window.stride + 1;
    let pooled: Shape = [n, pool(h), pool(w), c].into();
    let short = image.without(from..to);
    let strided: Shape =
        [n, h.div_ceil(how.stride), w.div_ceil(how.stride), how.before + c + how.after].into();
    let rows = image.with(0, &[3]);
    let mut all = vec![
        map(Block::Identity, &image, &[n * h, w * c].into()),
        same(Block::Scale(-1.3)),
        same(Block::Mask(fixed)),
        same(Block::Contract { form: Form::Mul, free: Role::A, out: Role::C, fixed }),
        map(Block::Sum(from, to), &image, &short),
        map(Block::Broadcast(from, to), &short, &image),
        map(Block::Select(window, steering), &image, &pooled),
        map(Block::Unselect(window, steering), &pooled, &image),
        map(Block::Subsample(how), &image, &strided),
        map(Block::Embed(how), &strided, &image),
        map(Block::Row(row), &rows, &image),
        map(Block::Unrow(row), &image, &rows),
        same(Block::NormJacobian(Scalar(1e-3), fixed)),
        map(
            Block::Chain(vec![
                same(Block::Mask(fixed)),
                map(Block::Sum(from, to), &image, &short),
                map(Block::Scale(0.3), &short, &short),
            ]),
            &image,
            &short,
        ),
        same(Block::Plus(vec![
            same(Block::Mask(steering)),
            same(Block::Chain(vec![
                map(Block::Sum(0, 3), &image, &[c].into()),
                map(Block::Broadcast(0, 3), &[c].into(), &image),
            ])),
            same(Block::NormJacobian(Scalar(0.1), steering)),
        ])),
    ];
    // The two trilinear forms that are not symmetric: each pair of roles with the third one fixed.
    let kernel = (1 + window.size).min(h + 2 * pad).min(w + 2 * pad);
    let out = |e: usize| (e + 2 * pad - kernel) / stride + 1;
    let forms = [
        (Form::Gemm, [[n, c].into(), [c, o].into(), [n, o].into()]),
        (
            Form::Conv(Geometry { stride, pad, groups }),
            [
                [n, h, w, groups * c].into(),
                [kernel, kernel, c, groups * o].into(),
                [n, out(h), out(w), groups * o].into(),
            ],
        ),
    ];
    for (form, shapes) in forms {
        let shapes: [Shape; 3] = shapes;
        for (free, out, third) in [
            (Role::A, Role::C, Role::B),
            (Role::B, Role::C, Role::A),
            (Role::C, Role::A, Role::B),
            (Role::B, Role::A, Role::C),
            (Role::C, Role::B, Role::A),
            (Role::A, Role::B, Role::C),
        ] {
            let fixed = bench.input(&shapes[third as usize], Domain::Signed, rng);
            let block = Block::Contract { form, free, out, fixed };
            all.push(map(block, &shapes[free as usize], &shapes[out as usize]));
        }
    }
    all
}

#[test]
fn every_kind_of_block_is_adjoint_to_its_transpose() {
    let mut seen = BTreeSet::new();
    for seed in 0..60 {
        let (mut bench, mut rng) = (Bench::default(), rng(seed));
        for map in by_hand(&mut bench, &mut rng) {
            seen.insert(kind(&map.block));
            bench.add(format!("seed {seed}, {:?} of {}", map.block, map.from), &map, &mut rng);
        }
        bench.check();
    }
    assert_eq!(seen, BTreeSet::from(KINDS), "every kind is built");
}

/// The blocks that the rules give, for the operations of every case and for those of their
/// gradients, too.
#[test]
fn every_jacobian_block_is_adjoint_to_its_transpose() {
    let mut rng = rng(1);
    for size in [Size { n: 2, h: 5, c: 3 }, Size { n: 1, h: 7, c: 4 }] {
        for case in cases(size).iter().filter(|c| c.smooth) {
            let mut bench = Bench { values: case.values(&mut rng), ..Bench::default() };
            let x = declare(&mut bench.tape, &case.shapes()).unwrap();
            let y = (case.build)(&mut bench.tape, &x).unwrap();
            let shape = bench.tape.shape(y).clone();
            let cotangent = bench.input(&shape, Domain::Signed, &mut rng);
            bench.tape.vjp(&[(y, cotangent)], &x).unwrap();
            let mut blocks = 0;
            for var in bench.tape.vars().collect::<Vec<_>>() {
                let node = bench.tape.node(var).clone();
                for arg in 0..node.args.len() {
                    // Labels, mask conditions: `gradients.rs` holds that exactly those have no
                    // block.
                    let Ok(map) = bench.tape.jacobian_block(var, arg) else { continue };
                    bench.add(format!("{}: {} in argument {arg}", case.name, node.op.name()), &map, &mut rng);
                    blocks += 1;
                }
            }
            assert!(blocks > 0, "{}: no blocks", case.name);
            bench.check();
        }
    }
}

#[test]
fn a_map_refuses_what_it_cannot_take() {
    let mut tape = Tape::new();
    let v = tape.input("v", Kind::Float, [2, 3]).unwrap();
    let map = LinearMap { block: Block::Sum(0, 1), from: [4, 3].into(), to: [3].into() };
    let message = map.apply(&mut tape, v).unwrap_err().to_string();
    assert!(message.contains("[4, 3]") && message.contains("[2, 3]"), "{message}");
}
