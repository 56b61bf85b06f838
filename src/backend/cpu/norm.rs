//! Batch normalisation of x `[rows, c]` over rows (all axes but the last), and its Jacobian, which
//! is self-adjoint.

use super::columns::{blocks, column_sums, map_columns, partials_len, reduce_blocks, split};
use super::isa::{Isa, Kernel};
use super::par;
use super::real::Real;

/// Numbers of workspace that [`moments`] and [`jacobian`] need for x `[rows, c]`.
pub fn workspace_len(rows: usize, c: usize) -> usize {
    partials_len(rows, c, 2) + 2 * c
}

/// out `[2c]` = mean of every column, then 1/√(biased variance + eps) of every column.
/// `c = out.len() / 2`.
///
/// This is the form that [`normalise`] and [`jacobian`] take.
pub fn moments<T: Real>(x: &[T], eps: f64, out: &mut [T], workspace: &mut [T]) {
    mean_and(x, out, workspace, |variance| 1.0 / (variance + eps).sqrt());
}

/// out `[2c]` = mean, then biased variance of every column.
pub fn mean_and_variance<T: Real>(x: &[T], out: &mut [T], workspace: &mut [T]) {
    mean_and(x, out, workspace, |variance| variance);
}

/// Mean and a function of the variance. Sums run in f64 on differences from the first row, so that
/// one pass over x is enough.
fn mean_and<T: Real>(x: &[T], out: &mut [T], workspace: &mut [T], f: impl Fn(f64) -> f64) {
    let (rows, c) = rows_and_columns(x, out);
    if x.is_empty() {
        return;
    }
    let (mean, scale) = out.split_at_mut(c);
    let block = |range: std::ops::Range<usize>, partial: &mut [T]| {
        Isa::best().run(Moments { x: &x[range.start * c..range.end * c], shift: &x[..c], partial });
    };
    reduce_blocks::<T, 2>(rows, c, workspace, &block, |i, [d, d2]| {
        let d = d / rows as f64;
        let variance = (d2 / rows as f64 - d * d).max(0.0);
        mean[i] = T::from_f64(x[i].to_f64() + d);
        scale[i] = T::from_f64(f(variance));
    });
}

/// out = x̂ = (x − mean) · r, with `moments` as [`moments`] gives them.
pub fn normalise<T: Real>(x: &[T], moments: &[T], out: &mut [T]) {
    let (rows, c) = rows_and_columns(x, moments);
    assert_eq!(x.len(), out.len(), "batch norm: lengths of x and of the output");
    if x.is_empty() {
        return;
    }
    let (mean, scale) = moments.split_at(c);
    let len = blocks(rows, c).0 * c;
    par::for_each_chunk(out, len, &|i, out| {
        Isa::best().run(Normalise { x: &x[i * len..][..out.len()], mean, scale, out });
    });
}

/// out = J v = r · (v − mean(v) − x̂ · mean(x̂ v)): the Jacobian of x ↦ x̂ (with moments taken from
/// x) applied to v.
///
/// J is symmetric (Ioffe & Szegedy 2015, section 3, gathered): the same call is the tangent and the
/// cotangent rule.
pub fn jacobian<T: Real>(x: &[T], moments: &[T], v: &[T], out: &mut [T], workspace: &mut [T]) {
    let (rows, c) = rows_and_columns(x, moments);
    assert_eq!(
        (x.len(), x.len()),
        (v.len(), out.len()),
        "batch norm's Jacobian: lengths of x, v and the output"
    );
    if x.is_empty() {
        return;
    }
    let (mean, scale) = moments.split_at(c);
    let (coefficients, partials) = workspace.split_at_mut(2 * c);
    let block = |range: std::ops::Range<usize>, partial: &mut [T]| {
        let range = range.start * c..range.end * c;
        Isa::best().run(Projections { x: &x[range.clone()], v: &v[range], mean, scale, partial });
    };
    reduce_blocks::<T, 2>(rows, c, partials, &block, |i, [v, xv]| {
        let r = scale[i].to_f64();
        coefficients[i] = T::from_f64(r * v / rows as f64);
        coefficients[c + i] = T::from_f64(r * r * xv / rows as f64);
    });
    let coefficients = &*coefficients;
    let len = blocks(rows, c).0 * c;
    par::for_each_chunk(out, len, &|i, out| {
        let at = i * len..i * len + out.len();
        Isa::best().run(Apply { x: &x[at.clone()], v: &v[at], mean, scale, coefficients, out });
    });
}

