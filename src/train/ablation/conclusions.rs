//! What the cells say together, in words. Every sentence is made from the measured numbers, by one
//! rule: a difference counts if its interval over the seeds leaves out 0; that none shows is worth
//! saying only where one as large as the method's own gain would have shown.

use super::findings::{Findings, Row};
use super::variant::Variant;
use crate::train::statistics::Difference;
use crate::words::counted;

impl Findings<'_> {
    /// The paragraph of conclusions.
    pub fn conclusions(&self) -> String {
        let Some(published) = self.row(Variant::Published) else { return String::new() };
        let (config, seeds) = (&self.plan.config, self.plan.seeds.len());
        let accuracy =
            published.arm.final_mean.map_or("no accuracy".to_owned(), |mean| format!("{mean:.2}%"));
        let mut text = format!(
            "Published method: {accuracy} ({} on {}, {}, {}; {}).",
            config.model,
            config.dataset,
            config.bias(),
            counted(config.epochs, "epoch"),
            match seeds {
                1 => "1 seed, so that there is no spread to compare with, and nothing can be concluded"
                    .to_owned(),
                n => format!(
                    "{n} seeds; ± is half a 95% interval of differences taken seed by seed, and one that holds 0 is no \
                     difference beyond the spread; of twenty such intervals one leaves out 0 by chance"
                ),
            }
        );
        if let Some(gain) = published.gain {
            text.push_str(&format!(" Against uniform weights: {}.", judged(&gain)));
        }
        for row in self.rows.iter().filter(|r| r.arm.diverged > 0) {
            text.push_str(&format!(
                " {}: the loss did not stay finite with {} of {}, which {} left out.",
                row.name,
                row.arm.diverged,
                counted(seeds, "seed"),
                if row.arm.diverged == 1 { "is" } else { "are" }
            ));
        }
        let (meta, steps) = (self.meta_set(), self.steps());
        for (title, sentences) in [("(a) The meta set.", meta), ("(b) The three steps.", steps)] {
            if !sentences.is_empty() {
                text.push_str(&format!(" {title} {}", sentences.join(" ")));
            }
        }
        text
    }

    /// Whether a difference that does not show would have shown if it were as large as the method's
    /// own gain.
    fn telling(&self, difference: &Difference) -> bool {
        let gain = self.row(Variant::Published).and_then(|r| r.gain).filter(Difference::wins);
        gain.zip(difference.half_width).is_some_and(|(gain, half)| half < gain.mean)
    }

    fn meta_set(&self) -> Vec<String> {
        let mut said = Vec::new();
        // The variants of one kind, by their number of images.
        let of = |kind: fn(usize) -> Variant| {
            let images = move |row: &Row| row.name.images().filter(|n| row.name == kind(*n));
            self.rows.iter().filter_map(move |row| Some((images(row)?, row)))
        };
        let sizes: Vec<(usize, Difference)> =
            of(Variant::Clean).filter_map(|(n, row)| Some((n, row.difference?))).collect();
        let each = sizes.iter().map(|(n, d)| format!("{} {}", counted(*n, "image"), judged(d)));
        if !sizes.is_empty() {
            let listed = each.collect::<Vec<_>>().join("; ");
            said.push(format!("Size, against {} clean images: {listed}.", self.meta_size()));
        }
        // From this size on none loses.
        let losing = sizes.iter().filter(|(_, d)| d.loses()).map(|(n, _)| *n).max().unwrap_or(0);
        match sizes.iter().filter(|(n, _)| *n > losing).min_by_key(|(n, _)| *n) {
            _ if self.plan.seeds.len() == 1 || sizes.is_empty() => {}
            Some((n, d)) if self.telling(d) => {
                said.push(format!("{n} clean images lose nothing beyond the spread."));
            }
            Some(_) => said.push("Whether fewer are enough cannot be said from so few seeds.".to_owned()),
            None => said.push(format!("None of these sizes is enough beyond doubt: {losing} images lose.")),
        }
        type Kind = fn(usize) -> Variant;
        for (what, kind) in [("Noisy labels", Variant::Noisy as Kind), ("A long tail", Variant::Imbalanced)] {
            // Where as many clean images were not tried, the full clean set must serve.
            for (other, alike) in [("as many clean balanced images", true), ("the full clean set", false)] {
                let against = |(n, row): (usize, &Row)| {
                    let base = if alike { self.clean(n) } else { Variant::Published };
                    let difference = judged(&self.against(row.name, base)?);
                    Some(format!("{} {difference}{}", counted(n, "image"), and_uniform(row)))
                };
                let tried = |n: &(usize, &Row)| self.row(self.clean(n.0)).is_some() == alike;
                let listed: Vec<String> = of(kind).filter(tried).filter_map(against).collect();
                if !listed.is_empty() {
                    said.push(format!("{what}, against {other}: {}.", listed.join("; ")));
                }
            }
        }
        if let Some(row) = self.row(Variant::TrainBatch)
            && let Some(difference) = row.difference
        {
            let works = self.row(Variant::Published).and_then(|r| r.gain).is_some_and(|gain| gain.wins());
            let answer = match row.gain {
                Some(gain) if works && difference.loses() && !gain.wins() && self.telling(&gain) => {
                    ": no significant gain over uniform weights; the separate clean set provides the gain"
                }
                Some(_) if works && difference.loses() => {
                    ": a part of the method's gain needs the separate clean set"
                }
                Some(_) if works && !difference.loses() && self.telling(&difference) => {
                    ": here no loss shows without a separate clean set"
                }
                _ => "",
            };
            said.push(format!(
                "An ordinary training batch as meta batch: {}{}{answer}.",
                judged(&difference),
                and_uniform(row),
            ));
        }
        let cosines: Vec<String> = self
            .rows
            .iter()
            .filter(|r| r.name.about_meta_set())
            .filter_map(|r| Some(format!("{} {}", r.name, short(r.cosine_mean?))))
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
        let mut said = Vec::new();
        for row in self.rows.iter().filter(|r| r.name != Variant::Uniform && !r.name.about_meta_set()) {
            let Some(difference) = row.difference else { continue };
            let answer = match (row.name, difference.beyond_spread()) {
                (_, Some(false)) if !self.telling(&difference) => ": too few seeds to say",
                (Variant::TwoSteps, Some(false)) => ": redoing the step shows no gain here",
                (Variant::TwoSteps, Some(true)) if difference.mean < 0.0 => ": redoing the step pays",
                (Variant::FiniteDifference, Some(false)) => ": no loss shows here",
                (Variant::Unroll(_), Some(false)) => ": looking further ahead shows no gain here",
                (Variant::Unroll(_), Some(true)) if difference.mean > 0.0 => ": looking further ahead pays",
                _ => "",
            };
            let whose = if matches!(row.name, Variant::Every(_)) { " of its last step of θ" } else { "" };
            let cosine = row.cosine_mean.map_or(String::new(), |c| format!(", cosine{whose} {}", short(c)));
            said.push(format!("{} ({}): {}{cosine}{answer}.", row.name, row.meaning, judged(&difference)));
        }
        said
    }
}

