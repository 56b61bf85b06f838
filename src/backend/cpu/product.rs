//! Matrix products of the sizes that networks at ordinary batches have, on register tiles. One
//! factor is packed into a workspace that the program owns, so nothing is allocated; the other is
//! read where it lies, in either order.

use super::conv::pack::Panels;
use super::conv::tile::{nearly_equal, read, rows, write};
use super::isa::{Isa, Kernel, Simd};
use super::par;
use super::real::Real;

/// Most lanes of a vector: panels of this width have room for those of any instruction set.
const MOST_LANES: usize = 16;
/// Rows of a panel that one pass goes through: with two vectors a row, inside the second-level
/// cache.
const DEPTH: usize = 1024;
/// Multiplications that are worth a task.
const TASK: usize = 1 << 17;
/// Most tasks.
const MAX_TASKS: usize = 64;
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
    fn panels(&self, lanes: usize) -> Panels {
        Panels { taps: 1, k: self.k, m: self.n, lanes, apart: 1 }
    }

    /// Numbers of workspace that [`Product::run`] needs.
    pub fn workspace_len(&self) -> usize {
        self.panels(MOST_LANES).len()
    }

    /// Neither extent may be 0. `workspace`: [`Product::workspace_len`] numbers, anything in them.
    pub fn run<T: Real>(
        &self,
        isa: Isa,
        a: &[T],
        b: &[T],
        c: &mut [T],
        accumulate: bool,
        workspace: &mut [T],
    ) {
        let lengths = (self.m * self.k, self.k * self.n, self.m * self.n);
        assert_eq!((a.len(), b.len(), c.len()), lengths, "{self:?}: lengths of A, B, C");
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => self.run_on::<T::Avx512>(isa, a, b, c, accumulate, workspace),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => self.run_on::<T::Avx2>(isa, a, b, c, accumulate, workspace),
            Isa::Portable => self.run_on::<T::Portable>(isa, a, b, c, accumulate, workspace),
        }
    }

    fn run_on<S: Simd>(
        &self,
        isa: Isa,
        a: &[S::Elem],
        b: &[S::Elem],
        c: &mut [S::Elem],
        accumulate: bool,
        workspace: &mut [S::Elem],
    ) {
        let panels = self.panels(S::LANES);
        let packed = &mut workspace[..panels.len()];
        panels.pack(b, self.tb, packed);
        let packed = &*packed;
        let wanted = (self.m * self.n * self.k / TASK).clamp(1, MAX_TASKS);
        // Each panel to one task where there are enough of them.
        let columns = panels.groups().min(wanted);
        let rows = wanted.div_ceil(columns).min(self.m / LEAST_ROWS).max(1);
        let c = Out(c.as_mut_ptr());
        par::for_each(rows * columns, &|i| {
            let (i, j) = (i % rows, i / rows);
            isa.run(Task::<S> {
                product: self,
                panels: &panels,
                rows: self.m * i / rows..self.m * (i + 1) / rows,
                groups: panels.groups() * j / columns..panels.groups() * (j + 1) / columns,
                a: a.as_ptr(),
                packed,
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

/// One rectangle of C: some rows, the columns of some panels.
struct Task<'a, S: Simd> {
    product: &'a Product,
    panels: &'a Panels,
    rows: std::ops::Range<usize>,
    groups: std::ops::Range<usize>,
    a: *const S::Elem,
    packed: &'a [S::Elem],
    c: &'a Out<S::Elem>,
    accumulate: bool,
}

impl<S: Simd> Kernel for Task<'_, S> {
    #[inline(always)]
    fn run(self) {
        let Task { product: p, panels, rows, groups, a, packed, c, accumulate } = self;
        let (a_row, a_col) = if p.ta { (1, p.m) } else { (p.k, 1) };
        for group in groups {
            let vectors = panels.group_vectors(group);
            let first = 2 * group * S::LANES;
            let lanes = (p.n - first - (vectors - 1) * S::LANES).min(S::LANES);
            let panel = packed[panels.start(group, 0)..].as_ptr();
            for from in (0..p.k).step_by(DEPTH) {
                let depth = DEPTH.min(p.k - from);
                // SAFETY: rows and columns are the task's own; A has `m` rows and the panel `k`.
                unsafe {
                    let tile = Tile {
                        a: a.add(rows.start * a_row + from * a_col),
                        a_row,
                        a_col,
                        depth,
                        panel: panel.add(from * vectors * S::LANES),
                        c: c.0.add(rows.start * p.n + first),
                        c_row: p.n,
                        lanes,
                        accumulate: accumulate || from > 0,
                    };
                    tile.run::<S>(rows.len(), vectors);
                }
            }
        }
    }
}

/// Where a tile of C and what it sums over lie: c[j, ·] (+)= Σ_i a[j·a_row + i·a_col] · panel[i, ·].
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
