//! Batch norm's statistics, and batch norm and its Jacobian where they are not fused
//! (`kernels/norm.cu`).

use bytemuck::{Pod, Zeroable};

use super::super::builder::Builder;
use super::super::driver::{Address, Width};
use super::super::sources::NORM;
use super::tail::{Finish, TOTALS_THREADS};
use super::walk::{Columns, Cut, NONE, Operand, Walk, blocks};
use crate::error::Result;
use crate::program::Instr;

/// Threads of a block, in the order of liking.
const THREADS: [usize; 6] = [256, 224, 192, 160, 128, 96];

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    walk: Walk,
    x: Operand,
    v: Operand,
    out: Operand,
    moments: u64,
    partials: u64,
    coefficients: u64,
    c: u32,
    beside: u32,
    blocks: u32,
    rows: u32,
}

/// Twin of `MomentsTotal`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TotalParams {
    x: Operand,
    out: Operand,
    partials: u64,
    eps: f64,
    c: u32,
    blocks: u32,
    rows: u32,
    inverse: u32,
}

/// What follows the statistics.
#[derive(Clone, Copy)]
pub enum Then {
    /// They are what is asked for.
    Nothing,
    /// Batch norm with this epsilon.
    Normalise(f64),
    /// Its Jacobian.
    Jacobian(f64),
}

/// Two blocks for each of an H100's multiprocessors, and no block without four rows for each
/// thread.
fn walk(count: usize, c: usize) -> Result<Columns> {
    Columns::new(count, c, &THREADS, &Cut { blocks: 264, each: [4, usize::MAX], at_once: 4 })
}

/// Bytes of moments and coefficients, in front of the partial sums.
fn tables_bytes(c: usize) -> usize {
    (2 * 2 * c * size_of::<f32>()).next_multiple_of(256)
}

/// Bytes of moments, coefficients and the partial sums of all blocks.
pub fn workspace_bytes(instr: &Instr, c: usize) -> usize {
    let count = instr.args[0].len;
    if count == 0 {
        return 0;
    }
    match walk(count, c) {
        Ok(columns) => tables_bytes(c) + columns.walk.row_blocks() as usize * 2 * c * size_of::<f64>(),
        // What is wrong is said by `build`.
        Err(_) => 0,
    }
}

/// The statistics' last stage, to be launched after what [`build`] gives with [`Then::Nothing`].
///
/// # Errors
/// If a tensor is larger than kernels can count.
pub fn finish(b: &Builder, instr: &Instr, c: usize) -> Result<Option<Finish>> {
    if instr.args[0].len == 0 {
        return Ok(None);
    }
    let params = params(b, instr, c)?.0;
    Ok(Some(total(params, params.out, None)))
}

/// The last stage into `out`: mean and variance, or, with an epsilon, mean and
/// `1/√(variance + eps)`.
fn total(params: Params, out: Operand, eps: Option<f64>) -> Finish {
    let Params { x, partials, c, blocks, rows, .. } = params;
    let (eps, inverse) = (eps.unwrap_or(0.0), u32::from(eps.is_some()));
    let total = TotalParams { x, out, partials, eps, c, blocks, rows, inverse };
    Finish {
        kernel: (&NORM, "moments_total"),
        function: ("MomentsTotal", "total_moments"),
        params: bytemuck::bytes_of(&total).to_vec(),
        columns: c as usize,
    }
}

fn params(b: &Builder, instr: &Instr, c: usize) -> Result<(Params, Columns)> {
    let count = instr.args[0].len;
    let columns = walk(count, c)?;
    let aligned = columns.walk.aligned();
    let moments = b.workspace;
    let params = Params {
        walk: columns.walk,
        x: Operand::of(b, &instr.args[0]).vector_if(aligned),
        v: NONE,
        out: Operand::of(b, &instr.outs[0]).vector_if(aligned),
        moments,
        partials: moments + tables_bytes(c) as Address,
        coefficients: moments + (2 * c * size_of::<f32>()) as Address,
        c: c as u32,
        beside: columns.beside,
        blocks: columns.walk.row_blocks(),
        rows: (count / c) as u32,
    };
    Ok((params, columns))
}

/// Appends the commands of batch norm's statistics over `c` channels, and of what follows; where
/// nothing does, all but [`finish`].
///
/// # Errors
/// If a tensor is larger than kernels can count.
pub fn build(b: &mut Builder, instr: &Instr, c: usize, then: Then) -> Result<()> {
    if instr.args[0].len == 0 {
        return Ok(());
    }
    let (params, columns) = params(b, instr, c)?;
    let (grid, threads) = (columns.walk.grid(), columns.threads as u32);
    b.launch(&NORM, "moments", grid, threads, 0, &params)?;
    let (Then::Normalise(eps) | Then::Jacobian(eps)) = then else { return Ok(()) };
    total(params, Operand::new(params.moments, Width::F32), Some(eps)).launch(b)?;
    if let Then::Normalise(_) = then {
        return b.launch(&NORM, "normalise", grid, threads, 0, &params);
    }
    let v = Operand::of(b, &instr.args[1]).vector_if(columns.walk.aligned());
    let params = Params { v, ..params };
    b.launch(&NORM, "projections", grid, threads, 0, &params)?;
    b.launch(&NORM, "projections_total", blocks(c, 32), TOTALS_THREADS, 0, &params)?;
    b.launch(&NORM, "apply_jacobian", grid, threads, 0, &params)
}
