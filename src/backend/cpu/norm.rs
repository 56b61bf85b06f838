//! Batch norm's statistics of x `[rows, c]` over rows (all axes but the last).

use super::columns::{column_sums, partials_len, reduce_blocks, split};
use super::isa::{Isa, Kernel};
use super::real::Real;

/// Numbers of workspace that [`moments`] needs for x `[rows, c]`.
pub fn workspace_len(rows: usize, c: usize) -> usize {
    partials_len(rows, c, 2)
}

/// out `[2c]` = mean, then biased variance of every column.
///
/// Sums run in f64 on differences from the first row, so that one pass over x is enough.
pub fn moments<T: Real>(x: &[T], out: &mut [T], workspace: &mut [T]) {
    let c = out.len() / 2;
    assert!(
        out.len() == 2 * c && (x.is_empty() || c > 0 && x.len().is_multiple_of(c)),
        "batch norm: x is whole rows of {c} channels, moments are two numbers a channel"
    );
    if x.is_empty() {
        return;
    }
    let rows = x.len() / c;
    let (mean, variance) = out.split_at_mut(c);
    let block = |range: std::ops::Range<usize>, partial: &mut [T]| {
        Isa::best().run(Moments { x: &x[range.start * c..range.end * c], shift: &x[..c], partial });
    };
    reduce_blocks::<T, 2>(rows, c, workspace, &block, |i, [d, d2]| {
        let d = d / rows as f64;
        mean[i] = T::from_f64(x[i].to_f64() + d);
        variance[i] = T::from_f64((d2 / rows as f64 - d * d).max(0.0));
    });
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
