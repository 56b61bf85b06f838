//! Forward pass and data gradient: one correlation of a padded source with packed weights.

use super::pack::Panels;
use super::padded::Padded;
use super::tile::{Correlate, CorrelateTile, Tap, nearly_equal, rows};
use super::{BLOCK, ConvShape, Output, aligned, with_alignment};
use crate::backend::cpu::isa::{Isa, Kernel, Simd};
use crate::backend::cpu::par;
use crate::backend::cpu::real::Real;

/// Bytes of padded source that a task works on: well inside a core's second-level cache.
const TASK_BYTES: usize = 512 << 10;
/// Bytes of a panel that one pass over the pixels reads again and again: inside the first-level
/// cache.
const PANEL_BYTES: usize = 24 << 10;
/// Bytes of scratch over all lanes, unless one lane needs more.
const SCRATCH_BYTES: usize = 64 << 20;
/// Most taps of one pass.
const MAX_TAPS: usize = 32;
/// With fewer images than this, images are cut into bands of rows so that there is work for several
/// threads.
const MIN_TASKS: usize = 16;

/// How a correlation is cut into tasks. A function of shapes only.
///
/// The output grid is dealt out to `phases` × `phases` phases by the parity of row and column (1:
/// forward; the stride: data gradient, where every phase sees its own taps, so that no product with
/// an inserted zero is done). A *band* is `band` rows of every phase; a task is one band of one
/// image, or `group` whole images.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    shape: ConvShape,
    transposed: bool,
    /// One unit of scratch.
    padded: Padded,
    phases: usize,
    /// Output height and width.
    h: usize,
    w: usize,
    /// Taps, channels in and channels out of the weights as a correlation sees them.
    taps: usize,
    k: usize,
    m: usize,
    band: usize,
    bands: usize,
    group: usize,
    lanes: usize,
}

impl Plan {
    pub fn forward(s: &ConvShape, number: usize) -> Plan {
        let padded = Padded::of_images(s);
        let (taps, k) = (s.kh * s.kw / padded.fold, padded.channels());
        Plan::cut(s, false, padded, 1, (s.oh(), s.ow()), (taps, k, s.co), number)
    }

    pub fn data_gradient(s: &ConvShape, number: usize) -> Plan {
        // dx row h takes dy rows p = (h + pad − a) / s: from −before up to (h_last + pad) / s.
        let before = |k: usize| (k - 1).saturating_sub(s.pad) / s.stride;
        // Rows beyond the band's own: `before`, and as many after as the last phase's first tap
        // reaches.
        let after = s.pad.div_ceil(s.stride);
        let phase_cols = s.w.div_ceil(s.stride);
        let padded = Padded {
            h: s.oh(),
            w: s.ow(),
            c: s.co,
            step: 1,
            top: before(s.kh),
            left: before(s.kw),
            rows: before(s.kh) + after,
            cols: before(s.kw) + phase_cols + after,
            fold: 1,
            groups: s.groups,
            outs: s.ci,
        };
        let sums = (s.kh * s.kw, padded.channels(), s.ci);
        Plan::cut(s, true, padded, s.stride, (s.h, s.w), sums, number)
    }

    /// `padded.rows` comes in as the rows that a band needs beyond its own.
    fn cut(
        s: &ConvShape,
        transposed: bool,
        mut padded: Padded,
        phases: usize,
        (h, w): (usize, usize),
        (taps, k, m): (usize, usize, usize),
        number: usize,
    ) -> Plan {
        let halo = padded.rows;
        let rows = h.div_ceil(phases);
        let bytes_per_row = padded.blocks() * padded.planes() * padded.cols * BLOCK * number;
        let bytes = |band: usize| bytes_per_row * (band + halo);
        let mut bands = MIN_TASKS.div_ceil(s.n).min(rows.div_ceil(4));
        while bands < rows && bytes(rows.div_ceil(bands)) > TASK_BYTES {
            bands += 1;
        }
        let band = rows.div_ceil(bands);
        let bands = rows.div_ceil(band);
        let group =
            if bands > 1 { 1 } else { (TASK_BYTES / bytes(band)).min(s.n / (2 * MIN_TASKS)).clamp(1, 8) };
        padded.rows = band + halo;
        let tasks = if bands > 1 { s.n * bands } else { s.n.div_ceil(group) };
        let lanes = (SCRATCH_BYTES / (group * bytes(band))).clamp(1, tasks.min(256));
        Plan { shape: *s, transposed, padded, phases, h, w, taps, k, m, band, bands, group, lanes }
    }

