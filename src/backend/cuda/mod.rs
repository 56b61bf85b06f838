//! The CUDA backend: hand-written kernels (`kernels/*.cu`), cuBLAS for matrix products, one stream,
//! one arena, one captured graph a program.
//!
//! | file | the one thing that happens there |
//! |---|---|
//! | `driver.rs` | what the backend needs of a machine, as a trait |
//! | `gpu.rs`, `blas.rs`, `elapsed.rs` | that machine as an NVIDIA GPU: context and stream, matrix products, time between events |
//! | `cards.rs`, `libraries.rs` | which GPUs there are, and what is loaded at run time |
//! | `sources.rs`, `nvrtc.rs`, `cache.rs`, `compile.rs` | the files of kernels, their compiler, what is compiled already, and the choice between the two |
//! | `builder.rs`, `launch/` | from the kernels of a plan to commands: parameter structs, grids, workspace; kernels written for a program |
//! | `divide.rs` | division by a number that the host knows |
//! | `backend.rs` | states and programs over any driver |
//! | `paper.rs` | what a plan would launch, without a machine |

mod backend;
mod blas;
pub mod builder;
mod cache;
mod cards;
mod compile;
mod divide;
pub mod driver;
mod elapsed;
mod gpu;
pub mod launch;
mod libraries;
mod nvrtc;
mod paper;
pub mod sources;

pub use backend::Cuda;
pub use builder::entry_bytes;
pub use cards::describe_gpus;
pub use compile::{Compiled, compile_kernels};
pub use gpu::Gpu;
pub use paper::{commands, written};

/// How floating-point numbers are stored and multiplied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// f32 throughout.
    F32,
    /// f32 storage; convolutions and matrix products round their factors to tf32 (10 bits of
    /// mantissa).
    Tf32,
    /// Activations and their (co)tangents are stored in bf16; accumulation, statistics, losses,
    /// parameters and optimiser states are f32.
    Bf16,
}

impl Precision {
    /// The name as users write it (`--precision tf32`).
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        }
    }
}
