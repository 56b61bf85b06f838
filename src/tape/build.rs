//! The operations as methods, and the composites that networks are written with.

use super::op::{Form, GatherSpec, Geometry, Op, Role, Scalar, Strided, Unary, Window};
use super::record::{Tape, Var};
use super::shape::Shape;
use crate::error::{Error, Result};

impl Tape {
    /// The shape of `x`; `asking` names what takes it.
    pub(crate) fn shape_of(&self, asking: &str, x: Var) -> Result<Shape> {
        Ok(self.own(x, || asking.to_owned())?.shape.clone())
    }

    /// `x` as a scalar; `asking` names what takes it.
    pub(crate) fn number(&mut self, asking: &str, x: Var) -> Result<Var> {
        match self.shape_of(asking, x)? {
            shape if shape.count() == 1 => self.reshape(x, []),
            shape => Err(Error::shape(asking, format!("must be one number, got {shape}"))),
        }
    }

    /// `a + b`, one shape.
    pub fn add(&mut self, a: Var, b: Var) -> Result<Var> {
        self.push(Op::Add, &[a, b], None)
    }

    /// `a − b`, one shape.
    pub fn sub(&mut self, a: Var, b: Var) -> Result<Var> {
        let minus = self.scale(b, -1.0)?;
        self.add(a, minus)
    }

    /// `c · x` for a number known now. A number that changes between runs is an input: see
    /// [`Tape::scale_by`].
    pub fn scale(&mut self, x: Var, c: f64) -> Result<Var> {
        self.push(Op::Scale(Scalar(c)), &[x], None)
    }

    /// `s · x` for one number `s` on the tape.
    pub fn scale_by(&mut self, x: Var, s: Var) -> Result<Var> {
        let s = self.number("the factor", s)?;
        let s = self.broadcast_to(s, self.shape_of("scale by", x)?)?;
        self.mul(x, s)
    }

    /// `x + c`.
    pub fn offset(&mut self, x: Var, c: f64) -> Result<Var> {
        self.push(Op::Offset(Scalar(c)), &[x], None)
    }

    /// A function of each entry.
    pub fn unary(&mut self, f: Unary, x: Var) -> Result<Var> {
        self.push(Op::Unary(f), &[x], None)
    }

    /// `1/(1+e^{−x})`.
    pub fn sigmoid(&mut self, x: Var) -> Result<Var> {
        self.unary(Unary::Sigmoid, x)
    }

    /// The hyperbolic tangent.
    pub fn tanh(&mut self, x: Var) -> Result<Var> {
        self.unary(Unary::Tanh, x)
    }

    /// `ln(1 + e^x)`, without overflow.
    pub fn softplus(&mut self, x: Var) -> Result<Var> {
        self.unary(Unary::Softplus, x)
    }

    /// `x·Φ(x)` with the normal distribution's Φ: GELU's exact form, `x/2·(1 + erf(x/√2))`.
    pub fn gelu(&mut self, x: Var) -> Result<Var> {
        let inner = self.scale(x, std::f64::consts::FRAC_1_SQRT_2)?;
        let erf = self.unary(Unary::Erf, inner)?;
        let double = self.offset(erf, 1.0)?;
        let product = self.mul(x, double)?;
        self.scale(product, 0.5)
    }

    /// `|x|`, with slope 0 at 0.
    pub fn abs(&mut self, x: Var) -> Result<Var> {
        // x · sign x, exactly.
        let one = self.constant(1.0, self.shape_of("abs", x)?);
        let minus = self.scale(x, -1.0)?;
        let (above, below) = (self.mask(one, x)?, self.mask(one, minus)?);
        let sign = self.sub(above, below)?;
        self.mul(x, sign)
    }

    /// The larger of `a` and `b`, entry by entry. Where they are equal, a derivative goes to `a`
    /// alone.
    pub fn maximum(&mut self, a: Var, b: Var) -> Result<Var> {
        self.push(Op::Max, &[a, b], None)
    }

    /// The smaller of `a` and `b`, entry by entry. Where they are equal, a derivative goes to `a`
    /// alone.
    pub fn minimum(&mut self, a: Var, b: Var) -> Result<Var> {
        let (a, b) = (self.scale(a, -1.0)?, self.scale(b, -1.0)?);
        let larger = self.maximum(a, b)?;
        self.scale(larger, -1.0)
    }

    /// `a / b`, entry by entry, as `a·(1/b)`: rounded twice, and 0 where b is 0 (see
    /// [`Unary::Recip`]).
    pub fn div(&mut self, a: Var, b: Var) -> Result<Var> {
        let inverse = self.unary(Unary::Recip, b)?;
        self.mul(a, inverse)
    }

