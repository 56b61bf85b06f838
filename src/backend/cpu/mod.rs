//! The CPU kernels: plain functions over slices, parallel on rayon, the same bits on any number of threads.
mod columns;
pub mod conv;
pub mod gemm;
pub mod isa;
pub mod norm;
pub mod par;
pub mod pool;
pub mod real;
pub mod reduce;
pub mod structure;
#[cfg(test)]
mod tests;
pub mod xent;
