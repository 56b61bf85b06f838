//! Ctrl-C and SIGTERM: the first one is only noted, for a training to end behind its present step;
//! the second one ends the process at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use metatape::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// The signal that was caught; 0 before.
static CAUGHT: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// Begins to note them; before, they end the process.
///
/// # Errors
/// If the system refuses.
pub fn note() -> Result<()> {
    let armed = Arc::new(AtomicBool::new(false));
    let refused = |e| Error::Device(format!("signals cannot be caught: {e}"));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the second one finds it armed by the first.
        flag::register_conditional_shutdown(signal, 128 + signal, armed.clone()).map_err(refused)?;
        flag::register(signal, armed.clone()).map_err(refused)?;
        flag::register_usize(signal, CAUGHT.clone(), signal as usize).map_err(refused)?;
    }
    Ok(())
}

/// The number of the signal that was caught.
pub fn caught() -> Option<u8> {
    Some(CAUGHT.load(Ordering::Relaxed) as u8).filter(|signal| *signal > 0)
}
