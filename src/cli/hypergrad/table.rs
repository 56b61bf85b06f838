//! What `metatape hypergrad` prints.

use metatape::Result;
use metatape::meta::Route;
use metatape::train::values::Precision;
use metatape::words::number;
use serde_json::json;

use super::{Outcome, Setting, Way};
use crate::cli::report;

/// A hypergradient whose length is below so many roundings of its terms is 0: they cancel.
const ROUNDINGS: f64 = 100.0;

/// What others are compared with.
pub struct Reference<'a> {
    pub hypergrad: &'a [f64],
    /// The length of the terms that it is the sum of, where they cancel but for their rounding.
    pub cancelled: Option<f64>,
}

impl Reference<'_> {
    /// A hypergradient with terms of this size, in numbers of this precision.
    pub fn new(hypergrad: &[f64], size: f64, precision: Precision) -> Reference<'_> {
        let eps = if precision == Precision::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) };
        let cancelled = norm(hypergrad) <= ROUNDINGS * eps * size;
        Reference { hypergrad, cancelled: cancelled.then_some(size) }
    }

    /// ‖h − reference‖ / ‖reference‖ over all of θ, or relative to its terms where these cancel;
    /// where all are 0, the distance itself.
    pub fn relative_error(&self, hypergrad: &[f64]) -> f64 {
        let difference: Vec<f64> = hypergrad.iter().zip(self.hypergrad).map(|(a, b)| a - b).collect();
        match self.cancelled.unwrap_or_else(|| norm(self.hypergrad)) {
            0.0 => norm(&difference),
            length => norm(&difference) / length,
        }
    }

    /// Of the angle between the two; 0 where one vanishes, nothing where the reference is rounding.
    fn cosine(&self, hypergrad: &[f64]) -> Option<f64> {
        self.cancelled.is_none().then(|| cosine(hypergrad, self.hypergrad))
    }
}

/// Between two hypergradients; 0 where one vanishes.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let product: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
    match norm(a) * norm(b) {
        0.0 => 0.0,
        lengths => product / lengths,
    }
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

pub(super) fn print_table(
    setting: &Setting,
    device: &str,
    (outcomes, size): (&[Outcome], f64),
    skipped: Option<String>,
) -> Result<()> {
    let Some(first) = outcomes.first() else { return Ok(()) };
    let (args, config) = (setting.args, &setting.data.config);
    let reference = Reference::new(&first.hypergrad, size, config.precision);
    report::print(format_args!(
        "{}, batch {}, seed {}, {}; {}, noise {}; mean loss {}, meta loss {}\n",
        config.model,
        config.batch,
        config.seed,
        device,
        config.dataset,
        config.noise,
        number(first.loss, 6),
        number(first.meta_loss, 6)
    ))?;
    let heading = ["route", "relative error", "cosine", "ms", "operations", "GFLOP", "peak buffers"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for o in outcomes {
        let error = match o.way {
            way if way == Way::one(Route::Reverse) => "reference".to_owned(),
            way if way.is_other() => "-".to_owned(),
            _ => format!("{:.1e}", reference.relative_error(&o.hypergrad)),
        };
        rows.push(vec![
            o.way.to_string(),
            error,
            report::optional(reference.cosine(&o.hypergrad), |cosine| format!("{cosine:.4}")),
            report::ms(report::median(&o.times)),
            o.operations.to_string(),
            format!("{:.3}", o.flops as f64 / 1e9),
            report::mib(o.buffer_bytes),
        ]);
    }
    report::print(report::table(&rows))?;
    report::print(format_args!(
        "\nrelative error: of all of theta's hypergradient, from the reverse route's in {}, whose own rounding it does not show",
        config.precision
    ))?;
    for (way, residual) in outcomes.iter().filter_map(|o| Some((o.way, o.residual?))) {
        report::print(format_args!("{way}: relative residual of its linear system {}", number(residual, 2)))?;
    }
    if let Some(size) = reference.cancelled {
        report::print(format_args!(
            "\nthe hypergradient is 0 but for rounding: its terms cancel, and errors are relative to their lengths, {size:.1e}"
        ))?;
    }
    if let Some(reason) = skipped {
        report::print(format_args!("{}  {reason}", Route::PerSample))?;
    }
    match &args.dump {
        Some(path) => report::print(format_args!("\nwritten: {}", path.display())),
        None => Ok(()),
    }
}

pub(super) fn print_json(
    setting: &Setting,
    device: &str,
    (outcomes, size): (&[Outcome], f64),
    skipped: Option<String>,
) -> Result<()> {
    let Some(first) = outcomes.first() else { return Ok(()) };
    let (args, config) = (setting.args, &setting.data.config);
    let reference = Reference::new(&first.hypergrad, size, config.precision);
    let row = |o: &Outcome| {
        json!({
            "route": o.way.to_string(),
            "relative_error": (!o.way.is_other()).then(|| reference.relative_error(&o.hypergrad)),
            "cosine": reference.cosine(&o.hypergrad),
            "residual": o.residual,
            "ms": report::median(&o.times),
            "timed_runs": o.times.len(),
            "operations": o.operations,
            "gflop": o.flops as f64 / 1e9,
            "peak_buffer_bytes": o.buffer_bytes,
        })
    };
    let skipped: Vec<_> = skipped
        .iter()
        .map(|reason| json!({ "route": Route::PerSample.to_string(), "reason": reason }))
        .collect();
    report::print_json(&json!({
        "model": config.model,
        "batch": config.batch,
        "seed": config.seed,
        "precision": config.precision.to_string(),
        "device": device,
        "dataset": config.dataset.to_string(),
        "noise": config.noise.to_string(),
        "loss": first.loss,
        "meta_loss": first.meta_loss,
        "hypergrad_norm": norm(&first.hypergrad),
        "cancelled_terms": reference.cancelled,
        "routes": outcomes.iter().map(row).collect::<Vec<_>>(),
        "skipped": skipped,
        "dump": args.dump,
    }))
}
