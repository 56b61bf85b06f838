//! Convolutions whose pixels a block keeps in shared memory (`kernels/conv_small.cuh`): which they
//! are, and how their images are cut into bands.

use std::sync::OnceLock;

use bytemuck::{Pod, Zeroable};

use super::super::parts::Parts;
use super::super::walk::PROCESSORS;
use super::int;
use crate::backend::cuda::Precision;
use crate::backend::cuda::builder::Builder;
use crate::backend::cuda::divide::FastDiv;
use crate::backend::cuda::driver::{Address, Source};
use crate::backend::cuda::sources::{CONV_BF16, CONV_F32, CONV_TF32};
use crate::error::Result;
use crate::program::ConvShape;
use crate::tape::Role;

/// Twins of the constants in `conv_small.cuh`.
const THREADS: usize = 256;
const WARPS: usize = 8;
const ROWS: usize = 4;
const STRIP: usize = 16;
const TAPS: usize = 9;

/// Shared memory that a block may have on every card that is supported (an A100 has least).
const MOST_SHARED: usize = 160 << 10;

/// Twin of `SmallParams`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    source: Address,
    other: Address,
    second: [Address; 2],
    out: Address,
    partial: Address,
    parts: Parts,
    n: i32,
    source_h: i32,
    source_w: i32,
    height: i32,
    width: i32,
    channels: i32,
    columns: i32,
    images: i32,
    row_shift: i32,
    strip_shift: i32,
    lane_shift: i32,
    out_half: i32,
    accumulate: i32,
    bands: i32,
    bands_per_part: i32,
    ahead: i32,
    unused: i32,
    by_band: FastDiv,
    by_image: FastDiv,
    by_slot: FastDiv,
}

/// Twin of `SmallPair`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct PairParams {
    weights: Params,
    data: Params,
    blocks: i32,
    tiles: i32,
    bands: i32,
    unused: i32,
}

/// What a block takes at once: the same rows of some images.
struct Bands {
    images: usize,
    rows: usize,
    strips: usize,
    /// Of an image, and of all.
    of_image: usize,
    all: usize,
}

impl Bands {
    /// For a block with so many warps beside each other, each of so many rows; `None` if images are
    /// too wide for it.
    fn new(s: &ConvShape, groups: usize, rows: usize) -> Option<Bands> {
        let high = s.oh().div_ceil(rows).next_power_of_two().min(groups);
        let strips = s.ow().div_ceil(STRIP).next_power_of_two().max(groups / high);
        if strips > groups {
            return None;
        }
        let rows = rows * (groups / strips);
        let images = (STRIP * strips / s.ow()).min(s.n);
        let of_image = s.oh().div_ceil(rows);
        Some(Bands { images, rows, strips, of_image, all: of_image * s.n.div_ceil(images) })
    }

    /// The source's lines that the rows of an image read.
    fn lines(&self, s: &ConvShape) -> usize {
        s.stride * (self.rows - 1) + 3
    }

    /// Pixels of the source in shared memory, with their border.
    fn bordered(&self, s: &ConvShape) -> usize {
        self.images * self.lines(s) * (s.w + 2)
    }
}

/// How one convolution is computed.
pub(super) struct Small {
    source: &'static Source,
    name: String,
    bands: Bands,
    bands_per_part: usize,
    /// Whether a block has room for the next band's pixels beside those of the present one.
    ahead: bool,
    /// Copies of 16 bytes for a pixel.
    chunks: usize,
    /// Of a weight gradient's sum over bands.
    pub parts: usize,
    grid: [usize; 3],
    shared: usize,
}

/// What goes in and out.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    pub source: Address,
    pub other: Address,
    /// The second pair, if there is one.
    pub second: [Address; 2],
    pub out: Address,
    /// Where the parts of a weight gradient go.
    pub partial: Address,
    pub out_half: bool,
    pub accumulate: bool,
}

/// The logarithm of a power of two.
fn shift(power: usize) -> i32 {
    power.trailing_zeros() as i32
}

/// What the names of a stride's kernels have.
fn suffix(s: &ConvShape) -> &'static str {
    if s.stride == 2 { "_2" } else { "" }
}

/// A precision's kernels, and bytes of an entry of an image.
fn file(precision: Precision) -> (&'static Source, usize) {
    match precision {
        Precision::F32 => (&CONV_F32, 4),
        Precision::Tf32 => (&CONV_TF32, 4),
        Precision::Bf16 => (&CONV_BF16, 2),
    }
}

/// Whether METATAPE_NO_SMALL asks for the kernels of any shape, to compare them with these.
fn switched_off() -> bool {
    static OFF: OnceLock<bool> = OnceLock::new();
    *OFF.get_or_init(|| std::env::var_os("METATAPE_NO_SMALL").is_some())
}

