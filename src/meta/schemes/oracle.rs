use super::{Moment, Scheme, TrainStep};
use crate::error::Result;
use crate::meta::step::{Pass, meta_losses, real_step};
use crate::nn::Params;
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
        let TrainStep { net, optimiser, data, batch: [n, m], .. } = *step;
        let lr = tape.input("lr", Kind::Float, [])?;
        let mut w = Params::classifier();
        let Pass { losses, correct, .. } = Pass::record(tape, net, data, n, &mut w, Some("stats"), "")?;
        let meta_losses = meta_losses(tape, net, data, m, &mut w)?;
        let (all, meta) = (self.right.len() as f64, self.meta as f64);
        let both = (self.right.iter().sum::<f64>() + meta).max(1.0);
        let right = tape.input(RIGHT, Kind::Float, [n])?;
        let of_train = tape.scale(right, all / both / n as f64)?;
        let of_meta = tape.constant(meta / both / m as f64, [m]);
        let pairs = [(losses, of_train), (meta_losses, of_meta)];
        real_step(tape, &w, &pairs, &optimiser, lr, "momentum")?;
        let meta_loss = tape.mean_all(meta_losses)?;
        tape.output("loss", losses)?;
        tape.output("correct", correct)?;
        tape.output("weight", right)?;
        tape.output("meta_loss", meta_loss)
    }

    fn inputs(&self, now: &Moment) -> Vec<(&'static str, Vec<f64>)> {
        vec![(RIGHT, now.positions.iter().map(|at| self.right[*at as usize]).collect())]
    }
}
