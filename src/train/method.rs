use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::prepared::Prepared;
use crate::data::Noise;
use crate::error::{Error, Result};
use crate::meta::schemes::{
    AdaBoost, ClassBalanced, CleanOnly, CoTeaching, FineTune, Focal, Gce, GemanMcClure, Glc, L2rw, MentorNet,
    Mixed, MwNet, Ohem, Oracle, Scheme, SelfPaced, SelfPacedForm, SoftMwNet, Uniform,
};
use crate::words::exact;

/// How a classifier is trained: which scheme weights its samples.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Method {
    /// Every sample has the same weight: the baseline.
    Uniform,
    /// [`CleanOnly`].
    CleanOnly,
    /// [`Mixed`].
    Mixed,
    /// [`Focal`].
    Focal,
    /// [`AdaBoost`].
    AdaBoost,
    /// [`Ohem`].
    Ohem,
    /// [`SelfPaced`], hard.
    SplHard,
    /// [`SelfPaced`], linear.
    SplLinear,
    /// [`GemanMcClure`].
    GemanMcClure,
    /// [`Gce`].
    Gce,
    /// [`ClassBalanced`].
    ClassBalanced,
    /// [`L2rw`].
    L2rw,
    /// [`MentorNet`].
    MentorNet,
    /// [`Glc`].
    Glc,
    /// [`CoTeaching`].
    CoTeaching,
    /// [`FineTune`].
    FineTune,
    /// [`MwNet`] with the recipe for label noise and the first values as published,
    /// [`crate::meta::schemes::MwNetRecipe::NOISE`].
    MwNetPublished,
    /// [`MwNet`] as configured.
    MwNet,
    /// [`SoftMwNet`].
    MwNetSoft,
    /// [`MwNet`] with the recipe for long tails, [`crate::meta::schemes::MwNetRecipe::LONG_TAIL`].
    MwNetLongTail,
    /// [`MwNet`] with a V for each group of classes of similar size,
    /// [`crate::meta::schemes::MwNetRecipe::CLASS_AWARE`].
    CmwNet,
    /// [`Oracle`]: no method, but what one could reach.
    Oracle,
    /// A scheme of one's own, by its name. [`super::Run::own`] trains it; no flag or file names it.
    Own(&'static str),
}

/// By name, in the order of tables and plots.
const NAMES: [(Method, &str); 22] = [
    (Method::Uniform, "uniform"),
    (Method::CleanOnly, "clean-only"),
    (Method::Mixed, "mixed"),
    (Method::Focal, "focal"),
    (Method::AdaBoost, "adaboost"),
    (Method::Ohem, "ohem"),
    (Method::SplHard, "spl-hard"),
    (Method::SplLinear, "spl-linear"),
    (Method::GemanMcClure, "geman-mcclure"),
    (Method::Gce, "gce"),
    (Method::ClassBalanced, "class-balanced"),
    (Method::L2rw, "l2rw"),
    (Method::MentorNet, "mentornet-pd"),
    (Method::Glc, "glc"),
    (Method::CoTeaching, "co-teaching"),
    (Method::FineTune, "fine-tune"),
    (Method::MwNetPublished, "mwnet-published"),
    (Method::MwNet, "mwnet"),
    (Method::MwNetSoft, "mwnet-soft"),
    (Method::MwNetLongTail, "mwnet-longtail"),
    (Method::CmwNet, "cmwnet"),
    (Method::Oracle, "oracle"),
];

impl FromStr for Method {
    type Err = Error;
    fn from_str(name: &str) -> Result<Method> {
        let found = NAMES.iter().find(|m| m.1 == name).map(|m| m.0);
        found.ok_or_else(|| Error::unknown("method", name, &NAMES.map(|m| m.1)))
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Method::Own(name) => name,
            _ => NAMES.iter().find(|m| m.0 == *self).map_or("", |m| m.1),
        })
    }
}

impl Method {
    /// All methods of this crate, in the order of tables and plots; without [`Method::Oracle`],
    /// which is told the answer.
    pub fn all() -> impl Iterator<Item = Method> {
        NAMES.iter().map(|m| m.0).filter(|method| *method != Method::Oracle)
    }

    /// Whether it learns a weight net.
    pub fn is_meta(self) -> bool {
        use Method::{CmwNet, MwNet, MwNetLongTail, MwNetPublished, MwNetSoft};
        matches!(self, MwNet | MwNetSoft | MwNetPublished | MwNetLongTail | CmwNet)
    }

    /// Networks that are trained one after the other with these settings, each over the whole
    /// schedule; what is tested and reported is the last one (with AdaBoost, all together). Of a
    /// scheme of one's own, see [`super::Learner::stages`].
    pub fn stages(self, set: &Settings) -> usize {
        match self {
            Method::AdaBoost => {
                set.get("adaboost.rounds").map_or(AdaBoost::default().rounds, |r| *r as usize)
            }
            Method::Glc => Glc::NETWORKS,
            _ => 1,
        }
    }

