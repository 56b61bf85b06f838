//! F(m,r), the algorithm along one dimension: m outputs y of 6 data d and a filter g of r = 7 − m taps
//! are y = Aᵀ[(G g) ⊙ (Bᵀ d)], polynomials that are multiplied at 6 points: 0, ±5/8, ±3/2 and ∞.
//! Row p of G and of A has p's powers, so Bᵀ is the same for each r.
//!
//! All of Bᵀ and A are short binary fractions. The usual points 0, ±1, ±2 (put them in for A and B)
//! save some multiplications, but make about twice the error.

use crate::backend::cpu::isa::Simd;
use crate::backend::cpu::real::Real;

/// Points, as many as data.
pub(super) const POINTS: usize = 6;
/// Products of a tile.
pub(super) const PRODUCTS: usize = POINTS * POINTS;
/// Most taps of a filter's row.
pub(super) const MAX_TAPS: usize = 5;

const A: f64 = 0.625;
const B: f64 = 1.5;
/// N_p = Π (p − q) over the other points q, by which G's row of p is divided.
const N0: f64 = A * A * B * B;
const NA: f64 = 2.0 * A * A * (A * A - B * B);
const NB: f64 = 2.0 * B * B * (B * B - A * A);
pub(super) const FILTER: [f64; 3] = [N0, NA, NB];
pub(super) const OUTPUT: [f64; 3] = [1.0; 3];
const A_POWERS: [f64; MAX_TAPS] = [1.0, A, A * A, A * A * A, A * A * A * A];
const B_POWERS: [f64; MAX_TAPS] = [1.0, B, B * B, B * B * B, B * B * B * B];

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

/// From coefficients to values at the points: those at 0, ±A and ±B over the entries of `n`, that at
/// ∞ the last coefficient. G g with [`FILTER`], A y with [`OUTPUT`].
#[inline(always)]
pub(super) unsafe fn evaluate<S: Simd, const N: usize>(c: [S; N], [n0, na, nb]: [f64; 3]) -> [S; POINTS] {
    // SAFETY: the caller's.
    unsafe {
        // Even and odd part.
        let mut a = [c[0].times(constant(1.0 / na)), c[1].times(constant(A / na))];
        let mut b = [c[0].times(constant(1.0 / nb)), c[1].times(constant(B / nb))];
        for k in 2..N {
            a[k % 2] = a[k % 2].add_product(c[k], constant(A_POWERS[k] / na));
            b[k % 2] = b[k % 2].add_product(c[k], constant(B_POWERS[k] / nb));
        }
        let first = c[0].times(constant(1.0 / n0));
        [first, a[0].plus(a[1]), a[0].minus(a[1]), b[0].plus(b[1]), b[0].minus(b[1]), c[N - 1]]
    }
}

/// The transpose of [`evaluate`]: Gᵀ u with [`FILTER`], Aᵀ m with [`OUTPUT`].
#[inline(always)]
pub(super) unsafe fn coefficients<S: Simd, const N: usize>(v: [S; POINTS], [n0, na, nb]: [f64; 3]) -> [S; N] {
    // SAFETY: the caller's.
    unsafe {
        let a = [v[1].plus(v[2]), v[1].minus(v[2])];
        let b = [v[3].plus(v[4]), v[3].minus(v[4])];
        let mut c = [v[5]; N];
        for (k, c) in c.iter_mut().enumerate() {
            let (by_a, by_b) = (constant(A_POWERS[k] / na), constant(B_POWERS[k] / nb));
            let with_a = match k {
                0 => v[0].times(constant(1.0 / n0)).add_product(a[0], by_a),
                _ if k == N - 1 => v[5].add_product(a[k % 2], by_a),
                _ => a[k % 2].times(by_a),
            };
            *c = with_a.add_product(b[k % 2], by_b);
        }
        c
    }
}
