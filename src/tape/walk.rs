//! Forward and reverse mode: two walks over the one table. Both record ordinary operations, so
//! walks nest freely.

use std::collections::{HashMap, HashSet};

use super::op::{Kind, Op};
use super::record::{Node, Tape, Var};
use crate::error::{Error, Result};

impl Tape {
    /// Tangents of `outputs` when each seed's variable moves along its tangent. A variable that is
    /// given twice moves along the sum. Seeds are independent: where one is computed from another,
    /// only the tangent that it is given counts. `None`: the output does not depend on any seed.
    ///
    /// # Errors
    /// A missing rule on the way; a tangent whose shape is not its variable's; a seed that is a
    /// constant; a value of another tape.
    pub fn jvp(&mut self, seeds: &[(Var, Var)], outputs: &[Var]) -> Result<Vec<Option<Var>>> {
        let mut tangents: HashMap<Var, Var> = HashMap::new();
        for (x, tangent) in seeds {
            self.check_variable("jvp", *x)?;
            self.check_pair("jvp", *x, *tangent)?;
            let sum = self.add_to(tangents.get(x).copied(), *tangent)?;
            tangents.insert(*x, sum);
        }
        outputs.iter().try_for_each(|output| self.asked("jvp", *output).map(drop))?;
        let sources: Vec<Var> = seeds.iter().map(|s| s.0).collect();
        for var in self.between(&sources, outputs) {
            if tangents.contains_key(&var) {
                continue;
            }
            let mut sum = None;
            for (i, arg) in self.node(var).args.clone().into_iter().enumerate() {
                if let (false, Some(tangent)) = (self.node(var).op.steers(i), tangents.get(&arg).copied()) {
                    let term = self.jacobian_block(var, i)?.apply(self, tangent)?;
                    sum = Some(self.add_to(sum, term)?);
                }
            }
            if let Some(sum) = sum {
                tangents.insert(var, sum);
            }
        }
        Ok(outputs.iter().map(|o| tangents.get(o).copied()).collect())
    }

    /// Cotangents of `targets` for the given cotangents of outputs. Targets are independent:
    /// nothing is passed on from one to another that it is computed from. `None`: no output depends
    /// on the target.
    ///
    /// # Errors
    /// A missing rule on the way; a cotangent whose shape is not its variable's; a target that is a
    /// constant; a value of another tape.
    pub fn vjp(&mut self, outputs: &[(Var, Var)], targets: &[Var]) -> Result<Vec<Option<Var>>> {
        let mut cotangents: HashMap<Var, Var> = HashMap::new();
        for (y, cotangent) in outputs {
            self.check_pair("vjp", *y, *cotangent)?;
            let sum = self.add_to(cotangents.get(y).copied(), *cotangent)?;
            cotangents.insert(*y, sum);
        }
        targets.iter().try_for_each(|target| self.check_variable("vjp", *target))?;
        let ends: Vec<Var> = outputs.iter().map(|o| o.0).collect();
        let path = self.between(targets, &ends);
        let on_path: HashSet<Var> = path.iter().copied().collect();
        let stops: HashSet<Var> = targets.iter().copied().collect();
        for var in path.into_iter().rev() {
            let Some(cotangent) = cotangents.get(&var).copied().filter(|_| !stops.contains(&var)) else {
                continue;
            };
            for (i, arg) in self.node(var).args.clone().into_iter().enumerate() {
                if !on_path.contains(&arg) || self.node(var).op.steers(i) {
                    continue;
                }
                let term = self.jacobian_block(var, i)?.transpose().apply(self, cotangent)?;
                let sum = self.add_to(cotangents.get(&arg).copied(), term)?;
                cotangents.insert(arg, sum);
            }
        }
        Ok(targets.iter().map(|t| cotangents.get(t).copied()).collect())
    }

    /// Gradients of a scalar; zeros for targets that it does not depend on.
    ///
    /// # Errors
    /// If `loss` is not a scalar, or as [`Tape::vjp`].
    pub fn gradient(&mut self, loss: Var, targets: &[Var]) -> Result<Vec<Var>> {
        let loss = self.number("the loss of a gradient", loss)?;
        let one = self.constant(1.0, []);
        self.cotangents(&[(loss, one)], targets)
    }

