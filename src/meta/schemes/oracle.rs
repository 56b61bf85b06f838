use super::mixed::on_both;
use super::{Moment, Scheme, TrainStep};
use crate::error::Result;
use crate::tape::{Kind, Tape};

/// No method, but the bound of those that weight labels: it is told which are wrong, leaves them
/// out, and trains on all right ones and the meta set as one. With r_i 1 where a label is right,
/// R = Σ r_i over the training set, N and M the sizes of both sets, n and m those of their batches:
///
/// ```text
/// L = (N/(R + M) · (1/n) Σ r_i ℓ_i) + (M/(R + M) · (1/m) Σ ℓ_j)
/// ```
///
/// so that over an epoch each right label and each meta sample counts the same.
///
/// Input: `scheme.right` `[n]`, r of the batch.
#[derive(Clone, PartialEq, Debug)]
pub struct Oracle {
    /// r, by a sample's place in the training set.
    pub right: Vec<f64>,
    /// M.
    pub meta: usize,
}

const RIGHT: &str = "scheme.right";

impl Scheme for Oracle {
    fn record(&self, tape: &mut Tape, step: &TrainStep) -> Result<()> {
        let [n, m] = step.batch;
        let (all, meta) = (self.right.len() as f64, self.meta as f64);
        let both = self.right.iter().sum::<f64>() + meta;
        let right = tape.input(RIGHT, Kind::Float, [n])?;
        tape.output("weight", right)?;
        let of_train = tape.scale(right, all / both / n as f64)?;
        let of_meta = tape.constant(meta / both / m as f64, [m]);
        on_both(tape, step, [of_train, of_meta])
    }

    fn inputs(&self, now: &Moment) -> Vec<(&'static str, Vec<f64>)> {
        vec![(RIGHT, now.positions.iter().map(|at| self.right[*at as usize]).collect())]
    }
}
