//! `metatape bench`: milliseconds of a plain step and of a whole meta step, optimisers included.

use std::collections::BTreeMap;
use std::time::Instant;

use metatape::meta::{Batch, MetaStep, Optimiser, PlainStep, Preset, StepConfig};
use metatape::nn::{self, WeightNet, WeightNetInit};
use metatape::program::{Options, Program, Session, Values};
use metatape::tape::{GatherSpec, Scalar, Tape};
use metatape::words::counted;
use metatape::{Error, Result};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use serde_json::{Value, json};

use super::args::BenchArgs;
use super::report;

/// Random images in memory, from which batches are gathered.
const IMAGES: usize = 1000;
const CLASSES: usize = 10;
/// Runs of either kind that are not counted.
const WARM_UP: usize = 2;
/// The two kinds take turns, so that a disturbance hits both: in this many turns each, if there are as many steps.
const TURNS: usize = 5;
const LR: f64 = 0.05;

/// A program that is being timed.
struct Timed {
    program: Program,
    /// Its pairs of inputs for picks and labels.
    batches: Vec<[&'static str; 2]>,
    ms: Vec<f64>,
}

/// Times both kinds of steps and prints them.
pub fn run(args: &BenchArgs) -> Result<()> {
    let grey = matches!(args.model.as_str(), "mlp" | "lenet");
    let image = if grey { [28, 28, 1] } else { [32, 32, 3] };
    let net = nn::named(&args.model, CLASSES)?;
    let weight_net = WeightNet {
        hidden: 100,
        init: WeightNetInit::Kinks,
        slope: Preset::Adam.slope(),
        groups: Vec::new(),
    };
    let mut session = Session::new(args.device.backend_with(!args.no_graph)?);
    let mut rng = Pcg64::seed_from_u64(1);
    let data = images(image);

    let config = StepConfig { route: args.route, ..StepConfig::default() };
    let mut tape = Tape::new();
    let batch = [args.batch; 2];
    MetaStep { net: net.as_ref(), weight_net: &weight_net, config: &config, data: &data, batch }
        .record(&mut tape, false)?;
    let mut meta = Timed::new(&mut session, &tape, vec![["picks", "y"], ["picks_meta", "y_meta"]])?;
    drop(tape);
    let pixels: Vec<u8> = (0..IMAGES * image.iter().product::<usize>()).map(|_| rng.random()).collect();
    session.write_state("pixels", Values::Byte(&pixels))?;
    session.feed(&meta.program, "lr.theta", Values::Float(&[Preset::Adam.lr(WeightNetInit::Kinks)]))?;
    for _ in 0..WARM_UP {
        meta.step(&mut session, args.batch, &mut rng)?;
    }
    // Before the plain step is set up: the memory of a process that does meta steps alone.
    let memory = session.device_bytes().or_else(peak_resident_bytes).unwrap_or(meta.program.arena_bytes);

    let mut tape = Tape::new();
    let optimiser = Optimiser::Sgd(config.classifier);
    PlainStep { net: net.as_ref(), optimiser, data: &data, batch: args.batch }.record(&mut tape)?;
    let mut plain = Timed::new(&mut session, &tape, vec![["picks", "y"]])?;
    for _ in 0..WARM_UP {
        plain.step(&mut session, args.batch, &mut rng)?;
    }
    meta.ms.clear();
    plain.ms.clear();
    let turn = args.steps.div_ceil(TURNS);
    while meta.ms.len() < args.steps {
        let steps = turn.min(args.steps - meta.ms.len());
        for timed in [&mut plain, &mut meta] {
            for _ in 0..steps {
                timed.step(&mut session, args.batch, &mut rng)?;
            }
        }
    }
    let losses = session.fetch(&meta.program, "loss")?;
    if !losses.iter().all(|l| l.is_finite()) {
        return Err(Error::Numeric(format!(
            "the loss of {} left the range of {}, so the times mean nothing; take fewer --steps",
            args.model, args.device.precision
        )));
    }
    print(args, &session.describe(), &plain, &meta, memory)?;
    if args.profile { profile(&mut session, &meta.program) } else { Ok(()) }
}

/// Milliseconds and launches of a meta step by kernel: the mean of a few runs.
fn profile(session: &mut Session, program: &Program) -> Result<()> {
    const RUNS: usize = 5;
    let mut by_name: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
    for _ in 0..RUNS {
        for (name, seconds) in session.profile(program)? {
            let entry = by_name.entry(name).or_default();
            *entry = (entry.0 + seconds * 1e3 / RUNS as f64, entry.1 + 1);
        }
    }
    let mut rows: Vec<_> = by_name.into_iter().collect();
    rows.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    let heading = ["kernel of a meta step", "ms", "launches"].map(str::to_owned).to_vec();
    let row = |(name, (ms, count)): (&str, (f64, usize))| {
        vec![name.to_owned(), report::ms(ms), (count / RUNS).to_string()]
    };
    let table = std::iter::once(heading).chain(rows.into_iter().map(row)).collect::<Vec<_>>();
    report::print(format_args!("\n{}", report::table(&table)))
}

/// Where batches come from: random bytes, with the border for crops where training on such images has one.
fn images(image: [usize; 3]) -> Batch {
    let channels = image[2];
    let spec = GatherSpec {
        mean: vec![Scalar(0.5); channels],
        std: vec![Scalar(0.29); channels],
        pad: if channels == 3 { 4 } else { 0 },
    };
    Batch::Picked { count: IMAGES, image, spec }
}

impl Timed {
    fn new(session: &mut Session, tape: &Tape, batches: Vec<[&'static str; 2]>) -> Result<Timed> {
        let program = session.compile(tape, Options::default())?;
        session.feed(&program, "lr", Values::Float(&[LR]))?;
        Ok(Timed { program, batches, ms: Vec::new() })
    }

    /// One step on a batch drawn anew; timed with the upload of its few kilobytes, as in training.
    fn step(&mut self, session: &mut Session, batch: usize, rng: &mut Pcg64) -> Result<()> {
        let mut drawn = || -> (Vec<i32>, Vec<i32>) {
            let pick = |rng: &mut Pcg64| [rng.random_range(0..IMAGES as i32), 0, 0, rng.random_range(0..2)];
            let picks = (0..batch).flat_map(|_| pick(rng)).collect();
            (picks, (0..batch).map(|_| rng.random_range(0..CLASSES as i32)).collect())
        };
        let drawn: Vec<_> = self.batches.iter().map(|_| drawn()).collect();
        let start = Instant::now();
        for ([picks, y], (chosen, labels)) in self.batches.iter().zip(&drawn) {
            session.feed(&self.program, picks, Values::Int(chosen))?;
            session.feed(&self.program, y, Values::Int(labels))?;
        }
        session.run(&self.program)?;
        session.wait()?;
        self.ms.push(start.elapsed().as_secs_f64() * 1e3);
        Ok(())
    }

    fn least(&self) -> f64 {
        self.ms.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn most(&self) -> f64 {
        self.ms.iter().copied().fold(0.0, f64::max)
    }

    fn json(&self) -> Value {
        json!({ "median": report::median(&self.ms), "min": self.least(), "max": self.most() })
    }

    fn gflop(&self) -> f64 {
        self.program.flops as f64 / 1e9
    }

    fn row(&self, name: &str) -> Vec<String> {
        vec![
            name.to_owned(),
            report::ms(report::median(&self.ms)),
            report::ms(self.least()),
            report::ms(self.most()),
            self.program.kernels.to_string(),
            format!("{:.3}", self.gflop()),
            format!("{:.0}", self.gflop() / report::median(&self.ms) * 1e3),
        ]
    }
}

/// The largest resident memory of this process so far, where the system tells (Linux).
fn peak_resident_bytes() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn print(args: &BenchArgs, device: &str, plain: &Timed, meta: &Timed, memory: usize) -> Result<()> {
    let ratio = report::median(&meta.ms) / report::median(&plain.ms);
    if args.json {
        return report::print_json(&json!({
            "model": args.model,
            "batch": args.batch,
            "steps": args.steps,
            "route": args.route.to_string(),
            "device": device,
            "threads": args.device.threads()?,
            "precision": args.device.precision.to_string(),
            "graph": !args.no_graph,
            "plain_ms": plain.json(),
            "meta_ms": meta.json(),
            "ratio": ratio,
            "peak_memory_bytes": memory,
            "operations": meta.program.kernels,
            "plain_operations": plain.program.kernels,
            "gflop": meta.gflop(),
            "plain_gflop": plain.gflop(),
        }));
    }
    report::print(format_args!(
        "{}, batch {}, {} of each, route {}; {device}\n",
        args.model,
        args.batch,
        counted(args.steps, "step"),
        args.route
    ))?;
    let heading = ["", "median ms", "min", "max", "operations", "GFLOP", "GFLOP/s"];
    let rows = [heading.map(str::to_owned).to_vec(), plain.row("plain step"), meta.row("meta step")];
    report::print(report::table(&rows))?;
    report::print(format_args!(
        "\na meta step takes {ratio:.2} plain steps; peak memory with meta steps alone {}",
        report::mib(memory)
    ))
}
