//! Units to kernels: what each one reads, computes and writes.

use std::collections::{HashMap, HashSet};

use super::conv_shape::ConvShape;
use super::fuse::{Units, through, work};
use super::kernel::{Dims, Function, Group, Kernel, Operand, Outcome, Step};
use crate::tape::{Form, Geometry, Op, Role, Shape, Tape, Var, View3, Work};

/// A kernel whose operands have no places yet.
pub(super) struct Draft {
    pub kernel: Kernel,
    pub args: Vec<Var>,
    pub outs: Vec<Var>,
    /// The value that a contraction is added to; its memory becomes the output's.
    pub onto: Option<Var>,
    /// Where in the recorded order it belongs.
    pub order: usize,
}

/// The kernel of unit number `index`.
pub(super) fn draft(tape: &Tape, units: &Units, index: usize) -> Draft {
    let unit = &units.units[index];
    let order = unit.members[unit.members.len() - 1].index();
    if unit.group {
        let (group, args, outs) = group(tape, units, index);
        return Draft { kernel: Kernel::Group(group), args, outs, onto: None, order };
    }
    let var = unit.members[0];
    let node = tape.node(var);
    let mut args = node.args.clone();
    if let Op::Select(_) = node.op {
        // Where a tensor steers its own selection, it is read once.
        args.dedup();
    }
    Draft { kernel: kernel(tape, var, unit.onto.is_some()), args, outs: vec![var], onto: unit.onto, order }
}

/// Groups keep in memory only what `read` says is read from there.
pub(super) fn forget_unread(drafts: &mut [Draft], read: &HashSet<Var>) {
    for draft in drafts {
        if let Kernel::Group(group) = &mut draft.kernel {
            let mut keep = draft.outs.iter().map(|o| read.contains(o)).collect::<Vec<_>>().into_iter();
            group.outcomes.retain(|_| keep.next().unwrap_or(true));
            draft.outs.retain(|o| read.contains(o));
        }
    }
}

/// A convolution that is added to another of the same extents, as the tangents of both factors are,
/// becomes one kernel with it: of two pairs of factors, so that the sum goes through memory once.
pub(super) fn pair_up(drafts: &mut Vec<Draft>) {
    let forward = |kernel: &Kernel| {
        let Kernel::Contract { out: Role::C, dims: Dims::Conv(shape), .. } = kernel else { return None };
        Some(*shape)
    };
    let mut makers: HashMap<Var, usize> = HashMap::new();
    for at in 0..drafts.len() {
        match drafts[at].onto.map(|base| makers.remove(&base)) {
            None if forward(&drafts[at].kernel).is_some() => drop(makers.insert(drafts[at].outs[0], at)),
            Some(Some(base)) if forward(&drafts[base].kernel) == forward(&drafts[at].kernel) => {
                let first = std::mem::take(&mut drafts[base].args);
                drafts[at].args.splice(..0, first);
                (drafts[at].kernel, drafts[at].onto) = (drafts[base].kernel.clone(), None);
            }
            None | Some(_) => {}
        }
    }
    // Every other kernel of a product has factors.
    drafts.retain(|draft| forward(&draft.kernel).is_none() || !draft.args.is_empty());
}

fn four(shape: &Shape) -> [usize; 4] {
    [shape[0], shape[1], shape[2], shape[3]]
}

/// Multiplications and additions of `var`'s contraction, 0 if it is none.
pub(super) fn flops(tape: &Tape, var: Var) -> u64 {
    work(tape, var).contraction().map_or(0, |_| kernel(tape, var, false).flops())
}

