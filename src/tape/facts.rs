//! What there is to know of each operation: its name, what its arguments must be and which of them
//! only steer, how a program runs it, and the shape that it gives. Derivatives stand in `rules.rs`.

use super::infer::{contracted, pooled, subsampled};
use super::op::{Form, Function, Kind, Op, Role, Unary};
use super::shape::Shape;
use crate::error::{Error, Result};

/// What an argument is taken for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arg {
    /// Numbers that derivatives flow through.
    Value,
    /// Numbers in which the result is locally constant: a mask's condition. No derivative flows
    /// there.
    Condition,
    /// Labels, picks.
    Ints,
    /// Pixels.
    Bytes,
}

impl Arg {
    fn kind(self) -> Kind {
        match self {
            Arg::Value | Arg::Condition => Kind::Float,
            Arg::Ints => Kind::Int,
            Arg::Bytes => Kind::Byte,
        }
    }
}

/// How many arguments there are, and of what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Args {
    /// These.
    Are(&'static [Arg]),
    /// One or more values.
    Values,
}

/// How a program runs an operation.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Work {
    /// Nothing runs: it is there.
    Leaf,
    /// One number everywhere: written where it is read.
    Constant(f64),
    /// Repeated along the axes `from..to` of the result: read again and again where it is used.
    Repeat { from: usize, to: usize },
    /// The argument's entries as they lie. Nothing runs.
    Same,
    /// The argument's entries under another name, until differentiation is over.
    Name,
    /// The argument's entries from row `i` on. Nothing runs.
    Part(usize),
    /// The same at every entry, of arguments of the result's shape.
    Entrywise(Function),
    /// A sum over the axes `from..to` of the argument.
    Sum { from: usize, to: usize },
    /// A matrix product or convolution.
    Contract(Form, Role),
    /// A kernel of its own.
    Kernel,
}

impl Work {
    /// Whether the result is the argument's memory, or a part of it.
    pub fn is_view(self) -> bool {
        match self {
            Work::Same | Work::Name | Work::Part(_) => true,
            Work::Leaf | Work::Constant(_) | Work::Repeat { .. } | Work::Entrywise(_) => false,
            Work::Sum { .. } | Work::Contract(..) | Work::Kernel => false,
        }
    }

    /// Whether the result is written nowhere, but made where it is read.
    pub fn is_spread(self) -> bool {
        match self {
            Work::Constant(_) | Work::Repeat { .. } => true,
            Work::Leaf | Work::Same | Work::Name | Work::Part(_) | Work::Entrywise(_) => false,
            Work::Sum { .. } | Work::Contract(..) | Work::Kernel => false,
        }
    }

    /// The function that is computed at every entry.
    pub fn function(self) -> Option<Function> {
        if let Work::Entrywise(function) = self { Some(function) } else { None }
    }

    /// The form and the role of a matrix product or convolution.
    pub fn contraction(self) -> Option<(Form, Role)> {
        if let Work::Contract(form, role) = self { Some((form, role)) } else { None }
    }

    /// Whether it is a sum over leading axes, which a group of entrywise work can take at its end.
    pub fn is_leading_sum(self) -> bool {
        if let Work::Sum { from, .. } = self { from == 0 } else { false }
    }
}

/// What stands in a row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// What the arguments must be.
    pub args: Args,
    /// How it is run.
    pub work: Work,
    /// Whether result and arguments are alike: all activations, or none. See
    /// `program/activations.rs`.
    pub alike: bool,
}

impl Facts {
    /// Whether argument `arg` only steers: the output is locally constant in it, so no derivative
    /// flows there. Everything else either has a rule in `rules.rs` or raises an error.
    pub fn steers(&self, arg: usize) -> bool {
        match self.args {
            Args::Are(args) => args.get(arg).is_some_and(|a| *a != Arg::Value),
            Args::Values => false,
        }
    }
}

const NONE: Args = Args::Are(&[]);
const ONE: Args = Args::Are(&[Arg::Value]);
const TWO: Args = Args::Are(&[Arg::Value, Arg::Value]);
const STEERED: Args = Args::Are(&[Arg::Value, Arg::Condition]);
const LABELLED: Args = Args::Are(&[Arg::Value, Arg::Ints]);

