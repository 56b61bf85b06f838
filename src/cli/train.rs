//! `metatape train`: from flags to a [`Run`], and what it shows while it goes on and at its end.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use metatape::program::Session;
use metatape::train::{Config, EpochRow, Method, Observer, Run, StepReport, Summary};
use metatape::{Error, Result};
use serde_json::Value;

use super::args::{TrainArgs, given};
use super::report::{print, table};
use super::run_config::config;

/// Trains, or goes on training.
pub fn run(args: &TrainArgs) -> Result<()> {
    let mut device = args.run.device.clone();
    let mut run = match (&args.out, args.resume) {
        (Some(out), true) => {
            let stored = Run::stored_config(out)?;
            agree("train", &asked(args)?, &stored)?;
            // A run keeps its precision, too.
            device.precision = stored.precision.parse()?;
            Run::resume(out, &|| Ok(Session::new(device.backend()?)))?
        }
        (out, _) => {
            let config = asked(args)?;
            let out = out.clone().unwrap_or_else(|| default_out(&config));
            Run::start(config, &out, &|| Ok(Session::new(device.backend()?)))?
        }
    };
    let mut watcher = Watcher::new(&run, args.json);
    let summary = run.train(&mut watcher)?;
    watcher.finish();
    if args.json {
        let json = serde_json::to_string_pretty(&summary).map_err(|e| Error::Program(e.to_string()))?;
        return print(json);
    }
    print(report(&run, &summary))
}

/// The run that flags ask for.
fn asked(args: &TrainArgs) -> Result<Config> {
    let baseline = !args.no_baseline && args.method != Method::Uniform;
    config(&args.run, args.method, baseline, args.seed)
}

/// A resumed run keeps its configuration: a flag on the command line that says otherwise is an error.
pub fn agree(subcommand: &str, asked: &Config, stored: &Config) -> Result<()> {
    let fields = |config: &Config| serde_json::to_value(config).map_err(|e| Error::Program(e.to_string()));
    let (asked, stored) = (fields(asked)?, fields(stored)?);
    for field in given(subcommand) {
        // Two fields are called otherwise in a configuration.
        let (key, flag) = match field.as_str() {
            "virtual_step" => ("virtual", "--virtual".to_owned()),
            "no_baseline" => ("baseline", "--no-baseline".to_owned()),
            key => (key, format!("--{}", key.replace('_', "-"))),
        };
        let Some(value) = asked.get(key) else { continue };
        if stored.get(key) != Some(value) {
            // A switch says all by its name.
            let given = if value.is_boolean() { flag } else { format!("{flag} {}", plain(value)) };
            let had = stored.get(key).map_or("none".to_owned(), plain);
            return Err(Error::Usage(format!(
                "{given} does not fit the run to resume, which was started with {key} = {had}; leave the flag out, or start a \
                 new run in another --out"
            )));
        }
    }
    Ok(())
}

/// A value as it is typed: strings without quotes, lists without brackets.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// `runs/<date-name>`, with a number behind it if that is taken.
fn default_out(config: &Config) -> PathBuf {
    let date = jiff::ZonedDateTime::now().strftime("%Y-%m-%d-%H%M%S").to_string();
    let name = format!("{date}-{}-{}-{}", config.method, config.model, config.dataset);
    let first = Path::new("runs").join(&name);
    let numbered = (2..).map(|i| Path::new("runs").join(format!("{name}-{i}")));
    std::iter::once(first)
        .chain(numbered)
        .find(|p| !p.exists())
        .unwrap_or_else(|| Path::new("runs").join(name))
}

/// Progress bars on a terminal, a line an epoch elsewhere.
struct Watcher {
    bars: Vec<ProgressBar>,
    all: MultiProgress,
    methods: Vec<Method>,
    lines: bool,
    json: bool,
    line: String,
    steps: u64,
    epochs: usize,
    began: Instant,
}

impl Watcher {
    fn new(run: &Run, json: bool) -> Watcher {
        let methods = run.data.config.methods();
        let (steps, epochs) = (run.steps_per_epoch(), run.data.config.epochs);
        let passes = run.passes() as u64;
        let all = MultiProgress::new();
        let lines = !std::io::stderr().is_terminal();
        let mut bars = Vec::new();
        for method in methods.iter().filter(|_| !lines) {
            let template = "{prefix:>8} {bar:24} {pos}/{len} steps  {rate}  {eta} left  {msg}";
            let bar = all.add(ProgressBar::new(steps * passes));
            if let Ok(style) = ProgressStyle::with_template(template) {
                let rate = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
                    let _ = write!(text, "{:.0} steps/s", state.per_sec());
                };
                bar.set_style(style.with_key("rate", rate));
            }
            bar.set_prefix(method.to_string());
            bars.push(bar);
        }
        let line = String::new();
        Watcher { bars, all, methods, lines, json, line, steps, epochs, began: Instant::now() }
    }

    fn bar(&self, method: Method) -> Option<&ProgressBar> {
        self.bars.get(self.methods.iter().position(|m| *m == method)?)
    }

    fn finish(&self) {
        self.bars.iter().for_each(ProgressBar::finish);
    }

    /// A line of progress: on standard output, unless that is for JSON.
    fn say(&self, line: &str) {
        // Bars that are drawn already step aside, and do not stay behind.
        self.all.suspend(|| {
            if self.json {
                eprintln!("{line}");
            } else {
                // A reader that has gone away is no reason to stop training.
                let _ = print(line);
            }
        });
    }
}

