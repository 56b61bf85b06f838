use super::{Moment, Scheme, Seen};
use crate::error::Result;
use crate::tape::{Kind, Tape, Var};

/// Weights by the effective number of a class' samples: `(1−β)/(1−β^{n_c})`, rescaled so that their
/// mean over the classes is 1; β = 0.9999 (Cui et al. 2019). The counts are of the labels as given.
/// Input: `scheme.class_weights` `[classes]`.
#[derive(Clone, PartialEq, Debug)]
pub struct ClassBalanced {
    /// Weight of each class.
    weights: Vec<f64>,
}

impl ClassBalanced {
    /// β of the paper.
    pub const BETA: f64 = 0.9999;

    /// From how many training samples each class has, with the default β.
    pub fn new(counts: &[usize]) -> ClassBalanced {
        ClassBalanced::with_beta(counts, ClassBalanced::BETA)
    }

    /// Likewise for another β in [0, 1). A class without samples, which no batch holds, gets weight
    /// 0.
    pub fn with_beta(counts: &[usize], beta: f64) -> ClassBalanced {
        let raw = |count: &usize| match count {
            0 => 0.0,
            count => (1.0 - beta) / (1.0 - beta.powf(*count as f64)),
        };
        let raw: Vec<f64> = counts.iter().map(raw).collect();
        let present = counts.iter().filter(|c| **c > 0).count() as f64;
        let sum: f64 = raw.iter().sum();
        ClassBalanced { weights: raw.iter().map(|w| w * present / sum).collect() }
    }

    /// `[classes]`.
    pub fn class_weights(&self) -> &[f64] {
        &self.weights
    }
}

impl Scheme for ClassBalanced {
    // No curve: the weight depends on the label alone.
    fn weights(&self, tape: &mut Tape, seen: &Seen) -> Result<Var> {
        let classes = self.weights.len();
        let per_class = tape.input("scheme.class_weights", Kind::Float, [classes])?;
        let one_hot = tape.one_hot(seen.labels, classes)?;
        let column = tape.reshape(per_class, [classes, 1])?;
        let weights = tape.matmul(one_hot, column)?;
        let n = tape.shape(weights)[0];
        tape.reshape(weights, [n])
    }

    fn inputs(&self, _: &Moment) -> Vec<(&'static str, Vec<f64>)> {
        vec![("scheme.class_weights", self.weights.clone())]
    }
}
