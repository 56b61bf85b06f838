//! One configuration timed.

use std::collections::BTreeMap;
use std::time::Instant;

use metatape::program::{Plan, Program, Session};
use metatape::train::{At, Prepared, Stepper};
use metatape::words::{counted, exact};
use metatape::{Error, Result};
use serde_json::{Value, json};

use super::forecast::Forecast;
use super::plan::no_card;
use super::rates::{Card, Floor, Rates};
use super::steps::{plans, prepared};
use super::{Configuration, Report};
use crate::cli::cuda::SharedGpu;
use crate::cli::device::On;
use crate::cli::report;

/// Runs of either kind that are not counted.
const WARM_UP: usize = 2;
/// The two kinds take turns, so that a disturbance hits both: in this many turns each, if there are
/// as many steps.
const TURNS: usize = 5;

/// Operations of a step from which on there is something to say before it is run.
const LONG: u64 = 100_000_000_000;

/// A program that is being timed.
struct Timed {
    stepper: Stepper,
    forecast: Forecast,
    /// The next step.
    at: At,
    ms: Vec<f64>,
}

/// Times both kinds of steps, on a GPU that may be open already.
pub fn run(configuration: &Configuration, opened: &mut Option<SharedGpu>) -> Result<Report> {
    let Configuration { args, model, device, graphs, first } = configuration;
    let data = prepared(model, args.input.as_ref(), args.batch, args.route, device.precision)?;
    let lr = args.lr.unwrap_or(data.config.lr);
    let (backend, on) = device.backend_on(*graphs, opened)?;
    if args.rates.is_some() && on == On::Cpu {
        return Err(no_card());
    }
    let mut session = Session::new(backend);
    let forecast = |plan: &Plan| Forecast::new(plan, on, device.precision);
    let [of_plain, of_meta] = plans(&data)?;
    let of_step = of_meta.flops();
    let mut meta = Timed::new((&data, lr), &mut session, forecast(&of_meta)?, of_meta)?;
    // Only now is it known that there is room for it.
    if of_step > LONG {
        report::complain(format_args!(
            "a meta step is {:.0} GFLOP, and {} are run: this takes a while",
            of_step as f64 / 1e9,
            WARM_UP + args.steps
        ));
    }
    for _ in 0..WARM_UP {
        meta.step(&data, &mut session)?;
    }
    // Before the plain step is set up: the memory of a process that does meta steps alone.
    // What an earlier configuration has left in the process cannot be told apart.
    let of_process = || first.then(|| peak_resident_bytes().unwrap_or(meta.program().arena_bytes));
    let memory = session.device_bytes().or_else(of_process);

    let mut plain = Timed::new((&data, lr), &mut session, forecast(&of_plain)?, of_plain)?;
    for _ in 0..WARM_UP {
        plain.step(&data, &mut session)?;
    }
    meta.ms.clear();
    plain.ms.clear();
    let turn = args.steps.div_ceil(TURNS);
    while meta.ms.len() < args.steps {
        let steps = turn.min(args.steps - meta.ms.len());
        for timed in [&mut plain, &mut meta] {
            for _ in 0..steps {
                timed.step(&data, &mut session)?;
            }
        }
    }
    let losses = session.fetch(meta.program(), "loss")?;
    if !losses.iter().all(|l| l.is_finite()) {
        return Err(Error::Numeric(format!(
            "the loss of {model} left the range of {} at the learning rate {}, so the times mean nothing; take a \
             smaller --lr, or fewer --steps",
            device.precision,
            exact(lr)
        )));
    }
    let profile = if args.profile { Some(profile(&mut session, &meta)?) } else { None };
    let name = session.describe();
    drop(session);
    let floors = floors(configuration, on, &name, [&plain, &meta])?;
    let json = json(configuration, &name, &plain, &meta, memory, &floors, profile.as_deref())?;
    Ok(Report { text: text(configuration, &name, &plain, &meta, memory, &floors, profile), json })
}

/// What both steps take at the least; `None` for a card whose rates nobody knows.
fn floors(
    configuration: &Configuration,
    on: On,
    device: &str,
    [plain, meta]: [&Timed; 2],
) -> Result<Option<[Floor; 2]>> {
    let Configuration { args, device: chosen, .. } = configuration;
    let forecasts = [&plain.forecast, &meta.forecast];
    let rates = match on {
        On::Cpu => Some(Rates::of_cpu(chosen.threads()?, chosen.precision, forecasts.map(|f| f.memory))?),
        On::Cuda(precision) => {
            let card = args.rates.clone().or_else(|| Card::of_device(device));
            card.map(|card| [card.rates(precision), card.rates(precision)])
        }
    };
    Ok(rates
        .map(|[of_plain, of_meta]| [Floor::new(forecasts[0], of_plain), Floor::new(forecasts[1], of_meta)]))
}

/// Kernel, milliseconds and launches of a meta step, the longest first: the mean of a few runs.
fn profile(session: &mut Session, meta: &Timed) -> Result<Vec<(&'static str, f64, usize)>> {
    const RUNS: usize = 5;
    let mut by_name: BTreeMap<&str, f64> = BTreeMap::new();
    for _ in 0..RUNS {
        for (name, seconds) in session.profile(meta.program())? {
            *by_name.entry(name).or_default() += seconds * 1e3 / RUNS as f64;
        }
    }
    let row = |part: &super::forecast::Part| {
        (part.name, by_name.get(part.name).copied().unwrap_or(0.0), part.told())
    };
    let mut rows: Vec<_> = meta.forecast.parts.iter().map(row).collect();
    rows.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(rows)
}

