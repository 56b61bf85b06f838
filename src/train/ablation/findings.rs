//! What the cells say together. Every sentence is made from the measured numbers, by one rule: a difference counts if its interval
//! over the seeds leaves out 0.

use serde::Serialize;

use super::cell::CellResult;
use super::study::Config;
use super::variant::Variant;
use crate::train::statistics::{Difference, Spread};

/// One variant over all seeds. Accuracies in percent.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// The variant.
    pub name: Variant,
    /// What it changes.
    pub meaning: String,
    /// Images that meta batches were drawn from.
    pub meta_images: usize,
    /// After the last epoch.
    pub final_mean: f64,
    /// Over seeds.
    pub final_std: Option<f64>,
    /// The best epoch.
    pub best_mean: f64,
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
    pub ms_per_step: f64,
}

/// What a study found.
#[derive(Clone, PartialEq, Debug)]
pub struct Findings {
    /// One row a variant, in the study's order.
    pub rows: Vec<Row>,
    /// The cosine between the exact hypergradients on two clean meta batches: what batches alone do.
    pub other_batch: Option<Spread>,
    setting: String,
    accuracy: Vec<(Variant, Vec<f64>)>,
    meta_size: usize,
    seeds: u64,
    image: f64,
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
        let finals = |variant| of(variant).filter_map(CellResult::final_accuracy).collect::<Vec<f64>>();
        let (published, uniform) = (finals(Variant::Published), finals(Variant::Uniform));
        let row = |variant: &Variant| {
            let last = finals(*variant);
            let best: Vec<f64> =
                of(*variant).filter_map(|r| r.accuracy.iter().copied().max_by(f64::total_cmp)).collect();
            let cosines = Spread::of(&of(*variant).filter_map(CellResult::mean_cosine).collect::<Vec<_>>());
            let means =
                |f: fn(&CellResult) -> Option<f64>| mean(&of(*variant).filter_map(f).collect::<Vec<_>>());
            let (final_spread, best) = (Spread::of(&last), Spread::of(&best));
            let difference = match variant {
                Variant::Published => None,
                _ => Difference::paired(&last, &published, image),
            };
            let gain = match variant {
                Variant::Uniform => None,
                _ => Difference::paired(&last, &uniform, image),
            };
            Row {
                name: *variant,
                meaning: variant.meaning(),
                meta_images: of(*variant).next().map_or(0, |r| r.meta_images),
                final_mean: final_spread.map_or(f64::NAN, |s| s.mean),
                final_std: final_spread.and_then(|s| s.std),
                best_mean: best.map_or(f64::NAN, |s| s.mean),
                best_std: best.and_then(|s| s.std),
                difference,
                beyond_spread: difference.and_then(|d| d.beyond_spread()),
                gain,
                cosine_mean: cosines.map(|s| s.mean),
                cosine_std: cosines.and_then(|s| s.std),
                mean_weight_clean: means(|r| r.mean_weight_clean),
                mean_weight_corrupted: means(|r| r.mean_weight_corrupted),
                ms_per_step: means(|r| Some(r.ms_per_step)).unwrap_or(f64::NAN),
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
                "{} on {}, noise {}{tail}, {} epochs",
                run.model, run.dataset, run.noise, run.epochs
            ),
            accuracy: config.variants.iter().map(|v| (*v, finals(*v))).collect(),
            meta_size: config.meta_size,
            seeds: config.seeds,
            image,
        }
    }

    fn row(&self, variant: Variant) -> Option<&Row> {
        self.rows.iter().find(|r| r.name == variant)
    }

    fn against(&self, variant: Variant, other: Variant) -> Option<Difference> {
        let of = |v| self.accuracy.iter().find(|a| a.0 == v).map(|a| &a.1);
        Difference::paired(of(variant)?, of(other)?, self.image)
    }

    /// The clean set of n images.
    fn clean(&self, n: usize) -> Variant {
        if n == self.meta_size { Variant::Published } else { Variant::Clean(n) }
    }

    /// The paragraph of conclusions.
    pub fn conclusions(&self) -> String {
        let Some(published) = self.row(Variant::Published) else { return String::new() };
        let mut text = format!(
            "Published method: {:.2}% ({}; {}).",
            published.final_mean,
            self.setting,
            match self.seeds {
                1 => "1 seed, so that there is no spread to compare with, and nothing can be concluded"
                    .to_owned(),
                n => format!(
                    "{n} seeds; ± is half a 95% interval of differences taken seed by seed, and one that holds 0 is no \
                     difference beyond the spread"
                ),
            }
        );
        if let Some(gain) = published.gain {
            text.push_str(&format!(" Against uniform weights: {}.", judged(&gain)));
        }
        let (meta, steps) = (self.meta_set(), self.steps());
        for (title, sentences) in [("(a) The meta set.", meta), ("(b) The three steps.", steps)] {
            if !sentences.is_empty() {
                text.push_str(&format!(" {title} {}", sentences.join(" ")));
            }
        }
        text
    }

    fn meta_set(&self) -> Vec<String> {
        let mut said = Vec::new();
        let variants = || self.rows.iter().map(|r| r.name);
        // Size: clean sets against the full one.
        let sizes: Vec<usize> =
            variants().filter_map(|v| if let Variant::Clean(n) = v { Some(n) } else { None }).collect();
        if !sizes.is_empty() {
            let each = sizes
                .iter()
                .filter_map(|n| Some((*n, self.against(Variant::Clean(*n), Variant::Published)?)));
            let each: Vec<(usize, Difference)> = each.collect();
            let listed: Vec<String> = each.iter().map(|(n, d)| format!("{n} images {}", judged(d))).collect();
            said.push(format!("Size, against {} clean images: {}.", self.meta_size, listed.join("; ")));
            let enough = each.iter().filter(|(_, d)| !d.loses()).map(|(n, _)| *n).min();
            if self.seeds > 1 {
                said.push(match enough {
                    Some(n) => format!("{n} clean images lose nothing beyond the spread."),
                    None => format!("None of these sizes is enough: {} images are better.", self.meta_size),
                });
            }
        }
        for (what, pick) in [
            (
                "Noisy labels",
                (|v| if let Variant::Noisy(n) = v { Some(n) } else { None }) as fn(Variant) -> Option<usize>,
            ),
            ("A long tail", |v| if let Variant::Imbalanced(n) = v { Some(n) } else { None }),
        ] {
            let listed: Vec<String> = variants()
                .filter_map(|v| {
                    let n = pick(v)?;
                    let difference = self.against(v, self.clean(n))?;
                    Some(format!("{n} images {}{}", judged(&difference), self.and_uniform(v)))
                })
                .collect();
            if !listed.is_empty() {
                said.push(format!("{what}, against as many clean balanced images: {}.", listed.join("; ")));
            }
        }
        if let Some(row) = self.row(Variant::TrainBatch)
            && let Some(difference) = row.difference
        {
            let works = self.row(Variant::Published).and_then(|r| r.gain).is_some_and(|gain| gain.wins());
            let answer = match row.gain {
                Some(gain) if works && difference.loses() && !gain.wins() => {
                    ": no better than learning no weights, so the separate clean set is what the method lives from"
                }
                Some(_) if works && difference.loses() => {
                    ": a part of the method's gain needs the separate clean set"
                }
                Some(_) if works && self.seeds > 1 => ": here no loss shows without a separate clean set",
                _ => "",
            };
            said.push(format!(
                "An ordinary training batch as meta batch: {}{}{answer}.",
                judged(&difference),
                self.and_uniform(Variant::TrainBatch),
            ));
        }
        let cosines: Vec<String> = self
            .rows
            .iter()
            .filter(|r| r.name.about_meta_set())
            .filter_map(|r| Some(format!("{} {:.2}", r.name, r.cosine_mean?)))
            .collect();
        if let (false, Some(yardstick)) = (cosines.is_empty(), self.other_batch) {
            said.push(format!(
                "Cosine with the exact hypergradient, where another clean batch has {:.2}: {}.",
                yardstick.mean,
                cosines.join(", ")
            ));
        }
        said
    }

    fn steps(&self) -> Vec<String> {
        let published = self.row(Variant::Published);
        let mut said = Vec::new();
        for row in self.rows.iter().filter(|r| r.name != Variant::Uniform && !r.name.about_meta_set()) {
            let (Some(difference), Some(published)) = (row.difference, published) else { continue };
            let answer = match (row.name, difference.beyond_spread()) {
                (Variant::TwoSteps, Some(false)) => ": redoing the step shows no gain here",
                (Variant::TwoSteps, Some(true)) if difference.mean < 0.0 => ": redoing the step pays",
                (Variant::FiniteDifference, Some(false)) => ": no loss shows here",
                _ => "",
            };
            let cosine = row.cosine_mean.map_or(String::new(), |c| format!(", cosine {}", short(c)));
            said.push(format!(
                "{} ({}): {}{cosine}, {:.0}% of the published step's time{answer}.",
                row.name,
                row.meaning,
                judged(&difference),
                100.0 * row.ms_per_step / published.ms_per_step
            ));
        }
        said
    }

    /// How a variant stands against uniform weights, where that is not the question itself.
    fn and_uniform(&self, variant: Variant) -> String {
        match self.row(variant).and_then(|r| r.gain) {
            Some(gain) if gain.wins() => format!(" ({gain} over uniform weights)"),
            Some(gain) if gain.loses() => format!(" (worse than uniform weights: {gain})"),
            Some(gain) if gain.beyond_spread() == Some(false) => {
                format!(" (no difference to uniform weights shows: {gain})")
            }
            _ => String::new(),
        }
    }
}

