//! What the cells say together. Every sentence is made from the measured numbers, by one rule: a difference counts if its interval
//! over the seeds leaves out 0.

use std::fmt;

use serde::Serialize;

use super::cell::CellResult;
use super::study::Config;
use super::variant::Variant;

/// Mean and standard deviation over seeds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The sample standard deviation; none of one value.
    pub std: Option<f64>,
}

/// A mean of paired differences with its 95% interval by Student's t.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Difference {
    /// The mean, in points of accuracy.
    pub mean: f64,
    /// Half of the interval's width; none of one pair.
    pub half_width: Option<f64>,
}

/// Two-sided 95% quantiles of Student's t for 1, 2, … 30 degrees of freedom.
const T95: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

impl Spread {
    /// Of some values; none of nothing.
    pub fn of(values: &[f64]) -> Option<Spread> {
        if values.is_empty() {
            return None;
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        Some(Spread { mean, std: (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()) })
    }
}

impl Difference {
    /// Of values less the others, pair by pair; none of nothing.
    pub fn paired(values: &[f64], others: &[f64]) -> Option<Difference> {
        let differences: Vec<f64> = values.iter().zip(others).map(|(a, b)| a - b).collect();
        let Spread { mean, std } = Spread::of(&differences)?;
        let n = differences.len();
        let half_width = std.map(|s| T95.get(n - 2).copied().unwrap_or(1.96) * s / (n as f64).sqrt());
        Some(Difference { mean, half_width })
    }

    /// Whether the interval leaves out 0, and then on which side the difference lies; of one pair nothing is known.
    pub fn beyond_spread(&self) -> Option<bool> {
        self.half_width.map(|half| self.mean.abs() > half)
    }

    fn loses(&self) -> bool {
        self.beyond_spread() == Some(true) && self.mean < 0.0
    }

    fn wins(&self) -> bool {
        self.beyond_spread() == Some(true) && self.mean > 0.0
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.std {
            Some(std) => format!("{:.2} ± {std:.2}", self.mean),
            None => format!("{:.2}", self.mean),
        };
        f.pad(&text.replace('-', "−"))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.half_width {
            Some(half) => format!("{:+.2} ± {half:.2}", self.mean),
            None => format!("{:+.2}", self.mean),
        };
        f.pad(&text.replace('-', "−"))
    }
}

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
    /// From all cells of a study.
    pub(super) fn new(config: &Config, results: &[CellResult]) -> Findings {
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
                _ => Difference::paired(&last, &published),
            };
            let gain = match variant {
                Variant::Uniform => None,
                _ => Difference::paired(&last, &uniform),
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
        }
    }

    fn row(&self, variant: Variant) -> Option<&Row> {
        self.rows.iter().find(|r| r.name == variant)
    }

    fn against(&self, variant: Variant, other: Variant) -> Option<Difference> {
        let of = |v| self.accuracy.iter().find(|a| a.0 == v).map(|a| &a.1);
        Difference::paired(of(variant)?, of(other)?)
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
                    "{n} seeds; ± is half a 95% interval of differences taken seed by seed; what it holds 0 in is called no \
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
            let uniform = match row.gain {
                Some(gain) if gain.beyond_spread().is_some() && !gain.wins() => {
                    ": no better than learning no weights, so a separate clean set is what the method lives from"
                }
                Some(gain) if gain.wins() && !difference.loses() => {
                    ": here a separate meta set is not needed"
                }
                _ => "",
            };
            said.push(format!(
                "An ordinary training batch as meta batch: {}{}{uniform}.",
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
                (Variant::TwoSteps, Some(false)) => ": redoing the step buys nothing here",
                (Variant::TwoSteps, Some(true)) if difference.mean < 0.0 => ": redoing the step pays",
                (Variant::FiniteDifference, Some(false)) => ": good enough here",
                _ => "",
            };
            let cosine = row.cosine_mean.map_or(String::new(), |c| format!(", cosine {}", short(c)));
            said.push(format!(
                "{}: {}{cosine}, {:.0}% of the published step's time{answer}.",
                capital(&row.meaning),
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
                format!(" (uniform weights do as well: {gain})")
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

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// A difference in words.
fn judged(difference: &Difference) -> String {
    match difference.beyond_spread() {
        None => format!("{difference} points"),
        Some(false) => format!("no difference beyond the spread ({difference})"),
        Some(true) => format!("{difference} points"),
    }
}
