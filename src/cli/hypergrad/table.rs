//! What `metatape hypergrad` prints.

use metatape::Result;
use metatape::meta::Route;
use serde_json::json;

use super::{Outcome, Setting, Way};
use crate::cli::report;

/// ‖h − reference‖ / ‖reference‖ over all of θ; where the reference is 0, the distance itself.
pub fn relative_error(hypergrad: &[f64], reference: &[f64]) -> f64 {
    let difference: Vec<f64> = hypergrad.iter().zip(reference).map(|(a, b)| a - b).collect();
    match norm(reference) {
        0.0 => norm(&difference),
        length => norm(&difference) / length,
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
    outcomes: &[Outcome],
    skipped: Option<String>,
) -> Result<()> {
    let Some(reference) = outcomes.first() else { return Ok(()) };
    let (args, config) = (setting.args, &setting.data.config);
    report::print(format_args!(
        "{}, batch {}, seed {}, {}; {}, noise {}; mean loss {:.6}, meta loss {:.6}\n",
        config.model,
        config.batch,
        config.seed,
        device,
        config.dataset,
        config.noise,
        reference.loss,
        reference.meta_loss
    ))?;
    let heading = ["route", "relative error", "cosine", "ms", "operations", "GFLOP", "peak buffers"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for o in outcomes {
        let error = match o.way {
            way if way == Way::one(Route::Reverse) => "reference".to_owned(),
            way if way.is_other() => "-".to_owned(),
            _ => format!("{:.1e}", relative_error(&o.hypergrad, &reference.hypergrad)),
        };
        rows.push(vec![
            o.way.to_string(),
            error,
            format!("{:.4}", cosine(&o.hypergrad, &reference.hypergrad)),
            report::ms(report::median(&o.times)),
            o.operations.to_string(),
            format!("{:.3}", o.flops as f64 / 1e9),
            report::mib(o.buffer_bytes),
        ]);
    }
    report::print(report::table(&rows))?;
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
    outcomes: &[Outcome],
    skipped: Option<String>,
) -> Result<()> {
    let Some(reference) = outcomes.first() else { return Ok(()) };
    let (args, config) = (setting.args, &setting.data.config);
    let row = |o: &Outcome| {
        json!({
            "route": o.way.to_string(),
            "relative_error": (!o.way.is_other()).then(|| relative_error(&o.hypergrad, &reference.hypergrad)),
            "cosine": cosine(&o.hypergrad, &reference.hypergrad),
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
        "loss": reference.loss,
        "meta_loss": reference.meta_loss,
        "hypergrad_norm": norm(&reference.hypergrad),
        "routes": outcomes.iter().map(row).collect::<Vec<_>>(),
        "skipped": skipped,
        "dump": args.dump,
    }))
}