impl Op {
    /// The table.
    pub(crate) fn facts(&self) -> Facts {
        use Work::{Constant, Contract, Entrywise, Kernel, Leaf, Name, Part, Repeat, Same};
        let (args, work, alike) = match self {
            Op::Input(_) | Op::State(_) => (NONE, Leaf, false),
            Op::Constant(c) => (NONE, Constant(c.0), false),
            Op::Add => (TWO, Entrywise(Function::Add), true),
            Op::Scale(c) => (ONE, Entrywise(Function::Scale(c.0)), true),
            Op::Offset(c) => (ONE, Entrywise(Function::Offset(c.0)), true),
            Op::Unary(f) => (ONE, Entrywise(Function::Unary(*f)), true),
            Op::Contract { form: Form::Mul, .. } => (TWO, Entrywise(Function::Mul), true),
            Op::Contract { form: form @ (Form::Gemm | Form::Conv(_)), out } => {
                (TWO, Contract(*form, *out), false)
            }
            Op::Mask => (STEERED, Entrywise(Function::Mask), true),
            Op::Max => (TWO, Entrywise(Function::Max), true),
            Op::Select(_) | Op::Unselect(_) => (STEERED, Kernel, true),
            Op::Sum { from, to } => (ONE, Work::Sum { from: *from, to: *to }, false),
            Op::Broadcast { from, to } => (ONE, Repeat { from: *from, to: *to }, false),
            Op::Reshape => (ONE, Same, true),
            Op::Variable => (ONE, Name, true),
            Op::Detach => (Args::Are(&[Arg::Condition]), Name, true),
            Op::Row(i) => (ONE, Part(*i), false),
            Op::Unrow(_) => (ONE, Kernel, false),
            Op::Stack => (Args::Values, Kernel, false),
            Op::Subsample(_) | Op::Embed(_) => (ONE, Kernel, true),
            Op::Moments | Op::Variance => (ONE, Kernel, false),
            Op::Normalise(_) => (ONE, Kernel, true),
            Op::NormJacobian(_) => (TWO, Kernel, true),
            Op::Softmax => (ONE, Kernel, false),
            Op::CrossEntropy | Op::Residual => (LABELLED, Kernel, false),
            Op::WeightedResidual => (Args::Are(&[Arg::Value, Arg::Ints, Arg::Value]), Kernel, false),
            Op::Correct => (Args::Are(&[Arg::Condition, Arg::Ints]), Kernel, false),
            Op::Gather(_) => (Args::Are(&[Arg::Bytes, Arg::Ints]), Kernel, false),
        };
        Facts { args, work, alike }
    }

    /// Whether row i of the result is a function of row i of argument `arg` alone, as far as this
    /// argument goes, where both have as many rows.
    pub(crate) fn keeps_rows(&self, arg: usize) -> bool {
        match self {
            Op::Add | Op::Scale(_) | Op::Offset(_) | Op::Unary(_) | Op::Mask | Op::Max => true,
            Op::Contract { form: Form::Mul, .. } => true,
            // Role B's axes are a parameter's, A's and C's first axis is the batch.
            Op::Contract { form: Form::Gemm | Form::Conv(_), out } => {
                *out != Role::B && out.others().get(arg).is_some_and(|role| *role != Role::B)
            }
            Op::Sum { from, .. } | Op::Broadcast { from, .. } => *from > 0,
            Op::Select(_) | Op::Unselect(_) | Op::Subsample(_) | Op::Embed(_) => true,
            Op::Reshape | Op::Variable | Op::Detach => true,
            Op::Softmax | Op::CrossEntropy | Op::Residual | Op::WeightedResidual => true,
            Op::Row(_) | Op::Unrow(_) | Op::Stack => false,
            Op::Moments | Op::Variance | Op::Normalise(_) | Op::NormJacobian(_) => false,
            Op::Input(_) | Op::State(_) | Op::Constant(_) | Op::Correct | Op::Gather(_) => false,
        }
    }

