use serde::{Deserialize, Serialize};

use super::samples::Finding;

/// One epoch of one method: a row of `metrics.csv`. Accuracies in percent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EpochRow {
    /// From 1.
    pub epoch: usize,
    /// The method's name.
    pub method: String,
    /// The classifier's learning rate.
    pub lr: f64,
    /// Mean loss of the epoch's training batches, with the labels as given.
    pub train_loss: f64,
    /// Accuracy on them.
    pub train_accuracy: f64,
    /// Mean loss of the meta batches at ŵ.
    pub meta_loss: Option<f64>,
    /// Mean loss on the test set.
    pub test_loss: f64,
    /// Accuracy on the test set.
    pub test_accuracy: f64,
    /// Mean weight that the epoch gave to samples.
    pub mean_weight: Option<f64>,
    /// The same of those with their true label; none where nobody knows which these are.
    pub mean_weight_clean: Option<f64>,
    /// Likewise of those with a wrong one.
    pub mean_weight_corrupted: Option<f64>,
    /// Steps a second, evaluation not counted; NaN where nobody knows. Times stand in a file of
    /// their own: all others are the same for every run of one configuration.
    #[serde(skip, default = "unknown")]
    pub steps_per_second: f64,
    /// Time of the epoch, evaluation included.
    #[serde(skip, default = "unknown")]
    pub seconds: f64,
}

fn unknown() -> f64 {
    f64::NAN
}

/// A scheme's weights and the training samples' losses at one moment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WeightPicture {
    /// Epochs done.
    pub epoch: usize,
    /// (loss, weight) for losses 0, 0.05, … 8; of a class-aware scheme, for the large classes.
    pub curve: Vec<(f64, f64)>,
    /// Of a class-aware scheme, the name of each group of classes and its weights at the same
    /// losses.
    #[serde(default)]
    pub groups: Vec<(String, Vec<f64>)>,
    /// Per training sample, its loss. In a checkpoint these are tensors.
    #[serde(skip)]
    pub losses: Vec<f64>,
    /// Per training sample, its weight.
    #[serde(skip)]
    pub weights: Vec<f64>,
}

/// What one method has measured so far.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// One row an epoch.
    pub rows: Vec<EpochRow>,
    /// Start, middle and end of training; empty where the weight is no function of the loss.
    pub pictures: Vec<WeightPicture>,
    /// `[true class][predicted class]`: test images after the last epoch.
    #[serde(default)]
    pub confusion: Vec<Vec<u32>>,
    /// (mean weight that the last epoch gave, number of samples), by bins of a quarter of a nat of
    /// the loss from 0; empty without weights.
    #[serde(default)]
    pub by_loss: Vec<(f64, f64)>,
}

/// Of the time before `mean_weight`: where no label was known to be wrong, that of all samples was
/// called that of the clean ones.
pub(super) fn rename(all: &mut Option<f64>, clean: &mut Option<f64>, corrupted: Option<f64>) {
    if all.is_none() && corrupted.is_none() {
        *all = clean.take();
    }
}

impl History {
    /// [`rename`] in all rows.
    pub(super) fn rename(&mut self) {
        for row in &mut self.rows {
            rename(&mut row.mean_weight, &mut row.mean_weight_clean, row.mean_weight_corrupted);
        }
    }

    /// Accuracy after the last epoch.
    pub fn final_accuracy(&self) -> Option<f64> {
        self.rows.last().map(|r| r.test_accuracy)
    }

    /// The best over all epochs: what the field publishes.
    pub fn best_accuracy(&self) -> Option<f64> {
        self.rows.iter().map(|r| r.test_accuracy).max_by(f64::total_cmp)
    }

    /// Accuracy in percent on the test images of each class after the last epoch; NaN for a class
    /// without any.
    pub fn class_accuracies(&self) -> Vec<f64> {
        let share = |(class, row): (usize, &Vec<u32>)| {
            100.0 * f64::from(row[class]) / f64::from(row.iter().sum::<u32>())
        };
        self.confusion.iter().enumerate().map(share).collect()
    }

    /// Mean of the classes' accuracies, each counting the same.
    pub fn balanced_accuracy(&self) -> Option<f64> {
        let finite: Vec<f64> = self.class_accuracies().into_iter().filter(|a| a.is_finite()).collect();
        (!finite.is_empty()).then(|| finite.iter().sum::<f64>() / finite.len() as f64)
    }

    /// Time of all epochs.
    pub fn seconds(&self) -> f64 {
        self.rows.iter().map(|r| r.seconds).sum()
    }