    fn per_lane(&self) -> usize {
        self.group * self.padded.blocks() * self.padded.block_len()
    }

    fn panels(&self, lanes: usize) -> Panels {
        Panels { taps: self.taps, k: self.k, m: self.m, lanes, apart: self.shape.groups }
    }

    pub fn workspace_len(&self) -> usize {
        // Vectors have at most BLOCK lanes, and a power of two: this many hold the panels of any
        // instruction set.
        let panels = self.panels(BLOCK).len();
        with_alignment(panels + self.lanes * self.per_lane())
    }

    /// Where task `i`'s part of the output starts.
    fn start(&self, i: usize) -> usize {
        let image = self.h * self.w * self.m;
        if self.bands > 1 {
            let row = (i % self.bands * self.band * self.phases).min(self.h);
            i / self.bands * image + row * self.w * self.m
        } else {
            (i * self.group).min(self.shape.n) * image
        }
    }

    /// Pieces of the output, one a task.
    pub fn pieces(&self) -> usize {
        if self.bands > 1 { self.shape.n * self.bands } else { self.shape.n.div_ceil(self.group) }
    }

    pub fn run<T: Real>(&self, isa: Isa, x: &[T], w: &[T], y: Output<T>, workspace: &mut [T]) {
        assert!(workspace.len() >= self.workspace_len(), "convolution {:?}: workspace too small", self.shape);
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => self.run_on::<T::Avx512>(isa, x, w, y, workspace),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => self.run_on::<T::Avx2>(isa, x, w, y, workspace),
            Isa::Portable => self.run_on::<T::Portable>(isa, x, w, y, workspace),
        }
    }

    fn run_on<S: Simd>(
        &self,
        isa: Isa,
        x: &[S::Elem],
        w: &[S::Elem],
        y: Output<S::Elem>,
        workspace: &mut [S::Elem],
    ) {
        let Output { to, accumulate, tail } = y;
        let panels = self.panels(S::LANES);
        let (packed, scratch) = aligned(workspace).split_at_mut(self.panels(BLOCK).len());
        let packed = &mut packed[..panels.len()];
        panels.pack(w, self.transposed, packed);
        let packed = &*packed;
        par::for_each_part_with(
            to,
            scratch,
            self.per_lane(),
            self.lanes,
            self.pieces(),
            &|i| self.start(i),
            &|i, y, scratch| {
                isa.run(Task::<S> { plan: self, panels: &panels, i, x, packed, y, accumulate, scratch });
                if let Some(tail) = tail {
                    tail(i, self.start(i)..self.start(i + 1));
                }
            },
        );
    }

    /// Tap `i` of phase (f, g), of `phase_taps(f, g)`: where it finds the phase's pixel 0 in a
    /// block, and its number in HWIO order.
    #[inline(always)]
    fn tap(&self, f: usize, g: usize, i: usize) -> (usize, usize) {
        let (s, p) = (&self.shape, &self.padded);
        if !self.transposed {
            let kw = if p.fold > 1 { 1 } else { s.kw };
            return (p.tap_offset(i / kw, i % kw), i);
        }
        let across = self.taps_along(g, s.kw);
        let a = (f + s.pad) % s.stride + i / across * s.stride;
        let b = (g + s.pad) % s.stride + i % across * s.stride;
        // p = (s·u + f + pad − a) / s, counted from `top` rows above the image; the division is
        // exact.
        let row = (f + s.pad + p.top * s.stride - a) / s.stride;
        let col = (g + s.pad + p.left * s.stride - b) / s.stride;
        ((row * p.cols + col) * BLOCK, a * s.kw + b)
    }

    #[inline(always)]
    fn phase_taps(&self, f: usize, g: usize) -> usize {
        if !self.transposed {
            return self.taps;
        }
        self.taps_along(f, self.shape.kh) * self.taps_along(g, self.shape.kw)
    }

    /// Taps a < k with a ≡ phase + pad (mod stride).
    #[inline(always)]
    fn taps_along(&self, phase: usize, k: usize) -> usize {
        let s = &self.shape;
        k.saturating_sub((phase + s.pad) % s.stride).div_ceil(s.stride)
    }
}

