//! The CPU backend: rayon over fixed partitions, f32 and f64. What a run computes depends on shapes
//! alone, never on the number of threads.
//!
//! | file | kernels |
//! |---|---|
//! | `conv/` | convolution in its three roles |
//! | `gemm.rs`, `product.rs` | matrix products: the `gemm` crate for large ones, register tiles for the others |
//! | `team.rs`, `par.rs` | threads, and loops that they share |
//! | `entrywise.rs` | groups of entrywise work with sums |
//! | `norm.rs`, `pool.rs`, `xent.rs`, `reduce.rs`, `structure.rs` | the rest, a family each |
//! | `memory.rs` | a program's memory |
//! | `run.rs` | one instruction: its operands' slices and the kernel that takes them |
//!
//! `rates.rs` measures what the machine could do at most.

mod columns;
pub mod conv;
mod entrywise;
pub mod gemm;
pub mod isa;
mod memory;
pub mod norm;
pub mod par;
pub mod pool;
mod product;
pub mod rates;
pub mod real;
pub mod reduce;
mod run;
pub mod structure;
pub mod team;
#[cfg(test)]
mod tests;
pub mod xent;

use crate::error::{Error, Result};
use crate::program::{Backend, Kernel, Place, Plan, Tensor, Values};
use crate::tape::Kind;
use entrywise::Entrywise;
use memory::{ALIGNMENT, Buffer, Loaded, Way, zeros};
use real::Real;
pub use run::Run;
use team::Team;

/// The CPU, in one precision.
pub struct Cpu<T> {
    team: Team,
    states: Vec<Buffer<T>>,
    programs: Vec<Loaded<T>>,
}

/// More threads than this are a slip of the finger.
pub const MOST_THREADS: usize = 1024;

impl<T: Real> Cpu<T> {
    /// The CPU with a team of `threads` threads, the one that runs a program included.
    ///
    /// # Errors
    /// [`Error::Usage`] for more than [`MOST_THREADS`]; if the system does not give that many.
    pub fn new(threads: usize) -> Result<Cpu<T>> {
        if threads > MOST_THREADS {
            return Err(Error::Usage(format!(
                "{threads} threads are too many; ask for {MOST_THREADS} at most"
            )));
        }
        Ok(Cpu { team: Team::new(threads)?, states: Vec::new(), programs: Vec::new() })
    }
}

impl<T: Real + Run> Backend for Cpu<T> {
    fn describe(&self) -> String {
        format!("cpu, {} threads, {}", self.team.threads(), T::NAME)
    }

    fn precision(&self) -> &'static str {
        T::NAME
    }

    fn add_state(&mut self, kind: Kind, len: usize) -> Result<()> {
        self.states.push(Buffer::zeros(kind, len)?);
        Ok(())
    }

    fn write_state(&mut self, state: usize, values: Values) -> Result<()> {
        self.states[state].write(values);
        Ok(())
    }

    fn read_state(&self, state: usize, out: &mut [f64]) -> Result<()> {
        let Buffer::Float(from) = &self.states[state] else {
            return Err(Error::Program("only floating-point states can be read".into()));
        };
        out.iter_mut().zip(from).for_each(|(o, f)| *o = f.to_f64());
        Ok(())
    }

    fn load(&mut self, plan: Plan, states: Vec<usize>) -> Result<()> {
        let mut groups = Vec::with_capacity(plan.instrs.len());
        let (mut workspace, mut scratch) = (0, 0);
        for instr in &plan.instrs {
            let mut prepared = None;
            if let Kernel::Group(group) = &instr.kernel {
                let in_place: Vec<bool> =
                    instr.outs.iter().map(|o| instr.args.iter().any(|a| a.place == o.place)).collect();
                let group = Entrywise::new(group.clone(), &in_place);
                workspace = workspace.max(group.partials_len(group.tasks));
                scratch = scratch.max(group.scratch_len());
                prepared = Some(group);
            }
            workspace = workspace.max(run::workspace_len::<T>(instr));
            groups.push(prepared);
        }
        let mut ways = vec![Way::Alone; plan.instrs.len()];
        for i in 0..plan.instrs.len() {
            if let Some((next, pieces)) = run::inside::<T>(&plan.instrs, &groups, i) {
                (ways[i], ways[next]) = (Way::Around { next, pieces }, Way::Within);
                let partials = run::partials_len(&plan.instrs[next], groups[next].as_ref(), pieces);
                workspace = workspace.max(run::workspace_len::<T>(&plan.instrs[i]) + partials);
            }
        }
        let inputs = plan.inputs.iter().map(|i| Buffer::zeros(i.kind, i.shape.count()));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let arena = zeros(plan.arena + ALIGNMENT / size_of::<T>(), T::ZERO)?;
        // Where no such place can be named, none is needed either.
        let start = arena.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT / size_of::<T>());
        let workspace = zeros(workspace, T::ZERO)?;
        let scratch = zeros(scratch * self.team.threads(), T::ZERO)?;
        self.programs.push(Loaded { plan, states, inputs, arena, start, groups, ways, workspace, scratch });
        Ok(())
    }

    fn write_input(&mut self, program: usize, input: usize, values: Values) -> Result<()> {
        self.programs[program].inputs[input].write(values);
        Ok(())
    }

    fn run(&mut self, program: usize) -> Result<()> {
        let Cpu { team, states, programs } = self;
        let program = &mut programs[program];
        team.lead(|| T::run(program, states, &mut |_| {}));
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        Ok(())
    }

    fn profile(&mut self, program: usize) -> Result<Vec<(&'static str, f64)>> {
        let Cpu { team, states, programs } = self;
        let program = &mut programs[program];
        let names: Vec<_> = program.plan.instrs.iter().map(|i| i.kernel.name()).collect();
        let mut seconds = vec![0.0; names.len()];
        let mut last = std::time::Instant::now();
        let mut watch = |i: usize| {
            let now = std::time::Instant::now();
            seconds[i] = (now - std::mem::replace(&mut last, now)).as_secs_f64();
        };
        team.lead(|| T::run(program, states, &mut watch));
        Ok(names.into_iter().zip(seconds).collect())
    }

    fn read(&self, program: usize, tensor: Tensor, out: &mut [f64]) -> Result<()> {
        let program = &self.programs[program];
        let (buffer, at) = match tensor.place {
            Place::Arena(at) => {
                let from = &program.arena[program.start + at..][..tensor.len];
                out.iter_mut().zip(from).for_each(|(o, f)| *o = f.to_f64());
                return Ok(());
            }
            Place::State(i, at) => (&self.states[program.states[i]], at),
            Place::Input(i, at) => (&program.inputs[i], at),
        };
        match buffer {
            Buffer::Float(from) => {
                out.iter_mut().zip(&from[at..]).for_each(|(o, f)| *o = f.to_f64());
            }
            Buffer::Int(from) => out.iter_mut().zip(&from[at..]).for_each(|(o, f)| *o = f64::from(*f)),
            Buffer::Byte(from) => out.iter_mut().zip(&from[at..]).for_each(|(o, f)| *o = f64::from(*f)),
        }
        Ok(())
    }

    fn float_bytes(&self) -> usize {
        size_of::<T>()
    }
}
