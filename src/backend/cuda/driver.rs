//! What the CUDA backend needs of a machine: a GPU through cudarc (`gpu.rs`), or the simulator of
//! the tests, which runs the same kernels on a CPU.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;

/// An address in device memory.
pub type Address = u64;

/// A kernel that a driver has made ready, by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Function(pub usize);

/// A captured sequence of commands, by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Graph(pub usize);

/// A file of `kernels/`, with the text of what it includes put in by name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Source {
    /// File name, as in `kernels/`; of a file that was written for a program, one that tells its
    /// text.
    pub name: Cow<'static, str>,
    /// CUDA C++.
    pub text: Cow<'static, str>,
}

/// What is run, one after another, on the one stream.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// A kernel of ours. It takes one parameter struct by value: `params`, its bytes.
    Launch {
        /// Which kernel.
        function: Function,
        /// Blocks in x, y, z.
        grid: [u32; 3],
        /// Threads of a block (one axis).
        block: u32,
        /// Bytes of dynamic shared memory.
        shared: u32,
        /// The parameter struct.
        params: Vec<u8>,
    },
    /// A matrix product of the library (cuBLAS).
    Gemm(Gemm),
    /// Zeros.
    Clear {
        /// First byte.
        to: Address,
        /// How many.
        bytes: usize,
    },
    /// Bytes from one place of the device to another that does not overlap it.
    Copy {
        /// First byte read.
        from: Address,
        /// First byte written.
        to: Address,
        /// How many.
        bytes: usize,
    },
}

/// Storage of a matrix or activation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// 4 bytes an entry.
    F32,
    /// 2 bytes an entry.
    Bf16,
}

impl Width {
    /// Bytes of an entry.
    pub fn bytes(self) -> usize {
        match self {
            Width::F32 => 4,
            Width::Bf16 => 2,
        }
    }
}

/// `c [m, n] = op(a)·op(b)`, plus `c` where `accumulate`. All row-major and dense; `a` is `[m, k]`,
/// or `[k, m]` where `a_transposed`; `b` is `[k, n]`, or `[n, k]` where `b_transposed`. `a` and `b`
/// have one width.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gemm {
    /// First factor.
    pub a: Address,
    /// Second factor.
    pub b: Address,
    /// Product.
    pub c: Address,
    /// Rows of the product.
    pub m: usize,
    /// Columns of the product.
    pub n: usize,
    /// What is summed over.
    pub k: usize,
    /// Whether `a` lies as `[k, m]`.
    pub a_transposed: bool,
    /// Whether `b` lies as `[n, k]`.
    pub b_transposed: bool,
    /// Whether the product is added to what `c` holds.
    pub accumulate: bool,
    /// Storage of both factors.
    pub factors: Width,
    /// Storage of the product.
    pub product: Width,
    /// Whether f32 factors may be rounded to tf32.
    pub tf32: bool,
}

/// A machine. All commands run in the order of their calls.
pub trait Driver: Send {
    /// The device, for people.
    fn describe(&self) -> String;

    /// Whether kernels may use products of warpgroups (wgmma), which only cards of compute
    /// capability 9.0 have.
    fn wgmma(&self) -> bool;

    /// So many blocks are sure to run at the same time, so that they may wait for each other: one
    /// for each multiprocessor.
    fn resident(&self) -> usize;

    /// `bytes` bytes of any content at an address that is a multiple of 256; they live until they
    /// are released, or as long as the driver.
    ///
    /// # Errors
    /// [`crate::Error::Device`] with what was asked for and what is free.
    fn allocate(&mut self, bytes: usize) -> Result<Address>;

    /// Copies to the device.
    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<()>;

    /// Copies from the device, after all commands before it are done.
    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()>;

    /// The kernel `name` of a file; compiled if it must be. Kernels of several files may have one
    /// name.
    fn function(&mut self, source: &Source, name: &str) -> Result<Function>;

    /// Makes files ready, each given once, whose kernels will be asked for: together, they are
    /// compiled faster.
    fn prepare(&mut self, sources: &[&Source]) -> Result<()>;

    /// Runs one command.
    fn run(&mut self, command: &Command) -> Result<()>;

    /// Bytes allocated so far.
    fn allocated(&self) -> usize;

    /// Captures `times` repetitions of the commands, replays them twice, and returns the seconds of
    /// one repetition in the second replay.
    fn time(&mut self, commands: &[Command], times: usize) -> Result<f64>;

    /// Records commands without running them, to be run as one.
    fn capture(&mut self, commands: &[Command]) -> Result<Graph>;

    /// Runs a recorded sequence.
    fn replay(&mut self, graph: Graph) -> Result<()>;

    /// Waits until everything is done.
    fn synchronise(&self) -> Result<()>;

    /// Waits until everything is done and gives back memory and recorded sequences, which nobody
    /// uses any more.
    fn release(&mut self, memory: &[Address], graphs: &[Graph]) -> Result<()>;
}

/// A machine that several backends share, each in its own precision.
impl<D: Driver> Driver for Arc<Mutex<D>> {
    fn describe(&self) -> String {
        hold(self).describe()
    }

    fn wgmma(&self) -> bool {
        hold(self).wgmma()
    }

    fn resident(&self) -> usize {
        hold(self).resident()
    }

    fn allocate(&mut self, bytes: usize) -> Result<Address> {
        hold(self).allocate(bytes)
    }

    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<()> {
        hold(self).upload(to, bytes)
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        hold(self).download(from, bytes)
    }

    fn function(&mut self, source: &Source, name: &str) -> Result<Function> {
        hold(self).function(source, name)
    }

    fn prepare(&mut self, sources: &[&Source]) -> Result<()> {
        hold(self).prepare(sources)
    }

    fn run(&mut self, command: &Command) -> Result<()> {
        hold(self).run(command)
    }

    fn allocated(&self) -> usize {
        hold(self).allocated()
    }

    fn time(&mut self, commands: &[Command], times: usize) -> Result<f64> {
        hold(self).time(commands, times)
    }

    fn capture(&mut self, commands: &[Command]) -> Result<Graph> {
        hold(self).capture(commands)
    }

    fn replay(&mut self, graph: Graph) -> Result<()> {
        hold(self).replay(graph)
    }

    fn synchronise(&self) -> Result<()> {
        hold(self).synchronise()
    }

    fn release(&mut self, memory: &[Address], graphs: &[Graph]) -> Result<()> {
        hold(self).release(memory, graphs)
    }
}

/// A machine on whose lock somebody panicked is as good as before: a driver's calls are whole or
/// are errors.
fn hold<D>(shared: &Mutex<D>) -> MutexGuard<'_, D> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
