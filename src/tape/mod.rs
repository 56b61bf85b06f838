//! The tape: a Wengert list of operations from one small closed set. Recording infers shapes only;
//! nothing is computed until a [`crate::program::Session`] runs it.
//!
//! | file | the one thing that happens there |
//! |---|---|
//! | `shape.rs` | shapes, and the `[pre, mid, post]` view that sums and broadcasts use |
//! | `init.rs` | [`Init`]: how a state begins |
//! | `op.rs` | the closed set of operations |
//! | `infer.rs` | which argument shapes an operation takes, and which shape it gives |
//! | `record.rs` | [`Tape`]: append, hash-cons, simplify |
//! | `build.rs` | the operations as methods, with their composites (`relu`, `mean`, `linear`, …) |
//! | `composites.rs` | average pooling, layer and group norm, dropout: made of operations |
//! | `print.rs` | the tape as a readable program |
//! | `linear_map.rs` | [`LinearMap`]: a Jacobian block as a value; `apply` and `transpose` |
//! | `rules.rs` | the only derivative table |
//! | `walk.rs` | `jvp` and `vjp` |

mod build;
mod composites;
mod infer;
mod init;
mod linear_map;
mod op;
mod print;
mod record;
mod rules;
mod shape;
mod walk;

pub use init::{First, Init};
pub use linear_map::{Block, LinearMap};
pub use op::{Form, GatherSpec, Geometry, Kind, Op, Role, Scalar, Strided, Unary, Window};
pub use record::{Node, Tape, Var};
pub use shape::{Shape, View3};
