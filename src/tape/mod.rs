//! The tape: a Wengert list of operations from one small closed set. Recording infers shapes only;
//! nothing is computed until a [`crate::program::Session`] runs it.
//!
//! | file | the one thing that happens there |
//! |---|---|
//! | `shape.rs` | shapes, and the `[pre, mid, post]` view that sums and broadcasts use |
//! | `init.rs` | [`Init`]: how a state begins |
//! | `op.rs` | the closed set of operations |
//! | `facts.rs` | what there is to know of each: name, arguments, how it runs, the shape that it gives |
//! | `infer.rs` | the shapes that trilinear forms and windows give |
//! | `record.rs` | [`Tape`]: append, hash-cons |
//! | `build.rs` | the operations as methods, with their composites (`relu`, `mean`, `linear`, …) |
//! | `composites.rs` | average pooling, layer and group norm, dropout: made of operations |
//! | `simplify.rs` | identities that keep derivative programs short |
//! | `print.rs` | the tape as a readable program |
//! | `linear_map.rs` | [`LinearMap`]: a Jacobian block as a value; `apply` and `transpose` |
//! | `rules.rs` | the only derivative table |
//! | `walk.rs` | `jvp` and `vjp` |
//! | `samples.rs` | [`SampleSignals`]: both for losses of samples that do not couple, with fewer products |

#![deny(clippy::wildcard_enum_match_arm)]

mod build;
mod composites;
mod facts;
mod infer;
mod init;
mod linear_map;
mod op;
mod print;
mod record;
mod rules;
mod samples;
mod shape;
mod simplify;
mod walk;

pub(crate) use facts::Work;
pub(crate) use infer::windows;
pub use init::{First, Init};
pub use linear_map::{Block, LinearMap};
pub use op::{Form, Function, GatherSpec, Geometry, Kind, Op, Role, Scalar, Strided, Unary, Window};
pub use record::{Node, Tape, Var};
pub use samples::SampleSignals;
pub use shape::{Shape, View3};
