//! `metatape compare`: from flags to a study of methods, and its table.

use std::path::PathBuf;

use clap::Args;
use metatape::Result;
use metatape::train::study::{Plan, Study, first_warnings};
use metatape::train::values::positive;
use metatape::train::{Comparison, Config, Difference, Method, PaperCell, Trial, Tuning};

use super::args::{KeepArgs, RunArgs, given, typed};
use super::device::Machine;
use super::progress::Progress;
use super::report::{ms, optional, print, print_file, table, warn};
use super::study::{self, seeds};
use super::values::seed;

/// `metatape compare`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "All methods see the same corrupted data, split, schedule and first parameters. Methods:
  uniform         every sample the same: the baseline       l2rw            the meta gradient in the weights themselves
  clean-only      the meta set alone                        mentornet-pd    below a moving percentile of the loss
  mixed           both sets as one                          glc             loss corrected by an estimated noise matrix
  focal           (1-p)^2                                   co-teaching     two networks, each picks for the other
  adaboost        5 boosted networks, SAMME                 fine-tune       the last 15% of the steps on the meta set
  ohem            the larger half of a batch's losses       mwnet-published Meta-Weight-Net as published for label noise
  spl-hard        losses below a growing threshold          mwnet           Meta-Weight-Net with the flags below
  spl-linear      the same, falling linearly                mwnet-soft      ours: V between the given label and a soft one
  geman-mcclure   robust statistics                         mwnet-longtail  Meta-Weight-Net's recipe for long tails
  gce             p^0.7                                     cmwnet          CMW-Net: a V for each group of classes by size
  class-balanced  by the number of the class' samples       oracle          is told the wrong labels: what there is to gain

The percentile of mentornet-pd and the noise of co-teaching (--set) say how many labels are wrong; no other method is told, but for oracle, which is not one of all.

Presets are the cells of the paper's tables: paper-uniform-0|40|60, paper-flip2-0|20|40, paper-longtail-200|100|50|20|10|1, on
CIFAR-10, or with -cifar100 behind.

Examples:
  metatape compare --methods uniform,mwnet,gce --seeds 3 --out runs/three
  metatape compare --noise flip2:0.4 --out runs/flip2
  metatape compare --methods uniform,mixed,mwnet-soft --tune --seeds 20 --out runs/tuned
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
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive, help_heading = "Schedule")]
    pub seeds: usize,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 1, value_parser = seed, help_heading = "Schedule")]
    pub seed: u64,
    /// A cell of the paper's tables: sets data set, noise, meta set, model, schedule and
    /// optimisers, and shows the paper's accuracy beside ours; flags on the command line override
    /// the preset
    #[arg(long, value_name = "PRESET", value_parser = preset)]
    pub preset: Option<PaperCell>,
    /// Give each method its best of five learning rates (--lr times 1, 0.4, 0.2, 0.1, 0.04), and
    /// then of a few values of its own settings: by the mean accuracy, over the first 3 seeds, on a
    /// half of the meta set that is held out. What --set says stays. The trials are kept in the
    /// folder tuning of --out, and listed in tuning.csv
    #[arg(long)]
    pub tune: bool,
    /// Data, model, meta step, schedule.
    #[command(flatten)]
    pub run: RunArgs,
    /// Folder for the results
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub out: PathBuf,
    /// Continue the comparison in --out; runs that are finished are kept. With --seeds or
    /// --methods, more of them are added to it; with --data-dir, its data have moved there
    #[arg(long, help_heading = "Output")]
    pub resume: bool,
    /// How often a run is kept.
    #[command(flatten)]
    pub keep: KeepArgs,
    /// Fail if a training has gone wrong in one of the ways that are warned of; all files are
    /// written nevertheless
    #[arg(long, help_heading = "Output")]
    pub strict: bool,
    /// Print the summary as JSON instead of a table
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// A list of methods.
#[derive(Clone, PartialEq, Debug)]
pub struct Methods(Vec<Method>);

fn methods(text: &str) -> Result<Methods> {
    Ok(Methods(match text {
        "all" => Method::all().collect(),
        list => list.split(',').map(|name| name.trim().parse()).collect::<Result<_>>()?,
    }))
}

fn preset(name: &str) -> Result<PaperCell> {
    PaperCell::named(name)
}

