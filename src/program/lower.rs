//! Rewrites after differentiation, tape to tape. Fused forms carry no derivative rules because
//! nothing is differentiated any more. Each rewrite says `before => after`.

use std::collections::HashSet;

use crate::error::Result;
use crate::tape::{Form, Function, Op, Role, Scalar, Shape, Tape, Unary, Var, Work};

/// What is rewritten on the way from one tape to the next. In all passes dead code goes, and
/// operations are folded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// Nothing else.
    Fold,
    /// What the kernels do not know: batch norm.
    Plain,
    /// That, and sums and products in the form that is fastest.
    Fast,
}

/// The tape after a pass.
pub(super) fn lower(tape: &Tape, pass: Pass) -> Result<Tape> {
    let live = live(tape);
    let mut readers = vec![0; tape.len()];
    for var in tape.vars().filter(|v| live[v.index()]) {
        tape.node(var).args.iter().for_each(|a| readers[a.index()] += 1);
    }
    tape.results().for_each(|root| readers[root.index()] += 1);
    let updated = tape.updates().iter().filter(|(slot, value)| slot != value).map(|u| u.0).collect();
    let mut low = Lowering { out: Tape::folding(), of: vec![None; tape.len()], readers: &readers, updated };
    // Leaves are declared even where they are not used: callers bind them by name.
    for (name, var) in tape.inputs() {
        let new = low.out.input(name, tape.node(*var).kind, tape.shape(*var).clone())?;
        low.of[var.index()] = Some(new);
    }
    for (name, var) in tape.states() {
        let (kind, shape) = (tape.node(*var).kind, tape.shape(*var).clone());
        let new = match tape.first_value(name) {
            Some(first) => low.out.state_from(name, kind, shape, first.clone())?,
            None => low.out.state(name, kind, shape)?,
        };
        low.of[var.index()] = Some(new);
    }
    for var in tape.vars().filter(|v| live[v.index()]) {
        if low.of[var.index()].is_none() {
            let new = low.rewritten(tape, var, pass)?;
            low.of[var.index()] = Some(new);
        }
    }
    for (name, var) in tape.outputs() {
        let var = low.before_updates(tape, *var)?;
        low.out.output(name, var)?;
    }
    for (slot, var) in tape.updates() {
        let var = if slot == var { low.lowered(*var) } else { low.before_updates(tape, *var)? };
        low.out.update(low.lowered(*slot), var)?;
    }
    Ok(low.out)
}

/// By value, whether an output or update needs it.
pub(super) fn live(tape: &Tape) -> Vec<bool> {
    let mut live = vec![false; tape.len()];
    let slots = tape.updates().iter().map(|u| u.0);
    tape.results().chain(slots).for_each(|root| live[root.index()] = true);
    // Arguments are recorded before what reads them.
    for var in tape.vars().rev() {
        if live[var.index()] {
            tape.node(var).args.iter().for_each(|arg| live[arg.index()] = true);
        }
    }
    live
}

/// The rewriting under way.
pub(super) struct Lowering<'r> {
    /// The tape that is being written.
    pub out: Tape,
    /// From the old tape's values to the new one's.
    of: Vec<Option<Var>>,
    /// How often each old value is read, as an output or update too.
    pub readers: &'r [usize],
    /// States that the run itself changes.
    updated: HashSet<Var>,
}

