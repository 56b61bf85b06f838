//! States and programs over a driver.

use std::cell::RefCell;
use std::ops::Range;

use super::Precision;
use super::builder::{Builder, kind_bytes, tensor_width};
use super::driver::{Address, Command, Driver, Graph, Width};
use super::launch;
use crate::error::{Error, Result};
use crate::program::{Backend, Place, Plan, Tensor, Values};
use crate::tape::Kind;

/// How often each kernel runs when it is timed.
const TIMES: usize = 10;

/// A machine behind a [`Driver`], in one precision.
///
/// A program's commands, with all addresses, are made when it is loaded; a run plays them and does
/// nothing else. The first run plays them one by one, which loads whatever the libraries load
/// lazily; the second captures them as a graph, and from then on a run is one call.
pub struct Cuda {
    driver: Box<dyn Driver>,
    precision: Precision,
    /// Whether programs become graphs.
    capture: bool,
    states: Vec<Memory>,
    programs: Vec<Loaded>,
    /// All that was allocated, to be given back.
    memory: Vec<Address>,
    /// Bytes on their way to the device or back.
    staging: RefCell<Vec<u8>>,
}

/// Entries of one kind on the device.
#[derive(Clone, Copy)]
struct Memory {
    at: Address,
    kind: Kind,
}

/// A program with its memory.
struct Loaded {
    plan: Plan,
    /// The session's numbers of the plan's states.
    states: Vec<usize>,
    inputs: Vec<Memory>,
    arena: Address,
    commands: Vec<Command>,
    /// Per instruction of the plan, which of the commands are its.
    spans: Vec<Range<usize>>,
    runs: Runs,
}

/// How a program is run next.
#[derive(Clone, Copy)]
enum Runs {
    /// Command by command; it has not run yet.
    First,
    /// Command by command, now and always, or captured at the next run.
    Plain,
    /// As a graph.
    Captured(Graph),
}

impl Cuda {
    /// A backend on a machine. `capture`: whether programs become graphs (the bits are the same).
    pub fn new(driver: Box<dyn Driver>, precision: Precision, capture: bool) -> Cuda {
        Cuda {
            driver,
            precision,
            capture,
            states: Vec::new(),
            programs: Vec::new(),
            memory: Vec::new(),
            staging: RefCell::new(Vec::new()),
        }
    }

    /// Per instruction of a program's plan, the commands that run it. Where one launch serves
    /// several neighbours, it is the first one's.
    pub(super) fn commands(&self, program: usize) -> impl Iterator<Item = &[Command]> {
        let Loaded { commands, spans, .. } = &self.programs[program];
        spans.iter().map(|span| &commands[span.clone()])
    }

    fn memory(&mut self, kind: Kind, len: usize) -> Result<Memory> {
        let bytes = len.checked_mul(kind_bytes(kind)).ok_or_else(|| {
            Error::Device(format!(
                "{len} entries are more than memory can be addressed; take a smaller --batch"
            ))
        })?;
        Ok(Memory { at: self.allocate(bytes)?, kind })
    }

    fn allocate(&mut self, bytes: usize) -> Result<Address> {
        let at = self.driver.allocate(bytes)?;
        self.memory.push(at);
        Ok(at)
    }

    /// As [`Cuda::memory`], of zeros: what can be read before it is written.
    fn zeros(&mut self, kind: Kind, len: usize) -> Result<Memory> {
        let memory = self.memory(kind, len)?;
        match len * kind_bytes(kind) {
            0 => {}
            bytes => self.driver.run(&Command::Clear { to: memory.at, bytes })?,
        }
        Ok(memory)
    }

    fn write(&mut self, to: Memory, values: Values) -> Result<()> {
        match values {
            Values::Float(from) => {
                let staging = self.staging.get_mut();
                staging.clear();
                staging.extend(from.iter().flat_map(|v| (*v as f32).to_ne_bytes()));
                self.driver.upload(to.at, staging)
            }
            Values::Int(from) => self.driver.upload(to.at, bytemuck::cast_slice(from)),
            Values::Byte(from) => self.driver.upload(to.at, from),
            Values::Shared(from) => self.driver.upload(to.at, from),
        }
    }

    fn fetch(&self, from: Address, kind: Kind, width: Width, out: &mut [f64]) -> Result<()> {
        let bytes = if kind == Kind::Float { width.bytes() } else { kind_bytes(kind) };
        let mut staging = self.staging.borrow_mut();
        staging.resize(bytes * out.len(), 0);
        self.driver.download(from, &mut staging)?;
        let words = || staging.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
        match (kind, width) {
            (Kind::Float, Width::F32) => {
                out.iter_mut().zip(words()).for_each(|(o, b)| *o = f64::from(f32::from_ne_bytes(b)));
            }
            (Kind::Float, Width::Bf16) => {
                let halves = staging.chunks_exact(2).map(|b| half::bf16::from_ne_bytes([b[0], b[1]]));
                out.iter_mut().zip(halves).for_each(|(o, h)| *o = h.to_f64());
            }
            (Kind::Int, _) => {
                out.iter_mut().zip(words()).for_each(|(o, b)| *o = f64::from(i32::from_ne_bytes(b)));
            }
            (Kind::Byte, _) => out.iter_mut().zip(staging.iter()).for_each(|(o, b)| *o = f64::from(*b)),
        }
        Ok(())
    }
}

