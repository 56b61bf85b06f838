//! The machines under test, and how far each may be from the CPU in f64.

use std::sync::{Arc, Mutex};

use metatape::backend::cpu::Cpu;
use metatape::backend::cuda::{Cuda, Precision};
use metatape::program::Backend;

use super::card::card;
use super::rounded::{Rounded, Rounding, cut_to_tf32, other_sum};
use super::simulator::Simulator;

/// A machine under test.
pub struct Machine {
    pub name: String,
    /// Its row in the table of tolerances.
    pub tolerance: Tolerance,
    /// Machines of one family give the same bits.
    pub family: &'static str,
    /// What it rounds by definition; `None`: nothing but sums.
    pub precision: Option<Precision>,
    /// Ways, besides the definition's, in which its library may treat factors of products in tf32.
    pub products: &'static [Rounding],
    pub backend: Box<dyn Backend>,
}

/// How far a machine may be from the CPU in f64 that rounds wherever the machine's precision says
/// ([`Rounded`]): this is the machine's own error, of the order and the f32 of its sums, whatever
/// the precision costs by definition.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Of an operation: largest difference, relative to the largest entry of the tensor. Sums run
    /// over at most a few thousand products.
    pub operation: f64,
    /// Likewise, where it has matrix products: they are the library's.
    pub products: f64,
    /// Of the few entries of an operation whose sum, on the machine, lies on the other side of the
    /// middle between two roundings: one step of what is stored.
    pub step: f64,
    /// Of a whole meta step's hypergradient: length of the error, relative to its own.
    pub hypergradient: f64,
    /// Likewise of losses, weights and new parameters.
    pub others: f64,
}

const F64: Tolerance =
    Tolerance { operation: 1e-13, products: 1e-13, step: 0.0, hypergradient: 1e-11, others: 1e-11 };
const F32: Tolerance =
    Tolerance { operation: 2e-5, products: 2e-5, step: 0.0, hypergradient: 1e-5, others: 1e-6 };
// In a network, the factors of all products but the first come out of sums, and some are rounded
// the other way than in the reference; then a maximum or a ReLU near its kink may go the other way,
// too, and in a network of a few channels that shows.
const TF32: Tolerance =
    Tolerance { operation: 2e-5, products: 2e-5, step: 0.0, hypergradient: 2e-2, others: 1e-3 };
/// 2⁻⁷: two neighbours in bf16 between 1 and 2.
const BF16: Tolerance =
    Tolerance { operation: 2e-5, products: 2e-5, step: 7.9e-3, hypergradient: 2e-2, others: 1e-3 };

impl Tolerance {
    /// What is wrong with a tensor of an operation: all entries are held, but for a few that may be
    /// a rounding's step away.
    pub fn deviation(&self, got: &[f64], want: &[f64]) -> Option<String> {
        if got.len() != want.len() {
            return Some(format!("{} entries, not {}", got.len(), want.len()));
        }
        // Inputs are about 1 in size, so smaller results are differences of larger numbers.
        let finite = want.iter().filter(|w| w.is_finite());
        let largest = finite.fold(0.1, |m: f64, v| m.max(v.abs()));
        let few = 2 + got.len() / 100;
        let (mut apart, mut beyond, mut worst) = (0, 0, (0.0, 0));
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            let error = (g - w).abs() / largest;
            if g == w || g.is_nan() && w.is_nan() || error <= self.operation {
                continue;
            }
            // What is no number is beyond all limits.
            let error = if error.is_nan() { f64::INFINITY } else { error };
            apart += 1;
            beyond += usize::from(error > self.step);
            if error > worst.0 {
                worst = (error, i);
            }
        }
        let (error, i) = worst;
        (beyond > 0 || apart > few).then(|| {
            format!(
                "{apart} of {} entries are off by more than {:.1e} and {beyond} by more than {:.1e} (limit {few} and 0); [{i}] is {}, not {}: \
                 error {error:.1e}",
                got.len(),
                self.operation,
                self.step.max(self.operation),
                got[i],
                want[i]
            )
        })
    }
}

