//! From logits to counts, and from counts to what is reported.

use serde::Serialize;

use crate::meta::schemes::{Predictions, argmax};

/// Counts `[true class][predicted class]` of scores `[n, classes]`.
pub(super) fn confusion(classes: usize, scores: &[f64], labels: &[i32]) -> Vec<Vec<u32>> {
    let mut counts = vec![vec![0; classes]; classes];
    for (scores, label) in scores.chunks(classes).zip(labels) {
        counts[*label as usize][argmax(scores)] += 1;
    }
    counts
}

/// Accuracy in percent, of counts `[true class][predicted class]`.
pub fn accuracy(confusion: &[Vec<u32>]) -> f64 {
    let hits: u32 = confusion.iter().enumerate().map(|(class, row)| row[class]).sum();
    let all: u32 = confusion.iter().flatten().sum();
    100.0 * f64::from(hits) / f64::from(all.max(1))
}

/// How well a network tells one class, in percent.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ClassScore {
    /// The class' name.
    pub name: String,
    /// Its samples.
    pub samples: u32,
    /// Of its samples, those that are taken for it (recall); none of a class without samples.
    pub accuracy: Option<f64>,
    /// Of those taken for it, the ones that are of it; none if there are none.
    pub precision: Option<f64>,
}

/// How well a network does on a set of samples.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Scores {
    /// Samples.
    pub samples: usize,
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// In percent.
    pub accuracy: f64,
    /// The mean of the accuracies of the classes that have samples, in percent.
    pub balanced_accuracy: f64,
    /// By label.
    pub classes: Vec<ClassScore>,
    /// `[true class][predicted class]`, counts.
    pub confusion: Vec<Vec<u32>>,
}

impl Scores {
    /// Of predictions on samples with these labels.
    pub fn of(seen: &Predictions, labels: &[i32], names: &[String]) -> Scores {
        let confusion = confusion(names.len(), &seen.logits, labels);
        let percent = |part: u32, all: u32| (all > 0).then(|| 100.0 * f64::from(part) / f64::from(all));
        let class = |(class, name): (usize, &String)| {
            let (hits, samples) = (confusion[class][class], confusion[class].iter().sum());
            let taken = confusion.iter().map(|row| row[class]).sum();
            let (accuracy, precision) = (percent(hits, samples), percent(hits, taken));
            ClassScore { name: name.clone(), samples, accuracy, precision }
        };
        let classes: Vec<ClassScore> = names.iter().enumerate().map(class).collect();
        let each: Vec<f64> = classes.iter().filter_map(|class| class.accuracy).collect();
        Scores {
            samples: labels.len(),
            loss: seen.losses.iter().sum::<f64>() / seen.losses.len().max(1) as f64,
            accuracy: accuracy(&confusion),
            balanced_accuracy: each.iter().sum::<f64>() / each.len().max(1) as f64,
            classes,
            confusion,
        }
    }
}
