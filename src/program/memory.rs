//! Places in the arena: tensors whose lives do not overlap share memory.

use std::collections::HashMap;

use crate::tape::Var;

/// Places are multiples of this many entries: a cache line of f32.
const ALIGN: usize = 16;

/// From which kernel to which a tensor is needed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub len: usize,
    pub from: usize,
    pub to: usize,
}

/// Offsets of all tensors.
pub(super) struct Arena {
    pub offsets: HashMap<Var, usize>,
    pub len: usize,
}

impl Arena {
    /// In order of birth, each tensor takes the smallest gap that holds it.
    pub fn lay_out(lives: &HashMap<Var, Life>) -> Arena {
        let mut order: Vec<(&Var, &Life)> = lives.iter().collect();
        // Of those born together the longest first; the name breaks ties, so that places do not depend on chance.
        order.sort_by_key(|(var, life)| (life.from, usize::MAX - life.len, **var));
        let mut arena = Arena { offsets: HashMap::new(), len: 0 };
        let mut taken: Vec<(usize, usize, usize)> = Vec::new(); // (offset, len, last kernel), by offset
        for (var, life) in order {
            taken.retain(|t| t.2 >= life.from);
            let len = life.len.next_multiple_of(ALIGN).max(ALIGN);
            let (mut best, mut best_gap, mut free) = (None, usize::MAX, 0);
            for (i, (offset, l, _)) in taken.iter().enumerate() {
                let gap = offset - free;
                if gap >= len && gap < best_gap {
                    (best, best_gap) = (Some((i, free)), gap);
                }
                free = offset + l;
            }
            let (at, offset) = best.unwrap_or((taken.len(), free));
            taken.insert(at, (offset, len, life.to));
            arena.offsets.insert(*var, offset);
            arena.len = arena.len.max(offset + len);
        }
        arena
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
        assert_eq!(arena.offsets[&v[2]], arena.offsets[&v[0]], "90 entries fit where 100 have died");
    }
}
