//! F(m,r), the algorithm along one dimension: m outputs y of P = m + r − 1 data d and a filter g of
//! r taps are y = Aᵀ[(G g) ⊙ (Bᵀ d)], polynomials that are multiplied at P points: 0, pairs ±p and
//! ∞. Row p of G and of A has p's powers; row p of Bᵀ has the coefficients of Π (x − q) over the
//! other points q, that of ∞ those over all. So Bᵀ is the same for each r.
//!
//! All of Bᵀ and A are short binary fractions. At 6 points the usual ±1 and ±2 would save some
//! multiplications, but make about twice the error; at 8, no others were found that are better.

use crate::backend::cpu::isa::Simd;
use crate::backend::cpu::real::Real;

/// Most taps of a filter's row.
pub(super) const MAX_TAPS: usize = 5;
/// Most pairs of points.
const PAIRS: usize = 3;

/// What the rows are made of, for a number of points.
struct Table {
    /// p of each pair, its powers, and N_p = Π (p − q) over the other points q, by which G's row is
    /// divided (as that of −p).
    powers: [[f64; MAX_TAPS]; PAIRS],
    divisors: [f64; PAIRS],
    /// N_0.
    divisor: f64,
    /// Coefficients of Π (x² − q²) over the other pairs, and over all; the last, 1, left out.
    others: [[f64; PAIRS]; PAIRS],
    all: [f64; PAIRS],
}

impl Table {
    const fn of(points: usize) -> Table {
        let (pairs, at) = match points {
            6 => (2, [0.625, 1.5, 0.0]),
            8 => (3, [0.5, 1.0, 2.0]),
            _ => panic!("6 or 8 points"),
        };
        let mut table = Table {
            powers: [[1.0; MAX_TAPS]; PAIRS],
            divisors: [0.0; PAIRS],
            divisor: 0.0,
            others: [[0.0; PAIRS]; PAIRS],
            all: Table::product(&at, pairs, pairs),
        };
        table.divisor = table.all[0];
        let mut i = 0;
        while i < pairs {
            let square = at[i] * at[i];
            table.others[i] = Table::product(&at, pairs, i);
            // Horner: the others' product at p².
            let (mut value, mut k) = (1.0, pairs - 1);
            while k > 0 {
                k -= 1;
                value = value * square + table.others[i][k];
            }
            table.divisors[i] = 2.0 * square * value;
            let mut k = 1;
            while k < MAX_TAPS {
                table.powers[i][k] = table.powers[i][k - 1] * at[i];
                k += 1;
            }
            i += 1;
        }
        table
    }

    /// Π (x² − q²) over the pairs without number `without`: coefficients in x².
    const fn product(at: &[f64; PAIRS], pairs: usize, without: usize) -> [f64; PAIRS] {
        let (mut all, mut degree, mut i) = ([0.0; PAIRS + 1], 0, 0);
        all[0] = 1.0;
        while i < pairs {
            if i != without {
                let mut k = degree + 1;
                all[k] = all[k - 1];
                while k > 1 {
                    k -= 1;
                    all[k] = all[k - 1] - at[i] * at[i] * all[k];
                }
                all[0] *= -at[i] * at[i];
                degree += 1;
            }
            i += 1;
        }
        [all[0], all[1], all[2]]
    }
}

#[inline(always)]
unsafe fn constant<S: Simd>(value: f64) -> S {
    // SAFETY: the caller's.
    unsafe { S::splat(S::Elem::from_f64(value)) }
}

/// Entry `i` of each. Loops like these, because what closures give is not sure to stay in
/// registers.
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
pub(super) unsafe fn data<S: Simd, const P: usize>(d: [S; P]) -> [S; P] {
    let table = const { &Table::of(P) };
    let pairs = P / 2 - 1;
    // SAFETY: the caller's.
    unsafe {
        let mut out = d;
        out[0] = d[P - 2];
        for k in 0..pairs {
            let by = constant(table.all[k]);
            out[0] = out[0].add_product(d[2 * k], by);
            out[P - 1] = out[P - 1].add_product(d[2 * k + 1], by);
        }
        for i in 0..pairs {
            // Even and odd part at ±p.
            let (mut even, mut odd) = (d[P - 2], d[P - 3]);
            for k in 0..pairs - 1 {
                let by = constant(table.others[i][k]);
                even = even.add_product(d[2 * k + 2], by);
                odd = odd.add_product(d[2 * k + 1], by);
            }
            let odd = odd.times(constant(table.powers[i][1]));
            (out[1 + 2 * i], out[2 + 2 * i]) = (even.plus(odd), even.minus(odd));
        }
        out
    }
}

/// From coefficients to values at the points; that at ∞ is the last coefficient. A y, or G g if
/// FILTER, which divides.
#[inline(always)]
pub(super) unsafe fn evaluate<S: Simd, const N: usize, const P: usize, const FILTER: bool>(
    c: [S; N],
) -> [S; P] {
    let table = const { &Table::of(P) };
    // SAFETY: the caller's.
    unsafe {
        let mut out = [c[N - 1]; P];
        out[0] = if FILTER { c[0].times(constant(1.0 / table.divisor)) } else { c[0] };
        for i in 0..P / 2 - 1 {
            let n = if FILTER { table.divisors[i] } else { 1.0 };
            let power = |k: usize| constant(table.powers[i][k] / n);
            let (mut even, mut odd) = (c[0].times(power(0)), c[1].times(power(1)));
            for (k, c) in c.into_iter().enumerate().skip(2) {
                let part = if k % 2 == 0 { &mut even } else { &mut odd };
                *part = part.add_product(c, power(k));
            }
            (out[1 + 2 * i], out[2 + 2 * i]) = (even.plus(odd), even.minus(odd));
        }
        out
    }
}

/// The transpose of [`evaluate`]: Aᵀ m, or Gᵀ u if FILTER.
#[inline(always)]
pub(super) unsafe fn coefficients<S: Simd, const N: usize, const P: usize, const FILTER: bool>(
    v: [S; P],
) -> [S; N] {
    let table = const { &Table::of(P) };
    // SAFETY: the caller's.
    unsafe {
        let mut c = [v[P - 1]; N];
        c[0] = if FILTER { v[0].times(constant(1.0 / table.divisor)) } else { v[0] };
        for i in 0..P / 2 - 1 {
            let n = if FILTER { table.divisors[i] } else { 1.0 };
            let parts = [v[1 + 2 * i].plus(v[2 + 2 * i]), v[1 + 2 * i].minus(v[2 + 2 * i])];
            for (k, c) in c.iter_mut().enumerate() {
                let (part, by) = (parts[k % 2], constant(table.powers[i][k] / n));
                // Between the first and the last, pairs are all there is.
                let first = i == 0 && k > 0 && k < N - 1;
                *c = if first { part.times(by) } else { c.add_product(part, by) };
            }
        }
        c
    }
}