impl Small {
    /// The kernel for a convolution whose tensors are aligned, if there is one.
    pub fn of(precision: Precision, role: Role, s: &ConvShape) -> Option<Small> {
        let fits = match (role, s.stride) {
            (_, 1) | (Role::B, 2) => true,
            (Role::C, 2) => s.ci <= 32 && s.co >= 32,
            _ => false,
        };
        let few = |channels| [16, 32, 64].contains(&channels);
        if [s.kh, s.kw, s.pad] != [3, 3, 1]
            || !(fits && few(s.ci) && few(s.co) && s.groups == 1)
            || [s.n, s.oh(), s.ow()].contains(&0)
            || switched_off()
        {
            return None;
        }
        let small = match role {
            Role::C => Small::correlation(precision, role, s, [s.ci, s.co]),
            Role::A => Small::correlation(precision, role, s, [s.co, s.ci]),
            Role::B => Small::weights(precision, s),
        };
        small.filter(|small| small.shared <= MOST_SHARED)
    }

    /// Twin of `small::Correlation`.
    fn correlation(
        precision: Precision,
        role: Role,
        s: &ConvShape,
        [channels, columns]: [usize; 2],
    ) -> Option<Small> {
        let (source, entry) = file(precision);
        let (half, transposed) = (entry == 2, role == Role::A);
        let name = if transposed { "data_gradient" } else { "forward" };
        // Columns and rows of a warp.
        let (narrow, rows) = if precision == Precision::F32 { (8, 2 * ROWS) } else { (16, ROWS) };
        let block = columns.min(32);
        let groups = WARPS / (block / narrow) / if channels * s.stride >= 64 { 2 } else { 1 };
        let bands = Bands::new(s, groups, rows)?;
        let (line, lines) = if transposed { (channels, block) } else { (block, channels) };
        let weights = TAPS * lines * (line + if half || !transposed { 8 } else { 4 }) * entry;
        let staging = if half { WARPS * ROWS * STRIP * 48 } else { 0 };
        // The sums of half the channels take the place of the pixels.
        let pixels = (bands.bordered(s) * (channels * entry + 16)).max(THREADS * ROWS * 16);
        Some(Small {
            source,
            name: format!("{name}{}_small_{channels}x{block}", suffix(s)),
            grid: [bands.all, columns / block, 1],
            shared: weights + staging + pixels,
            bands,
            bands_per_part: 0,
            ahead: false,
            chunks: channels * entry / 16,
            parts: 1,
        })
    }

    /// Twin of `small::MatrixWeights` and `small::OrdinaryWeights`.
    fn weights(precision: Precision, s: &ConvShape) -> Option<Small> {
        let (source, entry) = file(precision);
        let (groups, pixel) = if entry == 2 { (WARPS, 48) } else { (WARPS / 2, 96) };
        let bands = Bands::new(s, groups, ROWS)?;
        let tiles = s.ci / 16 * (s.co / 16);
        // A block for each processor. Fewer parts would leave processors without work, more would
        // be more to add in the end.
        let bands_per_part = (bands.all * tiles).div_ceil(PROCESSORS);
        let parts = bands.all.div_ceil(bands_per_part);
        let stage = (bands.bordered(s) + bands.rows * STRIP * bands.strips) * pixel;
        let ahead = bands_per_part > 1 && 2 * stage <= MOST_SHARED;
        // In the end the sums of all warps lie there.
        let shared = (if ahead { 2 } else { 1 } * stage).max(WARPS * TAPS * 2 * 32 * 16);
        Some(Small {
            source,
            name: format!("weight_gradient{}_small", suffix(s)),
            grid: [1, tiles, parts],
            shared,
            bands,
            bands_per_part,
            ahead,
            chunks: entry,
            parts,
        })
    }

    /// Appends the launch.
    pub fn build(&self, b: &mut Builder, role: Role, s: &ConvShape, operands: Operands) -> Result<()> {
        let (params, grid) = (self.params(b, role, s, operands)?, self.grid.map(|g| g as u32));
        let name = match operands.second {
            [0, 0] => self.name.clone(),
            _ => self.name.replacen("forward", "forward_sum", 1),
        };
        b.launch(self.source, &name, grid, THREADS as u32, self.shared as u32, &params)
    }

    /// The kernel of this data gradient and a weight gradient with stride 1, if there is one.
    pub fn pair_name(&self) -> Option<String> {
        let tile = self.name.strip_prefix("data_gradient_small_")?;
        ["16x16", "32x32", "64x32"].contains(&tile).then(|| format!("gradients_small_{tile}"))
    }

    /// Appends the one launch of a data gradient and a weight gradient.
    pub fn build_pair(
        b: &mut Builder,
        [data, weights]: [&Small; 2],
        [of_data, of_weights]: [&ConvShape; 2],
        [to_data, to_weights]: [Operands; 2],
    ) -> Result<()> {
        let [bands, columns, _] = data.grid;
        let [_, tiles, parts] = weights.grid;
        let params = PairParams {
            weights: weights.params(b, Role::B, of_weights, to_weights)?,
            data: data.params(b, Role::A, of_data, to_data)?,
            blocks: int(tiles * parts)?,
            tiles: int(tiles)?,
            bands: int(bands)?,
            unused: 0,
        };
        let grid = [(tiles * parts + bands * columns) as u32, 1, 1];
        let shared = data.shared.max(weights.shared) as u32;
        let name = data.pair_name().unwrap_or_default();
        b.launch(data.source, &name, grid, THREADS as u32, shared, &params)
    }

