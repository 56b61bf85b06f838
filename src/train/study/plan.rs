use std::fmt::{Debug, Display};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_with::{As, DisplayFromStr};

use super::cell::Cell;
use crate::error::{Error, Result};
use crate::program::Session;
use crate::train::config::Config;
use crate::train::method::Settings;
use crate::train::observer::Observer;
use crate::train::prepared::Prepared;

/// What a study compares: a name with a way to train.
pub trait Arm: Copy + PartialEq + Debug + Display + FromStr<Err = Error> {
    /// The file that a study of such arms keeps its plan in.
    const PLAN: &'static str;
    /// What people call such a study.
    const STUDY: &'static str;
    /// What they call an arm of it.
    const ARM: &'static str;

    /// What a study has before its end, besides plan and cells.
    const FIRST: &'static [&'static str] = &[];

    /// The files that a finished study of a plan has, besides those of every study.
    fn files(plan: &Plan<Self>) -> Vec<String>;

    /// Checks what no single field of a plan shows.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the flag.
    fn check(plan: &Plan<Self>) -> Result<()>;

    /// The data that the cells of the configuration's seed are trained on.
    ///
    /// # Errors
    /// As [`Prepared::new`].
    fn prepare(config: &Config) -> Result<Prepared>;

    /// Networks that it trains one after the other, each over the whole schedule.
    fn networks(self, _set: &Settings) -> usize {
        1
    }

    /// Trains with the configuration's seed, from what an earlier process has left in `folder`. A
    /// loss that is no longer finite ends the cell, and is part of its result.
    ///
    /// # Errors
    /// All others of a run.
    fn train(
        self,
        config: Config,
        folder: &Path,
        session: &dyn Fn() -> Result<Session>,
        observer: &mut dyn Observer,
    ) -> Result<Cell>;
}

/// Everything that decides a study's results.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, bound = "A: Arm")]
pub struct Plan<A: Arm> {
    /// In the order of tables and pictures.
    #[serde(with = "As::<Vec<DisplayFromStr>>")]
    pub arms: Vec<A>,
    /// One cell of each arm for each.
    pub seeds: Vec<u64>,
    /// The cell of the paper's tables that this repeats, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// How each cell is trained, but for its arm and its seed.
    pub config: Config,
}

impl<A: Arm> Plan<A> {
    /// Checks that there is something to compare, and nothing twice.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the flag.
    pub fn check(&self) -> Result<()> {
        if self.arms.is_empty() || self.seeds.is_empty() {
            return Err(Error::Usage(format!("there is no {} or no seed to compare", A::ARM)));
        }
        let twice = |name: String, flag: &str| {
            Err(Error::Usage(format!("--{flag}s: `{name}` is listed twice; leave one out")))
        };
        if let Some((_, arm)) = self.arms.iter().enumerate().find(|(i, arm)| self.arms[..*i].contains(arm)) {
            return twice(arm.to_string(), A::ARM);
        }
        if let Some((_, seed)) = self.seeds.iter().enumerate().find(|(i, s)| self.seeds[..*i].contains(s)) {
            return twice(seed.to_string(), "seed");
        }
        self.config.check()?;
        A::check(self)
    }

    /// Arms with seeds: seed after seed, so that what is finished can be compared.
    pub fn cells(&self) -> Vec<(A, u64)> {
        self.seeds.iter().flat_map(|seed| self.arms.iter().map(move |arm| (*arm, *seed))).collect()
    }
}
