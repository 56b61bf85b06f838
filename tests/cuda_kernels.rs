//! The CUDA kernels where the table of operations does not lead them: many blocks, several
//! launches, long programs, tensors that begin anywhere, updates in place, numbers that are not
//! finite.

mod common;

use common::findings::Findings;
use common::machines::{Machine, cards, simulators};
use metatape::Result;
use metatape::backend::cuda::Precision;
use metatape::program::{Backend, Options, Session, Values};
use metatape::tape::{GatherSpec, Geometry, Kind, Op, Scalar, Strided, Tape, Unary, Var, Window};

/// Of f32: sums run over up to some ten thousand entries here.
const TOLERANCE: f64 = 1e-5;

type Build = fn(&mut Tape) -> Result<()>;

/// Numbers that an entry's place decides: 1/8 to 1.1 in size, either sign, whole 512ths.
fn number(i: usize) -> f64 {
    let v = ((i * 7919 + 13) % 1009) as f64 - 504.0;
    (v + 64.0_f64.copysign(v)) / 512.0
}

/// All outputs, then all states, after two runs.
fn evaluate(backend: Box<dyn Backend>, build: Build, fuse: bool) -> Result<Vec<(String, Vec<f64>)>> {
    let mut tape = Tape::new();
    build(&mut tape)?;
    let mut session = Session::new(backend);
    let program = session.compile(&tape, Options { fuse })?;
    for (name, var) in tape.states().to_vec() {
        let values: Vec<f64> = (0..tape.shape(var).count()).map(|i| number(i + 5)).collect();
        session.write_state(&name, Values::Float(&values))?;
    }
    for (at, input) in program.inputs().to_vec().into_iter().enumerate() {
        let count = input.shape.count();
        match (input.kind, input.name.as_str()) {
            (Kind::Float, "odd numbers") => {
                let odd = [0.0, -0.0, f64::INFINITY, -f64::INFINITY, f64::NAN, 1e-30, -120.0, 95.0, 1.0];
                let values: Vec<f64> = (0..count).map(|i| odd[i % odd.len()]).collect();
                session.feed(&program, &input.name, Values::Float(&values))?;
            }
            (Kind::Float, "identity") => {
                let c = input.shape[3];
                let values: Vec<f64> = (0..count).map(|i| f64::from(u8::from(i / c == i % c))).collect();
                session.feed(&program, &input.name, Values::Float(&values))?;
            }
            (Kind::Float, name) if name.starts_with("few") => {
                let values: Vec<f64> = (0..count).map(|i| (i * 7919 % 251) as f64 / 16.0 - 7.5).collect();
                session.feed(&program, &input.name, Values::Float(&values))?;
            }
            (Kind::Float, _) => {
                let values: Vec<f64> = (0..count).map(|i| number(i + 31 * at)).collect();
                session.feed(&program, &input.name, Values::Float(&values))?;
            }
            (Kind::Int, "picks") => {
                let picks = |i: i32| [i % 3, i % 5 - 2, (i + 1) % 5 - 2, i % 2];
                let picks: Vec<i32> = (0..count as i32 / 4).flat_map(picks).collect();
                session.feed(&program, "picks", Values::Int(&picks))?;
            }
            (Kind::Int, _) => {
                let labels: Vec<i32> = (0..count as i32).map(|i| i * 13 % 100).collect();
                session.feed(&program, &input.name, Values::Int(&labels))?;
            }
            (Kind::Byte, _) => {
                let pixels: Vec<u8> = (0..count).map(|i| (i * 37 % 251) as u8).collect();
                session.feed(&program, &input.name, Values::Byte(&pixels))?;
            }
        }
    }
    session.run(&program)?;
    session.run(&program)?;
    let mut all = Vec::new();
    for output in program.outputs() {
        all.push((output.name.clone(), session.fetch(&program, &output.name)?));
    }
    for (name, _) in tape.states() {
        all.push((name.clone(), session.read_state(name)?));
    }
    Ok(all)
}

fn hold(
    findings: &mut Findings,
    what: &str,
    build: Build,
    precision: Precision,
    machines: fn(Precision) -> Vec<Machine>,
) {
    for fuse in [true, false] {
        let machines = machines(precision);
        let reference = evaluate(machines[0].reference(1), build, fuse).unwrap();
        for machine in machines {
            let mut tolerance = machine.tolerance;
            if precision == Precision::F32 {
                tolerance.operation = TOLERANCE;
            }
            let what = format!("{what} on {}, fuse {fuse}", machine.name);
            let Some(got) = findings.take(evaluate(machine.backend, build, fuse), &what) else { continue };
            assert_eq!(got.len(), reference.len());
            for ((name, got), (_, want)) in got.iter().zip(&reference) {
                findings.tensor(&tolerance, got, want, &format!("{what}: {name}"));
            }
        }
    }
}

