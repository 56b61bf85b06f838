//! The CUDA backend: hand-written kernels (`kernels/*.cu`), cuBLAS for matrix products, one stream, one arena, one captured graph a
//! program.

pub mod builder;
pub mod driver;
pub mod launch;

/// How floating-point numbers are stored and multiplied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// f32 throughout.
    F32,
    /// f32 storage; convolutions and matrix products round their factors to tf32 (10 bits of mantissa).
    Tf32,
    /// Activations and their (co)tangents are stored in bf16; accumulation, statistics, losses, parameters and optimiser states are f32.
    Bf16,
}
