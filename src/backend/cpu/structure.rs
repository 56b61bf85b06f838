//! Kernels that only move numbers: the parameter-free shortcut of residual networks, and the
//! loading of a batch.

use super::par;
use super::real::Real;
use crate::tape::Scalar;

/// Every `stride`-th pixel of images `[n,h,w,c]`, with `before` and `after` channels of zeros
/// around: ResNet's option-A shortcut. The output is
/// `[n, ⌈h/stride⌉, ⌈w/stride⌉, before + c + after]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubsampleShape {
    /// Images.
    pub n: usize,
    /// Image height.
    pub h: usize,
    /// Image width.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// Step in both directions.
    pub stride: usize,
    /// Channels of zeros before the image's own.
    pub before: usize,
    /// Channels of zeros after the image's own.
    pub after: usize,
}

impl SubsampleShape {
    /// Output height.
    pub fn oh(&self) -> usize {
        self.h.div_ceil(self.stride)
    }
    /// Output width.
    pub fn ow(&self) -> usize {
        self.w.div_ceil(self.stride)
    }
    /// Output channels.
    pub fn oc(&self) -> usize {
        self.before + self.c + self.after
    }
    /// Numbers in the input.
    pub fn x_len(&self) -> usize {
        self.n * self.h * self.w * self.c
    }
    /// Numbers in the output.
    pub fn y_len(&self) -> usize {
        self.n * self.oh() * self.ow() * self.oc()
    }
    fn check(&self, x: usize, y: usize) {
        assert!(self.stride > 0, "subsample {self:?}: stride 0");
        assert_eq!((x, y), (self.x_len(), self.y_len()), "subsample {self:?}: lengths");
    }
}

/// y = x subsampled and padded with channels of zeros.
pub fn subsample<T: Real>(s: &SubsampleShape, x: &[T], y: &mut [T]) {
    s.check(x.len(), y.len());
    if y.is_empty() {
        return;
    }
    let image = s.h * s.w * s.c;
    par::for_each_chunk(y, s.oh() * s.ow() * s.oc(), &|n, y| {
        let x = &x[n * image..][..image];
        for (pixel, y) in y.chunks_exact_mut(s.oc()).enumerate() {
            let (p, q) = (pixel / s.ow() * s.stride, pixel % s.ow() * s.stride);
            y[..s.before].fill(T::ZERO);
            y[s.before..s.before + s.c].copy_from_slice(&x[(p * s.w + q) * s.c..][..s.c]);
            y[s.before + s.c..].fill(T::ZERO);
        }
    });
}

/// The transpose of [`subsample`]: x has y's own channels at every `stride`-th pixel and zeros
/// elsewhere.
pub fn embed<T: Real>(s: &SubsampleShape, y: &[T], x: &mut [T]) {
    s.check(x.len(), y.len());
    if x.is_empty() {
        return;
    }
    let image = s.oh() * s.ow() * s.oc();
    par::for_each_chunk(x, s.h * s.w * s.c, &|n, x| {
        let y = &y[n * image..][..image];
        for (pixel, x) in x.chunks_exact_mut(s.c).enumerate() {
            let (h, w) = (pixel / s.w, pixel % s.w);
            if h % s.stride == 0 && w % s.stride == 0 {
                let at = (h / s.stride * s.ow() + w / s.stride) * s.oc() + s.before;
                x.copy_from_slice(&y[at..][..s.c]);
            } else {
                x.fill(T::ZERO);
            }
        }
    });
}

/// Where a batch comes from: images `[N,h,w,c]` of bytes (NHWC).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GatherShape {
    /// Image height.
    pub h: usize,
    /// Image width.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// Pixels of reflection added on every side before cropping back (less than h and w); 0: none.
    pub pad: usize,
}

/// Channels whose 256 possible values are tabulated: as many as images have.
const MAX_CHANNELS: usize = 4;

/// x `[n,h,w,c]` = (v/255 − mean) / std for the n chosen images, cropped and flipped.
///
/// `samples` holds (index, dx, dy, flip) for each: the image is reflected outwards by `pad` pixels
/// (the edge pixel is not repeated), the window that is shifted by `dx` columns and `dy` rows
/// (−pad..=pad) is cut out, and mirrored left to right if flip ≠ 0; (index, 0, 0, 0) is the image
/// as it is. `mean` and `std` have one number a channel, in units of pixel/255.
///
/// # Panics
/// If an index, dx or dy is out of range, or a length is not what the shape says.
pub fn gather<T: Real>(
    s: &GatherShape,
    images: &[u8],
    samples: &[[i32; 4]],
    mean: &[Scalar],
    std: &[Scalar],
    x: &mut [T],
) {
    let image = s.h * s.w * s.c;
    assert_eq!((mean.len(), std.len()), (s.c, s.c), "gather {s:?}: numbers in mean and std");
    assert_eq!(x.len(), samples.len() * image, "gather {s:?}: length of x for {} samples", samples.len());
    assert!(s.pad == 0 || s.pad < s.h.min(s.w), "gather {s:?}: reflection wider than the image");
    if x.is_empty() {
        return;
    }
    let value = |v: u8, c: usize| T::from_f64((f64::from(v) / 255.0 - mean[c].0) / std[c].0);
    // A byte has 256 values: divisions are done once for each.
    let mut table = [[T::ZERO; 256]; MAX_CHANNELS];
    for (c, table) in table.iter_mut().enumerate().take(s.c) {
        for (v, entry) in (0..=u8::MAX).zip(table) {
            *entry = value(v, c);
        }
    }
    let table = &table;
    par::for_each_chunk(x, image, &|n, x| {
        let [index, dx, dy, flip] = samples[n];
        let range = -(s.pad as i32)..=s.pad as i32;
        assert!(
            range.contains(&dx) && range.contains(&dy),
            "gather: crop ({dx}, {dy}) with padding {}",
            s.pad
        );
        let at = usize::try_from(index).expect("gather: a negative index") * image;
        let from = &images[at..][..image];
        if s.c == 1 && (dx, dy, flip) == (0, 0, 0) {
            x.iter_mut().zip(from).for_each(|(x, v)| *x = table[0][usize::from(*v)]);
            return;
        }
        for (row, x) in x.chunks_exact_mut(s.w * s.c).enumerate() {
            let line = &from[reflect(row as i32 + dy, s.h) * s.w * s.c..][..s.w * s.c];
            for (col, x) in x.chunks_exact_mut(s.c).enumerate() {
                let col = if flip != 0 { s.w - 1 - col } else { col };
                let pixel = &line[reflect(col as i32 + dx, s.w) * s.c..][..s.c];
                for (c, (x, v)) in x.iter_mut().zip(pixel).enumerate() {
                    *x = table.get(c).map_or_else(|| value(*v, c), |table| table[usize::from(*v)]);
                }
            }
        }
    });
}

/// Index `i` of a line of `n`, reflected into it at the edges.
#[inline(always)]
fn reflect(i: i32, n: usize) -> usize {
    let last = n as i32 - 1;
    let i = i.abs();
    (if i > last { 2 * last - i } else { i }) as usize
}
