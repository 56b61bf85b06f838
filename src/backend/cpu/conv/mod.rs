//! Convolution as one trilinear form with three roles:
//!
//! ```text
//! y[n,p,q,o] = Σ_{a,b,i} x[n, p·s + a − pad, q·s + b − pad, i] · w[a,b,i,o]
//! ```
//!
//! (zero outside the image; i runs over the channels of o's group). Producing C = y is the forward
//! pass, A = x the data gradient, B = w the weight gradient; each is linear in the two others, so
//! derivatives of any order are these three again.
//!
//! All are implicit matrix products on register tiles (`tile.rs`) over a zero-padded copy of a few
//! images that stays in cache (`padded.rs`), whose channels come in blocks of 16: neighbouring
//! pixels are then a constant distance apart whatever the shape, and a stride only means more
//! planes. Work is cut by shape alone, every output number is summed by one task in a fixed order,
//! so the bits do not depend on the number of threads.
//!
//! In f32, filters of 3×3 and 5×5 at stride 1 take fewer multiplications than that where there are
//! enough channels (`winograd/`).
//!
//! Groups of channels are products one after another. Where they are narrow, vectors would be
//! nearly empty: the copy then holds for each lane of the product the channel of its own group, and
//! tiles multiply lane by lane. A depthwise convolution so costs what it computes.

mod correlate;
pub(super) mod pack;
mod padded;
#[cfg(test)]
mod tests;
pub(super) mod tile;
mod weight_gradient;
mod winograd;

use std::ops::Range;

use bytemuck::{cast_slice, cast_slice_mut};

use super::isa::Isa;
use super::real::Real;
use crate::program::ConvShape;
use crate::tape::Role;

/// Channels in a block of the padded copy.
pub(crate) const BLOCK: usize = 16;

/// How many numbers of scratch the role needs. Depends on shapes and the number type's size only.
pub fn workspace_len<T: Real>(s: &ConvShape, role: Role) -> usize {
    if s.is_empty() {
        return 0;
    }
    if winograd::suits(s, size_of::<T>()) {
        return match role {
            Role::A => winograd::Correlate::data_gradient(s).workspace_len(),
            Role::B => winograd::WeightGradient::new(s).workspace_len(),
            Role::C => winograd::Correlate::forward(s).workspace_len(),
        };
    }
    match role {
        Role::A => correlate::Plan::data_gradient(s, size_of::<T>()).workspace_len(),
        Role::B => weight_gradient::Plan::new(s, size_of::<T>()).workspace_len(),
        Role::C => correlate::Plan::forward(s, size_of::<T>()).workspace_len(),
    }
}

/// Floating-point operations of the role's products and sums as the kernels do them, padding
/// included: fewer than [`ConvShape::flops`] where they take Winograd's way, whose transforms are
/// not counted.
pub fn flops(s: &ConvShape, role: Role, number: usize) -> u64 {
    if s.is_empty() || !winograd::suits(s, number) {
        return s.flops() as u64;
    }
    match role {
        Role::A => winograd::Correlate::data_gradient(s).flops(),
        Role::B => winograd::WeightGradient::new(s).flops(),
        Role::C => winograd::Correlate::forward(s).flops(),
    }
}

/// In how many pieces y, or x, is written, of whole rows of an image each; 0 where pieces are of
/// another kind. A function of the shape only.
pub fn pieces<T: Real>(s: &ConvShape, role: Role) -> usize {
    if s.is_empty() {
        return 0;
    }
    match (role, winograd::suits(s, size_of::<T>())) {
        (Role::B, _) => 0,
        (Role::A, true) => winograd::Correlate::data_gradient(s).pieces(),
        (Role::A, false) => correlate::Plan::data_gradient(s, size_of::<T>()).pieces(),
        (Role::C, true) => winograd::Correlate::forward(s).pieces(),
        (Role::C, false) => correlate::Plan::forward(s, size_of::<T>()).pieces(),
    }
}

/// Called by the thread that has written a piece, with the piece's number and entries: its numbers
/// are in the cache then.
pub type Tail<'a> = dyn Fn(usize, Range<usize>) + Sync + 'a;

/// Where a convolution writes.
pub struct Output<'a, T> {
    /// The numbers.
    pub to: &'a mut [T],
    /// Whether it adds to them.
    pub accumulate: bool,
    /// What each of the [`pieces`] is given to; only where there are some.
    pub tail: Option<&'a Tail<'a>>,
}

impl<'a, T: Real> Output<'a, T> {
    /// Without a tail.
    pub fn new(to: &'a mut [T], accumulate: bool) -> Output<'a, T> {
        Output { to, accumulate, tail: None }
    }

    fn as_f32(&mut self) -> Output<'_, f32> {
        Output { to: cast_slice_mut(self.to), accumulate: self.accumulate, tail: self.tail }
    }
}

