//! Programs: a tape made ready to run.
//!
//! | file | the one thing that happens there |
//! |---|---|
//! | `lower.rs` | rewrites after differentiation, tape to tape: dead code, batch norm as sums and entrywise work, … |
//! | `chains.rs` | the order of products in matrix chains |
//! | `pools.rs` | max-pooling before ReLU and bias |
//! | `fuse.rs` | entrywise operations that go through memory together become one group |
//! | `waits.rs` | which of these wait for which |
//! | `emit.rs` | units to kernels |
//! | `again.rs` | what is made a second time, so that it need not be kept |
//! | `activations.rs` | which tensors a machine may store in fewer bits |
//! | `memory.rs` | places in the arena |
//! | `kernel.rs` | what a backend is asked to run: kernels with their operands' places |
//! | `plan.rs` | the order of the kernels, the places of all tensors, reuse of memory |
//! | `limits.rs` | the ranges of labels and picks |
//! | `parts.rs` | a program by its named parts, for people |
//! | `session.rs` | bind, run, read; states shared by several programs |

#![deny(clippy::wildcard_enum_match_arm)]

mod activations;
mod again;
mod backend;
mod chains;
mod conv_shape;
mod emit;
mod fuse;
mod kernel;
mod limits;
mod lower;
mod memory;
mod parts;
mod plan;
mod pools;
mod session;
mod waits;

pub use backend::{Backend, Values};
pub use conv_shape::ConvShape;
pub use kernel::{Dims, Function, Group, Instr, Kernel, NEAR, Operand, Outcome, Place, Step, Tensor};
pub use parts::{Part, parts};
pub use plan::{Named, Options, Plan};
pub use session::{InputId, OutputId, Program, Session};
