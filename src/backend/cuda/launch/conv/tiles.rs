//! Tiles of convolution kernels: what there is, and which one a shape takes.

use super::super::walk::PROCESSORS;
use crate::backend::cuda::Precision;
use crate::backend::cuda::driver::{Source, Width};
use crate::backend::cuda::sources::{CONV_BF16, CONV_F32, CONV_TF32, CONV_WGMMA};
use crate::tape::Role;

/// Most parts of a weight gradient's sum.
const MAX_SPLITS: usize = 256;

/// A product of matrices, in each of its classes of pixels.
#[derive(Clone, Copy)]
pub(super) struct Product {
    /// At most: a class in the last rows or columns of an image may have fewer.
    pub rows: usize,
    pub columns: usize,
    /// Of pixels, of every group of channels.
    pub classes: usize,
    /// What is summed over, on average.
    pub depth: usize,
}

/// What a block computes.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// The file of its kernels.
    pub source: &'static Source,
    /// As the kernel's name ends.
    pub name: &'static str,
    pub m: usize,
    pub n: usize,
    pub threads: usize,
    /// Entries of a step of the reduction.
    pub step: usize,
    stages: usize,
    /// Storage of a filter, where that is the other factor. Small tiles round filters themselves: a
    /// cast would take as long as the product.
    pub filter: Width,
}

impl Tile {
    const fn with_step(self, step: usize) -> Tile {
        Tile { step, ..self }
    }

    const fn with_filter(self, filter: Width) -> Tile {
        Tile { filter, ..self }
    }

    /// The same for channels in groups, if it is one for any channels.
    pub const fn grouped(self) -> Tile {
        Tile { name: "grouped", ..self }
    }

    /// Whether the blocks of a forward or data gradient lie in one row, those of the same rows of
    /// the product side by side.
    pub fn in_row(&self) -> bool {
        self.source.name == CONV_WGMMA.name
    }
}

const fn tile(
    source: &'static Source,
    name: &'static str,
    m: usize,
    n: usize,
    threads: usize,
    stages: usize,
) -> Tile {
    Tile { source, name, m, n, threads, step: 16, stages, filter: Width::F32 }
}

/// How a precision's kernels were written; twins of the tiles in `conv_*.cu`.
pub(super) struct Family {
    pub source: &'static Source,
    /// Storage of the gathered factor, and of the weight gradient's other one.
    pub storage: Width,
    /// Forward and data gradient, from narrow to wide; then any channels, entry by entry.
    correlate: [Tile; 7],
    /// Weight gradient, likewise.
    weights: [Tile; 5],
    /// For products of many columns, in all roles: of Hopper's warpgroups.
    wgmma: Option<[Tile; 2]>,
}

static FFMA: Family = Family {
    source: &CONV_F32,
    storage: Width::F32,
    correlate: [
        tile(&CONV_F32, "128x16", 128, 16, 128, 4),
        tile(&CONV_F32, "128x32", 128, 32, 128, 4),
        tile(&CONV_F32, "64x32", 64, 32, 128, 4),
        tile(&CONV_F32, "64x64", 64, 64, 128, 4),
        tile(&CONV_F32, "128x128", 128, 128, 256, 3),
        tile(&CONV_F32, "128x160", 128, 160, 256, 3),
        tile(&CONV_F32, "odd", 64, 32, 128, 4),
    ],
    weights: [
        tile(&CONV_F32, "128x16", 128, 16, 128, 4),
        tile(&CONV_F32, "128x32", 128, 32, 128, 4),
        tile(&CONV_F32, "64x64", 64, 64, 128, 4),
        tile(&CONV_F32, "128x160", 128, 160, 256, 3),
        tile(&CONV_F32, "odd", 64, 32, 128, 4),
    ],
    wgmma: None,
};

/// `step`: of most tiles.
const fn matrix_units(source: &'static Source, storage: Width, step: usize) -> Family {
    let even = tile(source, "128x128", 128, 128, 128, 3).with_step(step).with_filter(storage);
    let wide = tile(source, "128x160", 128, 160, 128, 3).with_step(step).with_filter(storage);
    let odd = tile(source, "odd", 64, 32, 128, 4).with_step(step);
    Family {
        source,
        storage,
        correlate: [
            tile(source, "128x16", 128, 16, 128, 4).with_step(step),
            tile(source, "128x32", 128, 32, 128, 4).with_step(step),
            tile(source, "64x32", 64, 32, 128, 4).with_step(2 * step),
            tile(source, "64x64", 64, 64, 128, 4).with_step(step),
            even,
            wide,
            odd,
        ],
        weights: [
            tile(source, "144x16", 144, 16, 96, 4).with_step(step),
            tile(source, "144x32", 144, 32, 96, 4).with_step(step),
            tile(source, "144x64", 144, 64, 192, 4).with_step(step),
            wide,
            odd,
        ],
        wgmma: None,
    }
}

