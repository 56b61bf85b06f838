//! `metatape compare`: methods by seeds, with resumption and a table.

use std::path::PathBuf;

use clap::Args;
use metatape::program::Session;
use metatape::train::values::positive;
use metatape::train::{Cell, Comparison, Config, Grid, Method, MethodSummary, PaperCell, Plan};
use metatape::words::counted;
use metatape::{Error, Result};

use super::args::{RunArgs, given};
use super::compare_progress::Progress;
use super::report::{ms, print, table};
use super::train::agree;
use super::values::seed;

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
  metatape compare --resume --out runs/paper
  metatape compare --resume --seeds 8 --out runs/three"
)]
pub struct CompareArgs {
    /// Methods, separated by commas, or all [default: all, or those that the paper's table has with
    /// --preset]
    #[arg(long, value_name = "A,B,...|all", value_parser = methods)]
    pub methods: Option<Methods>,
    /// Seeds, each with its own noise, split and first parameters: --seed and those after it
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive, allow_negative_numbers = true, help_heading = "Schedule")]
    pub seeds: usize,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 1, value_parser = seed, allow_negative_numbers = true, help_heading = "Schedule")]
    pub seed: u64,
    /// A cell of the paper's tables: sets data set, noise, meta set, model, schedule and
    /// optimisers, and shows the paper's accuracy beside ours; flags on the command line override
    /// the preset
    #[arg(long, value_name = "PRESET", value_parser = preset)]
    pub preset: Option<PaperCell>,
    /// Data, model, meta step, schedule.
    #[command(flatten)]
    pub run: RunArgs,
    /// Folder for the results
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub out: PathBuf,
    /// Continue the comparison in --out; runs that are finished are kept. With --seeds or
    /// --methods, more of them are added to it
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
            return Err(Error::Usage(format!("`{name}` is listed twice")));
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
    let mut device = args.run.machine();
    let grid = if args.resume {
        let mut grid = Grid::resume(&args.out)?;
        grid.extend(grown(args, &grid.plan)?)?;
        grid
    } else {
        // A machine that is not there is told before a folder is made.
        device.backend()?;
        Grid::start(plan(args)?, &args.out)?
    };
    device.precision = grid.plan.config.precision;
    let ids = grid.cells()?;
    let mut cells = Vec::with_capacity(ids.len());
    for id in &ids {
        cells.push(grid.finished(*id)?);
    }
    let waiting = ids.iter().zip(&cells).filter(|c| c.1.is_none()).map(|c| *c.0).collect();
    let mut progress = Progress::new(ids.len(), waiting, ids[0], args.json);
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
    let flags = args.run.config()?;
    let mut config = Config { method: Method::Uniform, baseline: false, seed: args.seed, ..flags };
    if let Some(cell) = &args.preset {
        cell.apply(&mut config, &given("compare"))?;
    }
    let methods = match (&args.methods, &args.preset) {
        (Some(Methods(list)), _) => list.clone(),
        (None, Some(cell)) => cell.figures().into_iter().map(|f| f.0).collect(),
        (None, None) => Method::all().collect(),
    };
    Ok(Plan {
        methods: methods.iter().map(Method::to_string).collect(),
        seeds: seeds(args.seed, args.seeds)?,
        preset: args.preset.map(|p| p.name()),
        config,
    })
}

/// So many seeds from this one on.
fn seeds(first: u64, count: usize) -> Result<Vec<u64>> {
    let room = || Error::Usage(format!("--seed {first} leaves no room for {}", counted(count, "seed")));
    let last = first.checked_add(count as u64 - 1).ok_or_else(room)?;
    Ok((first..=last).collect())
}

/// A resumed comparison keeps its plan, but that methods and seeds may be added to it: a flag on
/// the command line that says otherwise is an error.
fn grown(args: &CompareArgs, stored: &Plan) -> Result<Plan> {
    let typed = given("compare");
    let asked = plan(args)?;
    let misfit = |flag: &str, had: &str, rule: &str| {
        Err(Error::Usage(format!(
            "{flag} does not fit the comparison to resume, which was started with {had}{rule}; leave the flag out, or start a new one \
             in another --out"
        )))
    };
    let mut plan = stored.clone();
    let first = stored.seeds.first().copied().unwrap_or(args.seed);
    if typed.contains("seed") && args.seed != first {
        return misfit("--seed", &first.to_string(), "");
    }
    if typed.contains("seeds") {
        plan.seeds = seeds(first, args.seeds)?;
        if !plan.seeds.starts_with(&stored.seeds) {
            return misfit("--seeds", &stored.seeds.len().to_string(), "; seeds can only be added");
        }
    }
    if typed.contains("methods") {
        if !stored.methods.iter().all(|method| asked.methods.contains(method)) {
            let rule = "; methods can only be added, so name those as well";
            return misfit("--methods", &stored.methods.join(","), rule);
        }
        let new = asked.methods.into_iter().filter(|method| !stored.methods.contains(method));
        plan.methods.extend(new);
    }
    // What the stored preset has set is not contradicted by defaults.
    if args.preset.is_some() && asked.preset != stored.preset {
        return misfit("--preset", stored.preset.as_deref().unwrap_or("none"), "");
    }
    agree("compare", &Config { seed: stored.config.seed, ..asked.config }, &stored.config)?;
    Ok(plan)
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
