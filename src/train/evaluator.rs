//! The trained network on whole sets, with running statistics: nothing is updated.

use super::prepared::Prepared;
use super::step::{Fed, Given, source};
use crate::data::{Dataset, in_order};
use crate::error::Result;
use crate::meta::Evaluation;
use crate::meta::schemes::{Predictions, Set, Trained};
use crate::nn::Model;
use crate::program::{Options, Plan, Session};
use crate::tape::{Shape, Tape};

/// Samples of one evaluation pass.
const AT_ONCE: usize = 250;
/// Pixels of one: large images go through in smaller batches, in the memory of 250 of 32×32.
const PIXELS_AT_ONCE: usize = AT_ONCE * 32 * 32;

/// Samples of this shape in one pass, where there are `all`.
pub(super) fn at_once(sample: &Shape, all: usize) -> usize {
    let pixels = if let [h, w, _] = sample[..] { h * w } else { 1 };
    (PIXELS_AT_ONCE / pixels.max(1)).min(all).clamp(1, AT_ONCE)
}

/// The forward pass as a program.
pub(super) struct Evaluator {
    fed: Fed,
    batch: usize,
}

impl Evaluator {
    /// The pass of a network on a session's parameters, for as many samples as the data set has.
    pub fn new(net: &dyn Model, data: &Dataset, session: &mut Session) -> Result<Evaluator> {
        let (mut tape, batch) = (Tape::new(), at_once(&data.shape, data.count()));
        Evaluation { net, data: &source(data, false), batch }.record(&mut tape)?;
        Ok(Evaluator { fed: Fed::new(Plan::new(&tape, Options::default())?, data, session)?, batch })
    }

    /// Predictions on a set.
    pub fn see(&mut self, session: &mut Session, data: &Prepared, set: Set) -> Result<Predictions> {
        self.predict(session, &data.dataset, data.indices(set), data.labels(set))
    }

    /// Predictions on some samples, with their labels.
    pub fn predict(
        &mut self,
        session: &mut Session,
        data: &Dataset,
        indices: &[u32],
        labels: &[i32],
    ) -> Result<Predictions> {
        let mut all = Predictions::default();
        for (batch, rows) in in_order(indices, labels, self.batch) {
            let given =
                Given { data, batch: &batch, ahead: &[], meta: &batch, lr: 0.0, at: [0; 2], scheme: &[] };
            self.fed.run(session, &given)?;
            let program = &self.fed.program;
            all.losses.extend_from_slice(&session.fetch(program, "loss")?[..rows]);
            all.hits.extend_from_slice(&session.fetch(program, "correct")?[..rows]);
            let logits = session.fetch(program, "logits")?;
            all.logits.extend_from_slice(&logits[..logits.len() / self.batch * rows]);
        }
        Ok(all)
    }
}

/// A session's network as a scheme sees it between two stages.
pub(super) struct Looked<'a> {
    pub evaluator: &'a mut Evaluator,
    pub session: &'a mut Session,
    pub data: &'a Prepared,
}

impl Trained for Looked<'_> {
    fn classes(&self) -> usize {
        self.data.dataset.classes()
    }

    fn labels(&self, set: Set) -> &[i32] {
        self.data.labels(set)
    }

    fn see(&mut self, set: Set) -> Result<Predictions> {
        self.evaluator.see(self.session, self.data, set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_as_large_as_memory_and_the_set_allow() {
        let of = |shape: [usize; 3], all| at_once(&shape.into(), all);
        assert_eq!((of([32, 32, 3], 10_000), of([32, 32, 3], 12), of([224, 224, 3], 12)), (250, 12, 5));
        assert_eq!(
            (of([5000, 5000, 3], 9), at_once(&[7].into(), 1000), at_once(&[7].into(), 0)),
            (1, 250, 1)
        );
    }
}
