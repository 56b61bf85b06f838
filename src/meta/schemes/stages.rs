//! Methods that train several networks one after the other, and what they keep from one to the
//! next.

use std::collections::BTreeMap;

use super::Trained;
use crate::error::Result;

/// What the earlier stages of a method hand on to the later ones, by name; empty before the first
/// one is over. Part of a checkpoint.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Memory(BTreeMap<String, Vec<f64>>);

impl Memory {
    /// Nothing yet.
    pub const fn new() -> Memory {
        Memory(BTreeMap::new())
    }

    /// The values of this name; empty if nobody wrote them.
    pub fn get(&self, name: &str) -> &[f64] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// All of it.
    pub fn all(&self) -> &BTreeMap<String, Vec<f64>> {
        &self.0
    }

    /// The values of this name, to be changed; empty if nobody wrote them.
    pub fn entry(&mut self, name: &str) -> &mut Vec<f64> {
        self.0.entry(name.into()).or_default()
    }

    /// Writes the values of this name.
    pub fn set(&mut self, name: &str, values: Vec<f64>) {
        self.0.insert(name.into(), values);
    }
}

impl From<BTreeMap<String, Vec<f64>>> for Memory {
    fn from(all: BTreeMap<String, Vec<f64>>) -> Memory {
        Memory(all)
    }
}

/// The stages of a method that trains several networks, each over the whole schedule. The last one
/// is tested and reported.
pub trait Stages {
    /// How many networks.
    fn count(&self) -> usize;

    /// How many of the stages differ in their step; those after them repeat the last one's.
    fn steps(&self) -> usize {
        1
    }

    /// The seed of a stage's first parameters (stages from 0).
    fn seed(&self, seed: u64, _stage: usize) -> u64 {
        seed
    }

    /// Whether what is tested is a vote of all networks, not the last one alone.
    fn votes(&self) -> bool {
        false
    }

    /// After every stage but the last: keeps what the next one needs of the trained network.
    ///
    /// # Errors
    /// Those of `trained`.
    fn next(&self, memory: &mut Memory, trained: &mut dyn Trained) -> Result<()>;

    /// In the last stage, scores of the test images `[images, classes]` from the network's logits
    /// of them; the largest is the prediction.
    ///
    /// # Errors
    /// Those of `trained`.
    fn scores(&self, _memory: &Memory, logits: Vec<f64>, _trained: &mut dyn Trained) -> Result<Vec<f64>> {
        Ok(logits)
    }
}