fn input<const N: usize>(t: &mut Tape, name: &str, shape: [usize; N]) -> Result<Var> {
    t.input(name, Kind::Float, shape)
}

/// Enough entries for two rows at once, and sums over many blocks; vectors of four entries, and
/// columns that are no multiple of four.
fn many_entries(t: &mut Tape) -> Result<()> {
    for c in [64, 63] {
        let x = input(t, &format!("x{c}"), [67, 63, c])?;
        let g = input(t, &format!("g{c}"), [c])?;
        let scale = t.broadcast_to(g, [67, 63, c].into())?;
        let y = t.mul(x, scale)?;
        let y = t.relu(y)?;
        let y = t.add(y, x)?;
        let (sum, square) = (t.sum(y, 0, 2)?, t.mul(y, x)?);
        let squares = t.sum(square, 0, 2)?;
        let all = t.sum(square, 0, 3)?;
        for (name, var) in [("y", y), ("sum", sum), ("squares", squares), ("all", all)] {
            t.output(&format!("{name}{c}"), var).unwrap();
        }
    }
    Ok(())
}

/// Columns in several strips, aligned or not; few and many rows; one column.
fn wide_sums(t: &mut Tape) -> Result<()> {
    for (rows, c) in [(9, 4100), (200, 2051), (3, 640), (700, 1), (1, 5)] {
        let x = input(t, &format!("x{c}"), [rows, c])?;
        let y = t.scale(x, 1.5)?;
        let sum = t.sum(y, 0, 1)?;
        t.output(&format!("sum{c}"), sum).unwrap();
        t.output(&format!("y{c}"), y).unwrap();
    }
    Ok(())
}

/// Sums over a middle axis, cut into parts or not, with few and with many columns.
fn middle_sums(t: &mut Tape) -> Result<()> {
    for shape in [[2, 5000, 3], [1, 700, 40], [30, 64, 64], [300, 7, 1], [3, 1, 33], [2, 4097, 1], [4, 5, 31]]
    {
        let x = input(t, &format!("x{shape:?}"), shape)?;
        let sum = t.sum(x, 1, 2)?;
        t.output(&format!("sum{shape:?}"), sum).unwrap();
    }
    Ok(())
}

/// One group with more words than fit into a kernel's parameters.
fn a_long_group(t: &mut Tape) -> Result<()> {
    let shape = [5, 6, 7];
    let (x, z) = (input(t, "x", shape)?, input(t, "z", shape)?);
    let mut y = t.mul(x, z)?;
    for i in 0..31 {
        let g = input(t, &format!("g{i}"), [[5, 7], [6, 7], [5, 6]][i % 3])?;
        let axis = [1, 0, 2][i % 3];
        let g = t.broadcast(g, axis, axis + 1, &shape.into())?;
        let scaled = t.mul(y, g)?;
        let half = t.scale(scaled, 0.5)?;
        let shifted = t.offset(half, 0.1)?;
        let bent = if i % 2 == 0 { t.unary(Unary::Sigmoid, shifted)? } else { t.mask(shifted, z)? };
        y = t.add(bent, x)?;
        t.output(&format!("y{i}"), y).unwrap();
    }
    Ok(())
}

/// Batch norm's statistics over many blocks, and over hardly any rows.
fn statistics(t: &mut Tape) -> Result<()> {
    for (rows, c) in [(9000, 5), (4100, 64), (2, 1030), (1, 3)] {
        let (x, v) = (input(t, &format!("x{c}"), [rows, c])?, input(t, &format!("v{c}"), [rows, c])?);
        // Far from zero: squares of the numbers themselves would lose the variance.
        let x = t.offset(x, 30.0)?;
        let moments = t.push(Op::Moments, &[x], None)?;
        let xhat = t.normalise(x, 1e-3)?;
        let j = t.push(Op::NormJacobian(Scalar(1e-3)), &[x, v], None)?;
        for (name, var) in [("moments", moments), ("xhat", xhat), ("j", j)] {
            t.output(&format!("{name}{c}"), var).unwrap();
        }
    }
    Ok(())
}

