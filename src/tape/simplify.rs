//! Identities that keep derivative programs short. Each line is `before => after`; an operation
//! without one is recorded as it is.

use super::op::{Form, Op, Scalar};
use super::record::{Tape, Var};
use super::shape::Shape;

impl Tape {
    /// A value that is there already, or is shorter to record, in place of `op` on `args`.
    pub(super) fn simplify(&mut self, op: &Op, args: &[Var], shape: &Shape) -> Option<Var> {
        let first = *args.first()?;
        let constant = self.constant_of(first);
        let same_shape = self.shape(first) == shape;
        match op {
            // reshape(x) to its own shape, a sum or broadcast over no axes => x
            Op::Reshape | Op::Sum { .. } | Op::Broadcast { .. } if same_shape => Some(first),
            // sum of a constant => count · constant
            Op::Sum { .. } => {
                let repeats = self.shape(first).count() as f64 / shape.count().max(1) as f64;
                Some(self.constant(constant? * repeats, shape.clone()))
            }
            // broadcast, reshape of a constant => that constant
            Op::Broadcast { .. } => Some(self.constant(constant?, shape.clone())),
            Op::Reshape => match constant {
                Some(c) => Some(self.constant(c, shape.clone())),
                None => self.folded(op, first, shape),
            },
            // 1·x => x
            Op::Scale(Scalar(1.0)) => Some(first),
            // c·constant(d) => constant(c·d)
            Op::Scale(c) => match constant {
                Some(d) => Some(self.constant(c.0 * d, shape.clone())),
                None => self.folded(op, first, shape),
            },
            // x + 0 => x
            Op::Add => {
                let zero = |v: Var| self.node(v).op == Op::Constant(Scalar(0.0));
                if zero(args[1]) { Some(first) } else { zero(first).then_some(args[1]) }
            }
            // x·constant(c) => c·x
            Op::Contract { form: Form::Mul, .. } => {
                let (at, c) = (0..2).find_map(|i| Some((i, self.constant_of(args[i])?)))?;
                self.push(Op::Scale(Scalar(c)), &[args[1 - at]], None).ok()
            }
            Op::Contract { form: Form::Gemm | Form::Conv(_), .. } => None,
            Op::Input(_) | Op::State(_) | Op::Constant(_) | Op::Offset(_) | Op::Unary(_) => None,
            Op::Mask | Op::Max | Op::Select(_) | Op::Unselect(_) | Op::Variable | Op::Detach => None,
            Op::Row(_) | Op::Unrow(_) | Op::Stack | Op::Subsample(_) | Op::Embed(_) => None,
            Op::Moments | Op::Variance | Op::Normalise(_) | Op::NormJacobian(_) | Op::Softmax => None,
            Op::CrossEntropy | Op::Residual | Op::WeightedResidual | Op::Correct | Op::Gather(_) => None,
        }
    }

    /// Two operations of one kind as one. Only where nothing is differentiated any more: a
    /// derivative by the value in between would be passed by.
    fn folded(&mut self, op: &Op, first: Var, shape: &Shape) -> Option<Var> {
        if !self.folds {
            return None;
        }
        let inner = self.node(first);
        let &[x] = &inner.args[..] else { return None };
        let one = match (op, &inner.op) {
            // c·(d·x) => (c·d)·x
            // Within f32's range: it, too, may hold them one by one and not their product.
            (Op::Scale(c), Op::Scale(d)) if (1e-37..1e37).contains(&(c.0 * d.0).abs()) => {
                Op::Scale(Scalar(c.0 * d.0))
            }
            // reshape(reshape(x)) => reshape(x)
            (Op::Reshape, Op::Reshape) => Op::Reshape,
            (_, _) => return None,
        };
        self.push(one, &[x], Some(shape)).ok()
    }

    fn constant_of(&self, var: Var) -> Option<f64> {
        if let Op::Constant(c) = self.node(var).op { Some(c.0) } else { None }
    }
}
