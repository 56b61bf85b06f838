//! Max-pooling and its transpose (`kernels/pool.cu`).

use bytemuck::{Pod, Zeroable};

use super::super::builder::Builder;
use super::super::divide::FastDiv;
use super::super::driver::Command;
use super::super::sources::POOL;
use super::walk::{Operand, blocks, entries};
use crate::error::Result;
use crate::program::Instr;
use crate::tape::{Window, windows};

/// `kernels/pool.cu`.
const THREADS: usize = 256;

/// Which of the two.
#[derive(Clone, Copy)]
pub enum Pooling {
    /// From a window its largest entry's place.
    Select,
    /// To that place.
    Unselect,
}

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

/// Appends the command of a selection, or of its transpose, from or to an image `[n,h,w,c]`.
///
/// # Errors
/// If a tensor is larger than kernels can count.
pub fn build(
    b: &mut Builder,
    instr: &Instr,
    which: Pooling,
    window: Window,
    [n, h, w, c]: [usize; 4],
) -> Result<()> {
    let along = |extent: usize| windows(extent, window.size, window.stride).unwrap_or(0);
    let (p, q) = (along(h), along(w));
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
    let ((rows, columns), name) = match which {
        Pooling::Select => ((p, q), "select"),
        Pooling::Unselect => ((h, w), "unselect"),
    };
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
    b.launch(&POOL, &format!("{name}_{lanes}"), blocks(count, THREADS), THREADS as u32, 0, &params)
}
