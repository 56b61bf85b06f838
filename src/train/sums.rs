use serde::{Deserialize, Serialize};

use super::history::LossBins;

/// Where a learner is: all that a step changes and the states do not hold.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Underway {
    /// Passes over the training set that are over, of all stages.
    pub passes: usize,
    /// Of the next one.
    pub sums: Sums,
}

/// What is added up over a pass's steps.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Sums {
    /// Steps that are done.
    pub steps: u64,
    pub loss: f64,
    pub hits: f64,
    pub meta_loss: f64,
    /// Steps that had one.
    pub meta_steps: u64,
    /// Of the samples with their true label, and of those with a wrong one: the sum of their
    /// weights, and how many they were.
    weights: [(f64, u64); 2],
    pub by_loss: LossBins,
    /// Spent in the steps.
    #[serde(skip)]
    pub seconds: f64,
}

impl Sums {
    /// Adds a batch's weights; `wrong`, whose labels are so.
    pub fn weigh(&mut self, losses: &[f64], weights: &[f64], wrong: impl Iterator<Item = bool>) {
        for (weight, wrong) in weights.iter().zip(wrong) {
            let (sum, count) = &mut self.weights[usize::from(wrong)];
            (*sum, *count) = (*sum + weight, *count + 1);
        }
        self.by_loss.add(losses, weights);
    }

    /// The mean weight of the samples whose label is wrong, or is not; or of all.
    pub fn mean_weight(&self, wrong: Option<bool>) -> Option<f64> {
        let [right, others] = self.weights;
        let all = (right.0 + others.0, right.1 + others.1);
        let (sum, count) = wrong.map_or(all, |wrong| self.weights[usize::from(wrong)]);
        (count > 0).then(|| sum / count as f64)
    }
}
