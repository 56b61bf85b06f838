use super::mixed::shares;
use super::{Memory, Moment, Scheme, Set, Stages, TrainStep, Trained, softmax};
use crate::error::Result;
use crate::meta::step::{Pass, meta_losses, real_step};
use crate::nn::Params;
use crate::tape::{Kind, Tape, Unary};

/// Gold loss correction (Hendrycks et al. 2018). A first network is trained on the noisy labels as
/// they are; on the meta set, whose labels are true, its mean prediction for the images of class c
/// estimates row c of the noise matrix, `Ĉ_cj ≈ P(given j | true c)` ([`transition`]). A second
/// network p is then trained, from the start and over the whole schedule, with the loss
/// `−log (Ĉᵀp)_ỹ` on noisy samples and with cross-entropy on the meta set, both samples counting
/// the same.
///
/// A step of the second network takes a whole batch of each set, so the means of the two are
/// weighted by N/(N+M) and M/(N+M). Input: `scheme.transition` `[classes, classes]`. Outputs:
/// `loss` `[n]` (corrected), `correct` `[n]` (on the given labels), `meta_loss`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Glc {
    /// Sizes N and M of the training and the meta set.
    pub sizes: [usize; 2],
}

/// In [`Memory`].
const TRANSITION: &str = "transition";

impl Scheme for Glc {
    // No weights: the loss is another one.
    fn record(&self, tape: &mut Tape, step: &TrainStep) -> Result<()> {
        if step.stage == 0 { step.plain(tape) } else { self.corrected(tape, step) }
    }

    fn inputs(&self, now: &Moment) -> Vec<(&'static str, Vec<f64>)> {
        vec![("scheme.transition", now.memory.get(TRANSITION).to_vec())]
    }

    fn stages(&self) -> Option<&dyn Stages> {
        Some(self)
    }
}

impl Stages for Glc {
    fn count(&self) -> usize {
        Glc::NETWORKS
    }

    fn steps(&self) -> usize {
        Glc::NETWORKS
    }

    fn next(&self, memory: &mut Memory, trained: &mut dyn Trained) -> Result<()> {
        let classes = trained.classes();
        let probabilities: Vec<f64> =
            trained.see(Set::Meta)?.logits.chunks(classes).flat_map(softmax).collect();
        memory.set(TRANSITION, transition(&probabilities, trained.labels(Set::Meta), classes));
        Ok(())
    }
}

impl Glc {
    /// The one that shows the noise, and the one that is corrected.
    pub const NETWORKS: usize = 2;

    /// The second network's step.
    fn corrected(&self, tape: &mut Tape, step: &TrainStep) -> Result<()> {
        let TrainStep { net, optimiser, data, batch: [n, m], .. } = *step;
        let lr = tape.input("lr", Kind::Float, [])?;
        let mut w = Params::classifier();
        tape.section("corrected losses");
        let Pass { logits, y, correct, .. } = Pass::record(tape, net, data, n, &mut w, Some("stats"), "")?;
        let k = tape.shape(logits)[1];
        let transition = tape.input("scheme.transition", Kind::Float, [k, k])?;
        let p = tape.softmax(logits)?;
        let q = tape.matmul(p, transition)?;
        // q sums to 1, so that cross-entropy of log q is −log q_ỹ.
        let log_q = tape.unary(Unary::Log, q)?;
        let losses = tape.cross_entropy(log_q, y)?;
        tape.section("losses on the meta set");
        let meta_losses = meta_losses(tape, net, data, m, &mut w)?;
        let meta_loss = tape.mean_all(meta_losses)?;
        tape.section("step");
        let [noisy_share, clean_share] = shares(tape, self.sizes, [n, m]);
        let both = [(losses, noisy_share), (meta_losses, clean_share)];
        real_step(tape, &w, &both, &optimiser, lr, "momentum")?;
        tape.output("loss", losses)?;
        tape.output("correct", correct)?;
        tape.output("meta_loss", meta_loss)?;
        Ok(())
    }
}

/// Least entry of the estimated matrix, so that no given label is impossible and no logarithm
/// infinite.
const LEAST: f64 = 1e-6;

/// Ĉ `[classes, classes]`, row-major, from probabilities `[m, classes]` and true labels `[m]` of
/// the meta set: row c is the mean over the images of class c, with entries of at least 10⁻⁶, and
/// sums to 1. A class without images has the identity's row.
pub fn transition(probabilities: &[f64], labels: &[i32], classes: usize) -> Vec<f64> {
    let mut rows = vec![0.0; classes * classes];
    for (p, label) in probabilities.chunks(classes).zip(labels) {
        let row = &mut rows[*label as usize * classes..][..classes];
        row.iter_mut().zip(p).for_each(|(sum, p)| *sum += p);
    }
    for (class, row) in rows.chunks_mut(classes).enumerate() {
        if row.iter().sum::<f64>() == 0.0 {
            row[class] = 1.0;
        }
        let mean = 1.0 / row.iter().sum::<f64>();
        row.iter_mut().for_each(|entry| *entry = (*entry * mean).max(LEAST));
        let scale = 1.0 / row.iter().sum::<f64>();
        row.iter_mut().for_each(|entry| *entry *= scale);
    }
    rows
}
