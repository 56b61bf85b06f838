//! A recorded program by its named parts, with the work of each: what a person is shown.

use crate::tape::{Tape, Var};

use super::emit::flops;
use super::lower::live;

/// One section of a tape.
#[derive(Clone, PartialEq, Debug)]
pub struct Part {
    /// As [`Tape::section`] named it.
    pub title: String,
    /// Its operations that an output or update needs, leaves left out, in the order of recording.
    pub operations: Vec<Var>,
    /// Multiplications and additions of its contractions, as recorded: before any rewriting.
    pub flops: u64,
}

/// The parts of a tape in their order. What stands before the first section belongs to none.
pub fn parts(tape: &Tape) -> Vec<Part> {
    let live = live(tape);
    let mut parts: Vec<Part> = Vec::new();
    let mut sections = tape.sections().iter().peekable();
    for var in tape.vars() {
        while let Some((_, title)) = sections.next_if(|(at, _)| *at <= var.index()) {
            parts.push(Part { title: title.clone(), operations: Vec::new(), flops: 0 });
        }
        let Some(part) = parts.last_mut().filter(|_| live[var.index()] && !tape.node(var).args.is_empty())
        else {
            continue;
        };
        part.operations.push(var);
        part.flops += flops(tape, var);
    }
    parts
}
