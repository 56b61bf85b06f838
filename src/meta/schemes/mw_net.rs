use crate::meta::config::{Preset, Weights};

/// What the official scripts of Meta-Weight-Net (Shu et al. 2019) change between label noise and long tails; the step itself is
/// [`crate::meta::MetaStep`], whose module derives it. The recipe for long tails also begins with the published weight net,
/// [`crate::nn::WeightNetInit::Faithful`].
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