/// What a precision may cost: largest relative error of a whole network's hypergradient, against
/// f64.
pub fn cost(network: &str, precision: Precision) -> f64 {
    match precision {
        // Of 10⁷ or 10⁸ ReLUs, some have arguments so near zero that f32 takes them for the other
        // side, and the error is the root of their share. `precisions.rs` prints for ResNet-32
        // 4.7e-4, and 9.6e-5 to 1.0e-3 with sums in other orders; an H200 has 7.9e-4.
        Precision::F32 if network == "resnet32" => 3e-3,
        // 9.7e-4 and 1.9e-3 with direct sums; on the CPU 1.8e-3, and 3.3e-3 with its products
        // summed in another order; an H200 has 5.0e-4.
        Precision::F32 if network == "wrn28-10" => 5e-3,
        Precision::F32 => 1e-5,
        // 9e-3 where the library cuts factors.
        Precision::Tf32 => 2e-2,
        Precision::Bf16 => 5e-2,
    }
}

impl Machine {
    /// The CPU in f64, rounding as the machine does: what the definition leaves open. Its library
    /// may do otherwise with factors; and sums in f32 have no one order, after which some of what
    /// is rounded is rounded the other way.
    pub fn other_references(&self, threads: usize) -> Vec<Box<dyn Backend>> {
        let Some(precision) = self.precision else { return Vec::new() };
        let products = self.products.iter().map(|p| Rounded::with_products(precision, *p, threads));
        let sums: [Rounding; 2] = [other_sum::<1>, other_sum::<2>];
        let sums = sums.iter().map(|s| Rounded::with_sums(precision, *s, threads));
        products.chain(sums).map(|reference| Box::new(reference) as _).collect()
    }

    /// The CPU in f64, rounding as the machine does.
    pub fn reference(&self, threads: usize) -> Box<dyn Backend> {
        match self.precision {
            Some(precision) => Box::new(Rounded::new(precision, threads)),
            None => Box::new(Cpu::<f64>::new(threads).unwrap()),
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
        Machine { name, tolerance, family, precision: None, products: &[], backend: Box::new(backend) }
    }
    vec![
        cpu(1, F64, "cpu f64", Cpu::<f64>::new(1).unwrap()),
        cpu(3, F64, "cpu f64", Cpu::<f64>::new(3).unwrap()),
        cpu(1, F32, "cpu f32", Cpu::<f32>::new(1).unwrap()),
        cpu(3, F32, "cpu f32", Cpu::<f32>::new(3).unwrap()),
    ]
}

/// The CUDA backend on the simulator, its threads run in two orders; the second time without
/// graphs.
pub fn simulators(precision: Precision) -> Vec<Machine> {
    let simulator = |seed| {
        let backend = Cuda::new(Box::new(Simulator::new(seed)), precision, seed == 1);
        cuda(format!("simulator {}, order {seed}", precision.name()), precision, backend)
    };
    vec![simulator(1), simulator(2)]
}

/// The CUDA backend on one simulator, in every precision.
pub fn one_simulator() -> Vec<Machine> {
    let simulator = Arc::new(Mutex::new(Simulator::new(3)));
    let machine = |precision: Precision| {
        let backend = Cuda::new(Box::new(simulator.clone()), precision, true);
        cuda(format!("shared simulator, {}", precision.name()), precision, backend)
    };
    [Precision::F32, Precision::Tf32, Precision::Bf16].map(machine).into()
}

/// The CUDA backend on this machine's first GPU, with and without graphs.
pub fn cards(precision: Precision) -> Vec<Machine> {
    let on_card = |graphs| {
        let name = format!("card {}, graphs {graphs}", precision.name());
        let mut machine = cuda(name, precision, Cuda::new(Box::new(card()), precision, graphs));
        if precision == Precision::Tf32 {
            // cuBLAS may round factors to tf32 or cut them, and need not: with one row, or rows of
            // odd lengths, it does not.
            machine.tolerance.products = 2e-3;
            machine.products = &[cut_to_tf32, |v| v];
        }
        machine
    };
    vec![on_card(true), on_card(false)]
}

fn cuda(name: String, precision: Precision, backend: Cuda) -> Machine {
    let tolerance = match precision {
        Precision::F32 => F32,
        Precision::Tf32 => TF32,
        Precision::Bf16 => BF16,
    };
    Machine {
        name,
        tolerance,
        family: "cuda",
        precision: Some(precision),
        products: &[],
        backend: Box::new(backend),
    }
}