    /// The operation as printed, without its arguments.
    pub fn name(&self) -> String {
        match self {
            Op::Input(_) => "input".into(),
            Op::State(_) => "state".into(),
            Op::Constant(c) => format!("constant {}", c.0),
            Op::Add => "add".into(),
            Op::Scale(c) => format!("scale {}", c.0),
            Op::Offset(c) => format!("offset {}", c.0),
            Op::Unary(f) => f.name(),
            Op::Contract { form, out } => match (form, out) {
                (Form::Gemm, Role::A) => "gemm→A (B, C ↦ C·Bᵀ)".into(),
                (Form::Gemm, Role::B) => "gemm→B (A, C ↦ Aᵀ·C)".into(),
                (Form::Mul, Role::A | Role::B | Role::C) | (Form::Gemm, Role::C) => form.name().into(),
                (Form::Conv(g), out) => {
                    let role = match out {
                        Role::C => "",
                        Role::A => "→A (data gradient)",
                        Role::B => "→B (weight gradient)",
                    };
                    let groups = if g.groups == 1 { String::new() } else { format!(" groups {}", g.groups) };
                    format!("conv{role} stride {} pad {}{groups}", g.stride, g.pad)
                }
            },
            Op::Mask => "mask".into(),
            Op::Max => "max".into(),
            Op::Select(w) => format!("select {}x{} stride {}", w.size, w.size, w.stride),
            Op::Unselect(w) => format!("unselect {}x{} stride {}", w.size, w.size, w.stride),
            Op::Sum { from, to } => format!("sum axes {from}..{to}"),
            Op::Broadcast { from, to } => format!("broadcast axes {from}..{to}"),
            Op::Reshape => "reshape".into(),
            Op::Variable => "variable".into(),
            Op::Detach => "detach".into(),
            Op::Row(i) => format!("row {i}"),
            Op::Unrow(i) => format!("unrow {i}"),
            Op::Stack => "stack".into(),
            Op::Subsample(s) => format!("subsample {} channels {}+{}", s.stride, s.before, s.after),
            Op::Embed(s) => format!("embed {} channels {}+{}", s.stride, s.before, s.after),
            Op::Moments => "moments".into(),
            Op::Variance => "variance".into(),
            Op::Normalise(_) => "normalise".into(),
            Op::NormJacobian(_) => "norm-jacobian".into(),
            Op::Softmax => "softmax".into(),
            Op::CrossEntropy => "cross-entropy".into(),
            Op::Residual => "residual".into(),
            Op::WeightedResidual => "weighted residual".into(),
            Op::Correct => "correct".into(),
            Op::Gather(_) => "gather".into(),
        }
    }

    /// The result's shape from the arguments', whose number and kinds have been checked. `want` is
    /// the shape asked for, which is needed where the arguments do not determine it (a broadcast, a
    /// strided convolution's data gradient).
    fn shape(&self, args: &[&Shape], want: Option<&Shape>) -> Result<Shape> {
        let bad = |why: &str| {
            let list: Vec<String> = args.iter().map(|s| s.to_string()).collect();
            Error::shape(self.name(), format!("{why}, got {}", list.join(" and ")))
        };
        let wanted =
            || want.cloned().ok_or_else(|| Error::shape(self.name(), "the result's shape must be given"));
        let need = |holds: bool, why: &str| if holds { Ok(()) } else { Err(bad(why)) };
        let one_shape = || need(args.windows(2).all(|p| p[0] == p[1]), "all arguments must have one shape");
        let has_axis = || need(!args[0].is_empty(), "the argument must have at least one axis");
        // Logits [n, k] and, in argument `i`, a number for each of the n.
        let per_row = |i: usize| {
            let fits = matches!(args[0][..], [_, k] if k > 0) && args[i][..] == args[0][..1];
            need(fits, "logits must be [n, k] with k > 0, labels and weights [n]")
        };
        match self {
            Op::Input(_) | Op::State(_) | Op::Constant(_) => wanted(),
            Op::Scale(_) | Op::Offset(_) | Op::Unary(_) | Op::Variable | Op::Detach => Ok(args[0].clone()),
            Op::Add | Op::Mask | Op::Max => one_shape().map(|()| args[0].clone()),
            Op::Contract { form, out } => contracted(*form, *out, args[0], args[1], want),
            Op::Select(w) => {
                need(args[0] == args[1], "values and the tensor that selects must have one shape")?;
                pooled(*w, args[1]).ok_or_else(|| bad("a window must fit into NHWC"))
            }
            Op::Unselect(w) => {
                need(pooled(*w, args[1]).as_ref() == Some(args[0]), "values must be one per window")?;
                Ok(args[1].clone())
            }
            Op::Sum { from, to } => {
                need(from <= to && *to <= args[0].len(), &format!("there are no axes {from}..{to}"))?;
                Ok(args[0].without(*from..*to))
            }
            Op::Broadcast { from, to } => {
                let full = wanted()?;
                let fits = from <= to && *to <= full.len() && full.without(*from..*to) == *args[0];
                need(fits, &format!("repeated along new axes {from}..{to} the argument must give {full}"))?;
                Ok(full)
            }
            Op::Reshape => {
                let to = wanted()?;
                need(to.count() == args[0].count(), &format!("{to} must hold as many numbers"))?;
                Ok(to)
            }
            Op::Row(i) => {
                need(args[0].first().is_some_and(|k| i < k), &format!("there is no row {i}"))?;
                Ok(args[0].without(0..1))
            }
            Op::Unrow(i) => {
                let full = wanted()?;
                let fits = full.first().is_some_and(|k| i < k) && full.without(0..1) == *args[0];
                need(fits, &format!("the argument must be row {i} of {full}"))?;
                Ok(full)
            }
            Op::Stack => one_shape().map(|()| args[0].with(0, &[args.len()])),
            Op::Subsample(s) => subsampled(*s, args[0]).ok_or_else(|| bad("the argument must be NHWC")),
            Op::Embed(s) => {
                let full = wanted()?;
                let fits = subsampled(*s, &full).as_ref() == Some(args[0]);
                need(fits, &format!("the argument must be what subsample gives of {full}"))?;
                Ok(full)
            }
            Op::Moments => has_axis().map(|()| [2, args[0][args[0].len() - 1]].into()),
            Op::Variance => has_axis().map(|()| [args[0][args[0].len() - 1]].into()),
            Op::Normalise(_) => has_axis().map(|()| args[0].clone()),
            Op::NormJacobian(_) => {
                one_shape()?;
                has_axis().map(|()| args[0].clone())
            }
            Op::Softmax => need(matches!(args[0][..], [_, k] if k > 0), "logits must be [n, k], with k > 0")
                .map(|()| args[0].clone()),
            Op::CrossEntropy | Op::Correct => per_row(1).map(|()| args[1].clone()),
            Op::Residual => per_row(1).map(|()| args[0].clone()),
            Op::WeightedResidual => {
                per_row(1)?;
                per_row(2).map(|()| args[0].clone())
            }
            Op::Gather(spec) => {
                let (&[_, h, w, c], &[n, 4]) = (&args[0][..], &args[1][..]) else {
                    return Err(bad("pixels must be [N,h,w,c] and picks [n, 4]"));
                };
                let known = c == spec.mean.len() && c == spec.std.len();
                need(known, "pixels must have a mean and std per channel")?;
                let narrow = spec.pad < h.min(w).max(1);
                let border = format!("a reflected border of {} must be narrower than the image", spec.pad);
                need(narrow, &border)?;
                Ok([n, h, w, c].into())
            }
        }
    }

