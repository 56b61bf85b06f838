use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::train::history::{History, LossBins};
use crate::train::prepared::Prepared;
use crate::train::warnings::warnings;

/// A cosine between two hypergradients.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Probe {
    /// Steps that were done.
    pub step: u64,
    /// Epoch that it fell in, from 1.
    pub epoch: usize,
    /// −1 … 1; none where one of the two is 0.
    pub cosine: Option<f64>,
}

/// What is kept of one arm with one seed: `cell.json`. Accuracies in percent.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// The arm's name.
    pub arm: String,
    /// The seed.
    pub seed: u64,
    /// Why training could not be brought to its end; then the other fields hold what there was
    /// until then.
    pub error: Option<String>,
    /// The data set, and its classes by label: a finished study is shown without its data.
    pub dataset: String,
    /// Likewise.
    pub classes: Vec<String>,
    /// What it was trained on, for people, a line each.
    pub account: Vec<String>,
    /// Images that meta batches were drawn from.
    pub meta_images: usize,
    /// Mean weight of training samples: that of the last epoch, or at its end where the arm says
    /// so.
    pub mean_weight: Option<f64>,
    /// The same of those with their true label; none where nobody knows which these are.
    pub mean_weight_clean: Option<f64>,
    /// Likewise, of those with a wrong one.
    pub mean_weight_corrupted: Option<f64>,
    /// What was measured; of the pictures only the last curve.
    pub history: History,
    /// Between the arm's hypergradient and the exact one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cosines: Vec<Probe>,
    /// Between the exact hypergradients on the arm's own and on another meta batch of the same set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_batch: Vec<Probe>,
    /// What went wrong in a training that came to its end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Cell {
    /// Of a training with this history. A loss that did not stay finite is a result, too.
    ///
    /// # Errors
    /// The training's, but for that.
    pub fn new<T>(data: &Prepared, mut history: History, outcome: Result<T>) -> Result<Cell> {
        let error = match outcome {
            Ok(_) => None,
            Err(Error::Numeric(sentence)) => Some(sentence),
            Err(error) => return Err(error),
        };
        // The pictures of all samples are of this training alone, and large.
        history.pictures = history.pictures.pop().into_iter().collect();
        history.pictures.iter_mut().for_each(|p| (p.losses, p.weights) = (Vec::new(), Vec::new()));
        let last = history.rows.last();
        let warnings = match &error {
            None => warnings(data.config.method, &data.config, &history),
            Some(_) => Vec::new(),
        };
        Ok(Cell {
            seed: data.config.seed,
            error,
            warnings,
            dataset: data.dataset.name.clone(),
            classes: data.dataset.class_names.clone(),
            account: data.account(),
            meta_images: data.split.meta.indices.len(),
            mean_weight: last.and_then(|row| row.mean_weight),
            mean_weight_clean: last.and_then(|row| row.mean_weight_clean),
            mean_weight_corrupted: last.and_then(|row| row.mean_weight_corrupted),
            history,
            ..Cell::default()
        })
    }

    /// Whether [`Cell::curve`] is the scheme's function of the loss.
    pub fn curve_is_function(&self) -> bool {
        self.history.pictures.iter().any(|p| p.epoch > 0 && p.groups.is_empty())
    }

    /// (loss, weight, samples) at the end: the scheme's function of the loss, where it is one, with
    /// 1 for the samples; otherwise the mean weight that so many samples of about that loss were
    /// given in the last epoch; empty where samples have no weights.
    pub fn curve(&self) -> Vec<(f64, f64, f64)> {
        if self.curve_is_function() {
            let points = self.history.pictures.iter().flat_map(|p| &p.curve);
            return points.map(|&(loss, weight)| (loss, weight, 1.0)).collect();
        }
        let bins = self.history.by_loss.iter().enumerate().filter(|(_, bin)| bin.1 > 0.0);
        bins.map(|(i, &(mean, count))| (LossBins::middle(i), mean, count)).collect()
    }

    /// Milliseconds of a training step, evaluation not counted.
    pub fn ms_per_step(&self) -> Option<f64> {
        self.history.steps_per_second().map(|steps| 1e3 / steps)
    }

    /// Mean of [`Cell::cosines`].
    pub fn mean_cosine(&self) -> Option<f64> {
        Probe::mean(&self.cosines)
    }
}

impl Probe {
    /// The mean cosine of those that have one.
    pub fn mean<'a>(probes: impl IntoIterator<Item = &'a Probe>) -> Option<f64> {
        let values: Vec<f64> = probes.into_iter().filter_map(|p| p.cosine).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }
}
