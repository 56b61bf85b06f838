//! From the kernels of a plan to the commands of a driver: where operands lie, and what is launched.

use bytemuck::Pod;

use super::driver::{Address, Command, Driver, Source, Width};
use super::Precision;
use crate::error::Result;
use crate::program::{Place, Tensor};

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
    /// Memory that a kernel may use between its own launches: as much as `workspace_bytes` of `launch/` said.
    pub workspace: Address,
    /// What has been built so far.
    pub commands: Vec<Command>,
}

impl Builder<'_> {
    /// Where a tensor begins.
    pub fn address(&self, tensor: &Tensor) -> Address {
        match tensor.place {
            // An entry of the arena has room for an f32; a tensor in half precision fills half of its room.
            Place::Arena(at) => self.arena + 4 * at as u64,
            Place::State(i, at) => self.states[i] + self.width(tensor).bytes() as u64 * at as u64,
            Place::Input(i, at) => self.inputs[i] + self.width(tensor).bytes() as u64 * at as u64,
        }
    }

    /// How a tensor's floating-point entries are stored.
    pub fn width(&self, tensor: &Tensor) -> Width {
        tensor_width(self.precision, tensor)
    }

    /// Launches the kernel `name` of `source` with one parameter struct, in `grid` blocks of `block` threads.
    pub fn launch<P: Pod>(
        &mut self,
        source: Source,
        name: &str,
        grid: [u32; 3],
        block: u32,
        shared: u32,
        params: &P,
    ) -> Result<()> {
        let function = self.driver.function(source, name)?;
        let params = bytemuck::bytes_of(params).to_vec();
        self.commands.push(Command::Launch { function, grid, block, shared, params });
        Ok(())
    }
}

/// How a tensor's floating-point entries are stored.
pub fn tensor_width(precision: Precision, tensor: &Tensor) -> Width {
    // With bf16: activations and their (co)tangents, see `Tensor::activation`. To come.
    let _ = (precision, tensor);
    Width::F32
}
