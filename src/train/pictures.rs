//! Which plots a run draws, from its history: SVG and PNG of each, in the run's folder.

use std::fmt::Display;
use std::path::Path;

use super::config::Config;
use super::history::{EpochRow, History};
use super::plots::{Axis, Chart, Layer, Pen, READABLE, peak, write};
use super::prepared::Prepared;
use super::run::whole_picture;
use crate::error::Result;
use crate::words::counted;

/// File names without their endings.
pub(super) const WEIGHT_CURVE: &str = "weight_curve";
const WEIGHTS: &str = "weights";
const ACCURACY: &str = "accuracy";
const LOSSES: &str = "losses";
const CLASSES: &str = "class_accuracy";
const CONFUSION: &str = "confusion";

/// All of them, in the order in which a person looks at them.
pub(super) const STEMS: [&str; 6] = [ACCURACY, LOSSES, WEIGHT_CURVE, WEIGHTS, CLASSES, CONFUSION];

/// The files that [`draw`] writes.
pub(super) fn files() -> impl Iterator<Item = String> {
    super::plots::files(STEMS.map(str::to_owned)).into_iter()
}

/// An axis of classes, with their names unless they are too many to be read.
pub(super) fn by_class_name(
    config: &Config,
    names: &[String],
    label: &str,
    name: &dyn Fn(usize) -> String,
) -> Axis {
    let shown = if names.len() <= READABLE { (0..names.len()).map(name).collect() } else { Vec::new() };
    let largest = if label == "class" && config.imbalance.is_some() { ", the largest first" } else { "" };
    Axis::new(format!("{label}{largest}")).named(shown, names.len())
}

/// The confusion matrix of the sum of some counts: its axes, and shares by true class.
pub(super) fn confusion<'a>(
    config: &Config,
    names: &[String],
    all: impl IntoIterator<Item = &'a Vec<Vec<u32>>>,
) -> (Axis, Axis, Layer) {
    let mut sum = vec![vec![0.0; names.len()]; names.len()];
    for counts in all {
        for (total, counted) in sum.iter_mut().flatten().zip(counts.iter().flatten()) {
            *total += f64::from(*counted);
        }
    }
    for row in &mut sum {
        let total = row.iter().sum::<f64>().max(1.0);
        row.iter_mut().for_each(|count| *count /= total);
    }
    let x = by_class_name(config, names, "predicted class", &|class| class.to_string());
    let label = "true class, with shares in percent";
    let y = by_class_name(config, names, label, &|class| format!("{} {class}", names[class]));
    (x, y, Layer::Squares(sum))
}

/// What a picture is of.
pub(super) fn title(dataset: &str, config: &Config, seeds: impl Display) -> String {
    format!("{dataset}, {}, {}, {seeds}", config.model, config.bias())
}

