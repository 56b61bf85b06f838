//! Sums over an axis in the middle, with the same tree on any number of threads.

use super::isa::vectorise;
use super::par;
use super::real::Real;

/// Rows that are added up before partial sums are.
const ROWS: usize = 256;
/// Entries below which one task does it all.
const SMALL: usize = 16 * 1024;

/// x seen as `[pre, mid, post]`, summed over `mid`, gives out `[pre, post]`: in runs of rows, whose sums are then added in
/// order.
pub fn sum<T: Real>(pre: usize, mid: usize, post: usize, x: &[T], out: &mut [T]) {
    assert_eq!((x.len(), out.len()), (pre * mid * post, pre * post), "sum of {pre}×{mid}×{post}: lengths");
    if out.is_empty() {
        return;
    }
    let item = |i: usize, out: &mut [T]| {
        let x = &x[i * mid * post..][..mid * post];
        vectorise(|| if post == 1 { out[0] = total(x) } else { rows(x, out) });
    };
    if x.len() <= SMALL {
        out.chunks_exact_mut(post).enumerate().for_each(|(i, out)| item(i, out));
    } else {
        par::for_each_chunk(out, post, &item);
    }
}

/// Pairwise: 16 running sums, halves of long runs apart.
#[inline(always)]
fn total<T: Real>(x: &[T]) -> T {
    let mut sum = T::ZERO;
    for run in x.chunks(ROWS * 16) {
        let mut lanes = [T::ZERO; 16];
        let (chunks, rest) = run.as_chunks::<16>();
        for chunk in chunks {
            lanes.iter_mut().zip(chunk).for_each(|(l, c)| *l += *c);
        }
        lanes.iter_mut().zip(rest).for_each(|(l, c)| *l += *c);
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                let high = lanes[i + half];
                lanes[i] += high;
            }
        }
        sum += lanes[0];
    }
    sum
}

/// Columns' sums: rows are added one after another.
#[inline(always)]
fn rows<T: Real>(x: &[T], out: &mut [T]) {
    out.fill(T::ZERO);
    for row in x.chunks_exact(out.len()) {
        out.iter_mut().zip(row).for_each(|(o, r)| *o += *r);
    }
}
