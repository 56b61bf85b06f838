//! Matrix products of the sizes that networks at ordinary batches have, on register tiles. One
//! factor is packed, a piece at a time that stays in the first-level cache, by the task that needs
//! it; the other is read where it lies, in either order. Nothing is allocated.

use std::mem::MaybeUninit;

use super::conv::tile::{nearly_equal, read, rows, write};
use super::isa::{Isa, Kernel, Simd};
use super::real::Real;
use super::{par, team};

/// Rows of a panel that are packed at a time: with two vectors a row 16 KiB at most, of a
/// first-level cache of 32 or more.
const DEPTH: usize = 128;
/// Multiplications that are worth a task.
const TASK: usize = 1 << 16;
/// Most tasks for each thread: enough to go round, and few that pack the same.
const TASKS: usize = 4;
/// Fewest rows of a task that has only some of the rows: a few tiles.
const LEAST_ROWS: usize = 24;

/// C `[m,n]` (+)= op(A) · op(B), as for [`super::gemm::gemm`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    /// A lies as `[k,m]`.
    pub ta: bool,
    /// B lies as `[n,k]`.
    pub tb: bool,
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// What is summed over.
    pub k: usize,
}

impl Product {
    /// Neither extent may be 0.
    pub fn run<T: Real>(&self, isa: Isa, a: &[T], b: &[T], c: &mut [T], accumulate: bool) {
        let lengths = (self.m * self.k, self.k * self.n, self.m * self.n);
        assert_eq!((a.len(), b.len(), c.len()), lengths, "{self:?}: lengths of A, B, C");
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => self.run_on::<T::Avx512>(isa, a, b, c, accumulate),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => self.run_on::<T::Avx2>(isa, a, b, c, accumulate),
            Isa::Portable => self.run_on::<T::Portable>(isa, a, b, c, accumulate),
        }
    }

    fn run_on<S: Simd>(&self, isa: Isa, a: &[S::Elem], b: &[S::Elem], c: &mut [S::Elem], accumulate: bool) {
        let groups = self.n.div_ceil(2 * S::LANES);
        // How the result is cut does not change its bits: an entry is one sum in one order.
        let wanted = (self.m * self.n * self.k / TASK).clamp(1, TASKS * team::threads());
        let most_rows = (self.m / LEAST_ROWS).max(1);
        // A tall one by rows first, as what reads it next is cut: each thread has its part near.
        let (rows, columns) = if self.m > 2 * self.n {
            let rows = most_rows.min(wanted);
            (rows, (wanted / rows).min(groups))
        } else {
            let columns = groups.min(wanted);
            ((wanted / columns).min(most_rows), columns)
        };
        let c = Out(c.as_mut_ptr());
        par::for_each(rows * columns, &|i| {
            let (i, j) = (i % rows, i / rows);
            isa.run(Task::<S> {
                product: self,
                rows: self.m * i / rows..self.m * (i + 1) / rows,
                groups: groups * j / columns..groups * (j + 1) / columns,
                a,
                b,
                c: &c,
                accumulate,
            });
        });
    }
}

/// The result's place, shared by tasks that write disjoint rectangles of it.
pub(super) struct Out<T>(pub *mut T);
// SAFETY: only used to write disjoint entries.
unsafe impl<T: Send> Sync for Out<T> {}

/// One rectangle of C: some rows, the columns of some groups of two vectors.
struct Task<'a, S: Simd> {
    product: &'a Product,
    rows: std::ops::Range<usize>,
    groups: std::ops::Range<usize>,
    a: &'a [S::Elem],
    b: &'a [S::Elem],
    c: &'a Out<S::Elem>,
    accumulate: bool,
}

impl<S: Simd> Kernel for Task<'_, S> {
    #[inline(always)]
    fn run(self) {
        let Task { product: p, rows, groups, a, b, c, accumulate } = self;
        let (a_row, a_col) = if p.ta { (1, p.m) } else { (p.k, 1) };
        let mut panel = [const { MaybeUninit::<S>::uninit() }; 2 * DEPTH];
        let panel = panel.as_mut_ptr().cast::<S::Elem>();
        for group in groups {
            let first = 2 * group * S::LANES;
            let columns = (p.n - first).min(2 * S::LANES);
            let vectors = columns.div_ceil(S::LANES);
            for from in (0..p.k).step_by(DEPTH) {
                let depth = DEPTH.min(p.k - from);
                // SAFETY: rows and columns are the task's own; A has `m` rows and `k` columns, and
                // the panel `depth` rows of `vectors` that are written before they are read.
                unsafe {
                    if p.tb {
                        let b = b.as_ptr().add(first * p.k + from);
                        pack_transposed::<S>(b, p.k, depth, columns, panel);
                    } else {
                        pack::<S>(b.as_ptr().add(from * p.n + first), p.n, depth, columns, panel);
                    }
                    let tile = Tile {
                        a: a.as_ptr().add(rows.start * a_row + from * a_col),
                        a_row,
                        a_col,
                        depth,
                        panel,
                        c: c.0.add(rows.start * p.n + first),
                        c_row: p.n,
                        lanes: columns - (vectors - 1) * S::LANES,
                        accumulate: accumulate || from > 0,
                    };
                    tile.run::<S>(rows.len(), vectors);
                }
            }
        }
    }
}

