//! Max-pooling as a linear map: select the elements at the positions of the maxima, and its
//! transpose.

use super::isa::{Isa, Kernel};
use super::par;
use super::real::Real;
use crate::tape::windows;

/// Windows of `k × k` pixels, `stride` apart, over images `[n,h,w,c]` (NHWC); those that fit whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolShape {
    /// Images.
    pub n: usize,
    /// Image height.
    pub h: usize,
    /// Image width.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// Height and width of a window.
    pub k: usize,
    /// Step between windows.
    pub stride: usize,
}

impl PoolShape {
    /// Rows of windows.
    pub fn oh(&self) -> usize {
        windows(self.h, self.k, self.stride).unwrap_or(0)
    }
    /// Columns of windows.
    pub fn ow(&self) -> usize {
        windows(self.w, self.k, self.stride).unwrap_or(0)
    }
    /// Numbers in x.
    pub fn x_len(&self) -> usize {
        self.n * self.h * self.w * self.c
    }
    /// Numbers in the selection `[n,oh,ow,c]`.
    pub fn y_len(&self) -> usize {
        self.n * self.oh() * self.ow() * self.c
    }
    fn check(&self, x: usize, y: usize, v: usize, ct: usize) {
        assert!(self.k > 0 && self.stride > 0, "max-pooling {self:?}: empty windows or no step");
        assert_eq!(
            (x, y),
            (self.x_len(), self.y_len()),
            "max-pooling {self:?}: lengths of x and of the selection"
        );
        assert_eq!((v, ct), (x, y), "max-pooling {self:?}: lengths of the arguments");
    }
}

/// out `[n,oh,ow,c]` = v `[n,h,w,c]` at the position of x's maximum in every window.
/// `select(s, x, x, ·)` is max-pooling.
pub fn select<T: Real>(s: &PoolShape, v: &[T], x: &[T], out: &mut [T]) {
    s.check(x.len(), out.len(), v.len(), out.len());
    if out.is_empty() {
        return;
    }
    let image = s.h * s.w * s.c;
    par::for_each_chunk(out, s.oh() * s.ow() * s.c, &|n, out| {
        let (v, x) = (&v[n * image..][..image], &x[n * image..][..image]);
        Isa::best().run(Select { s, v, x, out });
    });
}

/// The transpose of [`select`] in v: out `[n,h,w,c]` = for every position, the sum of ct
/// `[n,oh,ow,c]` over the windows that have their maximum there; 0 elsewhere.
pub fn unselect<T: Real>(s: &PoolShape, ct: &[T], x: &[T], out: &mut [T]) {
    s.check(x.len(), ct.len(), out.len(), ct.len());
    let (image, windows) = (s.h * s.w * s.c, s.oh() * s.ow() * s.c);
    if out.is_empty() {
        return;
    }
    par::for_each_chunk(out, image, &|n, out| {
        let (ct, x) = (&ct[n * windows..][..windows], &x[n * image..][..image]);
        Isa::best().run(Unselect { s, ct, x, out });
    });
}

/// Channels that a task looks at together: loops over lanes, without branches, become vector
/// instructions.
const LANES: usize = 16;

/// For every window of an image and every group of channels: the place in x of its first pixel, the
/// place in the selection, and how many channels.
///
/// Not a function that takes a closure: see [`Kernel`].
struct Groups<'a> {
    s: &'a PoolShape,
    rows: usize,
    cols: usize,
    row: usize,
    col: usize,
    channel: usize,
}

impl Iterator for Groups<'_> {
    type Item = (usize, usize, usize);

    #[inline(always)]
    fn next(&mut self) -> Option<(usize, usize, usize)> {
        let s = self.s;
        if self.channel >= s.c {
            (self.col, self.channel) = (self.col + 1, 0);
        }
        if self.col == self.cols {
            (self.row, self.col) = (self.row + 1, 0);
        }
        if self.row == self.rows {
            return None;
        }
        let (row, col, c) = (self.row, self.col, self.channel);
        self.channel += LANES;
        let from = (row * s.w + col) * s.stride * s.c + c;
        Some((from, (row * self.cols + col) * s.c + c, LANES.min(s.c - c)))
    }
}

impl PoolShape {
    #[inline(always)]
    fn groups(&self) -> Groups<'_> {
        Groups { s: self, rows: self.oh(), cols: self.ow(), row: 0, col: 0, channel: 0 }
    }
}

