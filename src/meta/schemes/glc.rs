use crate::error::Result;
use crate::meta::config::Optimiser;
use crate::meta::step::{Batch, Pass, meta_losses, real_step};
use crate::nn::{Network, Params};
use crate::tape::{Kind, Tape, Unary};

/// Gold loss correction (Hendrycks et al. 2018). A first network is trained on the noisy labels as they are; on the meta set, whose
/// labels are true, its mean prediction for the images of class c estimates row c of the noise matrix,
/// `Ĉ_cj ≈ P(given j | true c)` ([`transition`]). A second network p is then trained, from the start and over the whole
/// schedule, with the loss `−log (Ĉᵀp)_ỹ` on noisy samples and with cross-entropy on the meta set, both samples counting
/// the same.
pub struct GlcStep<'a> {
    /// The classifier.
    pub net: &'a Network,
    /// Its rule.
    pub optimiser: Optimiser,
    /// Where batches come from.
    pub data: &'a Batch,
    /// Training and meta batch sizes.
    pub batch: [usize; 2],
    /// Sizes N and M of the training and the meta set. A step takes a whole batch of each, so the means of the two are weighted
    /// by N/(N+M) and M/(N+M).
    pub sizes: [usize; 2],
}

impl GlcStep<'_> {
    /// Records the second network's step. Inputs `x`/`picks`, `y`, `x_meta`/`picks_meta`, `y_meta`, `lr`, `glc.transition`
    /// `[classes, classes]`; outputs `loss` `[n]` (corrected), `correct` `[n]` (on the given labels), `meta_loss`.
    ///
    /// # Errors
    /// As [`crate::meta::MetaStep::record`].
    pub fn record(&self, tape: &mut Tape) -> Result<()> {
        let [n, m] = self.batch;
        let [noisy, clean] = self.sizes.map(|count| count as f64);
        let k = self.net.classes;
        let lr = tape.input("lr", Kind::Float, [])?;
        let transition = tape.input("glc.transition", Kind::Float, [k, k])?;
        let w = Params::states(tape, "w", &self.net.params())?;
        tape.section("corrected losses");
        let Pass { logits, y, correct, .. } = Pass::record(tape, self.net, self.data, n, &w, Some("stats"))?;
        let p = tape.softmax(logits)?;
        let q = tape.matmul(p, transition)?;
        // q sums to 1, so that cross-entropy of log q is −log q_ỹ.
        let log_q = tape.unary(Unary::Log, q)?;
        let losses = tape.cross_entropy(log_q, y)?;
        tape.section("losses on the meta set");
        let meta_losses = meta_losses(tape, self.net, self.data, m, &w)?;
        let meta_loss = tape.mean_all(meta_losses)?;
        tape.section("step");
        let noisy_share = tape.constant(noisy / (noisy + clean) / n as f64, [n]);
        let clean_share = tape.constant(clean / (noisy + clean) / m as f64, [m]);
        let both = [(losses, noisy_share), (meta_losses, clean_share)];
        real_step(tape, &w, &both, &self.optimiser, lr, "momentum")?;
        tape.output("loss", losses);
        tape.output("correct", correct);
        tape.output("meta_loss", meta_loss);
        Ok(())
    }
}

/// Least entry of the estimated matrix, so that no given label is impossible and no logarithm infinite.
const LEAST: f64 = 1e-6;

/// Ĉ `[classes, classes]`, row-major, from probabilities `[m, classes]` and true labels `[m]` of the meta set: row c is the mean
/// over the images of class c, with entries of at least 10⁻⁶, and sums to 1. A class without images has the identity's row.
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
