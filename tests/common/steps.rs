//! Whole meta steps on networks with numbers of a seed in all that they read.

use metatape::Result;
use metatape::backend::cpu::Cpu;
use metatape::meta::{Batch, MetaStep, StepConfig};
use metatape::nn::{
    self, LeNet, Mlp, Model, ResNet, SharedModel, Summary, WeightNet, WeightNetInit, WideResNet,
};
use metatape::program::{Backend, Options, Program, Session, Values};
use metatape::tape::{GatherSpec, Scalar, Tape};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

/// Samples of the batch.
pub const N: usize = 6;
/// Samples of the meta batch.
pub const M: usize = 5;

/// A classifier and the images that it is given.
pub struct Net {
    /// For people.
    pub name: &'static str,
    /// Height, width and channels.
    pub image: [usize; 3],
    pub classes: usize,
    pub model: SharedModel,
}

impl Net {
    pub fn new(
        name: &'static str,
        image: [usize; 3],
        classes: usize,
        model: impl Model + Send + Sync + 'static,
    ) -> Net {
        Net { name, image, classes, model: Box::new(model) }
    }

    /// As the command line has it.
    pub fn named(name: &'static str, image: [usize; 3]) -> Net {
        Net { name, image, classes: 10, model: nn::named(name, 10).unwrap() }
    }

    pub fn summary(&self) -> Summary {
        Summary::of(self.model.as_ref(), &self.image.into()).unwrap()
    }

