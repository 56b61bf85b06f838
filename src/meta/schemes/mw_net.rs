use super::{Moment, Scheme, Seen, TrainStep};
use crate::error::Result;
use crate::meta::config::{Preset, StepConfig, Weights};
use crate::meta::order::Order;
use crate::meta::step::MetaStep;
use crate::nn::{GROUPS, Params, WeightNet};
use crate::tape::{Tape, Var};

/// Meta-Weight-Net (Shu et al. 2019): weights `V(ℓ; θ)` with V a net of one hidden layer, ReLU and
/// sigmoid, whose θ takes a step down the meta loss before every step of the classifier. With a
/// class-aware V, CMW-Net (Shu et al. 2023): V has an output for each group of classes of similar
/// size, since a loss alone does not tell a rare class from a hard sample. The step itself is
/// [`MetaStep`], whose module derives it; here it stands among the schemes.
///
/// States: `theta.*` and its optimiser's moments. Inputs: `lr.theta`.
#[derive(Clone, PartialEq, Debug)]
pub struct MwNet {
    /// V.
    pub weight_net: WeightNet,
    /// All options of the step. The classifier's rule is the training step's.
    pub config: StepConfig,
    /// V's learning rate.
    pub lr: f64,
    /// θ takes a step once in this many.
    pub theta_every: usize,
}

impl Scheme for MwNet {
    /// V at its present θ.
    fn curve(&self, tape: &mut Tape, seen: &Seen) -> Result<Option<Var>> {
        let mut theta = Params::weight_net();
        let groups = self.weight_net.groups(tape, seen.labels)?;
        self.weight_net.weights(tape, &mut theta, seen.losses, groups).map(Some)
    }

    fn groups(&self) -> Vec<(&'static str, i32)> {
        let first = |group: usize| self.weight_net.groups.iter().position(|g| *g == group);
        let names = ["large classes", "medium classes", "small classes"].into_iter().enumerate();
        names.filter_map(|(group, name)| Some((name, first(group)? as i32))).collect()
    }

    fn record(&self, tape: &mut Tape, step: &TrainStep) -> Result<()> {
        let MwNet { weight_net, config, .. } = self;
        let meta = MetaStep { net: step.net, weight_net, config, data: step.data, batch: step.batch };
        match step.stage {
            0 => meta.record(tape, false),
            _ => meta.record_in(tape, Order::FixedTheta),
        }
    }

    fn programs(&self) -> usize {
        self.theta_every.min(2)
    }

    fn program(&self, step: u64) -> usize {
        usize::from(!step.is_multiple_of(self.theta_every as u64))
    }

    fn inputs(&self, _now: &Moment) -> Vec<(&'static str, Vec<f64>)> {
        let mut inputs = vec![("lr.theta", vec![self.lr])];
        if !self.weight_net.groups.is_empty() {
            inputs.push((GROUPS, self.weight_net.groups_input()));
        }
        inputs
    }
}

/// Groups of classes of a class-aware weight net (CMW-Net, Shu et al. 2023, arXiv 2202.05613).
const CLASS_GROUPS: f64 = 3.0;

/// The group (from 0, the large ones) of each class by its number of training samples: three spans
/// of equal ratio between the most and the least, but none narrower than a factor of 2, so that
/// classes of about one size are one group. CMW-Net itself finds three groups by K-means on the
/// counts.
pub fn class_groups(counts: &[usize]) -> Vec<usize> {
    let logs = || counts.iter().map(|count| (*count.max(&1) as f64).ln());
    let (least, most) =
        logs().fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), v| (low.min(v), high.max(v)));
    let span = ((most - least) / CLASS_GROUPS).max(2f64.ln());
    // The least class itself would be the first of a fourth.
    logs().map(|v| ((most - v) / span).min(CLASS_GROUPS - 1.0) as usize).collect()
}

/// What the official scripts of Meta-Weight-Net change between label noise and long tails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MwNetRecipe {
    /// V/n or V/ΣV.
    pub weights: Weights,
    /// Whether the loss that V reads is differentiated through in the virtual step.
    pub undetached: bool,
    /// V's optimiser.
    pub weight_net: Preset,
}

impl MwNetRecipe {
    /// The "stable" noise script: V/n, detached, Adam 1e-3 with L2 1e-4.
    pub const NOISE: MwNetRecipe =
        MwNetRecipe { weights: Weights::Mean, undetached: false, weight_net: Preset::Adam };
    /// The noise script for WRN-28-10: V/ΣV, detached, SGD 1e-3 with Nesterov's momentum 0.9 and
    /// weight decay 5e-4.
    pub const NOISE_WRN: MwNetRecipe =
        MwNetRecipe { weights: Weights::Normalised, undetached: false, weight_net: Preset::SgdNoise };
    /// The noise script's, for a class-aware V ([`class_groups`]). On the built-in images with a
    /// long tail of 100, normalised weights in its place lose (seeds 1 to 4, this constant changed:
    /// final accuracy −1.4 against uniform weights, where mean ones gain 1.9).
    pub const CLASS_AWARE: MwNetRecipe = MwNetRecipe::NOISE;
    /// The class-imbalance script: V/ΣV, not detached, SGD 1e-5 with Nesterov's momentum 0.9 and
    /// weight decay 5e-4.
    pub const LONG_TAIL: MwNetRecipe =
        MwNetRecipe { weights: Weights::Normalised, undetached: true, weight_net: Preset::SgdImbalance };
}
