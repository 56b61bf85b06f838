//! From `--device`, `--precision` and `--threads` to a backend.

use std::sync::Once;

use metatape::backend::cpu::Cpu;
use metatape::backend::cuda::{self, Cuda, Gpu, describe_gpus};
use metatape::program::Backend;
use metatape::{Error, Result};

use super::args::DeviceArgs;
use super::values::{DeviceChoice, Precision};

/// More threads than this is a slip of the finger.
const MOST_THREADS: usize = 1024;

/// Threads that the machine offers this process.
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl DeviceArgs {
    /// Threads to use.
    ///
    /// # Errors
    /// If more than 1024 are asked for.
    pub fn threads(&self) -> Result<usize> {
        let threads = self.threads.unwrap_or_else(available_threads);
        if threads > MOST_THREADS {
            let have = available_threads();
            return Err(Error::Usage(format!(
                "--threads {threads} is more than the {MOST_THREADS} that are sensible; this machine offers {have}"
            )));
        }
        Ok(threads)
    }

    /// The machine to compute on; a GPU replays captured graphs.
    ///
    /// # Errors
    /// As [`DeviceArgs::backend_with`].
    pub fn backend(&self) -> Result<Box<dyn Backend>> {
        self.backend_with(true)
    }

    /// The machine to compute on. `graphs`: whether a GPU replays captured graphs.
    ///
    /// # Errors
    /// [`Error::Usage`] for a precision that the device does not have, [`Error::Device`] for a GPU that is not there or cannot be used,
    /// and if the system refuses the threads.
    pub fn backend_with(&self, graphs: bool) -> Result<Box<dyn Backend>> {
        let (threads, precision) = (self.threads()?, self.precision);
        match self.device {
            DeviceChoice::Cuda(number) => match precision.cuda() {
                Some(cuda) => {
                    let named = |e| Error::Device(format!("--device cuda:{number}: {e}"));
                    Ok(on_gpu(Gpu::new(number).map_err(named)?, cuda, graphs))
                }
                None => Err(Error::Usage(format!(
                    "--precision {precision} is for the CPU alone; take f32, tf32 or bf16 with --device cuda, or --device cpu"
                ))),
            },
            DeviceChoice::Auto => {
                let Some(cuda) = precision.cuda() else { return on_cpu(threads, precision) };
                match first_gpu() {
                    Ok(gpu) => Ok(on_gpu(gpu, cuda, graphs)),
                    Err(reason) if cuda == cuda::Precision::F32 => {
                        tell_once(&reason);
                        on_cpu(threads, precision)
                    }
                    Err(reason) => Err(Error::Device(format!(
                        "--precision {precision} is for GPUs alone (the CPU has f32 and f64), and none can be used: {reason}"
                    ))),
                }
            }
            DeviceChoice::Cpu => on_cpu(threads, precision),
        }
    }
}

fn on_gpu(gpu: Gpu, precision: cuda::Precision, graphs: bool) -> Box<dyn Backend> {
    Box::new(Cuda::new(Box::new(gpu), precision, graphs))
}

fn on_cpu(threads: usize, precision: Precision) -> Result<Box<dyn Backend>> {
    match precision {
        Precision::F32 => Ok(Box::new(Cpu::<f32>::new(threads)?)),
        Precision::F64 => Ok(Box::new(Cpu::<f64>::new(threads)?)),
        Precision::Tf32 | Precision::Bf16 => Err(Error::Usage(format!(
            "--precision {precision} is for GPUs alone; take f32 or f64 on the CPU"
        ))),
    }
}

/// The first GPU that can be used; else why the first one cannot.
fn first_gpu() -> Result<Gpu> {
    let first = Gpu::new(0);
    let others = 1..describe_gpus().len();
    first.or_else(|reason| others.into_iter().find_map(|number| Gpu::new(number).ok()).ok_or(reason))
}

/// That a GPU which is there is not used; nothing where there is none.
fn tell_once(reason: &Error) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        if !describe_gpus().is_empty() {
            eprintln!("metatape: computing on the CPU: {reason}");
        }
    });
}
