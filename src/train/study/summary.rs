use serde::Serialize;

use super::cell::Cell;
use super::engine::Study;
use super::plan::Arm;
use crate::error::Result;
use crate::train::files::{csv_text, write_atomically};
use crate::train::statistics::{Difference, Spread};
use crate::words::counted;

/// The arm that gains are measured against.
const BASELINE: &str = "uniform";

/// What an arm has reached, over all its seeds that came to an end. Accuracies in percent.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ArmSummary {
    /// Its name.
    pub name: String,
    /// Cells that came to an end.
    pub runs: usize,
    /// Cells whose loss did not stay finite.
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
    /// Half of its 95% interval, by Student's t over the seeds; but never less than one test sample
    /// makes in accuracy, which is what seeds have that all gain the same. None of one seed.
    pub gain_half_width: Option<f64>,
    /// The least gain of all seeds.
    pub gain_min: Option<f64>,
    /// Mean weight of samples.
    pub mean_weight: Option<f64>,
    /// The same of those with their true label; none where nobody knows which these are.
    pub mean_weight_clean: Option<f64>,
    /// Likewise of those with a wrong one.
    pub mean_weight_corrupted: Option<f64>,
    /// Milliseconds of a training step; not in the summary's file, as it is about time.
    #[serde(skip)]
    pub ms_per_step: Option<f64>,
}

/// An arm's cells that came to an end.
pub fn ended<'a>(arm: &'a str, cells: &'a [Cell]) -> impl Iterator<Item = &'a Cell> + Clone {
    cells.iter().filter(move |c| c.arm == arm && c.error.is_none())
}

/// Final accuracies less those of another arm, of the seeds that both have.
pub fn differences(arm: &str, other: &str, cells: &[Cell]) -> Vec<f64> {
    let difference = |cell: &Cell| {
        let base = ended(other, cells).find(|base| base.seed == cell.seed)?;
        Some(cell.history.final_accuracy()? - base.history.final_accuracy()?)
    };
    ended(arm, cells).filter_map(difference).collect()
}

/// What one test image makes in accuracy.
pub fn one_image(cells: &[Cell]) -> f64 {
    let count = |cell: &Cell| cell.history.confusion.iter().flatten().sum::<u32>();
    100.0 / f64::from(cells.iter().map(count).max().unwrap_or(0).max(1))
}

/// What went wrong, a sentence each: the arm, the seed, what it was, and what to change.
pub fn warnings(cells: &[Cell]) -> Vec<String> {
    let of = |cell: &Cell| -> Vec<String> {
        let what = cell.error.iter().chain(&cell.warnings);
        what.map(|what| format!("{}, seed {}: {what}", cell.arm, cell.seed)).collect()
    };
    cells.iter().flat_map(of).collect()
}

/// The same, of each arm only the first seed's, and how many more there are: for a page or a
/// terminal.
pub fn first_warnings(cells: &[Cell]) -> Vec<String> {
    let mut first: Vec<(&str, Vec<String>, usize)> = Vec::new();
    for cell in cells {
        let own = warnings(std::slice::from_ref(cell));
        match first.iter_mut().find(|arm| arm.0 == cell.arm) {
            _ if own.is_empty() => {}
            Some(arm) => arm.2 += 1,
            None => first.push((&cell.arm, own, 0)),
        }
    }
    let more = |count: usize| match count {
        0 => String::new(),
        count => format!(" ({} more with warnings)", counted(count, "seed")),
    };
    first.into_iter().flat_map(|arm| arm.1.into_iter().map(move |own| own + &more(arm.2))).collect()
}

