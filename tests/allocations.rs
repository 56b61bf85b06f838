//! A compiled program that runs again allocates nothing of its own. One test, since the count is of the whole process.
//!
//! Two libraries allocate inside their own calls; both are measured here on their own, and a program must allocate
//! exactly as often: rayon queues work that comes from outside its pool in blocks, a new one every few dozen runs, and
//! the `gemm` crate takes packing buffers at every call.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use metatape::backend::cpu::Cpu;
use metatape::backend::cpu::gemm::gemm;
use metatape::meta::{Batch, MetaStep, Optimiser, PlainStep, StepConfig};
use metatape::nn::{Architecture, Network, WeightNet, WeightNetInit};
use metatape::program::{Dims, Kernel, Options, Plan, Program, Session, Values};
use metatape::tape::{Geometry, Kind, Role, Tape, Window};

struct Counting;
static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system allocator, counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
        // SAFETY: as for the caller.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as for the caller.
        unsafe { System.dealloc(at, layout) }
    }
}
#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of `f`.
fn count(f: impl FnOnce()) -> usize {
    let before = COUNT.load(Relaxed);
    f();
    COUNT.load(Relaxed) - before
}

/// Runs that are counted together: as many as one block of rayon's queue serves, so that it takes one in each round.
const RUNS: usize = 63;
/// Rounds; in the first ones threads set themselves up (each at its first theft of work).
const ROUNDS: usize = 6;

/// Allocations of each round.
fn rounds(mut run: impl FnMut()) -> [usize; ROUNDS] {
    std::array::from_fn(|_| count(|| (0..RUNS).for_each(|_| run())))
}

/// A plain training step without linear layers: convolutions with bias and with batch norm, pooling, a shortcut that strides,
/// cross-entropy on channel means, momentum.
fn convolutional_step() -> Tape {
    let mut tape = Tape::new();
    let t = &mut tape;
    let lr = t.input("lr", Kind::Float, []).unwrap();
    let x = t.input("x", Kind::Float, [5, 12, 12, 3]).unwrap();
    let labels = t.input("y", Kind::Int, [5]).unwrap();
    let mut states = Vec::new();
    let mut state = |t: &mut Tape, name: &str, shape: &[usize]| {
        let var = t.state(name, Kind::Float, shape).unwrap();
        states.push((name.to_owned(), var));
        var
    };
    let w1 = state(t, "conv1", &[5, 5, 3, 8]);
    let b1 = state(t, "bias1", &[8]);
    let w2 = state(t, "conv2", &[3, 3, 8, 16]);
    let scale = state(t, "scale", &[16]);
    let bias = state(t, "bias", &[16]);
    let y = t.conv(x, w1, Geometry { stride: 1, pad: 2 }).unwrap();
    let y = t.add_bias(y, b1).unwrap();
    let y = t.relu(y).unwrap();
    let pooled = t.max_pool(y, Window { size: 2, stride: 2 }).unwrap();
    let y = t.conv(pooled, w2, Geometry { stride: 2, pad: 1 }).unwrap();
    let (mean, variance) = t.moments(y).unwrap();
    let xhat = t.normalise(y, 1e-5).unwrap();
    let shape = t.shape(y).clone();
    let scale = t.broadcast_to(scale, shape).unwrap();
    let y = t.mul(xhat, scale).unwrap();
    let y = t.add_bias(y, bias).unwrap();
    let how = metatape::tape::Strided { stride: 2, before: 4, after: 4 };
    let shortcut = t.subsample(pooled, how).unwrap();
    let y = t.add(y, shortcut).unwrap();
    let y = t.relu(y).unwrap();
    let logits = t.mean(y, 1, 3).unwrap();
    let losses = t.cross_entropy(logits, labels).unwrap();
    let correct = t.correct(logits, labels).unwrap();
    let loss = t.mean_all(losses).unwrap();
    let vars: Vec<_> = states.iter().map(|s| s.1).collect();
    let gradients = t.gradient(loss, &vars).unwrap();
    for ((name, w), g) in states.into_iter().zip(gradients) {
        let shape = t.shape(w).clone();
        let slot = t.state(&format!("momentum.{name}"), Kind::Float, shape).unwrap();
        let kept = t.scale(slot, 0.9).unwrap();
        let buffer = t.add(kept, g).unwrap();
        let step = t.scale_by(buffer, lr).unwrap();
        let next = t.sub(w, step).unwrap();
        t.update(slot, buffer).unwrap();
        t.update(w, next).unwrap();
    }
    for (name, value) in [("mean", mean), ("var", variance)] {
        let slot = t.state(name, Kind::Float, [16]).unwrap();
        t.update(slot, value).unwrap();
    }
    t.output("loss", losses);
    t.output("correct", correct);
    tape
}

