//! Which tensors are activations, or tangents or cotangents of activations: what a machine may store in fewer bits.

use std::collections::HashSet;

use crate::tape::{Form, Op, Role, Tape, Var};

/// The factors and products of convolutions that are images, what batches are gathered to, and everything of an image's kind that hangs
/// together with them through entrywise work, batch norm, pooling, subsampling and reshaping, in either direction.
///
/// Never: what runs are given or keep (inputs, states), what can be read after a run, and vectors and scalars: statistics, losses, weights of
/// samples. Nor what a convolution has as its filter: parameters, their tangents and their gradients.
///
/// `root` tells in whose memory a value lies: values that share memory are stored alike, so one that must not be an activation decides for all.
pub(super) fn activations(tape: &Tape, root: &dyn Fn(Var) -> Var) -> HashSet<Var> {
    let may = |var: Var| {
        let node = tape.node(var);
        !matches!(node.op, Op::Input(_) | Op::State(_) | Op::Constant(_)) && node.shape.len() > 1
    };
    let mut alike: Vec<Vec<Var>> = vec![Vec::new(); tape.len()];
    let mut found: HashSet<Var> = HashSet::new();
    let mut open: Vec<Var> = Vec::new();
    let mut never: HashSet<Var> = HashSet::new();
    for var in tape.vars() {
        let node = tape.node(var);
        for arg in node.args.iter().filter(|_| keeps_kind(&node.op)) {
            alike[var.index()].push(*arg);
            alike[arg.index()].push(var);
        }
        match node.op {
            Op::Gather(_) => open.push(var),
            Op::Contract { form: Form::Conv(_), out } => {
                let factors = out.others().into_iter().zip(node.args.iter().copied());
                let (filters, images): (Vec<_>, Vec<_>) =
                    factors.chain([(out, var)]).partition(|(role, _)| *role == Role::B);
                never.extend(filters.into_iter().map(|(_, filter)| root(filter)));
                open.extend(images.into_iter().map(|(_, image)| image));
            }
            _ => {}
        }
    }
    while let Some(var) = open.pop() {
        if may(var) && found.insert(var) {
            open.extend(&alike[var.index()]);
        }
    }
    never.extend(tape.vars().filter(|v| !found.contains(v)).map(root));
    never.extend(tape.outputs().iter().map(|o| root(o.1)));
    never.extend(tape.updates().iter().map(|u| root(u.1)));
    found.into_iter().map(root).filter(|v| !never.contains(v)).collect()
}

/// Whether an operation's result and arguments are of one kind: all activations, or none.
fn keeps_kind(op: &Op) -> bool {
    match op {
        Op::Add | Op::Scale(_) | Op::Offset(_) | Op::Unary(_) | Op::Mask => true,
        Op::Contract { form, .. } => matches!(form, Form::Mul),
        Op::Select(_) | Op::Unselect(_) | Op::Subsample(_) | Op::Embed(_) => true,
        Op::Normalise(_) | Op::NormJacobian(_) => true,
        Op::Reshape | Op::Variable | Op::Detach => true,
        Op::Input(_) | Op::State(_) | Op::Constant(_) => false,
        Op::Sum { .. } | Op::Broadcast { .. } | Op::Moments | Op::Variance => false,
        Op::Row(_) | Op::Unrow(_) | Op::Stack => false,
        Op::Softmax
        | Op::CrossEntropy
        | Op::Residual
        | Op::WeightedResidual
        | Op::Correct
        | Op::Gather(_) => false,
    }
}
