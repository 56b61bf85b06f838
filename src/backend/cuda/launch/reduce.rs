//! Sums over a middle axis (`kernels/reduce.cu`).

use bytemuck::{Pod, Zeroable};

use super::super::builder::Builder;
use super::super::driver::Command;
use super::super::sources::REDUCE;
use super::walk::{Operand, blocks, entries};
use crate::error::Result;
use crate::program::Instr;
use crate::tape::View3;

/// Threads of a block of `sum_wide`, of `sum_narrow` and of `totals`.
const WIDE_THREADS: u32 = 256;
const NARROW_THREADS: u32 = 128;
const TOTALS_THREADS: u32 = 512;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    x: Operand,
    out: Operand,
    partials: u64,
    pre: u32,
    mid: u32,
    post: u32,
    rows: u32,
    chunks: u32,
    strips: u32,
}

/// How many parts the middle axis is cut into, so that there are enough warps, and rows of each
/// part.
fn chunks(view: &View3) -> (usize, usize) {
    let wanted = if view.post > 32 {
        let blocks = view.pre * view.post.div_ceil(32);
        264_usize.div_ceil(blocks).min(view.mid / 64)
    } else {
        1056_usize.div_ceil(view.pre).min(view.mid * view.post / 2048)
    };
    let rows = view.mid.div_ceil(wanted.max(1)).max(1);
    (view.mid.div_ceil(rows), rows)
}

/// Bytes of the partial sums of all parts.
pub fn workspace_bytes(view: &View3) -> usize {
    if view.count() == 0 {
        return 0;
    }
    match chunks(view).0 {
        1 => 0,
        parts => parts * view.pre * view.post * size_of::<f64>(),
    }
}

/// Appends the commands of a sum.
///
/// # Errors
/// If a tensor is larger than kernels can count.
pub fn build(b: &mut Builder, instr: &Instr, view: &View3) -> Result<()> {
    let (x, out) = (&instr.args[0], &instr.outs[0]);
    if view.count() == 0 {
        let (to, bytes) = (b.address(out), out.len * b.width(out).bytes());
        if bytes > 0 {
            b.commands.push(Command::Clear { to, bytes });
        }
        return Ok(());
    }
    entries(view.count())?;
    let (parts, rows) = chunks(view);
    let strips = view.post.div_ceil(32);
    let params = Params {
        x: Operand::of(b, x),
        out: Operand::of(b, out),
        partials: b.workspace,
        pre: view.pre as u32,
        mid: view.mid as u32,
        post: view.post as u32,
        rows: rows as u32,
        chunks: parts as u32,
        strips: strips as u32,
    };
    if view.post > 32 {
        let grid = [(view.pre * parts * strips) as u32, 1, 1];
        b.launch(&REDUCE, "sum_wide", grid, WIDE_THREADS, 0, &params)?;
    } else {
        let grid = blocks(view.pre * parts, NARROW_THREADS as usize / 32);
        b.launch(&REDUCE, "sum_narrow", grid, NARROW_THREADS, 0, &params)?;
    }
    if parts > 1 {
        b.launch(&REDUCE, "totals", blocks(view.pre * view.post, 32), TOTALS_THREADS, 0, &params)?;
    }
    Ok(())
}
