//! Time between two events.

use cudarc::driver::sys;

use super::cards::failed;
use crate::error::{Error, Result};

/// Milliseconds between two events. The binding has only the newer function, which drivers before
/// 12.8 do not have; the older one is in all of them.
pub(super) fn milliseconds(from: sys::CUevent, to: sys::CUevent) -> Result<f32> {
    type Elapsed = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> sys::CUresult;
    let mut milliseconds = 0.0;
    // SAFETY: the library is loaded, and the function's type is that of the driver's interface;
    // both events have happened.
    let answer = unsafe {
        let library = sys::culib();
        let elapsed = library.get::<Elapsed>(b"cuEventElapsedTime\0");
        let elapsed =
            elapsed.map_err(|e| Error::Device(format!("the GPU's driver cannot tell times: {e}")))?;
        elapsed(&raw mut milliseconds, from, to)
    };
    answer.result().map_err(failed("tell times"))?;
    Ok(milliseconds)
}
