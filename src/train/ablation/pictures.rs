use std::path::Path;

use super::cell::{CellResult, Probe};
use super::findings::Findings;
use super::study::Config;
use super::variant::Variant;
use crate::error::Result;
use crate::train::plots::{DotRow, DotRows, EpochCurves, EpochLine, write};
use crate::words::counted;

/// Lines that one picture tells apart.
const MOST_LINES: usize = 4;

/// Accuracy and mean cosine of each seed, and the cosine along training.
pub(super) fn draw(config: &Config, results: &[CellResult], findings: &Findings, out: &Path) -> Result<()> {
    let run = &config.run;
    let tail = run.imbalance.map_or(String::new(), |factor| format!(", imbalance {factor}"));
    let title = format!(
        "{}, {}, noise {}{tail}, {}, {}",
        run.dataset,
        run.model,
        run.noise,
        counted(run.epochs, "epoch"),
        counted(config.seeds as usize, "seed")
    );
    let rows = |value: fn(&CellResult) -> Option<f64>| -> Vec<DotRow> {
        let of = |v: Variant| results.iter().filter(|r| r.variant == v).filter_map(value).collect();
        let rows = config.variants.iter().map(|v| DotRow { name: v.to_string(), values: of(*v) });
        rows.filter(|row| !row.values.is_empty()).collect()
    };
    let (accuracy, mut cosines) = (rows(CellResult::final_accuracy), rows(CellResult::mean_cosine));
    let label = "final test accuracy (%): each seed, and the mean";
    let reference = findings.rows.first().and_then(|r| r.final_mean);
    write(&DotRows { title: &title, label, rows: &accuracy, reference }, &out.join("accuracy"))?;
    let other = |r: &CellResult| mean(r.other_batch.iter());
    let values = results.iter().filter_map(other).collect();
    cosines.push(DotRow { name: "another clean batch".into(), values });
    let label = "cosine with the exact hypergradient, mean over training: each seed, and the mean";
    write(&DotRows { title: &title, label, rows: &cosines, reference: Some(0.0) }, &out.join("cosine"))?;

    type Chosen = fn(Variant) -> bool;
    let groups: [(&str, Chosen); 4] = [
        ("size", |v| matches!(v, Variant::Clean(_))),
        ("noisy", |v| matches!(v, Variant::Noisy(_) | Variant::TrainBatch)),
        ("imbalanced", |v| matches!(v, Variant::Imbalanced(_))),
        ("steps", |v| {
            matches!(
                v,
                Variant::TwoSteps | Variant::Every(_) | Variant::Unroll(_) | Variant::FiniteDifference
            )
        }),
    ];
    for (name, chosen) in groups {
        let mut lines: Vec<(String, Vec<f64>)> = Vec::new();
        for variant in config.variants.iter().filter(|v| chosen(**v)) {
            let of = results.iter().filter(|r| r.variant == *variant).map(|r| &r.cosines);
            lines.push((variant.to_string(), by_epoch(of, run.epochs)));
        }
        for (i, part) in lines.chunks(MOST_LINES).enumerate() {
            let lines = part.iter().map(|(name, values)| EpochLine { name, values }).collect();
            let label = "cosine with the exact hypergradient, mean over seeds";
            let figure = EpochCurves { title: &title, label, least_range: 0.1, lines };
            let number = if i == 0 { String::new() } else { format!("_{}", i + 1) };
            write(&figure, &out.join(format!("cosine_{name}{number}")))?;
        }
    }
    Ok(())
}

fn mean<'a>(probes: impl Iterator<Item = &'a Probe>) -> Option<f64> {
    let values: Vec<f64> = probes.filter_map(|p| p.cosine).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The mean over all seeds' probes of each epoch.
fn by_epoch<'a>(seeds: impl Iterator<Item = &'a Vec<Probe>> + Clone, epochs: usize) -> Vec<f64> {
    let of = |epoch| mean(seeds.clone().flatten().filter(move |p| p.epoch == epoch));
    (1..=epochs).map(|epoch| of(epoch).unwrap_or(f64::NAN)).collect()
}
