//! Forward pass and data gradient.

use std::ops::Range;

use super::filter::Pack;
use super::tiles::{Ahead, Gather, Grid, Scatter, Scratch};
use super::{MAX_TILES, MIN_LANES, SCRATCH_BYTES, SIDE, TILES_BYTES};
use crate::backend::cpu::conv::{BLOCK, ConvShape, Output, aligned, with_alignment};
use crate::backend::cpu::isa::{Isa, Kernel, Simd};
use crate::backend::cpu::par;
use crate::backend::cpu::product::{Out, Tile};
use crate::backend::cpu::real::Real;
use crate::tape::Role;

/// Tasks wanted; channels are cut where there are not so many blocks of tiles.
const MIN_TASKS: usize = 16;
/// Fewest output channels of a task that has only some of them: each such task transforms the
/// tiles anew.
const MIN_CHANNELS: usize = 64;

/// How a correlation is cut into tasks. A function of shapes only.
///
/// A task is one of `blocks` ranges of whole rows of tiles × one of `parts` ranges of output
/// channels.
pub(in crate::backend::cpu::conv) struct Plan {
    grid: Grid,
    transposed: bool,
    /// Channels summed over, and output channels.
    k: usize,
    m: usize,
    tiles: usize,
    /// Most tiles of a block.
    most: usize,
    blocks: usize,
    parts: usize,
    lanes: usize,
}

impl Plan {
    pub fn forward(s: &ConvShape) -> Plan {
        Plan::cut(s.n, Grid::forward(s, Role::C), false, s.ci, s.co)
    }

    pub fn data_gradient(s: &ConvShape) -> Plan {
        Plan::cut(s.n, Grid::backward(s), true, s.co, s.ci)
    }

    fn cut(n: usize, grid: Grid, transposed: bool, k: usize, m: usize) -> Plan {
        let (tiles, rows) = (n * grid.tiles(), n * grid.down());
        let each = grid.products() * (k + m.min(2 * BLOCK)) * size_of::<f32>();
        let most = (TILES_BYTES / each).clamp(16, MAX_TILES);
        // Even numbers of blocks for two threads, four and so on.
        let blocks = tiles.div_ceil(most);
        let blocks = if blocks > 2 { blocks.next_multiple_of(4) } else { blocks };
        let blocks = blocks.min(rows);
        let most = rows.div_ceil(blocks) * grid.across();
        let parts = MIN_TASKS.div_ceil(blocks).min(m / MIN_CHANNELS).max(1);
        let mut plan = Plan { grid, transposed, k, m, tiles, most, blocks, parts, lanes: 1 };
        let lanes = (SCRATCH_BYTES / (plan.per_lane() * size_of::<f32>())).max(MIN_LANES);
        plan.lanes = lanes.min(blocks * parts);
        plan
    }

    /// Floating-point operations of the products.
    pub fn flops(&self) -> u64 {
        2 * (self.grid.products() * self.tiles * self.k * self.m) as u64
    }
    /// Numbers of the filters' transforms.
    fn filters(&self) -> usize {
        self.grid.products() * self.k * self.m
    }
    /// Numbers of the tiles' transforms; `width` more for each product, so that products do not lie
    /// a power of two apart and so in the same few lines of the cache.
    fn windows(&self) -> usize {
        self.grid.products() * (self.most * self.k + BLOCK)
    }
    fn per_lane(&self) -> usize {
        self.windows() + self.grid.products() * (self.most * 2 * BLOCK + BLOCK)
    }
    pub fn workspace_len(&self) -> usize {
        with_alignment(self.filters() + self.lanes * self.per_lane())
    }

    /// Pieces of the output, one a block of tiles.
    pub fn pieces(&self) -> usize {
        if self.parts > 1 { 0 } else { self.blocks }
    }
    /// The tiles of a block.
    fn block(&self, i: usize) -> Range<usize> {
        let start = |i: usize| self.tiles / self.grid.across() * i / self.blocks * self.grid.across();
        start(i)..start(i + 1)
    }

