//! `metatape ablate`: from flags to a [`Study`], and what it shows while it goes on and at its end.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use metatape::program::Session;
use metatape::train::ablation::{Config, Findings, Progress, Study, Variant};
use metatape::{Error, Result};

use super::args::{AblateArgs, given};
use super::folder::in_folder;
use super::report;

/// Images of the full meta set, if not `--meta-size`.
const META_SIZE: usize = 1000;

/// Runs all cells, or those that are missing.
pub fn run(args: &AblateArgs) -> Result<()> {
    let mut device = args.run.machine();
    let study = match (&args.out, args.resume) {
        (Some(out), true) => {
            let mut study = Study::resume(out)?;
            study.extend(grown(args, &study.config)?)?;
            device.precision = study.config.run.precision;
            study
        }
        (out, _) => {
            // A machine that is not there is told before anything is written.
            device.backend()?;
            let config = config(args)?;
            in_folder(out.as_deref(), "ablate", |out| Study::start(config, out))?
        }
    };
    let mut watcher = Watcher::new(&study, args.json);
    let findings = study.run(&|| Ok(Session::new(device.backend()?)), &mut |p| watcher.at(p))?;
    watcher.finish();
    if args.json {
        let path = study.grid.out.join("summary.json");
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
        return report::print(text.trim_end());
    }
    report::print(table(&findings))?;
    report::print(format_args!("\n{}\n", report::wrap(&findings.conclusions())))?;
    report::print(format_args!("files: {}", study.grid.out.display()))
}

fn config(args: &AblateArgs) -> Result<Config> {
    let flags = args.run.config()?;
    let run = metatape::train::Config { baseline: false, meta_size: None, ..flags };
    let meta_size = args.run.config.meta_size.unwrap_or(META_SIZE);
    let mut variants = match &args.variants {
        Some(list) => list.clone(),
        None => Variant::default_list(meta_size, run.noise),
    };
    // What all others are compared with is always there, first.
    variants.sort_by_key(|v| *v != Variant::Published);
    if variants.first() != Some(&Variant::Published) {
        variants.insert(0, Variant::Published);
    }
    Ok(Config { seeds: args.seeds as u64, variants, meta_size, run })
}

/// A resumed study keeps its configuration, but that variants and seeds may be added to it: a flag
/// on the command line that says otherwise is an error.
fn grown(args: &AblateArgs, stored: &Config) -> Result<Config> {
    let fields = |config: &Config| serde_json::to_value(config).map_err(|e| Error::Program(e.to_string()));
    let new = config(args)?;
    let (asked, had) = (fields(&new)?, fields(stored)?);
    let mut grown = stored.clone();
    for field in given("ablate") {
        let (key, flag) = match field.as_str() {
            "virtual_step" => ("virtual", "--virtual".to_owned()),
            key => (key, format!("--{}", key.replace('_', "-"))),
        };
        // The study's own fields, then the run's.
        let find = |value: &serde_json::Value| {
            value.get(key).or_else(|| value.get("run").and_then(|run| run.get(key))).cloned()
        };
        let (Some(value), old) = (find(&asked), find(&had)) else { continue };
        let (fits, rule) = match key {
            "seeds" => (new.seeds >= stored.seeds, "; seeds can only be added"),
            "variants" => (
                stored.variants.iter().all(|v| new.variants.contains(v)),
                "; variants can only be added, so name those as well",
            ),
            _ => (Some(&value) == old.as_ref(), ""),
        };
        if !fits {
            let old = old.map_or("none".to_owned(), |v| v.to_string().replace('"', ""));
            return Err(Error::Usage(format!(
                "{flag} does not fit the study to resume, which was started with {key} = {old}{rule}; leave the flag out, or start a \
                 new study in another --out"
            )));
        }
        match key {
            "seeds" => grown.seeds = new.seeds,
            "variants" => {
                grown.variants.extend(new.variants.iter().filter(|v| !stored.variants.contains(v)));
            }
            _ => {}
        }
    }
    Ok(grown)
}

/// One bar over the whole grid on a terminal, a line a cell elsewhere.
struct Watcher {
    bar: Option<ProgressBar>,
    json: bool,
    began: Instant,
    cell: Option<usize>,
    /// Cells that were there when this began.
    first: Option<usize>,
}

impl Watcher {
    fn new(study: &Study, json: bool) -> Watcher {
        let cells = study.cells().len();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(1000 * cells as u64);
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {percent}%  {eta} left  {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Watcher { bar, json, began: Instant::now(), cell: None, first: None }
    }

    fn at(&mut self, p: Progress) {
        let first = *self.first.get_or_insert(p.finished);
        if let Some(bar) = &self.bar {
            if self.cell.is_none() {
                bar.set_position(1000 * first as u64);
                bar.reset_eta();
            }
            bar.set_position(1000 * p.finished as u64 + 1000 * p.cell.step / p.cell.steps.max(1));
            if self.cell != Some(p.finished) {
                bar.set_message(format!(
                    "cell {}/{}: {}, seed {}",
                    p.finished + 1,
                    p.cells,
                    p.variant,
                    p.seed
                ));
            }
        } else if p.cell.step == p.cell.steps {
            let seconds = self.began.elapsed().as_secs_f64();
            let left = seconds / (p.finished + 1 - first) as f64 * (p.cells - p.finished - 1) as f64;
            let line = format!(
                "cell {}/{}: {}, seed {}  ({seconds:.0} s, about {left:.0} s left)",
                p.finished + 1,
                p.cells,
                p.variant,
                p.seed
            );
            if self.json {
                eprintln!("{line}");
            } else {
                // A reader that has gone away is no reason to stop.
                let _ = report::print(line);
            }
        }
        self.cell = Some(p.finished);
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn table(findings: &Findings) -> String {
    let heading = [
        "variant",
        "final %",
        "± sd",
        "best %",
        "against published",
        "cosine",
        "V clean",
        "V wrong",
        "ms a step",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let optional = |v: Option<f64>, digits: usize| {
        v.map_or("-".to_owned(), |v| format!("{v:.digits$}").replace('-', "−"))
    };
    for row in &findings.rows {
        let mark = match row.beyond_spread {
            Some(true) => " *",
            _ => "  ",
        };
        rows.push(vec![
            row.name.to_string(),
            optional(row.final_mean, 2),
            optional(row.final_std, 2),
            optional(row.best_mean, 2),
            row.difference.map_or("-  ".to_owned(), |d| format!("{d}{mark}")),
            optional(row.cosine_mean, 3),
            optional(row.mean_weight_clean, 3),
            optional(row.mean_weight_corrupted, 3),
            row.ms_per_step.map_or("-".to_owned(), report::ms),
        ]);
    }
    let mut text = format!(
        "\n{}\n\n* beyond the spread: the 95% interval of seed-by-seed differences leaves out 0",
        report::table(&rows)
    );
    if let Some(other) = findings.other_batch {
        text.push_str(&format!(
            "\ncosine between the exact hypergradients on two clean meta batches: {other}"
        ));
    }
    text
}
