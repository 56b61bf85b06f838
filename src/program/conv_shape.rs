//! The shapes of a convolution.

use crate::tape::windows;

/// Shapes of one convolution: x `[n,h,w,ci]` (NHWC), w `[kh,kw,ci/groups,co]` (HWIO), y
/// `[n,oh,ow,co]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// Images.
    pub n: usize,
    /// Image height in pixels.
    pub h: usize,
    /// Image width in pixels.
    pub w: usize,
    /// Channels in.
    pub ci: usize,
    /// Kernel height.
    pub kh: usize,
    /// Kernel width.
    pub kw: usize,
    /// Channels out.
    pub co: usize,
    /// Step between output pixels, in input pixels, in both directions (at least 1).
    pub stride: usize,
    /// Rows and columns of zeros around the image on every side.
    pub pad: usize,
    /// Groups of neighbouring channels, each with weights of its own; it divides `ci` and `co`.
    pub groups: usize,
}

impl ConvShape {
    /// Height of the output; 0 if the kernel does not fit in the padded image.
    pub fn oh(&self) -> usize {
        windows(self.h + 2 * self.pad, self.kh, self.stride).unwrap_or(0)
    }
    /// Width of the output; 0 if the kernel does not fit in the padded image.
    pub fn ow(&self) -> usize {
        windows(self.w + 2 * self.pad, self.kw, self.stride).unwrap_or(0)
    }
    /// Numbers in x.
    pub fn x_len(&self) -> usize {
        self.n * self.h * self.w * self.ci
    }
    /// Numbers in w.
    pub fn w_len(&self) -> usize {
        self.kh * self.kw * self.ci / self.groups * self.co
    }
    /// Numbers in y.
    pub fn y_len(&self) -> usize {
        self.n * self.oh() * self.ow() * self.co
    }
    /// Floating-point operations of any one role, products with padding counted too.
    pub fn flops(&self) -> usize {
        2 * self.y_len() * self.kh * self.kw * self.ci / self.groups
    }
    /// Whether a role's output or the other two arguments are empty, so that there is nothing to
    /// multiply.
    pub fn is_empty(&self) -> bool {
        self.x_len() == 0 || self.w_len() == 0 || self.y_len() == 0
    }
}
