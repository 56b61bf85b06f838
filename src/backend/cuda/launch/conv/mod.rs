//! Convolutions in their three roles (`kernels/conv.cuh`): tiles chosen by shape, and the weight
//! gradient's sum cut into parts. Small ones have kernels of their own (`small.rs`). On Hopper,
//! wide ones in bf16 go through its warpgroups (`kernels/conv_wgmma.cuh`), but where
//! METATAPE_NO_WGMMA is set when a GPU is opened.

mod small;
mod tiles;

use bytemuck::{Pod, Zeroable};

use super::parts::Parts;
use super::structure::cast;
use super::walk::entries;
use crate::backend::cuda::Precision;
use crate::backend::cuda::builder::{Builder, tensor_width};
use crate::backend::cuda::divide::FastDiv;
use crate::backend::cuda::driver::{Address, Command, Width};
use crate::error::{Error, Result};
use crate::program::{ConvShape, Dims, Instr, Kernel, Tensor};
use crate::tape::{Form, Role};
use small::{Operands, Small};
use tiles::{Family, Heights, Product, Split, Tile};

/// Parts of the workspace begin at multiples of this many bytes.
const ALIGNMENT: usize = 256;

/// Twin of `ConvParams`.
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
    whole: i32,
    rest: i32,
    by_image: FastDiv,
    by_row: FastDiv,
    groups: i32,
    unused: i32,
}

/// A convolution's shapes, the role that is computed, and whether it is added to what is there.
fn told(instr: &Instr) -> (ConvShape, Role, bool) {
    let Kernel::Contract { out, dims: Dims::Conv(shape), accumulate, .. } = instr.kernel else {
        unreachable!("{} is no convolution", instr.kernel.name())
    };
    (shape, out, accumulate)
}

/// A role's product, of each group of channels.
fn product(s: &ConvShape, role: Role) -> Product {
    let (pixels, taps, classes) = (s.n * s.oh() * s.ow(), s.kh * s.kw, s.groups);
    let (ci, co) = (s.ci / s.groups, s.co / s.groups);
    match role {
        Role::C => Product { rows: pixels, columns: co, classes, depth: taps * ci },
        Role::A => {
            let rows = s.n * s.h.div_ceil(s.stride) * s.w.div_ceil(s.stride);
            let squared = s.stride * s.stride;
            Product { rows, columns: ci, classes: squared * classes, depth: taps * co / squared }
        }
        Role::B => Product { rows: taps * ci, columns: co, classes, depth: pixels },
    }
}

/// The tile for a role; `vector`: tensors are aligned, and channels come in whole vectors.
fn tile_for(family: &Family, s: &ConvShape, role: Role, vector: bool) -> Tile {
    let product = product(s, role);
    if s.groups > 1 {
        family.tile(role, product, false).grouped()
    } else {
        family.tile(role, product, vector)
    }
}

/// The width that a convolution's argument must have.
fn wanted(family: &Family, tile: Tile, role: Role) -> Width {
    if role == Role::B { tile.filter } else { family.storage }
}

/// An argument that must be cast: bytes it takes in the workspace.
fn cast_bytes(precision: Precision, tensor: &Tensor, width: Width) -> usize {
    match tensor_width(precision, tensor) == width {
        true => 0,
        false => (tensor.len * width.bytes()).next_multiple_of(ALIGNMENT),
    }
}

/// Bytes of the arguments that are cast, and of the partial sums of a weight gradient. `wgmma`: the
/// driver's.
pub fn workspace_bytes(precision: Precision, wgmma: bool, instr: &Instr) -> usize {
    let (shape, out, _) = told(instr);
    let (family, product) = (Family::of(precision, wgmma), product(&shape, out));
    // Whether vectors can be used depends on addresses, too: room for either.
    let bytes = [false, true].map(|vector| {
        let tile = tile_for(family, &shape, out, vector);
        let args = instr.args.iter().zip(out.others().into_iter().cycle());
        let casts: usize = args.map(|(t, role)| cast_bytes(precision, t, wanted(family, tile, role))).sum();
        let parts = match Small::of(precision, out, &shape).filter(|_| vector) {
            Some(small) => small.parts,
            None if out == Role::B => Split::new(product, tile).parts,
            None => 1,
        };
        casts + if parts > 1 { parts * instr.outs[0].len * size_of::<f32>() } else { 0 }
    });
    bytes[0].max(bytes[1])
}

