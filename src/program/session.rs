use std::collections::HashMap;

use super::backend::{Backend, Values};
use super::kernel::{Place, Tensor};
use super::limits::{Limit, limits};
use super::plan::{Named, Options, Plan};
use crate::error::{Error, Result};
use crate::tape::Tape;

/// A machine with states, and programs that share them by name.
pub struct Session {
    backend: Box<dyn Backend>,
    states: Vec<Named>,
    /// Per state, what the programs ask of its integers.
    limits: Vec<Vec<Limit>>,
    by_name: HashMap<String, usize>,
    programs: usize,
}

/// A program that a session has made ready.
#[derive(Clone, Debug)]
pub struct Program {
    number: usize,
    inputs: Vec<Named>,
    /// Per input, what is asked of its integers.
    limits: Vec<Vec<Limit>>,
    outputs: Vec<(Named, Tensor)>,
    /// Kernels that one run launches.
    pub kernels: usize,
    /// Multiplications and additions of one run's contractions.
    pub flops: u64,
    /// Bytes of the arena that holds everything between the kernels.
    pub arena_bytes: usize,
}

/// An input of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InputId(usize);

/// An output of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutputId(usize);

impl Program {
    /// The input called `name`.
    ///
    /// # Errors
    /// If there is none.
    pub fn input(&self, name: &str) -> Result<InputId> {
        let at = self.inputs.iter().position(|i| i.name == name);
        at.map(InputId).ok_or_else(|| Error::Program(format!("the program has no input `{name}`")))
    }

    /// The output called `name`.
    ///
    /// # Errors
    /// If there is none.
    pub fn output(&self, name: &str) -> Result<OutputId> {
        let at = self.outputs.iter().position(|o| o.0.name == name);
        at.map(OutputId).ok_or_else(|| Error::Program(format!("the program has no output `{name}`")))
    }

    /// All outputs, by name, with shapes.
    pub fn outputs(&self) -> impl Iterator<Item = &Named> {
        self.outputs.iter().map(|o| &o.0)
    }

    /// All inputs, by name, with shapes.
    pub fn inputs(&self) -> &[Named] {
        &self.inputs
    }
}

impl Session {
    /// A session on a machine.
    pub fn new(backend: Box<dyn Backend>) -> Session {
        Session { backend, states: Vec::new(), limits: Vec::new(), by_name: HashMap::new(), programs: 0 }
    }

    /// The machine, for people.
    pub fn describe(&self) -> String {
        self.backend.describe()
    }

