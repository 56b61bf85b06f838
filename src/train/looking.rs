//! What a learner's network makes of whole sets: tests, pictures, what is known of each sample.

use super::evaluator::Looked;
use super::history::WeightPicture;
use super::learner::Learner;
use super::prepared::Prepared;
use super::samples::{self, Finding, SampleReport};
use super::scores::confusion;
use crate::error::Result;
use crate::meta::schemes::{Moment, Predictions, Set};

/// Losses at which the curve of V is drawn: 0, 0.05, … 8.
const CURVE_POINTS: usize = 161;
const CURVE_POINTS_PER_UNIT: f64 = 20.0;
/// Of these, the summary shows every fifth: 0, 0.25, … 8.
pub(super) const SUMMARY_STRIDE: usize = 5;

impl Learner {
    /// What the next stage needs of the network just trained; then a network anew.
    pub(super) fn next_stage(&mut self, data: &Prepared, stage: usize) -> Result<()> {
        let Learner { session, evaluator, scheme, memory, .. } = self;
        let Some(stages) = scheme.stages() else { return Ok(()) };
        stages.next(memory, &mut Looked { evaluator, session, data })?;
        let seed = stages.seed(data.config.seed, stage + 1);
        session.initialise(seed)
    }

    /// Mean loss on the test set, and which classes its images were taken for.
    pub(super) fn test(&mut self, data: &Prepared) -> Result<(f64, Vec<Vec<u32>>)> {
        let Learner { session, evaluator, scheme, memory, .. } = self;
        let (classes, labels) = (data.dataset.classes(), data.labels(Set::Test));
        let Predictions { losses, logits, .. } = evaluator.see(session, data, Set::Test)?;
        let scores = match scheme.stages() {
            Some(stages) => stages.scores(memory, logits, &mut Looked { evaluator, session, data })?,
            None => logits,
        };
        Ok((losses.iter().sum::<f64>() / losses.len().max(1) as f64, confusion(classes, &scores, labels)))
    }

    /// What training tells about each of its samples, in their order, and how well that finds the
    /// wrong labels, where they are known.
    ///
    /// # Errors
    /// The machine's.
    pub fn judge(&mut self, data: &Prepared) -> Result<(Vec<SampleReport>, Option<Finding>)> {
        let seen = self.evaluator.see(&mut self.session, data, Set::Train)?;
        let rows = samples::report(data, &self.memory, &seen);
        let finding = samples::finding(data, &rows, &seen);
        Ok((rows, finding))
    }

    /// The weight over losses, and if asked over the training `samples`, after `epoch` epochs;
    /// `None` for a method whose weight is not a function of the loss, or the same for all.
    ///
    /// # Errors
    /// [`crate::Error::Numeric`] if one of them is no longer a finite number.
    pub fn picture(&mut self, data: &Prepared, epoch: usize, samples: bool) -> Result<Option<WeightPicture>> {
        let per_epoch = self.steps_per_epoch();
        let Learner { session, evaluator, curve: Some(curve), scheme, memory, .. } = self else {
            return Ok(None);
        };
        let (mut losses, mut labels) = (Vec::new(), &[][..]);
        if samples {
            labels = data.labels(Set::Train);
            losses = scheme.reads(memory, labels, evaluator.see(session, data, Set::Train)?.losses);
        }
        let now = Moment {
            step: per_epoch * epoch as u64,
            steps: per_epoch * data.config.epochs as u64,
            epoch: epoch.saturating_sub(1),
            batch: data.config.batch,
            positions: &[],
            memory,
        };
        let points: Vec<f64> = (0..CURVE_POINTS).map(|i| i as f64 / CURVE_POINTS_PER_UNIT).collect();
        let mut at =
            |losses: &[f64], labels: &[i32]| curve.weights(session, scheme.as_ref(), losses, labels, &now);
        let weights = at(&losses, labels)?;
        let mut over_losses = |label: i32| at(&points, &[label; CURVE_POINTS]);
        let mut groups = Vec::new();
        for (name, label) in scheme.groups() {
            groups.push((name.to_owned(), over_losses(label)?));
        }
        let values = match groups.first() {
            Some((_, values)) => values.clone(),
            None => over_losses(0)?,
        };
        if let Some(bad) = losses.iter().chain(&weights).find(|v| !v.is_finite()) {
            let what = format!("a training image has a loss or a weight of {bad} at the end");
            return Err(self.diverged(data, epoch, &what));
        }
        Ok(Some(WeightPicture {
            epoch,
            curve: points.into_iter().zip(values).collect(),
            groups,
            losses,
            weights,
        }))
    }
}
