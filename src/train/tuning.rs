//! `metatape compare --tune`: each method's best of a few learning rates, and of a few values of
//! its own settings, by a part of the meta set that is held out. Test images are not looked at.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::config::Config;
use super::history::History;
use super::learner::{Learner, Passed};
use super::method::{Method, Settings, check_settings, setting};
use super::observer::{Observer, Then};
use super::prepared::Prepared;
use super::statistics::Spread;
use super::study::{Arm, CELLS, Cell, Plan, Study, ended};
use crate::data::{Dataset, Labelled};
use crate::error::{Error, Result};
use crate::program::Session;

/// Learning rates that are tried, in that of the configuration.
const RATES: [f64; 5] = [1.0, 0.4, 0.2, 0.1, 0.04];
/// Each trial is trained with so many seeds of the comparison, the first ones.
const SEEDS: usize = 3;
/// The trials' folder in that of the comparison.
const FOLDER: &str = "tuning";

/// A method with a learning rate, and with one of its own settings.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Trial {
    /// Which method.
    pub method: Method,
    /// The classifier's learning rate.
    pub lr: f64,
    /// The setting's name and value.
    pub setting: Option<(&'static str, f64)>,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = self.setting.map_or(String::new(), |(name, value)| format!(",{name}={value:e}"));
        f.pad(&format!("{},lr={:e}{own}", self.method, self.lr))
    }
}

impl FromStr for Trial {
    type Err = Error;

    fn from_str(text: &str) -> Result<Trial> {
        let parts: Vec<&str> = text.split(',').collect();
        let wrong = || Error::Usage(format!("`{text}` is no trial, as in gce,lr=5e-2,q=5e-1"));
        let (method, lr, own) = match parts[..] {
            [method, lr] => (method, lr, None),
            [method, lr, own] => (method, lr, Some(own)),
            _ => return Err(wrong()),
        };
        let method: Method = method.parse()?;
        let lr = lr.strip_prefix("lr=").and_then(|lr| lr.parse().ok()).ok_or_else(wrong)?;
        let known = method.settings(2, crate::data::Noise::None);
        let find = |own: &str| {
            let (name, value) = setting(own)?;
            let name = known.iter().find(|s| s.name == name).ok_or_else(wrong)?.name;
            Ok((name, value))
        };
        Ok(Trial { method, lr, setting: own.map(find).transpose()? })
    }
}

impl Trial {
    /// The settings that make it.
    fn set(self) -> Settings {
        let Trial { method, lr, setting } = self;
        let own = setting.map(|(name, value)| (format!("{method}.{name}"), value));
        std::iter::once((format!("{method}.lr"), lr)).chain(own).collect()
    }
}

impl Arm for Trial {
    const PLAN: &'static str = "tuning.toml";
    const STUDY: &'static str = "tuning";
    const ARM: &'static str = "trial";

    fn files(_: &Plan<Trial>) -> Vec<String> {
        Vec::new()
    }

    fn check(plan: &Plan<Trial>) -> Result<()> {
        let methods: Vec<Method> = plan.arms.iter().map(|trial| trial.method).collect();
        check_settings(&plan.config.set, &methods)
    }

    fn prepare(config: &Config) -> Result<Prepared> {
        let mut data = Prepared::new(config.clone())?;
        hold_out(&mut data)?;
        Ok(data)
    }

    fn networks(self, set: &Settings) -> usize {
        self.method.stages(set)
    }

