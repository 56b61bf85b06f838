//! Machines that run programs: each implements [`crate::program::Backend`].

#![deny(clippy::wildcard_enum_match_arm)]

pub mod cpu;
pub mod cuda;
