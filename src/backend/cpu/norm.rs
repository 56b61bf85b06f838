//! Batch norm's statistics of x `[rows, c]` over rows (all axes but the last).

use super::columns::{blocks, column_sums, split};
use super::isa::{Isa, Kernel};
use super::par;
use super::real::Real;

/// Numbers of workspace that [`moments`] needs for x `[rows, c]`.
pub fn workspace_len(rows: usize, c: usize) -> usize {
    blocks(rows, c).1 * partial_len(c)
}

/// Numbers that [`piece`] leaves.
pub fn partial_len(c: usize) -> usize {
    6 * c
}

/// out `[2c]` = mean, then biased variance of every column.
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
    let (len, count) = blocks(rows, c);
    let partials = &mut workspace[..count * partial_len(c)];
    par::for_each_chunk(partials, partial_len(c), &|i, partial| {
        piece(&x[i * len * c..((i + 1) * len).min(rows) * c], partial);
    });
    total(partials, out);
}

/// Of each column of some rows: how many they are, the mean, and the sum of squared deviations from
/// it.
///
/// Sums run in f64 on differences from the first row, so that one pass over x is enough.
pub fn piece<T: Real>(x: &[T], partial: &mut [T]) {
    let c = partial.len() / partial_len(1);
    Isa::best().run(Moments { x, shift: &x[..c], partial });
}

/// Moments of all rows from those of their pieces, in the order of these.
pub fn total<T: Real>(partials: &[T], out: &mut [T]) {
    let c = out.len() / 2;
    let (mean, variance) = out.split_at_mut(c);
    for (column, (mean, variance)) in mean.iter_mut().zip(variance).enumerate() {
        let pieces = partials.chunks_exact(partial_len(c)).map(|partial| {
            let number = |i: usize| partial[6 * column + i].to_f64() + partial[6 * column + i + 1].to_f64();
            [number(0), number(2), number(4)]
        });
        // From the first piece's mean: where all are the same, so is the mean.
        let first = pieces.clone().next().map_or(0.0, |[_, mean, _]| mean);
        let rows: f64 = pieces.clone().map(|[rows, ..]| rows).sum();
        let shifted = pieces.clone().map(|[rows, mean, _]| rows * (mean - first)).sum::<f64>() / rows;
        let squares: f64 =
            pieces.map(|[rows, mean, squares]| squares + rows * (mean - first - shifted).powi(2)).sum();
        *mean = T::from_f64(first + shifted);
        *variance = T::from_f64(squares / rows);
    }
}

struct Moments<'a, T> {
    x: &'a [T],
    shift: &'a [T],
    partial: &'a mut [T],
}

impl<T: Real> Kernel for Moments<'_, T> {
    #[inline(always)]
    fn run(self) {
        let c = self.shift.len();
        let rows = (self.x.len() / c) as f64;
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
                let d = d / rows;
                let squares = d2 - rows * d * d;
                // Not `max`: what has left the range of numbers is not 0.
                let squares = if squares < 0.0 { 0.0 } else { squares };
                let numbers = [rows, self.shift[i].to_f64() + d, squares];
                self.partial[6 * i..6 * i + 6].copy_from_slice(numbers.map(split).as_flattened());
            },
        );
    }
}