static MMA_TF32: Family = matrix_units(&CONV_TF32, Width::F32, 16);
static MMA_BF16: Family = matrix_units(&CONV_BF16, Width::Bf16, 32);
static WGMMA_BF16: Family = {
    let even = tile(&CONV_WGMMA, "256x128", 256, 128, 512, 3).with_step(64).with_filter(Width::Bf16);
    let wide = tile(&CONV_WGMMA, "256x160", 256, 160, 512, 3).with_step(64).with_filter(Width::Bf16);
    Family { wgmma: Some([even, wide]), ..matrix_units(&CONV_BF16, Width::Bf16, 32) }
};

impl Family {
    /// The precision's; `wgmma`: the driver's.
    pub fn of(precision: Precision, wgmma: bool) -> &'static Family {
        match precision {
            Precision::F32 => &FFMA,
            Precision::Tf32 => &MMA_TF32,
            Precision::Bf16 if wgmma => &WGMMA_BF16,
            Precision::Bf16 => &MMA_BF16,
        }
    }

    /// Bytes of shared memory: twin of `SharedTile` and the paddings of `Ffma` and `Mma`, and of
    /// `SwizzledTile`.
    pub fn shared_bytes(&self, role: Role, tile: Tile) -> usize {
        if tile.source.name == CONV_WGMMA.name {
            // The first stage begins at a multiple of 1024.
            return tile.stages * (tile.m + tile.n) * tile.step * self.storage.bytes() + 1024 - 128;
        }
        let (ffma, half) = (self.source.name == CONV_F32.name, self.storage == Width::Bf16);
        let pad_source = |rows: bool| match (half, ffma) {
            (true, _) => 8,
            (_, true) => [0, 4][usize::from(rows)],
            (_, false) => [8, 4][usize::from(rows)],
        };
        let pad_other = |rows: bool, width: Width| match (ffma, half, width) {
            (true, ..) => [0, 4][usize::from(rows)],
            (_, _, Width::Bf16) => 8,
            (_, true, Width::F32) => [4, 8][usize::from(rows)],
            (_, false, Width::F32) => [8, 4][usize::from(rows)],
        };
        let tile_bytes = |rows: bool, free: usize, pad: usize, width: Width| {
            let (lines, line) = if rows { (free, tile.step) } else { (tile.step, free) };
            lines * (line + pad) * width.bytes()
        };
        let (source_rows, other_rows) = (role != Role::B, role == Role::A);
        let other = if role == Role::B { self.storage } else { tile.filter };
        let a = tile_bytes(source_rows, tile.m, pad_source(source_rows), self.storage);
        let b = tile_bytes(other_rows, tile.n, pad_other(other_rows, other), other);
        tile.stages * (a + b)
    }

    /// Of a role's product; `vector`: channels come in aligned vectors.
    pub fn tile(&self, role: Role, product: Product, vector: bool) -> Tile {
        let small = || match role {
            Role::B => self.weights_tile(product.columns, vector),
            Role::A | Role::C => self.correlate_tile(product, vector),
        };
        // Others are better at what has few columns, is soon summed or too small for all
        // processors.
        let wide = product.columns >= 128 && product.depth >= 512 && product.rows >= 512;
        let large = role == Role::B || product.rows * product.columns * product.classes >= SMALLEST;
        let Some(tiles) = self.wgmma.filter(|_| vector && wide && large) else { return small() };
        let cost = |tile: Tile| match role {
            Role::B => Split::new(product, tile).cost(product, tile),
            Role::A | Role::C => Heights::new(product, tile).cost(product, tile),
        };
        // What fits, before what may be faster and computes columns that there are not.
        let misfit = |tile: Tile| !product.columns.is_multiple_of(tile.n);
        tiles.into_iter().min_by_key(|tile| (misfit(*tile), cost(*tile))).expect("two tiles")
    }

    fn correlate_tile(&self, Product { rows, columns, classes, .. }: Product, vector: bool) -> Tile {
        let [by_16, by_32, low, square, even, wide, odd] = self.correlate;
        let blocks = |t: Tile| rows.div_ceil(t.m) * columns.div_ceil(t.n) * classes;
        // What the processors do while the busiest is at work.
        let work = |t: &Tile| blocks(*t).div_ceil(PROCESSORS) * t.m * t.n;
        let large = if work(&even) < work(&wide) { even } else { wide };
        match columns {
            _ if !vector => odd,
            0..=16 => by_16,
            // Where large tiles would leave processors without work, smaller ones.
            17..=32 if blocks(by_32) >= 2 * PROCESSORS => by_32,
            17..=32 => low,
            96.. if blocks(large) >= PROCESSORS => large,
            _ if blocks(square) >= 2 * PROCESSORS => square,
            _ => low,
        }
    }

    fn weights_tile(&self, columns: usize, vector: bool) -> Tile {
        let [by_16, by_32, by_64, wide, odd] = self.weights;
        match columns {
            _ if !vector => odd,
            0..=16 => by_16,
            17..=32 => by_32,
            _ if columns.is_multiple_of(wide.n) => wide,
            _ => by_64,
        }
    }
}