    fn params(&self, b: &mut Builder, role: Role, s: &ConvShape, operands: Operands) -> Result<Params> {
        let Operands { source, other, second, out, partial, out_half, accumulate } = operands;
        let (channels, columns) = if role == Role::A { (s.co, s.ci) } else { (s.ci, s.co) };
        let Bands { images, rows, strips, of_image, all } = self.bands;
        Ok(Params {
            source,
            other,
            second,
            out,
            partial,
            parts: Parts::new(b, self.grid[1], self.parts, self.parts)?,
            n: int(s.n)?,
            source_h: int(s.h)?,
            source_w: int(s.w)?,
            height: int(s.oh())?,
            width: int(s.ow())?,
            channels: int(channels)?,
            columns: int(columns)?,
            images: int(images)?,
            row_shift: shift(rows),
            strip_shift: shift(strips),
            lane_shift: shift((s.w * self.chunks).next_power_of_two().min(THREADS / 2)),
            out_half: i32::from(out_half),
            accumulate: i32::from(accumulate),
            bands: int(all)?,
            bands_per_part: int(self.bands_per_part)?,
            ahead: i32::from(self.ahead),
            unused: 0,
            by_band: FastDiv::new(of_image),
            by_image: FastDiv::new(self.bands.lines(s)),
            by_slot: FastDiv::new(s.ow()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Precision; 3] = [Precision::F32, Precision::Tf32, Precision::Bf16];

    fn shape(n: usize, [h, w]: [usize; 2], [ci, co]: [usize; 2]) -> ConvShape {
        ConvShape { n, h, w, ci, kh: 3, kw: 3, co, stride: 1, pad: 1, groups: 1 }
    }

    /// Of images with an even number of rows and columns.
    fn by_two(s: ConvShape) -> ConvShape {
        ConvShape { stride: 2, ..s }
    }

    #[test]
    fn resnet_32_is_all_in_shared_memory() {
        for precision in ALL {
            for (side, channels, name, blocks) in
                [(32, 16, "16x16", 200), (16, 32, "32x32", 100), (8, 64, "64x32", 100)]
            {
                let s = shape(100, [side, side], [channels, channels]);
                for (role, kind) in [(Role::C, "forward"), (Role::A, "data_gradient")] {
                    let small = Small::of(precision, role, &s).unwrap();
                    assert_eq!(small.name, format!("{kind}_small_{name}"));
                    assert_eq!(small.grid.iter().product::<usize>(), blocks, "{side}");
                }
                // One wave.
                let small = Small::of(precision, Role::B, &s).unwrap();
                let blocks = small.grid.iter().product::<usize>();
                assert!((96..=PROCESSORS).contains(&blocks), "{side}: {blocks}");
            }
            for (side, channels, name) in [(32, [16, 32], "16x32"), (16, [32, 64], "32x32")] {
                let s = by_two(shape(100, [side, side], channels));
                let small = Small::of(precision, Role::C, &s).unwrap();
                assert_eq!(
                    (small.name, small.grid[0] * small.grid[1]),
                    (format!("forward_2_small_{name}"), 100)
                );
                let small = Small::of(precision, Role::B, &s).unwrap();
                assert_eq!(small.name, "weight_gradient_2_small");
                let blocks = small.grid.iter().product::<usize>();
                assert!((96..=PROCESSORS).contains(&blocks), "{side}: {blocks}");
                assert!(Small::of(precision, Role::A, &s).is_none());
            }
        }
    }

    #[test]
    fn bands_cover_the_images_and_no_part_is_empty() {
        for precision in ALL {
            for (n, image, channels) in [
                (100, [32, 32], [16, 16]),
                (7, [5, 7], [64, 16]),
                (1, [1, 1], [16, 64]),
                (33, [9, 64], [32, 32]),
            ] {
                let s = shape(n, image, channels);
                let Some(small) = Small::of(precision, Role::B, &s) else {
                    panic!("{n}, {image:?}");
                };
                let Bands { images, rows, strips, of_image, all } = small.bands;
                assert!(images * s.w <= STRIP * strips && of_image * rows >= s.h);
                assert!(all / of_image * images >= s.n && (all / of_image - 1) * images < s.n);
                assert!(small.parts * small.bands_per_part >= all);
                assert!((small.parts - 1) * small.bands_per_part < all);
            }
        }
    }

    #[test]
    fn other_convolutions_have_none() {
        let s = shape(2, [8, 8], [16, 16]);
        let others = [
            ConvShape { stride: 3, ..s },
            ConvShape { pad: 0, ..s },
            ConvShape { kh: 1, kw: 1, pad: 0, ..s },
            ConvShape { groups: 2, ..s },
            ConvShape { ci: 24, ..s },
            ConvShape { co: 128, ..s },
            ConvShape { w: 300, ..s },
        ];
        for s in others {
            for role in [Role::A, Role::B, Role::C] {
                assert!(ALL.iter().all(|p| Small::of(*p, role, &s).is_none()));
            }
        }
    }
}