/// One task of a plan: `y` is its part of the output.
struct Task<'a, S: Simd> {
    plan: &'a Plan,
    panels: &'a Panels,
    i: usize,
    x: &'a [S::Elem],
    packed: &'a [S::Elem],
    y: &'a mut [S::Elem],
    accumulate: bool,
    scratch: &'a mut [S::Elem],
}

impl<S: Simd> Kernel for Task<'_, S> {
    #[inline(always)]
    fn run(self) {
        let Task { plan, panels, i, x, packed, y, accumulate, scratch } = self;
        let p = &plan.padded;
        let (image, band) =
            if plan.bands > 1 { (i / plan.bands, i % plan.bands) } else { (i * plan.group, 0) };
        let units = if plan.bands > 1 { 1 } else { plan.group.min(plan.shape.n - image) };
        let x_image = p.h * p.w * p.c;
        let unit_len = p.blocks() * p.block_len();
        let y_unit = y.len() / units;
        let spread = p.spread();
        let in_part = if spread { BLOCK / S::LANES } else { panels.groups() / p.parts() };
        for part in 0..p.parts() {
            for (unit, scratch) in scratch.chunks_exact_mut(unit_len).enumerate().take(units) {
                let source = &x[(image + unit) * x_image..][..x_image];
                for (cb, out) in scratch.chunks_exact_mut(p.block_len()).enumerate() {
                    p.fill(source, band * plan.band, part * p.blocks() + cb, out);
                }
            }
            for phase in 0..plan.phases * plan.phases {
                let (f, g) = (phase / plan.phases, phase % plan.phases);
                // Rows and columns of this phase, within the part.
                let rows = (y_unit / (plan.w * plan.m)).saturating_sub(f).div_ceil(plan.phases);
                let cols = plan.w.saturating_sub(g).div_ceil(plan.phases);
                if rows == 0 || cols == 0 {
                    continue;
                }
                for group in part * in_part..((part + 1) * in_part).min(panels.groups()) {
                    let nv = panels.group_vectors(group);
                    let most_taps = (PANEL_BYTES
                        / (nv * S::LANES * size_of::<S::Elem>() * panels.block_channels(0)))
                    .clamp(1, MAX_TAPS);
                    let (m0, columns) = panels.columns(group);
                    let y_at = (f * plan.w + g) * plan.m + m0;
                    let mut pass = Pass {
                        spread,
                        channels: 0,
                        panel: packed.as_ptr(),
                        y_pixel: plan.phases * plan.m,
                        lanes: columns - (nv - 1) * S::LANES,
                        accumulate,
                        units,
                        x_unit: unit_len,
                        y_unit,
                        rows,
                        x_row: p.cols * BLOCK,
                        y_row: plan.phases * plan.w * plan.m,
                        cols,
                    };
                    let lane = if spread { m0 % BLOCK } else { 0 };
                    let (source, y) = (scratch[lane..].as_ptr(), y[y_at..].as_mut_ptr());
                    let count = plan.phase_taps(f, g);
                    if count == 0 {
                        // SAFETY: as below. No tap reaches this phase: its sums are empty.
                        unsafe { pass.run::<S>(nv, &[], source, y) };
                        continue;
                    }
                    // Taps of all blocks in a row, as many at a time as the budget allows; a pass
                    // has blocks of one size.
                    let (mut taps, mut n) = ([Tap::default(); MAX_TAPS], 0);
                    for cb in 0..p.blocks() {
                        pass.channels = panels.block_channels(cb);
                        let row = pass.channels * nv * S::LANES;
                        let next_like_it =
                            cb + 1 < p.blocks() && panels.block_channels(cb + 1) == pass.channels;
                        for i in 0..count {
                            let (x, t) = plan.tap(f, g, i);
                            taps[n] = Tap { x: cb * p.block_len() + x, w: panels.start(group, cb) + t * row };
                            n += 1;
                            if n < most_taps && (i + 1 < count || next_like_it) {
                                continue;
                            }
                            // SAFETY: `isa.run` entered the instruction set; the scratch holds
                            // `units` units, good for every tap, row and column of the phase by
                            // `Plan`'s choice of rows and cols; y is the part's own.
                            unsafe { pass.run::<S>(nv, &taps[..n], source, y) };
                            pass.accumulate = true;
                            n = 0;
                        }
                    }
                }
            }
        }
    }
}

