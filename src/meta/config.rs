use std::fmt;
use std::str::FromStr;

use crate::bilevel::{Adam, Optimiser, Sgd};
use crate::error::{Error, Result};
use crate::nn::WeightNetInit;

/// How the weight net's outputs become weights of the batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weights {
    /// `V_i / n`.
    Mean,
    /// `V_i / Σ V`, and 0 where all are 0.
    Normalised,
}

/// How the hypergradient is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// One jvp of the per-sample losses; exact.
    Jvp,
    /// The same from the backward signals of the virtual step, layer by layer, where samples do not
    /// couple; the jvp where they do. Exact.
    Layerwise,
    /// Reverse mode straight through the virtual step's own reverse mode; exact, the reference.
    Reverse,
    /// The jvp replaced by a central difference: two more forward passes.
    FiniteDifference,
    /// The explicit matrix `G_ij = ⟨∇ℓ_j^meta(ŵ), ∇ℓ_i(w)⟩` of the paper; exact, for small
    /// networks.
    PerSample,
    /// Not the step's own hypergradient but that of the inner optimum, by this many iterations of
    /// conjugate gradients with the Hessian of the weighted loss at w.
    ImplicitCg(usize),
    /// The same by this many terms of a Neumann series at the virtual step's rate; one term is the
    /// step's own.
    Neumann(usize),
}

impl Route {
    /// The routes that are compared, the reference first.
    pub const ALL: [Route; 7] = [
        Route::Reverse,
        Route::Jvp,
        Route::Layerwise,
        Route::PerSample,
        Route::FiniteDifference,
        Route::Neumann(5),
        Route::ImplicitCg(5),
    ];

    /// Whether it is another hypergradient than the step's own, not another way to it.
    pub fn is_of_the_optimum(self) -> bool {
        match self {
            Route::ImplicitCg(_) | Route::Neumann(_) => true,
            Route::Jvp | Route::Layerwise => false,
            Route::Reverse | Route::FiniteDifference | Route::PerSample => false,
        }
    }
}

impl FromStr for Route {
    type Err = Error;
    fn from_str(name: &str) -> Result<Route> {
        let known = "layerwise, jvp, reverse, finite-difference, per-sample, implicit-cg:N, neumann:N";
        let none = || Error::Usage(format!("there is no route `{name}`; choose one of {known}"));
        let count = |text: &str| match text.parse() {
            Ok(count @ 1..=1000) => Ok(count),
            _ => Err(Error::Usage(format!(
                "route `{name}`: give a whole number from 1 to 1000 behind the colon"
            ))),
        };
        match name.split_once(':') {
            None => match name {
                "jvp" => Ok(Route::Jvp),
                "layerwise" => Ok(Route::Layerwise),
                "reverse" => Ok(Route::Reverse),
                "finite-difference" => Ok(Route::FiniteDifference),
                "per-sample" => Ok(Route::PerSample),
                _ => Err(none()),
            },
            Some(("implicit-cg", n)) => count(n).map(Route::ImplicitCg),
            Some(("neumann", n)) => count(n).map(Route::Neumann),
            Some(_) => Err(none()),
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Route::Jvp => f.pad("jvp"),
            Route::Layerwise => f.pad("layerwise"),
            Route::Reverse => f.pad("reverse"),
            Route::FiniteDifference => f.pad("finite-difference"),
            Route::PerSample => f.pad("per-sample"),
            Route::ImplicitCg(n) => f.pad(&format!("implicit-cg:{n}")),
            Route::Neumann(n) => f.pad(&format!("neumann:{n}")),
        }
    }
}

/// The virtual step's rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VirtualStep {
    /// Plain SGD at the current learning rate, as published.
    Plain,
    /// The classifier's own rule, momentum and weight decay, but for clipping.
    Momentum,
}

/// Weight-net optimisers of the official scripts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preset {
    /// "Stable" noise script: Adam 1e-3, L2 1e-4.
    Adam,
    /// Noise script for WRN: SGD 1e-3, Nesterov 0.9, weight decay 5e-4.
    SgdNoise,
    /// Class-imbalance script: SGD 1e-5, Nesterov 0.9, weight decay 5e-4.
    SgdImbalance,
}

impl Preset {
    /// The rule and its learning rate.
    pub fn optimiser(self) -> (Optimiser, f64) {
        let sgd = Sgd { momentum: 0.9, nesterov: true, weight_decay: 5e-4, clip: None };
        let sgd = Optimiser::Sgd(sgd);
        match self {
            Preset::Adam => {
                (Optimiser::Adam(Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-4 }), 1e-3)
            }
            Preset::SgdNoise => (sgd, 1e-3),
            Preset::SgdImbalance => (sgd, 1e-5),
        }
    }
}