fn int(count: usize) -> Result<i32> {
    entries(count).map(|n| n as i32)
}

/// Appends the commands of a convolution in one of its roles.
///
/// # Errors
/// If an extent is larger than kernels can count.
pub fn build(b: &mut Builder, instr: &Instr) -> Result<()> {
    let (s, role, accumulate) = told(instr);
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
    // Of a group: the gathered factor's extents, the grid of the product's pixels, and the
    // product's columns.
    let ((source_h, source_w, channels), (grid_h, grid_w), columns) = match role {
        Role::C | Role::B => ((s.h, s.w, s.ci / s.groups), (s.oh(), s.ow()), s.co / s.groups),
        Role::A => ((s.oh(), s.ow(), s.co / s.groups), (s.h, s.w), s.ci / s.groups),
    };
    let family = Family::of(b.precision, b.driver.wgmma());
    let lanes = 16 / family.storage.bytes();
    let vector = [channels, columns].iter().all(|c| c.is_multiple_of(lanes))
        && instr.args.iter().chain([to]).all(|t| b.address(t).is_multiple_of(16));
    let tile = tile_for(family, &s, role, vector);
    let mut free = b.workspace;
    let mut at = [0; 4];
    for (i, (tensor, role)) in instr.args.iter().zip(role.others().into_iter().cycle()).enumerate() {
        let (address, width) = (b.address(tensor), wanted(family, tile, role));
        let bytes = cast_bytes(b.precision, tensor, width);
        at[i] = if bytes == 0 { address } else { free };
        free += bytes as Address;
        if bytes > 0 {
            cast(b, address, b.width(tensor), at[i], width, tensor.len)?;
        }
    }
    let [x, y, second @ ..] = at;
    let [source, other] = if role == Role::A { [y, x] } else { [x, y] };
    // Kernels count entries of a tensor, and rows and pixels with something to spare for what tiles
    // leave over.
    let rows = if role == Role::B { s.kh * s.kw * s.ci } else { s.n * grid_h * grid_w };
    for count in [rows + 4096, s.n * s.oh() * s.ow() + 4096, instr.args[0].len, instr.args[1].len] {
        entries(count)?;
    }
    let params = Params {
        source,
        other,
        second,
        out,
        partial: free,
        parts: Parts::new(b, 1, 1, 1)?,
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
        whole: 0,
        rest: 0,
        by_image: FastDiv::new(grid_h * grid_w),
        by_row: FastDiv::new(grid_w),
        groups: int(s.groups)?,
        unused: 0,
    };
    let small = Small::of(b.precision, role, &s).filter(|_| vector && tile.filter == Width::F32);
    if let Some(small) = small {
        let Params { source, other, second, out, partial, .. } = params;
        let (out_half, accumulate) = (params.out_half != 0, params.accumulate != 0);
        let operands = Operands { source, other, second, out, partial, out_half, accumulate };
        return small.build(b, role, &s, operands);
    }
    match role {
        Role::B => weight_gradient(b, family, &s, params, tile),
        Role::A | Role::C => correlate(b, family, &s, role, params, tile),
    }
}

fn too_many(what: &str, count: usize) -> Error {
    Error::Program(format!("a convolution with {count} {what} is too large for the CUDA backend"))
}

fn correlate(
    b: &mut Builder,
    family: &Family,
    s: &ConvShape,
    role: Role,
    params: Params,
    tile: Tile,
) -> Result<()> {
    let name = if role == Role::C { "forward" } else { "data_gradient" };
    let product = product(s, role);
    let heights = Heights::new(product, tile);
    let (m, n) = (heights.blocks(product, tile), product.columns.div_ceil(tile.n));
    let grid = if tile.in_row() { grid(m * n, 1, product.classes) } else { grid(m, n, product.classes) }?;
    let params = Params { whole: int(heights.whole)?, rest: int(heights.rest)?, ..params };
    let shared = family.shared_bytes(role, tile) as u32;
    b.launch(tile.source, &format!("{name}_{}", tile.name), grid, tile.threads as u32, shared, &params)
}

