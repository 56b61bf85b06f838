use super::op::{Form, Op, Role, Scalar, Strided, Window};
use super::record::{Tape, Var};
use super::shape::Shape;
use crate::error::Result;

/// A linear map between two tensors, as a value: a Jacobian block. Forward mode applies it, reverse
/// mode applies its transpose; there is no second rule table.
#[derive(Clone, PartialEq, Debug)]
pub struct LinearMap {
    /// What the map does.
    pub block: Block,
    /// Shape that it takes.
    pub from: Shape,
    /// Shape that it gives.
    pub to: Shape,
}

/// The kinds of linear maps. Values that a map holds fixed are variables of the tape that it is
/// applied on.
#[derive(Clone, PartialEq, Debug)]
pub enum Block {
    /// `v`, perhaps in another shape.
    Identity,
    /// `c · v`.
    Scale(f64),
    /// `v` where `x > 0`, else 0; self-adjoint.
    Mask(Var),
    /// A trilinear form with one role free, one produced and `fixed` in the third.
    Contract {
        /// Which form.
        form: Form,
        /// The role that the argument takes.
        free: Role,
        /// The role that is produced.
        out: Role,
        /// What the third role holds.
        fixed: Var,
    },
    /// Sum over the axes `from..to` of the argument.
    Sum(usize, usize),
    /// Repeat along new axes `from..to` of the result; transpose of `Sum`.
    Broadcast(usize, usize),
    /// Entry at the place of the variable's maximum in each window.
    Select(Window, Var),
    /// Transpose of `Select`.
    Unselect(Window, Var),
    /// Every s-th pixel, channels padded.
    Subsample(Strided),
    /// Transpose of `Subsample`.
    Embed(Strided),
    /// Row `i`.
    Row(usize),
    /// Transpose of `Row`.
    Unrow(usize),
    /// Batch norm's Jacobian at the variable; self-adjoint.
    NormJacobian(Scalar, Var),
    /// One map after another, the first one applied first.
    Chain(Vec<LinearMap>),
    /// The sum of maps.
    Plus(Vec<LinearMap>),
}

impl LinearMap {
    /// A map that does not change the shape.
    pub(crate) fn same(block: Block, shape: &Shape) -> LinearMap {
        LinearMap { block, from: shape.clone(), to: shape.clone() }
    }

    /// `v ↦ x ∘ v`.
    pub(crate) fn times(tape: &Tape, x: Var) -> LinearMap {
        let block = Block::Contract { form: Form::Mul, free: Role::A, out: Role::C, fixed: x };
        LinearMap::same(block, tape.shape(x))
    }

    /// Maps one after another, the first one applied first.
    pub(crate) fn chain(maps: Vec<LinearMap>) -> LinearMap {
        let (from, to) = (maps[0].from.clone(), maps[maps.len() - 1].to.clone());
        LinearMap { block: Block::Chain(maps), from, to }
    }

    /// Records the map's value at `v`.
    ///
    /// # Errors
    /// If `v` has not the shape that the map takes, or is of another tape.
    pub fn apply(&self, tape: &mut Tape, v: Var) -> Result<Var> {
        let name = || format!("linear map {:?}", self.block);
        let given = &tape.own(v, name)?.shape;
        if given != &self.from {
            return Err(crate::Error::shape(name(), format!("takes {}, got {given}", self.from)));
        }
        let to = Some(&self.to);
        match &self.block {
            Block::Identity => tape.push(Op::Reshape, &[v], to),
            Block::Scale(c) => tape.scale(v, *c),
            Block::Mask(x) => tape.mask(v, *x),
            Block::Contract { form, free, out, fixed } => {
                let args = if out.others()[0] == *free { [v, *fixed] } else { [*fixed, v] };
                tape.contract(*form, *out, args, to)
            }
            Block::Sum(from, end) => tape.sum(v, *from, *end),
            Block::Broadcast(from, end) => tape.broadcast(v, *from, *end, &self.to),
            Block::Select(w, x) => tape.push(Op::Select(*w), &[v, *x], to),
            Block::Unselect(w, x) => tape.push(Op::Unselect(*w), &[v, *x], to),
            Block::Subsample(s) => tape.push(Op::Subsample(*s), &[v], to),
            Block::Embed(s) => tape.push(Op::Embed(*s), &[v], to),
            Block::Row(i) => tape.push(Op::Row(*i), &[v], to),
            Block::Unrow(i) => tape.push(Op::Unrow(*i), &[v], to),
            Block::NormJacobian(eps, x) => tape.push(Op::NormJacobian(*eps), &[*x, v], to),
            Block::Chain(maps) => maps.iter().try_fold(v, |v, map| map.apply(tape, v)),
            Block::Plus(maps) => {
                let mut sum = None;
                for map in maps {
                    let term = map.apply(tape, v)?;
                    sum = Some(tape.add_to(sum, term)?);
                }
                Ok(sum.unwrap_or_else(|| tape.constant(0.0, self.to.clone())))
            }
        }
    }

    /// The adjoint map: `⟨y, L x⟩ = ⟨Lᵀ y, x⟩`.
    pub fn transpose(&self) -> LinearMap {
        let block = match &self.block {
            Block::Identity => Block::Identity,
            Block::Scale(c) => Block::Scale(*c),
            Block::Mask(x) => Block::Mask(*x),
            // Swap the role that is free with the role that is produced.
            Block::Contract { form, free, out, fixed } => {
                Block::Contract { form: *form, free: *out, out: *free, fixed: *fixed }
            }
            Block::Sum(from, to) => Block::Broadcast(*from, *to),
            Block::Broadcast(from, to) => Block::Sum(*from, *to),
            Block::Select(w, x) => Block::Unselect(*w, *x),
            Block::Unselect(w, x) => Block::Select(*w, *x),
            Block::Subsample(s) => Block::Embed(*s),
            Block::Embed(s) => Block::Subsample(*s),
            Block::Row(i) => Block::Unrow(*i),
            Block::Unrow(i) => Block::Row(*i),
            Block::NormJacobian(eps, x) => Block::NormJacobian(*eps, *x),
            Block::Chain(maps) => Block::Chain(maps.iter().rev().map(LinearMap::transpose).collect()),
            Block::Plus(maps) => Block::Plus(maps.iter().map(LinearMap::transpose).collect()),
        };
        LinearMap { block, from: self.to.clone(), to: self.from.clone() }
    }
}
