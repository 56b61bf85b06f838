//! Tiles of convolution kernels: what there is, and which one a shape takes.

use crate::backend::cuda::Precision;
use crate::backend::cuda::driver::{Source, Width};
use crate::backend::cuda::sources::{CONV_BF16, CONV_F32, CONV_TF32};
use crate::tape::Role;

/// Multiprocessors of an H100. A constant, so that sums are cut alike, and give the same bits, on
/// every card.
pub(super) const PROCESSORS: usize = 132;

/// Most parts of a weight gradient's sum.
const MAX_SPLITS: usize = 256;

/// What a block computes.
#[derive(Clone, Copy)]
pub(super) struct Tile {
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
}

const fn tile(name: &'static str, m: usize, n: usize, threads: usize, stages: usize) -> Tile {
    Tile { name, m, n, threads, step: 16, stages, filter: Width::F32 }
}

/// How a precision's kernels were written; twins of the tiles in `conv_*.cu`.
pub(super) struct Family {
    pub source: Source,
    /// Storage of the gathered factor, and of the weight gradient's other one.
    pub storage: Width,
    /// Forward and data gradient, from narrow to wide; then any channels, entry by entry.
    correlate: [Tile; 7],
    /// Weight gradient, likewise.
    weights: [Tile; 5],
}

static FFMA: Family = Family {
    source: CONV_F32,
    storage: Width::F32,
    correlate: [
        tile("128x16", 128, 16, 128, 4),
        tile("128x32", 128, 32, 128, 4),
        tile("64x32", 64, 32, 128, 4),
        tile("64x64", 64, 64, 128, 4),
        tile("128x128", 128, 128, 256, 3),
        tile("128x160", 128, 160, 256, 3),
        tile("odd", 64, 32, 128, 4),
    ],
    weights: [
        tile("128x16", 128, 16, 128, 4),
        tile("128x32", 128, 32, 128, 4),
        tile("64x64", 64, 64, 128, 4),
        tile("128x160", 128, 160, 256, 3),
        tile("odd", 64, 32, 128, 4),
    ],
};

/// `step`: of most tiles.
const fn matrix_units(source: Source, storage: Width, step: usize) -> Family {
    let even = tile("128x128", 128, 128, 128, 3).with_step(step).with_filter(storage);
    let wide = tile("128x160", 128, 160, 128, 3).with_step(step).with_filter(storage);
    let odd = tile("odd", 64, 32, 128, 4).with_step(step);
    Family {
        source,
        storage,
        correlate: [
            tile("128x16", 128, 16, 128, 4).with_step(step),
            tile("128x32", 128, 32, 128, 4).with_step(step),
            tile("64x32", 64, 32, 128, 4).with_step(2 * step),
            tile("64x64", 64, 64, 128, 4).with_step(step),
            even,
            wide,
            odd,
        ],
        weights: [
            tile("144x16", 144, 16, 96, 4).with_step(step),
            tile("144x32", 144, 32, 96, 4).with_step(step),
            tile("144x64", 144, 64, 192, 4).with_step(step),
            wide,
            odd,
        ],
    }
}

static MMA_TF32: Family = matrix_units(CONV_TF32, Width::F32, 16);
static MMA_BF16: Family = matrix_units(CONV_BF16, Width::Bf16, 32);

impl Family {
    /// The precision's.
    pub fn of(precision: Precision) -> &'static Family {
        match precision {
            Precision::F32 => &FFMA,
            Precision::Tf32 => &MMA_TF32,
            Precision::Bf16 => &MMA_BF16,
        }
    }

    /// Bytes of shared memory: twin of `SharedTile` and the paddings of `Ffma` and `Mma`.
    pub fn shared_bytes(&self, role: Role, tile: Tile) -> usize {
        let (ffma, half) = (self.source == CONV_F32, self.storage == Width::Bf16);
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

    /// Of a role's product with so many rows in each of its classes; `vector`: channels come in
    /// aligned vectors.
    pub fn tile(&self, role: Role, [rows, columns, classes]: [usize; 3], vector: bool) -> Tile {
        match role {
            Role::B => self.weights_tile(columns, vector),
            Role::A | Role::C => self.correlate_tile(rows, columns, classes, vector),
        }
    }

    fn correlate_tile(&self, rows: usize, columns: usize, classes: usize, vector: bool) -> Tile {
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

/// How a weight gradient's sum over pixels is cut: a function of the shape alone, so that the bits
/// are, too.
pub(super) struct Split {
    pub parts: usize,
    pub steps_per_part: usize,
}

impl Split {
    /// Of a product of `rows` by `columns` that sums over `pixels`.
    pub fn new(rows: usize, columns: usize, pixels: usize, tile: Tile) -> Split {
        let steps = pixels.div_ceil(tile.step).max(1);
        let tiles = rows.div_ceil(tile.m) * columns.div_ceil(tile.n);
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
        let steps_per_part = steps.div_ceil(parts);
        Split { parts: steps.div_ceil(steps_per_part), steps_per_part }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Precision; 3] = [Precision::F32, Precision::Tf32, Precision::Bf16];

    #[test]
    fn the_networks_layers_take_the_tiles_that_were_made_for_them() {
        for family in ALL.map(Family::of) {
            let name = |rows, columns| family.correlate_tile(rows, columns, 1, true).name;
            // ResNet-32 at batch 100: 32×32, 16×16, 8×8 pixels.
            assert_eq!(name(102_400, 16), "128x16");
            assert_eq!(name(25_600, 32), "64x32");
            assert_eq!(name(6_400, 64), "64x32");
            // WRN-28-10. Of 640 channels, tiles of 160 would leave a third of the processors idle
            // in the second wave.
            assert_eq!(name(102_400, 160), "128x160");
            assert_eq!(name(25_600, 320), "128x160");
            assert_eq!(name(6_400, 640), "128x128");
            assert_eq!(family.correlate_tile(102_400, 16, 1, false).name, "odd");
        }
    }

    #[test]
    fn parts_cover_the_sum_and_none_is_empty() {
        for family in ALL.map(Family::of) {
            for (rows, columns, pixels) in [(144, 16, 102_400), (5760, 640, 6400), (27, 16, 1), (9, 8, 700)] {
                let tile = family.weights_tile(columns, true);
                let split = Split::new(rows, columns, pixels, tile);
                let steps = pixels.div_ceil(tile.step);
                assert!(split.parts * split.steps_per_part >= steps);
                assert!((split.parts - 1) * split.steps_per_part < steps);
            }
        }
    }

    /// Of 164 KB, a block of which costs one: two blocks at once on the matrix units, as
    /// `Mma::BLOCKS` says.
    #[test]
    fn shared_memory_is_what_an_a100_has() {
        for (family, blocks) in ALL.map(Family::of).into_iter().zip([1, 2, 2]) {
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
