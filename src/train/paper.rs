//! The cells of the paper's tables (Shu et al. 2019): settings, and the accuracies printed there.

use std::collections::HashSet;

use super::config::Config;
use super::method::Method;
use crate::data::{DatasetKind, Noise};
use crate::error::{Error, Result};
use crate::meta::schemes::MwNetRecipe;
use crate::meta::{Route, VirtualStep};
use crate::nn::WeightNetInit;

/// One of the paper's three experiments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Table {
    /// Uniform noise, WRN-28-10.
    Uniform,
    /// Flip to two classes, ResNet-32.
    Flip2,
    /// Long tails, ResNet-32.
    LongTail,
}

impl Table {
    fn name(self) -> &'static str {
        match self {
            Table::Uniform => "uniform",
            Table::Flip2 => "flip2",
            Table::LongTail => "longtail",
        }
    }

    /// Noise in percent, or imbalance factors, in the order of the figures.
    fn levels(self) -> &'static [u32] {
        match self {
            Table::Uniform => &[0, 40, 60],
            Table::Flip2 => &[0, 20, 40],
            Table::LongTail => &[200, 100, 50, 20, 10, 1],
        }
    }

    /// Test accuracies in percent (means of 5 seeds) at each level.
    fn figures(self, dataset: DatasetKind) -> &'static [(Method, &'static [f64])] {
        use Method::{ClassBalanced, Focal, Glc, L2rw, MwNet, MwNetLongTail, Uniform};
        match (self, dataset) {
            (Table::Uniform, DatasetKind::Cifar10) => &[
                (Uniform, &[95.60, 68.07, 53.12]),
                (Focal, &[95.70, 75.96, 51.87]),
                (L2rw, &[92.38, 86.92, 82.24]),
                (Glc, &[94.30, 88.28, 83.49]),
                (MwNet, &[94.52, 89.27, 84.07]),
            ],
            (Table::Uniform, _) => &[(Uniform, &[79.95, 51.11, 30.92]), (MwNet, &[78.76, 67.73, 58.75])],
            (Table::Flip2, DatasetKind::Cifar10) => &[
                (Uniform, &[92.89, 76.83, 70.77]),
                (Focal, &[93.03, 86.45, 80.45]),
                (L2rw, &[89.25, 87.86, 85.66]),
                (Glc, &[91.02, 89.68, 88.92]),
                (MwNet, &[92.04, 90.33, 87.54]),
            ],
            (Table::Flip2, _) => &[(Uniform, &[70.50, 50.86, 43.01]), (MwNet, &[70.11, 64.22, 58.64])],
            (Table::LongTail, DatasetKind::Cifar10) => &[
                (Uniform, &[65.68, 70.36, 74.81, 82.23, 86.39, 92.89]),
                (Focal, &[65.29, 70.38, 76.71, 82.76, 86.66, 93.03]),
                (ClassBalanced, &[68.89, 74.57, 79.27, 84.36, 87.49, 92.89]),
                (L2rw, &[66.51, 74.16, 78.93, 82.12, 85.19, 89.25]),
                (MwNetLongTail, &[68.91, 75.21, 80.06, 84.94, 87.84, 92.66]),
            ],
            (Table::LongTail, _) => &[
                (Uniform, &[34.84, 38.32, 43.85, 51.14, 55.71, 70.50]),
                (MwNetLongTail, &[37.91, 42.09, 46.74, 54.37, 58.46, 70.37]),
            ],
        }
    }
}

/// A column of one of the paper's tables: a data set and a bias, with the accuracies of several
/// methods.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PaperCell {
    table: Table,
    dataset: DatasetKind,
    /// Place among the table's levels.
    at: usize,
}

impl PaperCell {
    /// All of them.
    pub fn all() -> impl Iterator<Item = PaperCell> {
        [Table::Uniform, Table::Flip2, Table::LongTail].into_iter().flat_map(|table| {
            [DatasetKind::Cifar10, DatasetKind::Cifar100].into_iter().flat_map(move |dataset| {
                (0..table.levels().len()).map(move |at| PaperCell { table, dataset, at })
            })
        })
    }

    /// The name on the command line: `paper-flip2-40` on CIFAR-10, `paper-flip2-40-cifar100`.
    pub fn name(&self) -> String {
        let suffix = if self.dataset == DatasetKind::Cifar100 { "-cifar100" } else { "" };
        format!("paper-{}-{}{suffix}", self.table.name(), self.level())
    }

