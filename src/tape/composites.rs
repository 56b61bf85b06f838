//! What layers are made of besides the operations themselves: written with them, so that every
//! machine has it, with all of its derivatives.

use super::op::Unary;
use super::record::{Tape, Var};
use crate::error::{Error, Result};

impl Tape {
    /// Means over windows of `size`×`size` pixels side by side: `[n,h,w,c]` gives
    /// `[n,h/size,w/size,c]`. The mean of whole images is [`Tape::mean`] over the axes 1 and 2.
    ///
    /// # Errors
    /// If `x` is not NHWC, or `size` does not divide height and width.
    pub fn avg_pool(&mut self, x: Var, size: usize) -> Result<Var> {
        let shape = self.shape_of("average pooling", x)?;
        let fits = |extent: usize| extent > 0 && size > 0 && extent.is_multiple_of(size);
        let (n, h, w, c) = match shape[..] {
            [n, h, w, c] if fits(h) && fits(w) => (n, h, w, c),
            _ => {
                let detail = format!("height and width of NHWC must be multiples of {size}, got {shape}");
                return Err(Error::shape("average pooling", detail));
            }
        };
        let (p, q) = (h / size, w / size);
        let rows = self.reshape(x, [n * p, size, w * c])?;
        let rows = self.sum(rows, 1, 2)?;
        let windows = self.reshape(rows, [n * p * q, size, c])?;
        let windows = self.sum(windows, 1, 2)?;
        let means = self.scale(windows, 1.0 / (size * size) as f64)?;
        self.reshape(means, [n, p, q, c])
    }

    /// `(x − mean)·(variance + ε)^{-1/2}` over the last `axes` axes: layer norm without scale and
    /// bias.
    ///
    /// # Errors
    /// If `axes` is 0, or `x` has fewer.
    pub fn layer_normalise(&mut self, x: Var, axes: usize, eps: f64) -> Result<Var> {
        let shape = self.shape_of("layer norm", x)?;
        match shape.len().checked_sub(axes) {
            Some(from) if axes > 0 => self.standardise(x, &[(from, shape.len())], eps),
            _ => {
                let detail = format!("the last {axes} axes must be at least 1 and at most all, got {shape}");
                Err(Error::shape("layer norm", detail))
            }
        }
    }

    /// `(x − mean)·(variance + ε)^{-1/2}` of `[n, …, c]` over each sample's numbers in each of
    /// `groups` groups of neighbouring channels: group norm without scale and bias. As many groups
    /// as channels are instance norm.
    ///
    /// # Errors
    /// If `x` has fewer than two axes, or `groups` does not divide its channels.
    pub fn group_normalise(&mut self, x: Var, groups: usize, eps: f64) -> Result<Var> {
        let shape = self.shape_of("group norm", x)?;
        let split = match shape[..] {
            [n, ref rest @ .., c] if groups > 0 && c.is_multiple_of(groups) => {
                [n, rest.iter().product(), groups, c / groups]
            }
            _ => {
                let detail = format!("the channels of [n, …, c] must be a multiple of {groups}, got {shape}");
                return Err(Error::shape("group norm", detail));
            }
        };
        let split = self.reshape(x, split)?;
        // The long axis first: what is left for the second range is small.
        let xhat = self.standardise(split, &[(1, 2), (2, 3)], eps)?;
        self.reshape(xhat, shape)
    }

    /// `x / (1−p)` where `noise > p`, else 0, one shape: with `noise` uniform in 0..1, each entry
    /// is dropped with probability `p`, and the mean stays (Srivastava et al. 2014, in the form
    /// that needs nothing in testing).
    ///
    /// # Errors
    /// If `p` is not in 0..1, or the shapes differ.
    pub fn dropout(&mut self, x: Var, noise: Var, p: f64) -> Result<Var> {
        if !(0.0..1.0).contains(&p) {
            let detail = format!("the share dropped must be at least 0 and less than 1, got {p}");
            return Err(Error::Value { op: "dropout".into(), detail });
        }
        let above = self.offset(noise, -p)?;
        let kept = self.mask(x, above)?;
        self.scale(kept, 1.0 / (1.0 - p))
    }

    /// `(variance + ε)^{-1/2}`.
    pub(crate) fn inverse_deviation(&mut self, variance: Var, eps: f64) -> Result<Var> {
        let shifted = self.offset(variance, eps)?;
        let deviation = self.unary(Unary::Sqrt, shifted)?;
        self.unary(Unary::Recip, deviation)
    }

    /// `(x − mean)·(variance + ε)^{-1/2}` over ranges of axes that are summed away one after the
    /// other, each counted in what the sums before it leave.
    fn standardise(&mut self, x: Var, over: &[(usize, usize)], eps: f64) -> Result<Var> {
        let full = self.shape_of("standardise", x)?;
        let mut shapes = vec![full.clone()];
        for (from, to) in over {
            shapes.push(shapes[shapes.len() - 1].without(*from..*to));
        }
        let mean = |tape: &mut Tape, x: Var| {
            let sum = over.iter().try_fold(x, |x, (from, to)| tape.sum(x, *from, *to))?;
            let count = full.count() as f64 / tape.shape(sum).count().max(1) as f64;
            tape.scale(sum, 1.0 / count.max(1.0))
        };
        let spread = |tape: &mut Tape, m: Var| {
            let mut back = over.iter().zip(&shapes).rev();
            back.try_fold(m, |m, ((from, to), shape)| tape.broadcast(m, *from, *to, shape))
        };
        let m = mean(self, x)?;
        let m = spread(self, m)?;
        let centred = self.sub(x, m)?;
        let square = self.mul(centred, centred)?;
        let variance = mean(self, square)?;
        let r = self.inverse_deviation(variance, eps)?;
        let r = spread(self, r)?;
        self.mul(centred, r)
    }
}
