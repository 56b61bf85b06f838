//! Derivatives of the losses of a batch whose samples do not couple, layer by layer.

use std::collections::{HashMap, HashSet};

use super::linear_map::Block;
use super::op::Op;
use super::record::{Node, Tape, Var};
use crate::error::Result;

/// The backward signals `δ = ∂ℓ_i/∂a_i` of per-sample losses `[n]` in all values `a` `[n, …]` that
/// lie between them and the parameters w, each sample's own: one reverse walk from ones. Where
/// samples do not couple, every weighted gradient and every directional derivative of the losses
/// follows from them without another walk back.
#[derive(Clone, Debug)]
pub struct SampleSignals {
    losses: Var,
    w: Vec<Var>,
    /// What lies between, in recording order.
    path: Vec<Var>,
    /// Those of the path that are the same for all samples.
    shared: HashSet<Var>,
    /// δ of the others.
    signals: HashMap<Var, Var>,
}

impl Tape {
    /// The signals of losses `[n]` of parameters `w`; `None` where an operation between them mixes
    /// samples (batch norm), or where row i of a value cannot be seen to be sample i's.
    ///
    /// # Errors
    /// As [`Tape::vjp`].
    pub fn sample_signals(&mut self, losses: Var, w: &[Var]) -> Result<Option<SampleSignals>> {
        let shape = self.shape_of("sample signals", losses)?;
        let one = self.constant(1.0, shape.clone());
        let path = self.path("sample signals", w, losses)?;
        let Some(rows) = self.rows_of(&path, w, shape.count()) else { return Ok(None) };
        if shape.len() != 1 || !rows.contains(&losses) {
            return Ok(None);
        }
        let shared = path.iter().copied().filter(|var| !rows.contains(var)).collect();
        let mut signals = HashMap::from([(losses, one)]);
        for var in path.iter().rev() {
            let Some(signal) = signals.get(var).copied() else { continue };
            for (i, arg) in self.node(*var).args.clone().into_iter().enumerate() {
                if rows.contains(&arg) && !self.node(*var).op.steers(i) {
                    let term = self.jacobian_block(*var, i)?.transpose().apply(self, signal)?;
                    let sum = self.add_to(signals.get(&arg).copied(), term)?;
                    signals.insert(arg, sum);
                }
            }
        }
        Ok(Some(SampleSignals { losses, w: w.to_vec(), path, shared, signals }))
    }

    /// Which values of a path have a row for each of n samples, made of nothing but this sample's
    /// rows and of what is the same for all; `None` if a value with rows is read otherwise.
    fn rows_of(&self, path: &[Var], w: &[Var], n: usize) -> Option<HashSet<Var>> {
        let [on_path, sources] = [path, w].map(|vars| vars.iter().copied().collect::<HashSet<Var>>());
        let mut rows = HashSet::new();
        for var in path.iter().filter(|var| !sources.contains(var)) {
            let Node { op, args, shape, .. } = self.node(*var);
            let leading = shape.first() == Some(&n);
            let mut reads = args.iter().enumerate().filter(|(i, arg)| rows.contains(*arg) && !op.steers(*i));
            let read = reads.clone().next().is_some();
            if read && !(leading && reads.all(|(i, _)| op.keeps_rows(i))) {
                return None;
            }
            // A parameter is repeated for each sample, or the batch itself meets one.
            let repeated = matches!(op, Op::Broadcast { from: 0, .. });
            let batch = |(i, arg): (usize, &Var)| op.keeps_rows(i) && !on_path.contains(arg);
            let made = repeated || is_contraction(op) && args.iter().enumerate().any(batch);
            if read || leading && made {
                rows.insert(*var);
            }
        }
        Some(rows)
    }
}

fn is_contraction(op: &Op) -> bool {
    op.facts().work.contraction().is_some()
}

/// `c_i` times row i.
fn scale_rows(tape: &mut Tape, x: Var, c: Var) -> Result<Var> {
    let shape = tape.shape(x).clone();
    let c = tape.broadcast_samples(c, &shape)?;
    tape.mul(x, c)
}

impl SampleSignals {
    /// `Σ_i c_i ∇ℓ_i(w)` per parameter, for coefficients `[n]`: the signals scaled row by row where
    /// they meet parameters.
    ///
    /// # Errors
    /// As [`Tape::vjp`].
    pub fn gradient(&self, tape: &mut Tape, c: Var) -> Result<Vec<Var>> {
        let mut cotangents = Vec::new();
        for var in &self.path {
            let Some(signal) = self.signals.get(var).copied() else { continue };
            let Node { op, args, .. } = tape.node(*var).clone();
            for (i, arg) in args.iter().enumerate() {
                if op.steers(i) || !self.shared.contains(arg) {
                    continue;
                }
                let mut map = tape.jacobian_block(*var, i)?.transpose();
                // Of a product of two values with rows, the smaller one is scaled.
                let count = |var: Var| tape.shape(var).count();
                let term = if let Block::Contract { fixed, .. } = &mut map.block
                    && op.keeps_rows(1 - i)
                    && count(*fixed) < count(signal)
                {
                    *fixed = scale_rows(tape, *fixed, c)?;
                    map.apply(tape, signal)?
                } else {
                    let scaled = scale_rows(tape, signal, c)?;
                    map.apply(tape, scaled)?
                };
                cotangents.push((*arg, term));
            }
        }
        tape.cotangents(&cotangents, &self.w)
    }

    /// The losses' change `[n]` when w moves along a tangent for each parameter: forward mode up to
    /// the next product with parameters, whose signal says what a change of its argument does. Half
    /// of forward mode's products are not needed.
    ///
    /// # Errors
    /// As [`Tape::jvp`].
    pub fn along(&self, tape: &mut Tape, tangents: &[Var]) -> Result<Var> {
        let mut tangents: HashMap<Var, Var> = self.w.iter().copied().zip(tangents.iter().copied()).collect();
        let sources: HashSet<Var> = self.w.iter().copied().collect();
        let mut total = None;
        for var in self.path.iter().filter(|var| !sources.contains(var)) {
            let Node { op, args, .. } = tape.node(*var).clone();
            let mut sum = None;
            for (i, arg) in args.iter().enumerate() {
                let (false, Some(tangent)) = (op.steers(i), tangents.get(arg).copied()) else { continue };
                let map = tape.jacobian_block(*var, i)?;
                match self.signals.get(var) {
                    Some(signal) if is_contraction(&op) && !self.shared.contains(arg) => {
                        let back = map.transpose().apply(tape, *signal)?;
                        let product = tape.mul(back, tangent)?;
                        let change = tape.sum(product, 1, tape.shape(product).len())?;
                        total = Some(tape.add_to(total, change)?);
                    }
                    _ => {
                        let term = map.apply(tape, tangent)?;
                        sum = Some(tape.add_to(sum, term)?);
                    }
                }
            }
            if let Some(sum) = sum {
                tangents.insert(*var, sum);
            }
        }
        if let Some(last) = tangents.get(&self.losses).copied() {
            total = Some(tape.add_to(total, last)?);
        }
        tape.or_zero(total, self.losses)
    }
}
