use super::order::{index, ranks};
use super::weighted::coefficients;
use super::{Moment, Scheme, Seen, TrainStep, positive};
use crate::error::Result;
use crate::meta::config::Weights;
use crate::meta::step::{Pass, real_step};
use crate::nn::Params;
use crate::seed::Stream;
use crate::tape::{Kind, Tape, Var};

/// Co-teaching's choice (Han et al. 2018): 1 on the `⌊R·n⌋` smallest losses of the batch, with
/// `R(T) = 1 − min(τT/10, τ)` in epoch T (from 0) and τ the share of wrong labels, which has to be
/// known.
///
/// Two networks read one batch, and each learns from the samples that the other finds easy. The
/// first network is the one that is tested; the second one's states are `w2.*`, `momentum2.*` and
/// `stats2.*`. Outputs: `loss` `[n]`, `correct` `[n]` of the first network, `weight` `[n]`, 1 on
/// the samples that it learned from, `loss2` `[n]` of the second network.
///
/// Inputs: `scheme.index`, and `scheme.keep`, half below the number of samples kept.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CoTeaching {
    /// τ.
    pub noise: f64,
    /// Epochs until R has fallen to 1 − τ.
    pub ramp: f64,
}

impl CoTeaching {
    /// The defaults for a share τ of wrong labels.
    pub fn new(noise: f64) -> CoTeaching {
        CoTeaching { noise, ramp: 10.0 }
    }

    /// R: the share of a batch that is kept in an epoch (from 0).
    pub fn kept(&self, epoch: usize) -> f64 {
        1.0 - (self.noise * epoch as f64 / self.ramp).min(self.noise)
    }
}

impl Scheme for CoTeaching {
    // No curve: what is small depends on the batch, and on the other network.
    fn weights(&self, tape: &mut Tape, seen: &Seen) -> Result<Var> {
        let keep = tape.input("scheme.keep", Kind::Float, [])?;
        let negative = tape.scale(seen.losses, -1.0)?;
        let ranks = ranks(tape, negative)?;
        let keep = tape.broadcast_to(keep, tape.shape(ranks).clone())?;
        let room = tape.sub(keep, ranks)?;
        positive(tape, room)
    }

    fn over(&self) -> Weights {
        Weights::Normalised
    }

    fn inputs(&self, now: &Moment) -> Vec<(&'static str, Vec<f64>)> {
        // Without the little addition, 0.7·10 would be 6.999….
        let count = (self.kept(now.epoch) * now.batch as f64 + 1e-9).floor();
        vec![index(now.batch), ("scheme.keep", vec![count.max(1.0) - 0.5])]
    }

    fn record(&self, tape: &mut Tape, step: &TrainStep) -> Result<()> {
        let TrainStep { net, optimiser, data, batch: [n, _], .. } = *step;
        let lr = tape.input("lr", Kind::Float, [])?;
        let (mut first, mut second) =
            (Params::classifier(), Params::declared("w2", Stream::SecondClassifier));
        tape.section("losses of both networks");
        let a = Pass::record(tape, net, data, n, &mut first, Some("stats"), "")?;
        let b = Pass::record(tape, net, data, n, &mut second, Some("stats2"), "_second")?;
        tape.section("the samples that each finds easy");
        let easy = |tape: &mut Tape, pass: &Pass| -> Result<Var> {
            let losses = tape.detach(pass.losses)?;
            self.weights(tape, &Seen { losses, labels: pass.y })
        };
        let (by_first, by_second) = (easy(tape, &a)?, easy(tape, &b)?);
        tape.section("steps on the other's choice");
        for (w, pass, weights, momentum) in
            [(&first, &a, by_second, "momentum"), (&second, &b, by_first, "momentum2")]
        {
            let coefficients = coefficients(tape, weights, self.over())?;
            real_step(tape, w, &[(pass.losses, coefficients)], &optimiser, lr, momentum)?;
        }
        tape.output("loss", a.losses)?;
        tape.output("correct", a.correct)?;
        tape.output("weight", by_second)?;
        tape.output("loss2", b.losses)?;
        Ok(())
    }
}