/// Rows of a matrix that begin anywhere, more tensors in a stack than one launch takes, and one put
/// among zeros.
fn parts(t: &mut Tape) -> Result<()> {
    let x = input(t, "x", [70, 5])?;
    let rows = (0..70).map(|i| t.row(x, 69 - i)).collect::<Result<Vec<_>>>()?;
    let stack = t.stack(&rows)?;
    t.output("stack", stack).unwrap();
    let odd = t.mul(rows[1], rows[2])?;
    let sum = t.sum(odd, 0, 1)?;
    t.output("product of rows", odd).unwrap();
    t.output("sum of it", sum).unwrap();
    for (i, shape) in [[6, 8], [3, 5]].into_iter().enumerate() {
        let y = input(t, &format!("y{i}"), [shape[1]])?;
        let y = t.relu(y)?;
        let among = t.push(Op::Unrow(2), &[y], Some(&shape.into()))?;
        t.output(&format!("among zeros {i}"), among).unwrap();
    }
    Ok(())
}

/// Four channels at a time, windows that leave a border or a gap, and none that fits.
fn windows(t: &mut Tape) -> Result<()> {
    let x = input(t, "x", [2, 9, 7, 8])?;
    for (size, stride) in [(2, 3), (3, 2), (3, 1), (7, 1)] {
        let window = Window { size, stride };
        let y = t.max_pool(x, window)?;
        let v = t.scale(y, 0.7)?;
        let back = t.push(Op::Unselect(window), &[v, x], None)?;
        t.output(&format!("pooled {size} {stride}"), y).unwrap();
        t.output(&format!("back {size} {stride}"), back).unwrap();
    }
    for (i, how) in [Strided { stride: 2, before: 4, after: 4 }, Strided { stride: 3, before: 0, after: 8 }]
        .into_iter()
        .enumerate()
    {
        let y = t.subsample(x, how)?;
        let back = t.push(Op::Embed(how), &[y], Some(&[2, 9, 7, 8].into()))?;
        t.output(&format!("subsampled {i}"), y).unwrap();
        t.output(&format!("embedded {i}"), back).unwrap();
    }
    Ok(())
}

/// More classes than a warp has lanes, and equals among the logits.
fn classes(t: &mut Tape) -> Result<()> {
    let labels = t.input("labels", Kind::Int, [11])?;
    let z = input(t, "z", [11, 100])?;
    for (name, z) in [("", z), (" of thirty times", t.scale(z, 30.0)?), (" of equals", t.scale(z, 0.0)?)] {
        let losses = t.cross_entropy(z, labels)?;
        let softmax = t.softmax(z)?;
        let residual = t.push(Op::Residual, &[z, labels], None)?;
        let correct = t.correct(z, labels)?;
        for (what, var) in
            [("losses", losses), ("softmax", softmax), ("residual", residual), ("correct", correct)]
        {
            t.output(&format!("{what}{name}"), var).unwrap();
        }
    }
    Ok(())
}

/// More channels than one launch takes, crops and mirrored images.
fn batch(t: &mut Tape) -> Result<()> {
    for (i, c) in [70, 3].into_iter().enumerate() {
        let pixels = t.input(&format!("pixels{i}"), Kind::Byte, [3, 6, 5, c])?;
        let picks = match i {
            0 => t.input("picks", Kind::Int, [8, 4])?,
            _ => t.inputs()[1].1,
        };
        let each = |v: f64| (0..c).map(|i| Scalar(v + 0.001 * i as f64)).collect();
        let x = t.gather(pixels, picks, GatherSpec { mean: each(0.4), std: each(0.2), pad: 2 })?;
        t.output(&format!("x{i}"), x).unwrap();
    }
    Ok(())
}

/// Zeros, infinities, what is no number, and what overflows on the way.
fn odd_numbers(t: &mut Tape) -> Result<()> {
    let x = t.input("odd numbers", Kind::Float, [37])?;
    for f in [Unary::Sigmoid, Unary::Recip] {
        let y = t.unary(f, x)?;
        t.output(&format!("{f:?}"), y).unwrap();
    }
    let relu = t.relu(x)?;
    t.output("relu", relu).unwrap();
    let image = t.reshape(x, [1, 37, 1, 1])?;
    let image = t.stack(&[image, image])?;
    let image = t.reshape(image, [1, 2, 37, 1])?;
    let pooled = t.max_pool(image, Window { size: 2, stride: 1 })?;
    t.output("pooled", pooled).unwrap();
    let constant = t.constant(0.25, [3, 5]);
    t.output("constant", constant).unwrap();
    let labels = t.input("labels of one", Kind::Int, [37])?;
    let z = t.reshape(x, [37, 1])?;
    let rest = input(t, "rest", [37, 100])?;
    let z = t.broadcast(z, 1, 2, &[37, 100, 1].into())?;
    let z = t.reshape(z, [37, 100])?;
    let z = t.add(z, rest)?;
    let correct = t.correct(z, labels)?;
    t.output("correct", correct).unwrap();
    Ok(())
}

