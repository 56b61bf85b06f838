use super::{Memory, Moment, Scheme, Seen, Set, Stages, Trained, argmax};
use crate::error::Result;
use crate::tape::{Kind, Tape, Var};

/// AdaBoost (Freund & Schapire 1997) for many classes, SAMME (Zhu et al. 2009): in each round a new
/// network is trained with the samples' weights D; with ε its weighted error, it votes with
/// `α = ln((1−ε)/ε) + ln(K−1)`, and the weights of the samples that it gets wrong grow:
/// `D_i ← D_i·e^α / Z`. The rounds' networks vote together for the class
/// `argmax_k Σ_r α_r·1[h_r = k]`.
///
/// Here 5 rounds (usual are 5 to 10), each over the whole schedule. Input: `scheme.sample_weights`
/// `[n]`, D times the number of training samples, so that they are 1 in the first round.
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
    /// From the round's weights (any scale) and which samples its network got wrong. A network that
    /// is no better than chance, `ε ≥ 1 − 1/K`, gets no vote, and the next round begins anew with
    /// equal weights.
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

/// In [`Memory`]: D of the training samples, with mean 1.
const SAMPLE_WEIGHTS: &str = "sample_weights";
/// In [`Memory`]: the votes of the rounds so far `[test images, classes]`.
const VOTES: &str = "votes";

impl Scheme for AdaBoost {
    // No curve: a sample's weight tells of the rounds before.
    fn weights(&self, tape: &mut Tape, seen: &Seen) -> Result<Var> {
        let shape = tape.shape(seen.losses).clone();
        tape.input("scheme.sample_weights", Kind::Float, shape)
    }

    fn inputs(&self, now: &Moment) -> Vec<(&'static str, Vec<f64>)> {
        let all = now.memory.get(SAMPLE_WEIGHTS);
        let weight = |place: &u32| all.get(*place as usize).copied().unwrap_or(1.0);
        vec![("scheme.sample_weights", now.positions.iter().map(weight).collect())]
    }

    fn stages(&self) -> Option<&dyn Stages> {
        Some(self)
    }
}

impl Stages for AdaBoost {
    fn count(&self) -> usize {
        self.rounds
    }

    fn votes(&self) -> bool {
        true
    }

    /// Each round's network begins elsewhere.
    fn seed(&self, seed: u64, stage: usize) -> u64 {
        seed.wrapping_add((stage as u64) << 32)
    }

    fn next(&self, memory: &mut Memory, trained: &mut dyn Trained) -> Result<()> {
        let logits = trained.see(Set::Test)?.logits;
        let (votes, weights) = self.tally(memory, &logits, trained)?;
        memory.set(VOTES, votes);
        memory.set(SAMPLE_WEIGHTS, weights);
        Ok(())
    }

    /// The votes of all rounds.
    fn scores(&self, memory: &Memory, logits: Vec<f64>, trained: &mut dyn Trained) -> Result<Vec<f64>> {
        Ok(self.tally(memory, &logits, trained)?.0)
    }
}

impl AdaBoost {
    /// Votes on the test images, those of the present network with these logits included, and the
    /// next weights of the training samples.
    fn tally(
        &self,
        memory: &Memory,
        logits: &[f64],
        trained: &mut dyn Trained,
    ) -> Result<(Vec<f64>, Vec<f64>)> {
        let classes = trained.classes();
        let wrong: Vec<bool> = trained.see(Set::Train)?.hits.iter().map(|hit| *hit == 0.0).collect();
        let (before, first) = (memory.get(SAMPLE_WEIGHTS), vec![1.0; wrong.len()]);
        let round = AdaBoost::round(if before.is_empty() { &first } else { before }, &wrong, classes);
        let mut votes = memory.get(VOTES).to_vec();
        votes.resize(logits.len(), 0.0);
        for (row, logits) in votes.chunks_mut(classes).zip(logits.chunks(classes)) {
            // The least vote decides only while nobody else has voted.
            row[argmax(logits)] += round.vote.max(1e-9);
        }
        Ok((votes, round.weights))
    }
}