fn weight_gradient(
    b: &mut Builder,
    family: &Family,
    s: &ConvShape,
    params: Params,
    tile: Tile,
) -> Result<()> {
    let product = product(s, Role::B);
    let (Product { rows, columns, .. }, split) = (product, Split::new(product, tile));
    let tiles = [rows.div_ceil(tile.m), columns.div_ceil(tile.n)];
    let grid = grid(tiles[0], tiles[1], split.parts * s.groups)?;
    let shared = family.shared_bytes(Role::B, tile) as u32;
    assert_eq!(params.out_half, 0, "weight gradients are f32 in every precision");
    let parts = Parts::new(b, tiles[0] * tiles[1] * s.groups, split.parts, split.parts)?;
    let params = Params { steps_per_split: int(split.steps_per_part)?, parts, ..params };
    let name = format!("weight_gradient_{}", tile.name);
    b.launch(tile.source, &name, grid, tile.threads as u32, shared, &params)
}

/// What of a convolution that is small as it lies, without a cast of its arguments.
struct AsItLies {
    small: Small,
    shape: ConvShape,
    operands: Operands,
}

impl AsItLies {
    fn new(b: &Builder, instr: &Instr, role: Role) -> Option<AsItLies> {
        if !matches!(&instr.kernel, Kernel::Contract { form: Form::Conv(_), out, .. } if *out == role) {
            return None;
        }
        let (shape, _, accumulate) = told(instr);
        let family = Family::of(b.precision, b.driver.wgmma());
        let to = &instr.outs[0];
        let fits = instr.args.iter().chain([to]).all(|t| b.address(t).is_multiple_of(16) && t.len > 0);
        let tile = tile_for(family, &shape, role, true);
        let lies = |(t, of): (&Tensor, Role)| cast_bytes(b.precision, t, wanted(family, tile, of)) == 0;
        if !fits || tile.filter != Width::F32 || !instr.args.iter().zip(role.others()).all(lies) {
            return None;
        }
        let small = Small::of(b.precision, role, &shape)?;
        let [x, y] = [0, 1].map(|i: usize| b.address(&instr.args[i]));
        let (source, other) = if role == Role::A { (y, x) } else { (x, y) };
        let out_half = b.width(to) == Width::Bf16;
        let partial = b.workspace;
        let (second, out) = ([0; 2], b.address(to));
        let operands = Operands { source, other, second, out, partial, out_half, accumulate };
        Some(AsItLies { small, shape, operands })
    }
}

/// Whether these two, a data gradient and a weight gradient, go into one launch.
pub fn go_together(b: &Builder, data: &Instr, weights: &Instr) -> bool {
    let pair = AsItLies::new(b, data, Role::A).zip(AsItLies::new(b, weights, Role::B));
    pair.is_some_and(|(data, weights)| data.small.pair_name().is_some() && weights.shape.stride == 1)
        && !data.depends(weights)
}

/// Appends the commands of two convolutions that [`go_together`].
///
/// # Errors
/// If an extent is larger than kernels can count.
pub fn build_together(b: &mut Builder, data: &Instr, weights: &Instr) -> Result<()> {
    let pair = AsItLies::new(b, data, Role::A).zip(AsItLies::new(b, weights, Role::B));
    let Some((data, weights)) = pair else { unreachable!("they go together") };
    let shapes = [&data.shape, &weights.shape];
    Small::build_pair(b, [&data.small, &weights.small], shapes, [data.operands, weights.operands])
}

/// Blocks in x, y, z, of which the hardware takes 65535 in y and z.
fn grid(m: usize, n: usize, z: usize) -> Result<[u32; 3]> {
    if n > 65535 {
        return Err(too_many("tiles of output channels", n));
    }
    if z > 65535 {
        return Err(too_many("classes of pixels (stride squared) times groups", z));
    }
    Ok([m as u32, n as u32, z as u32])
}