impl Timed {
    fn new(
        (data, lr): (&Prepared, f64),
        session: &mut Session,
        forecast: Forecast,
        plan: Plan,
    ) -> Result<Timed> {
        let stepper = Stepper::load(data, plan, &data.split.meta, session)?;
        let at = At { step: 0, meta_step: 0, lr };
        Ok(Timed { stepper, forecast, at, ms: Vec::new() })
    }

    fn program(&self) -> &Program {
        self.stepper.program()
    }

    /// The next step, on its batch; timed with the upload of its few kilobytes, as in training.
    fn step(&mut self, data: &Prepared, session: &mut Session) -> Result<()> {
        let start = Instant::now();
        self.stepper.run(data, session, self.at)?;
        session.wait()?;
        self.ms.push(start.elapsed().as_secs_f64() * 1e3);
        self.at = At { step: self.at.step + 1, meta_step: self.at.meta_step + 1, ..self.at };
        Ok(())
    }

    fn median(&self) -> f64 {
        report::median(&self.ms)
    }

    fn least(&self) -> f64 {
        self.ms.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn most(&self) -> f64 {
        self.ms.iter().copied().fold(0.0, f64::max)
    }

    fn json(&self) -> Value {
        json!({ "median": self.median(), "min": self.least(), "max": self.most() })
    }

    fn gflop(&self) -> f64 {
        self.program().flops as f64 / 1e9
    }

    fn row(&self, name: &str, floor: Option<&Floor>) -> Vec<String> {
        let share = |floor: &Floor| format!("{:.0}%", 100.0 * floor.ms() / self.median());
        vec![
            name.to_owned(),
            report::ms(self.median()),
            report::ms(self.least()),
            report::ms(self.most()),
            self.program().kernels.to_string(),
            format!("{:.3}", self.gflop()),
            format!("{:.0}", self.gflop() / self.median() * 1e3),
            floor.map_or("unknown".into(), |floor| report::ms(floor.ms())),
            floor.map_or("unknown".into(), share),
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

fn json(
    configuration: &Configuration,
    device: &str,
    plain: &Timed,
    meta: &Timed,
    memory: Option<usize>,
    floors: &Option<[Floor; 2]>,
    profile: Option<&[(&str, f64, usize)]>,
) -> Result<serde_json::Map<String, Value>> {
    let mut fields = configuration.json();
    let mut field = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    field("steps", json!(configuration.args.steps));
    field("device", json!(device));
    field("threads", json!(configuration.device.threads()?));
    field("graph", json!(configuration.graphs));
    field("plain_ms", plain.json());
    field("meta_ms", meta.json());
    field("ratio", json!(meta.median() / plain.median()));
    field("peak_memory_bytes", json!(memory));
    field("operations", json!(meta.program().kernels));
    field("plain_operations", json!(plain.program().kernels));
    field("gflop", json!(meta.gflop()));
    field("plain_gflop", json!(plain.gflop()));
    for (i, (prefix, timed)) in [("plain_", plain), ("", meta)].into_iter().enumerate() {
        let floor = floors.as_ref().map(|floors| &floors[i]);
        field(&format!("{prefix}floor_ms"), json!(floor.map(Floor::ms)));
        field(&format!("{prefix}of_floor"), json!(floor.map(|floor| floor.ms() / timed.median())));
        field(&format!("{prefix}floor"), json!(floor.map(Floor::json)));
    }
    if let Some(rows) = profile {
        let row = |(kernel, ms, launches): &(&str, f64, usize)| json!({ "kernel": kernel, "ms": ms, "launches": launches });
        field("profile", rows.iter().map(row).collect());
    }
    Ok(fields)
}

fn text(
    configuration: &Configuration,
    device: &str,
    plain: &Timed,
    meta: &Timed,
    memory: Option<usize>,
    floors: &Option<[Floor; 2]>,
    profile: Option<Vec<(&str, f64, usize)>>,
) -> String {
    let args = configuration.args;
    let memory =
        memory.map_or(String::new(), |m| format!("; peak memory with meta steps alone {}", report::mib(m)));
    let heading = ["", "median ms", "min", "max", "operations", "GFLOP", "GFLOP/s", "floor ms", "of floor"];
    let [of_plain, of_meta] = match floors {
        Some([plain, meta]) => [Some(plain), Some(meta)],
        None => [None, None],
    };
    let rows = [
        heading.map(str::to_owned).to_vec(),
        plain.row("plain step", of_plain),
        meta.row("meta step", of_meta),
    ];
    let floors = match floors {
        Some(floors) => format!(
            "the floor is set by {} in a plain step, by {} in a meta step, at the rates of\n{}",
            floors[0].binding().1,
            floors[1].binding().1,
            Floor::rates(&floors.each_ref())
        ),
        None => "the floor of this card is unknown; --rates FILE gives its rates".to_owned(),
    };
    let mut text = format!(
        "{}, {} of each; {device}\n\n{}\n\na meta step takes {:.2} plain steps{memory}\n{floors}",
        configuration.title(args.route),
        counted(args.steps, "step"),
        report::table(&rows),
        meta.median() / plain.median(),
    );
    if let Some(profile) = profile {
        let told = meta.forecast.told();
        let heading = vec!["kernel of a meta step".to_owned(), "ms".to_owned(), told.to_owned()];
        let row = |(name, ms, launches): (&str, f64, usize)| {
            vec![name.to_owned(), report::ms(ms), launches.to_string()]
        };
        let table: Vec<_> = std::iter::once(heading).chain(profile.into_iter().map(row)).collect();
        text += &format!("\n\n{}", report::table(&table));
    }
    text
}