    /// Its own settings: names, what they may be (from, to), and what they are by default on data
    /// of so many classes with this noise. `--set METHOD.NAME=VALUE` changes one.
    pub fn settings(self, classes: usize, noise: Noise) -> Vec<Setting> {
        let tried =
            |name, range, default, tries: &[f64]| Setting { name, range, default, tries: tries.to_vec() };
        let setting = |name, range, default| tried(name, range, default, &[]);
        // Values to try where the default depends on the data.
        let around = |default: f64| [default / 2.0, default * 2.0];
        let (positive, share) = ((f64::MIN_POSITIVE, f64::MAX), (0.0, 1.0));
        match self {
            Method::AdaBoost => vec![setting("rounds", (1.0, 1000.0), AdaBoost::default().rounds as f64)],
            Method::Focal => vec![tried("gamma", (0.0, f64::MAX), Focal::default().gamma, &[0.5, 1.0, 5.0])],
            Method::Ohem => {
                vec![tried("share", (f64::MIN_POSITIVE, 1.0), Ohem::default().share, &[0.25, 0.75])]
            }
            Method::SplHard | Method::SplLinear => {
                let SelfPaced { first, pace, .. } = SelfPaced::new(SelfPacedForm::Hard, classes);
                vec![tried("first", positive, first, &around(first)), setting("pace", positive, pace)]
            }
            Method::GemanMcClure => {
                let sigma = GemanMcClure::new(classes).sigma;
                vec![tried("sigma", positive, sigma, &around(sigma))]
            }
            Method::Gce => vec![tried("q", (f64::MIN_POSITIVE, 1.0), Gce::default().q, &[0.3, 0.5, 0.9])],
            Method::ClassBalanced => {
                let below_1 = (0.0, 1.0 - f64::EPSILON);
                vec![tried("beta", below_1, ClassBalanced::BETA, &[0.9, 0.99, 0.999, 0.9999])]
            }
            Method::MentorNet => {
                let MentorNet { percentile, inertia, width, burn_in } = MentorNet::default();
                vec![
                    tried("percentile", share, percentile, &[0.25, 0.5, 0.75]),
                    setting("inertia", share, inertia),
                    setting("width", positive, width),
                    setting("burn-in", share, burn_in),
                ]
            }
            Method::CoTeaching => {
                let CoTeaching { noise, ramp } = CoTeaching::new(wrong_labels(noise, classes));
                let below_1 = (0.0, 1.0 - f64::EPSILON);
                vec![tried("noise", below_1, noise, &[0.1, 0.3, 0.5, 0.7]), setting("ramp", positive, ramp)]
            }
            Method::FineTune => {
                let FineTune { share: part, factor } = FineTune::default();
                vec![tried("share", share, part, &[0.3]), tried("factor", positive, factor, &around(factor))]
            }
            Method::MwNetSoft => {
                vec![
                    tried("inertia", share, 0.7, &[0.5, 0.9]),
                    setting("from", share, 0.05),
                    setting("to", share, 0.4),
                ]
            }
            Method::Uniform
            | Method::CleanOnly
            | Method::Mixed
            | Method::MwNetPublished
            | Method::L2rw
            | Method::Glc
            | Method::MwNet
            | Method::MwNetLongTail
            | Method::CmwNet
            | Method::Oracle
            | Method::Own(_) => Vec::new(),
        }
    }

