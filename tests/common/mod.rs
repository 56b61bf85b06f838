//! One table of cases for all layers: every operation of the closed set, and a few small programs
//! made of several.
#![allow(dead_code)] // each test file uses its part

#[cfg(feature = "cuda")]
pub mod card;
#[cfg(feature = "cuda")]
pub mod findings;
mod layer_cases;
#[cfg(feature = "cuda")]
pub mod machines;
#[cfg(feature = "cuda")]
pub mod rounded;
#[cfg(feature = "lab")]
pub mod runs;
#[cfg(feature = "cuda")]
pub mod simulator;
pub mod steps;

use metatape::Result;
use metatape::program::{Backend, Options, Program, Session, Values};
use metatape::tape::{
    Form, GatherSpec, Geometry, Kind, Op, Role, Scalar, Shape, Strided, Tape, Unary, Var, Window,
};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

/// Which numbers an input may hold.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Domain {
    /// 0.1 to 1 in size, either sign: away from the kink at 0.
    Signed,
    /// 0.3 to 1.3.
    Positive,
    /// Evenly spread over −2 to 2 in random order, so that no maximum is close to another number.
    Distinct,
}

/// Extents that a case's shapes are made of.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Batch.
    pub n: usize,
    /// Height; images are one pixel wider than high.
    pub h: usize,
    /// Channels.
    pub c: usize,
}

pub type Build = Box<dyn Fn(&mut Tape, &[Var]) -> Result<Var>>;

/// A function on a tape with the inputs that it takes.
pub struct Case {
    pub name: String,
    pub inputs: Vec<(Shape, Domain)>,
    pub build: Build,
    /// Whether a derivative is defined.
    pub smooth: bool,
}

pub fn rng(seed: u64) -> Pcg64 {
    Pcg64::seed_from_u64(seed)
}

/// Numbers that f32 holds exactly, so that all machines begin with the same.
pub fn numbers(count: usize, domain: Domain, rng: &mut Pcg64) -> Vec<f64> {
    let mut values: Vec<f64> = match domain {
        Domain::Signed => (0..count)
            .map(|_| rng.random_range(0.1..1.0) * if rng.random_bool(0.5) { 1.0 } else { -1.0 })
            .collect(),
        Domain::Positive => (0..count).map(|_| rng.random_range(0.3..1.3)).collect(),
        Domain::Distinct => (0..count).map(|i| (4.0 * i as f64 + 2.0) / count as f64 - 2.0).collect(),
    };
    if domain == Domain::Distinct {
        values.shuffle(rng);
    }
    values.iter().map(|v| f64::from(*v as f32)).collect()
}

/// The case's inputs `x0`, `x1`, … declared on a tape.
pub fn declare(tape: &mut Tape, shapes: &[Shape]) -> Result<Vec<Var>> {
    shapes.iter().enumerate().map(|(i, s)| tape.input(&format!("x{i}"), Kind::Float, s.clone())).collect()
}

impl Case {
    pub fn shapes(&self) -> Vec<Shape> {
        self.inputs.iter().map(|i| i.0.clone()).collect()
    }

    pub fn values(&self, rng: &mut Pcg64) -> Vec<Vec<f64>> {
        self.inputs.iter().map(|(shape, domain)| numbers(shape.count(), *domain, rng)).collect()
    }
}

/// Gives a program its inputs: `x0`, `x1`, … from `values`; labels, picks and pixels are the same
/// for everybody.
pub fn feed(session: &mut Session, program: &Program, values: &[Vec<f64>]) {
    for input in program.inputs().to_vec() {
        let count = input.shape.count();
        match input.kind {
            Kind::Float => {
                let at: usize = input.name.trim_start_matches('x').parse().unwrap();
                session.feed(program, &input.name, Values::Float(&values[at])).unwrap();
            }
            Kind::Int if input.name == "picks" => {
                let picks: Vec<i32> =
                    (0..count as i32 / 4).flat_map(|i| [i % 2, i % 3 - 1, (i + 1) % 3 - 1, i % 2]).collect();
                session.feed(program, "picks", Values::Int(&picks)).unwrap();
            }
            Kind::Int => {
                let labels: Vec<i32> = (0..count as i32).map(|i| (i + 1) % 3).collect();
                session.feed(program, &input.name, Values::Int(&labels)).unwrap();
            }
            Kind::Byte => {
                let pixels: Vec<u8> = (0..count).map(|i| (i * 37 % 251) as u8).collect();
                session.feed(program, &input.name, Values::Byte(&pixels)).unwrap();
            }
        }
    }
}