impl Lowering<'_> {
    /// On the new tape, what is `var` on the old one.
    pub fn lowered(&self, var: Var) -> Var {
        self.of[var.index()].expect("arguments are lowered before what reads them")
    }

    /// The value of `var` at the end of a run. If it is a state, or a part of one, that the run
    /// itself updates: a copy of what the state held before.
    fn before_updates(&mut self, tape: &Tape, var: Var) -> Result<Var> {
        let new = self.lowered(var);
        let mut root = var;
        while tape.node(root).op.facts().work.is_view() {
            root = tape.node(root).args[0];
        }
        if !self.updated.contains(&root) {
            return Ok(new);
        }
        let copy = self.out.stack(&[new])?;
        self.out.reshape(copy, tape.shape(var).clone())
    }

    fn rewritten(&mut self, tape: &Tape, var: Var, pass: Pass) -> Result<Var> {
        let node = tape.node(var);
        let args: Vec<Var> = node.args.iter().map(|a| self.lowered(*a)).collect();
        let pushed = |this: &mut Self| this.out.push(node.op.clone(), &args, Some(&node.shape));
        let fast = pass == Pass::Fast;
        match &node.op {
            // variable(x), detach(x) => x: only derivatives see the difference
            Op::Variable | Op::Detach => Ok(args[0]),
            // variance(x) => row 1 of moments(x), which batch norm's forward pass has computed
            // already
            Op::Variance if pass != Pass::Fold => Ok(self.out.moments(args[0])?.1),
            // normalise(x) => (x − mean)·r, entry by entry
            Op::Normalise(eps) if pass != Pass::Fold => self.normalised(args[0], *eps),
            Op::NormJacobian(eps) if pass != Pass::Fold => self.norm_jacobian(args[0], args[1], *eps),
            Op::Sum { from: 0, to } if fast && *to > 0 => self.channel_sum(&args[..1], *to),
            Op::Contract { form: Form::Gemm, out: Role::C } if fast => {
                match self.chained(tape, node.args[0], node.args[1])? {
                    Some(cheaper) => Ok(cheaper),
                    None => pushed(self),
                }
            }
            Op::Contract { form: Form::Mul, .. } if fast => self.product(args[0], args[1]),
            Op::Select(window) if fast => self.select(*window, args[0], args[1]),
            Op::Unselect(window) if fast => self.unselect(*window, args[0], args[1]),
            Op::Mask if fast => self.mask(args[0], args[1]),
            Op::Input(_) | Op::State(_) | Op::Constant(_) | Op::Broadcast { .. } | Op::Reshape => {
                pushed(self)
            }
            Op::Add | Op::Scale(_) | Op::Offset(_) | Op::Unary(_) | Op::Mask | Op::Max => pushed(self),
            Op::Contract { .. } | Op::Sum { .. } | Op::Select(_) | Op::Unselect(_) => pushed(self),
            Op::Row(_) | Op::Unrow(_) | Op::Stack | Op::Subsample(_) | Op::Embed(_) => pushed(self),
            Op::Variance | Op::Moments | Op::Normalise(_) | Op::NormJacobian(_) => pushed(self),
            Op::Softmax | Op::CrossEntropy | Op::Residual | Op::WeightedResidual => pushed(self),
            Op::Correct | Op::Gather(_) => pushed(self),
        }
    }

    /// `residual(z, y) ∘ broadcast(v) => weighted-residual(z, y, v)`: the weighted cross-entropy's
    /// gradient in one kernel.
    fn product(&mut self, a: Var, b: Var) -> Result<Var> {
        for (residual, weights) in [(a, b), (b, a)] {
            let (r, v) = (self.out.node(residual), self.out.node(weights));
            if let (Op::Residual, Op::Broadcast { from: 1, to: 2 }) = (&r.op, &v.op) {
                let args = [r.args[0], r.args[1], v.args[0]];
                return self.out.push(Op::WeightedResidual, &args, None);
            }
        }
        self.out.mul(a, b)
    }

    /// `r = (var + ε)^{-1/2}` `[c]`, and the mean.
    fn statistics(&mut self, x: Var, eps: Scalar) -> Result<(Var, Var)> {
        let (mean, variance) = self.out.moments(x)?;
        Ok((mean, self.out.inverse_deviation(variance, eps.0)?))
    }

    fn normalised(&mut self, x: Var, eps: Scalar) -> Result<Var> {
        let shape = self.out.shape(x).clone();
        let (mean, r) = self.statistics(x, eps)?;
        let minus = self.out.scale(mean, -1.0)?;
        let centred = self.out.add_bias(x, minus)?;
        let r = self.out.broadcast_to(r, shape)?;
        self.out.mul(centred, r)
    }

    /// `norm-jacobian(x, v) => r·(v − Σv/N − x̂·Σ(x̂v)/N)`: one pass of sums and one entrywise
    /// pass. The sums are those of the gradients in batch norm's bias and scale, so both are
    /// computed once.
    fn norm_jacobian(&mut self, x: Var, v: Var, eps: Scalar) -> Result<Var> {
        let shape = self.out.shape(x).clone();
        let rows = shape.len() - 1;
        let per_row = -1.0 / shape[..rows].iter().product::<usize>().max(1) as f64;
        let xhat = self.normalised(x, eps)?;
        let (_, r) = self.statistics(x, eps)?;
        let sum_v = self.channel_sum(&[v], rows)?;
        let sum_xv = self.channel_sum(&[xhat, v], rows)?;
        let minus_mean = self.out.scale(sum_v, per_row)?;
        let minus_mean = self.out.broadcast_to(minus_mean, shape.clone())?;
        let slope = self.out.scale(sum_xv, per_row)?;
        let slope = self.out.broadcast_to(slope, shape.clone())?;
        let along = self.out.mul(xhat, slope)?;
        let sum = self.out.add(v, minus_mean)?;
        let sum = self.out.add(sum, along)?;
        let r = self.out.broadcast_to(r, shape)?;
        self.out.mul(sum, r)
    }

    /// `sum(a∘broadcast(g)) => g∘sum(a)` over the leading `rows` axes, for any number of factors: a
    /// sum that is then often shared. `sum(unselect(v, x)) => sum(v)`.
    fn channel_sum(&mut self, factors: &[Var], rows: usize) -> Result<Var> {
        let shape = self.out.shape(factors[0]).clone();
        let (mut full, mut channel, mut scale) = (Vec::new(), Vec::new(), 1.0);
        let mut stack = factors.to_vec();
        while let Some(var) = stack.pop() {
            let node = self.out.node(var);
            let work = node.op.facts().work;
            if work == Work::Entrywise(Function::Mul) && !self.is_normalised(var) {
                stack.extend(node.args.iter().copied());
            } else if let Work::Entrywise(Function::Scale(c)) = work {
                scale *= c;
                stack.push(node.args[0]);
            } else if work == (Work::Repeat { from: 0, to: rows }) {
                channel.push(node.args[0]);
            } else {
                full.push(var);
            }
        }
        full.sort();
        channel.sort();
        let mut sum = match full.split_first() {
            None => {
                let count = shape[..rows].iter().product::<usize>() as f64;
                self.out.constant(count, Shape::from(&shape[rows..]))
            }
            Some((first, rest)) => {
                let first = match self.out.node(*first) {
                    node if rows == 3 && rest.is_empty() && matches!(node.op, Op::Unselect(_)) => {
                        &node.args[0]
                    }
                    _ => first,
                };
                let product = rest.iter().try_fold(*first, |p, f| self.out.mul(p, *f))?;
                self.out.sum(product, 0, rows)?
            }
        };
        for factor in channel {
            sum = self.out.mul(sum, factor)?;
        }
        self.out.scale(sum, scale)
    }

    /// Whether `var` is `(x − mean)·r`: kept whole, since it is a factor that sums share.
    fn is_normalised(&self, var: Var) -> bool {
        let args = &self.out.node(var).args;
        let is_r = |v: Var| {
            let Work::Repeat { .. } = self.out.node(v).op.facts().work else { return false };
            self.out.node(self.out.node(v).args[0]).op == Op::Unary(Unary::Recip)
        };
        let is_centred = |v: Var| self.out.node(v).op == Op::Add;
        (is_r(args[0]) && is_centred(args[1])) || (is_r(args[1]) && is_centred(args[0]))
    }
}
