//! What a backend is asked to run.

use super::conv_shape::ConvShape;
pub use crate::tape::Function;
use crate::tape::{Form, GatherSpec, Kind, Role, Strided, View3, Window};

/// Where a tensor lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the program's arena, this many entries from its start.
    Arena(usize),
    /// A state slot, by its place in the plan's list, this many entries from its start.
    State(usize, usize),
    /// An input, by its place in the plan's list, this many entries from its start.
    Input(usize, usize),
}

/// An operand of a kernel: a contiguous run of entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tensor {
    /// Where it starts.
    pub place: Place,
    /// Number of entries.
    pub len: usize,
    /// What they are; arenas hold `Float` only.
    pub kind: Kind,
    /// Whether it is an activation, or a tangent or cotangent of one: a machine may store it in
    /// fewer bits than its `Float` has, from the same place on. All tensors that share memory are
    /// alike in this; they lie in the arena and begin where their memory does.
    pub activation: bool,
}

/// The extents of a contraction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dims {
    /// A is `[m, k]`, B `[k, n]`, C `[m, n]`.
    Gemm {
        /// Rows of A and C.
        m: usize,
        /// Columns of B and C.
        n: usize,
        /// Columns of A, rows of B.
        k: usize,
    },
    /// A is x, B is w, C is y.
    Conv(ConvShape),
}

/// One kernel with its operands.
#[derive(Clone, Debug)]
pub struct Instr {
    /// What is run.
    pub kernel: Kernel,
    /// What it reads.
    pub args: Vec<Tensor>,
    /// What it writes.
    pub outs: Vec<Tensor>,
}

/// The kernels. Shapes are those of the operation of the same name.
#[derive(Clone, Debug)]
pub enum Kernel {
    /// A GEMM or convolution in one of its roles; `accumulate` adds to what the output holds. A
    /// convolution that gives C may have two pairs of factors, one after the other: the sum of
    /// both.
    Contract {
        /// Which form (never `Mul`, which is entrywise).
        form: Form,
        /// Which role is produced.
        out: Role,
        /// All extents.
        dims: Dims,
        /// Whether the product is added to the output.
        accumulate: bool,
    },
    /// Entrywise work on several tensors at once, with sums at its end.
    Group(Group),
    /// Sum over `mid` of a tensor seen as `[pre, mid, post]`.
    Sum(View3),
    /// `[n,h,w,c]` and a window.
    Select(Window, [usize; 4]),
    /// `[n,h,w,c]` of the result, and a window.
    Unselect(Window, [usize; 4]),
    /// `[n,h,w,c]` of the long tensor.
    Subsample(Strided, [usize; 4]),
    /// `[n,h,w,c]` of the long tensor.
    Embed(Strided, [usize; 4]),
    /// Zeros but for the argument, put in at this entry.
    Unrow(usize),
    /// The arguments one after another.
    Stack,
    /// Means, then variances, of this many channels.
    Moments(usize),
    /// Over this many classes.
    Softmax(usize),
    /// Of logits and labels.
    CrossEntropy,
    /// Of logits and labels.
    Residual,
    /// Of logits, labels and a weight per sample.
    WeightedResidual,
    /// Of logits and labels.
    Correct,
    /// `[h,w,c]` of an image.
    Gather(GatherSpec, [usize; 3]),
    /// The argument, as it is.
    Copy,
}

/// Entrywise work: a small straight-line program that is run for every entry of an index space,
/// each operand read and each result written once.
#[derive(Clone, PartialEq, Debug)]
pub struct Group {
    /// Entries of the index space.
    pub count: usize,
    /// Registers 0, 1, …: what is read.
    pub operands: Vec<Operand>,
    /// The registers after them, in order: what is computed.
    pub steps: Vec<Step>,
    /// What is done with registers; one per output tensor.
    pub outcomes: Vec<Outcome>,
}

/// How an entry of the index space finds its value in an operand.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Operand {
    /// Same index, in this argument.
    Full(usize),
    /// In this argument, of shape `[pre, post]`, repeated along `mid`.
    Repeat(usize, View3),
    /// The same number everywhere.
    Constant(f64),
}

