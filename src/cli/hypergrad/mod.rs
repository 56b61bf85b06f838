//! `metatape hypergrad`: one meta step on real data from a fresh network, by every route.

use std::fmt;
use std::time::{Duration, Instant};

use metatape::meta::{Adam, Optimiser, Order, Route, Sgd};
use metatape::nn::{NORM_EPS, Summary};
use metatape::program::{Options, Program, Session, Values};
use metatape::tape::Tape;
use metatape::train::{At, Config, Prepared, Stepper, Walk};
use metatape::{Error, Result};

use super::args::{HypergradArgs, given};
use super::device::Machine;
use super::dump::{Dump, check_free};
use super::{explain, report};

mod table;

pub use table::Reference;
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
    machine: Machine,
    data: Prepared,
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
    /// Of a route of the optimum, the relative residual of its linear system.
    residual: Option<f64>,
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
    let machine = args.run.machine();
    // A machine that is not there is told before the data are read.
    let device = machine.backend()?.describe();
    let only = given("hypergrad").contains("route");
    let Config { route, unroll, .. } = args.run.config;
    let main = Way { route, unroll };
    let mut setting = Setting { args, machine, data: Prepared::new(config(args)?)? };
    if args.print_tape {
        return report::print(Stepper::lean_tape(&setting.data)?.to_string().trim_end());
    }
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut skipped = None;
    // The reference stands first.
    let mut ways = vec![Way::one(Route::Reverse)];
    ways.extend(Route::ALL[1..].iter().copied().filter(|_| !only).map(Way::one));
    if !ways.contains(&main) {
        ways.push(main);
    }
    for way in ways {
        if way.route == Route::PerSample && !only {
            let jvp = outcomes.iter().find(|o| o.way == Way::one(Route::Jvp));
            skipped = setting.too_large(jvp.map_or(0, |o| o.flops))?;
            if skipped.is_some() {
                continue;
            }
        }
        let mut dump =
            args.dump.as_ref().filter(|_| way == main).map(|_| Dump::new(setting.data.config.precision));
        outcomes.push(setting.outcome(way, dump.as_mut())?);
        if let (Some(dump), Some(path)) = (dump, &args.dump) {
            dump.write(path, args.force)?;
        }
    }
    let size = setting.size(&outcomes)?;
    if args.json {
        print_json(&setting, &device, (&outcomes, size), skipped)
    } else {
        print_table(&setting, &device, (&outcomes, size), skipped)
    }
}

/// A run that `train` could do, but for the schedule.
pub fn config(args: &HypergradArgs) -> Result<Config> {
    let mut flags = args.run.config()?;
    // The hypergradient is the same with and without.
    flags.clip_grad = args.run.clip_grad.and_then(|bound| bound.0);
    Ok(Config { epochs: 1, milestones: Vec::new(), baseline: false, seed: args.seed, ..flags })
}

