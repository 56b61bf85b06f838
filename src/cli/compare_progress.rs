//! What `metatape compare` shows while it goes on.

use std::collections::{HashMap, VecDeque};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use metatape::train::{Cell, CellId, EpochRow, Method, Observer, Run, StepReport};
use metatape::words::counted;

use super::report::print;

/// Without a terminal, a long run says where it is this often.
const SILENCE: Duration = Duration::from_secs(10);

/// One bar over the whole grid on a terminal; elsewhere a line a run, and one every ten seconds of
/// a long one.
pub struct Progress {
    bar: Option<ProgressBar>,
    json: bool,
    runs: usize,
    done: usize,
    /// Runs that are not finished, the present one first.
    waiting: VecDeque<CellId>,
    now: CellId,
    passes: usize,
    epochs: usize,
    steps: u64,
    began: Instant,
    /// When the last line was said.
    said: Instant,
    /// Seconds of the runs of each method that this process has finished, and of all passes.
    seconds: HashMap<Method, (f64, u32)>,
}

impl Progress {
    /// For so many runs, of which these are not finished.
    pub fn new(runs: usize, waiting: VecDeque<CellId>, first: CellId, json: bool) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            // A thousand ticks a run.
            let bar = ProgressBar::new(1000 * runs as u64);
            if let Ok(style) = ProgressStyle::with_template("{bar:32} {percent:>3}%  {msg}") {
                bar.set_style(style);
            }
            bar
        });
        let done = runs - waiting.len();
        let (now, began, seconds) = (first, Instant::now(), HashMap::new());
        let progress = Progress {
            bar,
            json,
            runs,
            done,
            waiting,
            now,
            passes: 1,
            epochs: 1,
            steps: 1,
            began,
            said: began,
            seconds,
        };
        if done > 0 {
            let are = if done == 1 { "is" } else { "are" };
            progress.say(&format!("{done} of {} {are} finished already", counted(runs, "run")));
        }
        progress
    }

    /// A run begins.
    pub fn start(&mut self, id: CellId) {
        self.now = id;
        (self.began, self.said) = (Instant::now(), Instant::now());
    }

    /// A run is finished.
    pub fn end(&mut self, cell: &Cell) {
        let seconds = self.began.elapsed().as_secs_f64();
        let entry = self.seconds.entry(self.now.method).or_default();
        *entry = (entry.0 + seconds, entry.1 + 1);
        self.done += 1;
        self.waiting.pop_front();
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
            self.done, self.runs, cell.method, cell.seed
        ));
    }

    /// Seconds until the end, when the share `within` of the present run is done: each method as
    /// long as its runs so far, and one that has not run yet as long as an average pass.
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
        let of = |id: &CellId| match self.seconds.get(&id.method) {
            Some((seconds, runs)) => seconds / f64::from(*runs),
            None => average * weight(id.method),
        };
        let rest: f64 = self.waiting.iter().map(of).sum();
        Some((rest - within * self.waiting.front().map_or(0.0, of)).max(0.0))
    }

    /// All is done.
    pub fn finish(&self) {
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
        self.epochs = run.data.config.epochs;
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
                self.runs,
                pass + 1
            ));
        }
    }

    fn epoch(&mut self, row: &EpochRow) {
        if self.bar.is_some() || self.said.elapsed() < SILENCE {
            return;
        }
        self.said = Instant::now();
        let CellId { method, seed } = self.now;
        self.say(&format!(
            "  {method}, seed {seed}: epoch {} of {}, test {:.2}%",
            row.epoch, self.epochs, row.test_accuracy
        ));
    }
}

/// Seconds as people say them.
fn duration(seconds: f64) -> String {
    indicatif::HumanDuration(Duration::from_secs_f64(seconds.min(1e9))).to_string()
}
