//! Max-pooling as a linear map: select the elements at the positions of the maxima, and its transpose.

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
    /// The maximum's place in channel `c` of the window at (p, q) of an image: the first in row-major order, as in
    /// PyTorch; a NaN counts as larger than any number.
    #[inline(always)]
    fn argmax<T: Real>(&self, image: &[T], p: usize, q: usize, c: usize) -> usize {
        let first = ((p * self.stride) * self.w + q * self.stride) * self.c + c;
        let mut best = first;
        for a in 0..self.k {
            for b in 0..self.k {
                let at = first + (a * self.w + b) * self.c;
                let (v, max) = (image[at], image[best]);
                #[allow(clippy::eq_op)]
                if v > max || (v != v && max == max) {
                    best = at;
                }
            }
        }
        best
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

/// out `[n,oh,ow,c]` = v `[n,h,w,c]` at the position of x's maximum in every window. `select(s, x, x, ·)` is max-pooling.
pub fn select<T: Real>(s: &PoolShape, v: &[T], x: &[T], out: &mut [T]) {
    s.check(x.len(), out.len(), v.len(), out.len());
    if out.is_empty() {
        return;
    }
    let image = s.h * s.w * s.c;
    par::for_each_chunk(out, s.oh() * s.ow() * s.c, &|n, out| {
        let (v, x) = (&v[n * image..][..image], &x[n * image..][..image]);
        for (window, out) in out.chunks_exact_mut(s.c).enumerate() {
            let (p, q) = (window / s.ow(), window % s.ow());
            for (c, out) in out.iter_mut().enumerate() {
                *out = v[s.argmax(x, p, q, c)];
            }
        }
    });
}

/// The transpose of [`select`] in v: out `[n,h,w,c]` = for every position, the sum of ct `[n,oh,ow,c]` over the windows
/// that have their maximum there; 0 elsewhere.
pub fn unselect<T: Real>(s: &PoolShape, ct: &[T], x: &[T], out: &mut [T]) {
    s.check(x.len(), ct.len(), out.len(), ct.len());
    let (image, windows) = (s.h * s.w * s.c, s.oh() * s.ow() * s.c);
    if out.is_empty() {
        return;
    }
    par::for_each_chunk(out, image, &|n, out| {
        let (ct, x) = (&ct[n * windows..][..windows], &x[n * image..][..image]);
        out.fill(T::ZERO);
        for (window, ct) in ct.chunks_exact(s.c).enumerate() {
            let (p, q) = (window / s.ow(), window % s.ow());
            for (c, ct) in ct.iter().enumerate() {
                out[s.argmax(x, p, q, c)] += *ct;
            }
        }
    });
}
