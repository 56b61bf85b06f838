//! Criterion benches of the plain step and of the whole meta step, optimisers included, by network
//! and route.
//!
//!     cargo bench --bench meta_step

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use metatape::backend::cpu::Cpu;
use metatape::meta::{Batch, MetaStep, Optimiser, PlainStep, Preset, Route, StepConfig};
use metatape::nn::{self, WeightNet, WeightNetInit};
use metatape::program::{Options, Program, Session, Values};
use metatape::tape::{Kind, Tape};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

const BATCH: usize = 100;

/// A session on all cores with the tape's program, parameters and inputs set.
fn ready(tape: &Tape) -> (Session, Program) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut session = Session::new(Box::new(Cpu::<f32>::new(threads).unwrap()));
    let program = session.compile(tape, Options::default()).unwrap();
    let mut rng = Pcg64::seed_from_u64(1);
    for input in program.inputs().to_vec() {
        let count = input.shape.count();
        if input.kind == Kind::Int {
            let labels: Vec<i32> = (0..count).map(|_| rng.random_range(0..10)).collect();
            session.feed(&program, &input.name, Values::Int(&labels)).unwrap();
        } else {
            // Learning rates small, so that parameters hardly move however long the bench runs.
            let scale = if count == 1 { 1e-6 } else { 1.0 };
            let values: Vec<f64> = (0..count).map(|_| scale * rng.random::<f64>()).collect();
            session.feed(&program, &input.name, Values::Float(&values)).unwrap();
        }
    }
    (session, program)
}

fn steps(c: &mut Criterion) {
    let weight_net = WeightNet {
        hidden: 100,
        init: WeightNetInit::Kinks,
        slope: Preset::Adam.slope(),
        groups: Vec::new(),
    };
    for (name, image) in [("mlp", [28, 28, 1]), ("lenet", [28, 28, 1]), ("resnet32", [32, 32, 3])] {
        let model = nn::named(name, 10).unwrap();
        let (net, data) = (model.as_ref(), &Batch::Given(image.into()));
        let mut group = c.benchmark_group(name);
        group.sample_size(if name == "mlp" { 100 } else { 10 });
        let mut tape = Tape::new();
        let optimiser = Optimiser::Sgd(StepConfig::default().classifier);
        PlainStep { net, optimiser, data, batch: BATCH }.record(&mut tape).unwrap();
        let (mut session, program) = ready(&tape);
        group.bench_function("plain step", |b| b.iter(|| session.run(black_box(&program)).unwrap()));
        for route in [Route::Jvp, Route::Reverse, Route::FiniteDifference] {
            let config = StepConfig { route, ..StepConfig::default() };
            let mut tape = Tape::new();
            let step = MetaStep { net, weight_net: &weight_net, config: &config, data, batch: [BATCH; 2] };
            step.record(&mut tape, false).unwrap();
            let (mut session, program) = ready(&tape);
            let title = format!("meta step, {route}");
            group.bench_function(title, |b| b.iter(|| session.run(black_box(&program)).unwrap()));
        }
        group.finish();
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
