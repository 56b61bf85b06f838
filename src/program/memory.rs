//! Places in the arena: tensors whose lives do not overlap share memory.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

use crate::tape::Var;

/// Places are multiples of this many entries: a cache line of f32.
const ALIGN: usize = 16;

/// Tensors that are so many times smaller than the largest one keep their places for some kernels
/// longer than they are needed: kernels of independent small tensors, as the updates of a network's
/// parameters are, then need not wait for each other, and a backend may run them as one.
pub(super) const SMALLER: usize = 32;
const LINGER: usize = 100;

/// From which kernel to which a tensor is needed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub len: usize,
    pub from: usize,
    pub to: usize,
}

/// The first of `count` kernels at which most entries are needed.
pub(super) fn fullest(lives: &HashMap<Var, Life>, count: usize) -> usize {
    let mut change = vec![0; count + 1];
    for life in lives.values() {
        change[life.from] += life.len as isize;
        change[life.to + 1] -= life.len as isize;
    }
    let mut needed = 0;
    let total = |change: &isize| {
        needed += change;
        needed
    };
    let needed: Vec<isize> = change.iter().map(total).collect();
    (0..count).rev().max_by_key(|i| needed[*i]).unwrap_or(0)
}

/// Offsets of all tensors.
#[derive(Default)]
pub(super) struct Arena {
    pub offsets: HashMap<Var, usize>,
    pub len: usize,
    /// What is taken: offset to length.
    taken: BTreeMap<usize, usize>,
    /// What is free between two taken pieces: length and offset.
    gaps: BTreeSet<(usize, usize)>,
}

impl Arena {
    /// In order of birth, each tensor takes the smallest gap that holds it.
    pub fn lay_out(lives: &HashMap<Var, Life>) -> Arena {
        let mut order: Vec<(&Var, &Life)> = lives.iter().collect();
        // Of those born together the longest first; the name breaks ties, so that places do not
        // depend on chance.
        order.sort_by_key(|(var, life)| (life.from, usize::MAX - life.len, **var));
        let largest = order.iter().map(|(_, life)| life.len).max().unwrap_or(0);
        let mut arena = Arena::default();
        let mut ends = BinaryHeap::new();
        for (var, life) in order {
            while let Some(&Reverse((to, offset))) = ends.peek()
                && to < life.from
            {
                ends.pop();
                arena.give_back(offset);
            }
            let offset = arena.take(life.len.next_multiple_of(ALIGN).max(ALIGN));
            let linger = if life.len * SMALLER <= largest { LINGER } else { 0 };
            ends.push(Reverse((life.to + linger, offset)));
            arena.offsets.insert(*var, offset);
        }
        arena
    }

    fn take(&mut self, len: usize) -> usize {
        let gap = self.gaps.range((len, 0)..).next().copied();
        let offset = match gap {
            Some((room, offset)) => {
                self.gaps.remove(&(room, offset));
                if room > len {
                    self.gaps.insert((room - len, offset + len));
                }
                offset
            }
            None => self.taken.last_key_value().map_or(0, |(offset, len)| offset + len),
        };
        self.taken.insert(offset, len);
        self.len = self.len.max(offset + len);
        offset
    }

    fn give_back(&mut self, offset: usize) {
        let Some(len) = self.taken.remove(&offset) else { return };
        let before = self.taken.range(..offset).next_back().map_or(0, |(offset, len)| offset + len);
        let after = self.taken.range(offset..).next().map(|(offset, _)| *offset);
        self.gaps.remove(&(offset - before, before));
        // Behind the last piece everything is free.
        if let Some(after) = after {
            self.gaps.remove(&(after - offset - len, offset + len));
            self.gaps.insert((after - before, before));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::Tape;

    #[test]
    fn tensors_alive_together_never_overlap_and_dead_ones_are_reused() {
        let life = |len, from, to| Life { len, from, to };
        let mut tape = Tape::new();
        let v: Vec<Var> = (0..5).map(|i| tape.constant(f64::from(i), [])).collect();
        let lives: HashMap<Var, Life> = [
            (v[0], life(100, 0, 2)),
            (v[1], life(40, 1, 3)),
            (v[2], life(90, 3, 4)),
            (v[3], life(7, 3, 5)),
            (v[4], life(500, 4, 4)),
        ]
        .into();
        let arena = Arena::lay_out(&lives);
        for (a, la) in &lives {
            for (b, lb) in &lives {
                let together = la.from <= lb.to && lb.from <= la.to;
                let (oa, ob) = (arena.offsets[a], arena.offsets[b]);
                assert!(a == b || !together || oa + la.len <= ob || ob + lb.len <= oa, "{a:?} over {b:?}");
            }
        }
        assert_eq!(arena.offsets[&v[2]], arena.offsets[&v[0]], "90 fit where 100 have died");
        // Small ones stay for a while.
        let mut lives: HashMap<Var, Life> =
            [(v[0], life(7, 0, 0)), (v[1], life(7, 1, 1)), (v[2], life(7, LINGER + 1, 200))].into();
        let at = |lives: &HashMap<Var, Life>| {
            let arena = Arena::lay_out(lives);
            [0, 1, 2].map(|i: usize| arena.offsets[&v[i]])
        };
        let [a, b, c] = at(&lives);
        assert!(a == b && b == c, "nothing is larger");
        lives.insert(v[3], life(7 * SMALLER, 0, 200));
        let [a, b, c] = at(&lives);
        assert!(a != b && a == c);
    }
}
