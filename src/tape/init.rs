//! The first value of a state: a fact of the state, like its shape.

use rand_distr::{Distribution, Normal, Uniform};

use crate::seed::{Stream, rng};

/// How a state begins.
#[derive(Clone, PartialEq, Debug)]
pub enum Init {
    /// The same number everywhere.
    Constant(f64),
    /// Uniform in ± this bound.
    Uniform(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// These numbers, row-major.
    Given(Vec<f64>),
}

impl Init {
    /// PyTorch's default for a layer whose outputs are sums of `fan_in` products: U(±1/√fan_in).
    pub fn torch(fan_in: usize) -> Init {
        Init::Uniform(1.0 / (fan_in as f64).sqrt())
    }

    /// Whether a state of so many numbers can begin so.
    pub(super) fn fits(&self, count: usize) -> bool {
        match self {
            Init::Constant(_) => true,
            Init::Uniform(size) | Init::Normal(size) => count == 0 || (0.0..f64::INFINITY).contains(size),
            Init::Given(values) => values.len() == count,
        }
    }

    /// Kaiming-normal (He et al. 2015): standard deviation √(2/fan).
    pub fn kaiming(fan: usize) -> Init {
        Init::Normal((2.0 / fan as f64).sqrt())
    }
}

/// An initialisation, and where its random numbers come from.
#[derive(Clone, PartialEq, Debug)]
pub struct First {
    /// How the state begins.
    pub init: Init,
    /// What the numbers are drawn for.
    pub stream: Stream,
    /// Which of the stream's states it is.
    pub counter: u64,
}

impl First {
    /// The state's first `count` entries in a run with `seed`.
    pub fn values(&self, count: usize, seed: u64) -> Vec<f64> {
        let rng = rng(seed, self.stream, self.counter);
        match &self.init {
            Init::Constant(c) => vec![*c; count],
            Init::Given(values) => values.clone(),
            // `fits` has seen that there are such.
            Init::Uniform(bound) => Uniform::new_inclusive(-bound, *bound)
                .map_or(Vec::new(), |uniform| uniform.sample_iter(rng).take(count).collect()),
            Init::Normal(std) => Normal::new(0.0, *std)
                .map_or(Vec::new(), |normal| normal.sample_iter(rng).take(count).collect()),
        }
    }
}
