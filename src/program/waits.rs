//! Which units wait for which, while units are still being made and joined: a directed graph
//! without circles that grows, and is asked all the time whether one unit waits for another,
//! directly or not.
//!
//! A search through everything that a unit waits for would make planning quadratic. Two facts that
//! are kept up to date answer nearly all questions. A unit waits for none whose number is above the
//! highest among those that it waits for: most units only wait for older ones. And a unit waits for
//! its ancestors in a tree, in which its parent is the youngest unit that it waited for when it was
//! made: in a backward pass, those are most of the forward pass. What is left is searched, past
//! neither fact.

use std::cell::{Cell, RefCell};

/// Units by number, from 0 in the order of their making.
#[derive(Default)]
pub(super) struct Waits {
    nodes: Vec<Node>,
    search: RefCell<Search>,
    /// Units that searches have looked at so far.
    looked_at: Cell<usize>,
}

struct Node {
    waits_for: Vec<usize>,
    waited_for_by: Vec<usize>,
    /// No unit that this one waits for, and not itself, has a higher number.
    highest: usize,
    /// The tree: how far from its root, the parent, and an ancestor further up, by which any
    /// ancestor is found in a logarithm of steps (Myers 1983). Roots are their own parents.
    depth: usize,
    parent: usize,
    jump: usize,
}

/// Room for searches.
#[derive(Default)]
struct Search {
    /// Per unit, the last search that has seen it.
    seen: Vec<usize>,
    searches: usize,
    open: Vec<usize>,
}

impl Waits {
    /// A new unit that waits for these.
    pub fn add(&mut self, waits_for: Vec<usize>) {
        let unit = self.nodes.len();
        let (mut depth, mut parent, mut jump) = (0, unit, unit);
        if let Some(&last) = waits_for.iter().max() {
            let up = &self.nodes[last];
            let over = &self.nodes[up.jump];
            // Two jumps of one length become one of twice that.
            let equal = up.depth - over.depth == over.depth - self.nodes[over.jump].depth;
            (depth, parent, jump) = (up.depth + 1, last, if equal { over.jump } else { last });
        }
        self.nodes.push(Node {
            waits_for: Vec::new(),
            waited_for_by: Vec::new(),
            highest: unit,
            depth,
            parent,
            jump,
        });
        self.join(unit, waits_for);
    }

    /// `unit` waits for these, too.
    pub fn join(&mut self, unit: usize, waits_for: Vec<usize>) {
        let mut highest = self.nodes[unit].highest;
        for other in waits_for {
            if !self.nodes[unit].waits_for.contains(&other) {
                self.nodes[unit].waits_for.push(other);
                self.nodes[other].waited_for_by.push(unit);
                highest = highest.max(self.nodes[other].highest);
            }
        }
        let mut open = vec![unit];
        while let Some(unit) = open.pop() {
            if self.nodes[unit].highest < highest {
                self.nodes[unit].highest = highest;
                open.extend(&self.nodes[unit].waited_for_by);
            }
        }
    }

    /// Whether `unit` runs only after `other`.
    pub fn waits(&self, unit: usize, other: usize) -> bool {
        let mut search = self.search.borrow_mut();
        let Search { seen, searches, open } = &mut *search;
        *searches += 1;
        seen.resize(self.nodes.len(), 0);
        open.clear();
        open.push(unit);
        while let Some(unit) = open.pop() {
            self.looked_at.set(self.looked_at.get() + 1);
            if self.is_ancestor(other, unit) {
                return true;
            }
            for next in &self.nodes[unit].waits_for {
                if self.nodes[*next].highest >= other && seen[*next] < *searches {
                    seen[*next] = *searches;
                    open.push(*next);
                }
            }
        }
        false
    }

    /// Whether `other` is `unit` or above it in the tree.
    fn is_ancestor(&self, other: usize, mut unit: usize) -> bool {
        let depth = self.nodes[other].depth;
        while self.nodes[unit].depth > depth {
            let jump = self.nodes[unit].jump;
            unit = if self.nodes[jump].depth >= depth { jump } else { self.nodes[unit].parent };
        }
        unit == other
    }
}

#[cfg(test)]
mod tests {
    use super::super::fuse::Units;
    use super::super::lower::{Pass, lower};
    use super::*;
    use crate::error::Result;
    use crate::tape::{Kind, Tape, Var};
    use rand::{RngExt, SeedableRng};

