//! F(4,3), the algorithm along one dimension: 4 outputs y of 6 data d and a filter g of 3 taps are
//! y = Aᵀ[(G g) ⊙ (Bᵀ d)], polynomials that are multiplied at 6 points: 0, ±5/8, ±3/2 and ∞.
//!
//! All of Bᵀ and A are short binary fractions. The usual points 0, ±1, ±2 (put them in for A and B)
//! save some multiplications, but make about twice the error.

use crate::backend::cpu::isa::Simd;
use crate::backend::cpu::real::Real;

/// Outputs.
pub(super) const SIDE: usize = 4;
/// Points, as many as data.
pub(super) const POINTS: usize = SIDE + 2;
/// Products of a tile of SIDE × SIDE.
pub(super) const PRODUCTS: usize = POINTS * POINTS;

const A: f64 = 0.625;
const B: f64 = 1.5;
/// N_p = Π (p − q) over the other points q, by which G's row of p is divided.
const N0: f64 = A * A * B * B;
const NA: f64 = 2.0 * A * A * (A * A - B * B);
const NB: f64 = 2.0 * B * B * (B * B - A * A);

#[inline(always)]
unsafe fn constant<S: Simd>(value: f64) -> S {
    // SAFETY: the caller's.
    unsafe { S::splat(S::Elem::from_f64(value)) }
}

/// Entry `i` of each. Loops like these, because what closures give is not sure to stay in registers.
#[inline(always)]
pub(super) fn across<S: Copy, const N: usize, const M: usize>(rows: &[[S; N]; M], i: usize) -> [S; M] {
    let mut column = [rows[0][0]; M];
    for (to, row) in column.iter_mut().zip(rows) {
        *to = row[i];
    }
    column
}

/// Bᵀ d.
///
/// # Safety
/// Here and below: the machine has `S`.
#[inline(always)]
pub(super) unsafe fn data<S: Simd>(d: [S; POINTS]) -> [S; POINTS] {
    // SAFETY: the caller's.
    unsafe {
        let (a2, b2) = (constant(-A * A), constant(-B * B));
        // Even and odd parts at ±A and ±B of what the factors of the other points leave.
        let (even, half) = (d[4].add_product(d[2], b2), d[3].add_product(d[1], b2));
        let (even_b, half_b) = (d[4].add_product(d[2], a2), d[3].add_product(d[1], a2));
        let (odd, odd_b) = (half.times(constant(A)), half_b.times(constant(B)));
        [
            even.add_product(d[2].add_product(d[0], b2), a2),
            even.plus(odd),
            even.minus(odd),
            even_b.plus(odd_b),
            even_b.minus(odd_b),
            d[5].add_product(d[3], b2).add_product(half, a2),
        ]
    }
}

/// G g.
#[inline(always)]
pub(super) unsafe fn filter<S: Simd>(g: [S; 3]) -> [S; POINTS] {
    // SAFETY: the caller's.
    unsafe {
        let even = g[0].times(constant(1.0 / NA)).add_product(g[2], constant(A * A / NA));
        let odd = g[1].times(constant(A / NA));
        let even_b = g[0].times(constant(1.0 / NB)).add_product(g[2], constant(B * B / NB));
        let odd_b = g[1].times(constant(B / NB));
        let first = g[0].times(constant(1.0 / N0));
        [first, even.plus(odd), even.minus(odd), even_b.plus(odd_b), even_b.minus(odd_b), g[2]]
    }
}

/// Gᵀ u.
#[inline(always)]
pub(super) unsafe fn filter_transposed<S: Simd>(u: [S; POINTS]) -> [S; 3] {
    // SAFETY: the caller's.
    unsafe {
        let (even, odd) = (u[1].plus(u[2]), u[1].minus(u[2]));
        let (even_b, odd_b) = (u[3].plus(u[4]), u[3].minus(u[4]));
        let first = u[0].times(constant(1.0 / N0)).add_product(even, constant(1.0 / NA));
        [
            first.add_product(even_b, constant(1.0 / NB)),
            odd.times(constant(A / NA)).add_product(odd_b, constant(B / NB)),
            u[5].add_product(even, constant(A * A / NA)).add_product(even_b, constant(B * B / NB)),
        ]
    }
}

/// Aᵀ m.
#[inline(always)]
pub(super) unsafe fn output<S: Simd>(m: [S; POINTS]) -> [S; SIDE] {
    // SAFETY: the caller's.
    unsafe {
        let (even, odd) = (m[1].plus(m[2]), m[1].minus(m[2]));
        let (even_b, odd_b) = (m[3].plus(m[4]), m[3].minus(m[4]));
        [
            m[0].plus(even).plus(even_b),
            odd.times(constant(A)).add_product(odd_b, constant(B)),
            even.times(constant(A * A)).add_product(even_b, constant(B * B)),
            m[5].add_product(odd, constant(A * A * A)).add_product(odd_b, constant(B * B * B)),
        ]
    }
}

/// A y.
#[inline(always)]
pub(super) unsafe fn output_transposed<S: Simd>(y: [S; SIDE]) -> [S; POINTS] {
    // SAFETY: the caller's.
    unsafe {
        let even = y[0].add_product(y[2], constant(A * A));
        let odd = y[1].times(constant(A)).add_product(y[3], constant(A * A * A));
        let even_b = y[0].add_product(y[2], constant(B * B));
        let odd_b = y[1].times(constant(B)).add_product(y[3], constant(B * B * B));
        [y[0], even.plus(odd), even.minus(odd), even_b.plus(odd_b), even_b.minus(odd_b), y[3]]
    }
}
