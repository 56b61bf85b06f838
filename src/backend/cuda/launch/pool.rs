//! Max-pooling and its transpose (`kernels/pool.cu`).

use bytemuck::{Pod, Zeroable};

use super::super::Precision;
use super::super::builder::Builder;
use super::super::divide::FastDiv;
use super::super::driver::Command;
use super::super::sources::POOL;
use super::walk::{Operand, blocks, entries};
use crate::error::Result;
use crate::program::{Instr, Kernel};

/// `kernels/pool.cu`.
const THREADS: usize = 256;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    v: Operand,
    x: Operand,
    out: Operand,
    groups: FastDiv,
    columns: FastDiv,
    rows: FastDiv,
    count: u32,
    h: u32,
    w: u32,
    c: u32,
    p: u32,
    q: u32,
    k: u32,
    stride: u32,
    pad: u32,
}

/// These kernels need none.
pub fn workspace_bytes(_precision: Precision, _instr: &Instr) -> usize {
    0
}

/// Appends the command of a selection or of its transpose.
///
/// # Errors
/// If a tensor is larger than kernels can count.
pub fn build(b: &mut Builder, instr: &Instr) -> Result<()> {
    let (Kernel::Select(window, [n, h, w, c]) | Kernel::Unselect(window, [n, h, w, c])) = instr.kernel else {
        unreachable!("{} is no pooling", instr.kernel.name())
    };
    let select = matches!(instr.kernel, Kernel::Select(..));
    let windows = |extent: usize| (extent + window.stride).saturating_sub(window.size) / window.stride;
    let (p, q) = (windows(h), windows(w));
    entries(n * h * w * c)?;
    let out = &instr.outs[0];
    if out.len == 0 {
        return Ok(());
    }
    if p * q == 0 {
        // No window fits: nothing is selected, so the transpose is zero.
        let (to, bytes) = (b.address(out), out.len * b.width(out).bytes());
        b.commands.push(Command::Clear { to, bytes });
        return Ok(());
    }
    let (rows, columns) = if select { (p, q) } else { (h, w) };
    let lanes = if c.is_multiple_of(4) { 4 } else { 1 };
    let count = n * rows * columns * (c / lanes);
    let params = Params {
        v: Operand::of(b, &instr.args[0]),
        // Where a tensor steers its own selection, it is an argument once.
        x: Operand::of(b, instr.args.last().unwrap_or(&instr.args[0])),
        out: Operand::of(b, out),
        groups: FastDiv::new(c / lanes),
        columns: FastDiv::new(columns),
        rows: FastDiv::new(rows),
        count: count as u32,
        h: h as u32,
        w: w as u32,
        c: c as u32,
        p: p as u32,
        q: q as u32,
        k: window.size as u32,
        stride: window.stride as u32,
        pad: 0,
    };
    let name = match (select, lanes) {
        (true, 4) => "select_4",
        (true, _) => "select_1",
        (false, 4) => "unselect_4",
        (false, _) => "unselect_1",
    };
    b.launch(POOL, name, blocks(count, THREADS), THREADS as u32, 0, &params)
}
