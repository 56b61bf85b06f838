use serde::{Deserialize, Serialize};

use super::config::Method;

/// One epoch of one method: a row of `metrics.csv`. Accuracies in percent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EpochRow {
    /// From 1.
    pub epoch: usize,
    /// `mwnet` or `uniform`.
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
    /// Mean weight that the epoch gave to samples with their true label.
    pub mean_weight_clean: Option<f64>,
    /// Mean weight that it gave to samples with a wrong one.
    pub mean_weight_corrupted: Option<f64>,
    /// Steps a second, evaluation not counted.
    pub steps_per_second: f64,
    /// Time of the epoch, evaluation included.
    pub seconds: f64,
}

/// The weight net and the training samples' losses at one moment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WeightPicture {
    /// Epochs done.
    pub epoch: usize,
    /// (loss, V(loss)) for losses 0, 0.05, … 8.
    pub curve: Vec<(f64, f64)>,
    /// Per training sample, its loss.
    pub losses: Vec<f64>,
    /// Per training sample, its weight.
    pub weights: Vec<f64>,
}

/// What one method has measured so far.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// One row an epoch.
    pub rows: Vec<EpochRow>,
    /// Start, middle and end of training; empty for the baseline.
    pub pictures: Vec<WeightPicture>,
}

impl History {
    /// Accuracy after the last epoch.
    pub fn final_accuracy(&self) -> Option<f64> {
        self.rows.last().map(|r| r.test_accuracy)
    }

    /// The best over all epochs: what the field publishes.
    pub fn best_accuracy(&self) -> Option<f64> {
        self.rows.iter().map(|r| r.test_accuracy).max_by(f64::total_cmp)
    }

    /// Time of all epochs.
    pub fn seconds(&self) -> f64 {
        self.rows.iter().map(|r| r.seconds).sum()
    }
}

/// `summary.json`. Accuracies in percent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// `mwnet` or `uniform`.
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
    /// Mean V over training samples with their true label, at the end.
    pub mean_weight_clean: Option<f64>,
    /// Mean V over training samples with a wrong label, at the end; none without noise.
    pub mean_weight_corrupted: Option<f64>,
    /// [loss, V(loss)] for losses 0, 0.25, … 8, at the end.
    pub weight_curve: Vec<(f64, f64)>,
    /// Meta steps a second, evaluation not counted.
    pub meta_steps_per_second: Option<f64>,
    /// Time of all epochs of all methods.
    pub seconds: f64,
    /// Epochs done.
    pub epochs: usize,
    /// Meta steps of an epoch.
    pub steps_per_epoch: u64,
    /// Training and meta samples.
    pub train_samples: usize,
    /// Likewise.
    pub meta_samples: usize,
    /// Share of training samples with a wrong label, in percent.
    pub corrupted_percent: f64,
}

/// Mean of the values whose flag is `flag`.
pub(super) fn mean_where(values: &[f64], flags: &[bool], flag: bool) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0usize);
    for (value, f) in values.iter().zip(flags) {
        if *f == flag {
            sum += value;
            count += 1;
        }
    }
    (count > 0).then(|| sum / count as f64)
}

impl Method {
    /// Whether it learns weights.
    pub fn is_meta(self) -> bool {
        self == Method::MwNet
    }
}
