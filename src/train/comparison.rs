//! `metatape compare`: methods as arms of a study, its summary and its pictures.

use std::path::Path;

use serde::Serialize;

use super::config::Config;
use super::method::{Method, Settings, check_settings};
use super::observer::Observer;
use super::paper::PaperCell;
use super::pictures::{by_class_name, confusion, title};
use super::plots::{Axis, Chart, Layer, Pen, files as plots, peak, write};
use super::prepared::Prepared;
use super::report::{Page, Table};
use super::run::{CONFIG, Run};
use super::study::{Arm, ArmSummary, Cell, Plan, Study, ended, first_warnings, warnings};
use crate::error::Result;
use crate::program::Session;
use crate::words::counted;

impl Arm for Method {
    const PLAN: &'static str = "compare.toml";
    const STUDY: &'static str = "comparison";
    const ARM: &'static str = "method";

    const FIRST: &'static [&'static str] = &["tuning", "tuning.csv"];

    fn files(plan: &Plan<Method>) -> Vec<String> {
        plots(stems(plan)).into_iter().chain(["differences.csv".to_owned()]).collect()
    }

    fn check(plan: &Plan<Method>) -> Result<()> {
        check_settings(&plan.config.set, &plan.arms)?;
        paper(plan).map(drop)
    }

    fn prepare(config: &Config) -> Result<Prepared> {
        Prepared::new(config.clone())
    }

    fn networks(self, set: &Settings) -> usize {
        self.stages(set)
    }

    fn train(
        self,
        config: Config,
        folder: &Path,
        session: &dyn Fn() -> Result<Session>,
        observer: &mut dyn Observer,
    ) -> Result<Cell> {
        let mut run = if folder.join(CONFIG).exists() {
            Run::resume_as(Run::stored_config(folder)?.placed_as(&config), folder, session)?
        } else {
            // A cell records what is its method's own.
            Run::start(config.of(self), folder, session)?
        };
        let outcome = run.finish(observer);
        Cell::new(&run.data, run.histories()[0].clone(), outcome)
    }
}

/// The names of a comparison's plots.
fn stems(plan: &Plan<Method>) -> Vec<String> {
    let common = ["accuracy", "weight_curves", "class_accuracy"].map(str::to_owned);
    let matrices = plan.arms.iter().map(|method| format!("confusion_{method}"));
    common.into_iter().chain(matrices).collect()
}

fn paper(plan: &Plan<Method>) -> Result<Option<PaperCell>> {
    plan.preset.as_deref().map(PaperCell::named).transpose()
}

/// A method in `summary.json`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct MethodSummary {
    /// What it has reached.
    #[serde(flatten)]
    pub arm: ArmSummary,
    /// Networks trained one after the other, each over the whole schedule.
    pub networks: usize,
    /// The accuracy that the paper gives (best of all evaluations, mean of 5 seeds).
    pub paper: Option<f64>,
}

/// A column of a table: what it is called, and what an arm has there.
pub type Column = (&'static str, fn(&ArmSummary) -> Option<f64>);

/// `summary.json`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Comparison {
    /// In the order of the plan.
    pub methods: Vec<MethodSummary>,
    /// Seeds that were asked for.
    pub seeds: Vec<u64>,
    /// The paper's cell, by name.
    pub preset: Option<String>,
    /// The fields in which the cells are not of that cell's setting.
    pub departures: Vec<String>,
    /// What went wrong in which cell, a sentence each.
    pub warnings: Vec<String>,
    /// Everything that decides the cells, but for method and seed.
    pub config: Config,
}

impl Comparison {
    /// Summarises the cells of a study, and writes its tables, its summary and its pictures.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn write(study: &Study<Method>, cells: &[Cell]) -> Result<Comparison> {
        let plan = &study.plan;
        let paper = paper(plan)?;
        let figures = paper.map(|p| p.figures()).unwrap_or_default();
        let method = |method: &Method| MethodSummary {
            arm: ArmSummary::new(&method.to_string(), cells),
            networks: method.networks(&plan.config.set),
            paper: figures.iter().find(|f| f.0 == *method).map(|f| f.1),
        };
        let comparison = Comparison {
            methods: plan.arms.iter().map(method).collect(),
            seeds: plan.seeds.clone(),
            preset: plan.preset.clone(),
            departures: paper.map(|p| p.departures(&plan.config)).unwrap_or_default(),
            warnings: warnings(cells),
            config: plan.config.clone(),
        };
        study.write_summary(&comparison)?;
        study.write_tables(cells)?;
        study.write_differences(cells)?;
        draw(study, cells)?;
        comparison.report(study, cells)?;
        Ok(comparison)
    }

    /// The mean weights in a table; where nobody knows which labels are wrong, that of all samples.
    pub fn weights(&self) -> &'static [Column] {
        match self.methods.iter().any(|m| m.arm.mean_weight_clean.is_some()) {
            true => &[("weight clean", |a| a.mean_weight_clean), ("corrupted", |a| a.mean_weight_corrupted)],
            false => &[("weight", |arm| arm.mean_weight)],
        }
    }

    /// The page of the study.
    fn report(&self, study: &Study<Method>, cells: &[Cell]) -> Result<()> {
        let (config, methods) = (&self.config, self.methods.iter());
        let title = match cells.first() {
            Some(cell) => title(&cell.dataset, config, counted(self.seeds.len(), "seed")),
            None => String::new(),
        };
        let account = cells.first().map_or(Vec::new(), |cell| cell.account.clone());
        let mut page = Page::new(format!("Methods compared: {title}"), account, config);
        page.warnings = first_warnings(cells);
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        let spread = |mean: Option<f64>, std: Option<f64>| match std {
            Some(std) => format!("{} ± {std:.2}", number(mean)),
            None => number(mean),
        };
        let weights = self.weights();
        let row = |m: &MethodSummary| {
            let arm = &m.arm;
            let mut cells = vec![
                arm.name.clone(),
                spread(arm.final_mean, arm.final_std),
                spread(arm.best_mean, arm.best_std),
                spread(arm.balanced_mean, arm.balanced_std),
                spread(arm.gain_mean, arm.gain_half_width),
                number(arm.gain_min),
            ];
            cells.extend(weights.iter().map(|column| column.1(arm)).chain([m.paper]).map(number));
            cells
        };
        let heading = "method,final %,best %,mean over classes %,gain over uniform (95% interval),least gain";
        let heading = heading.split(',').chain(weights.iter().map(|column| column.0)).chain(["paper %"]);
        let mut notes = Vec::new();
        if self.seeds.len() > 1 {
            notes.push("The interval of a gain is ± at least one test sample.".to_owned());
        }
        for MethodSummary { arm, .. } in methods.clone().filter(|m| m.arm.diverged > 0) {
            let (name, diverged) = (&arm.name, arm.diverged);
            notes.push(format!("{name}: without the runs whose loss did not stay finite ({diverged})."));
        }
        if let (Some(preset), [_, ..]) = (&self.preset, &self.departures[..]) {
            notes.push(format!("Not the setting of {preset} here: {}.", self.departures.join(", ")));
        }
        page.tables.push(Table {
            title: "Test accuracy".into(),
            heading: heading.map(str::to_owned).collect(),
            rows: methods.clone().map(row).collect(),
            notes,
        });
        page.figures(&study.out, stems(&study.plan))?;
        page.write(&study.out)
    }
}