    fn train(
        self,
        config: Config,
        _: &Path,
        session: &dyn Fn() -> Result<Session>,
        observer: &mut dyn Observer,
    ) -> Result<Cell> {
        let mut config = config.of(self.method);
        config.set.extend(self.set());
        let data = Trial::prepare(&config)?;
        let mut learner = Learner::new(self.method, &data, session()?)?;
        let mut history = History::default();
        let mut learn = || -> Result<()> {
            let passes = learner.stages() * config.epochs;
            while learner.underway().passes < passes {
                let (pass, mut stop) = (learner.underway().passes, false);
                let mut watch = |method, report| {
                    observer.step(method, pass, report);
                    stop = observer.then() == Then::Stop;
                    stop
                };
                if let Passed::Measured(measured) = learner.pass(&data, &mut watch)? {
                    observer.epoch(&measured.row);
                    measured.join(&mut history);
                }
                if stop {
                    return Err(Error::Stopped(format!("stopped in pass {} of {passes}", pass + 1)));
                }
            }
            Ok(())
        };
        let outcome = learn();
        Cell::new(&data, history, outcome)
    }
}

/// Three digits of a number: 0.4 · 0.05 is 0.02 for people.
fn short(number: f64) -> f64 {
    format!("{number:.2e}").parse().unwrap_or(number)
}

/// Takes every second sample of each class out of the meta set, and tests on those instead of the
/// test set.
fn hold_out(data: &mut Prepared) -> Result<()> {
    let Prepared { split, dataset: Dataset { test, .. }, .. } = data;
    let mut seen: BTreeMap<i32, usize> = BTreeMap::new();
    let (mut kept, mut held) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    for (index, label) in split.meta.indices.iter().zip(&split.meta.labels) {
        let count = seen.entry(*label).or_default();
        *count += 1;
        let part = if *count % 2 == 1 { &mut kept } else { &mut held };
        part.0.push(*index);
        part.1.push(*label);
    }
    if split.balanced || held.0.is_empty() {
        return Err(Error::Usage(
            "--tune chooses by a half of the meta set: it needs one apart from the training set, with 2 samples of a class or \
             more; give a larger --meta-size, or another --meta-source"
                .into(),
        ));
    }
    split.meta = Labelled { indices: kept.0, labels: kept.1 };
    test.name = "held-out half of the meta set".into();
    (test.indices, test.labels, test.truth) = (held.0, held.1, None);
    Ok(())
}

/// The trials of a comparison's methods.
pub struct Tuning {
    /// Rates first, [`Tuning::widen`] adds settings.
    pub study: Study<Trial>,
    methods: Vec<Method>,
}

impl Tuning {
    /// Whether a comparison's folder has one.
    pub fn exists(compared: &Path) -> bool {
        compared.join(FOLDER).join(Trial::PLAN).exists()
    }

    /// Checks that no run of a comparison was trained untuned: it would stand beside tuned ones.
    ///
    /// # Errors
    /// [`Error::Usage`] if one was.
    pub fn check_begun(compared: &Path) -> Result<()> {
        if compared.join(CELLS).exists() && !Tuning::exists(compared) {
            return Err(Error::Usage(format!(
                "--tune: the runs in {} are trained without it, and are kept; compare anew, into another --out",
                compared.display()
            )));
        }
        Ok(())
    }

    /// Checks that a comparison's data can be tuned on.
    ///
    /// # Errors
    /// As [`Prepared::new`]; [`Error::Usage`] if no half of the meta set can be held out.
    pub fn check(plan: &Plan<Method>) -> Result<()> {
        Trial::prepare(&plan.config).map(drop)
    }

    /// The tuning of a comparison: begun, gone on with, or made larger where methods were added. It
    /// keeps the seeds that it began with: more would choose again, and the runs that are finished
    /// would stand beside others with other settings.
    ///
    /// # Errors
    /// As [`Study::start`], [`Study::resume`], [`Study::extend`] and [`Tuning::check`].
    pub fn open(compared: &Study<Method>) -> Result<Tuning> {
        let Plan { arms: methods, seeds, config, .. } = &compared.plan;
        let out = compared.out.join(FOLDER);
        let rates = |method: &Method| {
            let method = *method;
            // What was asked for is not tuned.
            let given = config.set.get(&format!("{method}.lr"));
            let rates: Vec<f64> =
                given.map_or(RATES.map(|rate| short(rate * config.lr)).into(), |lr| vec![*lr]);
            rates.into_iter().map(move |lr| Trial { method, lr, setting: None })
        };
        let arms: Vec<Trial> = methods.iter().flat_map(rates).collect();
        let seeds = seeds.iter().copied().take(SEEDS).collect();
        let plan = Plan { arms, seeds, preset: None, config: config.clone() };
        let mut tuning = match Tuning::exists(&compared.out) {
            true => Tuning { study: Study::resume(&out)?, methods: methods.clone() },
            false => Tuning { study: Study::start(plan.clone(), &out)?, methods: methods.clone() },
        };
        tuning.add(plan.arms)?;
        tuning.study.plan.config.threads = config.threads;
        Ok(tuning)
    }

