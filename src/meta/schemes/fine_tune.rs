use super::{Draw, Scheme, TrainStep};
use crate::error::Result;
use crate::tape::Tape;

/// Fine-tuning: the network is trained on the biased set as usual and, at the end, on the clean
/// meta set alone (a baseline of Shu et al. 2019, who do not say how long). So that the schedule is
/// everyone's, the last 15% of the steps are those on the meta set, at a tenth of the first
/// learning rate, with uniform weights throughout.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct FineTune {
    /// Share of the steps that use the meta set.
    pub share: f64,
    /// Learning rate there, times the first one.
    pub factor: f64,
}

impl Default for FineTune {
    fn default() -> FineTune {
        FineTune { share: 0.15, factor: 0.1 }
    }
}

impl FineTune {
    /// Whether the step (from 0) of so many uses the meta set; the last one always does, the first
    /// one never does where there are two or more.
    pub fn on_meta(&self, step: u64, steps: u64) -> bool {
        let tail = (self.share * steps as f64).round() as u64;
        step >= steps - tail.clamp(1, steps.max(2) - 1)
    }
}

impl Scheme for FineTune {
    // Nobody has a weight.
    fn record(&self, tape: &mut Tape, step: &TrainStep) -> Result<()> {
        step.plain(tape)
    }

    fn draws(&self, step: u64, steps: u64) -> Draw {
        if self.on_meta(step, steps) { Draw::Meta(Some(self.factor)) } else { Draw::Train }
    }
}
