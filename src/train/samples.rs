//! What training tells about each of its samples, and which labels to distrust.

use serde::{Deserialize, Serialize};

use super::prepared::Prepared;
use crate::meta::schemes::{Memory, Predictions, argmax, softmax};

/// A training sample after a run: a row of `samples.csv`. Labels are class names.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SampleReport {
    /// Its file, or its place among all samples.
    pub sample: String,
    /// The label that training saw.
    pub given_label: String,
    /// The class that the trained network takes it for.
    pub predicted_label: String,
    /// The network's probability of the given label.
    pub probability: f64,
    /// Mean loss in the steps of the last third of the epochs.
    pub loss: Option<f64>,
    /// Mean weight there; none where samples have no weights.
    pub weight: Option<f64>,
    /// How much to distrust the label; the largest are the most suspicious.
    pub score: f64,
    /// The right label, where it is known.
    pub true_label: Option<String>,
}

/// How well the ranking by score finds the wrong labels, where they are known.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// Labels that are wrong.
    pub wrong: usize,
    /// Area under the ROC curve: the probability that a wrong label has a larger score than a right
    /// one.
    pub auc: f64,
    /// Of the first `wrong` of the ranking, the share whose labels are wrong.
    pub precision: f64,
    /// `[true class][given class]`, shares.
    pub noise_matrix: Vec<Vec<f64>>,
    /// The same with the classes that the network predicts in the place of the true ones.
    pub estimated_noise_matrix: Vec<Vec<f64>>,
}

/// Sums over the steps in which a sample was seen, by its position in the training set: names in a
/// method's [`Memory`], so that a resumed run has them.
const ALL_LOSS: &str = "samples.all.loss";
const ALL_SEEN: &str = "samples.all.seen";
const LOSS: &str = "samples.loss";
const WEIGHT: &str = "samples.weight";
const SEEN: &str = "samples.seen";

/// Whether an epoch (from 0) is in the last third, which samples are judged by.
pub(super) fn counts(epoch: usize, epochs: usize) -> bool {
    3 * (epoch + 1) > 2 * epochs
}

/// Adds a step's losses, and weights if there are any; `last`: of the last third.
pub(super) fn add(
    memory: &mut Memory,
    n: usize,
    positions: &[u32],
    losses: &[f64],
    weights: Option<&[f64]>,
    last: bool,
) {
    let mut sum = |name: &str, values: &mut dyn Iterator<Item = f64>| {
        let all = memory.entry(name);
        all.resize(n, 0.0);
        positions.iter().zip(values).for_each(|(position, value)| all[*position as usize] += value);
    };
    sum(ALL_LOSS, &mut losses.iter().copied());
    sum(ALL_SEEN, &mut std::iter::repeat(1.0));
    if !last {
        return;
    }
    sum(LOSS, &mut losses.iter().copied());
    sum(SEEN, &mut std::iter::repeat(1.0));
    if let Some(weights) = weights {
        sum(WEIGHT, &mut weights.iter().copied());
    }
}

/// Forgets what the last third of the epochs has told.
pub(super) fn forget(memory: &mut Memory) {
    for name in [LOSS, WEIGHT, SEEN] {
        if !memory.get(name).is_empty() {
            memory.set(name, Vec::new());
        }
    }
}

/// A row for each training sample, in their order.
pub(super) fn report(data: &Prepared, memory: &Memory, seen: &Predictions) -> Vec<SampleReport> {
    let (train, names) = (&data.split.train, &data.dataset.class_names);
    let name = |label: i32| names[label as usize].clone();
    let mean = |of: &str, seen: &str, i: usize| {
        let (sums, counts) = (memory.get(of), memory.get(seen));
        let count = counts.get(i).copied().filter(|count| *count > 0.0)?;
        Some(sums.get(i)? / count)
    };
    let rows = seen.logits.chunks(names.len()).enumerate();
    let row = |(i, logits): (usize, &[f64])| {
        let (given, top) = (train.labels[i], argmax(logits));
        let probability = softmax(logits)[given as usize];
        let all = mean(ALL_LOSS, ALL_SEEN, i);
        SampleReport {
            sample: data.dataset.sample_name(train.indices[i]),
            given_label: name(given),
            predicted_label: name(top as i32),
            probability,
            loss: mean(LOSS, SEEN, i),
            weight: mean(WEIGHT, SEEN, i),
            // A sample that no step has seen is judged by the network alone.
            score: all.unwrap_or(-probability.max(f64::MIN_POSITIVE).ln()),
            true_label: train.known.then(|| name(train.original_labels[i])),
        }
    };
    rows.map(row).collect()
}

