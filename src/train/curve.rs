//! A scheme's weight as a function of the loss (and of the label, if the scheme is class-aware), as
//! a program.

use crate::error::Result;
use crate::meta::schemes::{Moment, Scheme, Seen};
use crate::program::{Options, Program, Session, Values};
use crate::tape::{Kind, Tape};

/// Losses of one pass.
const AT_ONCE: usize = 250;

pub(super) struct WeightCurve {
    program: Program,
}

impl WeightCurve {
    /// `None` for a scheme whose weight is no function of the loss, or the same for all.
    pub fn new(scheme: &dyn Scheme, session: &mut Session) -> Result<Option<WeightCurve>> {
        let mut tape = Tape::new();
        let losses = tape.input("loss", Kind::Float, [AT_ONCE])?;
        let labels = tape.input("y", Kind::Int, [AT_ONCE])?;
        let Some(weights) = scheme.curve(&mut tape, &Seen { losses, labels })? else { return Ok(None) };
        tape.output("weight", weights)?;
        Ok(Some(WeightCurve { program: session.compile(&tape, Options::default())? }))
    }

    /// The weight of each loss under its label.
    pub fn weights(
        &self,
        session: &mut Session,
        scheme: &dyn Scheme,
        losses: &[f64],
        labels: &[i32],
        now: &Moment,
    ) -> Result<Vec<f64>> {
        let program = &self.program;
        for (name, values) in scheme.inputs(now) {
            // A curve needs some of what a batch's weights need.
            if let Ok(input) = program.input(name) {
                session.write_input(program, input, Values::Float(&values))?;
            }
        }
        let mut all = Vec::with_capacity(losses.len());
        for (part, labels) in losses.chunks(AT_ONCE).zip(labels.chunks(AT_ONCE)) {
            let (mut padded, mut labels) = (part.to_vec(), labels.to_vec());
            padded.resize(AT_ONCE, 0.0);
            labels.resize(AT_ONCE, 0);
            session.feed(program, "loss", Values::Float(&padded))?;
            session.feed(program, "y", Values::Int(&labels))?;
            session.run(program)?;
            all.extend_from_slice(&session.fetch(program, "weight")?[..part.len()]);
        }
        Ok(all)
    }
}
