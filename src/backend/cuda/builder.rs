//! From the kernels of a plan to the commands of a driver: where operands lie, and what is
//! launched.

use bytemuck::Pod;

use super::Precision;
use super::driver::{Address, Command, Driver, Function, Source, Width};
use crate::error::Result;
use crate::program::{Place, Tensor};
use crate::tape::Kind;

/// Words of zeros that are taken at once.
const LEAST_TICKETS: usize = 1024;

/// A launch of a kernel that was written for a program.
pub struct Prepared {
    /// The kernel's file.
    pub source: Source,
    /// The kernel.
    pub name: String,
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// The parameter struct.
    pub params: Vec<u8>,
}

/// What the launch code of a kernel works with.
pub struct Builder<'a> {
    /// Compiles kernels.
    pub driver: &'a mut dyn Driver,
    /// Of the backend.
    pub precision: Precision,
    /// Where the program's arena begins.
    pub arena: Address,
    /// Where the states of the plan's list begin.
    pub states: &'a [Address],
    /// Where the inputs of the plan's list begin.
    pub inputs: &'a [Address],
    /// Memory that a kernel may use between its own launches: as much as `workspace_bytes` of
    /// `launch/` said.
    pub workspace: Address,
    /// A word that launches whose blocks wait for each other change.
    pub gate: Address,
    /// So many words of zeros, which launches whose blocks count themselves leave as zeros.
    pub tickets: (Address, usize),
    /// All that the backend has allocated.
    pub memory: &'a mut Vec<Address>,
    /// What has been built so far.
    pub commands: Vec<Command>,
}

impl Builder<'_> {
    /// Where a tensor begins.
    pub fn address(&self, tensor: &Tensor) -> Address {
        match tensor.place {
            // An entry of the arena has room for an f32; a tensor in half precision fills half of
            // its room.
            Place::Arena(at) => self.arena + 4 * at as u64,
            Place::State(i, at) => self.states[i] + kind_bytes(tensor.kind) as u64 * at as u64,
            Place::Input(i, at) => self.inputs[i] + kind_bytes(tensor.kind) as u64 * at as u64,
        }
    }

    /// How a tensor's floating-point entries are stored.
    pub fn width(&self, tensor: &Tensor) -> Width {
        tensor_width(self.precision, tensor)
    }

    /// So many words of zeros for a launch whose blocks count themselves. It leaves them as zeros.
    pub fn tickets(&mut self, count: usize) -> Result<Address> {
        if self.tickets.1 < count {
            let count = count.next_power_of_two().max(LEAST_TICKETS);
            self.tickets = (self.upload(&vec![0; count * size_of::<u32>()])?, count);
        }
        Ok(self.tickets.0)
    }

    /// The address of a copy of `bytes` on the device, for what is decided when a program is loaded
    /// and does not fit into a parameter struct.
    pub fn upload(&mut self, bytes: &[u8]) -> Result<Address> {
        let address = self.driver.allocate(bytes.len())?;
        self.memory.push(address);
        self.driver.upload(address, bytes)?;
        Ok(address)
    }

    /// Launches the kernel `name` of `source` with one parameter struct, in `grid` blocks of
    /// `block` threads.
    pub fn launch<P: Pod>(
        &mut self,
        source: &Source,
        name: &str,
        grid: [u32; 3],
        block: u32,
        shared: u32,
        params: &P,
    ) -> Result<()> {
        let function = self.driver.function(source, name)?;
        self.push(function, grid, block, shared, bytemuck::bytes_of(params).to_vec());
        Ok(())
    }

    /// Launches a kernel with the bytes of its parameter struct.
    pub fn push(&mut self, function: Function, grid: [u32; 3], block: u32, shared: u32, params: Vec<u8>) {
        self.commands.push(Command::Launch { function, grid, block, shared, params });
    }

    /// Launches what was prepared.
    pub fn launch_prepared(&mut self, prepared: Prepared) -> Result<()> {
        let Prepared { source, name, grid, block, shared, params } = prepared;
        let function = self.driver.function(&source, &name)?;
        self.push(function, grid, block, shared, params);
        Ok(())
    }
}

/// Bytes of an entry of a kind in an input or state.
pub(super) fn kind_bytes(kind: Kind) -> usize {
    match kind {
        Kind::Float | Kind::Int => 4,
        Kind::Byte => 1,
    }
}

/// Bytes of a tensor's entry, whatever its kind.
pub fn entry_bytes(precision: Precision, tensor: &Tensor) -> usize {
    match tensor.kind {
        Kind::Float => tensor_width(precision, tensor).bytes(),
        kind @ (Kind::Int | Kind::Byte) => kind_bytes(kind),
    }
}

/// How a tensor's floating-point entries are stored.
pub fn tensor_width(precision: Precision, tensor: &Tensor) -> Width {
    if precision == Precision::Bf16 && tensor.activation { Width::Bf16 } else { Width::F32 }
}
