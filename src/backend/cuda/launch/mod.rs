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

use pool::Pooling;

use super::Precision;
use super::builder::Builder;
use crate::error::Result;
use crate::program::{Instr, Kernel};
use crate::tape::{Form, Scalar};

/// Bytes that an instruction's kernels need between them. `wgmma`: the driver's.
pub fn workspace_bytes(precision: Precision, wgmma: bool, instr: &Instr) -> usize {
    match &instr.kernel {
        Kernel::Contract { form: Form::Conv(_), .. } => conv::workspace_bytes(precision, wgmma, instr),
        Kernel::Contract { form: Form::Gemm | Form::Mul, .. } => gemm::workspace_bytes(precision, instr),
        Kernel::Group(group) => entrywise::workspace_bytes(group),
        Kernel::Sum(view) => reduce::workspace_bytes(view),
        Kernel::Moments(c) | Kernel::Normalise(c, _) | Kernel::NormJacobian(c, _) => {
            norm::workspace_bytes(instr, *c)
        }
        Kernel::Select(..) | Kernel::Unselect(..) | Kernel::Subsample(..) | Kernel::Embed(..) => 0,
        Kernel::Unrow(_) | Kernel::Stack | Kernel::Gather(..) | Kernel::Copy => 0,
        Kernel::Softmax(_) | Kernel::CrossEntropy | Kernel::Correct => 0,
        Kernel::Residual | Kernel::WeightedResidual => 0,
    }
}

/// Appends the commands of an instruction.
fn build_one(b: &mut Builder, instr: &Instr) -> Result<()> {
    match &instr.kernel {
        Kernel::Contract { form: Form::Conv(_), .. } => conv::build(b, instr),
        Kernel::Contract { form: Form::Gemm | Form::Mul, .. } => gemm::build(b, instr),
        Kernel::Group(group) => entrywise::build(b, instr, group),
        Kernel::Sum(view) => reduce::build(b, instr, view),
        Kernel::Select(window, image) => pool::build(b, instr, Pooling::Select, *window, *image),
        Kernel::Unselect(window, image) => pool::build(b, instr, Pooling::Unselect, *window, *image),
        Kernel::Subsample(how, image) => structure::strided(b, instr, true, *how, *image),
        Kernel::Embed(how, image) => structure::strided(b, instr, false, *how, *image),
        Kernel::Unrow(at) => structure::place(b, instr, *at),
        Kernel::Stack => structure::stack(b, instr),
        Kernel::Copy => structure::copy(b, instr),
        Kernel::Gather(spec, image) => structure::gather(b, instr, spec, *image),
        Kernel::Moments(c) => norm::build(b, instr, *c, norm::Then::Nothing),
        Kernel::Normalise(c, Scalar(eps)) => norm::build(b, instr, *c, norm::Then::Normalise(*eps)),
        Kernel::NormJacobian(c, Scalar(eps)) => norm::build(b, instr, *c, norm::Then::Jacobian(*eps)),
        Kernel::Softmax(k) => xent::build(b, instr, "softmax", instr.args[0].len / (*k).max(1)),
        Kernel::CrossEntropy => xent::build(b, instr, "cross_entropy", instr.args[1].len),
        Kernel::Residual | Kernel::WeightedResidual => xent::build(b, instr, "residual", instr.args[1].len),
        Kernel::Correct => xent::build(b, instr, "correct", instr.args[1].len),
    }
}

/// Appends the commands of all instructions; per instruction, which of the builder's commands are
/// its. Where one launch serves several neighbours, it is the first one's.
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
            build_one(b, instr)?;
        }
        let to = b.commands.len();
        spans.push(from..to);
        spans.resize(spans.len() + count.saturating_sub(1), to..to);
    }
    Ok(spans)
}