    /// Checks the arguments, and gives the result's kind and shape.
    pub(super) fn infer(&self, args: &[(Kind, &Shape)], want: Option<&Shape>) -> Result<(Kind, Shape)> {
        let (all, rest) = match self.facts().args {
            Args::Are(all) => (all, 0),
            Args::Values => (&[Arg::Value][..], args.len().saturating_sub(1)),
        };
        if args.len() != all.len() + rest {
            return Err(Error::shape(self.name(), format!("does not take {} arguments", args.len())));
        }
        for (i, (kind, _)) in args.iter().enumerate() {
            let wanted = all[i.min(all.len() - 1)].kind();
            if wanted != *kind {
                let detail = format!("argument {i} must be {wanted:?}, got {kind:?}");
                return Err(Error::shape(self.name(), detail));
            }
        }
        let shapes: Vec<&Shape> = args.iter().map(|a| a.1).collect();
        let shape = self.shape(&shapes, want)?.checked(&self.name())?;
        if let Some(want) = want.filter(|want| **want != shape) {
            return Err(Error::shape(self.name(), format!("gives {shape}, not the {want} asked for")));
        }
        Ok((Kind::Float, shape))
    }
}

impl Unary {
    /// As printed.
    pub fn name(&self) -> String {
        match self {
            Unary::Sigmoid => "sigmoid".into(),
            Unary::Recip => "recip".into(),
            Unary::Sqrt => "sqrt".into(),
            Unary::Exp => "exp".into(),
            Unary::Log => "log".into(),
            Unary::Tanh => "tanh".into(),
            Unary::Softplus => "softplus".into(),
            Unary::Erf => "erf".into(),
            Unary::Pow(c) => format!("pow {}", c.0),
        }
    }
}

impl Form {
    pub(super) fn name(self) -> &'static str {
        match self {
            Form::Mul => "mul",
            Form::Gemm => "gemm",
            Form::Conv(_) => "conv",
        }
    }
}