    /// Batches that are given as inputs.
    pub fn given(&self) -> Batch {
        Batch::Given(self.image.into())
    }
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// One of each architecture, small.
pub fn networks() -> Vec<Net> {
    let classes = 4;
    vec![
        Net::new("small mlp", [4, 3, 1], classes, Mlp { hidden: 7, classes }),
        Net::new("small lenet", [8, 8, 1], classes, LeNet { channels: [3, 4], hidden: 6, classes }),
        Net::new("small resnet", [8, 8, 3], classes, ResNet { blocks: 1, width: 4, classes }),
        Net::new("small wrn", [8, 8, 3], classes, WideResNet { blocks: 1, widen: 1, classes }),
    ]
}

/// Networks as the command line has them, by name, at batches that the CPU does in f64 in seconds
/// to minutes.
pub fn whole_networks() -> Vec<(&'static str, Net, usize)> {
    let net = |name, image, batch| (name, Net::named(name, image), batch);
    vec![
        net("mlp", [28, 28, 1], 100),
        net("lenet", [28, 28, 1], 100),
        net("resnet32", [32, 32, 3], 32),
        net("wrn28-10", [32, 32, 3], 32),
    ]
}

/// A session with a program of the meta step, and everything that it reads set to numbers of seed
/// 1. It has not run.
pub fn prepare(
    net: &Net,
    config: &StepConfig,
    options: Options,
    batch: [usize; 2],
    backend: Box<dyn Backend>,
) -> (Session, Program) {
    let weight_net = WeightNet { hidden: 5, init: WeightNetInit::Faithful, slope: 1.0, groups: Vec::new() };
    let mut tape = Tape::new();
    let data = net.given();
    let step = MetaStep { net: net.model.as_ref(), weight_net: &weight_net, config, data: &data, batch };
    step.record(&mut tape, true).unwrap();
    let mut session = Session::new(backend);
    let program = session.compile(&tape, options).unwrap();
    let mut rng = Pcg64::seed_from_u64(1);
    let mut numbers = |n: usize| -> Vec<f64> { (0..n).map(|_| rng.random_range(-1.0..1.0)).collect() };
    for state in session.states().to_vec() {
        let mut values = numbers(state.shape.count());
        if [".var", "moment2", "clock"].iter().any(|part| state.name.contains(part)) {
            values.iter_mut().for_each(|v| *v = v.abs());
        }
        session.write_state(&state.name, Values::Float(&values)).unwrap();
    }
    for input in program.inputs().to_vec() {
        let count = input.shape.count();
        match input.name.as_str() {
            "y" | "y_meta" => {
                let labels: Vec<i32> = (0..count as i32).map(|i| i % 4).collect();
                session.feed(&program, &input.name, Values::Int(&labels)).unwrap();
            }
            "lr" => session.feed(&program, "lr", Values::Float(&[0.1])).unwrap(),
            "lr.theta" => session.feed(&program, "lr.theta", Values::Float(&[0.01])).unwrap(),
            name => session.feed(&program, name, Values::Float(&numbers(count))).unwrap(),
        }
    }
    (session, program)
}

/// The hypergradient of a whole network's first step in f64, one output after another
/// (`golden/README.md` says how it was made).
#[cfg(feature = "lab")]
pub fn exact(name: &str) -> Vec<f64> {
    use safetensors::SafeTensors;
    let file = SafeTensors::deserialize(include_bytes!("../golden/whole-networks.safetensors")).unwrap();
    let tensor = file.tensor(name).unwrap_or_else(|e| panic!("whole-networks.safetensors: {name}: {e}"));
    tensor.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
}

/// A session with a program of the meta step as training runs it: images gathered from bytes, a
/// fresh network. It has not run.
pub fn fresh(
    net: &Net,
    config: &StepConfig,
    batch: usize,
    backend: Box<dyn Backend>,
) -> Result<(Session, Program)> {
    const IMAGES: usize = 64;
    let weight_net = WeightNet { hidden: 100, init: WeightNetInit::Faithful, slope: 1.0, groups: Vec::new() };
    let channels = net.image[2];
    let spec = GatherSpec { mean: vec![Scalar(0.5); channels], std: vec![Scalar(0.25); channels], pad: 1 };
    let mut tape = Tape::new();
    let data = Batch::Picked { count: IMAGES, image: net.image, spec };
    let step =
        MetaStep { net: net.model.as_ref(), weight_net: &weight_net, config, data: &data, batch: [batch; 2] };
    step.record(&mut tape, true)?;
    let mut session = Session::new(backend);
    session.initialise(1)?;
    let program = session.compile(&tape, Options::default())?;
    let mut rng = Pcg64::seed_from_u64(2);
    let count = IMAGES * net.image.iter().product::<usize>();
    let pixels: Vec<u8> = (0..count).map(|_| rng.random()).collect();
    session.write_state("pixels", Values::Byte(&pixels))?;
    for suffix in ["", "_meta"] {
        let mut pick = || {
            let shift = [rng.random_range(-1..=1), rng.random_range(-1..=1)];
            [rng.random_range(0..IMAGES as i32), shift[0], shift[1], rng.random_range(0..2)]
        };
        let picks: Vec<i32> = (0..batch).flat_map(|_| pick()).collect();
        let labels: Vec<i32> = (0..batch).map(|_| rng.random_range(0..net.classes as i32)).collect();
        session.feed(&program, &format!("picks{suffix}"), Values::Int(&picks))?;
        session.feed(&program, &format!("y{suffix}"), Values::Int(&labels))?;
    }
    for (name, value) in [("lr", 0.05), ("lr.theta", 1e-3)] {
        session.feed(&program, name, Values::Float(&[value]))?;
    }
    Ok((session, program))
}

/// As [`prepare`], on the CPU in f64, and run.
pub fn run(net: &Net, config: &StepConfig, options: Options, threads: usize) -> (Session, Program) {
    let cpu = Box::new(Cpu::<f64>::new(threads).unwrap());
    let (mut session, program) = prepare(net, config, options, [N, M], cpu);
    session.run(&program).unwrap();
    (session, program)
}

/// The values of all outputs whose names begin so, one after another.
pub fn all_outputs(session: &Session, program: &Program, prefix: &str) -> Vec<f64> {
    let names: Vec<String> =
        program.outputs().map(|o| o.name.clone()).filter(|n| n.starts_with(prefix)).collect();
    assert!(!names.is_empty(), "no output begins with {prefix}");
    names.iter().flat_map(|n| session.fetch(program, n).unwrap()).collect()
}

/// ‖a − b‖ / ‖b‖.
pub fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}
