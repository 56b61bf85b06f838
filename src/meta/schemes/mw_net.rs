use super::{Moment, Scheme, TrainStep};
use crate::error::Result;
use crate::meta::config::{Optimiser, Preset, StepConfig, Weights};
use crate::meta::optimiser::adam_corrections;
use crate::meta::step::MetaStep;
use crate::nn::{Params, WeightNet};
use crate::tape::{Tape, Var};

/// Meta-Weight-Net (Shu et al. 2019): weights `V(ℓ; θ)` with V a net of one hidden layer, ReLU and sigmoid, whose θ takes a step down
/// the meta loss before every step of the classifier. The step itself is [`MetaStep`], whose module derives it; here it
/// stands among the schemes.
///
/// States: `theta.*` and its optimiser's moments. Inputs: `lr.theta`, and Adam's bias corrections.
#[derive(Clone, PartialEq, Debug)]
pub struct MwNet {
    /// V.
    pub weight_net: WeightNet,
    /// All options of the step. The classifier's rule is the training step's.
    pub config: StepConfig,
    /// V's learning rate.
    pub lr: f64,
}

impl Scheme for MwNet {
    /// V at its present θ.
    fn curve(&self, tape: &mut Tape, losses: Var) -> Result<Option<Var>> {
        let theta = Params::states(tape, "theta", &self.weight_net.params())?;
        self.weight_net.weights(tape, &theta, losses).map(Some)
    }

    fn over(&self) -> Weights {
        self.config.weights
    }

    fn record(&self, tape: &mut Tape, step: &TrainStep) -> Result<()> {
        let MwNet { weight_net, config, .. } = self;
        MetaStep { net: step.net, weight_net, config, data: step.data, batch: step.batch }.record(tape, false)
    }

    fn inputs(&self, now: &Moment) -> Vec<(&'static str, Vec<f64>)> {
        let mut inputs = vec![("lr.theta", vec![self.lr])];
        if let Optimiser::Adam(adam) = &self.config.weight_net {
            let [first, second] = adam_corrections(adam, now.step + 1);
            inputs.extend([("adam.correction1", vec![first]), ("adam.correction2", vec![second])]);
        }
        inputs
    }
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
    /// The noise script for WRN-28-10: V/ΣV, detached, SGD 1e-3 with Nesterov's momentum 0.9 and weight decay 5e-4.
    pub const NOISE_WRN: MwNetRecipe =
        MwNetRecipe { weights: Weights::Normalised, undetached: false, weight_net: Preset::SgdNoise };
    /// The class-imbalance script: V/ΣV, not detached, SGD 1e-5 with Nesterov's momentum 0.9 and weight decay 5e-4.
    pub const LONG_TAIL: MwNetRecipe =
        MwNetRecipe { weights: Weights::Normalised, undetached: true, weight_net: Preset::SgdImbalance };
}