    /// `x^c` for a number known now; see [`Unary::Pow`].
    pub fn powf(&mut self, x: Var, c: f64) -> Result<Var> {
        // The last powers of a whole number's derivatives, which are not to end in 0·x^(-1).
        if c == 0.0 {
            return Ok(self.constant(1.0, self.shape_of("pow", x)?));
        }
        if c == 1.0 {
            return self.own(x, || "pow".to_owned()).map(|_| x);
        }
        self.unary(Unary::Pow(Scalar(c)), x)
    }

    /// `a ∘ b`, entry by entry.
    pub fn mul(&mut self, a: Var, b: Var) -> Result<Var> {
        self.contract(Form::Mul, Role::C, [a, b], None)
    }

    /// `a · b` of matrices `[m, k]` and `[k, n]`.
    pub fn matmul(&mut self, a: Var, b: Var) -> Result<Var> {
        self.contract(Form::Gemm, Role::C, [a, b], None)
    }

    /// Convolution of NHWC `x` with HWIO `w`: `[n,h,w,i]` with `[kh,kw,i/groups,o]`. Output channel
    /// number c is of group c·groups/o, and reads that group's channels of `x` alone.
    pub fn conv(&mut self, x: Var, w: Var, geometry: Geometry) -> Result<Var> {
        self.contract(Form::Conv(geometry), Role::C, [x, w], None)
    }

    /// The tensor in role `out`, from the two others in alphabetical order of their roles.
    pub fn contract(&mut self, form: Form, out: Role, args: [Var; 2], shape: Option<&Shape>) -> Result<Var> {
        // A product entry by entry is symmetric in its roles.
        let out = if form == Form::Mul { Role::C } else { out };
        self.push(Op::Contract { form, out }, &args, shape)
    }

    /// 0 where `x ≤ 0`, else `v`.
    pub fn mask(&mut self, v: Var, x: Var) -> Result<Var> {
        self.push(Op::Mask, &[v, x], None)
    }

    /// `max(x, 0)`, with slope 0 at 0; NaN stays NaN.
    pub fn relu(&mut self, x: Var) -> Result<Var> {
        self.mask(x, x)
    }

    /// Max-pooling of NHWC.
    pub fn max_pool(&mut self, x: Var, window: Window) -> Result<Var> {
        self.push(Op::Select(window), &[x, x], None)
    }

    /// Sum over the axes `from..to`.
    pub fn sum(&mut self, x: Var, from: usize, to: usize) -> Result<Var> {
        self.push(Op::Sum { from, to }, &[x], None)
    }

    /// Sum of all entries.
    pub fn sum_all(&mut self, x: Var) -> Result<Var> {
        self.sum(x, 0, self.shape_of("sum", x)?.len())
    }

    /// Mean over the axes `from..to`.
    pub fn mean(&mut self, x: Var, from: usize, to: usize) -> Result<Var> {
        let count: usize = self.shape_of("mean", x)?.get(from..to).map_or(1, |axes| axes.iter().product());
        let sum = self.sum(x, from, to)?;
        self.scale(sum, 1.0 / count.max(1) as f64)
    }

    /// Mean of all entries.
    pub fn mean_all(&mut self, x: Var) -> Result<Var> {
        self.mean(x, 0, self.shape_of("mean", x)?.len())
    }

    /// Repeats `x` along new axes `from..to` of a result of shape `shape`.
    pub fn broadcast(&mut self, x: Var, from: usize, to: usize, shape: &Shape) -> Result<Var> {
        self.push(Op::Broadcast { from, to }, &[x], Some(shape))
    }

    /// Repeats `x` along new leading axes, up to `shape`: a bias `[c]` to `[n,h,w,c]`, a scalar to
    /// anything.
    pub fn broadcast_to(&mut self, x: Var, shape: Shape) -> Result<Var> {
        let new = shape.len().saturating_sub(self.shape_of("broadcast", x)?.len());
        self.broadcast(x, 0, new, &shape)
    }

    /// Repeats one number per sample `[n]` along new trailing axes, up to `shape` `[n, …]`.
    pub fn broadcast_samples(&mut self, x: Var, shape: &Shape) -> Result<Var> {
        self.broadcast(x, self.shape_of("broadcast", x)?.len(), shape.len(), shape)
    }

