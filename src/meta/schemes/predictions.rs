//! A trained network, looked at.

use crate::error::Result;

/// A set of images with labels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Set {
    /// The training set, with its labels as given.
    Train,
    /// The meta set.
    Meta,
    /// The test set.
    Test,
}

/// What a network makes of a set, image by image.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Predictions {
    /// Cross-entropy in nats.
    pub losses: Vec<f64>,
    /// 1 where the largest logit is the label's, else 0.
    pub hits: Vec<f64>,
    /// `[images, classes]`, row-major.
    pub logits: Vec<f64>,
}

/// A network that has been trained.
pub trait Trained {
    /// Its classes.
    fn classes(&self) -> usize;

    /// The set's labels.
    fn labels(&self, set: Set) -> &[i32];

    /// Its predictions, with running statistics.
    ///
    /// # Errors
    /// The machine's.
    fn see(&mut self, set: Set) -> Result<Predictions>;
}

/// The place of the largest number, the first of equal ones.
pub fn argmax(values: &[f64]) -> usize {
    values.iter().enumerate().fold(0, |best, (i, v)| if *v > values[best] { i } else { best })
}

/// Probabilities of one image's logits.
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|z| (z - top).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|p| p / sum).collect()
}