/// What lies between two convolutions, which bf16 stores in two bytes: four channels at a time in
/// every kernel that meets images. Numbers are few and whole, so that bf16 rounds nothing that a
/// maximum or a mask hangs on.
fn activations(t: &mut Tape) -> Result<()> {
    let (shape, geometry) = ([3, 10, 8, 8], Geometry { stride: 1, pad: 0, groups: 1 });
    let identity = t.input("identity", Kind::Float, [1, 1, 8, 8])?;
    let (x, v) = (input(t, "few x", shape)?, input(t, "few v", shape)?);
    let (x, v) = (t.conv(x, identity, geometry)?, t.conv(v, identity, geometry)?);
    let channels = input(t, "channels", [8])?;
    let scale = t.broadcast_to(channels, shape.into())?;
    let window = Window { size: 2, stride: 2 };
    let how = Strided { stride: 2, before: 4, after: 4 };
    let xhat = t.normalise(x, 1e-3)?;
    let jacobian = t.push(Op::NormJacobian(Scalar(1e-3)), &[x, v], None)?;
    let scaled = t.mul(v, scale)?;
    let relu = t.mask(scaled, x)?;
    let pooled = t.max_pool(x, window)?;
    let back = t.push(Op::Unselect(window), &[pooled, x], None)?;
    let short = t.subsample(v, how)?;
    let long = t.push(Op::Embed(how), &[short], Some(&shape.into()))?;
    let middle = t.sum(relu, 1, 3)?;
    let leading = t.sum(relu, 0, 3)?;
    let moments = t.push(Op::Moments, &[x], None)?;
    for (name, image) in [
        ("xhat", xhat),
        ("jacobian", jacobian),
        ("relu", relu),
        ("pooled", pooled),
        ("back", back),
        ("long", long),
    ] {
        let y = t.conv(image, identity, geometry)?;
        t.output(name, y).unwrap();
    }
    for (name, var) in [("middle", middle), ("leading", leading), ("moments", moments)] {
        t.output(name, var).unwrap();
    }
    Ok(())
}

/// An optimiser: states written over themselves, a learning rate that is one number, of some states
/// sums of what they held before. Those of one kind go into one launch, whatever their sizes.
fn updates(t: &mut Tape) -> Result<()> {
    let shapes = [[33, 17], [16, 64], [1, 1], [3, 5], [200, 90], [7, 31], [64, 2]];
    for (i, shape) in shapes.into_iter().enumerate() {
        let w = t.state(&format!("w{i}"), Kind::Float, shape)?;
        let m = t.state(&format!("m{i}"), Kind::Float, shape)?;
        let g = input(t, &format!("g{i}"), shape)?;
        let lr = t.input(&format!("lr{i}"), Kind::Float, [0; 0])?;
        if i < 2 {
            let before = t.mul(w, m)?;
            let before = t.sum(before, 0, 1)?;
            t.output(&format!("before{i}"), before).unwrap();
        }
        let decayed = t.scale(m, 0.9)?;
        let momentum = t.add(decayed, g)?;
        let step = t.scale_by(momentum, lr)?;
        let step = t.scale(step, -1.0)?;
        let new = t.add(w, step)?;
        t.update(m, momentum)?;
        t.update(w, new)?;
    }
    Ok(())
}

const ALL: [(&str, Build); 11] = [
    ("many entries", many_entries),
    ("wide sums", wide_sums),
    ("middle sums", middle_sums),
    ("a long group", a_long_group),
    ("statistics", statistics),
    ("parts", parts),
    ("windows", windows),
    ("classes", classes),
    ("batch", batch),
    ("odd numbers", odd_numbers),
    ("updates", updates),
];

fn everything(machines: fn(Precision) -> Vec<Machine>) {
    let mut findings = Findings::default();
    for (what, build) in ALL {
        hold(&mut findings, what, build, Precision::F32, machines);
    }
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        hold(&mut findings, "activations", activations, precision, machines);
    }
}

#[test]
#[cfg_attr(not(simulator), ignore = "needs a C++ compiler")]
fn simulator_beyond_the_table() {
    everything(simulators);
}

#[test]
#[ignore = "needs an NVIDIA GPU; run with --ignored card"]
fn card_beyond_the_table() {
    everything(cards);
}
