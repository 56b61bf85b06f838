//! The samples by the size of their class, and the signal over the steps by the parts that V does
//! not know.

use super::numbers::{number, signed};
use crate::cli::explain::Explained;
use crate::cli::parting::{Parting, Sums, thirds};
use crate::cli::report::{self, wrap};

/// Stretches that the steps are cut into.
const STRETCHES: usize = 5;

fn cell(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or("-".to_owned(), show)
}

fn weight(value: f64) -> String {
    format!("{value:.4}")
}

/// The last step's samples by the size of their class; empty without a long tail.
pub(super) fn class_sizes(told: &Explained) -> String {
    let Some(parting) = &told.sizes else { return String::new() };
    let heading = ["classes", "training images", "samples", "mean loss", "mean u", "V on average", "moves"];
    let mut table = vec![heading.map(str::to_owned).to_vec()];
    let last = parting.history.last().cloned().unwrap_or_default();
    for (part, (name, sums)) in parting.names.iter().zip(&last).enumerate() {
        let thirds = thirds(&told.class_counts);
        let counts = || told.class_counts.iter().zip(&thirds).filter(|c| *c.1 == part).map(|c| *c.0);
        let (Some(most), Some(least)) = (counts().max(), counts().min()) else { continue };
        table.push(vec![
            format!("{name}: {}", counts().count()),
            format!("{most} … {least} each"),
            sums.samples.to_string(),
            cell(sums.mean(|s| s.loss), number),
            cell(sums.mean(|s| s.u), signed),
            cell(sums.mean(|s| s.weight), weight),
            cell(sums.mean(|s| s.moved), signed),
        ]);
    }
    format!(
        "THE SAMPLES BY THE SIZE OF THEIR CLASS\n{}\n\n{}",
        wrap(
            "Classes in thirds by how many training images carry their label. V does not see the class: it can tell the tail from the \
             head only as far as their losses differ, and gives both the same weight at the same loss."
        ),
        report::table(&table)
    )
}

/// The signal over all steps that were taken; empty where there is one step, or nothing to tell
/// apart.
pub(super) fn over_time(told: &Explained) -> String {
    let steps = told.labels.history.len();
    let mut sections = Vec::new();
    if steps > 1 && told.labels.over(&told.labels.history).iter().all(|sums| sums.samples > 0) {
        let (_, ahead) = told.labels.ahead(0, 1);
        let words = format!(
            "All {steps} steps up to this one, by labels that are right and labels that are wrong, which V does not know. In {ahead} \
             of them the samples with the right label had the larger mean u."
        );
        sections.push(format!("{}\n\n{}", wrap(&words), stretches(&told.labels)));
    }
    if let Some(sizes) = told.sizes.as_ref().filter(|_| steps > 1) {
        let (both, ahead) = sizes.ahead(2, 0);
        let words = format!(
            "All {steps} steps up to this one, by the size of the samples' class, which V does not know. In {ahead} of the {both} with \
             samples of both, the tail had a larger mean u than the head."
        );
        sections.push(format!("{}\n\n{}", wrap(&words), stretches(sizes)));
    }
    if sections.is_empty() {
        return String::new();
    }
    format!("THE SIGNAL OVER THE STEPS\n{}", sections.join("\n\n"))
}

/// Mean u and mean V of each part, stretch by stretch.
fn stretches(parting: &Parting) -> String {
    let mut heading = vec!["steps".to_owned()];
    for mean in ["mean u", "mean V"] {
        let names = parting.names.iter().enumerate();
        heading.extend(names.map(|(i, n)| if i == 0 { format!("{mean}: {n}") } else { n.to_string() }));
    }
    let mut table = vec![heading];
    let length = parting.history.len().div_ceil(STRETCHES);
    for (i, steps) in parting.history.chunks(length).enumerate() {
        let sums: Vec<Sums> = parting.over(steps);
        let first = i * length + 1;
        let mut row = vec![format!("{first} … {}", first + steps.len() - 1)];
        row.extend(sums.iter().map(|s| cell(s.mean(|s| s.u), signed)));
        row.extend(sums.iter().map(|s| cell(s.mean(|s| s.weight), weight)));
        table.push(row);
    }
    report::table(&table)
}
