//! metatape: one tape, Jacobian blocks as data, three walks.
pub mod error;
pub use error::{Error, Result};
pub mod data;
pub mod train;
