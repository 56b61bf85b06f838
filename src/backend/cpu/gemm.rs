//! Matrix products: those of networks at ordinary batches by `product.rs`, larger ones through the
//! `gemm` crate, one thread per fixed chunk of the result.

use super::isa::Isa;
use super::par;
use super::product::Product;
use super::real::Real;

/// A product all of whose extents reach this goes to the `gemm` crate: its blocking for the caches
/// pays there, and its allocations (packing buffers at every call, up to some megabytes a chunk) do
/// not matter.
const LARGE: usize = 768;

/// Most chunks of an ordinary product: every chunk packs its own operands, which costs a deep and
/// narrow product up to half its speed with many chunks, and nothing much with these.
const CHUNKS: usize = 8;
/// Most chunks of a very large one.
const MAX_CHUNKS: usize = 64;

/// C `[m,n]` (+)= op(A) · op(B), all row-major: A is `[m,k]`, or `[k,m]` if `ta`; B is `[k,n]`, or
/// `[n,k]` if `tb`.
///
/// The result is cut into rectangles, each computed by one task, and every entry is summed in one
/// order, so that the bits do not depend on the number of threads.
///
/// # Panics
/// If a slice's length is not what the shape says.
#[allow(clippy::too_many_arguments)]
pub fn gemm<T: Real>(
    ta: bool,
    tb: bool,
    m: usize,
    n: usize,
    k: usize,
    a: &[T],
    b: &[T],
    c: &mut [T],
    accumulate: bool,
) {
    let lengths = (a.len(), b.len(), c.len());
    assert_eq!(lengths, (m * k, k * n, m * n), "matrix product {m}×{k}×{n}: lengths of A, B, C");
    if c.is_empty() {
        return;
    }
    if k == 0 {
        if !accumulate {
            c.fill(T::ZERO);
        }
        return;
    }
    if !large(m, n, k) {
        return Product { ta, tb, m, n, k }.run(Isa::best(), a, b, c, accumulate);
    }
    let (row_chunks, col_chunks) = chunks(m, n, k);
    let out = Out(c.as_mut_ptr());
    par::for_each(row_chunks * col_chunks, &|i| {
        let (i, j) = (i / col_chunks, i % col_chunks);
        let (r0, r1) = (cut(m, row_chunks, i), cut(m, row_chunks, i + 1));
        let (c0, c1) = (cut(n, col_chunks, j), cut(n, col_chunks, j + 1));
        let (a_row, a_col) = if ta { (1, m) } else { (k, 1) };
        let (b_row, b_col) = if tb { (1, k) } else { (n, 1) };
        // SAFETY: lengths were checked above; the rectangles of C are disjoint.
        unsafe {
            gemm::gemm(
                r1 - r0,
                c1 - c0,
                k,
                out.at(r0 * n + c0),
                1,
                n as isize,
                accumulate,
                a.as_ptr().add(r0 * a_row),
                a_col as isize,
                a_row as isize,
                b.as_ptr().add(c0 * b_col),
                b_col as isize,
                b_row as isize,
                T::ONE,
                T::ONE,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    });
}

fn large(m: usize, n: usize, k: usize) -> bool {
    m.min(n).min(k) >= LARGE
}

/// The result's place, shared by tasks that write disjoint rectangles of it.
struct Out<T>(*mut T);
// SAFETY: only used to write disjoint elements.
unsafe impl<T: Send> Sync for Out<T> {}
impl<T> Out<T> {
    /// # Safety
    /// `offset` lies in the result.
    unsafe fn at(&self, offset: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

/// Start of chunk `i` of `chunks` nearly equal ones; whole vectors where there are enough of them.
fn cut(n: usize, chunks: usize, i: usize) -> usize {
    let unit = if n >= 16 * chunks { 16 } else { 1 };
    (n.div_ceil(unit) * i / chunks * unit).min(n)
}

/// How many chunks of rows and of columns. A function of the shape only.
fn chunks(m: usize, n: usize, k: usize) -> (usize, usize) {
    let work = m.saturating_mul(n).saturating_mul(k);
    let wanted = (work >> 19).clamp(1, CHUNKS).max(work >> 29).min(MAX_CHUNKS);
    let (mut rows, mut cols) = (1, 1);
    while rows * cols < wanted {
        // Halve the longer side of a chunk: squares share most.
        let (r, c) = (m / rows, n / cols);
        if r.max(c) < 32 {
            break;
        }
        if r >= c { rows *= 2 } else { cols *= 2 }
    }
    (rows, cols)
}
