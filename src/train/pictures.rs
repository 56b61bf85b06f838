//! Which plots a run draws, from its history: SVG and PNG of each, in the run's folder.

use std::path::Path;

use super::history::History;
use super::plots::{EpochCurves, EpochLine, WeightCurve, WeightHistogram, write};
use super::prepared::Prepared;
use crate::error::Result;

/// File names without their endings.
pub(super) const WEIGHT_CURVE: &str = "weight_curve";
const WEIGHTS: &str = "weights";
const ACCURACY: &str = "accuracy";
const LOSSES: &str = "losses";

/// The files that [`draw`] writes.
pub(super) fn files() -> impl Iterator<Item = String> {
    let stems = [WEIGHT_CURVE, WEIGHTS, ACCURACY, LOSSES];
    stems.into_iter().flat_map(|stem| ["svg", "png"].map(|ending| format!("{stem}.{ending}")))
}

pub(super) fn draw(data: &Prepared, histories: &[History], out: &Path) -> Result<()> {
    let config = &data.config;
    let tail = config.imbalance.map_or(String::new(), |factor| format!(", imbalance {factor}"));
    let title = format!(
        "{}, {}, noise {}{tail}, seed {}",
        data.dataset.name, config.model, config.noise, config.seed
    );
    let (main, baseline) = (&histories[0], histories.get(1));
    let column =
        |h: &History, f: fn(&super::history::EpochRow) -> f64| h.rows.iter().map(f).collect::<Vec<_>>();
    let accuracy = column(main, |r| r.test_accuracy);
    let baseline = baseline.map(|h| column(h, |r| r.test_accuracy));
    let method = config.method.to_string();
    let line = EpochLine { name: &method, values: &accuracy };
    write(&EpochCurves::accuracy(&title, line, baseline.as_deref()), &out.join(ACCURACY))?;
    let meta: Vec<f64> = main.rows.iter().filter_map(|r| r.meta_loss).collect();
    let train = column(main, |r| r.train_loss);
    write(&EpochCurves::losses(&title, &train, &meta), &out.join(LOSSES))?;
    let Some(last) = main.pictures.last() else { return Ok(()) };
    let apart = |values: &[f64], flag: bool| -> Vec<f64> {
        let of_flag = values.iter().zip(&data.split.train.corrupted).filter(|(_, c)| **c == flag);
        of_flag.map(|(v, _)| *v).collect()
    };
    let losses: Vec<f64> = last.curve.iter().map(|p| p.0).collect();
    let over_time = main.pictures.iter().map(|p| {
        let when = match p.epoch {
            0 => "start".to_owned(),
            epoch if epoch == config.epochs => format!("end (epoch {epoch})"),
            epoch => format!("epoch {epoch}"),
        };
        (when, p.curve.iter().map(|c| c.1).collect())
    });
    // Several curves at one time, or one curve at several times.
    let curves: Vec<(String, Vec<f64>)> =
        if last.groups.is_empty() { over_time.collect() } else { last.groups.clone() };
    let (clean, corrupted) = (apart(&last.losses, false), apart(&last.losses, true));
    let figure = WeightCurve {
        title: &title,
        method: &method,
        losses: &losses,
        curves: &curves,
        clean: &clean,
        corrupted: &corrupted,
    };
    write(&figure, &out.join(WEIGHT_CURVE))?;
    let (clean, corrupted) = (apart(&last.weights, false), apart(&last.weights, true));
    write(&WeightHistogram { title: &title, clean: &clean, corrupted: &corrupted }, &out.join(WEIGHTS))?;
    Ok(())
}
