//! Weight gradient: for every tap and block of input channels, a sum of outer products over all
//! pixels.

use super::padded::Padded;
use super::tile::{OuterTile, Pixels, nearly_equal, rows};
use super::{BLOCK, ConvShape, add_up, aligned, with_alignment};
use crate::backend::cpu::isa::{Isa, Kernel, Simd};
use crate::backend::cpu::par;
use crate::backend::cpu::real::Real;

/// Bytes of x and dy that all taps read in turn: inside the first-level cache.
const PIXEL_BYTES: usize = 32 << 10;
/// Bytes of padded source that a task works on.
const TASK_BYTES: usize = 1 << 20;
/// Bytes of scratch over all lanes, unless one lane needs more.
const SCRATCH_BYTES: usize = 64 << 20;
/// Tasks wanted: enough for many threads, few enough that summing their results stays cheap.
const TASKS: usize = 32;

/// Most rows of a tile for the rest of a vector, which is rare, and of what is spread: fewer sizes
/// to compile.
const PARTIAL_ROWS: usize = 4;

/// How the sum is cut into tasks. A function of shapes only.
///
/// A task is one block of input channels × one of `parts` fixed ranges of *units*; a unit is an
/// image, or a band of rows of one that is very large. Its result is a piece `[taps][BLOCK][co]` of
/// the workspace; pieces are then added up in order. Where channels come in groups, blocks are
/// those of all of [`Padded::parts`], and co is one's; where they spread, a piece is
/// `[taps][1][BLOCK]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    shape: ConvShape,
    /// One unit of scratch, of which a task holds one block.
    padded: Padded,
    taps: usize,
    band: usize,
    bands: usize,
    /// Units that a task pads and works on together.
    group: usize,
    parts: usize,
    lanes: usize,
}

impl Plan {
    pub fn new(s: &ConvShape, number: usize) -> Plan {
        let mut padded = Padded::of_images(s);
        let (halo, cols) = (padded.rows, padded.cols);
        let oh = s.oh();
        let bytes = |band: usize| padded.planes() * (band + halo) * cols * BLOCK * number;
        let mut bands = 1;
        while bands < oh && bytes(oh.div_ceil(bands)) > TASK_BYTES {
            bands += 1;
        }
        let band = oh.div_ceil(bands);
        let bands = oh.div_ceil(band);
        // Small images: as many as the first-level cache holds, so that a tile's sums stay in
        // registers longer.
        let dy_bytes = band * s.ow() * 2 * BLOCK * number;
        let units = s.n * bands;
        let group = if bands > 1 { 1 } else { PIXEL_BYTES / (bytes(band) + dy_bytes) }.clamp(1, units);
        let scratch = group * bytes(band);
        padded.rows = band + halo;
        let blocks = padded.parts() * padded.blocks();
        let parts = TASKS.div_ceil(blocks).min(units.div_ceil(group));
        let lanes = (SCRATCH_BYTES / scratch).clamp(1, (parts * blocks).min(256));
        let taps = s.kh * s.kw / padded.fold;
        Plan { shape: *s, padded, taps, band, bands, group, parts, lanes }
    }

    /// Rows of a piece for each tap, and numbers in a row.
    fn rows(&self) -> (usize, usize) {
        if self.padded.spread() { (1, BLOCK) } else { (BLOCK, self.shape.co / self.shape.groups) }
    }
    /// Numbers in one task's result.
    fn piece(&self) -> usize {
        self.taps * self.rows().0 * self.rows().1
    }
    /// Of input channels.
    fn blocks(&self) -> usize {
        self.padded.parts() * self.padded.blocks()
    }
    fn tasks(&self) -> usize {
        self.parts * self.blocks()
    }
    fn per_lane(&self) -> usize {
        self.group * self.padded.block_len()
    }
    pub fn workspace_len(&self) -> usize {
        with_alignment(self.lanes * self.per_lane() + self.tasks() * self.piece())
    }