    /// The scheme as a run configures it, on its data.
    ///
    /// # Errors
    /// For the oracle of data whose right labels are not known; for a scheme of one's own, which
    /// its name does not give.
    pub(super) fn scheme(self, data: &Prepared) -> Result<Box<dyn Scheme>> {
        let Prepared { config, split, dataset, .. } = data;
        let classes = dataset.classes();
        let known = self.settings(classes, config.noise);
        let set = |name: &str| {
            let default = known.iter().find(|setting| setting.name == name).map_or(f64::NAN, |s| s.default);
            config.set.get(&format!("{self}.{name}")).copied().unwrap_or(default)
        };
        let sizes = [split.train.indices.len(), split.meta.indices.len()];
        let paced = |form| SelfPaced { form, first: set("first"), pace: set("pace") };
        Ok(match self {
            Method::Uniform => Box::new(Uniform),
            Method::CleanOnly => Box::new(CleanOnly),
            Method::Mixed => Box::new(Mixed { sizes }),
            Method::Focal => Box::new(Focal { gamma: set("gamma") }),
            Method::AdaBoost => Box::new(AdaBoost { rounds: self.stages(&config.set) }),
            Method::Ohem => Box::new(Ohem { share: set("share") }),
            Method::SplHard => Box::new(paced(SelfPacedForm::Hard)),
            Method::SplLinear => Box::new(paced(SelfPacedForm::Linear)),
            Method::GemanMcClure => Box::new(GemanMcClure { sigma: set("sigma") }),
            Method::Gce => Box::new(Gce { q: set("q") }),
            Method::ClassBalanced => Box::new(ClassBalanced::with_beta(&data.class_counts(), set("beta"))),
            Method::L2rw => Box::new(L2rw),
            Method::MentorNet => Box::new(MentorNet {
                percentile: set("percentile"),
                inertia: set("inertia"),
                width: set("width"),
                burn_in: set("burn-in"),
            }),
            Method::Glc => Box::new(Glc { sizes }),
            Method::CoTeaching => Box::new(CoTeaching { noise: set("noise"), ramp: set("ramp") }),
            Method::FineTune => Box::new(FineTune { share: set("share"), factor: set("factor") }),
            Method::MwNetSoft => {
                let steps = config.epochs as u64 * (sizes[0] / config.batch) as u64;
                let (rule, lr) = config.weight_net_rule(self);
                Box::new(SoftMwNet {
                    weight_net: data.weight_net(self),
                    rule,
                    lr,
                    sizes,
                    classes,
                    prior: SoftMwNet::prior_of(&data.class_counts(), &data.meta_counts()),
                    inertia: set("inertia"),
                    learns: SoftMwNet::between(steps, set("from"), set("to")),
                })
            }
            Method::MwNet | Method::MwNetPublished | Method::MwNetLongTail | Method::CmwNet => {
                let lr = config.weight_net_rule(self).1;
                Box::new(MwNet {
                    weight_net: data.weight_net(self),
                    config: config.step(self),
                    lr,
                    theta_every: config.theta_every,
                })
            }
            Method::Oracle if !split.train.known => {
                return Err(Error::Usage(
                    "oracle leaves out the wrong labels, and nobody has said which these are; give --noise or --train-labels, or leave it out"
                        .into(),
                ));
            }
            Method::Oracle => {
                let right = split.train.corrupted.iter().map(|wrong| f64::from(!wrong)).collect();
                Box::new(Oracle { right, meta: sizes[1] })
            }
            Method::Own(name) => {
                return Err(Error::Program(format!(
                    "`{name}` is a scheme of its author's own: train it with Run::own or Learner::own"
                )));
            }
        })
    }
}

/// The methods' own settings, by method and name: `gce.q`.
pub type Settings = BTreeMap<String, f64>;

/// One of a method's own settings.
#[derive(Clone, PartialEq, Debug)]
pub struct Setting {
    /// Behind the method's name and a dot.
    pub name: &'static str,
    /// The least and the largest that it may be.
    pub range: (f64, f64),
    /// Where nobody says otherwise.
    pub default: f64,
    /// What `compare --tune` tries beside it.
    pub tries: Vec<f64>,
}

/// A method's setting as people type it: `gce.q=0.5`.
///
/// # Errors
/// [`Error::Usage`] naming what is wrong.
pub fn setting(text: &str) -> Result<(String, f64)> {
    let wanted = || Error::Usage(format!("`{text}` is no setting; write METHOD.NAME=VALUE, as in gce.q=0.5"));
    let (name, value) = text.split_once('=').ok_or_else(wanted)?;
    Ok((name.trim().to_owned(), value.trim().parse().map_err(|_| wanted())?))
}

/// Checks that settings are of these methods, and within what they may be.
///
/// # Errors
/// [`Error::Usage`] naming the setting.
pub(super) fn check_settings(set: &Settings, methods: &[Method]) -> Result<()> {
    for (key, value) in set {
        let usage = |sentence: String| Err(Error::Usage(format!("--set {key}: {sentence}")));
        let Some((method, name)) = key.split_once('.') else {
            return usage("write METHOD.NAME=VALUE, as in gce.q=0.5".into());
        };
        let method: Method = method.parse()?;
        if !methods.contains(&method) {
            return usage(format!("{method} is not trained here; leave it out"));
        }
        // Every method may have a learning rate of its own.
        if name == "lr" && *value > 0.0 && value.is_finite() {
            continue;
        }
        let known = method.settings(2, Noise::None);
        match known.iter().find(|setting| setting.name == name) {
            _ if name == "lr" => return usage(format!("{value} is not a number above 0")),
            None if known.is_empty() => {
                return usage(format!("{method} has no settings of its own but lr"));
            }
            None => {
                let names: Vec<&str> = known.iter().map(|setting| setting.name).chain(["lr"]).collect();
                let near = Error::nearest(name, names.iter().copied());
                return usage(format!("{method} has no such setting{near}; it has {}", names.join(", ")));
            }
            Some(Setting { range: (low, high), .. }) if !(*low..=*high).contains(value) => {
                return usage(format!("{} is out of range", exact(*value)));
            }
            Some(Setting { name: "rounds", .. }) if value.fract() != 0.0 => {
                return usage(format!("{} is no whole number", exact(*value)));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The share of wrong labels, which Co-teaching has to be told.
fn wrong_labels(noise: Noise, classes: usize) -> f64 {
    match noise {
        Noise::None => 0.0,
        // A label drawn anew can be the right one.
        Noise::Uniform(p) => p * (1.0 - 1.0 / classes as f64),
        Noise::Flip(p) | Noise::Flip2(p) => p,
    }
}
