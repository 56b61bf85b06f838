//! The host side of each kernel family: its parameter structs, grids and workspace.

pub mod conv;
pub mod entrywise;
pub mod gemm;
pub mod norm;
mod parts;
pub mod pool;
pub mod reduce;
pub mod structure;
mod walk;
pub mod xent;

use std::ops::Range;

use pool::Pooling;

use super::Precision;
use super::builder::{Builder, Prepared};
use crate::error::Result;
use crate::program::{Instr, Kernel};
use crate::tape::Form;

/// Bytes that an instruction's kernels need between them. `wgmma`: the driver's.
pub fn workspace_bytes(precision: Precision, wgmma: bool, instr: &Instr) -> usize {
    match &instr.kernel {
        Kernel::Contract { form: Form::Conv(_), .. } => conv::workspace_bytes(precision, wgmma, instr),
        Kernel::Contract { form: Form::Gemm | Form::Mul, .. } => gemm::workspace_bytes(precision, instr),
        Kernel::Group(group) => entrywise::workspace_bytes(group),
        Kernel::Sum(view) => reduce::workspace_bytes(view),
        Kernel::Moments(c) => norm::workspace_bytes(instr, *c),
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
        Kernel::Sum(view) => reduce::build(b, instr, view),
        Kernel::Select(window, image) => pool::build(b, instr, Pooling::Select, *window, *image),
        Kernel::Unselect(window, image) => pool::build(b, instr, Pooling::Unselect, *window, *image),
        Kernel::Subsample(how, image) => structure::strided(b, instr, true, *how, *image),
        Kernel::Embed(how, image) => structure::strided(b, instr, false, *how, *image),
        Kernel::Unrow(at) => structure::place(b, instr, *at),
        Kernel::Stack => structure::stack(b, instr),
        Kernel::Copy => structure::copy(b, instr),
        Kernel::Gather(spec, image) => structure::gather(b, instr, spec, *image),
        // Nothing is to be done: they would have been prepared.
        Kernel::Group(_) | Kernel::Moments(_) => {
            entrywise::clear(b, instr);
            Ok(())
        }
        Kernel::Softmax(k) => xent::build(b, instr, "softmax", instr.args[0].len / (*k).max(1)),
        Kernel::CrossEntropy => xent::build(b, instr, "cross_entropy", instr.args[1].len),
        Kernel::Residual | Kernel::WeightedResidual => xent::build(b, instr, "residual", instr.args[1].len),
        Kernel::Correct => xent::build(b, instr, "correct", instr.args[1].len),
    }
}

/// Instructions that share a launch.
struct Part {
    count: usize,
    /// Of entrywise groups and of statistics.
    launch: Option<Prepared>,
    /// A data gradient and a weight gradient.
    gradients: bool,
}

impl Part {
    /// Of the first of these instructions, and of as many after it as can go with it.
    fn new(b: &mut Builder, instrs: &[Instr]) -> Result<Part> {
        if let [first, second, ..] = instrs
            && conv::go_together(b, first, second)
        {
            return Ok(Part { count: 2, launch: None, gradients: true });
        }
        let together = entrywise::together(instrs);
        let (launch, count) = if together > 1 {
            (Some(entrywise::prepare_many(b, &instrs[..together])?), together)
        } else {
            entrywise::prepare(b, instrs)?.map_or((None, 1), |(launch, after)| (Some(launch), 1 + after))
        };
        Ok(Part { count, launch, gradients: false })
    }
}

/// Appends the commands of all instructions; per instruction, which of the builder's commands are
/// its. Where one launch serves several neighbours, it is the first one's.
///
/// # Errors
/// If a kernel cannot be compiled, or a tensor is larger than kernels can count.
pub fn build(b: &mut Builder, instrs: &[Instr]) -> Result<Vec<Range<usize>>> {
    // First what is written for this program, so that all of it can be compiled at once.
    let (mut parts, mut done) = (Vec::new(), 0);
    while done < instrs.len() {
        let part = Part::new(b, &instrs[done..])?;
        done += part.count;
        parts.push(part);
    }
    let mut sources: Vec<_> = parts.iter().filter_map(|p| p.launch.as_ref()).map(|l| &l.source).collect();
    // Layers of one kind share theirs.
    sources.sort_unstable();
    sources.dedup();
    b.driver.prepare(&sources)?;
    let mut spans = Vec::with_capacity(instrs.len());
    for part in parts {
        let from = b.commands.len();
        let first = &instrs[spans.len()];
        if let Some(launch) = part.launch {
            b.launch_prepared(launch)?;
        } else if part.gradients {
            conv::build_together(b, first, &instrs[spans.len() + 1])?;
        } else {
            build_one(b, first)?;
        }
        let to = b.commands.len();
        spans.push(from..to);
        spans.resize(spans.len() + part.count - 1, to..to);
    }
    Ok(spans)
}
