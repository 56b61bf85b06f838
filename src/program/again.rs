//! What is made again: where memory is fullest, there are values that nothing reads for a while.
//! One that a group has made, and that the next one to read it, a group too, can make from what is
//! there then, is not kept. That group makes it itself and writes it anew for those after it: it
//! reads the value's sources, most of which it reads anyway, in the place of the value.
//!
//! So the outputs of batch norm and ReLU wait for the jvp no longer: a quarter of ResNet-32's
//! arena.

use std::collections::{HashMap, HashSet};

use super::emit::{Draft, Register, Writer};
use super::kernel::{Group, Kernel, Operand, Outcome};
use super::memory::{Life, SMALLER, fullest};
use super::plan::Roots;
use crate::tape::{Tape, Var};

/// Of a group that makes others' values, too.
const MOST_ARGUMENTS: usize = 32;

/// Changes the groups of an ordered program; `lives` are those of its memory before.
pub(super) fn make_again(
    lives: &HashMap<Var, Life>,
    tape: &mut Tape,
    drafts: &mut [Draft],
    roots: &mut Roots,
) {
    let full = fullest(lives, drafts.len());
    let results: HashSet<Var> = tape.results().map(|var| roots.of(var).0).collect();
    let idle = |var: &Var| lives.get(var).is_some_and(|l| l.from < full && full < l.to);
    // By value, what reads it from the fullest moment on.
    let mut readers: HashMap<Var, Vec<usize>> = HashMap::new();
    for (at, draft) in drafts.iter().enumerate().skip(full) {
        for arg in draft.args.iter().map(|a| roots.of(*a).0).filter(idle) {
            readers.entry(arg).or_default().push(at);
        }
    }
    let mut waiting: Vec<(Vec<usize>, Var)> = readers.into_iter().map(|(var, at)| (at, var)).collect();
    waiting.retain(|(readers, var)| readers[0] > full && !results.contains(var));
    waiting.sort_unstable();
    let mut twins: HashMap<Var, (usize, Var)> = HashMap::new();
    for (readers, var) in waiting {
        let at = readers[0];
        let whole = |i: &usize| drafts[*i].args.iter().all(|a| *a == var || roots.of(*a).0 != var);
        if !readers.iter().all(whole) {
            continue;
        }
        // The arguments as they are to be read at `at`, if all are there.
        let there = |arg: Var| {
            let root = roots.of(arg).0;
            if let Some((made, twin)) = twins.get(&root) {
                return (arg == root && *made < at).then_some(*twin);
            }
            let small = |l: &Life| l.len * SMALLER <= tape.shape(var).count();
            lives.get(&root).is_none_or(|l| l.to >= at || small(l)).then_some(arg)
        };
        let Some((group, args)) = merged(&drafts[lives[&var].from], &drafts[at], var, &there) else {
            continue;
        };
        let twin = tape.twin(var);
        roots.push_own(twin);
        twins.insert(var, (at, twin));
        for i in &readers[1..] {
            drafts[*i].args.iter_mut().filter(|a| **a == var).for_each(|a| *a = twin);
        }
        (drafts[at].kernel, drafts[at].args) = (Kernel::Group(group), args);
        drafts[at].outs.push(twin);
    }
}

/// The reader's group, in which `var` is made as in its maker's, out of arguments as they are
/// `there`, and is what comes out last.
fn merged(
    maker: &Draft,
    reader: &Draft,
    var: Var,
    there: &dyn Fn(Var) -> Option<Var>,
) -> Option<(Group, Vec<Var>)> {
    let (Kernel::Group(from), Kernel::Group(to)) = (&maker.kernel, &reader.kernel) else { return None };
    if from.count != to.count {
        return None;
    }
    let mut writer = Writer::default();
    let mut transfer =
        Transfer { of: from, done: HashMap::new(), arg: &|a| there(maker.args[a]), made: None };
    let out = maker.outs.iter().position(|o| *o == var)?;
    let Outcome::Store(register) = from.outcomes[out] else { return None };
    let made = transfer.register(register, &mut writer)?;
    let others = |a: usize| Some(reader.args[a]).filter(|arg| *arg != var);
    let own = reader.args.iter().position(|a| *a == var).map(|a| (Operand::Full(a), made));
    let mut transfer = Transfer { of: to, done: HashMap::new(), arg: &others, made: own };
    let mut outcomes = Vec::with_capacity(to.outcomes.len() + 1);
    for outcome in &to.outcomes {
        let (register, view) = match *outcome {
            Outcome::Store(register) => (register, None),
            Outcome::Sum(register, view) => (register, Some(view)),
        };
        outcomes.push((transfer.register(register, &mut writer)?, view));
    }
    outcomes.push((made, None));
    (writer.args.len() <= MOST_ARGUMENTS).then(|| writer.group(to.count, &outcomes))
}

/// A group's registers on their way to another group.
struct Transfer<'a> {
    of: &'a Group,
    done: HashMap<usize, Register>,
    /// What an argument is there, if it is there at all.
    arg: &'a dyn Fn(usize) -> Option<Var>,
    /// An operand that has been made there, and where.
    made: Option<(Operand, Register)>,
}

impl Transfer<'_> {
    fn register(&mut self, i: usize, to: &mut Writer) -> Option<Register> {
        if let Some(done) = self.done.get(&i) {
            return Some(*done);
        }
        let register = match self.of.operands.get(i).copied() {
            Some(operand) if self.made.is_some_and(|made| made.0 == operand) => self.made?.1,
            Some(operand) => {
                let mut argument = |a: usize| Some(to.argument((self.arg)(a)?));
                let operand = match operand {
                    Operand::Full(a) => Operand::Full(argument(a)?),
                    Operand::Repeat(a, view) => Operand::Repeat(argument(a)?, view),
                    Operand::Constant(c) => Operand::Constant(c),
                };
                to.operand(operand)
            }
            None => {
                let step = self.of.steps[i - self.of.operands.len()];
                let (a, b) = (self.register(step.a, to)?, self.register(step.b, to)?);
                to.step(step.function, a, b)
            }
        };
        self.done.insert(i, register);
        Some(register)
    }
}