/// Rows of B side by side, filled up with zeros to whole vectors.
///
/// # Safety
/// `b` has `depth` rows, `b_row` apart, of `columns` numbers; `panel` has room for two vectors a
/// row.
#[inline(always)]
unsafe fn pack<S: Simd>(b: *const S::Elem, b_row: usize, depth: usize, columns: usize, panel: *mut S::Elem) {
    let width = columns.next_multiple_of(S::LANES);
    for i in 0..depth {
        for at in (0..columns).step_by(S::LANES) {
            // SAFETY: the caller's; a last vector of fewer columns is read only as far as they go.
            unsafe {
                let from = b.add(i * b_row + at);
                let left = columns - at;
                let v = if left < S::LANES { S::load_first(from, left) } else { S::load(from) };
                v.store(panel.add(i * width + at));
            }
        }
    }
}

/// The same of a B that lies the other way, in squares whose rows are read and written as a whole.
///
/// # Safety
/// `b` has `columns` rows, `b_row` apart, of `depth` numbers; `panel` has room for two vectors a
/// row.
#[inline(always)]
unsafe fn pack_transposed<S: Simd>(
    b: *const S::Elem,
    b_row: usize,
    depth: usize,
    columns: usize,
    panel: *mut S::Elem,
) {
    const SIDE: usize = 4;
    let width = columns.next_multiple_of(S::LANES);
    let (whole, deep) = (columns / SIDE * SIDE, depth / SIDE * SIDE);
    // SAFETY: the caller's, for all of it: no row or column is beyond theirs.
    unsafe {
        if columns < width {
            for at in (0..depth * width).step_by(S::LANES) {
                S::splat(S::Elem::ZERO).store(panel.add(at));
            }
        }
        for i in (0..deep).step_by(SIDE) {
            for j in (0..whole).step_by(SIDE) {
                let from = |r: usize| b.add((j + r) * b_row + i).cast::<[S::Elem; SIDE]>().read();
                let square = [from(0), from(1), from(2), from(3)];
                for r in 0..SIDE {
                    let to = panel.add((i + r) * width + j).cast::<[S::Elem; SIDE]>();
                    to.write(square.map(|row| row[r]));
                }
            }
        }
        for i in 0..depth {
            for j in if i < deep { whole..columns } else { 0..columns } {
                panel.add(i * width + j).write(b.add(j * b_row + i).read());
            }
        }
    }
}

/// Where a tile of C and what it sums over lie: c[j, ·] (+)= Σ_i a[j·a_row + i·a_col] · panel[i,
/// ·].
#[derive(Clone, Copy)]
pub(super) struct Tile<T> {
    pub a: *const T,
    pub a_row: usize,
    pub a_col: usize,
    pub depth: usize,
    pub panel: *const T,
    pub c: *mut T,
    pub c_row: usize,
    /// Lanes of the last vector that are columns of C.
    pub lanes: usize,
    pub accumulate: bool,
}

impl<T: Real> Tile<T> {
    /// The tile and those below it, `rows` rows of C in all and one or two `vectors` wide.
    ///
    /// # Safety
    /// The machine has `S`; A and C are good for `rows` rows and the vectors' lanes, A for `depth`
    /// columns and the panel for `depth` rows.
    #[inline(always)]
    pub unsafe fn run<S: Simd<Elem = T>>(self, rows: usize, vectors: usize) {
        for (row, len) in nearly_equal(rows, S::TILE_ROWS[vectors - 1]) {
            // SAFETY: the caller's.
            unsafe {
                let tile = Tile { a: self.a.add(row * self.a_row), c: self.c.add(row * self.c_row), ..self };
                if vectors == 2 {
                    rows!(len, S::TILE_ROWS[1], [1 2 3 4 5 6 7 8],
                        R => S::enter(ProductTile::<S, R, 2>(tile)));
                } else {
                    rows!(len, S::TILE_ROWS[0], [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16],
                        R => S::enter(ProductTile::<S, R, 1>(tile)));
                }
            }
        }
    }
}

/// c[j, ·] (+)= Σ_i a[j·a_row + i·a_col] · panel[i, ·] for `R` rows and `NV` vectors; a function of
/// its own.
struct ProductTile<S: Simd, const R: usize, const NV: usize>(Tile<S::Elem>);

impl<S: Simd, const R: usize, const NV: usize> Kernel for ProductTile<S, R, NV> {
    #[inline(always)]
    fn run(self) {
        let Tile { a, a_row, a_col, depth, panel, c, c_row, lanes, accumulate } = self.0;
        // SAFETY: who makes one vouches for R rows of A and C, `depth` columns of A and rows of the
        // panel.
        unsafe {
            let mut acc = [[S::splat(S::Elem::ZERO); NV]; R];
            if accumulate {
                for (j, acc) in acc.iter_mut().enumerate() {
                    *acc = read(c.add(j * c_row), lanes);
                }
            }
            let (mut a, mut panel) = (a, panel);
            for _ in 0..depth {
                let mut b = [S::splat(S::Elem::ZERO); NV];
                for (v, b) in b.iter_mut().enumerate() {
                    *b = S::load(panel.add(v * S::LANES));
                }
                for (j, acc) in acc.iter_mut().enumerate() {
                    let aj = S::splat(*a.add(j * a_row));
                    for (acc, b) in acc.iter_mut().zip(b) {
                        *acc = acc.add_product(aj, b);
                    }
                }
                a = a.wrapping_add(a_col);
                panel = panel.wrapping_add(NV * S::LANES);
            }
            for (j, acc) in acc.iter().enumerate() {
                write(acc, c.add(j * c_row), lanes);
            }
        }
    }
}