fn kernel(tape: &Tape, var: Var, accumulate: bool) -> Kernel {
    let node = tape.node(var);
    let arg = |i: usize| tape.shape(node.args[i]);
    let last = |s: &Shape| s.last().copied().unwrap_or(1);
    match &node.op {
        Op::Contract { form, out } => {
            let of = |role: Role| {
                if role == *out { &node.shape } else { arg(usize::from(out.others()[1] == role)) }
            };
            let (a, b, c) = (of(Role::A), of(Role::B), of(Role::C));
            let dims = match form {
                Form::Conv(geometry) => {
                    let ([n, h, w, ci], [kh, kw, _, co]) = (four(a), four(b));
                    let Geometry { stride, pad, groups } = *geometry;
                    // Beyond the image every stride is the same: one place.
                    let stride = stride.min(h.max(w) + 2 * pad);
                    Dims::Conv(ConvShape { n, h, w, ci, kh, kw, co, stride, pad, groups })
                }
                Form::Gemm => Dims::Gemm { m: c[0], n: c[1], k: a[1] },
                Form::Mul => unreachable!("a product entry by entry is entrywise work"),
            };
            Kernel::Contract { form: *form, out: *out, dims, accumulate }
        }
        Op::Sum { from, to } => Kernel::Sum(arg(0).view3(*from..*to)),
        Op::Select(w) => Kernel::Select(*w, four(arg(0))),
        Op::Unselect(w) => Kernel::Unselect(*w, four(&node.shape)),
        Op::Subsample(s) => Kernel::Subsample(*s, four(arg(0))),
        Op::Embed(s) => Kernel::Embed(*s, four(&node.shape)),
        Op::Unrow(i) => Kernel::Unrow(i * arg(0).count()),
        Op::Stack => Kernel::Stack,
        Op::Moments => Kernel::Moments(last(arg(0))),
        Op::Softmax => Kernel::Softmax(last(arg(0))),
        Op::CrossEntropy => Kernel::CrossEntropy,
        Op::Residual => Kernel::Residual,
        Op::WeightedResidual => Kernel::WeightedResidual,
        Op::Correct => Kernel::Correct,
        Op::Gather(spec) => {
            let s = arg(0);
            Kernel::Gather(spec.clone(), [s[1], s[2], s[3]])
        }
        Op::Input(_) | Op::State(_) => unreachable!("a leaf is there"),
        Op::Reshape | Op::Row(_) | Op::Variable | Op::Detach => unreachable!("a view runs nothing"),
        Op::Constant(_) | Op::Broadcast { .. } => unreachable!("it is written where it is read"),
        Op::Add | Op::Scale(_) | Op::Offset(_) | Op::Unary(_) | Op::Mask | Op::Max => {
            unreachable!("entrywise work runs in groups")
        }
        Op::Variance => unreachable!("it is a row of the moments"),
        Op::Normalise(_) | Op::NormJacobian(_) => unreachable!("it is the moments and entrywise work"),
    }
}

/// A register while operands are still being found.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Register {
    Operand(usize),
    Step(usize),
}

/// A group that is being written.
#[derive(Default)]
pub(super) struct Writer {
    pub args: Vec<Var>,
    operands: Vec<Operand>,
    steps: Vec<(Function, Register, Register)>,
}

impl Writer {
    pub fn argument(&mut self, var: Var) -> usize {
        index_of(&mut self.args, var, false)
    }

    pub fn operand(&mut self, operand: Operand) -> Register {
        // Numbers are not looked for: 0 equals −0, and is another one.
        let number = matches!(operand, Operand::Constant(_));
        Register::Operand(index_of(&mut self.operands, operand, number))
    }

    pub fn step(&mut self, function: Function, a: Register, b: Register) -> Register {
        let number = matches!(function, Function::Scale(_) | Function::Offset(_));
        Register::Step(index_of(&mut self.steps, (function, a, b), number))
    }

    /// With what is done with its registers; a sum has a view.
    pub fn group(self, count: usize, outcomes: &[(Register, Option<View3>)]) -> (Group, Vec<Var>) {
        let operands = self.operands.len();
        let number = |r: Register| match r {
            Register::Operand(i) => i,
            Register::Step(i) => operands + i,
        };
        let step = |(function, a, b)| Step { function, a: number(a), b: number(b) };
        let outcome = |(r, view): &(Register, Option<View3>)| match view {
            Some(view) => Outcome::Sum(number(*r), *view),
            None => Outcome::Store(number(*r)),
        };
        let (steps, outcomes) =
            (self.steps.into_iter().map(step).collect(), outcomes.iter().map(outcome).collect());
        (Group { count, operands: self.operands, steps, outcomes }, self.args)
    }
}

