//! Sums over a middle axis, and the transpose.

use super::columns::{blocks, column_sums, partials_len, reduce_blocks, split};
use super::isa::{Isa, Kernel};
use super::par;
use super::real::Real;

/// Numbers that a task handles at least, so that many short sums do not become many tasks.
const TASK_LEN: usize = 1 << 14;

/// Numbers of workspace that [`sum`] needs.
pub fn workspace_len(_pre: usize, mid: usize, post: usize) -> usize {
    if blocks(mid, post).1 > 1 { partials_len(mid, post, 1) } else { 0 }
}

/// out `[pre, post]` = Σ_mid x `[pre, mid, post]`, in f64 inside, in an order that depends on the
/// shape only.
pub fn sum<T: Real>(pre: usize, mid: usize, post: usize, x: &[T], out: &mut [T], workspace: &mut [T]) {
    assert_eq!((x.len(), out.len()), (pre * mid * post, pre * post), "sum {pre}×{mid}×{post}: lengths");
    if out.is_empty() {
        return;
    }
    if mid == 0 {
        out.fill(T::ZERO);
        return;
    }
    if blocks(mid, post).1 > 1 {
        for (x, out) in x.chunks_exact(mid * post).zip(out.chunks_exact_mut(post)) {
            let block = |rows: std::ops::Range<usize>, partial: &mut [T]| {
                Isa::best().run(Sum {
                    x: &x[rows.start * post..rows.end * post],
                    post,
                    out: partial,
                    split: true,
                });
            };
            reduce_blocks::<T, 1>(mid, post, workspace, &block, |i, [total]| out[i] = T::from_f64(total));
        }
        return;
    }
    let each = (TASK_LEN / (mid * post)).max(1);
    par::for_each_chunk(out, each * post, &|i, out| {
        let x = &x[i * each * mid * post..];
        for (x, out) in x.chunks_exact(mid * post).zip(out.chunks_exact_mut(post)) {
            Isa::best().run(Sum { x, post, out, split: false });
        }
    });
}

/// out `[pre, mid, post]` = x `[pre, post]` repeated `mid` times: the transpose of [`sum`].
pub fn broadcast<T: Real>(pre: usize, mid: usize, post: usize, x: &[T], out: &mut [T]) {
    assert_eq!((x.len(), out.len()), (pre * post, pre * mid * post), "broadcast {pre}×{mid}×{post}: lengths");
    if out.is_empty() {
        return;
    }
    let rows = TASK_LEN.div_ceil(post);
    if post == 1 {
        par::for_each_chunk(out, rows, &|chunk, out| {
            let mut at = chunk * rows;
            let mut out = out;
            while !out.is_empty() {
                let (head, rest) = out.split_at_mut((mid - at % mid).min(out.len()));
                head.fill(x[at / mid]);
                at += head.len();
                out = rest;
            }
        });
        return;
    }
    par::for_each_chunk(out, rows * post, &|chunk, out| {
        for (i, out) in out.chunks_exact_mut(post).enumerate() {
            out.copy_from_slice(&x[(chunk * rows + i) / mid * post..][..post]);
        }
    });
}

/// Column sums of one matrix or block: as numbers, or `split` in two.
struct Sum<'a, T> {
    x: &'a [T],
    post: usize,
    out: &'a mut [T],
    split: bool,
}

impl<T: Real> Kernel for Sum<'_, T> {
    #[inline(always)]
    fn run(self) {
        let Sum { x, post, out, split: in_two } = self;
        column_sums(
            [x],
            post,
            |_| [0.0; 2],
            |[x]: [f64; 1], _| [x],
            |i, [total]: [f64; 1]| {
                if in_two {
                    out[2 * i..2 * i + 2].copy_from_slice(&split(total));
                } else {
                    out[i] = T::from_f64(total);
                }
            },
        );
    }
}
