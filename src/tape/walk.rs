//! Forward and reverse mode: two walks over the one table. Both record ordinary operations, so walks nest freely.

use std::collections::HashMap;

use super::op::Kind;
use super::record::{Tape, Var};
use crate::error::{Error, Result};

impl Tape {
    /// Tangents of `outputs` when each seed's variable moves along its tangent. Seeds are independent: a seed that is
    /// computed from another one takes its own tangent alone. `None`: the output does not depend on any seed.
    ///
    /// # Errors
    /// A missing rule on the way, or a tangent whose shape is not its variable's.
    pub fn jvp(&mut self, seeds: &[(Var, Var)], outputs: &[Var]) -> Result<Vec<Option<Var>>> {
        for (x, tangent) in seeds {
            self.check_pair("jvp", *x, *tangent)?;
        }
        let mut tangents: HashMap<Var, Var> = seeds.iter().copied().collect();
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

    /// Cotangents of `targets` for the given cotangents of outputs. Targets are independent: a target that is computed
    /// from another one passes nothing on to it. `None`: no output depends on the target.
    ///
    /// # Errors
    /// A missing rule on the way, or a cotangent whose shape is not its variable's.
    pub fn vjp(&mut self, outputs: &[(Var, Var)], targets: &[Var]) -> Result<Vec<Option<Var>>> {
        let mut cotangents: HashMap<Var, Var> = HashMap::new();
        for (y, cotangent) in outputs {
            self.check_pair("vjp", *y, *cotangent)?;
            let sum = self.add_to(cotangents.get(y).copied(), *cotangent)?;
            cotangents.insert(*y, sum);
        }
        let ends: Vec<Var> = outputs.iter().map(|o| o.0).collect();
        let path = self.between(targets, &ends);
        let on_path: std::collections::HashSet<Var> = path.iter().copied().collect();
        for var in path.into_iter().rev() {
            let Some(cotangent) = cotangents.get(&var).copied().filter(|_| !targets.contains(&var)) else {
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
        if self.shape(loss).count() != 1 {
            return Err(Error::shape(
                "gradient",
                format!("the loss must be one number, got {}", self.shape(loss)),
            ));
        }
        let one = self.constant(1.0, self.shape(loss).clone());
        let gradients = self.vjp(&[(loss, one)], targets)?;
        Ok(gradients.into_iter().zip(targets).map(|(g, t)| self.or_zero(g, *t)).collect())
    }

    /// `v`, or zeros of `like`'s shape.
    pub fn or_zero(&mut self, v: Option<Var>, like: Var) -> Var {
        v.unwrap_or_else(|| self.constant(0.0, self.shape(like).clone()))
    }

    fn add_to(&mut self, sum: Option<Var>, term: Var) -> Result<Var> {
        sum.map_or(Ok(term), |sum| self.add(sum, term))
    }

    fn check_pair(&self, walk: &str, var: Var, vector: Var) -> Result<()> {
        let (of, got) = (self.node(var), self.node(vector));
        if of.kind != Kind::Float || of.shape != got.shape || got.kind != Kind::Float {
            let detail = format!(
                "a {:?} {} takes no (co)tangent of shape {} ({:?})",
                of.kind, of.shape, got.shape, got.kind
            );
            return Err(Error::shape(walk, detail));
        }
        Ok(())
    }

    /// All values through which `sources` move `ends`, in recording order. Both walks stay on them, so a rule is
    /// asked for only where a derivative really flows. Nothing flows into a source.
    fn between(&self, sources: &[Var], ends: &[Var]) -> Vec<Var> {
        let Some(last) = ends.iter().max() else { return Vec::new() };
        let mut moved = vec![false; last.index() + 1];
        for source in sources.iter().filter(|s| *s <= last) {
            moved[source.index()] = true;
        }
        let first = sources.iter().min().map_or(moved.len(), |s| s.index());
        for i in first..moved.len() {
            let node = self.node(Var(i as u32));
            moved[i] |= node.args.iter().enumerate().any(|(k, a)| moved[a.index()] && !node.op.steers(k));
        }
        let mut needed = vec![false; moved.len()];
        for end in ends {
            needed[end.index()] = true;
        }
        for i in (0..needed.len()).rev() {
            let var = Var(i as u32);
            if needed[i] && moved[i] && !sources.contains(&var) {
                let node = self.node(var);
                for (k, arg) in node.args.iter().enumerate() {
                    if !node.op.steers(k) {
                        needed[arg.index()] = true;
                    }
                }
            }
        }
        (0..needed.len()).filter(|i| needed[*i] && moved[*i]).map(|i| Var(i as u32)).collect()
    }
}
