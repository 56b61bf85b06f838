use std::fmt;
use std::str::FromStr;

use super::prepared::Prepared;
use crate::data::Noise;
use crate::error::{Error, Result};
use crate::meta::schemes::{
    AdaBoost, ClassBalanced, CoTeaching, FineTune, Focal, Gce, GemanMcClure, Glc, L2rw, MentorNet, MwNet,
    Ohem, Scheme, SelfPaced, SelfPacedForm, Uniform,
};

/// How a classifier is trained: which scheme weights its samples.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Method {
    /// Every sample has the same weight: the baseline.
    Uniform,
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
    /// [`MwNet`] as configured; its defaults are the recipe for label noise.
    MwNet,
    /// [`MwNet`] with the recipe for long tails, [`crate::meta::schemes::MwNetRecipe::LONG_TAIL`].
    MwNetLongTail,
    /// [`MwNet`] with a V for each group of classes of similar size,
    /// [`crate::meta::schemes::MwNetRecipe::CLASS_AWARE`].
    CmwNet,
    /// A scheme of one's own, by its name. [`super::Run::own`] trains it; no flag or file names it.
    Own(&'static str),
}

/// By name, in the order of tables and plots.
const NAMES: [(Method, &str); 17] = [
    (Method::Uniform, "uniform"),
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
    (Method::MwNet, "mwnet"),
    (Method::MwNetLongTail, "mwnet-longtail"),
    (Method::CmwNet, "cmwnet"),
];

impl FromStr for Method {
    type Err = Error;
    fn from_str(name: &str) -> Result<Method> {
        NAMES.iter().find(|m| m.1 == name).map(|m| m.0).ok_or_else(|| {
            let names = NAMES.map(|m| m.1).join(", ");
            Error::Usage(format!("there is no method `{name}`; choose one of {names}"))
        })
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
    /// All methods of this crate, in the order of tables and plots.
    pub fn all() -> impl Iterator<Item = Method> {
        NAMES.iter().map(|m| m.0)
    }

    /// Whether it learns a weight net.
    pub fn is_meta(self) -> bool {
        matches!(self, Method::MwNet | Method::MwNetLongTail | Method::CmwNet)
    }

    /// Networks that are trained one after the other, each over the whole schedule; what is tested
    /// and reported is the last one (with AdaBoost, all together). Of a scheme of one's own, see
    /// [`super::Learner::stages`].
    pub fn stages(self) -> usize {
        match self {
            Method::AdaBoost => AdaBoost::default().rounds,
            Method::Glc => Glc::NETWORKS,
            _ => 1,
        }
    }

    /// The scheme as a run configures it, on its data.
    ///
    /// # Errors
    /// For a scheme of one's own, which its name does not give.
    pub(super) fn scheme(self, data: &Prepared) -> Result<Box<dyn Scheme>> {
        let Prepared { config, split, dataset, .. } = data;
        let classes = dataset.classes();
        Ok(match self {
            Method::Uniform => Box::new(Uniform),
            Method::Focal => Box::new(Focal::default()),
            Method::AdaBoost => Box::new(AdaBoost::default()),
            Method::Ohem => Box::new(Ohem::default()),
            Method::SplHard => Box::new(SelfPaced::new(SelfPacedForm::Hard, classes)),
            Method::SplLinear => Box::new(SelfPaced::new(SelfPacedForm::Linear, classes)),
            Method::GemanMcClure => Box::new(GemanMcClure::new(classes)),
            Method::Gce => Box::new(Gce::default()),
            Method::ClassBalanced => Box::new(ClassBalanced::new(&data.class_counts())),
            Method::L2rw => Box::new(L2rw),
            Method::MentorNet => Box::new(MentorNet::default()),
            Method::Glc => Box::new(Glc { sizes: [split.train.indices.len(), split.meta.indices.len()] }),
            Method::CoTeaching => Box::new(CoTeaching::new(wrong_labels(config.noise, classes))),
            Method::FineTune => Box::new(FineTune::default()),
            Method::MwNet | Method::MwNetLongTail | Method::CmwNet => {
                let lr = config.weight_net_rule(self).1;
                Box::new(MwNet {
                    weight_net: data.weight_net(self),
                    config: config.step(self),
                    lr,
                    theta_every: config.theta_every,
                })
            }
            Method::Own(name) => {
                return Err(Error::Program(format!(
                    "`{name}` is a scheme of its author's own: train it with Run::own or Learner::own"
                )));
            }
        })
    }
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
