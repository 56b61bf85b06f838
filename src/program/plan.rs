//! The order of the kernels and the places of all tensors.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use super::activations::activations;
use super::again::make_again;
use super::emit::{Draft, draft, forget_unread, pair_up};
use super::fuse::Units;
use super::kernel::{Dims, Instr, Kernel, NEAR, Operand, Outcome, Place, Tensor};
use super::lower::{Pass, lower};
use super::memory::{Arena, Life};
use crate::error::Result;
use crate::tape::{First, Kind, Op, Shape, Tape, Var, Work};

/// How a tape is made into a plan.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Rewrite and fuse after differentiation. Off: one kernel per operation, for comparison.
    pub fuse: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { fuse: true }
    }
}

/// A leaf or output of a program, by name.
#[derive(Clone, Debug)]
pub struct Named {
    /// As declared on the tape.
    pub name: String,
    /// Its extents.
    pub shape: Shape,
    /// What its entries are.
    pub kind: Kind,
}

/// A program without a machine: kernels in order, with the places of what they read and write.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In the order in which they run.
    pub instrs: Vec<Instr>,
    /// Entries of the arena that all tensors between the kernels share.
    pub arena: usize,
    /// What a run is given.
    pub inputs: Vec<Named>,
    /// What stays between runs.
    pub states: Vec<Named>,
    /// Per state, its first value, if that is not zeros.
    pub firsts: Vec<Option<First>>,
    /// What can be read after a run, with its place.
    pub outputs: Vec<(Named, Tensor)>,
    /// Names of the states that a run changes.
    pub updated: Vec<String>,
}

/// Where each value's entries are found: a value that has memory, and how far into it.
pub(super) struct Roots(Vec<(Var, usize)>);

impl Roots {
    /// `onto`: the value in whose memory another one lies, recorded before it.
    fn new(tape: &Tape, onto: &HashMap<Var, Var>) -> Roots {
        let mut roots: Vec<(Var, usize)> = Vec::with_capacity(tape.len());
        for var in tape.vars() {
            let node = tape.node(var);
            let of = |var: Var| roots[var.index()];
            let own = || onto.get(&var).map_or((var, 0), |base| of(*base));
            let root = match node.op.facts().work {
                Work::Same | Work::Name => of(node.args[0]),
                Work::Part(i) => {
                    let (base, offset) = of(node.args[0]);
                    (base, offset + i * node.shape.count())
                }
                Work::Leaf | Work::Constant(_) | Work::Repeat { .. } | Work::Entrywise(_) => own(),
                Work::Sum { .. } | Work::Contract(..) | Work::Kernel => own(),
            };
            roots.push(root);
        }
        Roots(roots)
    }

    pub fn of(&self, var: Var) -> (Var, usize) {
        self.0[var.index()]
    }

    /// Values that lie in the memory of others now: the keys of `over` in that of their values.
    fn lay_over(&mut self, over: &HashMap<Var, Var>) {
        for (root, _) in &mut self.0 {
            while let Some(base) = over.get(root) {
                *root = *base;
            }
        }
    }

    /// The tape's next value has memory of its own.
    pub fn push_own(&mut self, var: Var) {
        self.0.push((var, 0));
    }
}

impl Plan {
    /// Plans a tape's outputs and updates.
    pub fn new(tape: &Tape, options: Options) -> Result<Plan> {
        let rewrites = if options.fuse { Pass::Fast } else { Pass::Plain };
        // At last once more, for what the rewrites have left without a reader.
        let mut tape = lower(&lower(&lower(tape, Pass::Fold)?, rewrites)?, Pass::Plain)?;
        let units = Units::new(&tape, options.fuse);
        let mut drafts: Vec<Draft> = (0..units.units.len()).map(|i| draft(&tape, &units, i)).collect();
        // `q` added onto `p`: both the sum and q itself live in p's memory.
        let mut onto = HashMap::new();
        for draft in &drafts {
            if let Some(base) = draft.onto {
                onto.insert(draft.outs[0], base);
                for reader in units.readers(draft.outs[0]) {
                    onto.insert(reader, base);
                }
            }
        }
        let mut roots = Roots::new(&tape, &onto);
        let mut read: HashSet<Var> = drafts.iter().flat_map(|d| &d.args).map(|a| roots.of(*a).0).collect();
        read.extend(tape.results().map(|result| roots.of(result).0));
        forget_unread(&mut drafts, &read);
        pair_up(&mut drafts);
        let mut drafts = in_order(drafts, &roots);
        if options.fuse {
            make_again(&lives(&tape, &drafts, &roots), &mut tape, &mut drafts, &mut roots);
            let over = written_over(&tape, &drafts, &roots);
            roots.lay_over(&over);
        }
        Ok(place(&tape, drafts, &roots))
    }

    /// Multiplications and additions of all contractions of one run.
    pub fn flops(&self) -> u64 {
        self.instrs.iter().map(Instr::flops).sum()
    }
}

