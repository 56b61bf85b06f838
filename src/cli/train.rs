//! `metatape train`: from flags to a [`Run`], and what it shows at its end.

use std::path::Path;

use metatape::program::Session;
use metatape::train::{Config, Method, Run, Summary};
use metatape::{Error, Result};
use serde_json::Value;

use super::args::{TrainArgs, check_milestones, given, tell_milestones, typed};
use super::folder::in_folder;
use super::progress::Progress;
use super::report::{print, table, warn};
use super::signals;

/// Trains, or goes on training.
pub fn run(args: &TrainArgs) -> Result<()> {
    let mut device = args.run.machine();
    let mut run = match (&args.out, args.resume) {
        (Some(out), true) => {
            let config = grown(asked(args)?, Run::stored_config(out)?)?;
            // A run keeps its precision, too.
            device.precision = config.precision;
            Run::resume_as(config, out, &|| Ok(Session::new(device.backend()?)))?
        }
        (out, _) => {
            let config = asked(args)?;
            config.check_used(&[args.method], typed("train"))?;
            check_milestones("train", &config)?;
            let name = format!("{}-{}-{}", config.method, config.model, config.dataset);
            let session = || Ok(Session::new(device.backend()?));
            in_folder(out.as_deref(), &name, |out| Run::start(config, out, &session))?
        }
    };
    tell_milestones("train", &run.data.config);
    run.tensorboard |= args.tensorboard;
    let mut progress = Progress::run(&run, args.json, args.keep.checkpoint_every);
    signals::note()?;
    let summary = run.train(&mut progress).map_err(|error| goes_on(error, "train", &run.out))?;
    progress.finish();
    if args.json {
        let json = serde_json::to_string_pretty(&summary).map_err(|e| Error::Program(e.to_string()))?;
        print(json)?;
    } else {
        print(report(&run, &summary))?;
    }
    warn(&summary.warnings, args.strict, &run.out)
}

/// The run that flags ask for.
fn asked(args: &TrainArgs) -> Result<Config> {
    let baseline = !args.no_baseline && args.method != Method::Uniform;
    Ok(Config { method: args.method, baseline, seed: args.seed, ..args.run.config()? })
}

/// A resumed run's configuration: the stored one, but that it may have more epochs.
fn grown(asked: Config, stored: Config) -> Result<Config> {
    let typed = given("train");
    if !typed.contains("epochs") || asked.epochs <= stored.epochs {
        return agree("train", "run", &asked, &stored);
    }
    let Config { epochs, .. } = asked;
    // Whether they leave the epochs that are done as they were, the run itself knows.
    let milestones =
        if typed.contains("milestones") { &asked.milestones } else { &stored.milestones }.clone();
    let config = agree("train", "run", &asked, &Config { epochs, milestones, ..stored })?;
    check_milestones("train", &config)?;
    Ok(config)
}

/// What has ended a training, and how it goes on; what has nothing to go on from is as it was.
pub fn goes_on(error: Error, command: &str, out: &Path) -> Error {
    let line = format!("go on with `metatape {command} --resume --out {}`", out.display());
    match error {
        Error::Stopped(what) => Error::Stopped(format!("{what}; {line}")),
        Error::Io { .. } => Error::Data(format!("{error}; mend that, and {line}")),
        error => error,
    }
}

/// The field with the text of the model's file.
const TEXT: &str = "model_text";

/// What is resumed (a run, a study) keeps its configuration: a flag on the command line that says
/// otherwise is an error, but for the paths of data that have moved. Gives it with those.
pub fn agree(subcommand: &str, what: &str, asked: &Config, stored: &Config) -> Result<Config> {
    let mut moved = Config { threads: asked.threads, ..stored.clone() };
    let fields = |config: &Config| serde_json::to_value(config).map_err(|e| Error::Program(e.to_string()));
    let (paths, asked, stored) = (asked, fields(asked)?, fields(stored)?);
    for field in given(subcommand) {
        // Two fields are called otherwise in a configuration.
        let (key, flag) = match field.as_str() {
            "virtual_step" => ("virtual", "--virtual".to_owned()),
            "no_baseline" => ("baseline", "--no-baseline".to_owned()),
            key => (key, format!("--{}", key.replace('_', "-"))),
        };
        let place = match key {
            "data_dir" => Some((&mut moved.data_dir, &paths.data_dir)),
            "meta_dir" => Some((&mut moved.meta_dir, &paths.meta_dir)),
            "train_labels" => Some((&mut moved.train_labels, &paths.train_labels)),
            "init" => Some((&mut moved.init, &paths.init)),
            _ => None,
        };
        if let Some((place, path)) = place.filter(|place| place.0.is_some()) {
            place.clone_from(path);
            continue;
        }
        if asked.get(key).is_none() && stored.get(key).is_none() {
            continue;
        }
        let value = asked.get(key).unwrap_or(&Value::Null);
        if key == "model" && stored.get(key) == Some(value) && stored.get(TEXT) != asked.get(TEXT) {
            return Err(misfit(
                what,
                &format!("--model {}, as it is now,", plain(value)),
                "another text of it",
            ));
        }
        // What was asked for is among what is recorded.
        if let (Value::Object(asked), Some(Value::Object(had))) = (value, stored.get(key))
            && asked.iter().all(|(name, value)| had.get(name) == Some(value))
        {
            continue;
        }
        if stored.get(key) != Some(value) {
            // A switch says all by its name.
            let given = if value.is_boolean() { flag } else { format!("{flag} {}", plain(value)) };
            let had = stored.get(key).map_or("none".to_owned(), plain);
            return Err(misfit(what, &given, &format!("{key} = {had}")));
        }
    }
    Ok(moved)
}