    /// The same numbers in another shape.
    pub fn reshape(&mut self, x: Var, shape: impl Into<Shape>) -> Result<Var> {
        self.push(Op::Reshape, &[x], Some(&shape.into()))
    }

    /// `[n, …]` as a matrix `[n, rest]`.
    pub fn flatten(&mut self, x: Var) -> Result<Var> {
        let shape = self.shape_of("flatten", x)?;
        let n = shape.first().copied().unwrap_or(1);
        self.reshape(x, [n, shape.count() / n.max(1)])
    }

    /// The same numbers as a value of its own, by and along which derivatives can be taken.
    /// Derivatives flow through it. Every call makes another one: with `a = variable(x)`,
    /// `b = variable(x)`, `a ∘ b` has the derivative b by a.
    ///
    /// A constant needs it to be differentiated by: what reads a constant has its number, not the
    /// constant.
    pub fn variable(&mut self, x: Var) -> Result<Var> {
        self.push(Op::Variable, &[x], None)
    }

    /// The same numbers, as far as derivatives go a constant. Every call makes another value, and
    /// each is a variable to differentiate by.
    pub fn detach(&mut self, x: Var) -> Result<Var> {
        self.push(Op::Detach, &[x], None)
    }

    /// `k` tensors of one shape as `[k, …]`.
    pub fn stack(&mut self, parts: &[Var]) -> Result<Var> {
        self.push(Op::Stack, parts, None)
    }

    /// Row `i` of `[k, …]`.
    pub fn row(&mut self, x: Var, i: usize) -> Result<Var> {
        self.push(Op::Row(i), &[x], None)
    }

    /// ResNet's option-A shortcut; see [`Strided`].
    pub fn subsample(&mut self, x: Var, how: Strided) -> Result<Var> {
        self.push(Op::Subsample(how), &[x], None)
    }

    /// `x · w + b` for `x` `[n, i]`, `w` `[i, o]`, `b` `[o]`.
    pub fn linear(&mut self, x: Var, w: Var, b: Var) -> Result<Var> {
        let product = self.matmul(x, w)?;
        self.add_bias(product, b)
    }

    /// `x + b` with `b` along the last axis.
    pub fn add_bias(&mut self, x: Var, b: Var) -> Result<Var> {
        let b = self.broadcast_to(b, self.shape_of("add bias", x)?)?;
        self.add(x, b)
    }

    /// `x̂`: batch norm over all axes but the last, without scale and bias.
    pub fn normalise(&mut self, x: Var, eps: f64) -> Result<Var> {
        self.push(Op::Normalise(Scalar(eps)), &[x], None)
    }

    /// Mean and biased variance over all axes but the last, for running statistics (no derivative).
    pub fn moments(&mut self, x: Var) -> Result<(Var, Var)> {
        let both = self.push(Op::Moments, &[x], None)?;
        Ok((self.row(both, 0)?, self.row(both, 1)?))
    }

    /// Softmax over the last axis of `[n, k]`.
    pub fn softmax(&mut self, logits: Var) -> Result<Var> {
        self.push(Op::Softmax, &[logits], None)
    }

    /// Per-sample cross-entropy of logits `[n, k]` and labels `[n]`.
    pub fn cross_entropy(&mut self, logits: Var, labels: Var) -> Result<Var> {
        self.push(Op::CrossEntropy, &[logits, labels], None)
    }

    /// 1 at each row's label, else 0, `[n, classes]`, of labels `[n]`.
    pub fn one_hot(&mut self, labels: Var, classes: usize) -> Result<Var> {
        // Cross-entropy's gradient is softmax − one-hot, and softmax of equal logits is known.
        let n = self.shape_of("one-hot", labels)?.count();
        let logits = self.constant(0.0, [n, classes]);
        let residual = self.push(Op::Residual, &[logits, labels], None)?;
        let minus = self.scale(residual, -1.0)?;
        let above = self.offset(minus, 0.5 / classes as f64)?;
        let one = self.constant(1.0, [n, classes]);
        self.mask(one, above)
    }

    /// 1 per sample whose largest logit is the label's, else 0; 0 where a logit is not a number.
    pub fn correct(&mut self, logits: Var, labels: Var) -> Result<Var> {
        self.push(Op::Correct, &[logits, labels], None)
    }

    /// A batch from `pixels` `[N,h,w,c]` at `picks` `[n,4]` = (index, dx, dy, flip).
    pub fn gather(&mut self, pixels: Var, picks: Var, spec: GatherSpec) -> Result<Var> {
        self.push(Op::Gather(spec), &[pixels, picks], None)
    }
}