    /// [`Tape::vjp`] with zeros for targets that no output depends on.
    ///
    /// # Errors
    /// As [`Tape::vjp`].
    pub fn cotangents(&mut self, outputs: &[(Var, Var)], targets: &[Var]) -> Result<Vec<Var>> {
        let cotangents = self.vjp(outputs, targets)?;
        cotangents.into_iter().zip(targets).map(|(c, target)| self.or_zero(c, *target)).collect()
    }

    /// `v`, or zeros of `like`'s shape.
    ///
    /// # Errors
    /// If one of them is of another tape.
    pub fn or_zero(&mut self, v: Option<Var>, like: Var) -> Result<Var> {
        let shape = self.asked("or zero", v.unwrap_or(like))?.shape.clone();
        Ok(v.unwrap_or_else(|| self.constant(0.0, shape)))
    }

    pub(crate) fn add_to(&mut self, sum: Option<Var>, term: Var) -> Result<Var> {
        sum.map_or(Ok(term), |sum| self.add(sum, term))
    }

    fn asked(&self, walk: &str, var: Var) -> Result<&Node> {
        self.own(var, || walk.to_owned())
    }

    fn check_pair(&self, walk: &str, var: Var, vector: Var) -> Result<()> {
        let (of, got) = (self.asked(walk, var)?, self.asked(walk, vector)?);
        if of.kind != Kind::Float || of.shape != got.shape || got.kind != Kind::Float {
            let detail = format!(
                "a {:?} {} takes no (co)tangent of shape {} ({:?})",
                of.kind, of.shape, got.shape, got.kind
            );
            return Err(Error::shape(walk, detail));
        }
        Ok(())
    }

    /// Whether derivatives can be taken by and along `var`.
    fn check_variable(&self, walk: &str, var: Var) -> Result<()> {
        let node = self.asked(walk, var)?;
        if node.kind != Kind::Float {
            return Err(Error::shape(
                walk,
                format!("there is no derivative by a {:?} {}", node.kind, node.shape),
            ));
        }
        if let Op::Constant(c) = node.op {
            let detail = format!(
                "{var:?} is the constant {}, and what reads a constant has its number alone, so no derivative leads \
                 to it; differentiate by `x = tape.variable({var:?})?` and build on x",
                c.0
            );
            return Err(Error::Value { op: walk.to_owned(), detail });
        }
        Ok(())
    }

    /// [`Tape::between`] for variables to differentiate by.
    pub(super) fn path(&self, walk: &str, sources: &[Var], end: Var) -> Result<Vec<Var>> {
        self.asked(walk, end)?;
        sources.iter().try_for_each(|source| self.check_variable(walk, *source))?;
        Ok(self.between(sources, &[end]))
    }

    /// All values through which `sources` move `ends`, in recording order. Both walks stay on them,
    /// so a rule is asked for only where a derivative really flows. Nothing flows into a source.
    fn between(&self, sources: &[Var], ends: &[Var]) -> Vec<Var> {
        let (Some(first), Some(last)) = (sources.iter().min(), ends.iter().max()) else { return Vec::new() };
        let (first, last) = (first.index(), last.index());
        // Only what lies between the two is looked at, so that walks over the steps of a long tape
        // stay cheap.
        let mut moved = vec![false; (last + 1).saturating_sub(first)];
        let mut is_source = moved.clone();
        let place = |var: &Var| Some(var.index().wrapping_sub(first)).filter(|i| *i < moved.len());
        let marked: Vec<usize> = sources.iter().filter_map(place).collect();
        let mut needed = moved.clone();
        ends.iter().filter_map(place).for_each(|i| needed[i] = true);
        for i in marked {
            (moved[i], is_source[i]) = (true, true);
        }
        // What an argument moves, and the argument's own place.
        let flows = |i: usize, visit: &mut dyn FnMut(usize)| {
            let node = self.node(self.at(first + i));
            for (k, arg) in node.args.iter().enumerate() {
                if arg.index() >= first && !node.op.steers(k) {
                    visit(arg.index() - first);
                }
            }
        };
        for i in 0..moved.len() {
            let mut any = moved[i];
            flows(i, &mut |arg| any |= moved[arg]);
            moved[i] = any;
        }
        for i in (0..needed.len()).rev() {
            if needed[i] && moved[i] && !is_source[i] {
                flows(i, &mut |arg| needed[arg] = true);
            }
        }
        (0..needed.len()).filter(|i| needed[*i] && moved[*i]).map(|i| self.at(first + i)).collect()
    }
}
