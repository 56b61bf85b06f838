//! The machines under test, and how far each may be from the CPU in f64.

use metatape::backend::cpu::Cpu;
use metatape::backend::cuda::{Cuda, Gpu, Precision};
use metatape::program::Backend;

use super::simulator::Simulator;

/// A machine under test.
pub struct Machine {
    pub name: String,
    /// Its row in the table of tolerances.
    pub tolerance: Tolerance,
    /// Machines of one family give the same bits.
    pub family: &'static str,
    /// Inputs are rounded to bf16, so that what is stored in it begins exact.
    pub short: bool,
    pub backend: Box<dyn Backend>,
}

/// What a precision may cost.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Of an operation: largest difference, relative to the largest entry of the tensor. Sums run over at most a few thousand products.
    pub operation: f64,
    /// Tensors whose entries are all below this are held to it instead: inputs are about 1 in size, so smaller results are differences of larger
    /// numbers, which were rounded.
    pub floor: f64,
    /// Of a whole meta step: length of the hypergradient's error, relative to its own, where the network's own kinks do not make it larger.
    pub hypergradient: f64,
    /// Of a number when it is rounded, relative to it.
    pub rounding: f64,
}

const F64: Tolerance = Tolerance { operation: 1e-13, floor: 0.1, hypergradient: 1e-11, rounding: 1.1e-16 };
const F32: Tolerance = Tolerance { operation: 2e-5, floor: 0.1, hypergradient: 1e-4, rounding: 6e-8 };
const TF32: Tolerance = Tolerance { operation: 2e-3, floor: 0.1, hypergradient: 5e-3, rounding: 4.9e-4 };
// A gradient through the table's longest program is rounded about ten times on its way; numbers from 1 to 2 by up to 2⁻⁸, so that the difference
// of two of them can be wrong by 2⁻⁷.
const BF16: Tolerance = Tolerance { operation: 3e-2, floor: 0.25, hypergradient: 3e-2, rounding: 3.9e-3 };

impl Tolerance {
    /// The table's row of a precision.
    pub fn of(precision: Precision) -> Tolerance {
        match precision {
            Precision::F32 => F32,
            Precision::Tf32 => TF32,
            Precision::Bf16 => BF16,
        }
    }
}

/// The CPU in both precisions, on one thread and on three.
pub fn cpus() -> Vec<Machine> {
    fn cpu(
        threads: usize,
        tolerance: Tolerance,
        family: &'static str,
        backend: impl Backend + 'static,
    ) -> Machine {
        let name = format!("{family}, {threads} threads");
        Machine { name, tolerance, family, short: false, backend: Box::new(backend) }
    }
    vec![
        cpu(1, F64, "cpu f64", Cpu::<f64>::new(1).unwrap()),
        cpu(3, F64, "cpu f64", Cpu::<f64>::new(3).unwrap()),
        cpu(1, F32, "cpu f32", Cpu::<f32>::new(1).unwrap()),
        cpu(3, F32, "cpu f32", Cpu::<f32>::new(3).unwrap()),
    ]
}

/// The CUDA backend on the simulator, its threads run in two orders; the second time without graphs.
pub fn simulators(precision: Precision) -> Vec<Machine> {
    let simulator = |seed| {
        let backend = Cuda::new(Box::new(Simulator::new(seed)), precision, seed == 1);
        cuda(format!("simulator {}, order {seed}", precision.name()), precision, backend)
    };
    vec![simulator(1), simulator(2)]
}

/// The CUDA backend on this machine's first GPU, with and without graphs.
pub fn cards(precision: Precision) -> Vec<Machine> {
    let card = |graphs| {
        let gpu = Gpu::new(0).unwrap_or_else(|e| panic!("this test runs on an NVIDIA GPU: {e}"));
        let name = format!("card {}, graphs {graphs}", precision.name());
        cuda(name, precision, Cuda::new(Box::new(gpu), precision, graphs))
    };
    vec![card(true), card(false)]
}

fn cuda(name: String, precision: Precision, backend: Cuda) -> Machine {
    let (tolerance, short) = (Tolerance::of(precision), precision == Precision::Bf16);
    Machine { name, tolerance, family: "cuda", short, backend: Box::new(backend) }
}