/// A session with `tape` compiled, fed and run once; the values of all outputs in order.
pub fn evaluate(
    backend: Box<dyn Backend>,
    tape: &Tape,
    options: Options,
    values: &[Vec<f64>],
) -> Vec<Vec<f64>> {
    let mut session = Session::new(backend);
    let program = session.compile(tape, options).unwrap();
    feed(&mut session, &program, values);
    session.run(&program).unwrap();
    program.outputs().map(|o| session.fetch(&program, &o.name).unwrap()).collect()
}

/// The operation's bare name. There is no `_` arm: a new operation must be given a case in the
/// table below.
pub fn op_kind(op: &Op) -> &'static str {
    match op {
        Op::Input(_) | Op::State(_) | Op::Constant(_) => "leaf",
        Op::Add => "add",
        Op::Scale(_) => "scale",
        Op::Offset(_) => "offset",
        Op::Unary(Unary::Sigmoid) => "sigmoid",
        Op::Unary(Unary::Recip) => "recip",
        Op::Unary(Unary::Sqrt) => "sqrt",
        Op::Unary(Unary::Exp) => "exp",
        Op::Unary(Unary::Log) => "log",
        Op::Unary(Unary::Tanh) => "tanh",
        Op::Unary(Unary::Softplus) => "softplus",
        Op::Unary(Unary::Erf) => "erf",
        Op::Unary(Unary::Pow(_)) => "pow",
        Op::Contract { form: Form::Mul, .. } => "mul",
        Op::Contract { form: Form::Gemm, out } => ["gemm A", "gemm B", "gemm C"][*out as usize],
        Op::Contract { form: Form::Conv(_), out } => ["conv A", "conv B", "conv C"][*out as usize],
        Op::Mask => "mask",
        Op::Max => "max",
        Op::Select(_) => "select",
        Op::Unselect(_) => "unselect",
        Op::Sum { .. } => "sum",
        Op::Broadcast { .. } => "broadcast",
        Op::Reshape => "reshape",
        Op::Variable => "variable",
        Op::Detach => "detach",
        Op::Row(_) => "row",
        Op::Unrow(_) => "unrow",
        Op::Stack => "stack",
        Op::Subsample(_) => "subsample",
        Op::Embed(_) => "embed",
        Op::Moments => "moments",
        Op::Variance => "variance",
        Op::Normalise(_) => "normalise",
        Op::NormJacobian(_) => "norm-jacobian",
        Op::Softmax => "softmax",
        Op::CrossEntropy => "cross-entropy",
        Op::Residual => "residual",
        Op::WeightedResidual => "weighted residual",
        Op::Correct => "correct",
        Op::Gather(_) => "gather",
    }
}

/// What [`op_kind`] gives, but for leaves.
pub const OP_KINDS: [&str; 43] = [
    "add",
    "scale",
    "offset",
    "sigmoid",
    "recip",
    "sqrt",
    "exp",
    "log",
    "tanh",
    "softplus",
    "erf",
    "pow",
    "mul",
    "gemm A",
    "gemm B",
    "gemm C",
    "conv A",
    "conv B",
    "conv C",
    "mask",
    "max",
    "select",
    "unselect",
    "sum",
    "broadcast",
    "reshape",
    "variable",
    "detach",
    "row",
    "unrow",
    "stack",
    "subsample",
    "embed",
    "moments",
    "variance",
    "normalise",
    "norm-jacobian",
    "softmax",
    "cross-entropy",
    "residual",
    "weighted residual",
    "correct",
    "gather",
];

fn labels(tape: &mut Tape, n: usize) -> Result<Var> {
    tape.input("labels", Kind::Int, [n])
}

