use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};

use super::backend::{Backend, Values};
use super::kernel::{Place, Tensor};
use super::limits::{Limit, limits};
use super::plan::{Named, Options, Plan};
use crate::error::{Error, Result};
use crate::room;
use crate::tape::{First, Kind, Tape};

/// A machine with states, and programs that share them by name.
pub struct Session {
    backend: Box<dyn Backend>,
    states: Vec<Named>,
    /// Per state, its first value, if that is not zeros.
    firsts: Vec<Option<First>>,
    /// By state, first values that were given.
    given: HashMap<String, Vec<f64>>,
    /// What random first values are drawn with.
    seed: u64,
    /// Per state, what the programs ask of its integers.
    limits: Vec<Vec<Limit>>,
    /// By state, the integers that were written to it: for programs to come.
    integers: HashMap<usize, Vec<i32>>,
    by_name: HashMap<String, usize>,
    id: u32,
    programs: Vec<Past>,
}

/// What to do about a state that is too large.
const SMALLER: &str = "take a smaller model";

/// No two sessions of a process have one number.
static SESSIONS: AtomicU32 = AtomicU32::new(0);

/// A program by its session and its number there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct ProgramId {
    session: u32,
    number: u32,
}

/// What a program's runs have shown of it.
struct Past {
    /// Inputs that it reads and has never been given.
    unfed: HashSet<usize>,
    ran: bool,
}

/// A program that a session has made ready.
#[derive(Clone, Debug)]
pub struct Program {
    id: ProgramId,
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
pub struct InputId(ProgramId, usize);

/// An output of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutputId(ProgramId, usize);

impl Program {
    /// The input called `name`.
    ///
    /// # Errors
    /// If there is none.
    pub fn input(&self, name: &str) -> Result<InputId> {
        let at = self.inputs.iter().position(|i| i.name == name);
        at.map(|at| InputId(self.id, at))
            .ok_or_else(|| Error::Program(format!("the program has no input `{name}`")))
    }

    /// The output called `name`.
    ///
    /// # Errors
    /// If there is none.
    pub fn output(&self, name: &str) -> Result<OutputId> {
        let at = self.outputs.iter().position(|o| o.0.name == name);
        at.map(|at| OutputId(self.id, at))
            .ok_or_else(|| Error::Program(format!("the program has no output `{name}`")))
    }

    /// All outputs, by name, with shapes.
    pub fn outputs(&self) -> impl Iterator<Item = &Named> {
        self.outputs.iter().map(|o| &o.0)
    }

    /// All inputs, by name, with shapes.
    pub fn inputs(&self) -> &[Named] {
        &self.inputs
    }

    /// What the program gives, for whoever must tell it from another one.
    fn name(&self) -> String {
        let outputs: Vec<String> = self.outputs().take(3).map(|o| format!("`{}`", o.name)).collect();
        let more = if self.outputs.len() > 3 { ", …" } else { "" };
        let made = if outputs.is_empty() { "no outputs".into() } else { outputs.join(", ") + more };
        format!("the program with {made}")
    }

    /// `at`, of this program's inputs or outputs.
    fn own(&self, (of, at): (ProgramId, usize), what: &str) -> Result<usize> {
        if of == self.id {
            return Ok(at);
        }
        let name = self.name();
        Err(Error::Program(format!("{name} was given the {what} of another one; ask it for its own by name")))
    }
}

impl Session {
    /// A session on a machine.
    pub fn new(backend: Box<dyn Backend>) -> Session {
        Session {
            backend,
            states: Vec::new(),
            firsts: Vec::new(),
            given: HashMap::new(),
            seed: 0,
            limits: Vec::new(),
            integers: HashMap::new(),
            by_name: HashMap::new(),
            id: SESSIONS.fetch_add(1, Ordering::Relaxed),
            programs: Vec::new(),
        }
    }

    /// The machine, for people.
    pub fn describe(&self) -> String {
        self.backend.describe()
    }

    /// The machine's precision, as users write it (`f32`, `f64`, `tf32`, `bf16`).
    pub fn precision(&self) -> &'static str {
        self.backend.precision()
    }

    /// Makes a tape's outputs and updates ready to run. States that the session does not have yet
    /// begin as the tape says, with random numbers of the session's seed (0, or that of
    /// [`Session::initialise`]).
    ///
    /// # Errors
    /// If a state was declared with another shape by an earlier program, or the machine has no
    /// room.
    pub fn compile(&mut self, tape: &Tape, options: Options) -> Result<Program> {
        self.load(Plan::new(tape, options)?)
    }

