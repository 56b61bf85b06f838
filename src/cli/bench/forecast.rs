//! What one run of a plan asks of a machine: bytes, operations, launches.

use metatape::Result;
use metatape::backend::cpu::rates;
use metatape::backend::work::Work;
use metatape::program::{Place, Plan, Tensor};
use metatape::tape::Kind;
use metatape::train::values::Precision;
use serde_json::{Map, Value, json};

use crate::cli::cuda::{self, Command};
use crate::cli::device::On;

/// A launch of at most so many blocks leaves three quarters of an H100's 132 processors idle.
const FEW_BLOCKS: u64 = 32;

/// What a GPU is told to do.
#[derive(Clone, Copy, Default)]
pub struct Launches {
    /// Kernels of ours.
    pub kernels: usize,
    /// Matrix products of cuBLAS.
    pub products: usize,
    pub clears: usize,
    pub copies: usize,
    /// Of our kernels, those of at most [`FEW_BLOCKS`] blocks, and those of one.
    pub few: usize,
    pub one: usize,
}

/// All instructions of a plan that go by one name.
#[derive(Clone, Copy)]
pub struct Part {
    pub name: &'static str,
    pub instructions: usize,
    pub work: Work,
    /// `None` on the CPU.
    pub launches: Option<Launches>,
}

/// What a plan asks for.
pub struct Forecast {
    /// By name, those that move most bytes first.
    pub parts: Vec<Part>,
    /// Sums of all parts.
    pub all: Part,
    /// Floating-point operations that the machine does for `all.work.flops` of direct sums.
    pub flops: u64,
    /// Bytes of the program's memory: states, inputs and what lies between the kernels.
    pub memory: usize,
}

impl Forecast {
    /// # Errors
    /// If a tensor is larger than the GPU's kernels can count.
    pub fn new(plan: &Plan, on: On, precision: Precision) -> Result<Forecast> {
        let bytes = |tensor: &Tensor| match (on, tensor.kind) {
            (On::Cuda(cuda), _) => cuda::entry_bytes(cuda, tensor),
            (On::Cpu, Kind::Float) => precision.bytes(),
            (On::Cpu, Kind::Int) => size_of::<i32>(),
            (On::Cpu, Kind::Byte) => 1,
        };
        let commands = match on {
            On::Cuda(cuda) => Some(cuda::commands(plan, cuda)?),
            On::Cpu => None,
        };
        let none = commands.as_ref().map(|_| Launches::default());
        let part = |name| Part { name, instructions: 0, work: Work::default(), launches: none };
        let (mut parts, mut all, mut flops) = (Vec::<Part>::new(), part("all"), 0);
        for (i, instr) in plan.instrs.iter().enumerate() {
            flops += match on {
                On::Cuda(_) => instr.flops(),
                On::Cpu => rates::flops(instr, precision.bytes()),
            };
            let name = instr.kernel.name();
            let at = parts.iter().position(|p| p.name == name).unwrap_or_else(|| {
                parts.push(part(name));
                parts.len() - 1
            });
            for part in [&mut parts[at], &mut all] {
                part.instructions += 1;
                part.work = [part.work, instr.work(&bytes)].into_iter().sum();
                if let (Some(launches), Some(commands)) = (&mut part.launches, &commands) {
                    commands[i].iter().for_each(|command| launches.add(command));
                }
            }
        }
        parts.sort_by_key(|p| std::cmp::Reverse(p.work.bytes()));
        let named = plan.states.iter().chain(&plan.inputs);
        let outside = named.map(|n| {
            let (place, len) = (Place::Input(0, 0), n.shape.count());
            len * bytes(&Tensor { place, len, kind: n.kind, activation: false })
        });
        let memory = plan.arena * precision.bytes() + outside.sum::<usize>();
        Ok(Forecast { parts, all, flops, memory })
    }

    /// What the machine is told, in a word.
    pub fn told(&self) -> &'static str {
        if self.all.launches.is_some() { "launches" } else { "instructions" }
    }

    /// Fields of the whole and of its parts.
    pub fn json(&self) -> Map<String, Value> {
        let mut fields = self.all.json();
        let parts = self.parts.iter().map(|part| {
            let mut fields = part.json();
            fields.insert("kernel".into(), part.name.into());
            Value::Object(fields)
        });
        fields.insert("by_kernel".into(), parts.collect());
        fields.insert("memory_bytes".into(), json!(self.memory));
        fields
    }
}

impl Part {
    /// What the machine is told: launches on a GPU, instructions on the CPU.
    pub fn told(&self) -> usize {
        self.launches.map_or(self.instructions, |l| l.count())
    }

    fn json(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut field = |name: &str, value: Value| drop(fields.insert(name.into(), value));
        field("instructions", json!(self.instructions));
        if let Some(launches) = self.launches {
            field("launches", json!(launches.count()));
            field("kernels", json!(launches.kernels));
            field("products", json!(launches.products));
            field("clears", json!(launches.clears));
            field("copies", json!(launches.copies));
            field("launches_of_at_most_32_blocks", json!(launches.few));
            field("launches_of_one_block", json!(launches.one));
        }
        field("bytes_read", json!(self.work.read));
        field("bytes_written", json!(self.work.written));
        field("flops", json!(self.work.flops));
        fields
    }
}

impl Launches {
    /// All of them.
    pub fn count(&self) -> usize {
        self.kernels + self.products + self.clears + self.copies
    }

    fn add(&mut self, command: &Command) {
        match command {
            Command::Launch { grid, .. } => {
                let blocks: u64 = grid.iter().map(|g| u64::from(*g)).product();
                self.kernels += 1;
                self.few += usize::from(blocks <= FEW_BLOCKS);
                self.one += usize::from(blocks == 1);
            }
            Command::Gemm(_) => self.products += 1,
            Command::Clear { .. } => self.clears += 1,
            Command::Copy { .. } => self.copies += 1,
        }
    }
}
