//! Register tiles: the two inner loops that all the time goes to.

use super::BLOCK;
use crate::backend::cpu::isa::{Kernel, Simd};
use crate::backend::cpu::real::Real;

/// One tap: where it finds pixel 0 in the padded copy, and where its weights for the block start in
/// the panel.
#[derive(Clone, Copy, Default)]
pub(super) struct Tap {
    pub x: usize,
    pub w: usize,
}

/// What a correlation tile reads and writes, apart from its place.
#[derive(Clone, Copy)]
pub(super) struct Correlate<'a, T> {
    pub taps: &'a [Tap],
    /// Channels to sum over (at most [`BLOCK`]).
    pub channels: usize,
    /// The packed panel: rows of `NV` vectors.
    pub panel: *const T,
    /// Numbers between neighbouring output pixels.
    pub y_pixel: usize,
    /// Lanes of the last vector that are channels of the output.
    pub lanes: usize,
    pub accumulate: bool,
}

/// y[j, ·] (+)= Σ_tap Σ_i x[tap.x + j·BLOCK + i] · panel[tap.w + i·width + ·] for `R` pixels j and
/// `NV` vectors. SPREAD: x has a number for each lane, x[tap.x + j·BLOCK + ·], of one channel.
///
/// # Safety
/// The machine has `S`; `x` is good for every tap, `R` pixels and `channels`, or a vector if
/// SPREAD, where `channels` and NV are 1; `panel` for every tap and `channels` rows; `y` for `R`
/// pixels `y_pixel` apart, of `NV` vectors with `lanes` in the last.
#[inline(always)]
unsafe fn correlate<S: Simd, const R: usize, const NV: usize, const SPREAD: bool>(
    t: &Correlate<S::Elem>,
    x: *const S::Elem,
    y: *mut S::Elem,
) {
    // SAFETY: offsets stay within what the caller vouches for.
    unsafe {
        let mut acc = [[S::splat(S::Elem::ZERO); NV]; R];
        if t.accumulate {
            for (j, acc) in acc.iter_mut().enumerate() {
                *acc = read(y.add(j * t.y_pixel), t.lanes);
            }
        }
        for tap in t.taps {
            let mut x = x.add(tap.x);
            let mut w = t.panel.add(tap.w);
            for _ in 0..t.channels {
                let mut wv = [S::splat(S::Elem::ZERO); NV];
                for (v, wv) in wv.iter_mut().enumerate() {
                    *wv = S::load(w.add(v * S::LANES));
                }
                for (j, acc) in acc.iter_mut().enumerate() {
                    let xj = x.add(j * BLOCK);
                    let xj = if SPREAD { S::load(xj) } else { S::splat(*xj) };
                    for (acc, wv) in acc.iter_mut().zip(wv) {
                        *acc = acc.add_product(xj, wv);
                    }
                }
                x = x.add(1);
                w = w.add(NV * S::LANES);
            }
        }
        for (j, acc) in acc.iter().enumerate() {
            write(acc, y.add(j * t.y_pixel), t.lanes);
        }
    }
}

/// The pixels that a weight-gradient tile sums over, as three nested loops: numbers between
/// neighbours in the padded copy (a pixel is [`BLOCK`] apart there) and in dy.
#[derive(Clone, Copy)]
pub(super) struct Pixels {
    pub units: usize,
    pub x_unit: usize,
    pub dy_unit: usize,
    pub rows: usize,
    pub x_row: usize,
    pub dy_row: usize,
    pub cols: usize,
    pub dy_pixel: usize,
    /// Lanes of the last vector that are channels of dy.
    pub lanes: usize,
}

/// dw[i, ·] += Σ_pixels x[pixel, i] · dy[pixel, ·] for `R` channels i and `NV` vectors. SPREAD: x
/// has a number for each lane, x[pixel + i, ·], and i are taps.
///
/// # Safety
/// The machine has `S`; `x` and `dy` are good for all the pixels with `R` channels and `NV`
/// vectors, or x with a vector of `R` pixels from each on if SPREAD, where NV is 1; `dw` for `R`
/// rows `dw_row` apart; all lanes of them are channels if `FULL`, otherwise NV is 1 and `lanes`
/// are.
#[inline(always)]
unsafe fn outer<S: Simd, const R: usize, const NV: usize, const FULL: bool, const SPREAD: bool>(
    p: &Pixels,
    x: *const S::Elem,
    dy: *const S::Elem,
    dw: *mut S::Elem,
    dw_row: usize,
) {
    // SAFETY: offsets stay within what the caller vouches for.
    unsafe {
        let mut acc = [[S::splat(S::Elem::ZERO); NV]; R];
        for (i, acc) in acc.iter_mut().enumerate() {
            *acc = read(dw.add(i * dw_row), p.lanes);
        }
        for unit in 0..p.units {
            for row in 0..p.rows {
                let mut x = x.add(unit * p.x_unit + row * p.x_row);
                let mut dy = dy.add(unit * p.dy_unit + row * p.dy_row);
                for _ in 0..p.cols {
                    let mut v = [S::splat(S::Elem::ZERO); NV];
                    for (k, v) in v.iter_mut().enumerate() {
                        let from = dy.add(k * S::LANES);
                        *v = if FULL { S::load(from) } else { S::load_first(from, p.lanes) };
                    }
                    for (i, acc) in acc.iter_mut().enumerate() {
                        let xi = if SPREAD { S::load(x.add(i * BLOCK)) } else { S::splat(*x.add(i)) };
                        for (acc, v) in acc.iter_mut().zip(v) {
                            *acc = acc.add_product(xi, v);
                        }
                    }
                    x = x.add(BLOCK);
                    dy = dy.add(p.dy_pixel);
                }
            }
        }
        for (i, acc) in acc.iter().enumerate() {
            write(acc, dw.add(i * dw_row), p.lanes);
        }
    }
}

