//! From `--device`, `--precision` and `--threads` to a backend; which GPUs there are.

use cudarc::driver::{result, sys};
use metatape::backend::cpu::Cpu;
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

    /// The machine to compute on.
    ///
    /// # Errors
    /// [`Error::Device`] for a GPU, which this version cannot use, and if the system refuses the threads.
    pub fn backend(&self) -> Result<Box<dyn Backend>> {
        let threads = self.threads()?;
        if let DeviceChoice::Cuda(number) = self.device {
            let found = match gpus() {
                gpus if gpus.is_empty() => "no GPU was found".to_owned(),
                gpus => format!("found but not usable: {}", gpus.join(", ")),
            };
            return Err(Error::Device(format!(
                "--device cuda:{number}: this version has no CUDA backend yet, so use --device cpu ({found})"
            )));
        }
        Ok(match self.precision {
            Precision::F32 => Box::new(Cpu::<f32>::new(threads)?),
            Precision::F64 => Box::new(Cpu::<f64>::new(threads)?),
        })
    }
}

/// Name, memory and compute capability of every GPU that the CUDA driver shows; empty without a driver.
pub fn gpus() -> Vec<String> {
    // SAFETY: loads the driver's library, whose initialisers are sound in any process. Without it, every other call of
    // cudarc would panic.
    if !unsafe { sys::is_culib_present() } || result::init().is_err() {
        return Vec::new();
    }
    let count = result::device::get_count().unwrap_or(0);
    (0..count).filter_map(|number| describe(number).ok()).collect()
}

fn describe(number: i32) -> Result<String, result::DriverError> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    let device = result::device::get(number)?;
    let name = result::device::get_name(device)?;
    // SAFETY: `device` was given by the driver in the line above, and is asked for nothing but properties.
    let (memory, major, minor) = unsafe {
        (
            result::device::total_mem(device)?,
            result::device::get_attribute(device, MAJOR)?,
            result::device::get_attribute(device, MINOR)?,
        )
    };
    let gib = memory as f64 / f64::from(1 << 30);
    Ok(format!("cuda:{number} {name}, {gib:.0} GiB, compute capability {major}.{minor}"))
}