/// `n` numbers from `at` on, all [`LANES`] if `FULL`; the rest stay zero.
#[inline(always)]
fn lanes<T: Real, const FULL: bool>(x: &[T], at: usize, n: usize) -> [T; LANES] {
    if FULL {
        return x[at..at + LANES].try_into().expect("LANES numbers");
    }
    let mut out = [T::ZERO; LANES];
    out[..n].copy_from_slice(&x[at..at + n]);
    out
}

/// The first `n` of `from` to `at`, all if `FULL`.
#[inline(always)]
fn store<T: Real, const FULL: bool>(to: &mut [T], at: usize, n: usize, from: [T; LANES]) {
    let n = if FULL { LANES } else { n };
    to[at..at + n].copy_from_slice(&from[..n]);
}

/// Whether `v` takes the place of `max`: larger, or the first NaN.
#[inline(always)]
#[allow(clippy::eq_op)]
fn takes<T: Real>(v: T, max: T) -> bool {
    (v > max) | ((v != v) & (max == max))
}

struct Select<'a, T> {
    s: &'a PoolShape,
    v: &'a [T],
    x: &'a [T],
    out: &'a mut [T],
}

impl<T: Real> Kernel for Select<'_, T> {
    #[inline(always)]
    fn run(self) {
        // Loops over the usual windows are unrolled.
        match self.s.k {
            2 => self.of(2),
            k => self.of(k),
        }
    }
}

impl<T: Real> Select<'_, T> {
    #[inline(always)]
    fn of(mut self, k: usize) {
        for (from, to, n) in self.s.groups() {
            // Two loops, each without branches over lanes that may not be there.
            if n == LANES { self.group::<true>(k, from, to, n) } else { self.group::<false>(k, from, to, n) }
        }
    }

    #[inline(always)]
    fn group<const FULL: bool>(&mut self, k: usize, from: usize, to: usize, n: usize) {
        let Select { s, v, x, out } = self;
        let (mut max, mut best) = (lanes::<T, FULL>(x, from, n), lanes::<T, FULL>(v, from, n));
        for a in 0..k {
            for b in 0..k {
                let at = from + (a * s.w + b) * s.c;
                let (x, v) = (lanes::<T, FULL>(x, at, n), lanes::<T, FULL>(v, at, n));
                for l in 0..LANES {
                    let better = takes(x[l], max[l]);
                    max[l] = if better { x[l] } else { max[l] };
                    best[l] = if better { v[l] } else { best[l] };
                }
            }
        }
        store::<T, FULL>(out, to, n, best);
    }
}

struct Unselect<'a, T> {
    s: &'a PoolShape,
    ct: &'a [T],
    x: &'a [T],
    out: &'a mut [T],
}

impl<T: Real> Kernel for Unselect<'_, T> {
    #[inline(always)]
    fn run(self) {
        // Where windows do not overlap, each pixel is written once.
        match (self.s.k, self.s.stride) {
            (2, 2) => self.of(2, false),
            (k, stride) => self.of(k, stride < k),
        }
    }
}

impl<T: Real> Unselect<'_, T> {
    #[inline(always)]
    fn of(mut self, k: usize, overlap: bool) {
        let s = self.s;
        if overlap || s.stride > k || !(s.h.is_multiple_of(k) && s.w.is_multiple_of(k)) {
            self.out.fill(T::ZERO);
        }
        for (from, to, n) in s.groups() {
            if n == LANES {
                self.group::<true>((k, overlap), from, to, n);
            } else {
                self.group::<false>((k, overlap), from, to, n);
            }
        }
    }

    #[inline(always)]
    fn group<const FULL: bool>(&mut self, (k, overlap): (usize, bool), from: usize, to: usize, n: usize) {
        let Unselect { s, ct, x, out } = self;
        let (mut max, mut arg) = (lanes::<T, FULL>(x, from, n), [0u32; LANES]);
        for a in 0..k {
            for b in 0..k {
                let x = lanes::<T, FULL>(x, from + (a * s.w + b) * s.c, n);
                for l in 0..LANES {
                    let better = takes(x[l], max[l]);
                    max[l] = if better { x[l] } else { max[l] };
                    arg[l] = if better { (a * k + b) as u32 } else { arg[l] };
                }
            }
        }
        let ct = lanes::<T, FULL>(ct, to, n);
        for a in 0..k {
            for b in 0..k {
                let at = from + (a * s.w + b) * s.c;
                let mut sum = if overlap { lanes::<T, FULL>(out, at, n) } else { [T::ZERO; LANES] };
                for l in 0..LANES {
                    sum[l] += if arg[l] == (a * k + b) as u32 { ct[l] } else { T::ZERO };
                }
                store::<T, FULL>(out, at, n, sum);
            }
        }
    }
}
