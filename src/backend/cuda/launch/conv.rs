//! Convolutions in their three roles (`kernels/conv.cuh`): tiles chosen by shape, and the weight gradient's sum cut into parts.

use bytemuck::{Pod, Zeroable};

use super::super::Precision;
use super::super::builder::{Builder, tensor_width};
use super::super::divide::FastDiv;
use super::super::driver::{Address, Command, Source, Width};
use super::structure::cast;
use super::walk::entries;
use crate::error::{Error, Result};
use crate::program::{Dims, Instr, Kernel, Tensor};
use crate::tape::Role;

const F32: Source = Source { name: "conv_f32.cu", text: include_str!("../../../../kernels/conv_f32.cu") };
const TF32: Source = Source { name: "conv_tf32.cu", text: include_str!("../../../../kernels/conv_tf32.cu") };
const BF16: Source = Source { name: "conv_bf16.cu", text: include_str!("../../../../kernels/conv_bf16.cu") };
const REDUCE: Source =
    Source { name: "conv_reduce.cu", text: include_str!("../../../../kernels/conv_reduce.cu") };

/// Parts of the workspace begin at multiples of this many bytes.
const ALIGNMENT: usize = 256;

/// Multiprocessors of an H100. A constant, so that sums are cut alike, and give the same bits, on every card.
const PROCESSORS: usize = 132;

/// Most parts of a weight gradient's sum.
const MAX_SPLITS: usize = 256;

/// Twin of `ConvParams`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    source: Address,
    other: Address,
    out: Address,
    n: i32,
    source_h: i32,
    source_w: i32,
    channels: i32,
    grid_h: i32,
    grid_w: i32,
    kernel_h: i32,
    kernel_w: i32,
    stride: i32,
    pad: i32,
    columns: i32,
    out_half: i32,
    accumulate: i32,
    steps_per_split: i32,
    by_image: FastDiv,
    by_row: FastDiv,
}

/// Twin of `ReduceParams`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ReduceParams {
    partial: Address,
    out: Address,
    count: i32,
    splits: i32,
    accumulate: i32,
    unused: i32,
}

/// Shapes of one convolution: x `[n,h,w,ci]`, w `[kh,kw,ci,co]`, y `[n,p,q,co]`.
#[derive(Clone, Copy)]
struct Shape {
    n: usize,
    h: usize,
    w: usize,
    ci: usize,
    kh: usize,
    kw: usize,
    co: usize,
    p: usize,
    q: usize,
    stride: usize,
    pad: usize,
}

impl Shape {
    fn of(instr: &Instr) -> (Shape, Role, bool) {
        let Kernel::Contract {
            out, dims: Dims::Conv { n, h, w, ci, kh, kw, co, geometry }, accumulate, ..
        } = instr.kernel
        else {
            unreachable!("{} is no convolution", instr.kernel.name())
        };
        let (stride, pad) = (geometry.stride, geometry.pad);
        let extent = |e: usize, k: usize| (e + 2 * pad + stride).saturating_sub(k) / stride;
        let shape = Shape { n, h, w, ci, kh, kw, co, p: extent(h, kh), q: extent(w, kw), stride, pad };
        (shape, out, accumulate)
    }
}

/// What a block computes.
#[derive(Clone, Copy)]
struct Tile {
    /// As the kernel's name ends.
    name: &'static str,
    m: usize,
    n: usize,
    threads: usize,
    stages: usize,
}

const fn tile(name: &'static str, m: usize, n: usize, threads: usize, stages: usize) -> Tile {
    Tile { name, m, n, threads, stages }
}

/// How a precision's kernels were written; twins of the tiles in `conv_*.cu`.
struct Family {
    source: Source,
    /// Storage of the gathered factor, and of the weight gradient's other one.
    storage: Width,
    /// Entries of a step of the reduction.
    step: usize,
    /// Forward and data gradient, from narrow to wide; then any channels, entry by entry.
    correlate: [Tile; 6],
    /// Weight gradient, likewise.
    weights: [Tile; 5],
}

