//! The trained network on whole sets, with running statistics: nothing is updated.

use super::prepared::Prepared;
use super::step::{Fed, Given};
use crate::data;
use crate::error::Result;
use crate::meta::Evaluation;
use crate::meta::schemes::{Predictions, Set, Trained};
use crate::program::{Options, Plan, Session};
use crate::tape::Tape;

/// Images of one evaluation pass.
const AT_ONCE: usize = 250;

/// The forward pass as a program.
pub(super) struct Evaluator {
    fed: Fed,
}

impl Evaluator {
    /// The pass on a session's parameters.
    pub fn new(data: &Prepared, session: &mut Session) -> Result<Evaluator> {
        let mut tape = Tape::new();
        let plain = data.batch(false);
        Evaluation { net: data.net(), data: &plain, batch: AT_ONCE }.record(&mut tape)?;
        Ok(Evaluator { fed: Fed::new(Plan::new(&tape, Options::default())?, data, session)? })
    }

    /// Predictions on a set.
    pub fn see(&mut self, session: &mut Session, data: &Prepared, set: Set) -> Result<Predictions> {
        let mut all = Predictions::default();
        for (batch, rows) in data::in_order(data.indices(set), data.labels(set), AT_ONCE) {
            let given =
                Given { data, batch: &batch, ahead: &[], meta: &batch, lr: 0.0, at: [0; 2], scheme: &[] };
            self.fed.run(session, &given)?;
            let program = &self.fed.program;
            all.losses.extend_from_slice(&session.fetch(program, "loss")?[..rows]);
            all.hits.extend_from_slice(&session.fetch(program, "correct")?[..rows]);
            let logits = session.fetch(program, "logits")?;
            all.logits.extend_from_slice(&logits[..logits.len() / AT_ONCE * rows]);
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