#[inline(always)]
pub(in crate::backend::cpu) unsafe fn read<S: Simd, const NV: usize>(
    from: *const S::Elem,
    lanes: usize,
) -> [S; NV] {
    // SAFETY: the caller vouches for NV vectors with `lanes` in the last.
    unsafe {
        let mut v = [S::splat(S::Elem::ZERO); NV];
        for (k, v) in v.iter_mut().enumerate() {
            let from = from.add(k * S::LANES);
            *v = if k + 1 < NV || lanes == S::LANES { S::load(from) } else { S::load_first(from, lanes) };
        }
        v
    }
}

#[inline(always)]
pub(in crate::backend::cpu) unsafe fn write<S: Simd, const NV: usize>(
    v: &[S; NV],
    to: *mut S::Elem,
    lanes: usize,
) {
    // SAFETY: the caller vouches for NV vectors with `lanes` in the last.
    unsafe {
        for (k, v) in v.iter().enumerate() {
            let to = to.add(k * S::LANES);
            if k + 1 < NV || lanes == S::LANES { v.store(to) } else { v.store_first(to, lanes) }
        }
    }
}

/// Cuts `n` into the fewest, nearly equal pieces of at most `most`: (start, length) of each.
///
/// An iterator and not a callback: what a closure calls is not sure to be inlined into the function
/// that carries the instruction set.
#[inline(always)]
pub(in crate::backend::cpu) fn nearly_equal(n: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let pieces = n.div_ceil(most).max(1);
    let (len, longer) = (n / pieces, n % pieces);
    (0..pieces).map(move |i| (i * len + i.min(longer), len + usize::from(i < longer)))
}

/// [`correlate`] as a function of its own: inlined side by side, the many tile sizes take minutes
/// to compile.
pub(super) struct CorrelateTile<'a, S: Simd, const R: usize, const NV: usize, const SPREAD: bool> {
    pub t: &'a Correlate<'a, S::Elem>,
    pub x: *const S::Elem,
    pub y: *mut S::Elem,
}

impl<S: Simd, const R: usize, const NV: usize, const SPREAD: bool> Kernel
    for CorrelateTile<'_, S, R, NV, SPREAD>
{
    #[inline(always)]
    fn run(self) {
        // SAFETY: who makes one keeps what `correlate` asks for.
        unsafe { correlate::<S, R, NV, SPREAD>(self.t, self.x, self.y) }
    }
}

/// [`outer`] as a function of its own.
pub(super) struct OuterTile<
    'a,
    S: Simd,
    const R: usize,
    const NV: usize,
    const FULL: bool,
    const SPREAD: bool = false,
> {
    pub p: &'a Pixels,
    pub x: *const S::Elem,
    pub dy: *const S::Elem,
    pub dw: *mut S::Elem,
    pub dw_row: usize,
}

impl<S: Simd, const R: usize, const NV: usize, const FULL: bool, const SPREAD: bool> Kernel
    for OuterTile<'_, S, R, NV, FULL, SPREAD>
{
    #[inline(always)]
    fn run(self) {
        // SAFETY: who makes one keeps what `outer` asks for.
        unsafe { outer::<S, R, NV, FULL, SPREAD>(self.p, self.x, self.dy, self.dw, self.dw_row) }
    }
}

/// Runs the instance of a tile for a number of rows known only at run time.
macro_rules! rows {
    ($r:expr, $most:expr, [$($n:literal)*], $R:ident => $body:expr) => {
        match $r {
            // The guard is constant: tiles that the register file has no room for are never
            // compiled.
            $($n if const { $n <= $most } => { const $R: usize = $n; $body })*
            rows => unreachable!("a tile of {rows} rows"),
        }
    };
}
pub(in crate::backend::cpu) use rows;
