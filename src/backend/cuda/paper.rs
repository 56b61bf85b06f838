//! A plan's commands without a machine: a driver that has addresses and numbers to give, and
//! nothing behind them.

use std::collections::HashMap;

use super::Precision;
use super::backend::Cuda;
use super::driver::{Address, Command, Driver, Function, Graph, Source};
use crate::error::{Error, Result};
use crate::program::{Backend, Plan};

/// Addresses are multiples of this, as a GPU's are.
const ALIGNMENT: usize = 256;

/// Per instruction of a plan, the commands that the backend would give a GPU: sizes, grids and
/// parameters are the real ones, addresses and functions stand for nothing. Where one launch serves
/// several neighbours, it is the first one's.
///
/// # Errors
/// If a tensor is larger than kernels can count.
pub fn commands(plan: &Plan, precision: Precision) -> Result<Vec<Vec<Command>>> {
    let mut cuda = Cuda::new(Box::new(Paper::default()), precision, false);
    for state in &plan.states {
        cuda.add_state(state.kind, state.shape.count())?;
    }
    cuda.load(plan.clone(), (0..plan.states.len()).collect())?;
    Ok(cuda.commands(0).map(<[Command]>::to_vec).collect())
}

#[derive(Default)]
struct Paper {
    /// The end of the last allocation.
    end: usize,
    /// Bytes by address.
    memory: HashMap<Address, usize>,
    functions: Vec<(&'static str, String)>,
}

fn nothing<T>(what: &str) -> Result<T> {
    Err(Error::Device(format!("there is no machine behind a plan on paper that could {what}")))
}

impl Driver for Paper {
    fn describe(&self) -> String {
        "cuda, on paper".into()
    }

    /// As an H100.
    fn wgmma(&self) -> bool {
        true
    }

    fn allocate(&mut self, bytes: usize) -> Result<Address> {
        // From the first multiple on, so that no address is null.
        let at = (ALIGNMENT + self.end) as Address;
        self.end += bytes.max(1).next_multiple_of(ALIGNMENT);
        self.memory.insert(at, bytes);
        Ok(at)
    }

    fn upload(&mut self, _to: Address, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }

    fn download(&self, _from: Address, _bytes: &mut [u8]) -> Result<()> {
        nothing("give data")
    }

    fn function(&mut self, source: Source, name: &str) -> Result<Function> {
        let at = self.functions.iter().position(|f| f.0 == source.name && f.1 == name);
        Ok(Function(at.unwrap_or_else(|| {
            self.functions.push((source.name, name.to_owned()));
            self.functions.len() - 1
        })))
    }

    fn run(&mut self, _command: &Command) -> Result<()> {
        Ok(())
    }

    fn allocated(&self) -> usize {
        self.memory.values().sum()
    }

    fn time(&mut self, _commands: &[Command], _times: usize) -> Result<f64> {
        nothing("tell times")
    }

    fn capture(&mut self, _commands: &[Command]) -> Result<Graph> {
        nothing("make a graph")
    }

    fn replay(&mut self, _graph: Graph) -> Result<()> {
        nothing("run a graph")
    }

    fn synchronise(&self) -> Result<()> {
        Ok(())
    }

    fn release(&mut self, memory: &[Address], _graphs: &[Graph]) -> Result<()> {
        self.memory.retain(|at, _| !memory.contains(at));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::program::{Options, Session};
    use crate::tape::{Kind, Tape};

    /// Several sessions of one process stand on one driver, one after the other.
    #[test]
    fn a_backend_that_goes_gives_all_its_memory_back() {
        let mut tape = Tape::new();
        let w = tape.state("w", Kind::Float, [300, 200]).unwrap();
        let x = tape.input("x", Kind::Float, [100, 300]).unwrap();
        let y = tape.matmul(x, w).unwrap();
        let loss = tape.sum_all(y).unwrap();
        let gradient = tape.gradient(loss, &[w]).unwrap()[0];
        let next = tape.add(w, gradient).unwrap();
        tape.update(w, next).unwrap();
        let driver = Arc::new(Mutex::new(Paper::default()));
        for precision in [Precision::F32, Precision::Bf16] {
            let mut session = Session::new(Box::new(Cuda::new(Box::new(driver.clone()), precision, true)));
            session.compile(&tape, Options::default()).unwrap();
            assert!(driver.allocated() >= 4 * (300 * 200 + 100 * 300), "state and input");
            drop(session);
            assert_eq!(driver.allocated(), 0, "{}", precision.name());
        }
    }
}
