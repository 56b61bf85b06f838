use super::order::{index, ranks};
use super::{Moment, Scheme, Seen, positive};
use crate::error::Result;
use crate::meta::config::Weights;
use crate::tape::{Tape, Var};

/// Hard example mining: weight 1 on the k largest losses of the batch, 0 on the others, and the
/// mean over those k (Malisiewicz et al. 2011; online, Shrivastava et al. 2016). k is 25 to 50% of
/// the batch; here 50%.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ohem {
    /// k as a share of the batch.
    pub share: f64,
}

impl Default for Ohem {
    fn default() -> Ohem {
        Ohem { share: 0.5 }
    }
}

impl Scheme for Ohem {
    // No curve: what is large depends on the batch.
    fn weights(&self, tape: &mut Tape, seen: &Seen) -> Result<Var> {
        let ranks = ranks(tape, seen.losses)?;
        let k = (self.share * tape.shape(seen.losses).count() as f64).round().max(1.0);
        let minus = tape.scale(ranks, -1.0)?;
        let room = tape.offset(minus, k - 0.5)?;
        positive(tape, room)
    }

    fn over(&self) -> Weights {
        Weights::Normalised
    }

    fn inputs(&self, now: &Moment) -> Vec<(&'static str, Vec<f64>)> {
        vec![index(now.batch)]
    }
}