    pub fn run<T: Real>(
        &self,
        isa: Isa,
        x: &[T],
        dy: &[T],
        dw: &mut [T],
        accumulate: bool,
        workspace: &mut [T],
    ) {
        assert!(workspace.len() >= self.workspace_len(), "convolution {:?}: workspace too small", self.shape);
        let (scratch, pieces) = aligned(workspace).split_at_mut(self.lanes * self.per_lane());
        let pieces = &mut pieces[..self.tasks() * self.piece()];
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => self.run_on::<T::Avx512>(isa, x, dy, pieces, scratch),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => self.run_on::<T::Avx2>(isa, x, dy, pieces, scratch),
            Isa::Portable => self.run_on::<T::Portable>(isa, x, dy, pieces, scratch),
        }
        self.add_up(pieces, dw, accumulate);
    }

    fn run_on<S: Simd>(
        &self,
        isa: Isa,
        x: &[S::Elem],
        dy: &[S::Elem],
        pieces: &mut [S::Elem],
        scratch: &mut [S::Elem],
    ) {
        let start = |i| i * self.piece();
        par::for_each_part_with(
            pieces,
            scratch,
            self.per_lane(),
            self.lanes,
            self.tasks(),
            &start,
            &|i, out, scratch| {
                isa.run(Task::<S> { plan: self, task: i, x, dy, out, scratch });
            },
        );
    }

    /// # Safety
    /// As for [`OuterTile`] with every tap, every one of `channels` and all of dy's channels.
    #[inline(always)]
    unsafe fn all_taps<S: Simd>(
        &self,
        mut pixels: Pixels,
        channels: usize,
        x: *const S::Elem,
        dy: *const S::Elem,
        out: &mut [S::Elem],
    ) {
        let (s, p, (_, co)) = (&self.shape, &self.padded, self.rows());
        let kw = if p.fold > 1 { 1 } else { s.kw };
        let mut o = 0;
        while o < co {
            // Two whole vectors, or one, or the rest of one.
            let nv = if o + 2 * S::LANES <= co { 2 } else { 1 };
            pixels.lanes = (co - o).min(S::LANES);
            let most = if pixels.lanes == S::LANES { S::TILE_ROWS[nv - 1] } else { PARTIAL_ROWS };
            for t in 0..self.taps {
                let offset = p.tap_offset(t / kw, t % kw);
                for (i, len) in nearly_equal(channels, most) {
                    // SAFETY: within what the caller vouches for; `out` is `[taps][BLOCK][co]`.
                    unsafe {
                        let (x, dy) = (x.add(offset + i), dy.add(o));
                        let dw = out.as_mut_ptr().add((t * BLOCK + i) * co + o);
                        if nv == 2 {
                            rows!(len, S::TILE_ROWS[1], [1 2 3 4 5 6 7 8],
                                R => S::enter(OuterTile::<S, R, 2, true> { p: &pixels, x, dy, dw, dw_row: co }));
                        } else if pixels.lanes == S::LANES {
                            rows!(len, S::TILE_ROWS[0], [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16],
                                R => S::enter(OuterTile::<S, R, 1, true> { p: &pixels, x, dy, dw, dw_row: co }));
                        } else {
                            rows!(len, PARTIAL_ROWS, [1 2 3 4],
                                R => S::enter(OuterTile::<S, R, 1, false> { p: &pixels, x, dy, dw, dw_row: co }));
                        }
                    }
                }
            }
            o += nv * S::LANES;
        }
    }

    /// The same where channels spread, of block `cb` of all parts'.
    ///
    /// # Safety
    /// As for [`OuterTile`] with every tap, and the lanes of dy that are in the block.
    #[inline(always)]
    unsafe fn all_taps_spread<S: Simd>(
        &self,
        mut pixels: Pixels,
        cb: usize,
        x: *const S::Elem,
        dy: *const S::Elem,
        out: &mut [S::Elem],
    ) {
        let (s, p) = (&self.shape, &self.padded);
        let first = cb / p.blocks() * BLOCK;
        let channels = (s.co - first).min(BLOCK);
        // Rows of a tile are taps beside each other in the copy: every `stride`-th.
        let dw_row = s.stride * BLOCK;
        for (a, b0) in (0..s.kh).flat_map(|a| (0..s.stride.min(s.kw)).map(move |b0| (a, b0))) {
            for (i, len) in nearly_equal((s.kw - b0).div_ceil(s.stride), PARTIAL_ROWS) {
                let b = b0 + i * s.stride;
                for lane in (0..channels).step_by(S::LANES) {
                    pixels.lanes = (channels - lane).min(S::LANES);
                    // SAFETY: within what the caller vouches for; `out` is `[taps][BLOCK]`.
                    unsafe {
                        let (x, dy) = (x.add(p.tap_offset(a, b) + lane), dy.add(first + lane));
                        let dw = out.as_mut_ptr().add((a * s.kw + b) * BLOCK + lane);
                        if pixels.lanes == S::LANES {
                            rows!(len, PARTIAL_ROWS, [1 2 3 4],
                                R => S::enter(OuterTile::<S, R, 1, true, true> { p: &pixels, x, dy, dw, dw_row }));
                        } else {
                            rows!(len, PARTIAL_ROWS, [1 2 3 4],
                                R => S::enter(OuterTile::<S, R, 1, false, true> { p: &pixels, x, dy, dw, dw_row }));
                        }
                    }
                }
            }
        }
    }

    /// dw (+)= Σ over parts, in order.
    fn add_up<T: Real>(&self, pieces: &[T], dw: &mut [T], accumulate: bool) {
        let (k, co) = (self.padded.channels(), self.shape.co);
        let (each, row) = self.rows();
        let rows = (4096 / co).max(1);
        par::for_each_chunk(dw, rows * co, &|chunk, dw| {
            for (i, dw) in dw.chunks_exact_mut(co).enumerate() {
                let (tap, channel) = ((chunk * rows + i) / k, (chunk * rows + i) % k);
                for (j, dw) in dw.chunks_mut(row).enumerate() {
                    let block = j * self.padded.blocks() + channel / each;
                    let at = block * self.piece() + (tap * each + channel % each) * row;
                    let piece = |part| &pieces[part * self.blocks() * self.piece() + at..];
                    add_up(dw, (0..self.parts).map(piece), accumulate);
                }
            }
        });
    }
}