impl Setting<'_> {
    /// Why the explicit matrix is not computed unasked, from the work of a step by the jvp.
    fn too_large(&self, jvp_flops: u64) -> Result<Option<String>> {
        let Config { batch, precision, .. } = self.data.config;
        let n = batch as f64;
        let params = Summary::of(self.data.net(), self.data.shape())?.count();
        let bytes = 2.0 * n * params as f64 * precision.bytes() as f64;
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

    /// The length of the hypergradient's terms; 0, which asks for no step, where there is one and
    /// the step's own routes agree on it.
    fn size(&mut self, outcomes: &[Outcome]) -> Result<f64> {
        const AGREE: f64 = 1e-3;
        let reference = outcomes.first().map_or(&[][..], |o| &o.hypergrad);
        let reference = Reference { hypergrad: reference, cancelled: None };
        let apart = |o: &Outcome| !o.way.is_other() && reference.relative_error(&o.hypergrad) > AGREE;
        if reference.hypergrad.iter().any(|h| *h != 0.0) && !outcomes.iter().any(apart) {
            return Ok(0.0);
        }
        let Setting { machine, data, .. } = self;
        (data.config.route, data.config.unroll) = (Route::Jvp, 1);
        Ok(Walk::new(data, Session::new(machine.backend()?))?.step()?.closed_form.size)
    }

    /// One route's values, from a program that keeps them all, and its time and size, from one that
    /// keeps what training does.
    fn outcome(&mut self, way: Way, dump: Option<&mut Dump>) -> Result<Outcome> {
        let Setting { machine, data, .. } = self;
        (data.config.route, data.config.unroll) = (way.route, way.unroll);
        let (meta, at) =
            (&data.split.meta, At { step: 0, meta_step: 0, lr: data.config.rate(data.config.method) });
        let mut session = Session::new(machine.backend()?);
        data.begin(&mut session)?;
        let mut step = Stepper::new(data, Order::Published, meta, &mut session)?;
        if let Some(dump) = dump {
            self.dump_inputs(&mut step, &mut session, dump)?;
            step.run(&self.data, &mut session, at)?;
            self.dump_results(way, &session, step.program(), dump)?;
        } else {
            step.run(&self.data, &mut session, at)?;
        }
        let losses = session.fetch(step.program(), "loss")?;
        let meta_loss = session.fetch(step.program(), "meta_loss")?[0];
        let loss = losses.iter().sum::<f64>() / losses.len() as f64;
        if !(loss.is_finite() && meta_loss.is_finite()) {
            return Err(Error::Numeric(format!(
                "route {way}: the loss is {loss} and the meta loss {meta_loss}, no finite numbers; try a smaller --lr"
            )));
        }
        let hypergrad = step.hypergrad(&session)?;
        let residual = match way.route.is_of_the_optimum() {
            true => Some(session.fetch(step.program(), "residual")?[0]),
            false => None,
        };
        drop((step, session));

        let Setting { machine, data, .. } = self;
        let mut session = Session::new(machine.backend()?);
        data.begin(&mut session)?;
        let mut step = Stepper::for_training(data, Order::Published, &data.split.meta, &mut session)?;
        step.run(&self.data, &mut session, at)?;
        session.wait()?;
        let mut times = Vec::new();
        let start = Instant::now();
        while times.is_empty() || (times.len() < TIMED_RUNS && start.elapsed() < TIMED_FOR) {
            let start = Instant::now();
            step.run(&self.data, &mut session, at)?;
            session.wait()?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let program = step.program();
        Ok(Outcome {
            way,
            hypergrad,
            residual,
            loss,
            meta_loss,
            times,
            operations: program.kernels,
            flops: program.flops,
            buffer_bytes: program.arena_bytes,
        })
    }

    /// The images as the step's own gathering gives them, normalised and augmented, in the
    /// machine's precision; labels, learning rate, parameters.
    fn dump_inputs(&self, step: &mut Stepper, session: &mut Session, dump: &mut Dump) -> Result<()> {
        let config = &self.data.config;
        let mut tape = Tape::new();
        let x = self.data.batch(true).samples(&mut tape, config.batch, "")?;
        tape.output("x", x)?;
        let program = session.compile(&tape, Options::default())?;
        for batch in 0..=config.unroll as u64 {
            let at = At { step: batch.saturating_sub(1), meta_step: 0, lr: config.lr };
            let [train, meta] = step.batches(at);
            let (suffix, batch) = match batch {
                0 => ("_meta".to_owned(), meta),
                1 => (String::new(), train),
                step => (format!("_{step}"), train),
            };
            session.feed(&program, "picks", Values::Int(batch.picks.as_flattened()))?;
            session.run(&program)?;
            let images = session.fetch(&program, "x")?;
            dump.floats(format!("x{suffix}"), &self.data.shape().with(0, &[config.batch]), &images);
            dump.labels(&format!("y{suffix}"), &batch.labels);
        }
        dump.floats("lr", &[], &[config.lr]);
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
        let run = &self.data.config;
        let config = run.step(run.method);
        let (rule, lr_theta) = run.weight_net_rule(run.method);
        dump.note("program", format!("metatape {}", env!("CARGO_PKG_VERSION")));
        dump.note("model", format!("{} on {}", run.model, self.data.shape()));
        dump.note("seed", run.seed);
        dump.note("dataset", run.dataset);
        dump.note("noise", run.noise);
        dump.note("route", way);
        dump.note("weights", config.weights);
        dump.note("undetached", config.undetached);
        dump.note("virtual", config.virtual_step);
        note_optimiser(dump, "classifier", &Optimiser::Sgd(config.classifier));
        note_optimiser(dump, "weight-net", &rule);
        dump.note("lr.theta", lr_theta);
        dump.note("weight-net.init", run.weight_net(run.method).init);
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
        Optimiser::Sgd(Sgd { momentum, nesterov, weight_decay, clip }) => {
            let name = if nesterov { "sgd with nesterov's momentum" } else { "sgd" };
            let clip = clip.map(|clip| ("clip", clip));
            let constants = [("momentum", momentum), ("weight-decay", weight_decay)].into_iter();
            (name, constants.chain(clip).collect())
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
