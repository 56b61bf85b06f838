//! What integers may say: a label names a class, a pick names a sample and a crop. Checked when
//! they are written, once for all machines, so that no kernel meets one that is out of range.

use super::kernel::{Kernel, Place};
use super::plan::Plan;
use crate::error::{Error, Result};

/// What a kernel asks of the integers that it reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Limit {
    /// Each is below this.
    Label(usize),
    /// Groups of four: index below `images`, dx and dy within ±`pad`, flip.
    Pick { images: usize, pad: usize },
}

/// The limits of all integers that a plan reads from outside, with their places.
pub(super) fn limits(plan: &Plan) -> Vec<(Place, Limit)> {
    let mut all = Vec::new();
    for instr in &plan.instrs {
        let args = &instr.args;
        let limit = match &instr.kernel {
            Kernel::CrossEntropy | Kernel::Residual | Kernel::WeightedResidual | Kernel::Correct => {
                Limit::Label(args[0].len / args[1].len.max(1))
            }
            Kernel::Gather(spec, [h, w, c]) => {
                Limit::Pick { images: args[0].len / (h * w * c).max(1), pad: spec.pad }
            }
            Kernel::Contract { .. } | Kernel::Group(_) | Kernel::Sum(_) => continue,
            Kernel::Select(..) | Kernel::Unselect(..) | Kernel::Subsample(..) | Kernel::Embed(..) => continue,
            Kernel::Unrow(_) | Kernel::Stack | Kernel::Copy | Kernel::Softmax(_) => continue,
            Kernel::Moments(_) => continue,
        };
        if !all.contains(&(args[1].place, limit)) {
            all.push((args[1].place, limit));
        }
    }
    all
}

impl Limit {
    /// # Errors
    /// [`Error::Data`] with the first integer that is out of range, and where `name` has it.
    pub fn check(self, name: &str, values: &[i32]) -> Result<()> {
        let inside = |v: i32, end: usize| usize::try_from(v).is_ok_and(|v| v < end);
        match self {
            Limit::Label(classes) => {
                if let Some(i) = values.iter().position(|v| !inside(*v, classes)) {
                    return Err(Error::Data(format!(
                        "`{name}`: label {} of sample {i} is none of the {classes} classes; labels run from 0 to {}",
                        values[i],
                        classes.saturating_sub(1)
                    )));
                }
            }
            Limit::Pick { images, pad } => {
                for (i, pick) in values.chunks_exact(4).enumerate() {
                    if !inside(pick[0], images) {
                        return Err(Error::Data(format!(
                            "`{name}`: pick {i} asks for image {}; there are images 0 to {}",
                            pick[0],
                            images.saturating_sub(1)
                        )));
                    }
                    if pick[1..3].iter().any(|d| d.unsigned_abs() as usize > pad) {
                        return Err(Error::Data(format!(
                            "`{name}`: pick {i} shifts the crop by ({}, {}), beyond the padding of {pad}",
                            pick[1], pick[2]
                        )));
                    }
                }
            }
        }
        Ok(())
    }
}
