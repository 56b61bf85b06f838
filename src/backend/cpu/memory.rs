//! What a program and the states lie in.

use std::sync::Arc;

use super::entrywise::Entrywise;
use super::real::Real;
use crate::error::Result;
use crate::program::{Plan, Values};
use crate::room;
use crate::tape::Kind;

/// Memory of one kind.
pub enum Buffer<T> {
    Float(Vec<T>),
    Int(Vec<i32>),
    /// May be shared with whoever gave it.
    Byte(Arc<Vec<u8>>),
}

/// Arenas begin at a multiple of this many bytes: a cache line, and the widest vector.
pub const ALIGNMENT: usize = 64;

/// `len` zeros, or [`Error::Device`](crate::error::Error::Device) where the machine has no room for
/// them.
pub fn zeros<V: Clone>(len: usize, zero: V) -> Result<Vec<V>> {
    room::check(
        len.saturating_mul(size_of::<V>()),
        "the CPU backend",
        "take a smaller --batch or a smaller model",
    )?;
    let mut memory = Vec::with_capacity(len);
    memory.resize(len, zero);
    Ok(memory)
}

impl<T: Real> Buffer<T> {
    pub fn zeros(kind: Kind, len: usize) -> Result<Buffer<T>> {
        Ok(match kind {
            Kind::Float => Buffer::Float(zeros(len, T::ZERO)?),
            Kind::Int => Buffer::Int(zeros(len, 0)?),
            // Pages that nobody writes to take no memory, but must be there to ask for.
            Kind::Byte => {
                room::check(len, "the CPU backend", "take fewer samples")?;
                Buffer::Byte(Arc::new(vec![0; len]))
            }
        })
    }

    pub fn write(&mut self, values: Values) {
        match (self, values) {
            (Buffer::Float(to), Values::Float(from)) => {
                to.iter_mut().zip(from).for_each(|(t, f)| *t = T::from_f64(*f));
            }
            (Buffer::Int(to), Values::Int(from)) => to.copy_from_slice(from),
            (Buffer::Byte(to), Values::Byte(from)) => *to = Arc::new(from.to_vec()),
            (Buffer::Byte(to), Values::Shared(from)) => *to = from.clone(),
            _ => unreachable!("the session checks kinds"),
        }
    }
}

/// How an instruction runs.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Way {
    Alone,
    /// Inside of one before it.
    Within,
    /// With instruction `next` inside of it, in so many pieces.
    Around {
        next: usize,
        pieces: usize,
    },
}

/// A program with its memory.
pub struct Loaded<T> {
    pub plan: Plan,
    pub states: Vec<usize>,
    pub inputs: Vec<Buffer<T>>,
    pub arena: Vec<T>,
    /// Where the plan's arena begins in `arena`, for [`ALIGNMENT`].
    pub start: usize,
    /// Per instruction, its group prepared for running.
    pub(super) groups: Vec<Option<Entrywise>>,
    /// Per instruction, whether and how it runs inside of another one, or another one inside of it.
    pub(super) ways: Vec<Way>,
    /// A kernel's workspace; then partial sums, of a group or of statistics.
    pub workspace: Vec<T>,
    /// Entrywise registers, per thread.
    pub scratch: Vec<T>,
}
