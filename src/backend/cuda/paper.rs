//! A plan's commands without a machine: a driver that has addresses and numbers to give, and
//! nothing behind them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Precision;
use super::backend::Cuda;
use super::driver::{Address, Command, Driver, Function, Graph, Source};
use crate::error::{Error, Result};
use crate::program::{Backend, Plan};

/// Multiprocessors of an H100.
const PROCESSORS: usize = 132;

/// Addresses are multiples of this, as a GPU's are.
const ALIGNMENT: usize = 256;

/// Per instruction of a plan, the commands that the backend would give a GPU: sizes, grids and
/// parameters are the real ones, addresses and functions stand for nothing. Where one launch serves
/// several neighbours, it is the first one's.
///
/// # Errors
/// If a tensor is larger than kernels can count.
pub fn commands(plan: &Plan, precision: Precision) -> Result<Vec<Vec<Command>>> {
    let paper = Paper { resident: PROCESSORS, ..Paper::default() };
    Ok(loaded(paper, plan, precision)?.commands(0).map(<[Command]>::to_vec).collect())
}

/// The files of kernels that the backend would write for a plan: on a card whose multiprocessors
/// are enough for all of a launch's blocks at once, and on one where they are not.
///
/// # Errors
/// As [`commands`].
pub fn written(plan: &Plan, precision: Precision) -> Result<Vec<Source>> {
    let mut all = Vec::new();
    for resident in [PROCESSORS, 0] {
        let paper = Arc::new(Mutex::new(Paper { resident, ..Paper::default() }));
        loaded(paper.clone(), plan, precision)?;
        all.append(&mut paper.lock().unwrap_or_else(PoisonError::into_inner).written);
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

fn loaded(driver: impl Driver + 'static, plan: &Plan, precision: Precision) -> Result<Cuda> {
    let mut cuda = Cuda::new(Box::new(driver), precision, false);
    for state in &plan.states {
        cuda.add_state(state.kind, state.shape.count())?;
    }
    cuda.load(plan.clone(), (0..plan.states.len()).collect())?;
    Ok(cuda)
}

#[derive(Default)]
struct Paper {
    resident: usize,
    /// The end of the last allocation.
    end: usize,
    /// Bytes by address.
    memory: HashMap<Address, usize>,
    functions: Vec<(String, String)>,
    /// What was written for programs.
    written: Vec<Source>,
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

    fn resident(&self) -> usize {
        self.resident
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

    fn function(&mut self, source: &Source, name: &str) -> Result<Function> {
        let at = self.functions.iter().position(|f| f.0 == source.name && f.1 == name);
        Ok(Function(at.unwrap_or_else(|| {
            self.functions.push((source.name.to_string(), name.to_owned()));
            self.functions.len() - 1
        })))
    }

    fn prepare(&mut self, sources: &[&Source]) -> Result<()> {
        self.written.extend(sources.iter().map(|s| (*s).clone()));
        Ok(())
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

    /// Statistics, what small comes of them, and scale and ReLU: all blocks of a launch wait for
    /// each other, so they must be no more than run at once.
    #[test]
    fn batch_norm_is_one_launch_where_all_of_its_blocks_run_at_once() {
        let mut tape = Tape::new();
        let x = tape.input("x", Kind::Float, [6400, 64]).unwrap();
        let y = tape.normalise(x, 1e-5).unwrap();
        let y = tape.relu(y).unwrap();
        tape.output("y", y).unwrap();
        let plan = Plan::new(&tape, Options::default()).unwrap();
        let launches = |resident| {
            let paper = Paper { resident, ..Paper::default() };
            let cuda = loaded(paper, &plan, Precision::F32).unwrap();
            let all: Vec<Command> = cuda.commands(0).flatten().cloned().collect();
            let Command::Launch { grid, .. } = all[0] else { panic!("no launch") };
            (all.len(), grid[0] as usize)
        };
        let (one, blocks) = launches(PROCESSORS);
        assert!(one == 1 && (2..=PROCESSORS).contains(&blocks), "{one} launches, {blocks} blocks");
        assert_eq!(launches(blocks), (1, blocks));
        assert_eq!(launches(blocks - 1), (2, blocks));
    }

    fn sources(precision: Precision, record: impl Fn(&mut Tape) -> Result<()>) -> Vec<Source> {
        let mut tape = Tape::new();
        record(&mut tape).unwrap();
        written(&Plan::new(&tape, Options::default()).unwrap(), precision).unwrap()
    }

    /// `y = c·x + d` on a matrix.
    fn affine(rows: usize, c: f64, d: f64) -> impl Fn(&mut Tape) -> Result<()> {
        move |tape| {
            let x = tape.input("x", Kind::Float, [rows, 8])?;
            let scaled = tape.scale(x, c)?;
            let y = tape.offset(scaled, d)?;
            tape.output("y", y)
        }
    }

    #[test]
    fn what_several_layers_need_is_written_once() {
        let layers = |tape: &mut Tape| {
            let mut h = tape.input("x", Kind::Float, [64, 8])?;
            let w = tape.input("w", Kind::Float, [8, 8])?;
            for _ in 0..5 {
                h = tape.matmul(h, w)?;
                h = tape.sigmoid(h)?;
            }
            tape.output("h", h)
        };
        assert_eq!(sources(Precision::F32, layers).len(), 1);
    }

    #[test]
    fn sizes_and_constants_are_no_reason_for_another_kernel() {
        let of = |rows, c, d| sources(Precision::F32, affine(rows, c, d));
        let one = of(4, 2.0, 1.0);
        assert_eq!(one.len(), 1);
        assert!(one[0].text.contains("map<Mul>") && one[0].text.contains("map<Add>"), "{}", one[0].text);
        assert_eq!(one, of(100, 3.0, -5.0));
        assert_eq!(one, sources(Precision::Bf16, affine(4, 2.0, 1.0)), "inputs are no activations");
        // With many entries, a thread takes several rows.
        assert_ne!(one, of(1 << 16, 2.0, 1.0));
        let masked = sources(Precision::F32, |tape| {
            let x = tape.input("x", Kind::Float, [4, 8])?;
            let y = tape.relu(x)?;
            tape.output("y", y)
        });
        assert_ne!(one, masked);
    }
}
