//! Weight gradient.

use std::ops::Range;

use super::filter::Unpack;
use super::tiles::{Ahead, Gather, Grid, Scratch};
use super::{MAX_TILES, MIN_LANES, SCRATCH_BYTES, SIDE, TILES_BYTES};
use crate::backend::cpu::conv::tile::nearly_equal;
use crate::backend::cpu::conv::{BLOCK, ConvShape, add_up, aligned, with_alignment};
use crate::backend::cpu::isa::{Isa, Kernel, Simd};
use crate::backend::cpu::par;
use crate::backend::cpu::product::Tile;
use crate::backend::cpu::real::Real;
use crate::tape::Role;

/// Most channels in and out of a task: their sums stay in the second-level cache.
const MAX_CHANNELS: usize = 80;
/// Tasks wanted: enough for many threads, few enough that summing their results stays cheap.
const TASKS: usize = 16;
/// Fewest tiles of a task: its sums are transformed back once.
const MIN_TILES: usize = 48;

/// How the sum is cut into tasks. A function of shapes only.
///
/// A task is one of `parts` fixed ranges of tiles × a block of input channels × one of output
/// channels. Its result is a piece `[taps²][most of the block's rows][most of its columns]` of the
/// workspace; pieces are then added up in order.
pub(in crate::backend::cpu::conv) struct Plan {
    grid: Grid,
    tiles: usize,
    ci: usize,
    co: usize,
    /// Most channels in and out of a block.
    rows: usize,
    cols: usize,
    parts: usize,
    /// Most tiles that are transformed at a time.
    most: usize,
    lanes: usize,
}

impl Plan {
    pub fn new(s: &ConvShape) -> Plan {
        let grid = Grid::forward(s, Role::B);
        let tiles = s.n * grid.tiles();
        let most = |c: usize| c.div_ceil(c.div_ceil(MAX_CHANNELS)).next_multiple_of(BLOCK);
        let (rows, cols) = (most(s.ci), most(s.co));
        let blocks = s.ci.div_ceil(rows) * s.co.div_ceil(cols);
        let parts = TASKS.div_ceil(blocks).min(tiles / MIN_TILES).max(1);
        let each = grid.products() * (rows + cols) * size_of::<f32>();
        let most = (TILES_BYTES / each).clamp(16, MAX_TILES).min(tiles.div_ceil(parts));
        let (ci, co) = (s.ci, s.co);
        let mut plan = Plan { grid, tiles, ci, co, rows, cols, parts, most, lanes: 1 };
        let lanes = (SCRATCH_BYTES / (plan.per_lane() * size_of::<f32>())).max(MIN_LANES);
        plan.lanes = lanes.min(plan.tasks());
        plan
    }

    /// Floating-point operations of the products.
    pub fn flops(&self) -> u64 {
        2 * (self.grid.products() * self.tiles * self.ci * self.co) as u64
    }
    /// Blocks of channels in and out.
    fn blocks(&self) -> (usize, usize) {
        (self.ci.div_ceil(self.rows), self.co.div_ceil(self.cols))
    }
    fn tasks(&self) -> usize {
        self.parts * self.blocks().0 * self.blocks().1
    }
    /// Numbers of transformed tiles, of x and of dy: each product has some more, as in
    /// [`super::correlate`].
    fn windows(&self) -> usize {
        self.grid.products() * (self.most * self.rows + BLOCK)
    }
    fn outputs(&self) -> usize {
        self.grid.products() * (self.most + 1) * self.cols
    }
    fn per_lane(&self) -> usize {
        self.windows() + self.outputs() + self.grid.products() * self.rows * self.cols
    }
    fn piece(&self) -> usize {
        self.grid.taps() * self.grid.taps() * self.rows * self.cols
    }
    pub fn workspace_len(&self) -> usize {
        with_alignment(self.lanes * self.per_lane() + self.tasks() * self.piece())
    }

