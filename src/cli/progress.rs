//! What `train`, `compare` and `ablate` show while they go on: bars on a terminal, lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use metatape::train::study::{Arm, Cell, Plan, StudyObserver};
use metatape::train::{EpochRow, Method, Observer, Run, Settings, StepReport, Then};
use metatape::words::{counted, number};

use super::report::{complain, print};
use super::signals::caught;

/// Without a terminal, a long cell says where it is this often.
const SILENCE: Duration = Duration::from_secs(10);

/// Text is costly beside a step of a small network: bars move once in so many steps.
const STRIDE: u64 = 16;

/// Ticks of a bar a pass over the training set.
const TICKS: f64 = 1000.0;

/// A bar for each method that is trained side by side, or one for a whole study; elsewhere lines.
pub struct Progress {
    json: bool,
    /// Between two checkpoints, if there is a limit; and when the last one was written.
    minutes: Option<f64>,
    kept: Instant,
    /// None where there is no terminal.
    bars: Vec<ProgressBar>,
    all: MultiProgress,
    /// Behind the bars, one each; those of a study take turns at one.
    methods: Vec<Method>,
    epochs: usize,
    /// Of a study.
    set: Settings,
    /// Passes over the training set of each bar, those that were done before this process or the
    /// present cell, and when either began.
    passes: f64,
    earlier: f64,
    done: f64,
    began: Instant,
    /// By method, seconds spent in steps and their number, and when the last step was done.
    spent: Vec<(f64, u64)>,
    last: Instant,
    /// Of a study, the number of its cells, that of the present one, what it is and since when.
    cells: usize,
    number: usize,
    cell: String,
    cell_began: Instant,
    /// Methods' parts of the line of an epoch, and when the last was said.
    line: String,
    said: Instant,
}

impl Progress {
    /// Of a run.
    pub fn run(run: &Run, json: bool, minutes: Option<f64>) -> Progress {
        let progress = Progress::new(run.data.config.methods(), run.passes(), run.data.config.epochs, json);
        Progress { minutes, ..progress }
    }

    /// Of a study.
    pub fn study<A: Arm>(plan: &Plan<A>, json: bool, minutes: Option<f64>) -> Progress {
        let (cells, epochs) = (plan.cells(), plan.config.epochs);
        let set = plan.config.set.clone();
        let networks: usize = cells.iter().map(|(arm, _)| arm.networks(&set)).sum();
        let progress = Progress::new(vec![Method::Uniform], networks * epochs, epochs, json);
        progress.bars.iter().for_each(|bar| bar.set_prefix("study"));
        Progress { cells: cells.len(), set, minutes, ..progress }
    }

    fn new(methods: Vec<Method>, passes: usize, epochs: usize, json: bool) -> Progress {
        let (all, passes, now) = (MultiProgress::new(), passes as f64, Instant::now());
        let bar = |method: &Method| {
            let bar = all.add(ProgressBar::new((TICKS * passes) as u64));
            if let Ok(style) = ProgressStyle::with_template("{prefix:>8} {bar:24} {percent:>3}%  {msg}") {
                bar.set_style(style);
            }
            bar.with_prefix(method.to_string())
        };
        let bars = methods.iter().filter(|_| std::io::stderr().is_terminal()).map(bar).collect();
        Progress {
            json,
            minutes: None,
            kept: now,
            bars,
            all,
            spent: vec![(0.0, 0); methods.len()],
            methods,
            epochs,
            set: Settings::new(),
            passes,
            earlier: 0.0,
            done: 0.0,
            began: now,
            last: now,
            cells: 0,
            number: 0,
            cell: String::new(),
            cell_began: now,
            line: String::new(),
            said: now,
        }
    }

    /// A line: on standard output, unless that is for JSON.
    pub fn say(&self, line: &str) {
        // Bars that are drawn already step aside, and do not stay behind.
        self.all.suspend(|| match self.json {
            true => complain(line),
            // A reader that has gone away is no reason to stop training.
            false => drop(print(line)),
        });
    }

    /// How long the rest will take if it goes on as it has since it began, after so many passes of
    /// a bar.
    fn left(&self, done: f64) -> String {
        let seconds = self.began.elapsed().as_secs_f64() * (self.passes - done) / (done - self.earlier);
        // At the very beginning nobody knows.
        let known = Duration::try_from_secs_f64(seconds.ceil().min(1e9));
        known.map_or("?".to_owned(), |time| HumanDuration(time).to_string())
    }

    /// All is done.
    pub fn finish(&self) {
        let end = if self.cells > 0 { ProgressBar::finish_and_clear } else { ProgressBar::finish };
        self.bars.iter().for_each(end);
    }
}

