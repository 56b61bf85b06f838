//! metatape: one tape, Jacobian blocks as data, three walks.
pub mod backend;
pub mod data;
pub mod error;
pub mod meta;
pub mod nn;
pub mod program;
pub mod tape;
pub mod train;

pub use error::{Error, Result};
