//! What batch norm and sums share: passes over a matrix `[rows, c]` with numbers of each column at
//! hand.
//!
//! A narrow matrix is read as one `WIDTH` columns wide (c divides it, so the columns just repeat):
//! loops are then of constant length and vectorise for every c. Sums run in f64, in an order that
//! depends on the shape only.

#![allow(clippy::needless_range_loop, reason = "lanes of several arrays go together")]

use super::par;
use super::real::Real;

/// Columns that a pass handles at a time.
pub(super) const WIDTH: usize = 32;
/// Least numbers in a block of rows, and most blocks.
const BLOCK_LEN: usize = 1 << 15;
const MAX_BLOCKS: usize = 64;

/// Blocks of rows that `[rows, c]` is cut into: (rows of a block, blocks).
pub(super) fn blocks(rows: usize, c: usize) -> (usize, usize) {
    let len = (rows * c).div_ceil(MAX_BLOCKS).max(BLOCK_LEN);
    // Whole multiples of WIDTH rows, so that narrow matrices start every block on a whole chunk.
    let block = len.div_ceil(c.max(1)).next_multiple_of(WIDTH);
    (block, rows.div_ceil(block).max(1))
}

/// Calls `out(column, Σ_rows term(the inputs' numbers there, params(column)))` for every column of
/// `[rows, c]`.
#[inline(always)]
pub(super) fn column_sums<T: Real, const A: usize, const Q: usize>(
    inputs: [&[T]; A],
    c: usize,
    params: impl Fn(usize) -> [f64; 2],
    term: impl Fn([f64; A], [f64; 2]) -> [f64; Q] + Copy,
    mut out: impl FnMut(usize, [f64; Q]),
) {
    let len = inputs[0].len();
    let mut p = [[0.0; WIDTH]; 2];
    if WIDTH.is_multiple_of(c) {
        for l in 0..WIDTH {
            [p[0][l], p[1][l]] = params(l % c);
        }
        let acc = strip(inputs, 0, WIDTH, WIDTH, len, &p, term);
        for column in 0..c {
            out(column, std::array::from_fn(|q| (column..WIDTH).step_by(c).map(|l| acc[q][l]).sum()));
        }
        return;
    }
    for start in (0..c).step_by(WIDTH) {
        let width = WIDTH.min(c - start);
        for l in 0..width {
            [p[0][l], p[1][l]] = params(start + l);
        }
        let acc = strip(inputs, start, c, width, len, &p, term);
        for l in 0..width {
            out(start + l, std::array::from_fn(|q| acc[q][l]));
        }
    }
}

/// Sums of a strip of `width` columns, `stride` numbers from row to row, up to number `len`.
#[inline(always)]
fn strip<T: Real, const A: usize, const Q: usize>(
    inputs: [&[T]; A],
    start: usize,
    stride: usize,
    width: usize,
    len: usize,
    p: &[[f64; WIDTH]; 2],
    term: impl Fn([f64; A], [f64; 2]) -> [f64; Q],
) -> [[f64; WIDTH]; Q] {
    let mut acc = [[0.0; WIDTH]; Q];
    let mut at = start;
    while at < len {
        let width = width.min(len - at);
        if width == WIDTH {
            let rows =
                inputs.map(|x| -> &[T; WIDTH] { x[at..at + WIDTH].try_into().expect("WIDTH numbers") });
            for l in 0..WIDTH {
                let terms = term(rows.map(|x| x[l].to_f64()), [p[0][l], p[1][l]]);
                for q in 0..Q {
                    acc[q][l] += terms[q];
                }
            }
        } else {
            for l in 0..width {
                let terms = term(inputs.map(|x| x[at + l].to_f64()), [p[0][l], p[1][l]]);
                for q in 0..Q {
                    acc[q][l] += terms[q];
                }
            }
        }
        at += stride;
    }
    acc
}

/// An f64 kept as two numbers of type `T`, so that partial sums in an f32 workspace lose nothing
/// that matters.
#[inline(always)]
pub(super) fn split<T: Real>(sum: f64) -> [T; 2] {
    let high = T::from_f64(sum);
    if !high.is_finite() {
        return [high, T::ZERO];
    }
    [high, T::from_f64(sum - high.to_f64())]
}

/// Numbers of workspace that partial sums of `q` quantities per column take.
pub(super) fn partials_len(rows: usize, c: usize, q: usize) -> usize {
    blocks(rows, c).1 * 2 * q * c
}

/// Runs `block(range of rows, partial)` for every block in parallel, then hands the totals of each
/// column, summed in block order, to `total(column, sums)`. `partial` is `[c][Q][2]`, written with
/// [`split`].
pub(super) fn reduce_blocks<T: Real, const Q: usize>(
    rows: usize,
    c: usize,
    partials: &mut [T],
    block: &(impl Fn(std::ops::Range<usize>, &mut [T]) + Sync),
    mut total: impl FnMut(usize, [f64; Q]),
) {
    let (len, count) = blocks(rows, c);
    let partials = &mut partials[..count * 2 * Q * c];
    if c == 0 {
        return;
    }
    par::for_each_chunk(partials, 2 * Q * c, &|i, partial| {
        block(i * len..((i + 1) * len).min(rows), partial)
    });
    for column in 0..c {
        total(
            column,
            std::array::from_fn(|q| {
                let at = |i: usize| ((i * c + column) * Q + q) * 2;
                (0..count).map(|i| partials[at(i)].to_f64() + partials[at(i) + 1].to_f64()).sum()
            }),
        );
    }
}