/// One pass over all pixels of a phase, for one group of output channels.
#[derive(Clone, Copy)]
struct Pass<T> {
    /// Whether every lane multiplies a number of its own.
    spread: bool,
    /// Channels of the taps' blocks.
    channels: usize,
    panel: *const T,
    y_pixel: usize,
    /// Lanes of the last vector that are channels of the output.
    lanes: usize,
    accumulate: bool,
    units: usize,
    x_unit: usize,
    y_unit: usize,
    rows: usize,
    x_row: usize,
    y_row: usize,
    cols: usize,
}

/// Most pixels of a tile. Fewer of what is spread, which memory bounds: fewer sizes to compile.
const fn most_rows<S: Simd>(vectors: usize, spread: bool) -> usize {
    S::TILE_ROWS[if spread { 1 } else { vectors - 1 }]
}

impl<T: Real> Pass<T> {
    /// # Safety
    /// As for [`CorrelateTile`], for every unit, row and column.
    #[inline(always)]
    unsafe fn run<S: Simd<Elem = T>>(&self, vectors: usize, taps: &[Tap], x: *const T, y: *mut T) {
        // SAFETY: the caller's.
        unsafe {
            if self.spread {
                self.run_wide::<S, 1, true>(taps, x, y);
            } else if vectors == 2 {
                self.run_wide::<S, 2, false>(taps, x, y);
            } else {
                self.run_wide::<S, 1, false>(taps, x, y);
            }
        }
    }

    /// # Safety
    /// As for [`Self::run`].
    unsafe fn run_wide<S: Simd<Elem = T>, const NV: usize, const SPREAD: bool>(
        &self,
        taps: &[Tap],
        x: *const T,
        y: *mut T,
    ) {
        let t = Correlate {
            taps,
            channels: self.channels,
            panel: self.panel,
            y_pixel: self.y_pixel,
            lanes: self.lanes,
            accumulate: self.accumulate,
        };
        for unit in 0..self.units {
            for row in 0..self.rows {
                for (col, len) in nearly_equal(self.cols, most_rows::<S>(NV, SPREAD)) {
                    // SAFETY: within what the caller vouches for.
                    unsafe {
                        let x = x.add(unit * self.x_unit + row * self.x_row + col * BLOCK);
                        let y = y.add(unit * self.y_unit + row * self.y_row + col * self.y_pixel);
                        rows!(len, most_rows::<S>(NV, SPREAD), [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16],
                            R => S::enter(CorrelateTile::<S, R, NV, SPREAD> { t: &t, x, y }));
                    }
                }
            }
        }
    }
}