/// How a variant stands against uniform weights, where that is not the question itself.
fn and_uniform(row: &Row) -> String {
    match row.gain {
        Some(gain) if gain.wins() => format!(" ({gain} over uniform weights)"),
        Some(gain) if gain.loses() => format!(" (worse than uniform weights: {gain})"),
        Some(gain) if gain.half_width.is_some() => {
            format!(" (no difference to uniform weights shows: {gain})")
        }
        _ => String::new(),
    }
}

/// A cosine, with more digits close to 1.
fn short(cosine: f64) -> String {
    if cosine > 0.995 && cosine < 1.0 {
        format!("1 − {:.0e}", 1.0 - cosine)
    } else {
        format!("{cosine:.2}").replace('-', "−")
    }
}

/// A difference in words.
fn judged(difference: &Difference) -> String {
    match difference.beyond_spread() {
        Some(false) => format!("no difference beyond the spread ({difference})"),
        Some(true) | None => format!("{difference} points"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::history::History;
    use crate::train::study::{Cell, Plan, Probe};
    use crate::train::{Config, EpochRow};

    /// What is concluded from these final accuracies, seed by seed.
    fn conclusions(table: &[(Variant, &[f64])]) -> String {
        let probe = |cosine| vec![Probe { step: 1, epoch: 1, cosine: Some(cosine) }];
        let row = |test_accuracy| EpochRow {
            epoch: 1,
            method: "mwnet".into(),
            lr: 0.1,
            train_loss: 1.0,
            train_accuracy: 50.0,
            meta_loss: None,
            test_loss: 1.0,
            test_accuracy,
            mean_weight: None,
            mean_weight_clean: None,
            mean_weight_corrupted: None,
            steps_per_second: 500.0,
            seconds: 1.0,
        };
        let cell = |variant: Variant, i: usize, last: f64| Cell {
            arm: variant.to_string(),
            seed: i as u64 + 1,
            history: History {
                rows: vec![row(last + 1.0), row(last)],
                confusion: vec![vec![5000]],
                ..History::default()
            },
            cosines: probe(0.5),
            other_batch: if variant == Variant::Published { probe(0.8) } else { Vec::new() },
            ..Cell::default()
        };
        let cells: Vec<Cell> = table
            .iter()
            .flat_map(|(v, values)| values.iter().enumerate().map(|(i, last)| cell(*v, i, *last)))
            .collect();
        let plan = Plan {
            arms: table.iter().map(|row| row.0).collect(),
            seeds: (1..=table[0].1.len() as u64).collect(),
            preset: None,
            config: Config { epochs: 2, milestones: Vec::new(), ..Config::default() },
        };
        Findings::new(&plan, &cells).conclusions()
    }

    #[test]
    fn conclusions_follow_the_numbers() {
        let published: &[f64] = &[80.0, 80.5, 79.5];
        let text = conclusions(&[
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
            "the separate clean set provides the gain",
            "where another clean batch has 0.80: clean-10 0.50",
            "redoing the step shows no gain here",
        ] {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
        // Other numbers, other words.
        let text = conclusions(&[
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
        let text = conclusions(&[(Variant::Published, &[80.0]), (Variant::TwoSteps, &[70.0])]);
        assert!(text.contains("nothing can be concluded") && !text.contains("redoing"), "{text}");
    }
}
