use super::findings::Findings;
use super::variant::Variant;
use crate::error::Result;
use crate::train::pictures::title;
use crate::train::plots::{Axis, Chart, Layer, Pen, write};
use crate::train::study::{Cell, Probe, Study, ended};
use crate::words::counted;

/// Lines that one picture tells apart at a glance.
const MOST_LINES: usize = 4;

/// The names of the pictures that every study has.
pub(super) const STEMS: [&str; 2] = ["accuracy", "cosine"];

const COSINE: &str = "cosine with the exact hypergradient, mean over";

/// Accuracy and mean cosine of each seed, and the cosine along training; gives the pictures' names.
pub(super) fn draw(study: &Study<Variant>, cells: &[Cell], findings: &Findings) -> Result<Vec<String>> {
    let (plan, out) = (&study.plan, &study.out);
    let epochs = plan.config.epochs;
    let how = format!("{}, {}", counted(epochs, "epoch"), counted(plan.seeds.len(), "seed"));
    let title = title(&plan.config.dataset.to_string(), &plan.config, how);
    let names = || plan.arms.iter().map(Variant::to_string);

    let each = |label: String, least: f64, mut rows: Vec<(String, Vec<f64>)>, reference: Option<f64>| {
        rows.retain(|row| !row.1.is_empty());
        let y = Axis::new("").named(rows.iter().map(|row| row.0.clone()).collect(), rows.len());
        let dots = rows.into_iter().enumerate().map(|(i, row)| Layer::Dots(i, row.1));
        let layers = reference.map(Layer::Rule).into_iter().chain(dots).collect();
        let x = Axis::new(label + ": each seed, and the mean").at_least(least);
        Chart { title: title.clone(), x, y, right: None, layers }
    };
    let rows = |value: fn(&Cell) -> Option<f64>| -> Vec<(String, Vec<f64>)> {
        names().map(|name| (name.clone(), ended(&name, cells).filter_map(value).collect())).collect()
    };
    let reference = findings.rows.first().and_then(|row| row.arm.final_mean);
    let accuracy = rows(|cell| cell.history.final_accuracy());
    let [of_accuracy, of_cosine] = STEMS;
    write(&each("final test accuracy (%)".into(), 0.1, accuracy, reference), &out.join(of_accuracy))?;
    let mut cosines = rows(Cell::mean_cosine);
    let other = cells.iter().filter_map(|cell| Probe::mean(&cell.other_batch)).collect();
    cosines.push(("another clean batch".into(), other));
    write(&each(format!("{COSINE} training"), 0.1, cosines, Some(0.0)), &out.join(of_cosine))?;

    let mut stems = STEMS.map(str::to_owned).to_vec();
    for (stem, part) in groups(&plan.arms) {
        // The mean over all seeds' probes of each epoch.
        let line = |(look, name): (usize, &String)| {
            let probes =
                |epoch| ended(name, cells).flat_map(|c| &c.cosines).filter(move |p| p.epoch == epoch);
            let point = |epoch| Some((epoch as f64, Probe::mean(probes(epoch))?));
            Layer::line(name, Pen::number(look), &(1..=epochs).filter_map(point).collect::<Vec<_>>())
        };
        let layers = part.iter().enumerate().map(line).collect();
        let y = Axis::new(format!("{COSINE} seeds")).at_least(0.1);
        let x = Axis::new("epoch").whole();
        let figure = Chart { title: title.clone(), x, y, right: None, layers };
        write(&figure, &out.join(&stem))?;
        stems.push(stem);
    }
    Ok(stems)
}

/// The pictures of cosines along training: their names, and whose lines they have.
pub(super) fn groups(arms: &[Variant]) -> Vec<(String, Vec<String>)> {
    type Chosen = fn(&&Variant) -> bool;
    let groups: [(&str, Chosen); 4] = [
        ("size", |v| matches!(v, Variant::Clean(_))),
        ("noisy", |v| matches!(v, Variant::Noisy(_) | Variant::TrainBatch)),
        ("imbalanced", |v| matches!(v, Variant::Imbalanced(_))),
        ("steps", |v| !v.about_meta_set() && !matches!(v, Variant::Published | Variant::Uniform)),
    ];
    let mut all = Vec::new();
    for (group, chosen) in groups {
        let variants: Vec<String> = arms.iter().filter(chosen).map(Variant::to_string).collect();
        for (i, part) in variants.chunks(MOST_LINES).enumerate() {
            let number = if i == 0 { String::new() } else { format!("_{}", i + 1) };
            all.push((format!("cosine_{group}{number}"), part.to_vec()));
        }
    }
    all
}