/// Trains all cells, or what is left of them.
pub fn run(args: &CompareArgs) -> Result<()> {
    let CompareArgs { out, resume, strict, json, .. } = args;
    let (machine, plan) = (args.run.machine(), plan(args)?);
    // Before there is a folder.
    if args.tune && !resume {
        Tuning::check(&plan)?;
    }
    if args.tune && *resume {
        Tuning::check_begun(out)?;
    }
    let mut study = study::open("compare", plan, &machine, (Some(out), *resume))?;
    if args.tune || Tuning::exists(out) {
        tune(args, &mut study, &machine)?;
    }
    let progress = Progress::study(&study.plan, *json, args.keep.checkpoint_every);
    let cells = study::train("compare", (&study, out), &machine, progress)?;
    let comparison = Comparison::write(&study, &cells)?;
    match json {
        true => print_file(&study.out.join("summary.json"))?,
        false => print(report(&study, &comparison))?,
    }
    warn(&first_warnings(&cells), *strict, &study.out)
}

/// Gives the methods the rates and settings that are best on held-out meta images.
fn tune(args: &CompareArgs, study: &mut Study<Method>, machine: &Machine) -> Result<()> {
    let mut tuning = Tuning::open(study)?;
    let train = |trials: &Study<Trial>| {
        let progress = Progress::study(&trials.plan, args.json, args.keep.checkpoint_every);
        study::train("compare", (trials, &args.out), machine, progress)
    };
    // First rates; then, at the best one, the methods' own settings.
    tuning.widen(&train(&tuning.study)?)?;
    let cells = train(&tuning.study)?;
    study.plan.config.set.extend(tuning.chosen(&cells)?);
    Ok(())
}

/// What the flags ask for.
fn plan(args: &CompareArgs) -> Result<Plan<Method>> {
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
    // What a preset sets is the paper's, whichever methods are compared.
    config.clone().used_by(&methods).check_used(&methods, typed("compare"))?;
    Ok(Plan {
        arms: methods,
        seeds: seeds(args.seed, args.seeds)?,
        preset: args.preset.map(|p| p.name()),
        config,
    })
}

/// The table at the end.
fn report(study: &Study<Method>, comparison: &Comparison) -> String {
    let config = &comparison.config;
    let (tail, paper) = (config.imbalance.is_some(), comparison.preset.is_some());
    let with_std = |mean: Option<f64>, std: Option<f64>| match (mean, std) {
        (Some(mean), Some(std)) => format!("{mean:.2} ± {std:.2}"),
        (Some(mean), None) => format!("{mean:.2}"),
        (None, _) => "-".to_owned(),
    };
    let plain = |value, digits: usize| optional(value, |v: f64| format!("{v:.digits$}"));
    let signed = |value| optional(value, |v: f64| format!("{v:+.2}"));
    let mut heading = vec!["method", "final %", "best %"];
    heading.extend(tail.then_some("balanced %"));
    let weights = comparison.weights();
    heading.extend(["gain", "least"].into_iter().chain(weights.iter().map(|column| column.0)));
    heading.extend(["ms/step", "networks"]);
    let departs = !comparison.departures.is_empty();
    heading.extend(paper.then_some(if departs { "paper %*" } else { "paper %" }));
    let mut rows = vec![heading.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for row in &comparison.methods {
        let m = &row.arm;
        let mut cells =
            vec![m.name.clone(), with_std(m.final_mean, m.final_std), with_std(m.best_mean, m.best_std)];
        cells.extend(tail.then(|| with_std(m.balanced_mean, m.balanced_std)));
        let gain = m.gain_mean.map(|mean| Difference { mean, half_width: m.gain_half_width });
        cells.extend([optional(gain, |gain| gain.to_string()), signed(m.gain_min)]);
        cells.extend(weights.iter().map(|column| plain(column.1(m), 3)));
        cells.extend([optional(m.ms_per_step, ms), row.networks.to_string()]);
        cells.extend(paper.then(|| plain(row.paper, 2)));
        rows.push(cells);
    }
    let seeds = match &comparison.seeds[..] {
        [one] => format!("seed {one}"),
        [first, .., last] => format!("seeds {first} to {last}"),
        [] => String::new(),
    };
    let mut text = format!(
        "\n{} on {}, {}, epochs: {}, {seeds}\n\n{}\n",
        config.model,
        config.dataset,
        config.bias(),
        config.epochs,
        table(&rows)
    );
    if comparison.seeds.len() > 1 {
        text.push_str(
            "\ngain: final accuracy less uniform's, seed by seed, with its 95% interval (± at least one test sample)\n",
        );
    }
    let set: Vec<String> = config.set.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if !set.is_empty() {
        text.push_str(&format!("settings: {}\n", set.join(" ")));
    }
    for arm in comparison.methods.iter().map(|m| &m.arm).filter(|arm| arm.diverged > 0) {
        let (name, diverged) = (&arm.name, arm.diverged);
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
    text.push_str(&format!("\nfiles: {}", study.out.display()));
    text
}