/// The places of the rows by score, the most suspicious first; of equal ones the first comes first.
pub fn ranking(rows: &[SampleReport]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|a, b| rows[*b].score.total_cmp(&rows[*a].score));
    order
}

/// What the ranking finds; `None` where it is not known which labels are wrong, or none or all are.
pub(super) fn finding(data: &Prepared, rows: &[SampleReport], seen: &Predictions) -> Option<Finding> {
    let train = &data.split.train;
    let (order, classes) = (ranking(rows), data.dataset.classes());
    let wrong = train.corrupted.iter().filter(|wrong| **wrong).count();
    let auc = auc(&order, rows, &train.corrupted)?;
    let first = order.iter().take(wrong).filter(|place| train.corrupted[**place]).count();
    let predicted = seen.logits.chunks(classes).map(|logits| argmax(logits) as i32);
    train.known.then(|| Finding {
        wrong,
        auc,
        precision: first as f64 / wrong as f64,
        noise_matrix: matrix(train.original_labels.iter().copied(), &train.labels, classes),
        estimated_noise_matrix: matrix(predicted, &train.labels, classes),
    })
}

/// The area under the ROC curve by the ranks of the wrong ones (Mann–Whitney); of equal scores each
/// has their mean rank.
fn auc(order: &[usize], rows: &[SampleReport], wrong: &[bool]) -> Option<f64> {
    let n = order.len();
    let positives = wrong.iter().filter(|wrong| **wrong).count();
    let mut sum = 0.0;
    let mut at = 0;
    for tied in order.chunk_by(|a, b| rows[*a].score == rows[*b].score) {
        // Ranks from the least, 1, to the largest, n.
        let mean = n as f64 - at as f64 - (tied.len() as f64 - 1.0) / 2.0;
        sum += mean * tied.iter().filter(|place| wrong[**place]).count() as f64;
        at += tied.len();
    }
    let (p, q) = (positives as f64, (n - positives) as f64);
    (p > 0.0 && q > 0.0).then(|| (sum - p * (p + 1.0) / 2.0) / (p * q))
}

/// Of each class in `from`, the shares of the labels given.
fn matrix(from: impl Iterator<Item = i32>, given: &[i32], classes: usize) -> Vec<Vec<f64>> {
    let mut counts = vec![vec![0.0; classes]; classes];
    from.zip(given).for_each(|(from, given)| counts[from as usize][*given as usize] += 1.0);
    for row in &mut counts {
        let all: f64 = row.iter().sum();
        row.iter_mut().for_each(|count| *count /= all.max(1.0));
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auc_counts_pairs_and_halves_ties() {
        let scores = [0.9, 0.1, 0.5, 0.5, 0.7, 0.2];
        let wrong = [true, false, true, false, false, true];
        let row = |score: &f64| SampleReport {
            sample: String::new(),
            given_label: String::new(),
            predicted_label: String::new(),
            probability: 0.0,
            loss: None,
            weight: None,
            score: *score,
            true_label: None,
        };
        let rows: Vec<SampleReport> = scores.iter().map(row).collect();
        let mut pairs = 0.0;
        for i in (0..6).filter(|i| wrong[*i]) {
            for j in (0..6).filter(|j| !wrong[*j]) {
                pairs += if scores[i] > scores[j] { 1.0 } else { 0.5 * f64::from(scores[i] == scores[j]) };
            }
        }
        assert_eq!(auc(&ranking(&rows), &rows, &wrong), Some(pairs / 9.0));
        assert_eq!(auc(&ranking(&rows), &rows, &[false; 6]), None);
    }

    #[test]
    fn the_last_third_is_there_however_short_the_run() {
        let of = |epochs: usize| (0..epochs).filter(|epoch| counts(*epoch, epochs)).collect::<Vec<_>>();
        assert_eq!([of(1), of(2), of(3), of(6)], [vec![0], vec![1], vec![2], vec![4, 5]]);
    }
}
