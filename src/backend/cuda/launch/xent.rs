//! Softmax, cross-entropy and its derivatives (`kernels/xent.cu`).

use bytemuck::{Pod, Zeroable};

use super::super::builder::Builder;
use super::super::sources::XENT;
use super::walk::{NONE, Operand, blocks, entries};
use crate::error::Result;
use crate::program::Instr;

/// `kernels/xent.cu`.
const THREADS: usize = 128;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    z: Operand,
    weight: Operand,
    out: Operand,
    labels: u64,
    n: u32,
    k: u32,
}

/// Appends the command of softmax, cross-entropy, one of its derivatives or hits: the kernel
/// `name`, over so many samples.
///
/// # Errors
/// If a tensor is larger than kernels can count.
pub fn build(b: &mut Builder, instr: &Instr, name: &str, samples: usize) -> Result<()> {
    let (z, out) = (&instr.args[0], &instr.outs[0]);
    entries(z.len)?;
    if z.len == 0 {
        return Ok(());
    }
    let params = Params {
        z: Operand::of(b, z),
        weight: instr.args.get(2).map_or(NONE, |w| Operand::of(b, w)),
        out: Operand::of(b, out),
        labels: instr.args.get(1).map_or(0, |y| b.address(y)),
        n: samples as u32,
        k: (z.len / samples) as u32,
    };
    b.launch(&XENT, name, blocks(samples, THREADS / 32), THREADS as u32, 0, &params)
}
