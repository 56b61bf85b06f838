use super::{Moment, Scheme, Seen};
use crate::error::Result;
use crate::tape::{Kind, Tape, Var};

/// AdaBoost (Freund & Schapire 1997) for many classes, SAMME (Zhu et al. 2009): in each round a new network is trained with the
/// samples' weights D; with ε its weighted error, it votes with `α = ln((1−ε)/ε) + ln(K−1)`, and the weights of the samples
/// that it gets wrong grow: `D_i ← D_i·e^α / Z`. The rounds' networks vote together for the class `argmax_k Σ_r α_r·1[h_r = k]`.
///
/// Here 5 rounds (usual are 5 to 10), each over the whole schedule. Input: `scheme.sample_weights` `[n]`, D times the number of
/// training samples, so that they are 1 in the first round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AdaBoost {
    /// Networks that are trained.
    pub rounds: usize,
}

impl Default for AdaBoost {
    fn default() -> AdaBoost {
        AdaBoost { rounds: 5 }
    }
}

/// The outcome of a round.
#[derive(Clone, PartialEq, Debug)]
pub struct Round {
    /// ε.
    pub error: f64,
    /// α, the network's vote.
    pub vote: f64,
    /// The next round's weights, with mean 1.
    pub weights: Vec<f64>,
}

/// An error of 0 would be an infinite vote.
const LEAST_ERROR: f64 = 1e-6;

impl AdaBoost {
    /// From the round's weights (any scale) and which samples its network got wrong. A network that is no better than chance,
    /// `ε ≥ 1 − 1/K`, gets no vote, and the next round begins anew with equal weights.
    pub fn round(weights: &[f64], wrong: &[bool], classes: usize) -> Round {
        let total: f64 = weights.iter().sum();
        let missed: f64 = weights.iter().zip(wrong).filter(|(_, w)| **w).map(|(d, _)| d).sum();
        let error = missed / total;
        let bounded = error.clamp(LEAST_ERROR, 1.0 - LEAST_ERROR);
        let vote = ((1.0 - bounded) / bounded).ln() + (classes.max(2) as f64 - 1.0).ln();
        // Chance itself is no vote, whichever way it was rounded.
        if vote <= 1e-9 {
            return Round { error, vote: 0.0, weights: vec![1.0; weights.len()] };
        }
        let grown = |(d, wrong): (&f64, &bool)| if *wrong { d * vote.exp() } else { *d };
        let grown: Vec<f64> = weights.iter().zip(wrong).map(grown).collect();
        let scale = grown.len() as f64 / grown.iter().sum::<f64>();
        Round { error, vote, weights: grown.iter().map(|d| d * scale).collect() }
    }
}

impl Scheme for AdaBoost {
    /// None: a sample's weight tells of the rounds before.
    fn curve(&self, _: &mut Tape, _: Var) -> Result<Option<Var>> {
        Ok(None)
    }

    fn weights(&self, tape: &mut Tape, seen: &Seen) -> Result<Var> {
        let shape = tape.shape(seen.losses).clone();
        tape.input("scheme.sample_weights", Kind::Float, shape)
    }

    fn inputs(&self, now: &Moment) -> Vec<(&'static str, Vec<f64>)> {
        vec![("scheme.sample_weights", now.sample_weights.to_vec())]
    }
}