static FFMA: Family = Family {
    source: F32,
    storage: Width::F32,
    step: 16,
    correlate: [
        tile("128x16", 128, 16, 128, 4),
        tile("128x32", 128, 32, 128, 4),
        tile("64x32", 64, 32, 128, 4),
        tile("64x64", 64, 64, 128, 4),
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

const fn matrix_units(source: Source, storage: Width, step: usize, wide_stages: usize) -> Family {
    Family {
        source,
        storage,
        step,
        correlate: [
            tile("128x16", 128, 16, 128, 4),
            tile("128x32", 128, 32, 128, 4),
            tile("64x32", 64, 32, 128, 4),
            tile("64x64", 64, 64, 128, 4),
            tile("128x160", 128, 160, 256, wide_stages),
            tile("odd", 64, 32, 128, 4),
        ],
        weights: [
            tile("144x16", 144, 16, 96, 4),
            tile("144x32", 144, 32, 96, 4),
            tile("144x64", 144, 64, 192, 4),
            tile("144x160", 144, 160, 384, wide_stages),
            tile("odd", 64, 32, 128, 4),
        ],
    }
}

static MMA_TF32: Family = matrix_units(TF32, Width::F32, 16, 4);
static MMA_BF16: Family = matrix_units(BF16, Width::Bf16, 32, 3);

impl Family {
    fn of(precision: Precision) -> &'static Family {
        match precision {
            Precision::F32 => &FFMA,
            Precision::Tf32 => &MMA_TF32,
            Precision::Bf16 => &MMA_BF16,
        }
    }

    /// Bytes of shared memory: twin of `SharedTile` and the paddings of `Ffma` and `Mma`.
    fn shared_bytes(&self, role: Role, tile: Tile) -> usize {
        let (ffma, half) = (self.source == F32, self.storage == Width::Bf16);
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
            let (lines, line) = if rows { (free, self.step) } else { (self.step, free) };
            lines * (line + pad) * width.bytes()
        };
        let (source_rows, other_rows) = (role != Role::B, role == Role::A);
        let other = if role == Role::B { self.storage } else { Width::F32 };
        let a = tile_bytes(source_rows, tile.m, pad_source(source_rows), self.storage);
        let b = tile_bytes(other_rows, tile.n, pad_other(other_rows, other), other);
        tile.stages * (a + b)
    }

    fn correlate_tile(&self, rows: usize, columns: usize, classes: usize, vector: bool) -> Tile {
        let [by_16, by_32, low, square, wide, odd] = self.correlate;
        let blocks = |t: Tile| rows.div_ceil(t.m) * columns.div_ceil(t.n) * classes;
        match columns {
            _ if !vector => odd,
            0..=16 => by_16,
            // Where large tiles would leave processors without work, smaller ones.
            17..=32 if blocks(by_32) >= 2 * PROCESSORS => by_32,
            17..=32 => low,
            _ if columns.is_multiple_of(wide.n) && blocks(wide) >= PROCESSORS => wide,
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

/// How a weight gradient's sum over pixels is cut: a function of the shape alone, so that the bits are, too.
struct Split {
    parts: usize,
    steps_per_part: usize,
}

impl Split {
    fn new(s: &Shape, step: usize, tile: Tile) -> Split {
        let steps = (s.n * s.p * s.q).div_ceil(step).max(1);
        let tiles = (s.kh * s.kw * s.ci).div_ceil(tile.m) * s.co.div_ceil(tile.n);
        // Large blocks fill a processor alone or in pairs; of small ones several run at a time.
        let wanted = if tile.threads >= 256 { 2 * PROCESSORS } else { 4 * PROCESSORS };
        // A part of fewer steps would mostly wait for its first copies.
        let parts = (wanted / tiles.max(1)).clamp(1, (steps / 8).clamp(1, MAX_SPLITS));
        let steps_per_part = steps.div_ceil(parts);
        Split { parts: steps.div_ceil(steps_per_part), steps_per_part }
    }
}

/// The width that a convolution's argument must have.
fn wanted(precision: Precision, role: Role) -> Width {
    if role == Role::B { Width::F32 } else { Family::of(precision).storage }
}

/// An argument that must be cast: bytes it takes in the workspace.
fn cast_bytes(precision: Precision, tensor: &Tensor, role: Role) -> usize {
    let width = wanted(precision, role);
    match tensor_width(precision, tensor) == width {
        true => 0,
        false => (tensor.len * width.bytes()).next_multiple_of(ALIGNMENT),
    }
}

/// Bytes of the arguments that are cast, and of the partial sums of a weight gradient.
pub fn workspace_bytes(precision: Precision, instr: &Instr) -> usize {
    let (shape, out, _) = Shape::of(instr);
    let casts =
        instr.args.iter().zip(out.others()).map(|(t, role)| cast_bytes(precision, t, role)).sum::<usize>();
    if out != Role::B {
        return casts;
    }
    // Whether vectors can be used depends on addresses, too: room for either.
    let family = Family::of(precision);
    let parts = [false, true].map(|vector| {
        let parts = Split::new(&shape, family.step, family.weights_tile(shape.co, vector)).parts;
        if parts > 1 { parts } else { 0 }
    });
    casts + parts[0].max(parts[1]) * instr.outs[0].len * size_of::<f32>()
}

fn int(count: usize) -> Result<i32> {
    entries(count).map(|n| n as i32)
}

/// Appends the commands of a convolution in one of its roles.
///
/// # Errors
/// If an extent is larger than kernels can count.
pub fn build(b: &mut Builder, instr: &Instr) -> Result<()> {
    let (s, role, accumulate) = Shape::of(instr);
    let to = &instr.outs[0];
    let (out, out_width) = (b.address(to), b.width(to));
    if to.len == 0 {
        return Ok(());
    }
    if instr.args.iter().any(|a| a.len == 0) {
        if !accumulate {
            b.commands.push(Command::Clear { to: out, bytes: to.len * out_width.bytes() });
        }
        return Ok(());
    }
    let mut free = b.workspace;
    let mut at = [0; 2];
    for (i, (tensor, role)) in instr.args.iter().zip(role.others()).enumerate() {
        let (address, bytes) = (b.address(tensor), cast_bytes(b.precision, tensor, role));
        at[i] = if bytes == 0 { address } else { free };
        free += bytes as Address;
        if bytes > 0 {
            cast(b, address, b.width(tensor), at[i], wanted(b.precision, role), tensor.len)?;
        }
    }
    // What is gathered, its extents, the grid of the product's pixels, and the product's columns.
    let ((source, other), (source_h, source_w, channels), (grid_h, grid_w), columns) = match role {
        Role::C => ((at[0], at[1]), (s.h, s.w, s.ci), (s.p, s.q), s.co),
        Role::A => ((at[1], at[0]), (s.p, s.q, s.co), (s.h, s.w), s.ci),
        Role::B => ((at[0], at[1]), (s.h, s.w, s.ci), (s.p, s.q), s.co),
    };
    let family = Family::of(b.precision);
    // Kernels count pixels, entries of a weight, and entries of an image, with something to spare for what tiles leave over.
    let rows = if role == Role::B { s.kh * s.kw * s.ci } else { s.n * grid_h * grid_w };
    for count in
        [rows + 4096, s.n * s.p * s.q + 4096, source_h * source_w * channels, s.kh * s.kw * s.ci.max(s.co)]
    {
        entries(count)?;
    }
    let params = Params {
        source,
        other,
        out,
        n: int(s.n)?,
        source_h: int(source_h)?,
        source_w: int(source_w)?,
        channels: int(channels)?,
        grid_h: int(grid_h)?,
        grid_w: int(grid_w)?,
        kernel_h: int(s.kh)?,
        kernel_w: int(s.kw)?,
        stride: int(s.stride)?,
        pad: int(s.pad)?,
        columns: int(columns)?,
        out_half: i32::from(out_width == Width::Bf16),
        accumulate: i32::from(accumulate),
        steps_per_split: 0,
        by_image: FastDiv::new(grid_h * grid_w),
        by_row: FastDiv::new(grid_w),
    };
    let lanes = 16 / family.storage.bytes();
    let other_lanes = if role == Role::B { lanes } else { 4 };
    let vector = channels.is_multiple_of(lanes)
        && columns.is_multiple_of(other_lanes)
        && [source, other, out].iter().all(|a| a.is_multiple_of(16));
    match role {
        Role::B => weight_gradient(b, family, &s, params, free, vector),
        _ => correlate(b, family, &s, role, params, vector),
    }
}

fn too_many(what: &str, count: usize) -> Error {
    Error::Program(format!("a convolution with {count} {what} is too large for the CUDA backend"))
}

fn correlate(
    b: &mut Builder,
    family: &Family,
    s: &Shape,
    role: Role,
    params: Params,
    vector: bool,
) -> Result<()> {
    let (name, step) = if role == Role::C { ("forward", 1) } else { ("data_gradient", s.stride) };
    let (h, w) = (params.grid_h as usize, params.grid_w as usize);
    // Pixels of the largest class; there is none of a residue that the grid does not reach.
    let rows = s.n * h.div_ceil(step) * w.div_ceil(step);
    let (columns, classes) = (params.columns as usize, step * step);
    let tile = family.correlate_tile(rows, columns, classes, vector);
    let grid = grid(rows.div_ceil(tile.m), columns.div_ceil(tile.n), classes)?;
    let shared = family.shared_bytes(role, tile) as u32;
    b.launch(family.source, &format!("{name}_{}", tile.name), grid, tile.threads as u32, shared, &params)
}

fn weight_gradient(
    b: &mut Builder,
    family: &Family,
    s: &Shape,
    params: Params,
    workspace: Address,
    vector: bool,
) -> Result<()> {
    let (rows, columns) = (s.kh * s.kw * s.ci, s.co);
    let tile = family.weights_tile(columns, vector);
    let split = Split::new(s, family.step, tile);
    let grid = grid(rows.div_ceil(tile.m), columns.div_ceil(tile.n), split.parts)?;
    let shared = family.shared_bytes(Role::B, tile) as u32;
    let (out, accumulate) = (params.out, params.accumulate);
    assert_eq!(params.out_half, 0, "weight gradients are f32 in every precision");
    let mut params = Params { steps_per_split: int(split.steps_per_part)?, ..params };
    if split.parts > 1 {
        params = Params { out: workspace, accumulate: 0, ..params };
    }
    let name = format!("weight_gradient_{}", tile.name);
    b.launch(family.source, &name, grid, tile.threads as u32, shared, &params)?;
    if split.parts > 1 {
        let count = rows * columns;
        let params = ReduceParams {
            partial: workspace,
            out,
            count: int(count)?,
            splits: int(split.parts)?,
            accumulate,
            unused: 0,
        };
        b.launch(REDUCE, "conv_reduce", [count.div_ceil(32) as u32, 1, 1], 256, 0, &params)?;
    }
    Ok(())
}

/// Blocks in x, y, z, of which the hardware takes 65535 in y and z.
fn grid(m: usize, n: usize, z: usize) -> Result<[u32; 3]> {
    if n > 65535 {
        return Err(too_many("tiles of output channels", n));
    }
    if z > 65535 {
        return Err(too_many("classes of pixels (stride squared)", z));
    }
    Ok([m as u32, n as u32, z as u32])
}
