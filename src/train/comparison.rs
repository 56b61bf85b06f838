//! From a grid's finished runs to means, files and plots.

use std::path::Path;

use serde::Serialize;

use super::files::write_atomically;
use super::grid::{Cell, Grid};
use super::plots::{Confusion, Line, Lines, write};
use super::statistics::Spread;
use crate::error::{Error, Result};

/// What a method has reached, over all its seeds that came to an end. Accuracies in percent.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct MethodSummary {
    /// Its name.
    pub name: String,
    /// Runs that came to an end.
    pub runs: usize,
    /// Runs whose loss did not stay finite.
    pub diverged: usize,
    /// Test accuracy after the last epoch.
    pub final_mean: Option<f64>,
    /// Its standard deviation over seeds.
    pub final_std: Option<f64>,
    /// Best test accuracy of all epochs.
    pub best_mean: Option<f64>,
    /// Its standard deviation over seeds.
    pub best_std: Option<f64>,
    /// Mean of the classes' test accuracies after the last epoch.
    pub balanced_mean: Option<f64>,
    /// Its standard deviation over seeds.
    pub balanced_std: Option<f64>,
    /// Final test accuracy less that of `uniform` with the same seed.
    pub gain_mean: Option<f64>,
    /// The least gain of all seeds.
    pub gain_min: Option<f64>,
    /// Mean weight that the last epoch gave to samples with their true label.
    pub mean_weight_clean: Option<f64>,
    /// Mean weight that it gave to samples with a wrong one.
    pub mean_weight_corrupted: Option<f64>,
    /// Milliseconds of a training step.
    pub ms_per_step: Option<f64>,
    /// Networks trained one after the other, each over the whole schedule.
    pub networks: usize,
    /// The accuracy that the paper gives (best of all evaluations, mean of 5 seeds).
    pub paper: Option<f64>,
}

/// A row of `results.csv`: one run.
#[derive(Serialize)]
struct ResultRow<'a> {
    method: &'a str,
    seed: u64,
    final_test_accuracy: Option<f64>,
    best_test_accuracy: Option<f64>,
    balanced_test_accuracy: Option<f64>,
    mean_weight_clean: Option<f64>,
    mean_weight_corrupted: Option<f64>,
    ms_per_step: Option<f64>,
    error: Option<&'a str>,
}

/// `summary.json`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Comparison {
    /// In the order of the grid.
    pub methods: Vec<MethodSummary>,
    /// Seeds that were asked for.
    pub seeds: Vec<u64>,
    /// The paper's cell, by name.
    pub preset: Option<String>,
    /// The fields in which the runs are not of that cell's setting.
    pub departures: Vec<String>,
    /// Everything that decides the runs, but for method and seed.
    pub config: super::config::Config,
}

impl Comparison {
    /// Means over the finished runs of a grid.
    ///
    /// # Errors
    /// None for grids of this program.
    pub fn new(grid: &Grid, cells: &[Cell]) -> Result<Comparison> {
        let paper = grid.paper()?;
        let departures = paper.map(|p| p.departures(&grid.plan.config)).unwrap_or_default();
        let figures = paper.map(|p| p.figures()).unwrap_or_default();
        let methods = grid.plan.methods.iter().map(|name| {
            let paper = figures.iter().find(|f| f.0.to_string() == *name).map(|f| f.1);
            summarise(name, paper, cells)
        });
        Ok(Comparison {
            methods: methods.collect::<Result<_>>()?,
            seeds: grid.plan.seeds.clone(),
            preset: grid.plan.preset.clone(),
            departures,
            config: grid.plan.config.clone(),
        })
    }

    /// Writes `results.csv`, `epochs.csv`, `summary.json` and the plots into the grid's folder.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn write(&self, grid: &Grid, cells: &[Cell]) -> Result<()> {
        write_tables(cells, &grid.out)?;
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::Program(e.to_string()))?;
        write_atomically(&grid.out.join("summary.json"), (text + "\n").as_bytes())?;
        draw(grid, cells)
    }
}

fn ended<'a>(name: &'a str, cells: &'a [Cell]) -> impl Iterator<Item = &'a Cell> {
    cells.iter().filter(move |c| c.method == name && c.error.is_none())
}

