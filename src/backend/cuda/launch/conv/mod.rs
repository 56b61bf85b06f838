//! Convolutions in their three roles (`kernels/conv.cuh`): tiles chosen by shape, and the weight gradient's sum cut into parts.

mod tiles;

use bytemuck::{Pod, Zeroable};

use super::structure::cast;
use super::walk::entries;
use crate::backend::cuda::Precision;
use crate::backend::cuda::builder::{Builder, tensor_width};
use crate::backend::cuda::divide::FastDiv;
use crate::backend::cuda::driver::{Address, Command, Source, Width};
use crate::error::{Error, Result};
use crate::program::{Dims, Instr, Kernel, Tensor};
use crate::tape::Role;
use tiles::{Family, Split, Tile};

const REDUCE: Source =
    Source { name: "conv_reduce.cu", text: include_str!("../../../../../kernels/conv_reduce.cu") };

/// Parts of the workspace begin at multiples of this many bytes.
const ALIGNMENT: usize = 256;

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

    /// How the weight gradient's sum is cut.
    fn split(&self, family: &Family, tile: Tile) -> Split {
        let pixels = self.n * self.p * self.q;
        Split::new(self.kh * self.kw * self.ci, self.co, pixels, family.step, tile)
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
        let parts = shape.split(family, family.weights_tile(shape.co, vector)).parts;
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
    let split = s.split(family, tile);
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