/// Fewest outputs of a product for tiles of warpgroups: half of the processors are at work.
const SMALLEST: usize = PROCESSORS / 2 * 256 * 128;

/// Rows of a warpgroup.
const GROUP: usize = 64;

/// How rows are dealt out to tiles of warpgroups: `whole` tiles, and then some of `rest` rows, so
/// that the last wave of blocks takes no longer than it must. Twin of `ConvParams::whole`.
pub(super) struct Heights {
    pub whole: usize,
    pub rest: usize,
}

impl Heights {
    /// Of a product in these tiles.
    pub fn new(product: Product, tile: Tile) -> Heights {
        let all = Heights { whole: product.rows.div_ceil(tile.m), rest: tile.m };
        if tile.source.name != CONV_WGMMA.name || product.classes > 1 {
            return all;
        }
        // As many whole ones as keep all processors at work to the end.
        let beside = product.columns.div_ceil(tile.n);
        let whole = all.whole * beside / PROCESSORS * PROCESSORS / beside;
        let cut = (1..tile.m / GROUP).rev().map(|groups| Heights { whole, rest: groups * GROUP });
        [all].into_iter().chain(cut).min_by_key(|h| h.cost(product, tile)).expect("the first")
    }

    /// Tiles in a column.
    pub fn blocks(&self, product: Product, tile: Tile) -> usize {
        self.whole + product.rows.saturating_sub(self.whole * tile.m).div_ceil(self.rest)
    }

    /// Time that it takes, in an unknown unit: waves, each as long as its tiles are high and a
    /// little more.
    fn cost(&self, product: Product, tile: Tile) -> usize {
        let times = product.columns.div_ceil(tile.n) * product.classes;
        let wave = |rows: usize| (rows / GROUP + 1) * tile.n;
        let rest = (self.blocks(product, tile) - self.whole) * times;
        (self.whole * times).div_ceil(PROCESSORS) * wave(tile.m) + rest.div_ceil(PROCESSORS) * wave(self.rest)
    }
}

/// How a weight gradient's sum over pixels is cut: a function of the shape alone, so that the bits
/// are, too.
pub(super) struct Split {
    pub parts: usize,
    pub steps_per_part: usize,
}

impl Split {
    /// Of a weight gradient in these tiles.
    pub fn new(product: Product, tile: Tile) -> Split {
        let Product { rows, columns, classes, depth } = product;
        let steps = depth.div_ceil(tile.step).max(1);
        if tile.source.name == CONV_WGMMA.name {
            let splits = (1..=(steps / 8).clamp(1, MAX_SPLITS)).map(|parts| Split::into(parts, steps));
            return splits.min_by_key(|split| split.cost(product, tile)).expect("one part");
        }
        let tiles = rows.div_ceil(tile.m) * columns.div_ceil(tile.n) * classes;
        // Large blocks fill a processor alone or in pairs; of small ones several run at a time.
        let wanted = if tile.n >= 128 { 2 * PROCESSORS } else { 4 * PROCESSORS };
        let least = (wanted / tiles.max(1)).max(1);
        // A few parts more where they keep the processors busier than nine tenths of the time.
        let busy = |parts: usize| {
            let blocks = tiles * parts;
            blocks * 10 >= blocks.next_multiple_of(PROCESSORS) * 9
        };
        // A part of less than eight steps would mostly wait for its first copies.
        let most = (steps / 8).clamp(1, MAX_SPLITS);
        let parts = (least..least + 3).find(|p| busy(*p)).unwrap_or(least).min(most);
        Split::into(parts, steps)
    }

