//! Machines that run programs: each implements [`crate::program::Backend`]. `cuda` is
//! there with the feature `cuda`.

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
