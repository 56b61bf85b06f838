//! Which operations run together. Entrywise operations over one index space join a *group*:
//! operands are read once, results written once, and sums over leading axes are taken on the way.
//!
//! Two rules decide what is stored. A value that is computed cheaply from a single tensor of full
//! size (and broadcast ones) is computed again wherever it is needed, since reading it would cost
//! as much as reading that tensor: batch norm's x̂ is never stored. Everything else is computed
//! once, in one group.

use std::collections::{BTreeSet, HashSet};

use super::waits::Waits;
use crate::tape::{Function, Tape, Var, Work};

/// Steps that may be repeated to avoid storing their result.
const INLINE_STEPS: usize = 8;
/// Size limits of a group, so that its registers stay in the first-level cache.
const MAX_MEMBERS: usize = 32;
const MAX_LOADS: usize = 12;
/// Groups that are asked whether one more value fits.
const MAX_CANDIDATES: usize = 6;

/// Operations that run as one kernel.
pub(super) struct Unit {
    /// In recording order; one unless `group`.
    pub members: Vec<Var>,
    /// Entrywise work and sums at its end.
    pub group: bool,
    /// For a contraction that adds to the value of an earlier one: that value.
    pub onto: Option<Var>,
    loads: HashSet<Var>,
}

/// The tape's operations, sorted into units. Lists with an entry a value are in the order of the
/// tape.
pub(super) struct Units<'t> {
    tape: &'t Tape,
    pub units: Vec<Unit>,
    works: Vec<Work>,
    /// The unit that makes a value's buffer, for values that have one.
    of: Vec<Option<usize>>,
    /// The single full-size tensor that a value is cheap to compute from, and in how many steps.
    inline: Vec<Option<(Option<Var>, usize)>>,
    users: Vec<Vec<Var>>,
    /// Whether anything but the entrywise work of groups reads a value, directly or through
    /// reshapes.
    buffered: Vec<bool>,
    kept: HashSet<Var>,
    /// The youngest groups that read a value from memory, by number, the youngest first.
    loaded_by: Vec<Vec<usize>>,
    pub waits: Waits,
    fused: bool,
}

/// The value whose entries `var` has, in the same order: reshapes are seen through.
pub(super) fn through(tape: &Tape, mut var: Var) -> Var {
    while work(tape, var) == Work::Same {
        var = tape.node(var).args[0];
    }
    var
}

/// How `var` is run.
pub(super) fn work(tape: &Tape, var: Var) -> Work {
    tape.node(var).op.facts().work
}