/// Every operation on shapes of the given size, then programs of several operations.
pub fn cases(size: Size) -> Vec<Case> {
    use Domain::{Distinct, Positive, Signed};
    let Size { n, h, c } = size;
    let w = h + 1;
    let image: Shape = [n, h, w, c].into();
    let matrix: Shape = [n, c].into();
    let mut all = Vec::new();
    let mut case = |name: &str, inputs: &[(&Shape, Domain)], build: Build| {
        let inputs = inputs.iter().map(|(s, d)| ((*s).clone(), *d)).collect();
        all.push(Case { name: name.to_owned(), inputs, build, smooth: true });
    };
    let (x, m) = ((&image, Signed), (&matrix, Signed));

    case("add", &[x, x], Box::new(|t, v| t.add(v[0], v[1])));
    case("add to itself", &[x], Box::new(|t, v| t.add(v[0], v[0])));
    case("scale", &[x], Box::new(|t, v| t.scale(v[0], -1.7)));
    case("offset", &[x], Box::new(|t, v| t.offset(v[0], 0.3)));
    for f in [Unary::Sigmoid, Unary::Recip, Unary::Exp, Unary::Tanh, Unary::Softplus, Unary::Erf] {
        case(&format!("{f:?}"), &[x], Box::new(move |t, v| t.unary(f, v[0])));
    }
    for f in [Unary::Sqrt, Unary::Log] {
        case(&format!("{f:?}"), &[(&image, Positive)], Box::new(move |t, v| t.unary(f, v[0])));
    }
    case("pow -1.5", &[(&image, Positive)], Box::new(|t, v| t.powf(v[0], -1.5)));
    case("pow 3", &[x], Box::new(|t, v| t.powf(v[0], 3.0)));
    case("gelu", &[x], Box::new(|t, v| t.gelu(v[0])));
    case("abs", &[x], Box::new(|t, v| t.abs(v[0])));
    case("div", &[x, (&image, Positive)], Box::new(|t, v| t.div(v[0], v[1])));
    case("mul", &[x, x], Box::new(|t, v| t.mul(v[0], v[1])));
    case("square", &[x], Box::new(|t, v| t.mul(v[0], v[0])));

    let (k, o): (usize, usize) = (h + 2, c + 1);
    let (a, b, p): (Shape, Shape, Shape) = ([n, k].into(), [k, o].into(), [n, o].into());
    let gemm = |out| -> Build { Box::new(move |t, v| t.contract(Form::Gemm, out, [v[0], v[1]], None)) };
    case("gemm", &[(&a, Signed), (&b, Signed)], gemm(Role::C));
    case("gemm to A", &[(&b, Signed), (&p, Signed)], gemm(Role::A));
    case("gemm to B", &[(&a, Signed), (&p, Signed)], gemm(Role::B));

    // Groups, channels and outputs of each; then depthwise, and 2, 3, 4, 5 and 8 channels of a
    // group.
    let dense = [(3, 1, 1), (3, 2, 1), (1, 1, 0), (1, 2, 0), (2, 2, 0), (5, 1, 2), (3, 1, 0)]
        .map(|moves| (moves, [1, c, o]));
    let grouped = [
        ((3, 2, 1), [3, 1, 1]),
        ((3, 1, 1), [5, 1, 2]),
        ((1, 1, 0), [2, 2, 3]),
        ((3, 2, 1), [3, 3, 1]),
        ((2, 2, 0), [2, 4, 5]),
        ((5, 1, 2), [3, 5, 4]),
        ((3, 1, 0), [2, 8, 8]),
    ];
    for ((kernel, stride, pad), [groups, own, outs]) in dense.into_iter().chain(grouped) {
        let geometry = Geometry { stride, pad, groups };
        let form = Form::Conv(geometry);
        let image: Shape = [n, h, w, groups * own].into();
        let x = (&image, Signed);
        let weight: Shape = [kernel, kernel, own, groups * outs].into();
        let out = |e: usize| (e + 2 * pad - kernel) / stride + 1;
        let product: Shape = [n, out(h), out(w), groups * outs].into();
        let name = format!("conv {kernel}x{kernel} stride {stride} pad {pad} groups {groups} of {own}");
        case(&name, &[x, (&weight, Signed)], Box::new(move |t, v| t.conv(v[0], v[1], geometry)));
        let to = image.clone();
        case(
            &format!("{name} to A"),
            &[(&weight, Signed), (&product, Signed)],
            Box::new(move |t, v| t.contract(form, Role::A, [v[0], v[1]], Some(&to))),
        );
        let to = weight.clone();
        case(
            &format!("{name} to B"),
            &[x, (&product, Signed)],
            Box::new(move |t, v| t.contract(form, Role::B, [v[0], v[1]], Some(&to))),
        );
    }

    case("mask", &[x, x], Box::new(|t, v| t.mask(v[0], v[1])));
    case("relu", &[x], Box::new(|t, v| t.relu(v[0])));
    // Two images of one batch, so that no two numbers that are compared are close.
    let twice: Shape = [2, n, h, w, c].into();
    let halves = |t: &mut Tape, v: Var| -> Result<[Var; 2]> { Ok([t.row(v, 0)?, t.row(v, 1)?]) };
    case(
        "maximum",
        &[(&twice, Distinct)],
        Box::new(move |t, v| {
            let [a, b] = halves(t, v[0])?;
            t.maximum(a, b)
        }),
    );
    case(
        "minimum of products",
        &[(&twice, Distinct), x],
        Box::new(move |t, v| {
            let [a, b] = halves(t, v[0])?;
            let smaller = t.minimum(a, b)?;
            t.mul(smaller, v[1])
        }),
    );
    case("maximum with itself", &[x], Box::new(|t, v| t.maximum(v[0], v[0])));
    for window in
        [Window { size: 2, stride: 2 }, Window { size: 3, stride: 2 }, Window { size: 3, stride: 1 }]
    {
        let name = format!("{}x{} stride {}", window.size, window.size, window.stride);
        let d = (&image, Distinct);
        let out = |e: usize| (e - window.size) / window.stride + 1;
        let pooled: Shape = [n, out(h), out(w), c].into();
        case(&format!("max-pool {name}"), &[d], Box::new(move |t, v| t.max_pool(v[0], window)));
        case(
            &format!("select {name}"),
            &[x, d],
            Box::new(move |t, v| t.push(Op::Select(window), &[v[0], v[1]], None)),
        );
        case(
            &format!("unselect {name}"),
            &[(&pooled, Signed), d],
            Box::new(move |t, v| t.push(Op::Unselect(window), &[v[0], v[1]], None)),
        );
    }

    for (from, to) in [(0, 3), (0, 4), (1, 3), (2, 4), (3, 4), (0, 1)] {
        let short = image.without(from..to);
        let full = image.clone();
        case(&format!("sum {from}..{to}"), &[x], Box::new(move |t, v| t.sum(v[0], from, to)));
        case(
            &format!("broadcast {from}..{to}"),
            &[(&short, Signed)],
            Box::new(move |t, v| t.broadcast(v[0], from, to, &full)),
        );
    }
    case("reshape", &[x], Box::new(|t, v| t.flatten(v[0])));
    case("variable", &[x], Box::new(|t, v| t.variable(v[0])));
    case("row", &[x], Box::new(move |t, v| t.row(v[0], n - 1)));
    let (full, part) = (image.with(0, &[3]), image.clone());
    case("unrow", &[(&part, Signed)], Box::new(move |t, v| t.push(Op::Unrow(1), &[v[0]], Some(&full))));
    case("stack", &[m, m, m], Box::new(|t, v| t.stack(&[v[0], v[2], v[1], v[0]])));
    for how in [Strided { stride: 2, before: 1, after: 2 }, Strided { stride: 1, before: 0, after: 3 }] {
        let to = image.clone();
        let short: Shape =
            [n, h.div_ceil(how.stride), w.div_ceil(how.stride), how.before + c + how.after].into();
        case(&format!("subsample {}", how.stride), &[x], Box::new(move |t, v| t.subsample(v[0], how)));
        case(
            &format!("embed {}", how.stride),
            &[(&short, Signed)],
            Box::new(move |t, v| t.push(Op::Embed(how), &[v[0]], Some(&to))),
        );
    }

    let eps = Scalar(1e-3);
    case("variance", &[x], Box::new(|t, v| t.push(Op::Variance, &[v[0]], None)));
    case("normalise", &[x], Box::new(move |t, v| t.normalise(v[0], eps.0)));
    let jacobian = move |t: &mut Tape, x, v| t.push(Op::NormJacobian(eps), &[x, v], None);
    case("norm-jacobian", &[x, x], Box::new(move |t, v| jacobian(t, v[0], v[1])));
    case("norm-jacobian of itself", &[x], Box::new(move |t, v| jacobian(t, v[0], v[0])));
    case("softmax", &[m], Box::new(|t, v| t.softmax(v[0])));
    case(
        "cross-entropy",
        &[m],
        Box::new(move |t, v| {
            let y = labels(t, n)?;
            t.cross_entropy(v[0], y)
        }),
    );
    case(
        "residual",
        &[m],
        Box::new(move |t, v| {
            let y = labels(t, n)?;
            t.push(Op::Residual, &[v[0], y], None)
        }),
    );

    // Programs of several operations, for what fusion makes of them.
    let (filter, logit_weight): (Shape, Shape) = ([3, 3, c, c].into(), [c, 3].into());
    let channels: Shape = [c].into();
    case(
        "conv, batch norm, relu, shortcut, mean, linear, weighted cross-entropy",
        &[x, (&filter, Signed), (&channels, Positive), (&channels, Signed), (&logit_weight, Signed)],
        Box::new(move |t, v| {
            let y = t.conv(v[0], v[1], Geometry { stride: 1, pad: 1, groups: 1 })?;
            let shape = t.shape(y).clone();
            let xhat = t.normalise(y, eps.0)?;
            let scale = t.broadcast_to(v[2], shape)?;
            let y = t.mul(xhat, scale)?;
            let y = t.add_bias(y, v[3])?;
            let y = t.add(y, v[0])?;
            let y = t.relu(y)?;
            let y = t.mean(y, 1, 3)?;
            let logits = t.matmul(y, v[4])?;
            let labels = labels(t, n)?;
            let losses = t.cross_entropy(logits, labels)?;
            let weights = t.sigmoid(losses)?;
            let product = t.mul(weights, losses)?;
            t.mean_all(product)
        }),
    );
    case(
        "sum of products",
        &[(&a, Signed), (&b, Signed), (&a, Signed), (&b, Signed)],
        Box::new(|t, v| {
            let (p, q, r) = (t.matmul(v[0], v[1])?, t.matmul(v[2], v[3])?, t.matmul(v[0], v[3])?);
            let sum = t.add(p, q)?;
            t.add(sum, r)
        }),
    );

    all.extend(layer_cases::layer_cases(size));

    // Without derivatives.
    let smooth = all.len();
    let mut case = |name: &str, inputs: &[(&Shape, Domain)], build: Build| {
        let inputs = inputs.iter().map(|(s, d)| ((*s).clone(), *d)).collect();
        all.push(Case { name: name.to_owned(), inputs, build, smooth: true });
    };
    case("detach", &[x], Box::new(|t, v| t.detach(v[0])));
    case("moments", &[x], Box::new(|t, v| t.push(Op::Moments, &[v[0]], None)));
    case(
        "weighted residual",
        &[m, (&[n].into(), Signed)],
        Box::new(move |t, v| {
            let y = labels(t, n)?;
            t.push(Op::WeightedResidual, &[v[0], y, v[1]], None)
        }),
    );
    case(
        "correct",
        &[(&matrix, Distinct)],
        Box::new(move |t, v| {
            let y = labels(t, n)?;
            t.correct(v[0], y)
        }),
    );
    case(
        "gather",
        &[],
        Box::new(move |t, _| {
            let pixels = t.input("pixels", Kind::Byte, [2, h, w, c])?;
            let picks = t.input("picks", Kind::Int, [n, 4])?;
            let per_channel = |v: f64| (0..c).map(|i| Scalar(v + 0.01 * i as f64)).collect();
            t.gather(pixels, picks, GatherSpec { mean: per_channel(0.4), std: per_channel(0.2), pad: 1 })
        }),
    );
    for case in &mut all[smooth..] {
        case.smooth = false;
    }
    all
}