    pub fn run(
        &self,
        isa: Isa,
        x: &[f32],
        dy: &[f32],
        dw: &mut [f32],
        accumulate: bool,
        workspace: &mut [f32],
    ) {
        assert!(workspace.len() >= self.workspace_len(), "convolution: workspace too small");
        let (scratch, pieces) = aligned(workspace).split_at_mut(self.lanes * self.per_lane());
        let pieces = &mut pieces[..self.tasks() * self.piece()];
        match (isa, self.grid.taps()) {
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, 3) => self.run_on::<<f32 as Real>::Avx512, 3, 6>(isa, x, dy, pieces, scratch),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, _) => self.run_on::<<f32 as Real>::Avx512, 5, 8>(isa, x, dy, pieces, scratch),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, 3) => self.run_on::<<f32 as Real>::Avx2, 3, 6>(isa, x, dy, pieces, scratch),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, _) => self.run_on::<<f32 as Real>::Avx2, 5, 8>(isa, x, dy, pieces, scratch),
            (Isa::Portable, 3) => self.run_on::<<f32 as Real>::Portable, 3, 6>(isa, x, dy, pieces, scratch),
            (Isa::Portable, _) => self.run_on::<<f32 as Real>::Portable, 5, 8>(isa, x, dy, pieces, scratch),
        }
        self.add_up(pieces, dw, accumulate);
    }

    fn run_on<S: Simd<Elem = f32>, const TAPS: usize, const P: usize>(
        &self,
        isa: Isa,
        x: &[f32],
        dy: &[f32],
        pieces: &mut [f32],
        scratch: &mut [f32],
    ) {
        par::for_each_part_with(
            pieces,
            scratch,
            self.per_lane(),
            self.lanes,
            self.tasks(),
            &|i| i * self.piece(),
            &|i, out, scratch| {
                let (part, block) = (i % self.parts, i / self.parts);
                let (row, col) = (block / self.blocks().1 * self.rows, block % self.blocks().1 * self.cols);
                isa.run(Task::<S, TAPS, P> {
                    plan: self,
                    tiles: self.tiles * part / self.parts..self.tiles * (part + 1) / self.parts,
                    rows: row..(row + self.rows).min(self.ci),
                    cols: col..(col + self.cols).min(self.co),
                    x: x.as_ptr(),
                    dy: dy.as_ptr(),
                    out,
                    scratch,
                });
            },
        );
    }

    /// dw (+)= Σ over parts, in order.
    fn add_up(&self, pieces: &[f32], dw: &mut [f32], accumulate: bool) {
        let rows = (4096 / self.co).max(1);
        par::for_each_chunk(dw, rows * self.co, &|chunk, dw| {
            for (i, dw) in dw.chunks_exact_mut(self.co).enumerate() {
                let (tap, channel) = ((chunk * rows + i) / self.ci, (chunk * rows + i) % self.ci);
                let (block, row) = (channel / self.rows * self.blocks().1, channel % self.rows);
                for (j, dw) in dw.chunks_mut(self.cols).enumerate() {
                    let at = (block + j) * self.parts * self.piece() + (tap * self.rows + row) * self.cols;
                    let piece = |part| &pieces[at + part * self.piece()..];
                    add_up(dw, (0..self.parts).map(piece), accumulate);
                }
            }
        });
    }
}

/// One task of a plan: `out` is its piece.
struct Task<'a, S: Simd, const TAPS: usize, const P: usize> {
    plan: &'a Plan,
    tiles: Range<usize>,
    rows: Range<usize>,
    cols: Range<usize>,
    x: *const S::Elem,
    dy: *const S::Elem,
    out: &'a mut [S::Elem],
    scratch: &'a mut [S::Elem],
}

impl<S: Simd, const TAPS: usize, const P: usize> Kernel for Task<'_, S, TAPS, P> {
    #[inline(always)]
    fn run(self) {
        let Task { plan, tiles, rows, cols, x, dy, out, scratch } = self;
        let grid = &plan.grid;
        let (windows, scratch) = scratch.split_at_mut(plan.windows());
        let (outputs, sums) = scratch.split_at_mut(plan.outputs());
        let acc = sums.as_mut_ptr();
        let windows =
            Scratch { at: windows.as_mut_ptr(), tile: rows.len(), product: plan.most * rows.len() + BLOCK };
        // Groups of two vectors of output channels, the last one perhaps of one.
        let groups = (0..cols.len()).step_by(2 * S::LANES);
        // SAFETY: `isa.run` entered the instruction set; tiles and channels are those of x and dy;
        // scratch and `out` have room for blocks of `plan.rows` and `plan.cols`.
        unsafe {
            for (at, len) in nearly_equal(tiles.len(), plan.most) {
                let block = tiles.start + at..tiles.start + at + len;
                S::enter(Gather::<S, P, P> {
                    grid,
                    from: x.add(rows.start),
                    pixel: plan.ci,
                    channels: rows.len(),
                    tiles: block.clone(),
                    to: windows,
                });
                // What comes next, unless it is only some of the channels.
                let whole = rows.len() == plan.ci && cols.len() == plan.co;
                let next = block.end..if whole { (block.end + len).min(plan.tiles) } else { block.end };
                let times = P * P * groups.len();
                let mut next_x = Ahead::new::<true>(grid, next.clone(), x, plan.ci, times);
                let mut next_dy = Ahead::new::<false>(grid, next, dy, plan.co, times);
                for first in groups.clone() {
                    let width = (cols.len() - first).min(2 * S::LANES);
                    let outputs = Scratch {
                        at: outputs.as_mut_ptr().add(P * P * (plan.most + 1) * first),
                        tile: width,
                        product: plan.most * width + S::LANES,
                    };
                    S::enter(Gather::<S, SIDE, P> {
                        grid,
                        from: dy.add(cols.start + first),
                        pixel: plan.co,
                        channels: width,
                        tiles: block.clone(),
                        to: outputs,
                    });
                    for f in 0..P * P {
                        let sums = P * P * rows.len() * first + f * rows.len() * width;
                        let tile = Tile {
                            a: windows.at.add(f * windows.product).cast_const(),
                            a_row: 1,
                            a_col: rows.len(),
                            depth: len,
                            panel: outputs.at.add(f * outputs.product).cast_const(),
                            c: acc.add(sums),
                            c_row: width,
                            lanes: S::LANES,
                            accumulate: at > 0,
                        };
                        tile.run::<S>(rows.len(), width / S::LANES);
                        next_x.fetch::<false>();
                        next_dy.fetch::<false>();
                    }
                }
            }
            for first in groups {
                let width = (cols.len() - first).min(2 * S::LANES);
                S::enter(Unpack::<S, TAPS, P> {
                    from: acc.add(P * P * rows.len() * first).cast_const(),
                    product: rows.len() * width,
                    rows: rows.len(),
                    width,
                    to: out.as_mut_ptr().add(first),
                    to_row: plan.cols,
                    to_tap: plan.rows * plan.cols,
                });
            }
        }
    }
}
