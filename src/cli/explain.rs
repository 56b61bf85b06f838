//! `metatape hypergrad --explain`: takes meta steps from fresh networks and walks through the last
//! one. What is said stands in `lesson/`; here is what it says it about.

use metatape::meta::{ClosedForm, Order, Route};
use metatape::program::{Options, Part, Session, parts};
use metatape::tape::Tape;
use metatape::train::{Prepared, StepNumbers, Stepper, Walk, write_atomically};
use metatape::{Error, Result};
use serde_json::{Value, json};

use super::args::HypergradArgs;
use super::dump::check_free;
use super::hypergrad::{Reference, config};
use super::parting::Parting;
use super::{lesson, report};

/// Steps before and with the one that is explained, where `--steps` does not say: by then the
/// losses of right and wrong labels have begun to part.
const STEPS: usize = 100;

/// All that there is to tell of a step.
pub struct Explained {
    /// The run.
    pub data: Prepared,
    /// The machine, for people.
    pub machine: String,
    /// The step as recorded.
    pub tape: Tape,
    /// Its parts.
    pub parts: Vec<Part>,
    /// The samples of each step up to it, by whether their label is right.
    pub labels: Parting,
    /// Likewise by the size of their class, where there is a long tail.
    pub sizes: Option<Parting>,
    /// By class, the training images with its label, as given.
    pub class_counts: Vec<usize>,
    /// What it computed.
    pub numbers: StepNumbers,
    /// What it costs.
    pub cost: Cost,
}

/// Work in FLOP.
pub struct Cost {
    /// F: the losses of one batch, nothing else.
    pub forward: u64,
    /// The whole step as recorded, operation by operation.
    pub recorded: u64,
    /// The whole step as training runs it: rewritten and fused.
    pub running: u64,
    /// Kernels that this launches.
    pub kernels: usize,
    /// A plain training step, as it runs.
    pub plain: u64,
    /// Kernels that this launches.
    pub plain_kernels: usize,
}

impl Cost {
    /// In forward passes.
    pub fn forwards(&self, flops: u64) -> f64 {
        flops as f64 / self.forward as f64
    }
}

impl Explained {
    /// Relative distance of the step's hypergradient from the closed form, and whether it is
    /// relative to its terms, which cancel.
    pub fn distance(&self) -> (f64, bool) {
        let StepNumbers { hypergrad, closed_form, .. } = &self.numbers;
        let step: Vec<f64> = hypergrad.iter().flat_map(|h| h.1.iter().copied()).collect();
        let ClosedForm { hypergrad, size, .. } = closed_form;
        let reference = Reference::new(hypergrad, *size, self.data.config.precision);
        (reference.relative_error(&step), reference.cancelled.is_some())
    }
}

/// Takes the steps, writes the CSV file if asked, and explains.
pub fn run(args: &HypergradArgs) -> Result<()> {
    if let Some(path) = &args.csv {
        check_free("--csv", path, args.force)?;
    }
    let machine = args.run.machine().backend()?;
    let mut config = config(args)?;
    // The same u; the jvp is one walk to read, and holds for every network.
    if config.route == Route::Layerwise {
        config.route = Route::Jvp;
    }
    let data = Prepared::new(config)?;
    let mut csv = args.csv.as_ref().map(|_| csv::Writer::from_writer(Vec::new()));
    let mut walk = Walk::new(&data, Session::new(machine))?;
    let machine = walk.machine();
    let mut numbers = walk.step()?;
    let broken =
        |e: &dyn std::fmt::Display| Error::Program(format!("the CSV file cannot be put together: {e}"));
    let class_counts = data.class_counts();
    let tail = data.config.imbalance.is_some_and(|factor| factor > 1.0);
    let (mut labels, mut sizes) = (Parting::by_label(), tail.then(|| Parting::by_class_size(&class_counts)));
    for step in 1.. {
        labels.add(&numbers.samples);
        sizes.iter_mut().for_each(|sizes| sizes.add(&numbers.samples));
        for row in &numbers.samples {
            csv.as_mut().map_or(Ok(()), |csv| csv.serialize(row)).map_err(|e| broken(&e))?;
        }
        if step >= args.steps.unwrap_or(STEPS) {
            break;
        }
        numbers = walk.step()?;
    }
    drop(walk);
    if let (Some(csv), Some(path)) = (csv, &args.csv) {
        check_free("--csv", path, args.force)?;
        write_atomically(path, &csv.into_inner().map_err(|e| broken(&e))?)?;
    }
    let tape = Stepper::tape(&data, Order::Published)?;
    let parts: Vec<Part> = parts(&tape).into_iter().filter(|p| !p.operations.is_empty()).collect();
    let cost = cost(args, &data, &parts)?;
    let explained = Explained { data, machine, tape, parts, labels, sizes, class_counts, numbers, cost };
    if args.json { report::print_json(&json(args, &explained)) } else { lesson::print(args, &explained) }
}

/// F from the program of the first part alone; the whole step as the planner makes it for training.
fn cost(args: &HypergradArgs, data: &Prepared, parts: &[Part]) -> Result<Cost> {
    let mut session = Session::new(args.run.machine().backend()?);
    let running = session.compile(&Stepper::lean_tape(data)?, Options::default())?;
    let plain = session.compile(&Stepper::plain_tape(data)?, Options::default())?;
    Ok(Cost {
        forward: parts.first().map_or(0, |p| p.flops),
        recorded: parts.iter().map(|p| p.flops).sum(),
        running: running.flops,
        kernels: running.kernels,
        plain: plain.flops,
        plain_kernels: plain.kernels,
    })
}

fn json(args: &HypergradArgs, told: &Explained) -> Value {
    let (numbers, cost, config) = (&told.numbers, &told.cost, &told.data.config);
    let part = |p: &Part| {
        json!({
            "name": p.title,
            "operations": p.operations.len(),
            "gflop": p.flops as f64 / 1e9,
            "forwards": cost.forwards(p.flops),
        })
    };
    let named = |list: &[(String, Vec<f64>)]| -> Value {
        list.iter()
            .map(|(name, values)| (name.clone(), json!(values)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    json!({
        "model": config.model,
        "dataset": told.data.dataset.name,
        "noise": config.noise.to_string(),
        "imbalance": config.imbalance,
        "class_counts": told.class_counts,
        "batch": config.batch,
        "seed": config.seed,
        "precision": config.precision.name(),
        "device": told.machine,
        "weights": config.weights.to_string(),
        "undetached": config.undetached,
        "virtual": config.virtual_step.to_string(),
        "step": numbers.step,
        "lr": numbers.lr,
        "meta_loss": numbers.meta_loss,
        "parts": told.parts.iter().map(part).collect::<Vec<_>>(),
        "forward_gflop": cost.forward as f64 / 1e9,
        "recorded_forwards": cost.forwards(cost.recorded),
        "step_gflop": cost.running as f64 / 1e9,
        "step_forwards": cost.forwards(cost.running),
        "kernels": cost.kernels,
        "plain_forwards": cost.forwards(cost.plain),
        "samples": numbers.samples,
        "theta": named(&numbers.theta),
        "hypergrad": named(&numbers.hypergrad),
        "closed_form_relative_difference": told.distance().0,
        "csv": args.csv,
    })
}
