//! `metatape hypergrad`: one meta step on real data from a fresh network, by every route.

use std::fmt;
use std::time::{Duration, Instant};

use metatape::data::{BatchConfig, Batcher, Dataset, Split};
use metatape::meta::{Adam, Batch, MetaStep, Optimiser, Route, Sgd, StepConfig};
use metatape::nn::{self, NORM_EPS, SharedModel, Summary, WeightNet};
use metatape::program::{Options, Program, Session, Values};
use metatape::seed::Stream;
use metatape::tape::{GatherSpec, Kind, Scalar, Shape, Tape};
use metatape::{Error, Result};

use super::args::HypergradArgs;
use super::dump::{Dump, check_free};
use super::{explain, report};

mod table;

pub use table::relative_error;
use table::{print_json, print_table};

/// The explicit matrix is left out of "all routes" where it needs more work than this …
const MOST_PER_SAMPLE_FLOPS: f64 = 200e9;
/// … or where its per-sample gradients take more memory than this.
const MOST_PER_SAMPLE_BYTES: f64 = (1_u64 << 31) as f64;
/// A route is timed this often after a warm-up …
const TIMED_RUNS: usize = 5;
/// … or until this time is over, but once at least.
const TIMED_FOR: Duration = Duration::from_secs(3);

/// One step's data and everything that decides its results.
struct Setting<'a> {
    args: &'a HypergradArgs,
    net: SharedModel,
    /// Inputs `x` and `x_meta`, of images `[h,w,c]`.
    data: Batch,
    image: Shape,
    weight_net: WeightNet,
    lr_theta: f64,
    train: Samples,
    /// Of further virtual steps.
    ahead: Vec<Samples>,
    meta: Samples,
}

/// A batch as the step takes it.
struct Samples {
    /// Normalised, `[n,h,w,c]`, row-major, as the machine rounds them.
    images: Vec<f64>,
    /// `[n]`.
    labels: Vec<i32>,
}

/// A way to a hypergradient: a route of the one-step kind, or through several virtual steps.
#[derive(Clone, Copy, PartialEq)]
struct Way {
    route: Route,
    unroll: usize,
}

impl Way {
    /// Of one virtual step.
    fn one(route: Route) -> Way {
        Way { route, unroll: 1 }
    }

    /// Whether it is another hypergradient than the one-step kind's, so that its distance is no
    /// error.
    fn is_other(self) -> bool {
        self.unroll > 1 || self.route.is_of_the_optimum()
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unroll {
            1 => self.route.fmt(f),
            steps => f.pad(&format!("unroll:{steps}")),
        }
    }
}

/// What a route gave.
struct Outcome {
    way: Way,
    /// All of θ's gradient, parameter after parameter.
    hypergrad: Vec<f64>,
    loss: f64,
    meta_loss: f64,
    times: Vec<f64>,
    operations: usize,
    flops: u64,
    buffer_bytes: usize,
}

/// Prints the table of routes; writes the dump if asked.
pub fn run(args: &HypergradArgs) -> Result<()> {
    if let Some(path) = &args.dump {
        check_free("--dump", path, args.force)?;
    }
    if args.explain {
        return explain::run(args);
    }
    // A machine that is not there is told before the data are read.
    let device = args.device.backend()?.describe();
    let (dataset, split) = args.data.load(args.seed)?;
    let setting = Setting::new(args, &dataset, &split)?;
    let unroll = args.step.unroll;
    let main = Way { route: args.route.unwrap_or(Route::Jvp), unroll };
    if args.print_tape {
        let mut tape = Tape::new();
        let config = setting.config(main);
        setting.step(&config).record(&mut tape, false)?;
        return report::print(tape.to_string().trim_end());
    }
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut skipped = None;
    setting.config(main).check()?;
    // The reference stands first.
    let mut ways = vec![Way::one(Route::Reverse)];
    ways.extend(match args.route {
        None => Route::ALL[1..].iter().copied().map(Way::one).collect(),
        Some(_) => Vec::new(),
    });
    if !ways.contains(&main) {
        ways.push(main);
    }
    for way in ways {
        if way.route == Route::PerSample && args.route.is_none() {
            let jvp = outcomes.iter().find(|o| o.way == Way::one(Route::Jvp));
            skipped = setting.too_large(jvp.map_or(0, |o| o.flops))?;
            if skipped.is_some() {
                continue;
            }
        }
        let mut dump = args.dump.as_ref().filter(|_| way == main).map(|_| Dump::new(args.device.precision));
        outcomes.push(setting.outcome(way, dump.as_mut())?);
        if let (Some(dump), Some(path)) = (dump, &args.dump) {
            dump.write(path, args.force)?;
        }
    }
    if args.json {
        print_json(&setting, &device, &outcomes, skipped)
    } else {
        print_table(&setting, &device, &outcomes, skipped)
    }
}

