//! Machines that run programs: each implements [`crate::program::Backend`]. `cuda` is
//! there with the feature `cuda`. `work` counts what a plan asks of any of them.

#![deny(clippy::wildcard_enum_match_arm)]

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod work;
