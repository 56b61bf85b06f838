//! Matrix chains: `p·(qᵀ·d) => (p·qᵀ)·d` where that is cheaper.
//!
//! In a meta step, `p` and `q` are the meta and the training batch at a linear layer's input: the
//! virtual weights' product with the meta batch, and the training batch's product with the meta
//! gradient, go through the small matrix of inner products between the two batches, and neither the
//! virtual gradient nor the meta gradient of that layer is ever formed. Both use one such matrix,
//! so it is computed once.

use super::lower::Lowering;
use crate::error::Result;
use crate::tape::{Form, Function, Op, Role, Shape, Tape, Var, Work};

const GEMM: Form = Form::Gemm;

/// Scalar factors that stand between a product and the sum that it is a term of.
enum Factor {
    Constant(f64),
    /// A scalar on the tape.
    Variable(Var),
}

/// A weight-shaped term `factors · (qᵀ·d)` that nothing else reads.
struct Chain {
    q: Var,
    d: Var,
    factors: Vec<Factor>,
}

impl Lowering<'_> {
    /// The product of `p` and `w` (operations of the tape being lowered), if one of its forms is
    /// cheaper than itself.
    pub(super) fn chained(&mut self, tape: &Tape, p: Var, w: Var) -> Result<Option<Var>> {
        if self.readers[w.index()] != 1 {
            return Ok(None);
        }
        if let Some(chain) = self.chain(tape, w) {
            if !pays(tape, p, &chain) {
                return Ok(None);
            }
            return self.through_inner_products(tape, p, &chain).map(Some);
        }
        // p·(v + chain) => p·v + p·chain
        let node = tape.node(w);
        if node.op != Op::Add {
            return Ok(None);
        }
        for (v, term) in [(node.args[0], node.args[1]), (node.args[1], node.args[0])] {
            if let Some(chain) = self.chain(tape, term).filter(|c| pays(tape, p, c)) {
                let base = self.out.matmul(self.lowered(p), self.lowered(v))?;
                let rest = self.through_inner_products(tape, p, &chain)?;
                return self.out.add(base, rest).map(Some);
            }
        }
        Ok(None)
    }

    fn chain(&self, tape: &Tape, mut var: Var) -> Option<Chain> {
        let mut factors = Vec::new();
        loop {
            let node = tape.node(var);
            if self.readers[var.index()] != 1 {
                return None;
            }
            if let Op::Scale(c) = &node.op {
                factors.push(Factor::Constant(c.0));
                var = node.args[0];
            } else if let Work::Entrywise(Function::Mul) = node.op.facts().work {
                let scalar = |v: Var| {
                    let n = tape.node(v);
                    let Work::Repeat { from: 0, .. } = n.op.facts().work else { return None };
                    Some(n.args[0]).filter(|s| tape.shape(*s).is_empty())
                };
                let (a, b) = (node.args[0], node.args[1]);
                let (s, rest) = scalar(a).map(|s| (s, b)).or_else(|| scalar(b).map(|s| (s, a)))?;
                factors.push(Factor::Variable(s));
                var = rest;
            } else if node.op == (Op::Contract { form: GEMM, out: Role::B }) {
                return Some(Chain { q: node.args[0], d: node.args[1], factors });
            } else {
                return None;
            }
        }
    }

    /// `factors · ((p·qᵀ)·d)`.
    fn through_inner_products(&mut self, tape: &Tape, p: Var, chain: &Chain) -> Result<Var> {
        let (p, q, d) = (self.lowered(p), self.lowered(chain.q), self.lowered(chain.d));
        // One order of the pair, so that p·qᵀ and q·pᵀ are one matrix.
        let (last, first) = (p.max(q), p.min(q));
        let products = self.out.contract(GEMM, Role::A, [first, last], None)?;
        let mut value = if p == last {
            self.out.matmul(products, d)?
        } else {
            self.out.contract(GEMM, Role::B, [products, d], None)?
        };
        for factor in &chain.factors {
            value = match factor {
                Factor::Constant(c) => self.out.scale(value, *c)?,
                Factor::Variable(s) => {
                    debug_assert_eq!(tape.shape(*s), &Shape::scalar());
                    self.out.scale_by(value, self.lowered(*s))?
                }
            };
        }
        Ok(value)
    }
}

/// Whether the inner products of both batches cost less than the matrix `qᵀ·d` `[k, h]`: `p`
/// `[m, k]`, `q` `[n, k]`, `d` `[n, h]`.
fn pays(tape: &Tape, p: Var, chain: &Chain) -> bool {
    let (m, k) = (tape.shape(p)[0], tape.shape(p)[1]);
    let h = tape.shape(chain.d)[1];
    m * (k + h) < k * h
}