impl Setting<'_> {
    fn new<'a>(args: &'a HypergradArgs, dataset: &Dataset, split: &Split) -> Result<Setting<'a>> {
        let image = Shape::from([dataset.train.height, dataset.train.width, dataset.train.channels]);
        let net = nn::named(&args.model, dataset.classes())?;
        let how =
            |stream| BatchConfig { size: args.batch, seed: args.seed, stream, augment: dataset.augment };
        let (train, meta) = (&split.train, &split.meta);
        let mut train = Batcher::per_epoch(&train.indices, &train.labels, how(Stream::TrainBatches))?;
        let mut meta = Batcher::endless(&meta.indices, &meta.labels, how(Stream::MetaBatches))?;
        Ok(Setting {
            args,
            net,
            data: Batch::Given(image.clone()),
            image,
            weight_net: args.step.weight_net(),
            lr_theta: args
                .step
                .weight_net_lr
                .unwrap_or(args.step.weight_net_preset.lr(args.step.weight_net_init)),
            train: gather(args, dataset, train.batch(0))?,
            ahead: (1..args.step.unroll as u64)
                .map(|step| gather(args, dataset, train.batch(step)))
                .collect::<Result<_>>()?,
            meta: gather(args, dataset, meta.batch(0))?,
        })
    }

    fn config(&self, way: Way) -> StepConfig {
        let config = self.args.step.config(way.route, self.args.device.precision);
        StepConfig { unroll: way.unroll, ..config }
    }

    fn step<'s>(&'s self, config: &'s StepConfig) -> MetaStep<'s> {
        let batch = [self.args.batch; 2];
        MetaStep { net: self.net.as_ref(), weight_net: &self.weight_net, config, data: &self.data, batch }
    }

    /// What the inputs' names end in, and their samples.
    fn batches(&self, way: Way) -> Vec<(String, &Samples)> {
        let mut all = vec![(String::new(), &self.train), ("_meta".to_owned(), &self.meta)];
        all.extend(
            self.ahead
                .iter()
                .take(way.unroll - 1)
                .enumerate()
                .map(|(i, samples)| (format!("_{}", i + 2), samples)),
        );
        all
    }

    /// Why the explicit matrix is not computed unasked, from the work of a step by the jvp.
    fn too_large(&self, jvp_flops: u64) -> Result<Option<String>> {
        let n = self.args.batch as f64;
        let params = Summary::of(self.net.as_ref(), &self.image)?.count();
        let bytes = 2.0 * n * params as f64 * self.args.device.precision.bytes() as f64;
        // With F one forward pass of the batch, a step by `jvp` is 10F, and each of the 2n reverse
        // walks 2F.
        let flops = jvp_flops as f64 / 10.0 * 4.0 * n;
        let large = bytes > MOST_PER_SAMPLE_BYTES || flops > MOST_PER_SAMPLE_FLOPS;
        Ok(large.then(|| {
            format!(
                "left out: about {:.0} GFLOP and {:.1} GiB of per-sample gradients; ask for it by --route per-sample",
                flops / 1e9,
                bytes / f64::from(1 << 30)
            )
        }))
    }

    /// A session with one program of the step, all states at their first values and all inputs
    /// given.
    fn session(&self, way: Way, everything: bool) -> Result<(Session, Program)> {
        let mut tape = Tape::new();
        let config = self.config(way);
        self.step(&config).record(&mut tape, everything)?;
        let mut session = Session::new(self.args.device.backend()?);
        let program = session.compile(&tape, Options::default())?;
        session.initialise(self.args.seed)?;
        for (suffix, samples) in self.batches(way) {
            session.feed(&program, &format!("x{suffix}"), Values::Float(&samples.images))?;
            session.feed(&program, &format!("y{suffix}"), Values::Int(&samples.labels))?;
        }
        session.feed(&program, "lr", Values::Float(&[self.args.step.lr]))?;
        session.feed(&program, "lr.theta", Values::Float(&[self.lr_theta]))?;
        Ok((session, program))
    }

    /// One route's values, from a program that keeps them all, and its time and size, from one that
    /// keeps what training does.
    fn outcome(&self, way: Way, dump: Option<&mut Dump>) -> Result<Outcome> {
        let (mut session, program) = self.session(way, true)?;
        if let Some(dump) = dump {
            self.dump_inputs(way, &session, dump)?;
            session.run(&program)?;
            self.dump_results(way, &session, &program, dump)?;
        } else {
            session.run(&program)?;
        }
        let losses = session.fetch(&program, "loss")?;
        let meta_loss = session.fetch(&program, "meta_loss")?[0];
        let loss = losses.iter().sum::<f64>() / losses.len() as f64;
        if !(loss.is_finite() && meta_loss.is_finite()) {
            return Err(Error::Numeric(format!(
                "route {way}: the loss is {loss} and the meta loss {meta_loss}, no finite numbers; try a smaller --lr"
            )));
        }
        let mut hypergrad = Vec::new();
        for output in program.outputs().filter(|o| o.name.starts_with("hypergrad.")) {
            hypergrad.extend(session.fetch(&program, &output.name)?);
        }
        drop(session);

        let (mut session, program) = self.session(way, false)?;
        session.run(&program)?;
        session.wait()?;
        let mut times = Vec::new();
        let start = Instant::now();
        while times.is_empty() || (times.len() < TIMED_RUNS && start.elapsed() < TIMED_FOR) {
            let start = Instant::now();
            session.run(&program)?;
            session.wait()?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        Ok(Outcome {
            way,
            hypergrad,
            loss,
            meta_loss,
            times,
            operations: program.kernels,
            flops: program.flops,
            buffer_bytes: program.arena_bytes,
        })
    }

    fn dump_inputs(&self, way: Way, session: &Session, dump: &mut Dump) -> Result<()> {
        for (suffix, samples) in self.batches(way) {
            let n = samples.labels.len();
            dump.floats(format!("x{suffix}"), &self.image.with(0, &[n]), &samples.images);
            dump.labels(&format!("y{suffix}"), &samples.labels);
        }
        dump.floats("lr", &[], &[self.args.step.lr]);
        let moments = "theta.moment";
        let parameter =
            |name: &str| name.starts_with("w.") || name.starts_with("theta.") && !name.starts_with(moments);
        for state in session.states().iter().filter(|s| parameter(&s.name)) {
            dump.floats(state.name.clone(), &state.shape, &session.read_state(&state.name)?);
        }
        Ok(())
    }

    fn dump_results(&self, way: Way, session: &Session, program: &Program, dump: &mut Dump) -> Result<()> {
        let wanted = |name: &str| match name.split_once('.') {
            None => ["loss", "weight", "meta_loss", "u"].contains(&name),
            Some((group, _)) => {
                ["virtual", "meta_grad", "w_next", "hypergrad", "theta_next"].contains(&group)
            }
        };
        for output in program.outputs().filter(|o| wanted(&o.name)) {
            dump.floats(output.name.clone(), &output.shape, &session.fetch(program, &output.name)?);
        }
        let config = self.config(way);
        dump.note("program", format!("metatape {}", env!("CARGO_PKG_VERSION")));
        dump.note("model", format!("{} on {}", self.args.model, self.image));
        dump.note("seed", self.args.seed);
        dump.note("dataset", self.args.data.dataset);
        dump.note("noise", self.args.data.noise());
        dump.note("route", way);
        dump.note("weights", config.weights);
        dump.note("undetached", config.undetached);
        dump.note("virtual", config.virtual_step);
        note_optimiser(dump, "classifier", &Optimiser::Sgd(config.classifier));
        note_optimiser(dump, "weight-net", &config.weight_net);
        dump.note("lr.theta", self.lr_theta);
        dump.note("weight-net.init", self.weight_net.init);
        dump.note("step", "the first: all momentum buffers and moments are 0 before it");
        dump.note("batch-norm eps", NORM_EPS);
        if way.route == Route::FiniteDifference {
            dump.note("finite-difference probe", config.probe);
        }
        Ok(())
    }
}

