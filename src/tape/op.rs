use std::hash::{Hash, Hasher};

/// What a tensor's entries are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Numbers in the backend's floating-point precision; the only kind that derivatives flow
    /// through.
    Float,
    /// `i32`: labels, sample indices.
    Int,
    /// `u8`: the pixels of a data set.
    Byte,
}

/// A number in an operation, compared and hashed by its bits so that operations can be hash-consed.
#[derive(Clone, Copy, Debug)]
pub struct Scalar(pub f64);

impl PartialEq for Scalar {
    fn eq(&self, other: &Scalar) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}
impl Eq for Scalar {}
impl Hash for Scalar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

/// The three roles of a trilinear form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// The first factor: a matrix `[m, k]`, an activation NHWC.
    A,
    /// The second factor: a matrix `[k, n]`, a convolution weight HWIO.
    B,
    /// The product: a matrix `[m, n]`, an activation NHWC.
    C,
}

impl Role {
    /// The two other roles, in alphabetical order: the order of a contraction's arguments.
    pub fn others(self) -> [Role; 2] {
        match self {
            Role::A => [Role::B, Role::C],
            Role::B => [Role::A, Role::C],
            Role::C => [Role::A, Role::B],
        }
    }
}

/// A trilinear form `⟨C, A ∘ B⟩`. "Contract out role X" gives the tensor in role X from the other
/// two.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Form {
    /// `Σ a·b·c` over entries; all three of one shape.
    Mul,
    /// `Σ A[i,k] B[k,j] C[i,j]`: NN, NT and TN products are its three roles.
    Gemm,
    /// `Σ A[n, p·s+a−pad, q·s+b−pad, i] B[a,b,i,o] C[n,p,q,o]`: a convolution, its data gradient
    /// and its weight gradient are its roles C, A and B. In groups, A's channel is number i of the
    /// group that o is in.
    Conv(Geometry),
}

/// How a convolution moves over its input, and which channels it reads there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Geometry {
    /// Step between neighbouring outputs, in input pixels, in both directions.
    pub stride: usize,
    /// Zeros added on each of the four sides.
    pub pad: usize,
    /// Groups of neighbouring channels, as many in A as in C; an output reads its own group's
    /// alone. 1: it reads all. As many as channels of A: a depthwise convolution.
    pub groups: usize,
}

/// A pooling window, without padding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Window {
    /// Extent in both directions.
    pub size: usize,
    /// Step in both directions.
    pub stride: usize,
}

/// Every `stride`-th pixel, with zero channels put before and after: ResNet's option-A shortcut.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Strided {
    /// Step between kept pixels.
    pub stride: usize,
    /// Zero channels before the kept ones.
    pub before: usize,
    /// Zero channels after them.
    pub after: usize,
}

/// Functions of one number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Unary {
    /// `1/(1+e^{−x})`.
    Sigmoid,
    /// `1/x`, and 0 at 0 (the pseudo-inverse), so that weights which are all zero normalise to
    /// zero.
    Recip,
    /// `√x`. Its slope is made of [`Unary::Recip`]: 0 at 0, where it is infinite.
    Sqrt,
    /// `e^x`.
    Exp,
    /// The natural logarithm. Its slope is [`Unary::Recip`]: 0 at 0, where it is infinite.
    Log,
    /// The hyperbolic tangent.
    Tanh,
    /// `ln(1 + e^x)`, without overflow.
    Softplus,
    /// The error function `2/√π ∫₀ˣ e^{−t²} dt`.
    Erf,
    /// `x^c`, as IEEE has it: not a number where x is negative and c no whole number, infinite at 0
    /// for c below 0.
    Pow(Scalar),
}

/// What is done with the entries at one place.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Function {
    /// `a + b`.
    Add,
    /// `a · b`.
    Mul,
    /// `a` where `b > 0`, else 0.
    Mask,
    /// `a` where `a ≥ b`, else `b`; not a number if one of them is none.
    Max,
    /// `c · a`.
    Scale(f64),
    /// `a + c`.
    Offset(f64),
    /// A function of `a`.
    Unary(Unary),
}

impl Function {
    /// Whether `f(a, b) = f(b, a)` to the last bit, and with the same derivative.
    pub(crate) fn commutes(self) -> bool {
        match self {
            Function::Add | Function::Mul => true,
            // Which of two equal arguments takes the derivative depends on their order.
            Function::Max => false,
            Function::Mask | Function::Scale(_) | Function::Offset(_) | Function::Unary(_) => false,
        }
    }
}