/// The error of a flag that does not fit what is resumed.
pub fn misfit(what: &str, flag: &str, had: &str) -> Error {
    Error::Usage(format!(
        "{flag} does not fit the {what} to resume, which was started with {had}; leave the flag out, or start a new {what} in another \
         --out"
    ))
}

/// A value as it is typed: strings without quotes, lists without brackets.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".to_owned(),
        Value::Array(values) if values.is_empty() => "none".to_owned(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// The table at the end.
fn report(run: &Run, summary: &Summary) -> String {
    let percent = |v: f64| format!("{v:.2}%");
    let row = |name: &str, cells: [String; 2]| {
        let [a, b] = cells;
        vec![name.to_owned(), a, b]
    };
    let mut rows = vec![row("test accuracy", ["final".into(), "best".into()])];
    rows.push(row(
        &summary.method,
        [percent(summary.final_test_accuracy), percent(summary.best_test_accuracy)],
    ));
    if let (Some(last), Some(best)) =
        (summary.baseline_final_test_accuracy, summary.baseline_best_test_accuracy)
    {
        rows.push(row("uniform", [percent(last), percent(best)]));
    }
    let mut text = format!("\n{}\n", table(&rows));
    if let Some(all) = summary.mean_weight {
        text.push_str(&match (summary.mean_weight_clean, summary.mean_weight_corrupted) {
            (Some(clean), Some(corrupted)) => {
                format!("\nmean weight of clean samples {clean:.3}, of corrupted samples {corrupted:.3}\n")
            }
            (Some(_), None) => format!("\nmean weight of samples {all:.3} (no label is wrong)\n"),
            (None, Some(_)) => format!("\nmean weight of samples {all:.3} (no label is right)\n"),
            (None, None) => {
                format!("\nmean weight of samples {all:.3} (which labels are wrong is not known)\n")
            }
        });
    }
    if let Some(finding) = &summary.finding {
        text.push_str(&format!(
            "suspects: of the {} most suspicious samples {:.1}% have a wrong label; area under the ROC curve {:.4}\n",
            finding.wrong,
            100.0 * finding.precision,
            finding.auc
        ));
    }
    if !summary.weight_curve.is_empty() {
        text.push_str(&format!("\n{}\n", table(&curve_rows(run.data.config.method, summary))));
    }
    if let Some(speed) = summary.meta_steps_per_second {
        text.push_str(&format!("\n{speed:.0} meta steps a second, {:.1} s in all", summary.seconds));
    }
    text.push_str(&format!("\nfiles: {}", run.out.display()));
    text
}

/// The weight at a few losses, a row a curve. Only a weight net is called V.
fn curve_rows(method: Method, summary: &Summary) -> Vec<Vec<String>> {
    const SHOWN: [f64; 8] = [0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0];
    let (losses, curve): (Vec<f64>, Vec<f64>) = summary.weight_curve.iter().copied().unzip();
    let mut curves = summary.weight_curves_by_group.clone();
    if curves.is_empty() {
        curves.push((String::new(), curve));
    }
    let row = |head: String, values: &[f64], digits: Option<usize>| {
        let shown = losses.iter().zip(values).filter(|(loss, _)| SHOWN.contains(loss));
        let cell = |value: &f64| digits.map_or(value.to_string(), |digits| format!("{value:.digits$}"));
        std::iter::once(head).chain(shown.map(|(_, value)| cell(value))).collect()
    };
    let mut rows = vec![row("loss".into(), &losses, None)];
    let what = if method.is_meta() { "V(loss)" } else { "weight" };
    let head = |name: &str| if name.is_empty() { what.into() } else { format!("{what}, {name}") };
    rows.extend(curves.iter().map(|(name, values)| row(head(name), values, Some(3))));
    rows
}