impl<'t> Units<'t> {
    /// Sorts the operations of a lowered tape. Without `fused`, each one is a unit of its own.
    pub fn new(tape: &'t Tape, fused: bool) -> Units<'t> {
        let mut users = vec![Vec::new(); tape.len()];
        for var in tape.vars() {
            for arg in &tape.node(var).args {
                users[arg.index()].push(var);
            }
        }
        let kept: HashSet<Var> = tape.results().collect();
        let works: Vec<Work> = tape.vars().map(|v| work(tape, v)).collect();
        // From the last value back: a reshape's own readers are known when its argument's are asked
        // for.
        let mut buffered = vec![false; tape.len()];
        for var in tape.vars().rev() {
            let read = |user: &Var| match works[user.index()] {
                Work::Same => buffered[user.index()],
                Work::Entrywise(_) => false,
                Work::Sum { from, .. } => from > 0 || !fused,
                Work::Leaf | Work::Constant(_) | Work::Repeat { .. } | Work::Name | Work::Part(_) => true,
                Work::Contract(..) | Work::Kernel => true,
            };
            buffered[var.index()] = kept.contains(&var) || users[var.index()].iter().any(read);
        }
        let mut units = Units {
            tape,
            units: Vec::new(),
            works,
            of: vec![None; tape.len()],
            inline: vec![None; tape.len()],
            users,
            buffered,
            kept,
            loaded_by: vec![Vec::new(); tape.len()],
            waits: Waits::default(),
            fused,
        };
        tape.vars().for_each(|var| units.place(var));
        units
    }

    /// Whether `var` is computed where it is needed, from the returned tensor (or from none of full
    /// size).
    pub fn inlined(&self, var: Var) -> Option<Option<Var>> {
        self.inline[var.index()].map(|i| i.0)
    }

    /// The unit that makes `var`'s buffer; `None` for leaves and for values that are only computed
    /// in place.
    pub fn unit_of(&self, var: Var) -> Option<usize> {
        self.of[var.index()]
    }

    /// Values that read `var`, directly or through reshapes.
    pub fn readers(&self, var: Var) -> Vec<Var> {
        let mut all = Vec::new();
        for user in &self.users[var.index()] {
            if self.work(*user) == Work::Same {
                all.extend(self.readers(*user));
            } else {
                all.push(*user);
            }
        }
        all
    }

    fn place(&mut self, var: Var) {
        match self.work(var) {
            // Views and leaves run nothing.
            Work::Leaf | Work::Same | Work::Name | Work::Part(_) => return,
            Work::Constant(_) | Work::Repeat { .. } => {
                if self.buffered[var.index()] {
                    self.start(var, true);
                }
                return;
            }
            Work::Entrywise(_) => {
                if self.try_accumulate(var) {
                    return;
                }
                if let Some(cheap) = self.cheap(var).filter(|_| self.fused) {
                    self.inline[var.index()] = Some(cheap);
                    if !self.buffered[var.index()] {
                        return;
                    }
                }
            }
            Work::Sum { from: 0, .. } => {}
            Work::Sum { .. } | Work::Contract(..) | Work::Kernel => {
                self.start(var, false);
                return;
            }
        }
        let candidates = if self.fused { self.candidates(var) } else { Vec::new() };
        let unit = match candidates.into_iter().find(|g| self.fits(var, *g)) {
            Some(unit) => {
                let deps: Vec<usize> = self.sources(var).into_iter().filter(|u| *u != unit).collect();
                self.waits.join(unit, deps);
                self.units[unit].members.push(var);
                self.of[var.index()] = Some(unit);
                unit
            }
            None => self.start(var, true),
        };
        for load in self.loads(var, unit) {
            self.units[unit].loads.insert(load);
            let youngest = &mut self.loaded_by[load.index()];
            if let Err(at) = youngest.binary_search_by(|other| unit.cmp(other)) {
                youngest.insert(at, unit);
                youngest.truncate(MAX_CANDIDATES);
            }
        }
    }

    fn work(&self, var: Var) -> Work {
        self.works[var.index()]
    }

    fn start(&mut self, var: Var, group: bool) -> usize {
        self.waits.add(self.sources(var).into_iter().collect());
        self.units.push(Unit { members: vec![var], group, onto: None, loads: HashSet::new() });
        self.of[var.index()] = Some(self.units.len() - 1);
        self.units.len() - 1
    }

    /// `add(p, q)` of two contractions that nothing else reads => q is computed onto p's memory.
    fn try_accumulate(&mut self, var: Var) -> bool {
        let node = self.tape.node(var);
        if !self.fused || self.work(var) != Work::Entrywise(Function::Add) {
            return false;
        }
        let (base, last) = (node.args[0].min(node.args[1]), node.args[0].max(node.args[1]));
        let lone = |v: Var| self.users[v.index()].len() == 1 && !self.kept.contains(&v);
        let contraction = |v: Var| {
            self.work(v).contraction().is_some()
                && self.of[v.index()].is_some_and(|u| self.units[u].onto.is_none())
        };
        let sum = |v: Var| self.of[v.index()].is_some_and(|u| self.units[u].onto.is_some());
        if base == last
            || !lone(base)
            || !lone(last)
            || !contraction(last)
            || !(contraction(base) || sum(base))
        {
            return false;
        }
        let (Some(unit), Some(onto)) = (self.of[last.index()], self.of[base.index()]) else { return false };
        self.units[unit].onto = Some(base);
        self.waits.join(unit, vec![onto]);
        self.of[var.index()] = Some(unit);
        true
    }

    /// See the module's first rule.
    fn cheap(&self, var: Var) -> Option<(Option<Var>, usize)> {
        let node = self.tape.node(var);
        match self.work(var).function()? {
            Function::Unary(_) => return None,
            Function::Add | Function::Mul | Function::Mask | Function::Max => {}
            Function::Scale(_) | Function::Offset(_) => {}
        }
        let (mut base, mut steps) = (None, 1);
        // The tensor must be in memory anyway.
        let in_memory = |v: Var| self.work(v).function().is_none() || self.buffered[v.index()];
        for arg in &node.args {
            let arg = through(self.tape, *arg);
            let of_arg = match self.inline[arg.index()] {
                Some((b, s)) => {
                    steps += s;
                    b
                }
                None if self.work(arg).is_spread() => None,
                None if in_memory(arg) => Some(arg),
                None => return None,
            };
            match (base, of_arg) {
                (Some(a), Some(b)) if a != b => return None,
                (_, Some(b)) => base = Some(b),
                (_, None) => {}
            }
        }
        (steps <= INLINE_STEPS).then_some((base, steps))
    }

    /// The units that `var`'s computation reads from: a superset, whatever is inlined in the end.
    fn sources(&self, var: Var) -> BTreeSet<usize> {
        let mut all = BTreeSet::new();
        let mut stack = self.tape.node(var).args.clone();
        while let Some(arg) = stack.pop() {
            all.extend(self.of[arg.index()]);
            let passes = self.work(arg).is_view() || self.work(arg).is_spread();
            if passes || self.inline[arg.index()].is_some() {
                stack.extend(self.tape.node(arg).args.iter().copied());
            }
        }
        all
    }

    /// Full-size tensors that `var` reads if it runs in `unit`.
    fn loads(&self, var: Var, unit: usize) -> Vec<Var> {
        let mut all = Vec::new();
        let mut stack = self.tape.node(var).args.clone();
        while let Some(arg) = stack.pop() {
            let arg = through(self.tape, arg);
            if self.of[arg.index()] == Some(unit) || self.work(arg).is_spread() {
                continue;
            }
            match self.inline[arg.index()] {
                Some((base, _)) => all.extend(base),
                None => all.push(arg),
            }
        }
        all
    }

    /// Groups that `var` might join: those of its arguments, then those that read the same tensors;
    /// the latest first.
    fn candidates(&self, var: Var) -> Vec<usize> {
        let mut own: Vec<usize> = Vec::new();
        for arg in &self.tape.node(var).args {
            own.extend(self.of[through(self.tape, *arg).index()]);
        }
        own.sort_unstable_by(|a, b| b.cmp(a));
        let loads = self.loads(var, usize::MAX);
        let mut beside: Vec<usize> = loads.iter().flat_map(|l| &self.loaded_by[l.index()]).copied().collect();
        beside.sort_unstable_by(|a, b| b.cmp(a));
        own.extend(beside);
        own.dedup();
        own.truncate(MAX_CANDIDATES);
        own
    }

    fn index_space(&self, var: Var) -> usize {
        let node = self.tape.node(var);
        if self.work(var).is_leading_sum() {
            self.tape.shape(node.args[0]).count()
        } else {
            node.shape.count()
        }
    }

    fn fits(&self, var: Var, unit: usize) -> bool {
        let group = &self.units[unit];
        if !group.group
            || self.index_space(group.members[0]) != self.index_space(var)
            || group.members.len() >= MAX_MEMBERS
            || group.loads.len() + self.loads(var, unit).len() > MAX_LOADS
            || self.work(group.members[0]).is_spread()
        {
            return false;
        }
        // Sums of one group share their last axes, and with them the way that a block is folded.
        let is_sum = |v: Var| self.work(v).is_leading_sum();
        let apart = |m: &Var| is_sum(*m) && self.tape.shape(*m) != self.tape.shape(var);
        !(self.waits_for(var, unit)
            || is_sum(var) && group.members.iter().any(apart)
            || self.sources(var).iter().any(|u| *u != unit && self.waits.waits(*u, unit)))
    }

    /// Whether `var` needs a value of `unit` that is known only when the whole group has run: a
    /// sum, or one that is repeated along new axes.
    fn waits_for(&self, var: Var, unit: usize) -> bool {
        let mut stack: Vec<(Var, bool)> = self.tape.node(var).args.iter().map(|a| (*a, false)).collect();
        while let Some((arg, indirect)) = stack.pop() {
            let node = self.tape.node(arg);
            let made_here = self.of[arg.index()] == Some(unit);
            match self.work(arg) {
                Work::Same => stack.push((node.args[0], indirect)),
                Work::Repeat { .. } | Work::Name | Work::Part(_) => {
                    if made_here {
                        return true;
                    }
                    stack.extend(node.args.iter().map(|a| (*a, true)));
                }
                Work::Leaf | Work::Constant(_) | Work::Entrywise(_) | Work::Sum { .. } => {
                    if made_here && (indirect || self.work(arg).is_leading_sum()) {
                        return true;
                    }
                    if !made_here && self.inline[arg.index()].is_some() {
                        stack.extend(node.args.iter().map(|a| (*a, indirect)));
                    }
                }
                Work::Contract(..) | Work::Kernel => {}
            }
        }
        false
    }
}
