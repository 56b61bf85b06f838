//! `metatape compare`: methods by seeds, with progress, resumption and a table.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use metatape::program::Session;
use metatape::train::{
    Cell, CellId, Comparison, EpochRow, Grid, Method, MethodSummary, Observer, PaperCell, Plan, Run,
    StepReport,
};
use metatape::{Error, Result};

use super::args::{RunArgs, given};
use super::report::{ms, print, table};
use super::run_config::config;
use super::train::agree;
use super::values::{positive, seed};

/// `metatape compare`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "All methods see the same corrupted data, split, schedule and first parameters. Methods:
  uniform         every sample the same: the baseline       l2rw            the meta gradient in the weights themselves
  focal           (1-p)^2                                   mentornet-pd    below a moving percentile of the loss
  adaboost        5 boosted networks, SAMME                 glc             loss corrected by an estimated noise matrix
  ohem            the larger half of a batch's losses       co-teaching     two networks, each picks for the other
  spl-hard        losses below a growing threshold          fine-tune       the last 15% of the steps on the meta set
  spl-linear      the same, falling linearly                mwnet           Meta-Weight-Net with the flags below
  geman-mcclure   robust statistics                         mwnet-longtail  Meta-Weight-Net's recipe for long tails
  gce             p^0.7                                     cmwnet          CMW-Net: a V for each group of classes by size
  class-balanced  by the number of the class' samples

Presets are the cells of the paper's tables: paper-uniform-0|40|60, paper-flip2-0|20|40, paper-longtail-200|100|50|20|10|1, on
CIFAR-10, or with -cifar100 behind.

Examples:
  metatape compare --methods uniform,mwnet,gce --seeds 3 --out runs/three
  metatape compare --noise flip2:0.4 --out runs/flip2
  metatape compare --methods uniform,class-balanced,mwnet-longtail,cmwnet --imbalance 100 --out runs/tail
  metatape compare --preset paper-flip2-40 --data-dir cifar-10-batches-bin --out runs/paper
  metatape compare --resume --out runs/paper"
)]
pub struct CompareArgs {
    /// Methods, separated by commas, or all [default: all, or those that the paper's table has with --preset]
    #[arg(long, value_name = "A,B,...|all", value_parser = methods)]
    pub methods: Option<Methods>,
    /// Seeds, each with its own noise, split and first parameters: --seed and those after it
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive, allow_negative_numbers = true, help_heading = "Schedule")]
    pub seeds: usize,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 1, value_parser = seed, allow_negative_numbers = true, help_heading = "Schedule")]
    pub seed: u64,
    /// A cell of the paper's tables: sets data set, noise, meta set, model, schedule and optimisers, and shows the paper's
    /// accuracy beside ours; flags that are given as well go before
    #[arg(long, value_name = "PRESET", value_parser = preset)]
    pub preset: Option<PaperCell>,
    /// Data, model, meta step, schedule.
    #[command(flatten)]
    pub run: RunArgs,
    /// Folder for the results
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub out: PathBuf,
    /// Continue the comparison in --out; runs that are finished are kept
    #[arg(long, help_heading = "Output")]
    pub resume: bool,
    /// Print the summary as JSON instead of a table
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// A list of methods, each once.
#[derive(Clone, PartialEq, Debug)]
pub struct Methods(Vec<Method>);

fn methods(text: &str) -> Result<Methods> {
    if text == "all" {
        return Ok(Methods(Method::all().collect()));
    }
    let mut list = Vec::new();
    for name in text.split(',') {
        let method: Method = name.trim().parse()?;
        if list.contains(&method) {
            return Err(Error::Usage(format!("`{name}` stands twice in the list")));
        }
        list.push(method);
    }
    Ok(Methods(list))
}

fn preset(name: &str) -> Result<PaperCell> {
    PaperCell::named(name)
}

/// Runs the grid, or what is left of it.
pub fn run(args: &CompareArgs) -> Result<()> {
    let mut device = args.run.device.clone();
    let grid = if args.resume {
        let grid = Grid::resume(&args.out)?;
        same(args, &grid.plan)?;
        grid
    } else {
        // Errors of the machine and of the data before a folder is made.
        device.backend()?;
        let plan = plan(args)?;
        metatape::train::Prepared::new(plan.config.clone())?;
        Grid::start(plan, &args.out)?
    };
    device.precision = grid.plan.config.precision.parse()?;
    let ids = grid.cells()?;
    let mut cells = Vec::with_capacity(ids.len());
    for id in &ids {
        cells.push(grid.finished(*id)?);
    }
    let mut progress = Progress::new(&ids, cells.iter().filter(|c| c.is_some()).count(), args.json);
    for (id, cell) in ids.iter().zip(&mut cells).filter(|c| c.1.is_none()) {
        progress.start(*id);
        let finished = grid.run(*id, &|| Ok(Session::new(device.backend()?)), &mut progress)?;
        progress.end(&finished);
        *cell = Some(finished);
    }
    progress.finish();
    let cells: Vec<Cell> = cells.into_iter().flatten().collect();
    let comparison = Comparison::new(&grid, &cells)?;
    comparison.write(&grid, &cells)?;
    if args.json {
        let json = serde_json::to_string_pretty(&comparison).map_err(|e| Error::Program(e.to_string()))?;
        return print(json);
    }
    print(report(&grid, &comparison))
}