    /// The cell of that name.
    ///
    /// # Errors
    /// [`Error::Usage`] with the names that there are.
    pub fn named(name: &str) -> Result<PaperCell> {
        PaperCell::all().find(|cell| cell.name() == name).ok_or_else(|| {
            let names: Vec<String> = PaperCell::all().map(|cell| cell.name()).collect();
            Error::Usage(format!("there is no preset `{name}`; choose one of {}", names.join(", ")))
        })
    }

    fn level(&self) -> u32 {
        self.table.levels()[self.at]
    }

    /// The methods whose accuracy the paper gives, in percent.
    pub fn figures(&self) -> Vec<(Method, f64)> {
        self.table.figures(self.dataset).iter().map(|(method, values)| (*method, values[self.at])).collect()
    }

    /// The experiment's settings: data, noise, meta set, network, schedule, optimisers; a field
    /// whose name is in `keep` stays.
    ///
    /// The schedules: WRN-28-10, 40 epochs, learning rate ÷10 after 36 and 38; ResNet-32 with flip
    /// noise, 60 epochs, after 40 and 50; with long tails, 100 epochs, after 80 and 90.
    pub fn apply(&self, config: &mut Config, keep: &HashSet<String>) {
        let share = f64::from(self.level()) / 100.0;
        let (noise, imbalance, recipe) = match self.table {
            _ if self.table != Table::LongTail && self.level() == 0 => {
                (Noise::None, None, self.noise_recipe())
            }
            Table::Uniform => (Noise::Uniform(share), None, self.noise_recipe()),
            Table::Flip2 => (Noise::Flip2(share), None, self.noise_recipe()),
            Table::LongTail => (Noise::None, Some(f64::from(self.level())), MwNetRecipe::LONG_TAIL),
        };
        let (model, epochs, milestones, nesterov) = match self.table {
            Table::Uniform => ("wrn28-10", 40, [36, 38], true),
            Table::Flip2 => ("resnet32", 60, [40, 50], false),
            Table::LongTail => ("resnet32", 100, [80, 90], true),
        };
        let classes = if self.dataset == DatasetKind::Cifar100 { 100 } else { 10 };
        let meta_size = if self.table == Table::LongTail { 10 * classes } else { 1000 };
        let mut paper = Config {
            dataset: self.dataset,
            noise,
            imbalance,
            meta_size: Some(meta_size),
            model: model.into(),
            epochs,
            milestones: milestones.to_vec(),
            batch: 100,
            lr: 0.1,
            momentum: 0.9,
            nesterov,
            weight_decay: 5e-4,
            weights: recipe.weights,
            undetached: recipe.undetached,
            weight_net_preset: recipe.weight_net,
            weight_net_init: WeightNetInit::Faithful,
            weight_net_lr: None,
            virtual_step: VirtualStep::Plain,
            route: Route::Jvp,
            precision: "f32".into(),
            ..config.clone()
        };
        let kept = |name: &str| keep.contains(name);
        macro_rules! keep_typed {
            ($($field:ident),+) => { $(if kept(stringify!($field)) { paper.$field = config.$field.clone(); })+ };
        }
        keep_typed!(
            dataset,
            noise,
            imbalance,
            meta_size,
            model,
            epochs,
            milestones,
            batch,
            lr,
            momentum,
            nesterov,
            weight_decay,
            weights,
            undetached,
            weight_net_preset,
            weight_net_init,
            weight_net_lr,
            virtual_step,
            route,
            precision
        );
        // Drops that were not asked for stay where they were in an end that was.
        if kept("epochs") && !kept("milestones") {
            paper.milestones = milestones.iter().map(|m| (m * config.epochs + epochs / 2) / epochs).collect();
        }
        *config = paper;
    }

    /// The fields in which a configuration is not the experiment's.
    pub fn departures(&self, config: &Config) -> Vec<&'static str> {
        let mut paper = config.clone();
        self.apply(&mut paper, &HashSet::new());
        let fields = |config| serde_json::to_value(config).unwrap_or_default();
        let (ours, theirs) = (fields(config), fields(&paper));
        PRESET_FIELDS.into_iter().filter(|field| ours.get(*field) != theirs.get(*field)).collect()
    }

    fn noise_recipe(&self) -> MwNetRecipe {
        if self.table == Table::Uniform { MwNetRecipe::NOISE_WRN } else { MwNetRecipe::NOISE }
    }
}

/// The fields of a [`Config`] that a preset decides, as they are written.
const PRESET_FIELDS: [&str; 20] = [
    "dataset",
    "noise",
    "imbalance",
    "meta_size",
    "model",
    "epochs",
    "milestones",
    "batch",
    "lr",
    "momentum",
    "nesterov",
    "weight_decay",
    "weights",
    "undetached",
    "weight_net_preset",
    "weight_net_init",
    "weight_net_lr",
    "virtual",
    "route",
    "precision",
];