fn summarise(name: &str, paper: Option<f64>, cells: &[Cell]) -> Result<MethodSummary> {
    let method: super::method::Method = name.parse()?;
    let of =
        |value: &dyn Fn(&Cell) -> Option<f64>| -> Vec<f64> { ended(name, cells).filter_map(value).collect() };
    let mean = |value: &dyn Fn(&Cell) -> Option<f64>| Spread::of(&of(value));
    let last = |c: &Cell| c.history().final_accuracy();
    let (finals, best) = (mean(&last), mean(&|c| c.history().best_accuracy()));
    let balanced = mean(&|c| c.history().balanced_accuracy());
    let gains = of(&|c| {
        let base = ended("uniform", cells).find(|b| b.seed == c.seed)?;
        Some(last(c)? - last(base)?)
    });
    let gains = if name == "uniform" { Vec::new() } else { gains };
    Ok(MethodSummary {
        name: name.to_owned(),
        runs: ended(name, cells).count(),
        diverged: cells.iter().filter(|c| c.method == name && c.error.is_some()).count(),
        final_mean: finals.map(|m| m.mean),
        final_std: finals.and_then(|m| m.std),
        best_mean: best.map(|m| m.mean),
        best_std: best.and_then(|m| m.std),
        balanced_mean: balanced.map(|m| m.mean),
        balanced_std: balanced.and_then(|m| m.std),
        gain_mean: Spread::of(&gains).map(|m| m.mean),
        gain_min: gains.iter().copied().min_by(f64::total_cmp),
        mean_weight_clean: mean(&|c| c.rows.last()?.mean_weight_clean).map(|m| m.mean),
        mean_weight_corrupted: mean(&|c| c.rows.last()?.mean_weight_corrupted).map(|m| m.mean),
        ms_per_step: mean(&|c| Some(c.ms_per_step())).map(|m| m.mean),
        networks: method.stages(),
        paper,
    })
}

fn write_tables(cells: &[Cell], out: &Path) -> Result<()> {
    let (mut results, mut epochs) =
        (csv::Writer::from_writer(Vec::new()), csv::Writer::from_writer(Vec::new()));
    for cell in cells {
        let (history, row) = (cell.history(), cell.rows.last());
        let result = ResultRow {
            method: &cell.method,
            seed: cell.seed,
            final_test_accuracy: history.final_accuracy(),
            best_test_accuracy: history.best_accuracy(),
            balanced_test_accuracy: history.balanced_accuracy(),
            mean_weight_clean: row.and_then(|r| r.mean_weight_clean),
            mean_weight_corrupted: row.and_then(|r| r.mean_weight_corrupted),
            ms_per_step: row.map(|_| cell.ms_per_step()),
            error: cell.error.as_deref(),
        };
        results.serialize(result).map_err(|e| Error::Program(format!("results.csv: {e}")))?;
        for row in &cell.rows {
            epochs
                .serialize(SeededRow::new(cell.seed, row))
                .map_err(|e| Error::Program(format!("epochs.csv: {e}")))?;
        }
    }
    for (file, writer) in [("results.csv", results), ("epochs.csv", epochs)] {
        let bytes = writer.into_inner().map_err(|e| Error::Program(format!("{file}: {e}")))?;
        write_atomically(&out.join(file), &bytes)?;
    }
    Ok(())
}

/// A row of `epochs.csv`: what `metrics.csv` holds, with the seed.
#[derive(Serialize)]
struct SeededRow<'a> {
    seed: u64,
    method: &'a str,
    epoch: usize,
    lr: f64,
    train_loss: f64,
    train_accuracy: f64,
    meta_loss: Option<f64>,
    test_loss: f64,
    test_accuracy: f64,
    mean_weight_clean: Option<f64>,
    mean_weight_corrupted: Option<f64>,
}

impl SeededRow<'_> {
    fn new(seed: u64, row: &super::history::EpochRow) -> SeededRow<'_> {
        SeededRow {
            seed,
            method: &row.method,
            epoch: row.epoch,
            lr: row.lr,
            train_loss: row.train_loss,
            train_accuracy: row.train_accuracy,
            meta_loss: row.meta_loss,
            test_loss: row.test_loss,
            test_accuracy: row.test_accuracy,
            mean_weight_clean: row.mean_weight_clean,
            mean_weight_corrupted: row.mean_weight_corrupted,
        }
    }
}