/// What the flags ask for.
fn plan(args: &CompareArgs) -> Result<Plan> {
    let mut config = config(&args.run, Method::Uniform, false, args.seed)?;
    if let Some(cell) = &args.preset {
        cell.apply(&mut config, &given("compare"));
    }
    let methods = match (&args.methods, &args.preset) {
        (Some(Methods(list)), _) => list.clone(),
        (None, Some(cell)) => cell.figures().into_iter().map(|f| f.0).collect(),
        (None, None) => Method::all().collect(),
    };
    let last = args.seed.checked_add(args.seeds as u64 - 1).ok_or_else(|| {
        Error::Usage(format!("--seed {} leaves no room for {} seeds", args.seed, args.seeds))
    })?;
    Ok(Plan {
        methods: methods.iter().map(Method::to_string).collect(),
        seeds: (args.seed..=last).collect(),
        preset: args.preset.map(|p| p.name()),
        config,
    })
}

/// A resumed comparison keeps its plan: a flag on the command line that says otherwise is an error.
fn same(args: &CompareArgs, stored: &Plan) -> Result<()> {
    let typed = given("compare");
    let mut asked = plan(args)?;
    if args.preset.is_none() {
        // What the stored preset has set is not contradicted by defaults.
        asked.preset.clone_from(&stored.preset);
    }
    for (field, flag, differs, had) in [
        ("methods", "--methods", asked.methods != stored.methods, stored.methods.join(",")),
        ("seeds", "--seeds", asked.seeds.len() != stored.seeds.len(), stored.seeds.len().to_string()),
        (
            "seed",
            "--seed",
            asked.seeds.first() != stored.seeds.first(),
            stored.seeds.first().map_or(String::new(), u64::to_string),
        ),
        ("preset", "--preset", asked.preset != stored.preset, stored.preset.clone().unwrap_or("none".into())),
    ] {
        if typed.contains(field) && differs {
            return Err(Error::Usage(format!(
                "{flag} does not fit the comparison to resume, which was started with {had}; leave the flag out, or start a \
                 new one in another --out"
            )));
        }
    }
    agree("compare", &metatape::train::Config { seed: stored.config.seed, ..asked.config }, &stored.config)
}

/// One bar over the whole grid on a terminal, a line a run elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    json: bool,
    ids: Vec<CellId>,
    done: usize,
    now: CellId,
    passes: usize,
    steps: u64,
    began: Instant,
    /// Seconds of the runs of each method that this process has finished, and of all passes.
    seconds: HashMap<Method, (f64, u32)>,
}

impl Progress {
    fn new(ids: &[CellId], done: usize, json: bool) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            // A thousand ticks a run.
            let bar = ProgressBar::new(1000 * ids.len() as u64);
            if let Ok(style) = ProgressStyle::with_template("{bar:32} {percent:>3}%  {msg}") {
                bar.set_style(style);
            }
            bar
        });
        let progress = Progress {
            bar,
            json,
            ids: ids.to_vec(),
            done,
            now: ids[0],
            passes: 1,
            steps: 1,
            began: Instant::now(),
            seconds: HashMap::new(),
        };
        if done > 0 {
            progress.say(&format!("{done} of {} runs are finished already", ids.len()));
        }
        progress
    }

    fn start(&mut self, id: CellId) {
        (self.now, self.began) = (id, Instant::now());
    }

    fn end(&mut self, cell: &Cell) {
        let seconds = self.began.elapsed().as_secs_f64();
        let entry = self.seconds.entry(self.now.method).or_default();
        *entry = (entry.0 + seconds, entry.1 + 1);
        self.done += 1;
        let history = cell.history();
        let result = match &cell.error {
            Some(error) => format!("stopped: {error}"),
            None => format!(
                "final {:.2}%, best {:.2}%",
                history.final_accuracy().unwrap_or(f64::NAN),
                history.best_accuracy().unwrap_or(f64::NAN)
            ),
        };
        let left = self.left(0.0).map_or(String::new(), |t| format!(", about {} left", duration(t)));
        self.say(&format!(
            "{}/{}  {}, seed {}: {result}  ({seconds:.1} s{left})",
            self.done,
            self.ids.len(),
            cell.method,
            cell.seed
        ));
    }

    /// Seconds until the end, when the share `within` of the present run is done: each method as long as its runs so far, and one
    /// that has not run yet as long as an average pass.
    fn left(&self, within: f64) -> Option<f64> {
        let weight = |method: Method| method.stages() as f64;
        let (seconds, passes) = self.seconds.iter().fold((0.0, 0.0), |(s, p), (method, (seconds, runs))| {
            (s + seconds, p + f64::from(*runs) * weight(*method))
        });
        let average = match passes {
            0.0 if within > 0.05 => self.began.elapsed().as_secs_f64() / within / weight(self.now.method),
            0.0 => return None,
            passes => seconds / passes,
        };
        // Order is that of the grid: what is not finished lies behind, but for a resumed grid's gaps, of which there are none.
        let of = |id: &CellId| match self.seconds.get(&id.method) {
            Some((seconds, runs)) => seconds / f64::from(*runs),
            None => average * weight(id.method),
        };
        let rest: f64 = self.ids.iter().skip(self.done).map(of).sum();
        Some((rest - within * self.ids.get(self.done).map_or(0.0, of)).max(0.0))
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// A line: on standard output, unless that is for JSON; above the bar, where there is one.
    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None if self.json => eprintln!("{line}"),
            // A reader that has gone away is no reason to stop.
            None => drop(print(line)),
        }
    }
}

