//! Per-sample cross-entropy of logits z `[n, k]` with labels y `[n]`, and its derivatives.
//!
//! Everything is relative to the largest logit and in f64 inside, so that huge logits do not
//! overflow and the loss of a sample that is almost certain keeps its digits.

use super::par;
use super::real::Real;

/// Logits that a task handles: few, as each takes two exponentials in f64.
const TASK_LEN: usize = 256;

/// loss `[n]` = log Σ_j exp z_j − z_y of every sample (natural logarithm).
///
/// # Panics
/// If a label is not in 0..k, or a length is not what the shape says.
pub fn cross_entropy<T: Real>(z: &[T], y: &[i32], loss: &mut [T]) {
    let k = classes(z, y.len());
    assert_eq!(loss.len(), y.len(), "cross-entropy: one loss a sample");
    let each = (TASK_LEN / k.max(1)).max(1);
    par::for_each_chunk(loss, each, &|chunk, loss| {
        for (i, loss) in loss.iter_mut().enumerate() {
            let i = chunk * each + i;
            let z = &z[i * k..][..k];
            let (top, others) = top_and_others(z);
            // ln(1 + Σ others) keeps the digits of a small loss.
            *loss = T::from_f64(others.ln_1p() + (z[top].to_f64() - z[label(y[i], k)].to_f64()));
        }
    });
}

/// hit `[n]` = 1 where the largest logit (the first one, if several are) is the label's, else 0.
///
/// # Panics
/// As [`cross_entropy`].
pub fn correct<T: Real>(z: &[T], y: &[i32], hit: &mut [T]) {
    let k = classes(z, y.len());
    assert_eq!(hit.len(), y.len(), "hits: one a sample");
    for ((z, y), hit) in z.chunks_exact(k.max(1)).zip(y).zip(hit) {
        let (top, others) = top_and_others(z);
        // Where a logit is not a number, neither is the rest's share, and nothing is right.
        *hit = if top == label(*y, k) && !others.is_nan() { T::ONE } else { T::ZERO };
    }
}

/// out `[n, k]` = exp z_j / Σ exp z. `n` samples.
pub fn softmax<T: Real>(n: usize, z: &[T], out: &mut [T]) {
    rows(n, z, out, |_, z, top, total, out| {
        for (out, z_j) in out.iter_mut().zip(z) {
            *out = T::from_f64(relative(*z_j, top) / total);
        }
    });
}

/// out `[n, k]` = softmax(z) − onehot(y): the gradient of every sample's loss by its own logits.
pub fn residual<T: Real>(z: &[T], y: &[i32], out: &mut [T]) {
    rows(y.len(), z, out, |i, z, top, total, out| residual_row(y[i], 1.0, z, top, total, out));
}

/// out `[n, k]` = weight_i · (softmax(z) − onehot(y)) for weights `[n]`: the gradient of Σ weight_i
/// · loss_i.
pub fn weighted_residual<T: Real>(z: &[T], y: &[i32], weight: &[T], out: &mut [T]) {
    assert_eq!(weight.len(), y.len(), "weighted cross-entropy: one weight a sample");
    rows(y.len(), z, out, |i, z, top, total, out| {
        residual_row(y[i], weight[i].to_f64(), z, top, total, out);
    });
}

fn residual_row<T: Real>(y: i32, weight: f64, z: &[T], top: T, total: f64, out: &mut [T]) {
    let y = label(y, z.len());
    // p_y − 1 = −Σ_{j≠y} p_j, without the cancellation.
    let mut others = 0.0;
    for (j, (out, z_j)) in out.iter_mut().zip(z).enumerate() {
        if j != y {
            let p = relative(*z_j, top) / total;
            others += p;
            *out = T::from_f64(weight * p);
        }
    }
    out[y] = T::from_f64(-weight * others);
}

/// Calls `f(sample, its logits, the largest, Σ exp(z − largest), its row of out)`.
fn rows<T: Real>(n: usize, z: &[T], out: &mut [T], f: impl Fn(usize, &[T], T, f64, &mut [T]) + Sync) {
    let k = classes(z, n);
    assert_eq!(z.len(), out.len(), "cross-entropy: lengths of logits and output");
    if z.is_empty() {
        return;
    }
    let each = (TASK_LEN / k).max(1);
    par::for_each_chunk(out, each * k, &|chunk, out| {
        for (i, out) in out.chunks_exact_mut(k).enumerate() {
            let i = chunk * each + i;
            let z = &z[i * k..][..k];
            let (top, others) = top_and_others(z);
            f(i, z, z[top], 1.0 + others, out);
        }
    });
}

/// Where the largest logit is (the first of equals), and Σ exp(z_j − largest) over the others.
fn top_and_others<T: Real>(z: &[T]) -> (usize, f64) {
    let mut top = 0;
    for (j, z_j) in z.iter().enumerate() {
        if *z_j > z[top] {
            top = j;
        }
    }
    let others = z.iter().enumerate().filter(|(j, _)| *j != top).map(|(_, z_j)| relative(*z_j, z[top])).sum();
    (top, others)
}

#[inline(always)]
fn relative<T: Real>(z: T, top: T) -> f64 {
    (z.to_f64() - top.to_f64()).exp()
}

fn classes<T>(z: &[T], n: usize) -> usize {
    let k = z.len() / n.max(1);
    assert_eq!(z.len(), n * k, "cross-entropy: {} logits for {n} samples", z.len());
    assert!(n == 0 || k > 0, "cross-entropy: no classes");
    k
}

fn label(y: i32, k: usize) -> usize {
    usize::try_from(y)
        .ok()
        .filter(|y| *y < k)
        .unwrap_or_else(|| panic!("cross-entropy: label {y} of {k} classes"))
}
