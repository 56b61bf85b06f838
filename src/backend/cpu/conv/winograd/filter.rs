//! Filters: transformed into panels, and back.

use super::points::{self, MAX_TAPS, across};
use super::tiles::{load_column, store_column};
use crate::backend::cpu::conv::BLOCK;
use crate::backend::cpu::isa::{Kernel, Simd};
use crate::backend::cpu::real::Real;

/// Writes G g Gᵀ of all filters to `width` output channels as panels `[P²][k][width]`.
///
/// TRANSPOSED: filters are turned by half a turn, and their channels in and out change places, as
/// the data gradient wants it.
///
/// # Safety
/// `w` has TAPS²·k·m numbers, `width` (at most two blocks, whole vectors) of the m channels from
/// `first` on are there, and `to` has room.
pub(super) struct Pack<S: Simd, const TAPS: usize, const P: usize> {
    pub w: *const S::Elem,
    /// Channels summed over, and output channels.
    pub k: usize,
    pub m: usize,
    pub transposed: bool,
    pub first: usize,
    pub width: usize,
    pub to: *mut S::Elem,
}

impl<S: Simd, const TAPS: usize, const P: usize> Kernel for Pack<S, TAPS, P> {
    #[inline(always)]
    fn run(self) {
        let Pack { w, k, m, transposed, first, width, to } = self;
        // A block's filters `[TAPS²][BLOCK][width]`.
        let mut turned = [S::Elem::ZERO; MAX_TAPS * MAX_TAPS * BLOCK * 2 * BLOCK];
        for k0 in (0..k).step_by(BLOCK) {
            if transposed {
                let turned = turned[..TAPS * TAPS * BLOCK * width].chunks_exact_mut(BLOCK * width);
                for (row, to) in turned.rev().enumerate() {
                    for i in 0..width {
                        for j in 0..BLOCK {
                            // SAFETY: one of the TAPS²·k·m numbers.
                            to[j * width + i] = unsafe { *w.add((row * m + first + i) * k + k0 + j) };
                        }
                    }
                }
            }
            for j in 0..BLOCK {
                for c in (0..width).step_by(S::LANES) {
                    // SAFETY: as above, with a vector of output channels; `to` has room.
                    unsafe {
                        let (from, tap) = if transposed {
                            (turned.as_ptr().add(j * width + c), BLOCK * width)
                        } else {
                            (w.add((k0 + j) * m + first + c), k * m)
                        };
                        let mut half = [[S::splat(S::Elem::ZERO); P]; TAPS];
                        for (a, half) in half.iter_mut().enumerate() {
                            let mut row = [S::splat(S::Elem::ZERO); TAPS];
                            for (b, v) in row.iter_mut().enumerate() {
                                *v = S::load(from.add((a * TAPS + b) * tap));
                            }
                            *half = points::evaluate::<S, TAPS, P, true>(row);
                        }
                        for b in 0..P {
                            let column = points::evaluate::<S, TAPS, P, true>(across(&half, b));
                            store_column(column, b, to.add((k0 + j) * width + c), k * width);
                        }
                    }
                }
            }
        }
    }
}

/// Writes Gᵀ u G of sums `[P²][rows][width]`, those of a product `product` apart, as filters
/// `[TAPS²][rows]` of `width` channels, rows `to_row` and taps `to_tap` apart.
///
/// # Safety
/// Both memories are that large; `width` is whole vectors.
pub(super) struct Unpack<S: Simd, const TAPS: usize, const P: usize> {
    pub from: *const S::Elem,
    pub product: usize,
    pub rows: usize,
    pub width: usize,
    pub to: *mut S::Elem,
    pub to_row: usize,
    pub to_tap: usize,
}

impl<S: Simd, const TAPS: usize, const P: usize> Kernel for Unpack<S, TAPS, P> {
    #[inline(always)]
    fn run(self) {
        let Unpack { from, product, rows, width, to, to_row, to_tap } = self;
        for i in 0..rows {
            for c in (0..width).step_by(S::LANES) {
                // SAFETY: the maker's.
                unsafe {
                    let from = from.add(i * width + c);
                    let mut half = [[S::splat(S::Elem::ZERO); TAPS]; P];
                    for (b, half) in half.iter_mut().enumerate() {
                        let column = load_column::<S, P>(from, b, product);
                        *half = points::coefficients::<S, TAPS, P, true>(column);
                    }
                    for a in 0..TAPS {
                        let row = points::coefficients::<S, TAPS, P, true>(across(&half, a));
                        for (b, v) in row.into_iter().enumerate() {
                            v.store(to.add((a * TAPS + b) * to_tap + i * to_row + c));
                        }
                    }
                }
            }
        }
    }
}