impl Observer for Progress {
    fn begin(&mut self, run: &Run, _: usize) {
        (self.passes, self.steps) = (run.passes(), run.steps_per_epoch());
    }

    fn step(&mut self, _: Method, pass: usize, report: StepReport) {
        let Some(bar) = &self.bar else { return };
        if report.step.is_multiple_of(16) || report.step == self.steps {
            let within = (pass as f64 + report.step as f64 / self.steps as f64) / self.passes as f64;
            bar.set_position((1000.0 * (self.done as f64 + within)) as u64);
            let left = self.left(within).map_or(String::new(), |t| format!("  {} left", duration(t)));
            let CellId { method, seed } = self.now;
            bar.set_message(format!(
                "run {}/{}: {method}, seed {seed}, epoch {}{left}",
                self.done + 1,
                self.ids.len(),
                pass + 1
            ));
        }
    }

    fn epoch(&mut self, _: &EpochRow) {}
}

/// Seconds as people say them.
fn duration(seconds: f64) -> String {
    indicatif::HumanDuration(Duration::from_secs_f64(seconds.min(1e9))).to_string()
}

/// The table at the end.
fn report(grid: &Grid, comparison: &Comparison) -> String {
    let config = &grid.plan.config;
    let (tail, paper) = (config.imbalance.is_some(), comparison.preset.is_some());
    let with_std = |mean: Option<f64>, std: Option<f64>| match (mean, std) {
        (Some(mean), Some(std)) => format!("{mean:.2} ± {std:.2}"),
        (Some(mean), None) => format!("{mean:.2}"),
        (None, _) => "-".to_owned(),
    };
    let plain = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |v| format!("{v:.digits$}"));
    let signed = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:+.2}"));
    let mut heading = vec!["method", "final %", "best %"];
    heading.extend(tail.then_some("balanced %"));
    heading.extend(["gain", "least", "weight clean", "corrupted", "ms/step", "networks"]);
    let departs = !comparison.departures.is_empty();
    heading.extend(paper.then_some(if departs { "paper %*" } else { "paper %" }));
    let mut rows = vec![heading.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for m in &comparison.methods {
        let mut row =
            vec![m.name.clone(), with_std(m.final_mean, m.final_std), with_std(m.best_mean, m.best_std)];
        row.extend(tail.then(|| with_std(m.balanced_mean, m.balanced_std)));
        row.extend([signed(m.gain_mean), signed(m.gain_min)]);
        row.extend([plain(m.mean_weight_clean, 3), plain(m.mean_weight_corrupted, 3)]);
        row.extend([m.ms_per_step.map_or("-".to_owned(), ms), m.networks.to_string()]);
        row.extend(paper.then(|| plain(m.paper, 2)));
        rows.push(row);
    }
    let seeds = match &comparison.seeds[..] {
        [one] => format!("seed {one}"),
        [first, .., last] => format!("seeds {first} to {last}"),
        [] => String::new(),
    };
    let imbalance = config.imbalance.map_or(String::new(), |f| format!(", imbalance {f}"));
    let mut text = format!(
        "\n{} on {}, noise {}{imbalance}, epochs: {}, {seeds}\n\n{}\n",
        config.model,
        config.dataset,
        config.noise,
        config.epochs,
        table(&rows)
    );
    for MethodSummary { name, diverged, .. } in comparison.methods.iter().filter(|m| m.diverged > 0) {
        text.push_str(&format!("\n{name}: without the runs whose loss did not stay finite ({diverged})"));
    }
    if let Some(preset) = &comparison.preset {
        text.push_str(&format!(
            "\n{}{preset}: the paper's accuracies are the best of all evaluations, means of 5 seeds",
            if departs { "* " } else { "" }
        ));
        if departs {
            text.push_str(&format!("; not its setting here: {}", comparison.departures.join(", ")));
        }
        text.push('\n');
    }
    text.push_str(&format!("\nfiles: {}", grid.out.display()));
    text
}