/// Where a cell has a value: (x, y, weight).
type Point = (f64, f64, f64);

/// Per place, the weighted mean over cells of y at the same x, in the order of x.
fn mean_points(cells: impl Iterator<Item = Vec<Point>>) -> Vec<(f64, f64)> {
    let mut all: Vec<Point> = cells.flatten().filter(|p| p.1.is_finite()).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mean = |points: &[Point]| {
        let (sum, weights) = points.iter().fold((0.0, 0.0), |(s, w), p| (s + p.2 * p.1, w + p.2));
        (points[0].0, sum / weights)
    };
    all.chunk_by(|a, b| a.0 == b.0).map(mean).collect()
}

fn draw(study: &Study<Method>, cells: &[Cell]) -> Result<()> {
    let Some(Cell { dataset, classes, .. }) = cells.first() else { return Ok(()) };
    let Plan { arms, seeds, config, .. } = &study.plan;
    let seeds = match seeds.len() {
        1 => "1 seed".to_owned(),
        n => format!("mean of {}", counted(n, "seed")),
    };
    let title = title(dataset, config, seeds);
    let chart = |x, y, layers| Chart { title: title.clone(), x, y, layers, right: None };
    // A method looks the same in all pictures.
    let lines = |points: &dyn Fn(&Cell) -> Vec<Point>| -> Vec<Layer> {
        let line = |(look, method): (usize, &Method)| {
            let name = method.to_string();
            let points = mean_points(ended(&name, cells).map(points));
            (!points.is_empty()).then(|| Layer::line(name, Pen::number(look), &points))
        };
        arms.iter().enumerate().filter_map(line).collect()
    };

    let by_epoch = |c: &Cell| c.history.rows.iter().map(|r| (r.epoch as f64, r.test_accuracy, 1.0)).collect();
    let accuracy = Axis::new("test accuracy (%)").at_least(2.0);
    let figure = chart(Axis::new("epoch").whole(), accuracy, lines(&by_epoch));
    write(&figure, &study.out.join("accuracy"))?;

    let mut curves = lines(&Cell::curve);
    for curve in &mut curves {
        let top = peak([&*curve]);
        let Layer::Line { name, points, .. } = curve else { continue };
        if !ended(&name.clone(), cells).any(Cell::curve_is_function) {
            name.push('*');
        }
        // What exceeds 1 is shown relative to its largest value: only a weight's proportions
        // matter.
        if top > 1.05 {
            points.iter_mut().for_each(|p| p.1 /= top);
            name.push_str(&format!(" (÷{top:.1})"));
        }
    }
    let x = Axis::new("loss of a training sample (nats; *: mean weight given in the last epoch)");
    let y = Axis::new("weight at the end of training").over(0.0, 1.05);
    write(&chart(x, y, curves), &study.out.join("weight_curves"))?;

    let by_class = |c: &Cell| {
        let classes = c.history.class_accuracies().into_iter().enumerate();
        classes.map(|(class, accuracy)| (class as f64, accuracy, 1.0)).collect()
    };
    let y = Axis::new("test accuracy of the class (%)").at_least(2.0);
    let x = by_class_name(config, classes, "class", &|class| classes[class].clone());
    write(&chart(x, y, lines(&by_class)), &study.out.join("class_accuracy"))?;

    for method in arms.iter().map(Method::to_string) {
        let mut counts = ended(&method, cells).map(|cell| &cell.history.confusion).peekable();
        if counts.peek().is_none() {
            continue;
        }
        let (x, y, squares) = confusion(config, classes, counts);
        let figure = Chart { title: format!("{method}: {title}"), ..chart(x, y, vec![squares]) };
        write(&figure, &study.out.join(format!("confusion_{method}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_over_cells_count_their_samples() {
        let cells = [vec![(0.5, 1.0, 3.0), (1.5, 4.0, 1.0)], vec![(0.5, 0.0, 1.0), (2.5, f64::NAN, 1.0)]];
        assert_eq!(mean_points(cells.into_iter()), [(0.5, 0.75), (1.5, 4.0)]);
    }
}