fn network_step(architecture: Architecture, meta: bool) -> Tape {
    let image = if matches!(architecture, Architecture::Mlp(_)) { [4, 3, 1] } else { [8, 8, 3] };
    let net = Network { image, classes: 4, architecture };
    let weight_net = WeightNet { hidden: 20, init: WeightNetInit::Faithful, slope: 1.0 };
    let mut tape = Tape::new();
    let config = StepConfig::default();
    if meta {
        let data = &Batch::Given;
        MetaStep { net: &net, weight_net: &weight_net, config: &config, data, batch: [6, 5] }
            .record(&mut tape, true)
            .unwrap();
    } else {
        let optimiser = Optimiser::Sgd(config.classifier);
        PlainStep { net: &net, optimiser, data: &Batch::Given, batch: 6 }.record(&mut tape).unwrap();
    }
    tape
}

/// A run as a training loop makes it: inputs written, run, outputs read.
fn step(session: &mut Session, program: &Program, feeds: &Feeds, out: &mut [Vec<f64>]) {
    for (i, input) in program.inputs().iter().enumerate() {
        let id = feeds.ids[i];
        let count = input.shape.count();
        let values = match input.kind {
            Kind::Int => Values::Int(&feeds.ints[..count]),
            _ => Values::Float(&feeds.floats[..count]),
        };
        session.write_input(program, id, values).unwrap();
    }
    session.run(program).unwrap();
    for (id, out) in feeds.outputs.iter().zip(out) {
        session.read_into(program, *id, out).unwrap();
    }
}

struct Feeds {
    ids: Vec<metatape::program::InputId>,
    outputs: Vec<metatape::program::OutputId>,
    floats: Vec<f64>,
    ints: Vec<i32>,
}

/// Allocations of each round of runs of `tape` on `threads` threads.
fn of_program(tape: &Tape, threads: usize) -> [usize; ROUNDS] {
    let mut session = Session::new(Box::new(Cpu::<f32>::new(threads).unwrap()));
    let program = session.compile(tape, Options::default()).unwrap();
    let feeds = Feeds {
        ids: program.inputs().iter().map(|i| program.input(&i.name).unwrap()).collect(),
        outputs: program.outputs().map(|o| program.output(&o.name).unwrap()).collect(),
        floats: (0..10_000).map(|i| f64::from(i % 17) / 17.0 + 0.05).collect(),
        ints: (0..100).map(|i| i % 4).collect(),
    };
    let mut out: Vec<Vec<f64>> = program.outputs().map(|o| vec![0.0; o.shape.count()]).collect();
    rounds(|| step(&mut session, &program, &feeds, &mut out))
}

/// The same for the program's matrix products alone, called as the program calls them, one after another in a pool of as
/// many threads.
fn of_libraries(tape: &Tape, threads: usize) -> [usize; ROUNDS] {
    let plan = Plan::new(tape, Options::default()).unwrap();
    let products: Vec<_> = plan
        .instrs
        .iter()
        .filter_map(|i| match i.kernel {
            Kernel::Contract { dims: Dims::Gemm { m, n, k }, out, accumulate, .. } => Some(match out {
                Role::C => (false, false, m, n, k, accumulate),
                Role::A => (false, true, m, k, n, accumulate),
                Role::B => (true, false, k, n, m, accumulate),
            }),
            _ => None,
        })
        .collect();
    let most = products.iter().map(|p| (p.2 * p.4).max(p.4 * p.3).max(p.2 * p.3)).max().unwrap_or(0);
    let (a, b, mut c) = (vec![0.5f32; most], vec![0.5f32; most], vec![0f32; most]);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    rounds(|| {
        pool.install(|| {
            for &(ta, tb, m, n, k, accumulate) in &products {
                gemm(ta, tb, m, n, k, &a[..m * k], &b[..k * n], &mut c[..m * n], accumulate);
            }
        });
    })
}

#[test]
fn running_again_allocates_nothing() {
    let steps = [
        ("convolutional step", convolutional_step(), false),
        ("MLP, plain step", network_step(Architecture::Mlp(40), false), true),
        ("MLP, meta step", network_step(Architecture::Mlp(40), true), true),
        ("LeNet, meta step", network_step(Architecture::LeNet([3, 4, 6]), true), true),
        ("ResNet, meta step", network_step(Architecture::ResNet(1, 4), true), true),
    ];
    for (name, tape, products) in steps {
        for threads in [1, 2] {
            let (program, libraries) = (of_program(&tape, threads), of_libraries(&tape, threads));
            println!(
                "{name}, {threads} threads: {program:?} in {RUNS} runs each, {libraries:?} by libraries"
            );
            let least = |counts: [usize; ROUNDS]| counts.into_iter().min();
            assert_eq!(
                least(program),
                least(libraries),
                "{name}, {threads} threads: {program:?}, {libraries:?}"
            );
            assert_eq!(program.last(), program.iter().min(), "{name}, {threads} threads: grows: {program:?}");
            assert!(products || least(program) <= Some(1), "{name}, {threads} threads: {program:?}");
        }
    }
}