fn rows_and_columns<T>(x: &[T], moments: &[T]) -> (usize, usize) {
    let c = moments.len() / 2;
    assert!(
        moments.len() == 2 * c && (x.is_empty() || c > 0),
        "batch norm: moments are two numbers a channel"
    );
    assert!(x.is_empty() || x.len().is_multiple_of(c), "batch norm: x is not whole rows of {c} channels");
    (x.len() / c.max(1), c)
}

/// Σ (x − shift) and Σ (x − shift)² of a block.
struct Moments<'a, T> {
    x: &'a [T],
    shift: &'a [T],
    partial: &'a mut [T],
}

impl<T: Real> Kernel for Moments<'_, T> {
    #[inline(always)]
    fn run(self) {
        let c = self.shift.len();
        let term = |[x]: [f64; 1], [shift, _]: [f64; 2]| {
            let d = x - shift;
            [d, d * d]
        };
        column_sums(
            [self.x],
            c,
            |i| [self.shift[i].to_f64(), 0.0],
            term,
            |i, [d, d2]: [f64; 2]| {
                self.partial[4 * i..4 * i + 2].copy_from_slice(&split(d));
                self.partial[4 * i + 2..4 * i + 4].copy_from_slice(&split(d2));
            },
        );
    }
}

struct Normalise<'a, T> {
    x: &'a [T],
    mean: &'a [T],
    scale: &'a [T],
    out: &'a mut [T],
}

impl<T: Real> Kernel for Normalise<'_, T> {
    #[inline(always)]
    fn run(self) {
        let params = |i: usize| [self.mean[i], self.scale[i]];
        map_columns([self.x], self.mean.len(), params, |[x], [mean, r]| (x - mean) * r, self.out);
    }
}

/// Σ v and Σ x̂ v of a block.
struct Projections<'a, T> {
    x: &'a [T],
    v: &'a [T],
    mean: &'a [T],
    scale: &'a [T],
    partial: &'a mut [T],
}

impl<T: Real> Kernel for Projections<'_, T> {
    #[inline(always)]
    fn run(self) {
        let params = |i: usize| [self.mean[i].to_f64(), self.scale[i].to_f64()];
        let term = |[x, v]: [f64; 2], [mean, r]: [f64; 2]| [v, (x - mean) * r * v];
        column_sums([self.x, self.v], self.mean.len(), params, term, |i, [v, xv]: [f64; 2]| {
            self.partial[4 * i..4 * i + 2].copy_from_slice(&split(v));
            self.partial[4 * i + 2..4 * i + 4].copy_from_slice(&split(xv));
        });
    }
}

/// out = r·v − r·mean(v) − (x − mean)·r²·mean(x̂ v).
struct Apply<'a, T> {
    x: &'a [T],
    v: &'a [T],
    mean: &'a [T],
    scale: &'a [T],
    coefficients: &'a [T],
    out: &'a mut [T],
}

impl<T: Real> Kernel for Apply<'_, T> {
    #[inline(always)]
    fn run(self) {
        let c = self.mean.len();
        let params = |i: usize| [self.mean[i], self.scale[i], self.coefficients[i], self.coefficients[c + i]];
        let f = |[x, v]: [T; 2], [mean, r, a, b]: [T; 4]| r * v - a - (x - mean) * b;
        map_columns([self.x, self.v], c, params, f, self.out);
    }
}