/// Where a run has a value: (x, y, weight).
type Point = (f64, f64, f64);

/// Per place, the weighted mean over runs of y at the same x, in the order of x.
fn mean_points(runs: impl Iterator<Item = Vec<Point>>) -> Vec<(f64, f64)> {
    let mut all: Vec<Point> = runs.flatten().filter(|p| p.1.is_finite()).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mean = |points: &[Point]| {
        let (sum, weights) = points.iter().fold((0.0, 0.0), |(s, w), p| (s + p.2 * p.1, w + p.2));
        (points[0].0, sum / weights)
    };
    all.chunk_by(|a, b| a.0 == b.0).map(mean).collect()
}

fn draw(grid: &Grid, cells: &[Cell]) -> Result<()> {
    let (config, out, names) = (&grid.plan.config, &grid.out, &grid.names);
    let tail = config.imbalance.map_or(String::new(), |factor| format!(", imbalance {factor}"));
    let seeds = match grid.plan.seeds.len() {
        1 => "1 seed".to_owned(),
        n => format!("mean of {n} seeds"),
    };
    let title = format!("{}, {}, noise {}{tail}, {seeds}", names.dataset, config.model, config.noise);
    let lines = |points: &dyn Fn(&Cell) -> Vec<Point>| -> Vec<Line> {
        let line = |(look, name): (usize, &String)| Line {
            name: name.clone(),
            look,
            points: mean_points(ended(name, cells).map(points)),
        };
        grid.plan.methods.iter().enumerate().map(line).filter(|l| !l.points.is_empty()).collect()
    };
    let accuracy = Lines {
        title: &title,
        across: "epoch",
        up: "test accuracy (%)",
        whole: true,
        names: &[],
        range: None,
        lines: lines(&|c| c.rows.iter().map(|r| (r.epoch as f64, r.test_accuracy, 1.0)).collect()),
    };
    write(&accuracy, &out.join("accuracy"))?;

    let mut curves = lines(&Cell::weighted_curve);
    for curve in &mut curves {
        if !ended(&curve.name, cells).any(|c| c.curve_is_function) {
            curve.name.push('*');
        }
        // What exceeds 1 is shown relative to its largest value: only a weight's proportions
        // matter.
        let top = curve.points.iter().map(|p| p.1).fold(0.0, f64::max);
        if top > 1.05 {
            curve.points.iter_mut().for_each(|p| p.1 /= top);
            curve.name.push_str(&format!(" (÷{top:.1})"));
        }
    }
    let weights = Lines {
        title: &title,
        across: "loss of a training sample (nats; *: mean weight given in the last epoch)",
        up: "weight at the end of training",
        whole: false,
        names: &[],
        range: Some((0.0, 1.05)),
        lines: curves,
    };
    write(&weights, &out.join("weight_curves"))?;

    let classes = Lines {
        title: &title,
        across: if config.imbalance.is_some() { "class, the largest first" } else { "class" },
        up: "test accuracy of the class (%)",
        whole: true,
        names: &names.classes,
        range: None,
        lines: lines(&|c| {
            c.history().class_accuracies().into_iter().enumerate().map(|(i, a)| (i as f64, a, 1.0)).collect()
        }),
    };
    write(&classes, &out.join("class_accuracy"))?;

    for name in &grid.plan.methods {
        let mut sum: Vec<Vec<f64>> = Vec::new();
        for cell in ended(name, cells) {
            sum.resize(cell.confusion.len(), vec![0.0; cell.confusion.len()]);
            for (total, row) in sum.iter_mut().zip(&cell.confusion) {
                total.iter_mut().zip(row).for_each(|(t, count)| *t += f64::from(*count));
            }
        }
        if !sum.is_empty() {
            let title = format!("{name}: {title}");
            let figure = Confusion { title: &title, names: &names.classes, counts: &sum };
            write(&figure, &out.join(format!("confusion_{name}")))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_over_runs_count_their_samples() {
        let runs = [vec![(0.5, 1.0, 3.0), (1.5, 4.0, 1.0)], vec![(0.5, 0.0, 1.0), (2.5, f64::NAN, 1.0)]];
        assert_eq!(mean_points(runs.into_iter()), [(0.5, 0.75), (1.5, 4.0)]);
    }
}