/// An optimiser and its constants, a line of metadata each.
fn note_optimiser(dump: &mut Dump, whose: &str, optimiser: &Optimiser) {
    let (name, constants) = match *optimiser {
        Optimiser::Sgd(Sgd { momentum, nesterov, weight_decay }) => {
            let name = if nesterov { "sgd with nesterov's momentum" } else { "sgd" };
            (name, vec![("momentum", momentum), ("weight-decay", weight_decay)])
        }
        Optimiser::Adam(Adam { beta1, beta2, eps, weight_decay }) => {
            let constants =
                [("beta1", beta1), ("beta2", beta2), ("eps", eps), ("weight-decay", weight_decay)];
            ("adam", constants.to_vec())
        }
    };
    dump.note(&format!("{whose}.optimiser"), name);
    for (constant, value) in constants {
        dump.note(&format!("{whose}.{constant}"), value);
    }
}

/// A batch's images as the step's own gathering gives them, normalised and augmented, in the
/// machine's precision.
fn gather(args: &HypergradArgs, dataset: &Dataset, batch: &metatape::data::Batch) -> Result<Samples> {
    let images = &dataset.train;
    let shape = [batch.picks.len(), images.height, images.width, images.channels];
    // Only the batch's own images go to the machine: pick i is image i there.
    let mut pixels = Vec::with_capacity(shape.iter().product());
    let mut picks = Vec::with_capacity(4 * batch.picks.len());
    for (i, [index, dx, dy, flip]) in batch.picks.iter().enumerate() {
        pixels.extend_from_slice(images.image(*index as usize));
        picks.extend([i as i32, *dx, *dy, *flip]);
    }
    let scalars = |values: &[f64]| values.iter().copied().map(Scalar).collect();
    let pad = dataset.augment.map_or(0, |a| a.pad);
    let spec = GatherSpec { mean: scalars(&dataset.mean), std: scalars(&dataset.std), pad };

    let mut tape = Tape::new();
    let all = tape.state("pixels", Kind::Byte, shape)?;
    let chosen = tape.input("picks", Kind::Int, [batch.picks.len(), 4])?;
    let gathered = tape.gather(all, chosen, spec)?;
    tape.output("x", gathered)?;
    let mut session = Session::new(args.device.backend()?);
    let program = session.compile(&tape, Options::default())?;
    session.write_state("pixels", Values::Byte(&pixels))?;
    session.feed(&program, "picks", Values::Int(&picks))?;
    session.run(&program)?;
    Ok(Samples { images: session.fetch(&program, "x")?, labels: batch.labels.clone() })
}