    #[test]
    fn answers_are_those_of_a_plain_search() {
        let mut rng = rand_pcg::Pcg64::seed_from_u64(1);
        let (mut waits, mut plain): (Waits, Vec<Vec<usize>>) = (Waits::default(), Vec::new());
        let reaches = |plain: &[Vec<usize>], from: usize, to: usize| {
            let (mut seen, mut open) = (vec![false; plain.len()], vec![from]);
            while let Some(unit) = open.pop() {
                if !std::mem::replace(&mut seen[unit], true) {
                    open.extend(&plain[unit]);
                }
            }
            seen[to]
        };
        let mut yes = 0;
        for step in 0..400 {
            let count = plain.len();
            let some: Vec<usize> =
                (0..rng.random_range(0..4)).map(|_| rng.random_range(0..count.max(1))).collect();
            if step % 3 > 0 || count == 0 {
                let some = if count == 0 { Vec::new() } else { some };
                waits.add(some.clone());
                plain.push(some);
            } else {
                let unit = rng.random_range(0..count);
                let some: Vec<usize> = some.into_iter().filter(|s| !reaches(&plain, *s, unit)).collect();
                waits.join(unit, some.clone());
                plain[unit].extend(some);
            }
            for _ in 0..20 {
                let (a, b) = (rng.random_range(0..plain.len()), rng.random_range(0..plain.len()));
                assert_eq!(waits.waits(a, b), reaches(&plain, a, b), "{a} after {b}");
                yes += usize::from(a != b && waits.waits(a, b));
            }
        }
        assert!(yes > 100, "{yes}");
    }

    /// A chain with branches and products, and its gradient.
    fn branches(operations: usize) -> Result<Tape> {
        let mut tape = Tape::new();
        let x = tape.input("x", Kind::Float, [8, 8])?;
        let w = tape.state("w", Kind::Float, [8, 8])?;
        let (mut all, mut y) = (vec![x, w], x);
        while tape.len() < operations / 4 {
            let other = all[all.len().saturating_sub(1 + all.len() % 7)];
            let s = tape.sigmoid(y)?;
            let p = tape.mul(s, other)?;
            y = if all.len() % 5 == 0 { tape.matmul(p, w)? } else { tape.add(p, w)? };
            all.push(y);
        }
        let loss = tape.mean_all(y)?;
        let gradient = tape.gradient(loss, &[w])?[0];
        tape.output("gradient", gradient)?;
        Ok(tape)
    }

    /// Steps of gradient descent on a net of two layers, and the gradient through all of them.
    fn unrolled(operations: usize) -> Result<Tape> {
        let mut tape = Tape::new();
        let (x, y) = (tape.input("x", Kind::Float, [10, 4])?, tape.input("y", Kind::Float, [10, 1])?);
        let lr = tape.input("lr", Kind::Float, [])?;
        let shapes = [("a", vec![4, 16]), ("b", vec![16]), ("c", vec![16, 1]), ("d", vec![1])];
        let first: Vec<Var> =
            shapes.into_iter().map(|(name, s)| tape.state(name, Kind::Float, s)).collect::<Result<_>>()?;
        let loss = |tape: &mut Tape, w: &[Var]| -> Result<Var> {
            let h = tape.linear(x, w[0], w[1])?;
            let h = tape.relu(h)?;
            let h = tape.linear(h, w[2], w[3])?;
            let residual = tape.sub(h, y)?;
            let square = tape.mul(residual, residual)?;
            tape.mean_all(square)
        };
        let mut w = first.clone();
        while tape.len() < operations / 3 {
            let inner = loss(&mut tape, &w)?;
            let gradients = tape.gradient(inner, &w)?;
            for (w, g) in w.iter_mut().zip(gradients) {
                let step = tape.scale_by(g, lr)?;
                *w = tape.sub(*w, step)?;
            }
        }
        let outer = loss(&mut tape, &w)?;
        for (w, g) in first.iter().zip(tape.gradient(outer, &first)?) {
            tape.update(*w, g)?;
        }
        Ok(tape)
    }

    #[test]
    fn planning_looks_at_a_few_units_for_each_operation() {
        for record in [branches, unrolled] {
            for operations in [5_000, 20_000] {
                let tape = lower(&record(operations).unwrap(), Pass::Fast).unwrap();
                assert!(tape.len() > operations / 3, "{} operations", tape.len());
                let looked_at = Units::new(&tape, true).waits.looked_at.get();
                assert!(looked_at < 4 * tape.len(), "{looked_at} units for {} operations", tape.len());
                println!("{looked_at} units for {} operations", tape.len());
            }
        }
    }
}
