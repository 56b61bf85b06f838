//! A compiled program that runs again allocates nothing. One test, since the count is of the whole
//! process.

#![allow(clippy::print_stdout)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use metatape::backend::cpu::Cpu;
use metatape::meta::{Batch, MetaStep, Optimiser, PlainStep, StepConfig};
use metatape::nn::{LeNet, Mlp, Model, ResNet, WeightNet, WeightNetInit};
use metatape::program::{Options, Program, Session, Values};
use metatape::tape::{Geometry, Kind, Tape, Window};

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

/// Runs that are counted together.
const RUNS: usize = 100;
/// Rounds; in the first one threads set themselves up.
const ROUNDS: usize = 4;

/// Allocations of each round.
fn rounds(mut run: impl FnMut()) -> [usize; ROUNDS] {
    std::array::from_fn(|_| count(|| (0..RUNS).for_each(|_| run())))
}

/// A plain training step without linear layers: convolutions with bias and with batch norm,
/// pooling, a shortcut that strides, cross-entropy on channel means, momentum.
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
    let y = t.conv(x, w1, Geometry { stride: 1, pad: 2, groups: 1 }).unwrap();
    let y = t.add_bias(y, b1).unwrap();
    let y = t.relu(y).unwrap();
    let pooled = t.max_pool(y, Window { size: 2, stride: 2 }).unwrap();
    let y = t.conv(pooled, w2, Geometry { stride: 2, pad: 1, groups: 1 }).unwrap();
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
    t.output("loss", losses).unwrap();
    t.output("correct", correct).unwrap();
    tape
}

fn network_step(net: &dyn Model, image: [usize; 3], meta: bool) -> Tape {
    let data = &Batch::Given(image.into());
    let weight_net = WeightNet { hidden: 20, init: WeightNetInit::Faithful, slope: 1.0, groups: Vec::new() };
    let mut tape = Tape::new();
    let config = StepConfig::default();
    if meta {
        MetaStep { net, weight_net: &weight_net, config: &config, data, batch: [6, 5] }
            .record(&mut tape, true)
            .unwrap();
    } else {
        let optimiser = Optimiser::Sgd(config.classifier);
        PlainStep { net, optimiser, data, batch: 6 }.record(&mut tape).unwrap();
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

#[test]
fn running_again_allocates_nothing() {
    let classes = 4;
    let mlp = Mlp { hidden: 40, classes };
    let lenet = LeNet { channels: [3, 4], hidden: 6, classes };
    let resnet = ResNet { blocks: 1, width: 4, classes };
    let steps = [
        ("convolutional step", convolutional_step()),
        ("MLP, plain step", network_step(&mlp, [4, 3, 1], false)),
        ("MLP, meta step", network_step(&mlp, [4, 3, 1], true)),
        ("LeNet, meta step", network_step(&lenet, [8, 8, 3], true)),
        ("ResNet, meta step", network_step(&resnet, [8, 8, 3], true)),
    ];
    for (name, tape) in steps {
        for threads in [1, 2] {
            let counts = of_program(&tape, threads);
            println!("{name}, {threads} threads: {counts:?} allocations in rounds of {RUNS} runs");
            // The test harness has threads of its own, which may allocate now and then; a program
            // would in every round.
            assert!(counts[1..].contains(&0), "{name}, {threads} threads: {counts:?}");
        }
    }
}