    /// [`Session::compile`] of what has been planned already.
    ///
    /// # Errors
    /// As [`Session::compile`].
    pub fn load(&mut self, plan: Plan) -> Result<Program> {
        let all = plan.states.iter().zip(&plan.firsts);
        let states =
            all.map(|(state, first)| self.declare(state, first.as_ref())).collect::<Result<Vec<_>>>()?;
        let limits = limits(&plan);
        for (place, limit) in &limits {
            if let Place::State(i, _) = place
                && let Some(held) = self.integers.get(&states[*i])
            {
                limit.check(&plan.states[*i].name, held)?;
            }
        }
        let mut input_limits = vec![Vec::new(); plan.inputs.len()];
        for (place, limit) in limits {
            match place {
                Place::Input(i, _) => input_limits[i].push(limit),
                Place::State(i, _) => self.limits[states[i]].push(limit),
                Place::Arena(_) => {}
            }
        }
        let read = plan.instrs.iter().flat_map(|i| &i.args).chain(plan.outputs.iter().map(|o| &o.1));
        let input = |tensor: &Tensor| if let Place::Input(i, _) = tensor.place { Some(i) } else { None };
        let past = Past { unfed: read.filter_map(input).collect(), ran: false };
        let program = Program {
            id: ProgramId { session: self.id, number: self.programs.len() as u32 },
            inputs: plan.inputs.clone(),
            limits: input_limits,
            outputs: plan.outputs.clone(),
            kernels: plan.instrs.len(),
            flops: plan.flops(),
            arena_bytes: plan.arena * self.backend.float_bytes(),
        };
        self.backend.load(plan, states)?;
        self.programs.push(past);
        Ok(program)
    }

    fn declare(&mut self, state: &Named, first: Option<&First>) -> Result<usize> {
        if let Some(&at) = self.by_name.get(&state.name) {
            let have = &self.states[at];
            if have.shape != state.shape || have.kind != state.kind {
                let detail = format!(
                    "the session holds {:?} {}, the program wants {:?} {}",
                    have.kind, have.shape, state.kind, state.shape
                );
                return Err(Error::shape(format!("state `{}`", state.name), detail));
            }
            return Ok(at);
        }
        // Before it is declared: what is wrong stays wrong when it is tried again.
        self.given.get(&state.name).map_or(Ok(()), |given| check(state, &[], Values::Float(given)))?;
        self.backend.add_state(state.kind, state.shape.count())?;
        self.by_name.insert(state.name.clone(), self.states.len());
        self.firsts.push(first.cloned());
        self.states.push(state.clone());
        self.limits.push(Vec::new());
        let at = self.states.len() - 1;
        if first.is_some() || self.given.contains_key(&state.name) {
            self.begin(at)?;
        }
        Ok(at)
    }

    /// Gives every floating-point state its first value, drawn with `seed`: those that there are
    /// now, and those of programs to come. After steps, it undoes them; other states stay.
    ///
    /// # Errors
    /// The machine's.
    pub fn initialise(&mut self, seed: u64) -> Result<()> {
        self.seed = seed;
        for at in 0..self.states.len() {
            if self.states[at].kind == Kind::Float {
                self.begin(at)?;
            }
        }
        Ok(())
    }

    /// Gives floating-point states first values, in the place of those that their layers would
    /// draw: with the next [`Session::initialise`], and when a program brings them.
    pub fn begin_with(&mut self, given: HashMap<String, Vec<f64>>) {
        self.given = given;
    }

    fn begin(&mut self, state: usize) -> Result<()> {
        let (named, first) = (&self.states[state], self.firsts[state].as_ref());
        if let Some(values) = self.given.get(&named.name) {
            check(named, &self.limits[state], Values::Float(values))?;
            return self.backend.write_state(state, Values::Float(values));
        }
        let count = named.shape.count();
        room::check(
            count.saturating_mul(size_of::<f64>()),
            &format!("the first value of `{}`", named.name),
            SMALLER,
        )?;
        let values = first.map_or_else(|| vec![0.0; count], |first| first.values(count, self.seed));
        self.backend.write_state(state, Values::Float(&values))
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
        if let Values::Int(values) = values {
            self.integers.insert(at, values.to_vec());
        }
        self.backend.write_state(at, values)
    }

