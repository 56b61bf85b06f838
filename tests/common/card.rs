//! A GPU that the sessions of one test share: to start one takes longer than to test an operation on it.

use std::cell::OnceCell;
use std::sync::{Arc, Mutex, MutexGuard};

use metatape::Result;
use metatape::backend::cuda::Gpu;
use metatape::backend::cuda::driver::{Address, Command, Driver, Function, Graph, Source};

/// This machine's first GPU. Its memory is given back when the test ends.
pub struct Card(Arc<Mutex<Gpu>>);

impl Card {
    /// One a thread, and so one a test.
    pub fn new() -> Card {
        thread_local! {
            static CARD: OnceCell<Arc<Mutex<Gpu>>> = const { OnceCell::new() };
        }
        let start = || Gpu::new(0).unwrap_or_else(|e| panic!("this test runs on an NVIDIA GPU: {e}"));
        Card(CARD.with(|card| card.get_or_init(|| Arc::new(Mutex::new(start()))).clone()))
    }

    fn gpu(&self) -> MutexGuard<'_, Gpu> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Driver for Card {
    fn describe(&self) -> String {
        self.gpu().describe()
    }

    fn allocate(&mut self, bytes: usize) -> Result<Address> {
        self.gpu().allocate(bytes)
    }

    fn allocated(&self) -> usize {
        self.gpu().allocated()
    }

    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<()> {
        self.gpu().upload(to, bytes)
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        self.gpu().download(from, bytes)
    }

    fn function(&mut self, source: Source, name: &str) -> Result<Function> {
        self.gpu().function(source, name)
    }

    fn run(&mut self, command: &Command) -> Result<()> {
        self.gpu().run(command)
    }

    fn time(&mut self, commands: &[Command], times: usize) -> Result<f64> {
        self.gpu().time(commands, times)
    }

    fn begin_capture(&mut self) -> Result<()> {
        self.gpu().begin_capture()
    }

    fn end_capture(&mut self) -> Result<Graph> {
        self.gpu().end_capture()
    }

    fn replay(&mut self, graph: Graph) -> Result<()> {
        self.gpu().replay(graph)
    }

    fn synchronise(&self) -> Result<()> {
        self.gpu().synchronise()
    }
}
