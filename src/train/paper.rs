//! The cells of the paper's tables (Shu et al. 2019): settings, and the accuracies printed there,
//! as `paper.toml` has them.

use std::collections::{BTreeMap, HashSet};
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::config::Config;
use super::method::Method;
use crate::data::DatasetKind;
use crate::error::{Error, Result};

/// `paper.toml`.
#[derive(Deserialize)]
struct Paper {
    all: Map<String, Value>,
    experiments: Vec<Experiment>,
}

/// One of the paper's three experiments.
#[derive(Deserialize)]
struct Experiment {
    name: String,
    levels: Vec<u32>,
    /// The field that the level is of.
    bias: String,
    meta_size: BTreeMap<String, usize>,
    settings: Map<String, Value>,
    figures: Vec<Figures>,
}

#[derive(Deserialize)]
struct Figures {
    dataset: String,
    methods: Vec<(String, Vec<f64>)>,
}

fn paper() -> &'static Paper {
    static PAPER: OnceLock<Paper> = OnceLock::new();
    PAPER.get_or_init(|| {
        toml::from_str(include_str!("paper.toml")).expect("paper.toml is checked by the tests")
    })
}

/// A column of one of the paper's tables: a data set and a bias, with the accuracies of several
/// methods.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PaperCell {
    /// Places among the experiments, and among the experiment's levels.
    experiment: usize,
    at: usize,
    dataset: DatasetKind,
}

impl PaperCell {
    /// All of them.
    pub fn all() -> impl Iterator<Item = PaperCell> {
        paper().experiments.iter().enumerate().flat_map(|(experiment, of)| {
            [DatasetKind::Cifar10, DatasetKind::Cifar100].into_iter().flat_map(move |dataset| {
                (0..of.levels.len()).map(move |at| PaperCell { experiment, at, dataset })
            })
        })
    }

    /// The name on the command line: `paper-flip2-40` on CIFAR-10, `paper-flip2-40-cifar100`.
    pub fn name(&self) -> String {
        let suffix = if self.dataset == DatasetKind::Cifar100 { "-cifar100" } else { "" };
        format!("paper-{}-{}{suffix}", self.of().name, self.level())
    }

    /// The cell of that name.
    ///
    /// # Errors
    /// [`Error::Usage`] with the names that there are.
    pub fn named(name: &str) -> Result<PaperCell> {
        PaperCell::all().find(|cell| cell.name() == name).ok_or_else(|| {
            let names: Vec<String> = PaperCell::all().map(|cell| cell.name()).collect();
            Error::unknown("preset", name, &names.iter().map(String::as_str).collect::<Vec<_>>())
        })
    }

    fn of(&self) -> &'static Experiment {
        &paper().experiments[self.experiment]
    }

    fn level(&self) -> u32 {
        self.of().levels[self.at]
    }

    /// The methods whose accuracy the paper gives, in percent.
    pub fn figures(&self) -> Vec<(Method, f64)> {
        let dataset = self.dataset.to_string();
        let figures = self.of().figures.iter().filter(|f| f.dataset == dataset);
        let method = |(name, values): &(String, Vec<f64>)| Some((name.parse().ok()?, values[self.at]));
        figures.flat_map(|f| f.methods.iter().filter_map(method)).collect()
    }

    /// The fields that the experiment decides, as a configuration writes them; null where it has
    /// none of that name.
    fn fields(&self) -> Map<String, Value> {
        let (of, dataset, level) = (self.of(), self.dataset.to_string(), f64::from(self.level()));
        let mut fields = paper().all.clone();
        fields.extend(of.settings.clone());
        let (noise, imbalance) = match of.bias.as_str() {
            "imbalance" => ("none".to_owned(), Value::from(level)),
            _ if level == 0.0 => ("none".to_owned(), Value::Null),
            _ => (format!("{}:{}", of.name, level / 100.0), Value::Null),
        };
        fields.extend([
            ("meta_size".to_owned(), Value::from(of.meta_size[&dataset])),
            ("dataset".to_owned(), dataset.into()),
            ("noise".to_owned(), noise.into()),
            ("imbalance".to_owned(), imbalance),
            ("weight_net_lr".to_owned(), Value::Null),
            ("clip_grad".to_owned(), Value::Null),
        ]);
        fields
    }

    /// The experiment's settings: data, noise, meta set, network, schedule, optimisers; a field
    /// whose name is in `keep` stays.
    ///
    /// The schedules: WRN-28-10, 40 epochs, learning rate ÷10 after 36 and 38; ResNet-32 with flip
    /// noise, 60 epochs, after 40 and 50; with long tails, 100 epochs, after 80 and 90.
    ///
    /// # Errors
    /// [`Error::Program`] if the configuration cannot be written.
    pub fn apply(&self, config: &mut Config, keep: &HashSet<String>) -> Result<()> {
        let broken = |e: serde_json::Error| Error::Program(format!("a preset does not fit: {e}"));
        let kept = |name: &str| keep.contains(if name == "virtual" { "virtual_step" } else { name });
        let Value::Object(mut fields) = serde_json::to_value(&*config).map_err(broken)? else {
            return Err(Error::Program("a configuration has fields".into()));
        };
        let (paper, epochs) = (self.fields(), config.epochs);
        for (name, value) in paper.iter().filter(|f| !kept(f.0)) {
            match value {
                Value::Null => drop(fields.remove(name)),
                value => drop(fields.insert(name.clone(), value.clone())),
            }
        }
        *config = serde_json::from_value(Value::Object(fields)).map_err(broken)?;
        // Drops that were not asked for stay where they were in an end that was.
        if let (true, false, Some(all)) = (kept("epochs"), kept("milestones"), paper["epochs"].as_u64()) {
            let all = all as usize;
            config.milestones.iter_mut().for_each(|m| *m = (*m * epochs + all / 2) / all);
        }
        Ok(())
    }

    /// The fields in which a configuration is not the experiment's, in the order in which it is
    /// written.
    pub fn departures(&self, config: &Config) -> Vec<String> {
        let (ours, text) = (serde_json::to_value(config), serde_json::to_string(config));
        let (ours, text) = (ours.unwrap_or_default(), text.unwrap_or_default());
        let differs = |(name, value): &(String, Value)| ours.get(name).unwrap_or(&Value::Null) != value;
        let mut names: Vec<String> = self.fields().into_iter().filter(differs).map(|f| f.0).collect();
        names.sort_by_key(|name| text.find(&format!("\"{name}\":")).unwrap_or(text.len()));
        names
    }
}
