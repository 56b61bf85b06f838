//! Batch norm's statistics, and batch norm and its Jacobian where they are not fused
//! (`kernels/norm.cu`).

use bytemuck::{Pod, Zeroable};

use super::super::builder::Builder;
use super::super::driver::{Address, Width};
use super::super::sources::NORM;
use super::walk::{Columns, Cut, NONE, Operand, Walk, blocks};
use crate::error::Result;
use crate::program::Instr;

/// `kernels/norm.cu`.
const TOTALS_THREADS: u32 = 512;
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
    eps: f64,
    inverse: u32,
    pad: u32,
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

/// Appends the commands of batch norm's statistics over `c` channels, and of what follows.
///
/// # Errors
/// If a tensor is larger than kernels can count.
pub fn build(b: &mut Builder, instr: &Instr, c: usize, then: Then) -> Result<()> {
    let count = instr.args[0].len;
    if count == 0 {
        return Ok(());
    }
    let columns = walk(count, c)?;
    let aligned = columns.walk.aligned();
    let moments = b.workspace;
    let coefficients = moments + (2 * c * size_of::<f32>()) as Address;
    let x = Operand::of(b, &instr.args[0]).vector_if(aligned);
    let out = Operand::of(b, &instr.outs[0]).vector_if(aligned);
    let params = Params {
        walk: columns.walk,
        x,
        v: NONE,
        out,
        moments,
        partials: moments + tables_bytes(c) as Address,
        coefficients,
        c: c as u32,
        beside: columns.beside,
        blocks: columns.walk.row_blocks(),
        rows: (count / c) as u32,
        eps: 0.0,
        inverse: 0,
        pad: 0,
    };
    let (grid, threads) = (columns.walk.grid(), columns.threads as u32);
    b.launch(&NORM, "moments", grid, threads, 0, &params)?;
    // Mean and 1/√(variance + eps) are for what follows in the same build; else the variance is
    // what is asked for.
    let total = match then {
        Then::Nothing => params,
        Then::Normalise(eps) | Then::Jacobian(eps) => {
            Params { out: Operand::new(moments, Width::F32), eps, inverse: 1, ..params }
        }
    };
    b.launch(&NORM, "moments_total", blocks(c, 32), TOTALS_THREADS, 0, &total)?;
    match then {
        Then::Nothing => Ok(()),
        Then::Normalise(_) => b.launch(&NORM, "normalise", grid, threads, 0, &params),
        Then::Jacobian(_) => {
            let v = Operand::of(b, &instr.args[1]).vector_if(aligned);
            let params = Params { v, ..params };
            b.launch(&NORM, "projections", grid, threads, 0, &params)?;
            b.launch(&NORM, "projections_total", blocks(c, 32), TOTALS_THREADS, 0, &params)?;
            b.launch(&NORM, "apply_jacobian", grid, threads, 0, &params)
        }
    }
}
