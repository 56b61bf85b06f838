//! What is made again: where memory is fullest, there are values that nothing reads for a while.
//! One that a group has made, and that the next one to read it, a group too, can make from what is
//! there then, is not kept. That group makes it itself and writes it anew for those after it: it
//! reads the value's sources, most of which it reads anyway, in the place of the value.
//!
//! So the outputs of batch norm and ReLU wait for the jvp no longer: a quarter of ResNet-32's arena.

use std::collections::{HashMap, HashSet};

use super::emit::Draft;
use super::kernel::{Group, Kernel, Operand, Outcome, Step};
use super::memory::{Life, SMALLER, fullest};
use super::plan::Roots;
use crate::tape::{Tape, Var};

/// Changes the groups of an ordered program; `lives` are those of its memory before.
pub(super) fn make_again(
    tape: &mut Tape,
    drafts: &mut [Draft],
    roots: &mut Roots,
    lives: &HashMap<Var, Life>,
) {
    let full = fullest(lives, drafts.len());
    let results = tape.outputs().iter().map(|o| o.1).chain(tape.updates().iter().map(|u| u.1));
    let results: HashSet<Var> = results.map(|var| roots.of(var).0).collect();
    let idle = |var: &Var| lives.get(var).is_some_and(|l| l.from < full && full < l.to);
    // By value, its first reader after the fullest moment, if none is at it.
    let mut next: HashMap<Var, usize> = HashMap::new();
    for (at, draft) in drafts.iter().enumerate().skip(full) {
        for arg in draft.args.iter().map(|a| roots.of(*a).0).filter(idle) {
            next.entry(arg).or_insert(at);
        }
    }
    let mut waiting: Vec<(usize, Var)> = next.into_iter().map(|(var, at)| (at, var)).collect();
    waiting.retain(|(at, var)| *at > full && !results.contains(var));
    waiting.sort_unstable();
    let mut twins: HashMap<Var, (usize, Var)> = HashMap::new();
    for (at, var) in waiting {
        let whole = |d: &Draft| d.args.iter().all(|a| *a == var || roots.of(*a).0 != var);
        if !drafts[at..].iter().all(whole) {
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
        let Some((source, args)) = recipe(&drafts[lives[&var].from], var, &there) else { continue };
        let Some((group, args)) = merged(&source, args, &drafts[at], var) else { continue };
        let twin = tape.twin(var);
        roots.push_own(twin);
        twins.insert(var, (at, twin));
        for draft in &mut drafts[at + 1..] {
            draft.args.iter_mut().filter(|a| **a == var).for_each(|a| *a = twin);
        }
        (drafts[at].kernel, drafts[at].args) = (Kernel::Group(group), args);
        drafts[at].outs.push(twin);
    }
}

/// What of its maker's group gives `var`, with its arguments as they are `there`.
fn recipe(maker: &Draft, var: Var, there: &dyn Fn(Var) -> Option<Var>) -> Option<(Group, Vec<Var>)> {
    let Kernel::Group(group) = &maker.kernel else { return None };
    let out = maker.outs.iter().position(|o| *o == var)?;
    let Outcome::Store(register) = group.outcomes[out] else { return None };
    let operands = group.operands.len();
    let mut needed = vec![false; operands + group.steps.len()];
    needed[register] = true;
    for (i, step) in group.steps.iter().enumerate().rev() {
        if needed[operands + i] {
            (needed[step.a], needed[step.b]) = (true, true);
        }
    }
    let (mut of, mut args) = (vec![usize::MAX; needed.len()], maker.args.clone());
    let mut source =
        Group { count: group.count, operands: Vec::new(), steps: Vec::new(), outcomes: Vec::new() };
    for (i, operand) in group.operands.iter().enumerate().filter(|(i, _)| needed[*i]) {
        if let Operand::Full(a) | Operand::Repeat(a, _) = operand {
            args[*a] = there(maker.args[*a])?;
        }
        of[i] = source.operands.len();
        source.operands.push(*operand);
    }
    for (i, step) in group.steps.iter().enumerate().filter(|(i, _)| needed[operands + *i]) {
        of[operands + i] = source.operands.len() + source.steps.len();
        source.steps.push(Step { a: of[step.a], b: of[step.b], ..*step });
    }
    source.outcomes.push(Outcome::Store(of[register]));
    Some((source, args))
}

/// The reader's group with `source` before it, whose outcome takes `var`'s place and comes last.
fn merged(source: &Group, sources: Vec<Var>, reader: &Draft, var: Var) -> Option<(Group, Vec<Var>)> {
    let Kernel::Group(group) = &reader.kernel else { return None };
    let same = |operand: &Operand| matches!(operand, Operand::Full(a) if reader.args[*a] == var);
    let repeated = |o: &Operand| matches!(o, Operand::Repeat(a, _) if reader.args[*a] == var);
    if group.count != source.count || group.operands.iter().any(repeated) {
        return None;
    }
    let (mut args, mut operands) = (Vec::new(), Vec::new());
    let mut add = |operand: &Operand, from: &[Var]| {
        let mut argument = |a: usize| {
            let at = args.iter().position(|x| *x == from[a]);
            at.unwrap_or_else(|| {
                args.push(from[a]);
                args.len() - 1
            })
        };
        let operand = match *operand {
            Operand::Full(a) => Operand::Full(argument(a)),
            Operand::Repeat(a, view) => Operand::Repeat(argument(a), view),
            Operand::Constant(c) => Operand::Constant(c),
        };
        operands.iter().position(|o| *o == operand).unwrap_or_else(|| {
            operands.push(operand);
            operands.len() - 1
        })
    };
    let mut first: Vec<usize> = source.operands.iter().map(|o| add(o, &sources)).collect();
    let mut second: Vec<usize> =
        group.operands.iter().map(|o| if same(o) { usize::MAX } else { add(o, &reader.args) }).collect();
    let mut steps = Vec::new();
    // What both compute is computed once.
    let mut run = |all: &[Step], of: &mut Vec<usize>| {
        for step in all {
            let step = Step { a: of[step.a], b: of[step.b], ..*step };
            let at = steps.iter().position(|s| *s == step).unwrap_or(steps.len());
            if at == steps.len() {
                steps.push(step);
            }
            of.push(operands.len() + at);
        }
    };
    run(&source.steps, &mut first);
    let made = |outcome: &Outcome, of: &[usize]| match *outcome {
        Outcome::Store(r) => Outcome::Store(of[r]),
        Outcome::Sum(r, view) => Outcome::Sum(of[r], view),
    };
    let own = made(&source.outcomes[0], &first);
    let Outcome::Store(register) = own else { return None };
    second.iter_mut().filter(|r| **r == usize::MAX).for_each(|r| *r = register);
    run(&group.steps, &mut second);
    let outcomes = group.outcomes.iter().map(|o| made(o, &second)).chain([own]).collect();
    Some((Group { count: group.count, operands, steps, outcomes }, args))
}