impl Preset {
    /// The learning rate that suits the rule and the weight net's first values: the published one,
    /// but twice Adam's where V begins flat and has more of a way to go. Measured on the built-in
    /// images over seeds 1 to 5
    /// (`metatape compare --methods uniform,mwnet --seeds 5 --weight-net-lr LR`, final accuracy in
    /// percent at 1e-3, at 2e-3): uniform:0.6 80.03, 80.31; the same with mean weights 79.99,
    /// 80.50; flip2:0.4 80.55, 80.99.
    pub fn lr(self, init: WeightNetInit) -> f64 {
        match (self, init) {
            (Preset::Adam, WeightNetInit::Kinks | WeightNetInit::Trusting) => 2e-3,
            _ => self.optimiser().1,
        }
    }

    /// The slope that suits the rule in the weight net's first values
    /// ([`crate::nn::WeightNet::slope`]). Adam's steps have one size whatever the gradient's, so
    /// units begin flat; SGD needs them as steep as the loss itself.
    pub fn slope(self) -> f64 {
        match self {
            Preset::Adam => 0.04,
            Preset::SgdNoise | Preset::SgdImbalance => 1.0,
        }
    }
}

/// The options of a meta step.
#[derive(Clone, PartialEq, Debug)]
pub struct StepConfig {
    /// Mean or normalised weights, in the virtual and in the real step.
    pub weights: Weights,
    /// Whether the loss that the weight net reads is differentiated through in the virtual step.
    pub undetached: bool,
    /// The virtual step's rule.
    pub virtual_step: VirtualStep,
    /// Virtual steps, each on a batch of its own; 1 as published. With more, the hypergradient goes
    /// through all of them, in reverse mode.
    pub unroll: usize,
    /// How the hypergradient is computed.
    pub route: Route,
    /// The classifier's rule.
    pub classifier: Sgd,
    /// The weight net's rule.
    pub weight_net: Optimiser,
    /// For the finite-difference route: length of the probe `ε·g`; see [`probe`].
    pub probe: f64,
}

/// The length of the finite-difference route's probe that suits a precision: small against the
/// network's curvature and its kinks, large against rounding. In f32 that of DARTS (Liu et al.
/// 2019).
pub fn probe(double: bool) -> f64 {
    if double { 1e-6 } else { 1e-2 }
}

impl StepConfig {
    /// Checks what no single option shows.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the flag.
    pub fn check(&self) -> Result<()> {
        let usage = |sentence: &str| Err(Error::Usage(sentence.to_owned()));
        match (self.unroll, self.route, self.virtual_step) {
            (0, ..) => usage("--unroll 0 takes no virtual step; give at least 1"),
            (1, ..) | (_, Route::Jvp | Route::Layerwise | Route::Reverse, VirtualStep::Plain) => Ok(()),
            (_, _, VirtualStep::Momentum) => {
                usage("--unroll takes plain virtual steps; leave out --virtual momentum")
            }
            (_, Route::FiniteDifference | Route::PerSample | Route::ImplicitCg(_) | Route::Neumann(_), _) => {
                usage(
                    "--unroll goes through its steps in reverse mode; leave out --route, or take --route reverse",
                )
            }
        }
    }

    /// How far ŵ moves for a virtual gradient of 1, in learning rates: 1, or the momentum rule's
    /// gain.
    pub(crate) fn reach(&self) -> f64 {
        match self.virtual_step {
            VirtualStep::Plain => 1.0,
            VirtualStep::Momentum => self.classifier.gain(),
        }
    }
}

impl Default for StepConfig {
    /// The "stable" noise script: mean weights, detached, plain virtual step, momentum 0.9, weight
    /// decay 5e-4, Adam.
    fn default() -> StepConfig {
        StepConfig {
            weights: Weights::Mean,
            undetached: false,
            virtual_step: VirtualStep::Plain,
            unroll: 1,
            route: Route::Layerwise,
            classifier: Sgd { momentum: 0.9, nesterov: false, weight_decay: 5e-4, clip: None },
            weight_net: Preset::Adam.optimiser().0,
            probe: probe(false),
        }
    }
}

/// Names as typed on the command line.
macro_rules! named {
    ($type:ty, $what:literal, $($name:literal => $value:expr),+) => {
        impl FromStr for $type {
            type Err = Error;
            fn from_str(name: &str) -> Result<Self> {
                match name {
                    $($name => Ok($value),)+
                    _ => Err(Error::unknown($what, name, &[$($name),+])),
                }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(if *self == $value { return f.pad($name); })+
                Ok(())
            }
        }
    };
}

named!(Weights, "kind of weights", "mean" => Weights::Mean, "normalised" => Weights::Normalised);
named!(VirtualStep, "virtual step", "plain" => VirtualStep::Plain, "momentum" => VirtualStep::Momentum);
named!(Preset, "weight-net preset", "adam" => Preset::Adam, "sgd-noise" => Preset::SgdNoise,
    "sgd-imbalance" => Preset::SgdImbalance);
named!(WeightNetInit, "weight-net initialisation", "kinks" => WeightNetInit::Kinks,
    "trusting" => WeightNetInit::Trusting, "faithful" => WeightNetInit::Faithful);
