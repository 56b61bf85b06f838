//! Batch norm's statistics (`kernels/norm.cuh`).

use bytemuck::{Pod, Zeroable};

use super::super::builder::Builder;
use super::parts::Parts;
use super::walk::{Columns, Cut, Operand, PROCESSORS, Walk};
use crate::error::Result;
use crate::program::Instr;

/// Threads of a block, in the order of liking.
const THREADS: [usize; 8] = [512, 448, 384, 320, 256, 192, 128, 96];

/// Twin of `Norm`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Params {
    walk: Walk,
    x: Operand,
    out: Operand,
    partials: u64,
    parts: Parts,
    c: u32,
    beside: u32,
    rows: u32,
    unused: u32,
}

/// A block for each of an H100's multiprocessors, and none without two rows for each thread.
fn walk(count: usize, c: usize) -> Result<Columns> {
    Columns::new(count, c, &THREADS, &Cut { blocks: PROCESSORS, each: [2, usize::MAX], at_once: 2 })
}

/// Bytes of the sums of all blocks.
pub fn workspace_bytes(instr: &Instr, c: usize) -> usize {
    // What is wrong is said by `prepare`.
    let columns = Some(instr.args[0].len).filter(|n| *n > 0).and_then(|count| walk(count, c).ok());
    columns.map_or(0, |columns| columns.walk.row_blocks() as usize * 2 * c * size_of::<f64>())
}

/// The kernel's parameters, blocks and threads, over `c` channels; `None` where there is nothing to
/// do.
///
/// # Errors
/// If a tensor is larger than kernels can count.
pub fn prepare(b: &mut Builder, instr: &Instr, c: usize) -> Result<Option<(Params, [u32; 3], u32)>> {
    let count = instr.args[0].len;
    if count == 0 {
        return Ok(None);
    }
    let columns = walk(count, c)?;
    let (aligned, grid) = (columns.walk.aligned(), columns.walk.grid());
    let params = Params {
        walk: columns.walk,
        x: Operand::of(b, &instr.args[0]).vector_if(aligned),
        out: Operand::of(b, &instr.outs[0]),
        partials: b.workspace,
        parts: Parts::new(b, 1, columns.walk.row_blocks() as usize, grid[0] as usize)?,
        c: c as u32,
        beside: columns.beside,
        rows: (count / c) as u32,
        unused: 0,
    };
    Ok(Some((params, grid, columns.threads as u32)))
}
