//! What the command asks of CUDA.

use std::sync::{Arc, Mutex};

use metatape::backend::cuda::Cuda;
pub use metatape::backend::cuda::driver::{Command, Source};
pub use metatape::backend::cuda::{
    Gpu, Precision, commands, compile_kernels, describe_gpus, entry_bytes, written,
};
use metatape::program::Backend;

/// A GPU for several backends.
pub type SharedGpu = Arc<Mutex<Gpu>>;

/// The backend on a GPU; `graphs`: whether it replays captured graphs.
pub fn backend(gpu: SharedGpu, precision: Precision, graphs: bool) -> Box<dyn Backend> {
    Box::new(Cuda::new(Box::new(gpu), precision, graphs))
}