/// Kahn's algorithm; among the kernels that are ready, the one recorded first.
fn in_order(drafts: Vec<Draft>, roots: &Roots) -> Vec<Draft> {
    // What adds to one memory does so in the order of recording, each after the one before.
    let mut makers: HashMap<Var, Vec<usize>> = HashMap::new();
    for (i, draft) in drafts.iter().enumerate() {
        for out in &draft.outs {
            makers.entry(roots.of(*out).0).or_default().push(i);
        }
    }
    makers.values_mut().for_each(|all| all.sort_by_key(|i| drafts[*i].order));
    let (mut waiting, mut next) = (vec![0; drafts.len()], vec![Vec::new(); drafts.len()]);
    for (i, draft) in drafts.iter().enumerate() {
        let mut needs: Vec<usize> = Vec::new();
        for arg in &draft.args {
            needs.extend(makers.get(&roots.of(*arg).0).and_then(|all| all.last()).filter(|m| **m != i));
        }
        if let Some(all) = draft.onto.and_then(|base| makers.get(&roots.of(base).0)) {
            let before = all.partition_point(|m| drafts[*m].order < draft.order);
            needs.extend(&all[before.saturating_sub(1)..before]);
        }
        needs.sort_unstable();
        needs.dedup();
        waiting[i] = needs.len();
        for need in needs {
            next[need].push(i);
        }
    }
    let mut ready: BinaryHeap<Reverse<(usize, usize)>> = BinaryHeap::new();
    for (i, draft) in drafts.iter().enumerate().filter(|(i, _)| waiting[*i] == 0) {
        ready.push(Reverse((draft.order, i)));
    }
    let mut slots: Vec<Option<Draft>> = drafts.into_iter().map(Some).collect();
    let mut order = Vec::with_capacity(slots.len());
    while let Some(Reverse((_, i))) = ready.pop() {
        order.extend(slots[i].take());
        for n in &next[i] {
            waiting[*n] -= 1;
            if let (0, Some(draft)) = (waiting[*n], &slots[*n]) {
                ready.push(Reverse((draft.order, *n)));
            }
        }
    }
    assert!(slots.iter().all(Option::is_none), "kernels wait for each other in a circle");
    order
}

/// Results of groups, each with an operand of its group that nothing else reads: in its place, the
/// result is written to what is in the cache already.
fn written_over(tape: &Tape, drafts: &[Draft], roots: &Roots) -> HashMap<Var, Var> {
    let kept: HashSet<Var> = tape.results().map(|var| roots.of(var).0).collect();
    let mut readers: HashMap<Var, usize> = HashMap::new();
    drafts.iter().flat_map(|d| &d.args).for_each(|a| *readers.entry(roots.of(*a).0).or_default() += 1);
    let mut over = HashMap::new();
    for draft in drafts {
        let Kernel::Group(group) = &draft.kernel else { continue };
        // What is repeated has fewer entries than the group.
        let free = |arg: &Var| {
            let (root, _) = roots.of(*arg);
            let free = readers[&root] == 1
                && !kept.contains(&root)
                && tape.node(root).op.facts().work != Work::Leaf
                && tape.shape(root).count() == group.count;
            free.then_some(root)
        };
        let mut free = draft.args.iter().filter_map(free);
        let stored = group.outcomes.iter().zip(&draft.outs).filter(|(o, _)| matches!(o, Outcome::Store(_)));
        over.extend(stored.map(|(_, out)| *out).filter(|out| !kept.contains(out)).zip(&mut free));
    }
    over
}

/// From its first to its last kernel, each value that has memory and is no leaf.
fn lives(tape: &Tape, drafts: &[Draft], roots: &Roots) -> HashMap<Var, Life> {
    let mut lives: HashMap<Var, Life> = HashMap::new();
    for (at, draft) in drafts.iter().enumerate() {
        for var in draft.outs.iter().chain(&draft.args) {
            let (root, _) = roots.of(*var);
            if tape.node(root).op.facts().work != Work::Leaf {
                let len = tape.shape(root).count();
                lives.entry(root).or_insert(Life { len, from: at, to: at }).to = at;
            }
        }
    }
    lives
}