/// Register ← function of registers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Step {
    /// What is computed.
    pub function: Function,
    /// First register.
    pub a: usize,
    /// Second register; the first one again where there is only one.
    pub b: usize,
}

/// What is done with a register.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Outcome {
    /// Written, entry by entry.
    Store(usize),
    /// Summed over `mid` of `[1, mid, post]`.
    Sum(usize, View3),
}

/// How far behind the instruction that it waits for another one still writes only what nothing
/// from there on touches.
pub const NEAR: usize = 4;

impl Instr {
    /// As [`Kernel::flops`], of all pairs of factors.
    pub fn flops(&self) -> u64 {
        self.kernel.flops() * self.args.len().div_ceil(2) as u64
    }

    /// Whether this one, statistics or a group, may run on each piece of the output of the
    /// contraction `before` it as soon as the piece is written, while others are not yet: it reads
    /// the output entry by entry, and writes nothing that the contraction still reads. It stands at
    /// most [`NEAR`] behind; whether it can be taken before those in between is another question.
    pub fn may_run_within(&self, before: &Instr) -> bool {
        let of = &before.outs[0];
        // What is repeated has fewer entries than the group.
        let reads = matches!(&self.kernel, Kernel::Group(group) if group.count == of.len)
            || matches!(self.kernel, Kernel::Moments(_));
        let beside = |tensor: &Tensor| tensor == of || !tensor.overlaps(of);
        let spares = |out: &Tensor| !before.args.iter().any(|arg| arg.overlaps(out));
        let mut touched = self.args.iter().chain(&self.outs);
        reads && self.args.contains(of) && touched.all(beside) && self.outs.iter().all(spares)
    }

    /// Whether one of two instructions must come before the other: one writes what the other one
    /// touches.
    pub fn depends(&self, other: &Instr) -> bool {
        let meet = |xs: &[Tensor], ys: &[Tensor]| xs.iter().any(|x| ys.iter().any(|y| x.overlaps(y)));
        meet(&self.outs, &other.outs) || meet(&self.outs, &other.args) || meet(&self.args, &other.outs)
    }
}

impl Tensor {
    /// Whether two tensors share memory.
    pub fn overlaps(&self, other: &Tensor) -> bool {
        let (from, others) = match (self.place, other.place) {
            (Place::Arena(x), Place::Arena(y)) => (x, y),
            (Place::State(i, x), Place::State(j, y)) | (Place::Input(i, x), Place::Input(j, y)) if i == j => {
                (x, y)
            }
            (Place::Arena(_) | Place::State(..) | Place::Input(..), _) => return false,
        };
        from < others + other.len && others < from + self.len
    }
}

impl Kernel {
    /// A short name for reports.
    pub fn name(&self) -> &'static str {
        match self {
            Kernel::Contract { form: Form::Conv(_), out: Role::C, .. } => "conv",
            Kernel::Contract { form: Form::Conv(_), out: Role::A, .. } => "conv data gradient",
            Kernel::Contract { form: Form::Conv(_), out: Role::B, .. } => "conv weight gradient",
            Kernel::Contract { .. } => "gemm",
            Kernel::Group(_) => "entrywise",
            Kernel::Sum(_) => "sum",
            Kernel::Select(..) => "select",
            Kernel::Unselect(..) => "unselect",
            Kernel::Subsample(..) => "subsample",
            Kernel::Embed(..) => "embed",
            Kernel::Unrow(_) => "unrow",
            Kernel::Stack => "stack",
            Kernel::Moments(_) => "moments",
            Kernel::Softmax(_) => "softmax",
            Kernel::CrossEntropy => "cross-entropy",
            Kernel::Residual => "residual",
            Kernel::WeightedResidual => "weighted residual",
            Kernel::Correct => "correct",
            Kernel::Gather(..) => "gather",
            Kernel::Copy => "copy",
        }
    }

    /// Multiplications and additions of the contraction of a pair of factors (2 per multiply-add);
    /// 0 for all other kernels.
    pub fn flops(&self) -> u64 {
        let Kernel::Contract { dims, .. } = self else { return 0 };
        match dims {
            Dims::Gemm { m, n, k } => 2 * (m * n * k) as u64,
            Dims::Conv(shape) => shape.flops() as u64,
        }
    }
}
