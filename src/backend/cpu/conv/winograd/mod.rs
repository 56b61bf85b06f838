//! Winograd's minimal filtering for f32 and filters of 3×3 and 5×5 at stride 1: one bilinear
//! algorithm in the three roles of the form.
//!
//! F(4×4,3×3) computes a tile of 4×4 outputs from a window d of 6×6 pixels and a filter g by
//! y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)] A, with 36 products where a direct sum has 144 (Lavin and Gray,
//! "Fast algorithms for convolutional neural networks", arXiv:1509.09308). Over channels, each of
//! the 36 is a matrix product of tiles × channels in by channels in × channels out. The data
//! gradient is the same of dy and filters turned around; the weight gradient is the transpose in g:
//! Gᵀ[Σ over tiles (Bᵀ d B) ⊙ (A dy Aᵀ)] G. F(4×4,5×5) has 64 products, from windows of 8×8, where
//! a direct sum has 400. It rounds four times as much as F(2×2,5×5), which has 36 for 100. The
//! forward pass takes the latter: it is there that rounding decides on which side of a ReLU, and
//! which of a window's pixels is the largest, and one of these changes a hypergradient by 1e-5.
//!
//! A task does this for a few dozen tiles, so that what it transforms never leaves the second-level
//! cache. Vectors are channels, so transforms stay in registers. They read and write more than they
//! compute, so what comes next is fetched while products are summed.
//!
//! Relative errors of outputs and gradients, in the Euclidean norm, are 5e-7 to 1.2e-6
//! (`winograd_loses_little` prints them), two to three times those of direct sums; of gradients in
//! 5×5, 3e-6. The hypergradient of LeNet, f32 against f64, by `metatape hypergrad --model lenet
//! --batch 100 --route layerwise --seed S --dump FILE`, S = 1…5: 1.3e-7 to 1.8e-7, and 2.8e-5 at S
//! = 3, where a ReLU or a maximum falls on the other side; with F(2×2,5×5) in all roles 1.2e-7 to
//! 1.7e-7 and 2.8e-5, with F(4×4,5×5) in all roles 1e-5 to 2e-5 at three of the five. That of
//! ResNet-32 with GELU for ReLU (near a ReLU's edge, rounding alone decides), by `… --model
//! gelu.toml --batch N --route jvp`: N = 4: 9.1e-7 (direct sums 5.6e-7), N = 16: 9.8e-8 (1.5e-7).
//! With ReLU, WRN-28-10 has 1.8e-3 (1.6e-3): the root of the share of arguments that rounding puts
//! on the other side.

mod correlate;
mod filter;
mod points;
mod tiles;
mod weight_gradient;

use super::ConvShape;
use crate::tape::Role;

pub(super) use correlate::Plan as Correlate;
pub(super) use weight_gradient::Plan as WeightGradient;

/// Bytes of transformed tiles, and of their products, that a task works on at a time: inside the
/// second-level cache.
const TILES_BYTES: usize = 384 << 10;
/// Most tiles that a task works on at a time.
const MAX_TILES: usize = 64;
/// Bytes of scratch over all lanes, unless [`MIN_LANES`] of them need more.
const SCRATCH_BYTES: usize = 16 << 20;
const MIN_LANES: usize = 16;
/// Fewest tiles: filters are transformed at each call, which costs as much as some tiles save.
const MIN_TILES: usize = 8;

/// Pixels along a tile of any role but one.
const SIDE: usize = 4;

/// Pixels along a tile for filters of so many taps.
fn side(taps: usize, role: Role) -> usize {
    if taps == 5 && role == Role::C { 2 } else { SIDE }
}

/// Whether all roles are computed this way: a function of the shape and the number type's size.
pub(super) fn suits(s: &ConvShape, number: usize) -> bool {
    let whole = |c: usize| c > 0 && c.is_multiple_of(super::BLOCK);
    let form = matches!((s.kh, s.kw, s.stride, s.groups), (3, 3, 1, 1) | (5, 5, 1, 1)) && s.pad < s.kh;
    if number != size_of::<f32>() || !form || !whole(s.ci) || !whole(s.co) {
        return false;
    }
    // Tiles that stick out multiply for nothing: at least half the multiplications must be saved.
    let fits = |h: usize, w: usize, role: Role| {
        let side = side(s.kh, role);
        let (tiles, points) = (h.div_ceil(side) * w.div_ceil(side), side + s.kh - 1);
        s.n * tiles >= MIN_TILES && 2 * tiles * points * points <= h * w * s.kh * s.kw
    };
    fits(s.oh(), s.ow(), Role::C) && fits(s.oh(), s.ow(), Role::B) && fits(s.h, s.w, Role::A)
}