    /// None empty, so there may be fewer.
    fn into(parts: usize, steps: usize) -> Split {
        let steps_per_part = steps.div_ceil(parts);
        Split { parts: steps.div_ceil(steps_per_part), steps_per_part }
    }

    /// Cycles that it takes in a tile of warpgroups, roughly: a step takes ten for every column,
    /// the first and last of a block as long as four more; partial sums go through the second-level
    /// cache.
    fn cost(&self, Product { rows, columns, .. }: Product, tile: Tile) -> usize {
        let tiles = rows.div_ceil(tile.m) * columns.div_ceil(tile.n);
        let waves = (tiles * self.parts).div_ceil(PROCESSORS);
        let sums = if self.parts > 1 { 5000 + self.parts * rows * columns / 200 } else { 0 };
        waves * (self.steps_per_part + 4) * 10 * tile.n + sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Precision; 3] = [Precision::F32, Precision::Tf32, Precision::Bf16];

    #[test]
    fn the_networks_layers_take_the_tiles_that_were_made_for_them() {
        for family in ALL.map(|p| Family::of(p, false)) {
            let product = |rows, columns| Product { rows, columns, classes: 1, depth: 9 * columns };
            let name = |rows, columns| family.tile(Role::C, product(rows, columns), true).name;
            // ResNet-32 at batch 100: 32×32, 16×16, 8×8 pixels.
            assert_eq!(name(102_400, 16), "128x16");
            assert_eq!(name(25_600, 32), "64x32");
            assert_eq!(name(6_400, 64), "64x32");
            // WRN-28-10. Of 640 channels, tiles of 160 would leave a third of the processors idle
            // in the second wave.
            assert_eq!(name(102_400, 160), "128x160");
            assert_eq!(name(25_600, 320), "128x160");
            assert_eq!(name(6_400, 640), "128x128");
            assert_eq!(family.tile(Role::C, product(102_400, 16), false).name, "odd");
        }
    }

    /// WRN-28-10 at batch 100.
    #[test]
    fn warpgroups_leave_few_processors_without_work() {
        let family = Family::of(Precision::Bf16, true);
        for (pixels, channels, name, whole, rest, parts) in [
            (102_400, 160, "256x160", 396, 64, 22),
            (25_600, 320, "256x160", 66, 192, 5),
            (6_400, 640, "256x128", 25, 256, 1),
        ] {
            let product = Product { rows: pixels, columns: channels, classes: 1, depth: 9 * channels };
            let tile = family.tile(Role::C, product, true);
            let heights = Heights::new(product, tile);
            assert_eq!((tile.name, heights.whole, heights.rest), (name, whole, rest), "{channels}");
            let product = Product { rows: 9 * channels, columns: channels, classes: 1, depth: pixels };
            let tile = family.tile(Role::B, product, true);
            assert_eq!((tile.name, Split::new(product, tile).parts), (name, parts), "{channels}");
        }
        // Little to sum, few columns, few rows.
        for (rows, columns, depth) in [(102_400, 160, 144), (102_400, 64, 576), (6_400, 160, 1440)] {
            let tile = family.tile(Role::C, Product { rows, columns, classes: 1, depth }, true);
            assert_eq!(*tile.source, CONV_BF16, "{rows} by {columns}");
        }
    }

    #[test]
    fn parts_cover_the_sum_and_none_is_empty() {
        for family in ALL.map(|p| Family::of(p, true)) {
            for (rows, columns, depth) in [(144, 16, 102_400), (5760, 640, 6400), (27, 16, 1), (9, 8, 700)] {
                let product = Product { rows, columns, classes: 1, depth };
                let tile = family.tile(Role::B, product, true);
                let split = Split::new(product, tile);
                let steps = depth.div_ceil(tile.step);
                assert!(split.parts * split.steps_per_part >= steps);
                assert!((split.parts - 1) * split.steps_per_part < steps);
            }
        }
    }

    /// Of 164 KB, a block of which costs one: two blocks at once on the matrix units, as
    /// `Mma::BLOCKS` says.
    #[test]
    fn shared_memory_is_what_an_a100_has() {
        for (family, blocks) in ALL.map(|p| Family::of(p, false)).into_iter().zip([1, 2, 2]) {
            for (role, tiles) in
                [(Role::C, &family.correlate[..]), (Role::A, &family.correlate), (Role::B, &family.weights)]
            {
                for tile in tiles {
                    assert!(blocks * (family.shared_bytes(role, *tile) + 1024) <= 164 << 10, "{}", tile.name);
                }
            }
        }
    }
}
