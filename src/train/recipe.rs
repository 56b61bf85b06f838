//! Which fields a method reads, and what its recipe decides in their place.

use super::config::Config;
use super::method::{Method, Settings};
use super::values::Precision;
use crate::error::{Error, Result};
use crate::meta::schemes::MwNetRecipe;
use crate::meta::{Optimiser, StepConfig, probe};
use crate::nn::{WeightNet, WeightNetInit};

impl Config {
    /// A method's first learning rate: the setting `METHOD.lr`, or the one of all.
    pub fn rate(&self, method: Method) -> f64 {
        self.set.get(&format!("{method}.lr")).copied().unwrap_or(self.lr)
    }

    /// The same in an epoch (from 0): divided by 10 at every milestone.
    pub fn lr_at(&self, method: Method, epoch: usize) -> f64 {
        let drops = self.milestones.iter().filter(|m| epoch >= **m).count();
        self.rate(method) / 10f64.powi(drops as i32)
    }

    /// A method's meta step.
    pub fn step(&self, method: Method) -> StepConfig {
        let MwNetRecipe { weights, undetached, weight_net } = self.recipe(method);
        StepConfig {
            weights,
            undetached,
            virtual_step: self.virtual_step,
            unroll: self.unroll,
            route: self.route,
            classifier: self.classifier(),
            weight_net: weight_net.optimiser().0,
            probe: probe(self.precision == Precision::F64),
        }
    }

    /// Meta-Weight-Net's recipe: that of the fields, unless the method names one.
    fn recipe(&self, method: Method) -> MwNetRecipe {
        match method {
            Method::MwNetLongTail => MwNetRecipe::LONG_TAIL,
            Method::CmwNet => MwNetRecipe::CLASS_AWARE,
            Method::MwNetPublished | Method::MwNetSoft => MwNetRecipe::NOISE,
            _ => MwNetRecipe {
                weights: self.weights,
                undetached: self.undetached,
                weight_net: self.weight_net_preset,
            },
        }
    }

    /// The same with what the main method's recipe decides: what is recorded is what runs.
    pub(super) fn with_recipe(mut self) -> Config {
        let MwNetRecipe { weights, undetached, weight_net } = self.recipe(self.method);
        self.weight_net_init = self.weight_net(self.method).init;
        (self.weights, self.undetached, self.weight_net_preset) = (weights, undetached, weight_net);
        self
    }

    /// The weight net, 1–100–1 as published, with one V for all classes.
    pub fn weight_net(&self, method: Method) -> WeightNet {
        // The kinks were made for label noise; the recipe for long tails begins as published, too.
        let init = match method {
            Method::MwNetLongTail | Method::MwNetPublished => WeightNetInit::Faithful,
            Method::MwNetSoft => WeightNetInit::Trusting,
            Method::CmwNet => WeightNetInit::Kinks,
            _ => self.weight_net_init,
        };
        WeightNet { hidden: 100, init, slope: self.recipe(method).weight_net.slope(), groups: Vec::new() }
    }

    /// V's rule and learning rate.
    pub fn weight_net_rule(&self, method: Method) -> (Optimiser, f64) {
        let preset = self.recipe(method).weight_net;
        let lr = preset.lr(self.weight_net(method).init);
        (preset.optimiser().0, self.weight_net_lr.unwrap_or(lr))
    }

    /// Refuses a setting that none of the methods has a use for: one that is among the fields
    /// `typed`, or is not as by default.
    ///
    /// # Errors
    /// [`Error::Usage`] naming its flag.
    pub fn check_used(&self, methods: &[Method], typed: impl Fn(&str) -> bool) -> Result<()> {
        let own = Config { set: Settings::new(), ..self.clone() };
        for (field, reset) in unused(methods) {
            let mut without = own.clone();
            reset(&mut without, Config::default());
            if typed(field) || without != own {
                let names: Vec<String> = methods.iter().map(Method::to_string).collect();
                let (flag, names) = (field.replace('_', "-"), names.join(", "));
                return Err(Error::Usage(format!(
                    "--{flag} means nothing to {names}; leave it out, or train mwnet"
                )));
            }
        }
        Ok(())
    }

    /// What a run of one method of several has: it and its own settings, without a baseline.
    pub(super) fn of(self, method: Method) -> Config {
        let mut config = Config { method, baseline: false, ..self.used_by(&[method]) };
        config.set.retain(|key, _| key.split_once('.').is_some_and(|(of, _)| of == method.to_string()));
        config
    }

    /// The same with what none of the methods has a use for as by default.
    pub fn used_by(mut self, methods: &[Method]) -> Config {
        unused(methods).for_each(|(_, reset)| reset(&mut self, Config::default()));
        self
    }
}

/// Whether a method has a use for a field.
type Uses = fn(Method) -> bool;
/// Gives a configuration the default's value of a field.
type Reset = fn(&mut Config, Config);

/// Fields that not all methods have a use for, and whether one does.
const OF_SOME: [(&str, Uses, Reset); 9] = [
    ("weights", chooses, |own, default| own.weights = default.weights),
    ("undetached", chooses, |own, default| own.undetached = default.undetached),
    ("virtual", steps, |own, default| own.virtual_step = default.virtual_step),
    ("unroll", steps, |own, default| own.unroll = default.unroll),
    ("route", steps, |own, default| own.route = default.route),
    ("theta_every", steps, |own, default| own.theta_every = default.theta_every),
    ("weight_net_preset", chooses, |own, default| own.weight_net_preset = default.weight_net_preset),
    ("weight_net_lr", learns, |own, default| own.weight_net_lr = default.weight_net_lr),
    ("weight_net_init", chooses, |own, default| own.weight_net_init = default.weight_net_init),
];

/// The fields that none of the methods has a use for.
fn unused(methods: &[Method]) -> impl Iterator<Item = (&'static str, Reset)> {
    let used = |uses: Uses| methods.iter().any(|method| uses(*method));
    OF_SOME.into_iter().filter(move |field| !used(field.1)).map(|field| (field.0, field.2))
}

/// Whether a method has a weight net. What a scheme of one's own has is its author's affair.
fn learns(method: Method) -> bool {
    method.is_meta() || matches!(method, Method::Own(_))
}

/// Whether its step is [`crate::meta::MetaStep`].
fn steps(method: Method) -> bool {
    learns(method) && method != Method::MwNetSoft
}

/// Whether its weight net is as the fields say, and not of a recipe.
fn chooses(method: Method) -> bool {
    use Method::{CmwNet, MwNetLongTail, MwNetPublished};
    steps(method) && !matches!(method, MwNetLongTail | MwNetPublished | CmwNet)
}
