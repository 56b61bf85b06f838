//! What a session needs of a machine. It stands here, and the machines in `crate::backend`, so that
//! imports point one way.

use std::sync::Arc;

use super::kernel::Tensor;
use super::plan::Plan;
use crate::error::Result;
use crate::tape::Kind;

/// Numbers on their way to a machine.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Rounded to the machine's precision.
    Float(&'a [f64]),
    /// Labels, picks.
    Int(&'a [i32]),
    /// Pixels.
    Byte(&'a [u8]),
    /// As [`Values::Byte`], of memory that the machine may share in place of a copy.
    Shared(&'a Arc<Vec<u8>>),
}

impl Values<'_> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        match self {
            Values::Float(v) => v.len(),
            Values::Int(v) => v.len(),
            Values::Byte(v) => v.len(),
            Values::Shared(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the entries are.
    pub fn kind(&self) -> Kind {
        match self {
            Values::Float(_) => Kind::Float,
            Values::Int(_) => Kind::Int,
            Values::Byte(_) | Values::Shared(_) => Kind::Byte,
        }
    }
}

/// A machine that keeps states and runs plans. States and programs are numbered from 0 in the order
/// of their making.
pub trait Backend: Send {
    /// Name and precision, for people.
    fn describe(&self) -> String;

    /// The precision, as users write it (`f32`, `f64`, `tf32`, `bf16`).
    fn precision(&self) -> &'static str;

    /// A new state of `len` zeros.
    fn add_state(&mut self, kind: Kind, len: usize) -> Result<()>;

    /// Overwrites a state. The session has checked kind and length.
    fn write_state(&mut self, state: usize, values: Values) -> Result<()>;

    /// A floating-point state's entries.
    fn read_state(&self, state: usize, out: &mut [f64]) -> Result<()>;

    /// Makes a plan ready to run; `states[i]` is the state that the plan's number `i` stands for.
    fn load(&mut self, plan: Plan, states: Vec<usize>) -> Result<()>;

    /// Overwrites an input. The session has checked kind and length.
    fn write_input(&mut self, program: usize, input: usize, values: Values) -> Result<()>;

    /// Runs a program. The machine may still be at it when this returns; whatever is called next
    /// waits as it must.
    fn run(&mut self, program: usize) -> Result<()>;

    /// Waits until all runs are done.
    fn wait(&self) -> Result<()>;

    /// Times each kernel of a program, in their order, possibly repeating it: (name, seconds).
    /// States are undefined afterwards.
    fn profile(&mut self, program: usize) -> Result<Vec<(&'static str, f64)>>;

    /// A tensor's entries after a run.
    fn read(&self, program: usize, tensor: Tensor, out: &mut [f64]) -> Result<()>;

    /// Bytes that one entry of kind `Float` takes.
    fn float_bytes(&self) -> usize;

    /// Bytes held in a memory of its own, apart from that of the process; `None` for a machine
    /// without one.
    fn device_bytes(&self) -> Option<usize> {
        None
    }
}