impl Observer for Watcher {
    fn begin(&mut self, run: &Run, done: usize) {
        let (data, train) = (&run.data, &run.data.split.train);
        let corrupted = train.corrupted.iter().filter(|c| **c).count();
        let begun = format!(
            "{} on {} ({}): {} training images, {corrupted} with a wrong label, {} clean meta images; {}",
            data.config.model,
            data.dataset.name,
            data.config.noise,
            train.indices.len(),
            data.split.meta.indices.len(),
            run.machine(),
        );
        self.say(&begun);
        if done > 0 {
            let (what, all) =
                if run.passes() == self.epochs { ("epoch", self.epochs) } else { ("pass", run.passes()) };
            self.say(&format!("resumed after {what} {done} of {all}"));
        }
        for bar in &self.bars {
            bar.set_position(done as u64 * self.steps);
            bar.reset_eta();
        }
        self.began = Instant::now();
    }

    fn step(&mut self, method: Method, pass: usize, report: StepReport) {
        let Some(bar) = self.bar(method) else { return };
        bar.set_position(pass as u64 * self.steps + report.step);
        // Text is costly beside a step of a small network.
        if report.step.is_multiple_of(16) {
            let meta = report.meta_loss.map_or(String::new(), |m| format!("  meta {m:.3}"));
            bar.set_message(format!("loss {:.3}{meta}  accuracy {:.0}%", report.loss, report.accuracy));
        }
    }

    fn epoch(&mut self, row: &EpochRow) {
        if !self.lines {
            return;
        }
        let meta = row.meta_loss.map_or(String::new(), |m| format!(", meta loss {m:.3}"));
        let part = format!(
            "  {}: loss {:.3}{meta}, test {:.2}%, {:.0} steps/s",
            row.method, row.train_loss, row.test_accuracy, row.steps_per_second
        );
        self.line.push_str(&part);
        if self.methods.last().is_some_and(|m| m.to_string() == row.method) {
            let seconds = self.began.elapsed().as_secs_f64();
            let line = format!("epoch {}/{}{}  ({seconds:.1} s)", row.epoch, self.epochs, self.line);
            self.say(&line);
            self.line.clear();
        }
    }
}

/// The table at the end.
fn report(run: &Run, summary: &Summary) -> String {
    let percent = |v: f64| format!("{v:.2}%");
    let row = |name: &str, cells: [String; 2]| {
        let [a, b] = cells;
        vec![name.to_owned(), a, b]
    };
    let mut rows = vec![row("test accuracy", ["final".into(), "best".into()])];
    rows.push(row(
        &summary.method,
        [percent(summary.final_test_accuracy), percent(summary.best_test_accuracy)],
    ));
    if let (Some(last), Some(best)) =
        (summary.baseline_final_test_accuracy, summary.baseline_best_test_accuracy)
    {
        rows.push(row("uniform", [percent(last), percent(best)]));
    }
    let mut text = format!("\n{}\n", table(&rows));
    if let Some(clean) = summary.mean_weight_clean {
        let corrupted =
            summary.mean_weight_corrupted.map_or("none are corrupted".into(), |w| format!("{w:.3}"));
        text.push_str(&format!(
            "\nmean weight of clean samples {clean:.3}, of corrupted samples {corrupted}\n"
        ));
    }
    if !summary.weight_curve.is_empty() {
        let shown = [0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0];
        let points: Vec<_> = summary.weight_curve.iter().filter(|p| shown.contains(&p.0)).collect();
        let mut losses = vec!["loss".to_owned()];
        losses.extend(points.iter().map(|p| p.0.to_string()));
        let mut values = vec!["V(loss)".to_owned()];
        values.extend(points.iter().map(|p| format!("{:.3}", p.1)));
        text.push_str(&format!("\n{}\n", table(&[losses, values])));
    }
    if let Some(speed) = summary.meta_steps_per_second {
        text.push_str(&format!("\n{speed:.0} meta steps a second, {:.1} s in all", summary.seconds));
    }
    text.push_str(&format!("\nfiles: {}", run.out.display()));
    text
}
