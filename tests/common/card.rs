//! A GPU that the sessions of one test share: to start one takes longer than to test an operation on it.

use std::cell::OnceCell;
use std::sync::{Arc, Mutex};

use metatape::backend::cuda::Gpu;

/// This machine's first GPU, the same one for all of a thread, and so for all of a test. Its memory is given back when the test ends.
pub fn card() -> Arc<Mutex<Gpu>> {
    thread_local! {
        static CARD: OnceCell<Arc<Mutex<Gpu>>> = const { OnceCell::new() };
    }
    let start = || Gpu::new(0).unwrap_or_else(|e| panic!("this test runs on an NVIDIA GPU: {e}"));
    CARD.with(|card| card.get_or_init(|| Arc::new(Mutex::new(start()))).clone())
}
