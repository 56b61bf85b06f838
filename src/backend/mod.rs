//! Machines that run programs: each implements [`crate::program::Backend`].

pub mod cpu;
pub mod cuda;
