//! The host side of each kernel family: its parameter structs, grids and workspace.

pub mod conv;
pub mod entrywise;
pub mod gemm;
pub mod norm;
pub mod pool;
pub mod reduce;
pub mod structure;
pub mod xent;

use super::builder::Builder;
use crate::error::Result;
use crate::program::Instr;
use super::Precision;

/// Bytes that an instruction's kernels need between them.
pub fn workspace_bytes(precision: Precision, instr: &Instr) -> usize {
    let _ = (precision, instr);
    todo!("dispatch on instr.kernel to the families")
}

/// Appends an instruction's commands.
pub fn build(b: &mut Builder, instr: &Instr) -> Result<()> {
    let _ = (b, instr);
    todo!("dispatch on instr.kernel to the families")
}