/// y (+)= x ∗ w. `workspace`: [`workspace_len`] numbers, anything in them.
pub fn forward<T: Real>(s: &ConvShape, x: &[T], w: &[T], y: Output<T>, workspace: &mut [T]) {
    forward_on(Isa::best(), s, x, w, y, workspace);
}

/// dx (+)= the transpose of `x ↦ x ∗ w` applied to dy `[n,oh,ow,co]`.
pub fn data_gradient<T: Real>(s: &ConvShape, w: &[T], dy: &[T], dx: Output<T>, workspace: &mut [T]) {
    data_gradient_on(Isa::best(), s, w, dy, dx, workspace);
}

/// dw (+)= the transpose of `w ↦ x ∗ w` applied to dy `[n,oh,ow,co]`.
pub fn weight_gradient<T: Real>(
    s: &ConvShape,
    x: &[T],
    dy: &[T],
    dw: &mut [T],
    accumulate: bool,
    workspace: &mut [T],
) {
    weight_gradient_on(Isa::best(), s, x, dy, dw, accumulate, workspace);
}

fn forward_on<T: Real>(isa: Isa, s: &ConvShape, x: &[T], w: &[T], mut y: Output<T>, ws: &mut [T]) {
    check(s, x.len(), w.len(), y.to.len());
    if s.is_empty() {
        return clear(y.to, y.accumulate);
    }
    if winograd::suits(s, size_of::<T>()) {
        let plan = winograd::Correlate::forward(s);
        return plan.run(isa, cast_slice(x), cast_slice(w), y.as_f32(), cast_slice_mut(ws));
    }
    correlate::Plan::forward(s, size_of::<T>()).run(isa, x, w, y, ws);
}

fn data_gradient_on<T: Real>(isa: Isa, s: &ConvShape, w: &[T], dy: &[T], mut dx: Output<T>, ws: &mut [T]) {
    check(s, dx.to.len(), w.len(), dy.len());
    if s.is_empty() {
        return clear(dx.to, dx.accumulate);
    }
    if winograd::suits(s, size_of::<T>()) {
        let plan = winograd::Correlate::data_gradient(s);
        return plan.run(isa, cast_slice(dy), cast_slice(w), dx.as_f32(), cast_slice_mut(ws));
    }
    correlate::Plan::data_gradient(s, size_of::<T>()).run(isa, dy, w, dx, ws);
}

fn weight_gradient_on<T: Real>(
    isa: Isa,
    s: &ConvShape,
    x: &[T],
    dy: &[T],
    dw: &mut [T],
    acc: bool,
    ws: &mut [T],
) {
    check(s, x.len(), dw.len(), dy.len());
    if s.is_empty() {
        return clear(dw, acc);
    }
    if winograd::suits(s, size_of::<T>()) {
        let plan = winograd::WeightGradient::new(s);
        return plan.run(isa, cast_slice(x), cast_slice(dy), cast_slice_mut(dw), acc, cast_slice_mut(ws));
    }
    weight_gradient::Plan::new(s, size_of::<T>()).run(isa, x, dy, dw, acc, ws);
}

/// The kernels below work on raw pointers: lengths must be right whatever the caller did.
fn check(s: &ConvShape, x: usize, w: usize, y: usize) {
    assert!(s.stride > 0, "convolution {s:?}: stride 0");
    let divided = s.groups > 0 && s.ci.is_multiple_of(s.groups) && s.co.is_multiple_of(s.groups);
    assert!(divided, "convolution {s:?}: groups do not divide the channels");
    assert_eq!((x, w, y), (s.x_len(), s.w_len(), s.y_len()), "convolution {s:?}: lengths of x, w, y");
}

fn clear<T: Real>(out: &mut [T], accumulate: bool) {
    if !accumulate {
        out.fill(T::ZERO);
    }
}

/// `to` (+)= the sum of the first entries of `pieces`, in order.
fn add_up<'a, T: Real>(to: &mut [T], pieces: impl Iterator<Item = &'a [T]>, accumulate: bool) {
    clear(to, accumulate);
    for piece in pieces {
        to.iter_mut().zip(piece).for_each(|(to, from)| *to += *from);
    }
}

/// The part of `workspace` that starts on a cache line, so that vectors do not straddle two.
fn aligned<T>(workspace: &mut [T]) -> &mut [T] {
    let skip = workspace.as_ptr().align_offset(64).min(workspace.len());
    &mut workspace[skip..]
}

/// Numbers to ask for so that [`aligned`] leaves `len` of them.
fn with_alignment(len: usize) -> usize {
    len + BLOCK
}
