use super::{Draw, Scheme, TrainStep};
use crate::error::Result;
use crate::meta::step::{Pass, meta_losses, real_step};
use crate::nn::Params;
use crate::tape::{Kind, Tape, Var};

/// Both sets as one, each sample counting the same: what the clean samples are worth to someone
/// who asks them for nothing but their labels. A step takes a whole batch of each set, so the means
/// of the two are weighted by N/(N+M) and M/(N+M).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mixed {
    /// Sizes N and M of the training and the meta set.
    pub sizes: [usize; 2],
}

impl Scheme for Mixed {
    // Nobody has a weight.
    fn record(&self, tape: &mut Tape, step: &TrainStep) -> Result<()> {
        let counts = shares(tape, self.sizes, step.batch);
        on_both(tape, step, counts)
    }
}

/// Records the step on a batch of each set, whose samples count so much, `[n]` and `[m]`.
pub(super) fn on_both(tape: &mut Tape, step: &TrainStep, [of_train, of_meta]: [Var; 2]) -> Result<()> {
    let TrainStep { net, optimiser, data, batch: [n, m], .. } = *step;
    let lr = tape.input("lr", Kind::Float, [])?;
    let mut w = Params::classifier();
    let Pass { losses, correct, .. } = Pass::record(tape, net, data, n, &mut w, Some("stats"), "")?;
    let meta_losses = meta_losses(tape, net, data, m, &mut w)?;
    let both = [(losses, of_train), (meta_losses, of_meta)];
    real_step(tape, &w, &both, &optimiser, lr, "momentum")?;
    let meta_loss = tape.mean_all(meta_losses)?;
    tape.output("loss", losses)?;
    tape.output("correct", correct)?;
    tape.output("meta_loss", meta_loss)
}

/// What the samples of a batch of each set count, `[n]` and `[m]`, so that all samples of both sets
/// count the same.
pub(super) fn shares(tape: &mut Tape, sizes: [usize; 2], batch: [usize; 2]) -> [Var; 2] {
    let all = (sizes[0] + sizes[1]) as f64;
    [0, 1].map(|set| tape.constant(sizes[set] as f64 / all / batch[set] as f64, [batch[set]]))
}

/// The meta set alone, for as many steps as the training set would take: what the clean samples are
/// worth without the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CleanOnly;

impl Scheme for CleanOnly {
    // Nobody has a weight.
    fn record(&self, tape: &mut Tape, step: &TrainStep) -> Result<()> {
        step.plain(tape)
    }

    fn draws(&self, _step: u64, _steps: u64) -> Draw {
        Draw::Meta(None)
    }
}
