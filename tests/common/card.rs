//! A GPU that the sessions of one test share: to start one takes longer than to test an operation
//! on it.

use std::cell::OnceCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metatape::backend::cuda::Gpu;

/// Tests run on threads of one process, and so in one context of the driver: what one does while
/// another captures, the end of its cuBLAS among it, may end that capture. So there is one at a
/// time, whatever `--test-threads` says.
static TURN: Mutex<()> = Mutex::new(());

/// This machine's first GPU, the same one for all of a thread, and so for all of a test. Its memory
/// is given back when the test ends, and then it is another test's turn.
pub fn card() -> Arc<Mutex<Gpu>> {
    thread_local! {
        // In the order in which they go.
        static CARD: OnceCell<(Arc<Mutex<Gpu>>, MutexGuard<'static, ()>)> = const { OnceCell::new() };
    }
    let start = || {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let gpu = Gpu::new(0).unwrap_or_else(|e| panic!("this test runs on an NVIDIA GPU: {e}"));
        (Arc::new(Mutex::new(gpu)), turn)
    };
    CARD.with(|card| card.get_or_init(start).0.clone())
}