/// Where `item` stands; at the end if it is new, or `always`.
fn index_of<T: PartialEq>(all: &mut Vec<T>, item: T, always: bool) -> usize {
    all.iter().position(|x| !always && *x == item).unwrap_or_else(|| {
        all.push(item);
        all.len() - 1
    })
}

struct Builder<'a> {
    tape: &'a Tape,
    units: &'a Units<'a>,
    unit: usize,
    loaded: HashSet<Var>,
    writer: Writer,
    registers: HashMap<Var, Register>,
}

fn group(tape: &Tape, units: &Units, index: usize) -> (Group, Vec<Var>, Vec<Var>) {
    let members = &units.units[index].members;
    let first = members[0];
    let space = if work(tape, first).is_leading_sum() { tape.node(first).args[0] } else { first };
    let mut b = Builder {
        tape,
        units,
        unit: index,
        loaded: HashSet::new(),
        writer: Writer::default(),
        registers: HashMap::new(),
    };
    // Tensors that are read whatever is decided about values that could be read or computed again.
    for member in members {
        let mut stack = tape.node(*member).args.clone();
        while let Some(arg) = stack.pop() {
            let arg = through(tape, arg);
            if units.unit_of(arg) == Some(index) || work(tape, arg).is_spread() {
                continue;
            }
            match units.inlined(arg) {
                None => drop(b.loaded.insert(arg)),
                Some(_) if units.unit_of(arg).is_none() => stack.extend(tape.node(arg).args.clone()),
                Some(_) => {}
            }
        }
    }
    // Whether anything reads an outcome from memory is known when all kernels are: see
    // `forget_unread`.
    let mut outcomes = Vec::new();
    for member in members {
        let node = tape.node(*member);
        outcomes.push(if let Work::Sum { from, to } = node.op.facts().work {
            (b.resolve(node.args[0]), Some(tape.shape(node.args[0]).view3(from..to)))
        } else {
            let register = b.made(*member);
            b.registers.insert(*member, register);
            (register, None)
        });
    }
    let (group, args) = b.writer.group(tape.shape(space).count(), &outcomes);
    (group, args, members.clone())
}

impl Builder<'_> {
    fn resolve(&mut self, var: Var) -> Register {
        let var = through(self.tape, var);
        if let Some(register) = self.registers.get(&var) {
            return *register;
        }
        let register = match self.units.inlined(var) {
            Some(base) => {
                let read = self.units.unit_of(var).is_some() && base.is_some_and(|b| !self.here(b));
                if read { self.operand(var) } else { self.made(var) }
            }
            None => self.operand(var),
        };
        self.registers.insert(var, register);
        register
    }

    /// Whether this group has `base` in a register in any case.
    fn here(&self, base: Var) -> bool {
        self.loaded.contains(&base) || self.units.unit_of(base) == Some(self.unit)
    }

    fn operand(&mut self, var: Var) -> Register {
        let node = self.tape.node(var);
        let operand = match node.op.facts().work {
            Work::Constant(c) => Operand::Constant(c),
            Work::Repeat { from, to } => {
                let view = node.shape.view3(from..to);
                let arg = self.writer.argument(node.args[0]);
                if view.mid == 1 { Operand::Full(arg) } else { Operand::Repeat(arg, view) }
            }
            Work::Leaf | Work::Same | Work::Name | Work::Part(_) | Work::Entrywise(_) => self.whole(var),
            Work::Sum { .. } | Work::Contract(..) | Work::Kernel => self.whole(var),
        };
        self.writer.operand(operand)
    }

    fn whole(&mut self, var: Var) -> Operand {
        self.loaded.insert(var);
        Operand::Full(self.writer.argument(var))
    }

    /// What a member of the group computes, or writes as it is read.
    fn made(&mut self, var: Var) -> Register {
        let Some(function) = work(self.tape, var).function() else { return self.operand(var) };
        let args: Vec<Register> = self.tape.node(var).args.iter().map(|a| self.resolve(*a)).collect();
        self.writer.step(function, args[0], args[args.len() - 1])
    }
}