pub(super) fn draw(data: &Prepared, histories: &[History], out: &Path) -> Result<()> {
    let config = &data.config;
    let title = title(&data.dataset.name, config, format_args!("seed {}", config.seed));
    let chart =
        |x: Axis, y: Axis, layers: Vec<Layer>| Chart { title: title.clone(), x, y, right: None, layers };
    let over_epochs = |look: usize, name: &str, history: &History, value: fn(&EpochRow) -> Option<f64>| {
        let point = |row: &EpochRow| Some((row.epoch as f64, value(row)?));
        Layer::line(name, Pen::number(look), &history.rows.iter().filter_map(point).collect::<Vec<_>>())
    };
    let (main, method, epoch) = (&histories[0], config.method.to_string(), Axis::new("epoch").whole());
    let mut lines = vec![over_epochs(0, &method, main, |row| Some(row.test_accuracy))];
    if let Some(baseline) = histories.get(1) {
        lines.push(over_epochs(1, "baseline, uniform weights", baseline, |row| Some(row.test_accuracy)));
    }
    let accuracy = Axis::new("test accuracy (%)").at_least(2.0);
    write(&chart(epoch.clone(), accuracy, lines), &out.join(ACCURACY))?;
    let lines = vec![
        over_epochs(0, "training batches", main, |row| Some(row.train_loss)),
        over_epochs(1, "meta batches", main, |row| row.meta_loss),
    ];
    let losses = Axis::new("mean cross-entropy (nats)").at_least(0.1);
    write(&chart(epoch, losses, lines), &out.join(LOSSES))?;

    let names = &data.dataset.class_names;
    let by_class = |history: &History| -> Vec<(f64, f64)> {
        history.class_accuracies().into_iter().enumerate().map(|(class, a)| (class as f64, a)).collect()
    };
    let lines = histories.iter().zip(config.methods()).enumerate().map(|(look, (history, method))| {
        Layer::line(method.to_string(), Pen::number(look), &by_class(history))
    });
    let of_class = Axis::new("test accuracy of the class (%)").at_least(2.0);
    let x = by_class_name(config, names, "class", &|class| names[class].clone());
    write(&chart(x, of_class, lines.collect()), &out.join(CLASSES))?;
    let (x, y, squares) = confusion(config, names, [&main.confusion]);
    let figure = Chart { title: format!("{method}: {title}"), ..chart(x, y, vec![squares]) };
    write(&figure, &out.join(CONFUSION))?;

    let Some(last) = main.pictures.last() else { return Ok(()) };
    // A layer of samples with their true label, and one of those with a wrong one; of all where
    // nobody knows.
    let train = &data.split.train;
    type Named<'a> = &'a dyn Fn(&str, &[f64]) -> String;
    let histograms = |values: &[f64], bins: usize, high: f64, together: bool, named: Named| {
        let mut layers = Vec::new();
        for (flag, group) in [(false, if train.known { "clean" } else { "training" }), (true, "corrupted")] {
            let of_flag = values.iter().zip(&train.corrupted).filter(|(_, c)| **c == flag);
            let part: Vec<f64> = of_flag.map(|(value, _)| *value).collect();
            let of = if together { values.len() } else { part.len() };
            if !part.is_empty() {
                let name = named(group, &part);
                layers.push(Layer::histogram(name, Pen::area(flag), &part, bins, high, of));
            }
        }
        layers
    };
    let end = last.curve.last().map_or(1.0, |point| point.0);
    let mut layers = histograms(&last.losses, 48, end, true, &|group, _| format!("losses, {group}"));
    let share = Axis::new("share of the training samples (%)").over(0.0, 1.1 * peak(&layers));
    // Several curves at one time, or one curve at several times.
    let at_end = last.groups.iter().map(|(name, weights)| {
        (name.clone(), last.curve.iter().zip(weights).map(|(point, weight)| (point.0, *weight)).collect())
    });
    let whole = main.pictures.iter().filter(|picture| whole_picture(picture.epoch, config.epochs));
    let over_time = whole.map(|picture| {
        let when = match picture.epoch {
            0 => "start".to_owned(),
            epoch if epoch == config.epochs => format!("end (epoch {epoch})"),
            epoch => format!("epoch {epoch}"),
        };
        (when, picture.curve.clone())
    });
    let curves: Vec<(String, Vec<(f64, f64)>)> =
        if last.groups.is_empty() { over_time.collect() } else { at_end.collect() };
    let lines = curves.iter().enumerate().map(|(i, (name, points))| {
        let pen = if i + 1 == curves.len() { Pen::strong() } else { Pen::earlier(i) };
        Layer::line(format!("{method}, {name}"), pen, points)
    });
    let lines: Vec<Layer> = lines.collect();
    let x = Axis::new("loss of a training sample (nats; the last bin holds all above)").over(0.0, end);
    let y = Axis::new("weight of a training sample").over(0.0, 1.04 * peak(&lines).max(1.0));
    layers.extend(lines);
    write(&Chart { right: Some(share), ..chart(x, y, layers) }, &out.join(WEIGHT_CURVE))?;

    let high = last.weights.iter().copied().fold(1.0, f64::max);
    let layers = histograms(&last.weights, 40, high, false, &|group, weights| {
        let mean = weights.iter().sum::<f64>() / weights.len() as f64;
        format!("{}, mean weight {mean:.2}", counted(weights.len(), &format!("{group} sample")))
    });
    let x = Axis::new("weight of a training sample").over(0.0, high);
    let y = Axis::new("share of each group (%)").over(0.0, 1.06 * peak(&layers));
    write(&chart(x, y, layers), &out.join(WEIGHTS)).map(drop)
}