impl Backend for Cuda {
    fn describe(&self) -> String {
        format!("{}, {}", self.driver.describe(), self.precision.name())
    }

    fn precision(&self) -> &'static str {
        self.precision.name()
    }

    fn add_state(&mut self, kind: Kind, len: usize) -> Result<()> {
        let memory = self.zeros(kind, len)?;
        self.states.push(memory);
        Ok(())
    }

    fn write_state(&mut self, state: usize, values: Values) -> Result<()> {
        self.write(self.states[state], values)
    }

    fn read_state(&self, state: usize, out: &mut [f64]) -> Result<()> {
        let Memory { at, kind, .. } = self.states[state];
        if kind != Kind::Float {
            return Err(Error::Program("only floating-point states can be read".into()));
        }
        self.fetch(at, kind, Width::F32, out)
    }

    fn load(&mut self, plan: Plan, states: Vec<usize>) -> Result<()> {
        let wgmma = self.driver.wgmma();
        let workspace = plan.instrs.iter().map(|i| launch::workspace_bytes(self.precision, wgmma, i));
        let workspace = workspace.max().unwrap_or(0);
        let mut inputs = Vec::with_capacity(plan.inputs.len());
        for input in &plan.inputs {
            inputs.push(self.zeros(input.kind, input.shape.count())?);
        }
        let arena = self.memory(Kind::Float, plan.arena)?.at;
        let workspace = self.allocate(workspace)?;
        let gate = self.zeros(Kind::Int, 1)?.at;
        let state_addresses: Vec<Address> = states.iter().map(|s| self.states[*s].at).collect();
        let input_addresses: Vec<Address> = inputs.iter().map(|i| i.at).collect();
        let mut builder = Builder {
            driver: self.driver.as_mut(),
            precision: self.precision,
            arena,
            states: &state_addresses,
            inputs: &input_addresses,
            workspace,
            gate,
            tickets: (0, 0),
            memory: &mut self.memory,
            commands: Vec::new(),
        };
        let spans = launch::build(&mut builder, &plan.instrs)?;
        let commands = builder.commands;
        self.programs.push(Loaded { plan, states, inputs, arena, commands, spans, runs: Runs::First });
        Ok(())
    }

    fn write_input(&mut self, program: usize, input: usize, values: Values) -> Result<()> {
        self.write(self.programs[program].inputs[input], values)
    }

    fn run(&mut self, program: usize) -> Result<()> {
        let Cuda { driver, capture, programs, .. } = self;
        let Loaded { commands, runs, .. } = &mut programs[program];
        match *runs {
            Runs::Plain if *capture => {
                let graph = driver.capture(commands)?;
                *runs = Runs::Captured(graph);
                driver.replay(graph)
            }
            Runs::First | Runs::Plain => {
                *runs = Runs::Plain;
                commands.iter().try_for_each(|c| driver.run(c))
            }
            Runs::Captured(graph) => driver.replay(graph),
        }
    }

    fn wait(&self) -> Result<()> {
        self.driver.synchronise()
    }

    fn profile(&mut self, program: usize) -> Result<Vec<(&'static str, f64)>> {
        let Loaded { plan, commands, spans, .. } = &self.programs[program];
        let timed = plan.instrs.iter().zip(spans).map(|(instr, span)| {
            let commands = &commands[span.clone()];
            // Nothing of its own: it runs with a neighbour.
            let seconds = if commands.is_empty() { 0.0 } else { self.driver.time(commands, TIMES)? };
            Ok((instr.kernel.name(), seconds))
        });
        timed.collect()
    }

    fn read(&self, program: usize, tensor: Tensor, out: &mut [f64]) -> Result<()> {
        let Loaded { states, inputs, arena, .. } = &self.programs[program];
        let width = tensor_width(self.precision, &tensor);
        let (start, at) = match tensor.place {
            Place::Arena(at) => (*arena, at),
            Place::State(i, at) => (self.states[states[i]].at, at),
            Place::Input(i, at) => (inputs[i].at, at),
        };
        // An activation begins where its memory does, so the entries before are of 4 bytes whatever
        // its own take.
        self.fetch(start + (kind_bytes(tensor.kind) * at) as u64, tensor.kind, width, out)
    }

    fn float_bytes(&self) -> usize {
        4
    }

    fn device_bytes(&self) -> Option<usize> {
        Some(self.driver.allocated())
    }
}

impl Drop for Cuda {
    /// Others may go on with the driver. What it says of this changes nothing any more.
    fn drop(&mut self) {
        let graph = |p: &Loaded| if let Runs::Captured(graph) = p.runs { Some(graph) } else { None };
        let graphs: Vec<Graph> = self.programs.iter().filter_map(graph).collect();
        let _ = self.driver.release(&self.memory, &graphs);
    }
}