fn place(tape: &Tape, drafts: Vec<Draft>, roots: &Roots) -> Plan {
    // A planned tape has its leaves in the order of their declaration, each one once.
    let state = |var: Var| if let Op::State(i) = tape.node(var).op { Some(i) } else { None };
    let leaf = |var: Var| {
        if let Op::Input(i) = tape.node(var).op {
            return Some(Place::Input(i, 0));
        }
        state(var).map(|i| Place::State(i, 0))
    };
    let mut lives = lives(tape, &drafts, roots);
    let end = drafts.len();
    for (_, var) in tape.outputs() {
        if let Some(life) = lives.get_mut(&roots.of(*var).0) {
            life.to = end;
        }
    }
    let reads = Reads::new(&drafts, roots);
    // What may run inside of the convolution that it waits for writes while that one still reads.
    for (at, draft) in drafts.iter().enumerate() {
        let makers = draft.args.iter().filter_map(|arg| reads.writers.get(&roots.of(*arg).0));
        let within = |maker: &&usize| {
            **maker + NEAR >= at
                && matches!(drafts[**maker].kernel, Kernel::Contract { dims: Dims::Conv(_), .. })
                && matches!(draft.kernel, Kernel::Group(_) | Kernel::Moments(_))
        };
        let Some(maker) = makers.max().filter(within) else { continue };
        for out in &draft.outs {
            if let Some(life) = lives.get_mut(out).filter(|l| l.from == at) {
                life.from = *maker;
            }
        }
    }
    // An update is computed right into its slot where nothing reads the old value afterwards.
    let (mut in_slot, mut copies) = (HashMap::new(), Vec::new());
    for (slot, var) in tape.updates() {
        let Some(index) = state(*slot) else { continue };
        if *slot == *var {
            continue;
        }
        if !in_slot.contains_key(var) && reads.write_in_place(*slot, *var) {
            in_slot.insert(*var, Place::State(index, 0));
            lives.remove(var);
        } else {
            if let Some(life) = lives.get_mut(&roots.of(*var).0) {
                life.to = end;
            }
            copies.push((*slot, *var));
        }
    }
    let arena = Arena::lay_out(&lives);
    let activations = activations(tape, &|var| roots.of(var).0);
    let tensor = |var: Var| {
        let (root, offset) = roots.of(var);
        let node = tape.node(var);
        let outside = in_slot.get(&root).copied().or_else(|| leaf(root));
        let place = match outside.unwrap_or_else(|| Place::Arena(arena.offsets[&root])) {
            Place::State(i, at) => Place::State(i, at + offset),
            Place::Input(i, at) => Place::Input(i, at + offset),
            Place::Arena(at) => Place::Arena(at + offset),
        };
        let activation = outside.is_none() && activations.contains(&root);
        Tensor { place, len: node.shape.count(), kind: node.kind, activation }
    };
    let mut instrs: Vec<Instr> = drafts
        .iter()
        .map(|d| Instr {
            kernel: d.kernel.clone(),
            args: d.args.iter().map(|a| tensor(*a)).collect(),
            outs: d.outs.iter().map(|o| tensor(*o)).collect(),
        })
        .collect();
    for (slot, var) in copies {
        instrs.push(Instr { kernel: Kernel::Copy, args: vec![tensor(var)], outs: vec![tensor(slot)] });
    }
    let named = |(name, var): &(String, Var)| {
        let node = tape.node(*var);
        Named { name: name.clone(), shape: node.shape.clone(), kind: node.kind }
    };
    Plan {
        instrs,
        arena: arena.len,
        inputs: tape.inputs().iter().map(named).collect(),
        states: tape.states().iter().map(named).collect(),
        firsts: tape.states().iter().map(|s| tape.first_value(&s.0).cloned()).collect(),
        outputs: tape.outputs().iter().map(|o| (named(o), tensor(o.1))).collect(),
        updated: tape.updates().iter().map(|(slot, _)| tape.var_name(*slot)).collect(),
    }
}

/// Who writes and who reads what, by place in the order of the kernels.
struct Reads<'d> {
    drafts: &'d [Draft],
    roots: &'d Roots,
    writers: HashMap<Var, usize>,
    /// By memory, the last kernel that reads from it.
    last: HashMap<Var, usize>,
}

impl Reads<'_> {
    fn new<'d>(drafts: &'d [Draft], roots: &'d Roots) -> Reads<'d> {
        let (mut writers, mut last) = (HashMap::new(), HashMap::new());
        for (at, draft) in drafts.iter().enumerate() {
            last.extend(draft.args.iter().map(|a| (roots.of(*a).0, at)));
            for out in &draft.outs {
                writers.entry(*out).or_insert(at);
            }
        }
        Reads { drafts, roots, writers, last }
    }

    /// Whether `var` may be computed right into `slot`'s memory.
    fn write_in_place(&self, slot: Var, var: Var) -> bool {
        let Some(&writer) = self.writers.get(&var) else { return false };
        if self.roots.of(var) != (var, 0) || self.last.get(&slot).is_some_and(|last| *last > writer) {
            return false;
        }
        let draft = &self.drafts[writer];
        let reads = |a: &Var| self.roots.of(*a).0 == slot;
        let Kernel::Group(group) = &draft.kernel else {
            return !draft.args.iter().any(reads) && draft.onto.is_none();
        };
        // Entry by entry, old values are read before the new one is written; not so where a value
        // is repeated.
        let full = |a: usize| !group.operands.iter().any(|o| matches!(o, Operand::Repeat(r, _) if *r == a));
        let stored = |outcome: &Outcome| match outcome {
            Outcome::Store(_) => true,
            Outcome::Sum(..) => false,
        };
        draft.args.iter().enumerate().all(|(i, a)| !reads(a) || (*a == slot && full(i)))
            && group.outcomes.iter().zip(&draft.outs).any(|(o, v)| *v == var && stored(o))
    }
}
