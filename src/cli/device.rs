//! From `--device`, `--precision` and `--threads` to a backend.

use std::sync::{Arc, Mutex, Once};

use metatape::backend::cpu::{Cpu, MOST_THREADS};
use metatape::program::Backend;
use metatape::train::values::Precision;
use metatape::{Error, Result};

use super::args::DeviceArgs;
use super::cuda::{self, Gpu, SharedGpu, describe_gpus};
use super::report::complain;
use super::values::DeviceChoice;

/// Kinds of machines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum On {
    /// The CPU.
    Cpu,
    /// A GPU, in this precision.
    Cuda(cuda::Precision),
}

/// Threads that the machine offers this process.
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What is asked of a machine.
#[derive(Clone, Debug)]
pub struct Machine {
    args: DeviceArgs,
    /// Its floating-point numbers.
    pub precision: Precision,
}

impl DeviceArgs {
    /// The machine in a precision.
    pub fn machine(&self, precision: Precision) -> Machine {
        Machine { args: self.clone(), precision }
    }
}

impl Machine {
    /// Threads to use.
    ///
    /// # Errors
    /// If more than 1024 are asked for.
    pub fn threads(&self) -> Result<usize> {
        let threads = self.args.threads.unwrap_or_else(available_threads);
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
    /// As [`Machine::backend_on`].
    pub fn backend(&self) -> Result<Box<dyn Backend>> {
        Ok(self.backend_on(true, &mut None)?.0)
    }

    /// The machine to compute on, and its kind. `graphs`: whether a GPU replays captured graphs;
    /// `opened`: a GPU that is open already for the same `--device`, or where to keep the one that
    /// is opened now, for other backends to share.
    ///
    /// # Errors
    /// [`Error::Usage`] for a precision that the device does not have, [`Error::Device`] for a GPU
    /// that is not there or cannot be used, and if the system refuses the threads.
    pub fn backend_on(&self, graphs: bool, opened: &mut Option<SharedGpu>) -> Result<(Box<dyn Backend>, On)> {
        let threads = self.threads()?;
        Ok(match self.gpu(opened)? {
            Some((gpu, cuda)) => (cuda::backend(gpu, cuda, graphs), On::Cuda(cuda)),
            None => (on_cpu(threads, self.precision)?, On::Cpu),
        })
    }

    /// The kind of machine to compute on. A GPU that is named need not be there.
    ///
    /// # Errors
    /// As [`Machine::backend_on`].
    pub fn on(&self) -> Result<On> {
        match (self.args.device, on_cuda(self.precision)) {
            (DeviceChoice::Cuda(_), Some(cuda)) => Ok(On::Cuda(cuda)),
            _ => Ok(self.backend_on(false, &mut None)?.1),
        }
    }

    /// Whether a GPU would be asked for.
    pub fn may_be_gpu(&self) -> bool {
        match self.args.device {
            DeviceChoice::Cpu => false,
            DeviceChoice::Cuda(_) => true,
            DeviceChoice::Auto => on_cuda(self.precision).is_some() && !describe_gpus().is_empty(),
        }
    }

    /// The GPU to compute on, with its precision; `None` where it is the CPU.
    fn gpu(&self, opened: &mut Option<SharedGpu>) -> Result<Option<(SharedGpu, cuda::Precision)>> {
        let precision = self.precision;
        let cuda = match (self.args.device, on_cuda(precision)) {
            (DeviceChoice::Cpu, _) | (DeviceChoice::Auto, None) => return Ok(None),
            (DeviceChoice::Cuda(_), None) => {
                return Err(Error::Usage(format!(
                    "--precision {precision} is for the CPU alone; take f32, tf32 or bf16 with --device cuda, or --device cpu"
                )));
            }
            (_, Some(cuda)) => cuda,
        };
        if let Some(gpu) = opened {
            return Ok(Some((gpu.clone(), cuda)));
        }
        let gpu = match self.args.device {
            DeviceChoice::Cuda(number) => {
                Gpu::new(number).map_err(|e| Error::Device(format!("--device cuda:{number}: {e}")))?
            }
            _ => match first_gpu() {
                Ok(gpu) => gpu,
                Err(reason) if cuda == cuda::Precision::F32 => {
                    tell_once(&reason);
                    return Ok(None);
                }
                Err(reason) => {
                    return Err(Error::Device(format!(
                        "--precision {precision} is for GPUs alone (the CPU has f32 and f64), and none can be used: {reason}"
                    )));
                }
            },
        };
        Ok(Some((opened.insert(Arc::new(Mutex::new(gpu))).clone(), cuda)))
    }
}

/// What a GPU calls a precision; `None` for what no GPU is used with.
fn on_cuda(precision: Precision) -> Option<cuda::Precision> {
    match precision {
        Precision::F32 => Some(cuda::Precision::F32),
        Precision::F64 => None,
        Precision::Tf32 => Some(cuda::Precision::Tf32),
        Precision::Bf16 => Some(cuda::Precision::Bf16),
    }
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
            complain(format_args!("metatape: computing on the CPU: {reason}"));
        }
    });
}
