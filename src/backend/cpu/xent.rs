//! Softmax and cross-entropy over logits `[n, k]`, a row a sample. Rows are few and short: one task does them all.

use super::real::Real;

/// The largest logit and `Σ e^{z − largest}`: what keeps every exponent at most 0.
fn shifted<T: Real>(row: &[T]) -> (T, T) {
    let largest = row.iter().copied().fold(row[0], |a, b| if b > a { b } else { a });
    let mut sum = T::ZERO;
    for z in row {
        sum += (*z - largest).exp();
    }
    (largest, sum)
}

/// Per-sample cross-entropy `log Σ e^z − z_y`, out `[n]`.
pub fn cross_entropy<T: Real>(k: usize, logits: &[T], labels: &[i32], out: &mut [T]) {
    for ((row, y), loss) in logits.chunks_exact(k).zip(labels).zip(out) {
        let (largest, sum) = shifted(row);
        *loss = sum.ln() + (largest - row[*y as usize]);
    }
}

/// Softmax, out `[n, k]`.
pub fn softmax<T: Real>(k: usize, logits: &[T], out: &mut [T]) {
    for (row, out) in logits.chunks_exact(k).zip(out.chunks_exact_mut(k)) {
        let (largest, sum) = shifted(row);
        let inverse = T::ONE / sum;
        out.iter_mut().zip(row).for_each(|(o, z)| *o = (*z - largest).exp() * inverse);
    }
}

/// `softmax − one-hot`, out `[n, k]`: the gradient of each sample's cross-entropy.
pub fn residual<T: Real>(k: usize, logits: &[T], labels: &[i32], out: &mut [T]) {
    softmax(k, logits, out);
    for (out, y) in out.chunks_exact_mut(k).zip(labels) {
        out[*y as usize] -= T::ONE;
    }
}

/// `weight_i · (softmax − one-hot)`, out `[n, k]`: the gradient of the weighted cross-entropy.
pub fn weighted_residual<T: Real>(k: usize, logits: &[T], labels: &[i32], weights: &[T], out: &mut [T]) {
    residual(k, logits, labels, out);
    for (out, weight) in out.chunks_exact_mut(k).zip(weights) {
        out.iter_mut().for_each(|o| *o = *weight * *o);
    }
}

/// 1 where the largest logit (the first one, if several are) is the label's, else 0.
pub fn correct<T: Real>(k: usize, logits: &[T], labels: &[i32], out: &mut [T]) {
    for ((row, y), hit) in logits.chunks_exact(k).zip(labels).zip(out) {
        let label = *y as usize;
        let before = row[..label].iter().all(|z| *z < row[label]);
        let after = row[label..].iter().all(|z| *z <= row[label]);
        *hit = if before && after { T::ONE } else { T::ZERO };
    }
}
