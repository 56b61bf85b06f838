//! What the cells say together, in numbers.

use serde::Serialize;

use super::cell::CellResult;
use super::study::Config;
use super::variant::Variant;
use crate::train::statistics::{Difference, Spread};
use crate::words::counted;

/// One variant over all seeds. Accuracies in percent.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// The variant.
    pub name: Variant,
    /// What it changes.
    pub meaning: String,
    /// Images that meta batches were drawn from.
    pub meta_images: usize,
    /// Seeds whose loss did not stay finite; they are left out of everything else.
    pub diverged: usize,
    /// After the last epoch.
    pub final_mean: Option<f64>,
    /// Over seeds.
    pub final_std: Option<f64>,
    /// The best epoch.
    pub best_mean: Option<f64>,
    /// Over seeds.
    pub best_std: Option<f64>,
    /// Final accuracy less the published method's, seed by seed.
    pub difference: Option<Difference>,
    /// Whether that is beyond the spread.
    pub beyond_spread: Option<bool>,
    /// Final accuracy less uniform weights', seed by seed.
    pub gain: Option<Difference>,
    /// Between its hypergradient and the exact one, the mean over training.
    pub cosine_mean: Option<f64>,
    /// Over seeds.
    pub cosine_std: Option<f64>,
    /// Mean V over samples with the right label, at the end.
    pub mean_weight_clean: Option<f64>,
    /// Mean V over those with a wrong one.
    pub mean_weight_corrupted: Option<f64>,
    /// Milliseconds a step.
    pub ms_per_step: Option<f64>,
}

/// What a study found.
#[derive(Clone, PartialEq, Debug)]
pub struct Findings {
    /// One row a variant, in the study's order.
    pub rows: Vec<Row>,
    /// The cosine between the exact hypergradients on two clean meta batches: what batches alone
    /// do.
    pub other_batch: Option<Spread>,
    pub(super) setting: String,
    pub(super) accuracy: Vec<(Variant, Finals)>,
    pub(super) meta_size: usize,
    pub(super) seeds: u64,
    pub(super) image: f64,
}

/// Final accuracies by seed.
type Finals = Vec<(u64, f64)>;

/// Differences of the seeds that both have.
fn paired(values: &Finals, others: &Finals, image: f64) -> Option<Difference> {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for (seed, value) in values {
        if let Some((_, other)) = others.iter().find(|o| o.0 == *seed) {
            left.push(*value);
            right.push(*other);
        }
    }
    Difference::paired(&left, &right, image)
}

impl CellResult {
    /// After the last epoch.
    pub fn final_accuracy(&self) -> Option<f64> {
        self.accuracy.last().copied()
    }

    /// Over all probes.
    pub fn mean_cosine(&self) -> Option<f64> {
        mean(&self.cosines.iter().filter_map(|p| p.cosine).collect::<Vec<_>>())
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    Spread::of(values).map(|s| s.mean)
}

impl Findings {
    /// From all cells of a study, whose accuracies are of so many test images.
    pub(super) fn new(config: &Config, results: &[CellResult], test_images: usize) -> Findings {
        let image = 100.0 / test_images.max(1) as f64;
        let of = |variant: Variant| results.iter().filter(move |r| r.variant == variant);
        let finals =
            |variant| -> Finals { of(variant).filter_map(|r| Some((r.seed, r.final_accuracy()?))).collect() };
        let (published, uniform) = (finals(Variant::Published), finals(Variant::Uniform));
        let row = |variant: &Variant| {
            let last = finals(*variant);
            let best: Vec<f64> =
                of(*variant).filter_map(|r| r.accuracy.iter().copied().max_by(f64::total_cmp)).collect();
            let cosines = Spread::of(&of(*variant).filter_map(CellResult::mean_cosine).collect::<Vec<_>>());
            let means =
                |f: fn(&CellResult) -> Option<f64>| mean(&of(*variant).filter_map(f).collect::<Vec<_>>());
            let values: Vec<f64> = last.iter().map(|l| l.1).collect();
            let (final_spread, best) = (Spread::of(&values), Spread::of(&best));
            let difference = match variant {
                Variant::Published => None,
                _ => paired(&last, &published, image),
            };
            let gain = match variant {
                Variant::Uniform => None,
                _ => paired(&last, &uniform, image),
            };
            Row {
                name: *variant,
                meaning: variant.meaning(),
                meta_images: of(*variant).map(|r| r.meta_images).max().unwrap_or(0),
                diverged: of(*variant).filter(|r| r.error.is_some()).count(),
                final_mean: final_spread.map(|s| s.mean),
                final_std: final_spread.and_then(|s| s.std),
                best_mean: best.map(|s| s.mean),
                best_std: best.and_then(|s| s.std),
                difference,
                beyond_spread: difference.and_then(|d| d.beyond_spread()),
                gain,
                cosine_mean: cosines.map(|s| s.mean),
                cosine_std: cosines.and_then(|s| s.std),
                mean_weight_clean: means(|r| r.mean_weight_clean),
                mean_weight_corrupted: means(|r| r.mean_weight_corrupted),
                ms_per_step: means(|r| r.ms_per_step),
            }
        };
        let other: Vec<f64> = of(Variant::Published)
            .filter_map(|r| mean(&r.other_batch.iter().filter_map(|p| p.cosine).collect::<Vec<_>>()))
            .collect();
        let run = &config.run;
        let tail = run.imbalance.map_or(String::new(), |factor| format!(", imbalance {factor}"));
        Findings {
            rows: config.variants.iter().map(row).collect(),
            other_batch: Spread::of(&other),
            setting: format!(
                "{} on {}, noise {}{tail}, {}",
                run.model,
                run.dataset,
                run.noise,
                counted(run.epochs, "epoch")
            ),
            accuracy: config.variants.iter().map(|v| (*v, finals(*v))).collect(),
            meta_size: config.meta_size,
            seeds: config.seeds,
            image,
        }
    }

    pub(super) fn row(&self, variant: Variant) -> Option<&Row> {
        self.rows.iter().find(|r| r.name == variant)
    }

    pub(super) fn against(&self, variant: Variant, other: Variant) -> Option<Difference> {
        let of = |v| self.accuracy.iter().find(|a| a.0 == v).map(|a| &a.1);
        paired(of(variant)?, of(other)?, self.image)
    }

    /// The clean set of n images.
    pub(super) fn clean(&self, n: usize) -> Variant {
        if n == self.meta_size { Variant::Published } else { Variant::Clean(n) }
    }
}