/// A cosine, with more digits close to 1.
fn short(cosine: f64) -> String {
    if cosine > 0.995 && cosine < 1.0 {
        format!("1 − {:.0e}", 1.0 - cosine)
    } else {
        format!("{cosine:.2}")
    }
}

/// A difference in words.
fn judged(difference: &Difference) -> String {
    match difference.beyond_spread() {
        None => format!("{difference} points"),
        Some(false) => format!("no difference beyond the spread ({difference})"),
        Some(true) => format!("{difference} points"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DatasetKind, Noise};
    use crate::meta::{Preset, Route, VirtualStep, Weights};
    use crate::nn::WeightNetInit;
    use crate::train::ablation::Probe;
    use crate::train::{Config as RunConfig, Method};

    fn config(variants: &[Variant], seeds: u64) -> Config {
        let run = RunConfig {
            dataset: DatasetKind::FashionMnistMini,
            data_dir: None,
            noise: Noise::Uniform(0.6),
            imbalance: None,
            meta_size: None,
            model: "mlp".into(),
            method: Method::MwNet,
            baseline: false,
            route: Route::Jvp,
            weights: Weights::Mean,
            undetached: false,
            virtual_step: VirtualStep::Plain,
            weight_net_preset: Preset::Adam,
            weight_net_lr: None,
            weight_net_init: WeightNetInit::Kinks,
            epochs: 2,
            batch: 100,
            lr: 0.05,
            milestones: Vec::new(),
            momentum: 0.9,
            nesterov: false,
            weight_decay: 5e-4,
            seed: 1,
            precision: "f32".into(),
        };
        Config { seeds, variants: variants.to_vec(), meta_size: 1000, run }
    }

    /// Cells with these final accuracies, seed by seed.
    fn findings(table: &[(Variant, &[f64])]) -> Findings {
        let probe = |cosine| vec![Probe { step: 1, epoch: 1, cosine: Some(cosine) }];
        let cell = |variant, i: usize, last: f64| CellResult {
            variant,
            seed: i as u64 + 1,
            meta_images: 1000,
            accuracy: vec![last + 1.0, last],
            cosines: probe(0.5),
            other_batch: if variant == Variant::Published { probe(0.8) } else { Vec::new() },
            mean_weight_clean: None,
            mean_weight_corrupted: None,
            ms_per_step: 2.0,
        };
        let cells: Vec<CellResult> = table
            .iter()
            .flat_map(|(v, values)| values.iter().enumerate().map(|(i, last)| cell(*v, i, *last)))
            .collect();
        let variants: Vec<Variant> = table.iter().map(|t| t.0).collect();
        Findings::new(&config(&variants, table[0].1.len() as u64), &cells, 5000)
    }

    #[test]
    fn conclusions_follow_the_numbers() {
        let said = |table: &[(Variant, &[f64])]| findings(table).conclusions();
        let published: &[f64] = &[80.0, 80.5, 79.5];
        let text = said(&[
            (Variant::Published, published),
            (Variant::Uniform, &[76.0, 76.4, 75.6]),
            (Variant::Clean(10), &[77.0, 77.6, 76.4]),
            (Variant::Clean(100), &[80.2, 80.3, 79.4]),
            (Variant::TrainBatch, &[75.9, 76.5, 75.7]),
            (Variant::TwoSteps, &[80.1, 80.4, 79.6]),
        ]);
        for part in [
            "Published method: 80.00%",
            "Against uniform weights: +4.00 ± 0.25 points.",
            "10 images −3.00 ± 0.25 points; 100 images no difference beyond the spread",
            "100 clean images lose nothing beyond the spread.",
            "no difference to uniform weights shows",
            "the separate clean set is what the method lives from",
            "where another clean batch has 0.80: clean-10 0.50",
            "redoing the step shows no gain here",
        ] {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
        // Other numbers, other words.
        let text = said(&[
            (Variant::Published, published),
            (Variant::Uniform, &[76.0, 76.4, 75.6]),
            (Variant::Clean(100), &[78.0, 78.5, 77.6]),
            (Variant::TrainBatch, &[80.1, 80.4, 79.6]),
            (Variant::TwoSteps, &[78.0, 78.4, 77.6]),
        ]);
        for part in ["None of these sizes is enough", "without a separate clean set", "redoing the step pays"]
        {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
        assert!(!text.contains("lives from") && !text.contains("no gain"), "{text}");
        let text = said(&[(Variant::Published, &[80.0]), (Variant::TwoSteps, &[70.0])]);
        assert!(text.contains("nothing can be concluded") && !text.contains("redoing"), "{text}");
    }
}
