//! Which NVIDIA GPUs there are, and what their driver says when it refuses.

use cudarc::driver::{DriverError, result, sys};

use super::libraries;
use super::nvrtc::Capability;
use crate::error::{Error, Result};

pub(super) fn failed(what: &str) -> impl FnOnce(DriverError) -> Error {
    move |error| Error::Device(format!("the GPU cannot {what}: {}", explain(error)))
}

/// Name and text of a driver's error.
fn explain(error: DriverError) -> String {
    let text = |t: Result<&std::ffi::CStr, DriverError>| t.map(|t| t.to_string_lossy().into_owned());
    match (text(error.error_name()), text(error.error_string())) {
        (Ok(name), Ok(text)) => format!("{name}, {text}"),
        _ => format!("error {}", error.0 as u32),
    }
}

/// Starts the driver; the number of GPUs.
pub(super) fn count() -> Result<i32> {
    result::init().map_err(failed("be reached through its driver"))?;
    result::device::get_count().map_err(failed("be counted"))
}

/// Name, memory and compute capability of every GPU that the CUDA driver shows; empty without a
/// driver.
pub fn describe_gpus() -> Vec<String> {
    if !libraries::driver_present() {
        return Vec::new();
    }
    let count = count().unwrap_or(0);
    (0..count).filter_map(|number| describe(number).ok()).collect()
}

fn describe(number: i32) -> Result<String, DriverError> {
    let device = result::device::get(number)?;
    let name = result::device::get_name(device)?;
    // SAFETY: `device` was given by the driver in the lines above, and is asked for nothing but
    // properties.
    let memory = unsafe { result::device::total_mem(device)? };
    let Capability(capability) = capability(device)?;
    let gib = memory as f64 / f64::from(1 << 30);
    let (major, minor) = (capability / 10, capability % 10);
    Ok(format!("cuda:{number} {name}, {gib:.0} GiB, compute capability {major}.{minor}"))
}

pub(super) fn capability(device: sys::CUdevice) -> Result<Capability, DriverError> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    // SAFETY: `device` was given by the driver, and is asked for nothing but properties.
    let (major, minor) = unsafe {
        (result::device::get_attribute(device, MAJOR)?, result::device::get_attribute(device, MINOR)?)
    };
    Ok(Capability(10 * major + minor))
}
