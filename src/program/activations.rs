//! Which tensors are activations, or tangents or cotangents of activations: what a machine may
//! store in fewer bits.

use std::collections::HashSet;

use crate::tape::{Form, Op, Role, Tape, Var, Work};

/// The factors and products of convolutions that are images, what batches are gathered to, and
/// everything of an image's kind that hangs together with them through entrywise work, batch norm,
/// pooling, subsampling and reshaping, in either direction.
///
/// Never: what runs are given or keep (inputs, states), what can be read after a run, and vectors
/// and scalars: statistics, losses, weights of samples. Nor what a convolution has as its filter:
/// parameters, their tangents and their gradients.
///
/// `root` tells in whose memory a value lies: values that share memory are stored alike, so one
/// that must not be an activation decides for all.
pub(super) fn activations(tape: &Tape, root: &dyn Fn(Var) -> Var) -> HashSet<Var> {
    let may = |var: Var| {
        let node = tape.node(var);
        !node.args.is_empty() && node.shape.len() > 1
    };
    let mut alike: Vec<Vec<Var>> = vec![Vec::new(); tape.len()];
    let mut found: HashSet<Var> = HashSet::new();
    let mut open: Vec<Var> = Vec::new();
    let mut never: HashSet<Var> = HashSet::new();
    for var in tape.vars() {
        let node = tape.node(var);
        for arg in node.args.iter().filter(|_| node.op.facts().alike) {
            alike[var.index()].push(*arg);
            alike[arg.index()].push(var);
        }
        if let Op::Gather(_) = node.op {
            open.push(var);
        }
        if let Work::Contract(Form::Conv(_), out) = node.op.facts().work {
            let factors = out.others().into_iter().zip(node.args.iter().copied());
            let (filters, images): (Vec<_>, Vec<_>) =
                factors.chain([(out, var)]).partition(|(role, _)| *role == Role::B);
            never.extend(filters.into_iter().map(|(_, filter)| root(filter)));
            open.extend(images.into_iter().map(|(_, image)| image));
        }
    }
    while let Some(var) = open.pop() {
        if may(var) && found.insert(var) {
            open.extend(&alike[var.index()]);
        }
    }
    never.extend(tape.vars().filter(|v| !found.contains(v)).map(root));
    never.extend(tape.results().map(root));
    found.into_iter().map(root).filter(|v| !never.contains(v)).collect()
}