impl ArmSummary {
    /// Of the arm of this name.
    pub fn new(arm: &str, cells: &[Cell]) -> ArmSummary {
        let over = |value: fn(&Cell) -> Option<f64>| {
            Spread::of(&ended(arm, cells).filter_map(value).collect::<Vec<_>>())
        };
        let mean = |value| over(value).map(|spread| spread.mean);
        let both = |value| (mean(value), over(value).and_then(|spread| spread.std));
        let (final_mean, final_std) = both(|c| c.history.final_accuracy());
        let (best_mean, best_std) = both(|c| c.history.best_accuracy());
        let (balanced_mean, balanced_std) = both(|c| c.history.balanced_accuracy());
        let gains = if arm == BASELINE { Vec::new() } else { differences(arm, BASELINE, cells) };
        let gain = Difference::of(&gains, one_image(cells));
        ArmSummary {
            name: arm.to_owned(),
            runs: ended(arm, cells).count(),
            diverged: cells.iter().filter(|c| c.arm == arm && c.error.is_some()).count(),
            final_mean,
            final_std,
            best_mean,
            best_std,
            balanced_mean,
            balanced_std,
            gain_mean: gain.map(|gain| gain.mean),
            gain_half_width: gain.and_then(|gain| gain.half_width),
            gain_min: gains.iter().copied().min_by(f64::total_cmp),
            mean_weight: mean(|c| c.mean_weight),
            mean_weight_clean: mean(|c| c.mean_weight_clean),
            mean_weight_corrupted: mean(|c| c.mean_weight_corrupted),
            ms_per_step: mean(Cell::ms_per_step),
        }
    }
}

impl<A: Arm> Study<A> {
    /// Writes `results.csv` and `times.csv`, a row a cell, and `epochs.csv`, a row an epoch.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write_tables(&self, cells: &[Cell]) -> Result<()> {
        let results = "seed,meta_images,final_test_accuracy,best_test_accuracy,balanced_test_accuracy,\
            mean_weight,mean_weight_clean,mean_weight_corrupted,error";
        let probed = cells.iter().any(|cell| !cell.cosines.is_empty());
        let row = |c: &Cell| {
            let (last, best) = (c.history.final_accuracy(), c.history.best_accuracy());
            let weights = (c.mean_weight, c.mean_weight_clean, c.mean_weight_corrupted);
            let measured = (c.meta_images, last, best, c.history.balanced_accuracy(), weights);
            (
                c.arm.clone(),
                c.seed,
                measured,
                c.error.clone(),
                probed.then(|| c.mean_cosine()).into_iter().collect::<Vec<_>>(),
            )
        };
        let (arm, cosine) = (A::ARM, if probed { ",mean_cosine" } else { "" });
        self.write_table("results.csv", &format!("{arm},{results}{cosine}"), cells.iter().map(row))?;
        let times = cells.iter().map(|c| (&c.arm, c.seed, c.ms_per_step(), c.history.seconds()));
        self.write_table("times.csv", &format!("{arm},seed,ms_per_step,seconds"), times)?;
        let epochs = "epoch,lr,train_loss,train_accuracy,meta_loss,test_loss,test_accuracy,\
            mean_weight,mean_weight_clean,mean_weight_corrupted";
        let rows = cells.iter().flat_map(|c| c.history.rows.iter().map(move |r| (c, r))).map(|(c, r)| {
            let train = (r.epoch, r.lr, r.train_loss, r.train_accuracy, r.meta_loss);
            let weights = (r.mean_weight, r.mean_weight_clean, r.mean_weight_corrupted);
            (c.seed, &c.arm, train, r.test_loss, r.test_accuracy, weights)
        });
        self.write_table("epochs.csv", &format!("seed,{arm},{epochs}"), rows)
    }

    /// Writes `differences.csv`: of every two arms, the paired difference of their final accuracies
    /// with half of its 95% interval (see [`Difference`]), and the number of seeds that both have.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_differences(&self, cells: &[Cell]) -> Result<()> {
        let arms: Vec<String> = self.plan.arms.iter().map(A::to_string).collect();
        let pairs = arms.iter().flat_map(|arm| arms.iter().map(move |other| (arm, other)));
        let pairs = pairs.filter(|(arm, other)| arm != other);
        let rows = pairs.filter_map(|(arm, other)| {
            let paired = differences(arm, other, cells);
            let Difference { mean, half_width } = Difference::of(&paired, one_image(cells))?;
            Some((arm, other, mean, half_width, paired.len()))
        });
        let heading = format!("{},less,difference,half_width,seeds", A::ARM);
        self.write_table("differences.csv", &heading, rows)
    }

    /// Writes a table; its columns' names are separated by commas.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_table(
        &self,
        file: &str,
        heading: &str,
        rows: impl IntoIterator<Item: Serialize>,
    ) -> Result<()> {
        let heading: Vec<&str> = heading.split(',').collect();
        write_atomically(&self.out.join(file), &csv_text(&heading, rows)?)
    }
}
