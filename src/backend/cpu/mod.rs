//! The CPU kernels: plain functions over slices, parallel on rayon, the same bits on any number of threads.
pub mod conv;
pub mod isa;
pub mod par;
pub mod real;