    /// A floating-point state's entries, row-major.
    ///
    /// # Errors
    /// If there is no such state.
    pub fn read_state(&self, name: &str) -> Result<Vec<f64>> {
        let at = self.find(name)?;
        let count = self.states[at].shape.count();
        room::check(count.saturating_mul(size_of::<f64>()), &format!("reading `{name}`"), SMALLER)?;
        let mut out = vec![0.0; count];
        self.backend.read_state(at, &mut out)?;
        Ok(out)
    }

    /// Gives a program an input; it stays until it is overwritten.
    ///
    /// # Errors
    /// If kind or length differ from the declared ones, a label or pick is out of range, or the
    /// program or the input is another one's.
    pub fn write_input(&mut self, program: &Program, input: InputId, values: Values) -> Result<()> {
        let (number, input) = (self.number(program)?, program.own((input.0, input.1), "input")?);
        check(&program.inputs[input], &program.limits[input], values)?;
        self.backend.write_input(number, input, values)?;
        self.programs[number].unfed.remove(&input);
        Ok(())
    }

    /// The program's number on the machine.
    fn number(&self, program: &Program) -> Result<usize> {
        if program.id.session == self.id {
            return Ok(program.id.number as usize);
        }
        let name = program.name();
        Err(Error::Program(format!("{name} was compiled in another session; compile its tape in this one")))
    }

    /// The number of a program that has been given all inputs that it reads, and runs now.
    fn ready(&mut self, program: &Program) -> Result<usize> {
        let number = self.number(program)?;
        let Past { unfed, ran } = &mut self.programs[number];
        if unfed.is_empty() {
            *ran = true;
            return Ok(number);
        }
        let all = program.inputs.iter().enumerate().filter(|(i, _)| unfed.contains(i));
        let names: Vec<String> = all.map(|(_, input)| format!("`{}`", input.name)).collect();
        let (name, inputs) = (program.name(), names.join(", "));
        Err(Error::Program(format!("{name} was never given {inputs}; feed every input before the first run")))
    }

    /// [`Session::write_input`] by name.
    pub fn feed(&mut self, program: &Program, name: &str, values: Values) -> Result<()> {
        self.write_input(program, program.input(name)?, values)
    }

    /// Runs a program once. The machine may still be at it when this returns; whatever is called
    /// next waits as it must.
    ///
    /// # Errors
    /// If the program is another session's, an input that it reads was never fed, or the machine
    /// fails.
    pub fn run(&mut self, program: &Program) -> Result<()> {
        let number = self.ready(program)?;
        self.backend.run(number)
    }

    /// Waits until all runs are done: for whoever measures times.
    pub fn wait(&self) -> Result<()> {
        self.backend.wait()
    }

    /// Bytes that the machine holds in a memory of its own; `None` for one without.
    pub fn device_bytes(&self) -> Option<usize> {
        self.backend.device_bytes()
    }

    /// Times each kernel of a program, in their order, possibly repeating it: (name, seconds).
    /// States are undefined afterwards.
    pub fn profile(&mut self, program: &Program) -> Result<Vec<(&'static str, f64)>> {
        let number = self.ready(program)?;
        self.backend.profile(number)
    }

    /// An output's entries after a run, row-major. One that is a leaf itself is what that holds
    /// now.
    ///
    /// # Errors
    /// If the program has not run, or it or the output is another one's.
    pub fn read(&self, program: &Program, output: OutputId) -> Result<Vec<f64>> {
        let mut out = vec![0.0; program.outputs[program.own((output.0, output.1), "output")?].1.len];
        self.read_into(program, output, &mut out)?;
        Ok(out)
    }

    /// As [`Session::read`], without allocating. `out` must have the output's length.
    pub fn read_into(&self, program: &Program, output: OutputId, out: &mut [f64]) -> Result<()> {
        let number = self.number(program)?;
        let (named, tensor) = &program.outputs[program.own((output.0, output.1), "output")?];
        if out.len() != tensor.len {
            let detail = format!("holds {} numbers, {} were to be read", tensor.len, out.len());
            return Err(Error::shape(format!("output `{}`", named.name), detail));
        }
        if !self.programs[number].ran {
            return Err(Error::Program(format!("{} has not run yet; run it first", program.name())));
        }
        self.backend.read(number, *tensor, out)
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