    pub fn run(&self, isa: Isa, x: &[f32], w: &[f32], y: Output<f32>, workspace: &mut [f32]) {
        assert!(workspace.len() >= self.workspace_len(), "convolution: workspace too small");
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => self.run_with::<<f32 as Real>::Avx512>(isa, x, w, y, workspace),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => self.run_with::<<f32 as Real>::Avx2>(isa, x, w, y, workspace),
            Isa::Portable => self.run_with::<<f32 as Real>::Portable>(isa, x, w, y, workspace),
        }
    }

    fn run_with<S: Simd<Elem = f32>>(
        &self,
        isa: Isa,
        x: &[f32],
        w: &[f32],
        y: Output<f32>,
        workspace: &mut [f32],
    ) {
        match (self.grid.taps(), self.grid.side) {
            (3, _) => self.run_on::<S, 3, SIDE, 6>(isa, x, w, y, workspace),
            (_, 2) => self.run_on::<S, 5, 2, 6>(isa, x, w, y, workspace),
            _ => self.run_on::<S, 5, SIDE, 8>(isa, x, w, y, workspace),
        }
    }

    fn run_on<S: Simd<Elem = f32>, const TAPS: usize, const SIDE: usize, const P: usize>(
        &self,
        isa: Isa,
        x: &[f32],
        w: &[f32],
        y: Output<f32>,
        workspace: &mut [f32],
    ) {
        let (filters, scratch) = aligned(workspace).split_at_mut(self.filters());
        let (k, m, transposed) = (self.k, self.m, self.transposed);
        let groups = m.div_ceil(2 * S::LANES);
        let start = |g: usize| P * P * k * (2 * S::LANES * g).min(m);
        par::for_each_part(filters, groups, &start, &|g, out| {
            let first = 2 * S::LANES * g;
            let width = (m - first).min(2 * S::LANES);
            let (w, to) = (w.as_ptr(), out.as_mut_ptr());
            isa.run(Pack::<S, TAPS, P> { w, k, m, transposed, first, width, to });
        });
        let Output { to, accumulate, tail } = y;
        let (filters, y) = (&*filters, Out(to.as_mut_ptr()));
        par::for_each_part_with(
            &mut [] as &mut [u8],
            scratch,
            self.per_lane(),
            self.lanes,
            self.blocks * self.parts,
            &|_| 0,
            &|i, _, scratch| {
                let (block, part) = (i / self.parts, i % self.parts);
                isa.run(Task::<S, SIDE, P> {
                    plan: self,
                    tiles: self.block(block),
                    groups: groups * part / self.parts..groups * (part + 1) / self.parts,
                    x: x.as_ptr(),
                    filters: filters.as_ptr(),
                    y: &y,
                    accumulate,
                    scratch,
                });
                if let Some(tail) = tail {
                    let pixels = self.grid.span::<false>(self.block(block));
                    tail(block, pixels.start * m..pixels.end * m);
                }
            },
        );
    }
}

/// Some tiles, the channels of some panels.
struct Task<'a, S: Simd, const SIDE: usize, const P: usize> {
    plan: &'a Plan,
    tiles: Range<usize>,
    groups: Range<usize>,
    x: *const S::Elem,
    filters: *const S::Elem,
    y: &'a Out<S::Elem>,
    accumulate: bool,
    scratch: &'a mut [S::Elem],
}

impl<S: Simd, const SIDE: usize, const P: usize> Kernel for Task<'_, S, SIDE, P> {
    #[inline(always)]
    fn run(self) {
        let Task { plan, tiles, groups, x, filters, y, accumulate, scratch } = self;
        let (grid, k, m) = (&plan.grid, plan.k, plan.m);
        let (windows, sums) = scratch.split_at_mut(plan.windows());
        let windows = Scratch { at: windows.as_mut_ptr(), tile: k, product: plan.most * k + BLOCK };
        // SAFETY: `isa.run` entered the instruction set; tiles and channels of y are the task's
        // own, and the scratch has room for `most` tiles of k channels and of two vectors.
        unsafe {
            S::enter(Gather::<S, P, P> {
                grid,
                from: x,
                pixel: k,
                channels: k,
                tiles: tiles.clone(),
                to: windows,
            });
            // What this task writes, and what the next one reads.
            let times = P * P * groups.len();
            let next =
                if plan.parts > 1 { 0..0 } else { tiles.end..(tiles.end + tiles.len()).min(plan.tiles) };
            let mut next = Ahead::new::<true>(grid, next, x, k, times);
            let mine = if plan.parts > 1 { 0..0 } else { tiles.clone() };
            let mut mine = Ahead::new::<false>(grid, mine, y.0.cast_const(), m, P * P);
            for group in groups {
                let first = 2 * S::LANES * group;
                let width = (m - first).min(2 * S::LANES);
                let sums = Scratch { at: sums.as_mut_ptr(), tile: width, product: plan.most * width + BLOCK };
                for f in 0..P * P {
                    let tile = Tile {
                        a: windows.at.add(f * windows.product).cast_const(),
                        a_row: k,
                        a_col: 1,
                        depth: k,
                        panel: filters.add(P * P * k * first + f * k * width),
                        c: sums.at.add(f * sums.product),
                        c_row: width,
                        lanes: S::LANES,
                        accumulate: false,
                    };
                    tile.run::<S>(tiles.len(), width / S::LANES);
                    next.fetch::<false>();
                    mine.fetch::<true>();
                }
                S::enter(Scatter::<S, SIDE, P> {
                    grid,
                    from: sums,
                    channels: width,
                    tiles: tiles.clone(),
                    to: y.0.add(first),
                    pixel: m,
                    accumulate,
                });
            }
        }
    }
}
