//! Max-pooling as a linear map: select the elements at the positions of the maxima, and its
//! transpose.

use super::isa::{Isa, Kernel};
use super::par;
use super::real::Real;

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
        (self.h + self.stride).saturating_sub(self.k) / self.stride
    }
    /// Columns of windows.
    pub fn ow(&self) -> usize {
        (self.w + self.stride).saturating_sub(self.k) / self.stride
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

/// Calls `f(place in x of its first pixel, place in the selection, channels)` for every window of
/// an image and every group of channels.
#[inline(always)]
fn each_group(s: &PoolShape, mut f: impl FnMut(usize, usize, usize)) {
    for p in 0..s.oh() {
        for q in 0..s.ow() {
            let from = (p * s.stride * s.w + q * s.stride) * s.c;
            for c in (0..s.c).step_by(LANES) {
                f(from + c, (p * s.ow() + q) * s.c + c, LANES.min(s.c - c));
            }
        }
    }
}

/// Up to [`LANES`] numbers from `at` on; the rest stay zero. Of constant length where it can be.
#[inline(always)]
fn lanes<T: Real>(x: &[T], at: usize, n: usize) -> [T; LANES] {
    if n == LANES {
        return x[at..at + LANES].try_into().expect("LANES numbers");
    }
    let mut out = [T::ZERO; LANES];
    out[..n].copy_from_slice(&x[at..at + n]);
    out
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
        let Select { s, v, x, out } = self;
        each_group(s, |from, to, n| {
            let (mut max, mut best) = (lanes(x, from, n), lanes(v, from, n));
            for t in 1..s.k * s.k {
                let at = from + (t / s.k * s.w + t % s.k) * s.c;
                let (x, v) = (lanes(x, at, n), lanes(v, at, n));
                for l in 0..LANES {
                    let better = takes(x[l], max[l]);
                    max[l] = if better { x[l] } else { max[l] };
                    best[l] = if better { v[l] } else { best[l] };
                }
            }
            out[to..to + n].copy_from_slice(&best[..n]);
        });
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
        let Unselect { s, ct, x, out } = self;
        out.fill(T::ZERO);
        each_group(s, |from, to, n| {
            let (mut max, mut arg) = (lanes(x, from, n), [0u32; LANES]);
            for t in 1..s.k * s.k {
                let x = lanes(x, from + (t / s.k * s.w + t % s.k) * s.c, n);
                for l in 0..LANES {
                    let better = takes(x[l], max[l]);
                    max[l] = if better { x[l] } else { max[l] };
                    arg[l] = if better { t as u32 } else { arg[l] };
                }
            }
            let ct = lanes(ct, to, n);
            for t in 0..s.k * s.k {
                let at = from + (t / s.k * s.w + t % s.k) * s.c;
                let mut sum = lanes(out, at, n);
                for l in 0..LANES {
                    sum[l] += if arg[l] == t as u32 { ct[l] } else { T::ZERO };
                }
                out[at..at + n].copy_from_slice(&sum[..n]);
            }
        });
    }
}