/// One task of a plan: `out` is its piece `[taps][BLOCK][co]`.
struct Task<'a, S: Simd> {
    plan: &'a Plan,
    task: usize,
    x: &'a [S::Elem],
    dy: &'a [S::Elem],
    out: &'a mut [S::Elem],
    scratch: &'a mut [S::Elem],
}

impl<S: Simd> Kernel for Task<'_, S> {
    #[inline(always)]
    fn run(self) {
        let Task { plan, task, x, dy, out, scratch } = self;
        let (s, p) = (&plan.shape, &plan.padded);
        let (part, cb) = (task / plan.blocks(), task % plan.blocks());
        out.fill(S::Elem::ZERO);
        let units = s.n * plan.bands;
        let (from, to) = (units * part / plan.parts, units * (part + 1) / plan.parts);
        let x_image = s.h * s.w * s.ci;
        let dy_row = s.ow() * s.co;
        // Rows of a unit that fit in the first-level cache with the rows of x they touch.
        let row_bytes = (p.planes() * p.cols + 2 * s.ow()) * BLOCK * size_of::<S::Elem>();
        let most_rows = (PIXEL_BYTES / row_bytes).saturating_sub((s.kh - 1) / s.stride).max(4);
        for first in (from..to).step_by(plan.group) {
            let units = plan.group.min(to - first);
            for (unit, scratch) in scratch.chunks_exact_mut(p.block_len()).enumerate().take(units) {
                let (image, band) = ((first + unit) / plan.bands, (first + unit) % plan.bands);
                p.fill(&x[image * x_image..][..x_image], band * plan.band, cb, scratch);
            }
            let row0 = first % plan.bands * plan.band;
            let rows = plan.band.min(s.oh() - row0);
            let dy = &dy[(first / plan.bands * s.oh() + row0) * dy_row..][..units * rows * dy_row];
            for (row, rows) in nearly_equal(rows, most_rows) {
                let pixels = Pixels {
                    units,
                    x_unit: p.block_len(),
                    dy_unit: s.oh() * dy_row,
                    rows,
                    x_row: p.cols * BLOCK,
                    dy_row,
                    cols: s.ow(),
                    dy_pixel: s.co,
                    lanes: S::LANES,
                };
                // SAFETY: `isa.run` entered the instruction set; rows row..row + rows of all units
                // are in the scratch and in dy; out is the task's own piece.
                unsafe {
                    let x = scratch.as_ptr().add(row * p.cols * BLOCK);
                    let dy = dy.as_ptr().add(row * dy_row);
                    if p.spread() {
                        plan.all_taps_spread::<S>(pixels, cb, x, dy, out);
                    } else {
                        let dy = dy.add(cb / p.blocks() * plan.rows().1);
                        plan.all_taps::<S>(pixels, p.block_channels(cb), x, dy, out);
                    }
                }
            }
        }
    }
}