    fn add(&mut self, trials: Vec<Trial>) -> Result<()> {
        let mut plan = self.study.plan.clone();
        plan.arms.extend(trials.into_iter().filter(|trial| !self.study.plan.arms.contains(trial)));
        self.study.extend(plan)
    }

    /// Adds the trials of each method's own settings, at its best rate.
    ///
    /// # Errors
    /// As [`Study::extend`].
    pub fn widen(&mut self, cells: &[Cell]) -> Result<()> {
        let config = &self.study.plan.config;
        let (classes, noise) = (cells.first().map_or(2, |cell| cell.classes.len()), config.noise);
        let mut trials = Vec::new();
        for trial in self.best(cells).into_values().map(|best| Trial { setting: None, ..best }) {
            let method = trial.method;
            let open = |name: &str| !config.set.contains_key(&format!("{method}.{name}"));
            for known in method.settings(classes, noise).into_iter().filter(|known| open(known.name)) {
                let values = known.tries.iter().filter(|value| **value != known.default);
                trials.extend(values.map(|value| Trial { setting: Some((known.name, *value)), ..trial }));
            }
        }
        self.add(trials)
    }

    /// Each method's trial with the highest accuracy on what was held out, in the mean over seeds;
    /// of equal ones that whose seeds differ least, the first of these; none where all have
    /// diverged.
    fn best(&self, cells: &[Cell]) -> BTreeMap<String, Trial> {
        let mut best: BTreeMap<String, (Spread, Trial)> = BTreeMap::new();
        for trial in self.study.plan.arms.iter().filter(|trial| self.methods.contains(&trial.method)) {
            let Some(held) = self.held_out(*trial, cells) else { continue };
            let name = trial.method.to_string();
            if best.get(&name).is_none_or(|best| held.above(&best.0)) {
                best.insert(name, (held, *trial));
            }
        }
        best.into_iter().map(|(name, best)| (name, best.1)).collect()
    }

    /// Accuracy on what was held out; none where a seed has diverged.
    fn held_out(&self, trial: Trial, cells: &[Cell]) -> Option<Spread> {
        let name = trial.to_string();
        let all: Vec<f64> = ended(&name, cells).filter_map(|cell| cell.history.final_accuracy()).collect();
        Spread::of(&all).filter(|_| all.len() == self.study.plan.seeds.len())
    }

    /// Writes `tuning.csv` into the comparison's folder, a row a trial, and gives the settings that
    /// are best.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn chosen(&self, cells: &[Cell]) -> Result<Settings> {
        let best = self.best(cells);
        let row = |trial: &Trial| {
            let (own, held) = (trial.setting, self.held_out(*trial, cells));
            (
                trial.method.to_string(),
                trial.lr,
                own.map(|own| own.0),
                own.map(|own| own.1),
                held.map(|held| held.mean),
                held.and_then(|held| held.std),
                best.values().any(|best| best == trial),
            )
        };
        let heading = "method,lr,setting,value,held_out_accuracy,std,chosen";
        self.study.write_table("../tuning.csv", heading, self.study.plan.arms.iter().map(row))?;
        Ok(best.into_values().flat_map(Trial::set).collect())
    }
}
