//! Batch norm over all axes but the last: x is seen as rows of `c` channels.

use super::isa::vectorise;
use super::par;
use super::real::Real;

/// Entries of the rows that one task takes. Fixed, so that partial sums do not depend on the number of threads.
const TASK: usize = 16 * 1024;

fn rows_per_task(c: usize) -> usize {
    (TASK / c.max(1)).max(1)
}

/// Entries of workspace that [`moments`] and [`jacobian`] need for x of this length.
pub fn workspace_len(len: usize, c: usize) -> usize {
    (len / c.max(1)).div_ceil(rows_per_task(c)) * 2 * c
}

/// Means, then biased variances, as out `[2, c]`. Each task takes means and squared deviations of its own rows while they
/// are in cache; Chan's rule (Chan, Golub & LeVeque 1979) joins them in order, in double precision.
pub fn moments<T: Real>(x: &[T], c: usize, out: &mut [T], workspace: &mut [T]) {
    let rows = x.len() / c.max(1);
    assert_eq!((rows * c, out.len()), (x.len(), 2 * c), "moments of {c} channels: lengths");
    let per_task = rows_per_task(c);
    let tasks = rows.div_ceil(per_task);
    par::for_each_chunk(&mut workspace[..tasks * 2 * c], 2 * c, &|i, part| {
        let x = &x[i * per_task * c..(rows.min((i + 1) * per_task)) * c];
        let (mean, squares) = part.split_at_mut(c);
        vectorise(|| moments_of_part(x, mean, squares));
    });
    let (means, variances) = out.split_at_mut(c);
    for channel in 0..c {
        let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
        for (i, part) in workspace[..tasks * 2 * c].chunks_exact(2 * c).enumerate() {
            let n = per_task.min(rows - i * per_task) as f64;
            let delta = part[channel].to_f64() - mean;
            mean += delta * n / (count + n);
            squares += part[c + channel].to_f64() + delta * delta * count * n / (count + n);
            count += n;
        }
        means[channel] = T::from_f64(mean);
        variances[channel] = T::from_f64(squares / count);
    }
}

#[inline(always)]
fn moments_of_part<T: Real>(x: &[T], mean: &mut [T], squares: &mut [T]) {
    let c = mean.len();
    mean.fill(T::ZERO);
    squares.fill(T::ZERO);
    for row in x.chunks_exact(c) {
        mean.iter_mut().zip(row).for_each(|(m, x)| *m += *x);
    }
    let share = T::from_f64(c as f64 / x.len() as f64);
    mean.iter_mut().for_each(|m| *m = *m * share);
    for row in x.chunks_exact(c) {
        for ((s, m), x) in squares.iter_mut().zip(mean.iter()).zip(row) {
            let d = *x - *m;
            *s += d * d;
        }
    }
}

/// `(x − mean)·(var + ε)^{-1/2}` in one kernel. Workspace: [`workspace_len`] and `2c` more.
pub fn normalise<T: Real>(x: &[T], c: usize, eps: f64, out: &mut [T], workspace: &mut [T]) {
    let (stats, workspace) = workspace.split_at_mut(2 * c);
    statistics(x, c, eps, stats, workspace);
    let (mean, r) = stats.split_at(c);
    for (x, out) in x.chunks_exact(c).zip(out.chunks_exact_mut(c)) {
        for i in 0..c {
            out[i] = (x[i] - mean[i]) * r[i];
        }
    }
}

/// Mean and `(var + ε)^{-1/2}`.
fn statistics<T: Real>(x: &[T], c: usize, eps: f64, stats: &mut [T], workspace: &mut [T]) {
    moments(x, c, stats, workspace);
    stats[c..].iter_mut().for_each(|v| *v = T::from_f64(1.0 / (v.to_f64() + eps).sqrt()));
}

/// Batch norm's Jacobian at x times v: `r·(v − mean v − x̂·mean(x̂ v))`. Workspace: [`workspace_len`] and `4c` more.
pub fn jacobian<T: Real>(x: &[T], c: usize, eps: f64, v: &[T], out: &mut [T], workspace: &mut [T]) {
    let (stats, workspace) = workspace.split_at_mut(2 * c);
    let (means, workspace) = workspace.split_at_mut(2 * c);
    statistics(x, c, eps, stats, workspace);
    let (mean, r) = stats.split_at(c);
    let count = (x.len() / c.max(1)) as f64;
    for i in 0..c {
        let (mut sum, mut along) = (0.0, 0.0);
        for (x, v) in x.chunks_exact(c).zip(v.chunks_exact(c)) {
            sum += v[i].to_f64();
            along += ((x[i] - mean[i]) * r[i] * v[i]).to_f64();
        }
        means[i] = T::from_f64(sum / count);
        means[c + i] = T::from_f64(along / count);
    }
    for ((x, v), out) in x.chunks_exact(c).zip(v.chunks_exact(c)).zip(out.chunks_exact_mut(c)) {
        for i in 0..c {
            out[i] = r[i] * (v[i] - means[i] - (x[i] - mean[i]) * r[i] * means[c + i]);
        }
    }
}