/// How a batch is taken from a data set that lies on the device as bytes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GatherSpec {
    /// Per channel, of pixel/255.
    pub mean: Vec<Scalar>,
    /// Per channel, of pixel/255.
    pub std: Vec<Scalar>,
    /// Width of the reflected border from which a crop is taken.
    pub pad: usize,
}

/// The closed set of operations. Arguments are written in brackets; `…` is any shape.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// A tensor given anew for each run; the number is its place in [`super::Tape::inputs`].
    Input(usize),
    /// A tensor that stays on the device between runs; the number is its place in
    /// [`super::Tape::states`].
    State(usize),
    /// A tensor with one number everywhere.
    Constant(Scalar),
    /// `a + b` `(a […], b […])`.
    Add,
    /// `c · x` for a number known at recording.
    Scale(Scalar),
    /// `x + c` for a number known at recording.
    Offset(Scalar),
    /// A function of each entry.
    Unary(Unary),
    /// The tensor in role `out` of a trilinear form, from the two other roles in alphabetical
    /// order.
    Contract {
        /// Which form.
        form: Form,
        /// Which role is produced.
        out: Role,
    },
    /// 0 where `x ≤ 0`, else `v` `(v […], x […])`. ReLU is `Mask(x, x)`, so its slope at 0 is 0,
    /// and what is not a number stays so.
    Mask,
    /// The larger of two `(a […], b […])`. Where they are equal, a derivative goes to `a` alone.
    Max,
    /// Entry of `v` at the place of `x`'s maximum in each window `(v [n,h,w,c], x [n,h,w,c])`.
    /// Max-pooling is `Select(x, x)`; the first maximum in row-major order counts.
    Select(Window),
    /// Transpose of `Select` in `v`: `(v [n,p,q,c], x [n,h,w,c])` gives `[n,h,w,c]`.
    Unselect(Window),
    /// Sum over the axes `from..to`.
    Sum {
        /// First axis that is summed away.
        from: usize,
        /// One past the last.
        to: usize,
    },
    /// Repeat along new axes `from..to` of the result.
    Broadcast {
        /// First new axis.
        from: usize,
        /// One past the last.
        to: usize,
    },
    /// The same numbers in another shape.
    Reshape,
    /// The same numbers as a value of its own: recording it again makes another one.
    Variable,
    /// The same numbers as a value of its own, through which no derivative flows.
    Detach,
    /// Row `i` of `[k, …]`.
    Row(usize),
    /// Zeros `[k, …]` but for row `i`: the transpose of `Row`.
    Unrow(usize),
    /// `k` tensors of one shape, as `[k, …]`.
    Stack,
    /// See [`Strided`]; `[n,h,w,c]` gives `[n,⌈h/s⌉,⌈w/s⌉,before+c+after]`.
    Subsample(Strided),
    /// Transpose of `Subsample`.
    Embed(Strided),
    /// Mean and biased variance over all axes but the last, as the two rows of `[2, c]`.
    /// For running statistics; derivatives take [`Op::Normalise`] and [`Op::Variance`].
    Moments,
    /// Biased variance over all axes but the last.
    Variance,
    /// `x̂ = (x − mean)·(var + ε)^{-1/2}` over all axes but the last: batch norm without scale and
    /// bias.
    Normalise(Scalar),
    /// Batch norm's Jacobian at `x` times `v` `(x, v)`: `r·(v − mean v − x̂·mean(x̂ v))`,
    /// self-adjoint in `v`.
    NormJacobian(Scalar),
    /// Softmax over the last axis of `[n, k]`.
    Softmax,
    /// Per-sample cross-entropy `(logits [n,k], labels [n])` gives `[n]`.
    CrossEntropy,
    /// `softmax − one-hot` `(logits [n,k], labels [n])`: cross-entropy's gradient.
    Residual,
    /// `weight_i · (softmax − one-hot)` `(logits [n,k], labels [n], weights [n])`. Made by fusion
    /// only, so it has no derivative rule.
    WeightedResidual,
    /// 1 where the largest logit is the label's, else 0 `(logits [n,k], labels [n])`; no
    /// derivative.
    Correct,
    /// A normalised, cropped and flipped batch `(pixels [N,h,w,c] bytes, picks [n,4])` as
    /// `[n,h,w,c]`; each pick is (index, dx, dy, flip).
    Gather(GatherSpec),
}

impl Op {
    /// Whether no derivative flows into argument `arg`; see [`super::facts::Facts::steers`].
    pub(crate) fn steers(&self, arg: usize) -> bool {
        self.facts().steers(arg)
    }
}
