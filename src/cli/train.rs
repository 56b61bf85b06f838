//! `metatape train`: from flags to a [`Run`], and what it shows while it goes on and at its end.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use metatape::program::Session;
use metatape::train::{Config, EpochRow, Method, Observer, Run, StepReport, Summary};
use metatape::{Error, Result};
use serde_json::Value;

use super::args::{TrainArgs, given};
use super::folder::in_folder;
use super::report::{print, table};

/// Trains, or goes on training.
pub fn run(args: &TrainArgs) -> Result<()> {
    let mut device = args.run.machine();
    let mut run = match (&args.out, args.resume) {
        (Some(out), true) => {
            let stored = Run::stored_config(out)?;
            agree("train", &asked(args)?, &stored)?;
            // A run keeps its precision, too.
            device.precision = stored.precision;
            Run::resume(out, &|| Ok(Session::new(device.backend()?)))?
        }
        (out, _) => {
            let config = asked(args)?;
            let name = format!("{}-{}-{}", config.method, config.model, config.dataset);
            let session = || Ok(Session::new(device.backend()?));
            in_folder(out.as_deref(), &name, |out| Run::start(config, out, &session))?
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
    Ok(Config { method: args.method, baseline, seed: args.seed, ..args.run.config()? })
}

/// A resumed run keeps its configuration: a flag on the command line that says otherwise is an
/// error.
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

/// Progress bars on a terminal, a line an epoch elsewhere.
struct Watcher {
    bars: Vec<ProgressBar>,
    all: MultiProgress,
    methods: Vec<Method>,
    lines: bool,
    json: bool,
    line: String,
    steps: u64,
    passes: u64,
    epochs: usize,
    began: Instant,
    /// Seconds spent in steps and their number, by method, and when the last step was done.
    spent: Vec<(f64, u64)>,
    last: Instant,
    /// Steps that an earlier process has done, all methods together.
    resumed: u64,
}

impl Watcher {
    fn new(run: &Run, json: bool) -> Watcher {
        let methods = run.data.config.methods();
        let (steps, epochs) = (run.steps_per_epoch(), run.data.config.epochs);
        let passes = run.passes() as u64;
        let all = MultiProgress::new();
        let bars_shown = std::io::stderr().is_terminal();
        // JSON leaves standard output alone.
        let lines = !bars_shown || (!json && !std::io::stdout().is_terminal());
        let mut bars = Vec::new();
        for method in methods.iter().filter(|_| bars_shown) {
            let bar = all.add(ProgressBar::new(steps * passes));
            if let Ok(style) = ProgressStyle::with_template("{prefix:>8} {bar:24} {pos}/{len} steps  {msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(method.to_string());
            bars.push(bar);
        }
        let (line, now) = (String::new(), Instant::now());
        let spent = vec![(0.0, 0); methods.len()];
        Watcher {
            bars,
            all,
            methods,
            lines,
            json,
            line,
            steps,
            passes,
            epochs,
            began: now,
            spent,
            last: now,
            resumed: 0,
        }
    }

    /// How long it will take to the end, all methods together, if it goes on as it has since it
    /// began.
    fn left(&self) -> String {
        let all = self.steps * self.passes * self.bars.len() as u64;
        let done: u64 = self.bars.iter().map(ProgressBar::position).sum();
        let fresh = done.saturating_sub(self.resumed) as f64;
        let left = self.began.elapsed().as_secs_f64() * all.saturating_sub(done) as f64 / fresh.max(1.0);
        format!("{:#}", HumanDuration(Duration::from_secs_f64(left.ceil().min(1e9))))
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
        let tail = data.config.imbalance.map_or(String::new(), |factor| format!(", imbalance {factor}"));
        let begun = format!(
            "{} on {} (noise {}{tail}): {} training images, {corrupted} with a wrong label, {} clean meta images; {}",
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
        self.resumed = done as u64 * self.steps * self.bars.len() as u64;
        for bar in &self.bars {
            bar.set_position(done as u64 * self.steps);
        }
        (self.began, self.last) = (Instant::now(), Instant::now());
    }

    fn step(&mut self, method: Method, pass: usize, report: StepReport) {
        let Some(index) = self.methods.iter().position(|m| *m == method) else { return };
        let now = Instant::now();
        let since = now.duration_since(std::mem::replace(&mut self.last, now)).as_secs_f64();
        // Before an epoch's first step there was an evaluation, or the other method's turn.
        if report.step > 1 {
            let (seconds, steps) = &mut self.spent[index];
            (*seconds, *steps) = (*seconds + since, *steps + 1);
        }
        let Some(bar) = self.bars.get(index) else { return };
        bar.set_position(pass as u64 * self.steps + report.step);
        // Text is costly beside a step of a small network.
        if report.step.is_multiple_of(16) {
            let meta = report.meta_loss.map_or(String::new(), |m| format!("  meta {m:.3}"));
            let (seconds, steps) = self.spent[index];
            bar.set_message(format!(
                "{:.0} steps/s  {} left  loss {:.3}{meta}  accuracy {:.0}% of the given labels",
                steps as f64 / seconds,
                self.left(),
                report.loss,
                report.accuracy
            ));
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
        text.push_str(&match summary.mean_weight_corrupted {
            Some(corrupted) => {
                format!("\nmean weight of clean samples {clean:.3}, of corrupted samples {corrupted:.3}\n")
            }
            None => format!("\nmean weight of samples {clean:.3} (no label is wrong)\n"),
        });
    }
    if !summary.weight_curve.is_empty() {
        text.push_str(&format!("\n{}\n", table(&curve_rows(run.data.config.method, summary))));
    }
    if let Some(speed) = summary.meta_steps_per_second {
        text.push_str(&format!("\n{speed:.0} meta steps a second, {:.1} s in all", summary.seconds));
    }
    text.push_str(&format!("\nfiles: {}", run.out.display()));
    text
}

/// The weight at a few losses, a row a curve. Only a weight net is called V.
fn curve_rows(method: Method, summary: &Summary) -> Vec<Vec<String>> {
    const SHOWN: [f64; 8] = [0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0];
    let (losses, curve): (Vec<f64>, Vec<f64>) = summary.weight_curve.iter().copied().unzip();
    let mut curves = summary.weight_curves_by_group.clone();
    if curves.is_empty() {
        curves.push((String::new(), curve));
    }
    let row = |head: String, values: &[f64], digits: Option<usize>| {
        let shown = losses.iter().zip(values).filter(|(loss, _)| SHOWN.contains(loss));
        let cell = |value: &f64| digits.map_or(value.to_string(), |digits| format!("{value:.digits$}"));
        std::iter::once(head).chain(shown.map(|(_, value)| cell(value))).collect()
    };
    let mut rows = vec![row("loss".into(), &losses, None)];
    let what = if method.is_meta() { "V(loss)" } else { "weight" };
    let head = |name: &str| if name.is_empty() { what.into() } else { format!("{what}, {name}") };
    rows.extend(curves.iter().map(|(name, values)| row(head(name), values, Some(3))));
    rows
}