impl Observer for Progress {
    fn begin(&mut self, run: &Run, done: usize) {
        if self.cells > 0 {
            return;
        }
        self.say(&format!("folder: {}", run.out.display()));
        run.data.account().iter().for_each(|line| self.say(line));
        self.say(&format!("{} on {}", run.data.config.model, run.machine()));
        if done > 0 {
            let what = if run.passes() == self.epochs { "epoch" } else { "pass" };
            self.say(&format!("resumed after {what} {done} of {}", run.passes()));
        }
        let epochs = self.epochs;
        for departure in run.departures() {
            self.say(&format!("not as a run of {epochs} epochs from the start: {departure}"));
        }
        (self.earlier, self.began, self.last) = (done as f64, Instant::now(), Instant::now());
    }

    fn then(&mut self) -> Then {
        if caught().is_some() {
            return Then::Stop;
        }
        if self.minutes.is_none_or(|minutes| self.kept.elapsed().as_secs_f64() < 60.0 * minutes) {
            return Then::GoOn;
        }
        self.kept = Instant::now();
        Then::Save
    }

    fn step(&mut self, method: Method, pass: usize, report: StepReport) {
        let index = self.methods.iter().position(|m| *m == method).unwrap_or(0);
        let now = Instant::now();
        let since = now.duration_since(std::mem::replace(&mut self.last, now)).as_secs_f64();
        // Before an epoch's first step there was an evaluation, or the other method's turn.
        if report.step > 1 {
            let (seconds, steps) = &mut self.spent[index];
            (*seconds, *steps) = (*seconds + since, *steps + 1);
        }
        let last = report.step == report.steps;
        let Some(bar) = self.bars.get(index).filter(|_| last || report.step.is_multiple_of(STRIDE)) else {
            return;
        };
        let done = self.done + pass as f64 + report.step as f64 / report.steps as f64;
        bar.set_position((TICKS * done) as u64);
        let mean = self.bars.iter().map(ProgressBar::position).sum::<u64>() as f64 / self.bars.len() as f64;
        let meta = report.meta_loss.map_or(String::new(), |m| format!("  meta {}", number(m, 3)));
        let (seconds, steps) = self.spent[index];
        bar.set_message(format!(
            "{}epoch {}  {:.0} steps/s  {} left  loss {}{meta}  accuracy {:.0}% of the given labels",
            self.cell,
            pass + 1,
            steps as f64 / seconds,
            self.left(mean / TICKS),
            number(report.loss, 3),
            report.accuracy
        ));
    }

    fn epoch(&mut self, row: &EpochRow) {
        self.kept = Instant::now();
        let terminal = !self.bars.is_empty() && (self.json || std::io::stdout().is_terminal());
        let often = self.cells > 0 && (!self.bars.is_empty() || self.said.elapsed() < SILENCE);
        if terminal || often {
            return;
        }
        let EpochRow { method, train_loss, test_accuracy, steps_per_second, .. } = row;
        let meta = row.meta_loss.map_or(String::new(), |m| format!(", meta loss {}", number(m, 3)));
        self.line.push_str(&format!(
            "  {method}: loss {}{meta}, test {test_accuracy:.2}%, {steps_per_second:.0} steps/s",
            number(*train_loss, 3)
        ));
        if self.cells > 0 || self.methods.last().is_some_and(|m| m.to_string() == row.method) {
            let (line, seconds) = (std::mem::take(&mut self.line), self.began.elapsed().as_secs_f64());
            let (epoch, epochs) = (row.epoch, self.epochs);
            self.say(&format!("{}epoch {epoch}/{epochs}{line}  ({seconds:.1} s)", self.cell));
            self.said = Instant::now();
        }
    }
}

impl<A: Arm> StudyObserver<A> for Progress {
    fn begin_study(&mut self, waiting: &[(A, u64)]) {
        self.number = self.cells - waiting.len();
        let networks: usize = waiting.iter().map(|(arm, _)| arm.networks(&self.set)).sum();
        self.done = self.passes - (networks * self.epochs) as f64;
        (self.earlier, self.began) = (self.done, Instant::now());
        if self.number > 0 {
            let are = if self.number == 1 { "is" } else { "are" };
            self.say(&format!("{} of {} {are} finished already", self.number, counted(self.cells, "cell")));
        }
    }

    fn begin_cell(&mut self, arm: A, seed: u64) {
        self.number += 1;
        self.cell = format!("cell {}/{}: {arm}, seed {seed}: ", self.number, self.cells);
        self.spent.fill((0.0, 0));
        (self.cell_began, self.said) = (Instant::now(), Instant::now());
    }

    fn end_cell(&mut self, arm: A, cell: &Cell) {
        self.done += (arm.networks(&self.set) * self.epochs) as f64;
        let accuracy = |value: Option<f64>| value.unwrap_or(f64::NAN);
        let (last, best) = (cell.history.final_accuracy(), cell.history.best_accuracy());
        let result = match &cell.error {
            Some(error) => format!("stopped: {error}"),
            None => format!("final {:.2}%, best {:.2}%", accuracy(last), accuracy(best)),
        };
        let left = match self.number == self.cells {
            true => String::new(),
            false => format!(", about {} left", self.left(self.done)),
        };
        let seconds = self.cell_began.elapsed().as_secs_f64();
        self.say(&format!("{}{result}  ({seconds:.1} s{left})", self.cell));
    }
}
