//! The host side of each kernel family: its parameter structs, grids and workspace.

mod assemble;
pub mod conv;
pub mod entrywise;
pub mod gemm;
pub mod norm;
pub mod pool;
pub mod reduce;
pub mod structure;
mod walk;
pub mod xent;

use std::ops::Range;

use super::Precision;
use super::builder::Builder;
use crate::error::Result;
use crate::program::{Instr, Kernel};
use crate::tape::Form;

/// A family's two functions.
struct Family {
    workspace_bytes: fn(Precision, &Instr) -> usize,
    build: fn(&mut Builder, &Instr) -> Result<()>,
}

macro_rules! family {
    ($name:ident) => {
        Family { workspace_bytes: $name::workspace_bytes, build: $name::build }
    };
}

fn family(kernel: &Kernel) -> Family {
    match kernel {
        Kernel::Contract { form: Form::Conv(_), .. } => family!(conv),
        Kernel::Contract { .. } => family!(gemm),
        Kernel::Group(_) => family!(entrywise),
        Kernel::Sum(_) => family!(reduce),
        Kernel::Select(..) | Kernel::Unselect(..) => family!(pool),
        Kernel::Subsample(..) | Kernel::Embed(..) | Kernel::Unrow(_) | Kernel::Stack => family!(structure),
        Kernel::Gather(..) | Kernel::Copy => family!(structure),
        Kernel::Moments(_) | Kernel::Normalise(..) | Kernel::NormJacobian(..) => family!(norm),
        Kernel::Softmax(_) | Kernel::CrossEntropy | Kernel::Correct => family!(xent),
        Kernel::Residual | Kernel::WeightedResidual => family!(xent),
    }
}

/// Bytes that an instruction's kernels need between them.
pub fn workspace_bytes(precision: Precision, instr: &Instr) -> usize {
    (family(&instr.kernel).workspace_bytes)(precision, instr)
}

/// Appends the commands of all instructions; per instruction, which of the builder's commands are its. Where one launch serves several
/// neighbours, it is the first one's.
///
/// # Errors
/// If a kernel cannot be compiled, or a tensor is larger than kernels can count.
pub fn build(b: &mut Builder, instrs: &[Instr]) -> Result<Vec<Range<usize>>> {
    let mut spans = Vec::with_capacity(instrs.len());
    while let [instr, ..] = &instrs[spans.len()..] {
        let from = b.commands.len();
        let count = entrywise::together(&instrs[spans.len()..]);
        if count > 1 {
            entrywise::build_together(b, &instrs[spans.len()..][..count])?;
        } else {
            (family(&instr.kernel).build)(b, instr)?;
        }
        let to = b.commands.len();
        spans.push(from..to);
        spans.resize(spans.len() + count.saturating_sub(1), to..to);
    }
    Ok(spans)
}