    /// The machine's precision, as users write it (`f32`, `f64`, `tf32`, `bf16`).
    pub fn precision(&self) -> &'static str {
        self.backend.precision()
    }

    /// Makes a tape's outputs and updates ready to run. States that the session does not have yet begin as zeros.
    ///
    /// # Errors
    /// If a state was declared with another shape by an earlier program, or the machine has no room.
    pub fn compile(&mut self, tape: &Tape, options: Options) -> Result<Program> {
        self.load(Plan::new(tape, options)?)
    }

    /// [`Session::compile`] of what has been planned already.
    ///
    /// # Errors
    /// As [`Session::compile`].
    pub fn load(&mut self, plan: Plan) -> Result<Program> {
        let mut states = Vec::with_capacity(plan.states.len());
        for state in &plan.states {
            states.push(self.declare(state)?);
        }
        let mut input_limits = vec![Vec::new(); plan.inputs.len()];
        for (place, limit) in limits(&plan) {
            match place {
                Place::Input(i, _) => input_limits[i].push(limit),
                Place::State(i, _) => self.limits[states[i]].push(limit),
                Place::Arena(_) => {}
            }
        }
        let program = Program {
            number: self.programs,
            inputs: plan.inputs.clone(),
            limits: input_limits,
            outputs: plan.outputs.clone(),
            kernels: plan.instrs.len(),
            flops: plan.flops(),
            arena_bytes: plan.arena * self.backend.float_bytes(),
        };
        self.backend.load(plan, states)?;
        self.programs += 1;
        Ok(program)
    }

    fn declare(&mut self, state: &Named) -> Result<usize> {
        if let Some(&at) = self.by_name.get(&state.name) {
            let have = &self.states[at];
            if have.shape != state.shape || have.kind != state.kind {
                let detail = format!("the session holds {}, the program wants {}", have.shape, state.shape);
                return Err(Error::shape(format!("state `{}`", state.name), detail));
            }
            return Ok(at);
        }
        self.backend.add_state(state.kind, state.shape.count())?;
        self.by_name.insert(state.name.clone(), self.states.len());
        self.states.push(state.clone());
        self.limits.push(Vec::new());
        Ok(self.states.len() - 1)
    }

    /// All states, in the order of their making.
    pub fn states(&self) -> &[Named] {
        &self.states
    }

    fn find(&self, name: &str) -> Result<usize> {
        let at = self.by_name.get(name).copied();
        at.ok_or_else(|| Error::Program(format!("the session has no state `{name}`")))
    }

    /// Overwrites a state.
    ///
    /// # Errors
    /// If there is no such state, kind or length differ, or a label or pick is out of range.
    pub fn write_state(&mut self, name: &str, values: Values) -> Result<()> {
        let at = self.find(name)?;
        check(&self.states[at], &self.limits[at], values)?;
        self.backend.write_state(at, values)
    }

    /// A floating-point state's entries, row-major.
    ///
    /// # Errors
    /// If there is no such state.
    pub fn read_state(&self, name: &str) -> Result<Vec<f64>> {
        let at = self.find(name)?;
        let mut out = vec![0.0; self.states[at].shape.count()];
        self.backend.read_state(at, &mut out)?;
        Ok(out)
    }

    /// Gives a program an input; it stays until it is overwritten.
    ///
    /// # Errors
    /// If kind or length differ from the declared ones, or a label or pick is out of range.
    pub fn write_input(&mut self, program: &Program, input: InputId, values: Values) -> Result<()> {
        check(&program.inputs[input.0], &program.limits[input.0], values)?;
        self.backend.write_input(program.number, input.0, values)
    }

    /// [`Session::write_input`] by name.
    pub fn feed(&mut self, program: &Program, name: &str, values: Values) -> Result<()> {
        self.write_input(program, program.input(name)?, values)
    }

    /// Runs a program once. The machine may still be at it when this returns; whatever is called next waits as it must.
    pub fn run(&mut self, program: &Program) -> Result<()> {
        self.backend.run(program.number)
    }

    /// Waits until all runs are done: for whoever measures times.
    pub fn wait(&self) -> Result<()> {
        self.backend.wait()
    }

    /// Bytes that the machine holds in a memory of its own; `None` for one without.
    pub fn device_bytes(&self) -> Option<usize> {
        self.backend.device_bytes()
    }

    /// Runs a program's kernels in their order, timing each, by itself or several times over: (name, seconds). States are not what runs would
    /// have left.
    pub fn profile(&mut self, program: &Program) -> Result<Vec<(&'static str, f64)>> {
        self.backend.profile(program.number)
    }

    /// An output's entries after a run, row-major.
    pub fn read(&self, program: &Program, output: OutputId) -> Result<Vec<f64>> {
        let mut out = vec![0.0; program.outputs[output.0].1.len];
        self.read_into(program, output, &mut out)?;
        Ok(out)
    }

    /// As [`Session::read`], without allocating. `out` must have the output's length.
    pub fn read_into(&self, program: &Program, output: OutputId, out: &mut [f64]) -> Result<()> {
        let (named, tensor) = &program.outputs[output.0];
        if out.len() != tensor.len {
            let detail = format!("holds {} numbers, {} were to be read", tensor.len, out.len());
            return Err(Error::shape(format!("output `{}`", named.name), detail));
        }
        self.backend.read(program.number, *tensor, out)
    }

    /// [`Session::read`] by name.
    pub fn fetch(&self, program: &Program, name: &str) -> Result<Vec<f64>> {
        self.read(program, program.output(name)?)
    }
}

fn check(declared: &Named, limits: &[Limit], values: Values) -> Result<()> {
    if values.len() != declared.shape.count() || values.kind() != declared.kind {
        let detail = format!(
            "takes {:?} {}, got {} numbers of kind {:?}",
            declared.kind,
            declared.shape,
            values.len(),
            values.kind()
        );
        return Err(Error::shape(format!("`{}`", declared.name), detail));
    }
    if let Values::Int(values) = values {
        limits.iter().try_for_each(|limit| limit.check(&declared.name, values))?;
    }
    Ok(())
}