    /// Steps a second over all epochs, evaluation not counted.
    pub fn steps_per_second(&self) -> Option<f64> {
        let of_one: f64 = self.rows.iter().map(|r| 1.0 / r.steps_per_second).sum();
        let mean = self.rows.len() as f64 / of_one;
        (!self.rows.is_empty() && mean.is_finite()).then_some(mean)
    }
}

/// `summary.json`. Accuracies in percent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// The method's name.
    pub method: String,
    /// The run's seed.
    pub seed: u64,
    /// The method's accuracy after the last epoch.
    pub final_test_accuracy: f64,
    /// Its best over all epochs.
    pub best_test_accuracy: f64,
    /// The uniform baseline's, where there is one.
    pub baseline_final_test_accuracy: Option<f64>,
    /// Likewise.
    pub baseline_best_test_accuracy: Option<f64>,
    /// Mean weight of training samples, at the end.
    pub mean_weight: Option<f64>,
    /// The same of those with their true label; none where nobody knows which these are.
    pub mean_weight_clean: Option<f64>,
    /// Likewise of those with a wrong one; none without noise.
    pub mean_weight_corrupted: Option<f64>,
    /// [loss, weight] for losses 0, 0.25, … 8, at the end; of a class-aware scheme, for the large
    /// classes.
    pub weight_curve: Vec<(f64, f64)>,
    /// Of a class-aware scheme, each group of classes by name, with its weights at the same losses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weight_curves_by_group: Vec<(String, Vec<f64>)>,
    /// Meta steps a second, evaluation not counted; not in the file, as it is about time.
    #[serde(skip)]
    pub meta_steps_per_second: Option<f64>,
    /// Time of all epochs of all methods; likewise.
    #[serde(skip)]
    pub seconds: f64,
    /// Epochs done.
    pub epochs: usize,
    /// Meta steps of an epoch.
    pub steps_per_epoch: u64,
    /// Training and meta samples.
    pub train_samples: usize,
    /// Likewise.
    pub meta_samples: usize,
    /// Share of training samples with a wrong label, in percent; none where nobody knows.
    pub corrupted_percent: Option<f64>,
    /// How well the ranking of suspects finds them, where they are known.
    pub finding: Option<Finding>,
    /// What went wrong, a sentence each: the method's name, what it was, and what to change.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Mean weights by loss, in bins of a quarter of a nat from 0 to 8. What lies above belongs to no
/// bin: all those losses together are no point of a curve.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct LossBins(Vec<(f64, u64)>);

const BINS: usize = 32;
const BINS_PER_NAT: f64 = 4.0;

impl Default for LossBins {
    fn default() -> LossBins {
        LossBins(vec![(0.0, 0); BINS])
    }
}

impl LossBins {
    pub fn add(&mut self, losses: &[f64], weights: &[f64]) {
        for (loss, weight) in losses.iter().zip(weights) {
            // The cast takes what is below 0 to 0.
            if let Some(bin) = self.0.get_mut((loss * BINS_PER_NAT) as usize) {
                *bin = (bin.0 + weight, bin.1 + 1);
            }
        }
    }

    /// Of each bin its mean weight and its number of samples, 0 and 0 for an empty one; nothing at
    /// all where there were no weights.
    pub fn means(&self) -> Vec<(f64, f64)> {
        if self.0.iter().all(|bin| bin.1 == 0) {
            return Vec::new();
        }
        self.0.iter().map(|&(sum, count)| (sum / count.max(1) as f64, count as f64)).collect()
    }

    /// The loss in the middle of a bin.
    pub fn middle(bin: usize) -> f64 {
        (bin as f64 + 0.5) / BINS_PER_NAT
    }
}

/// Mean of the values whose flag is `flag`; of all without one.
pub(super) fn mean_where(values: &[f64], flags: &[bool], flag: Option<bool>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0usize);
    for (value, f) in values.iter().zip(flags) {
        if flag.is_none_or(|flag| *f == flag) {
            sum += value;
            count += 1;
        }
    }
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_of_losses_count_their_samples_and_leave_out_what_lies_above() {
        let mut bins = LossBins::default();
        assert_eq!(bins.means(), []);
        bins.add(&[0.1, 0.2, 7.9, 8.0, 30.0], &[1.0, 0.5, 0.25, 9.0, 9.0]);
        let means = bins.means();
        assert_eq!((means.len(), means[0], means[1], means[31]), (32, (0.75, 2.0), (0.0, 0.0), (0.25, 1.0)));
        assert_eq!((LossBins::middle(0), LossBins::middle(31)), (0.125, 7.875));
    }
}
