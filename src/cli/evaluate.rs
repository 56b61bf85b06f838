//! `metatape evaluate`: how well a run's network does.

use std::path::{Path, PathBuf};

use clap::Args;
use metatape::data::{Dataset, DatasetKind, Labelled, Reading};
use metatape::meta::schemes::{Set, argmax, softmax};
use metatape::program::Session;
use metatape::train::values::{Precision, positive};
use metatape::train::{Finished, Predictor, Scores, csv_text, write_atomically};
use metatape::words::number;
use metatape::{Error, Result};
use serde_json::json;

use super::args::DeviceArgs;
use super::dump::check_free;
use super::report::{complain, optional, print, print_json, table};

/// A run's network, and where to compute with it.
#[derive(Args, Clone, Debug)]
pub struct NetworkArgs {
    /// The folder of a finished run
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    /// f32 or f64, on a GPU also tf32 and bf16 [default: the run's]
    #[arg(long, value_name = "f32|f64|tf32|bf16", help_heading = "Machine")]
    pub precision: Option<Precision>,
    /// Threads, device.
    #[command(flatten)]
    pub device: DeviceArgs,
}

impl NetworkArgs {
    /// The network on the machine that the flags name.
    pub fn predictor(&self, finished: &Finished) -> Result<Predictor> {
        let machine = self.device.machine(self.precision.unwrap_or(finished.config.precision));
        Predictor::new(finished, Session::new(machine.backend()?))
    }
}

/// `metatape evaluate`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Other data need the classes of the run, by name, and samples of the same shape. A folder of images may be \
divided into train/, meta/ and test/, or hold the classes' folders itself.

Examples:
  metatape evaluate --run runs/a
  metatape evaluate --run runs/a --part meta --csv predictions.csv
  metatape evaluate --run runs/a --dataset folder --data-dir photos --image-size 32 --json"
)]
pub struct EvaluateArgs {
    /// Which network, and where.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Which part of the data: train (labels as they came, no noise put on), meta or test
    #[arg(long, value_name = "train|meta|test", default_value = "test", value_parser = set, help_heading = "Data")]
    pub part: Set,
    /// Evaluate on data of this kind [default: the run's]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub dataset: Option<DatasetKind>,
    /// Evaluate on the data in this folder or file [default: the run's own data]
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    pub data_dir: Option<PathBuf>,
    /// Resize images as in `metatape train` [default: as the run did]
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Data")]
    pub image_size: Option<usize>,
    /// The column of the labels in tables [default: the run's]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub label_column: Option<String>,
    /// Leave out images that cannot be read, and say which
    #[arg(long, help_heading = "Data")]
    pub skip_unreadable: bool,
    /// Write a row for each sample: sample, label, predicted, probability
    #[arg(long, value_name = "FILE.csv", help_heading = "Output")]
    pub csv: Option<PathBuf>,
    /// Overwrite that file if it exists
    #[arg(long, requires = "csv", help_heading = "Output")]
    pub force: bool,
    /// Print JSON instead of tables
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

fn set(name: &str) -> Result<Set> {
    let sets = [("train", Set::Train), ("meta", Set::Meta), ("test", Set::Test)];
    let found = sets.into_iter().find(|set| set.0 == name).map(|set| set.1);
    found.ok_or_else(|| Error::Usage(format!("`{name}` is none of train, meta, test")))
}

/// Evaluates and reports.
pub fn run(args: &EvaluateArgs) -> Result<()> {
    if let Some(path) = &args.csv {
        check_free("--csv", path, args.force)?;
    }
    let mut finished = Finished::read(&args.network.run)?;
    finished.config.threads = args.network.device.threads;
    let (dataset, of) = match reading(args, &finished) {
        None => finished.own(args.part)?,
        Some(reading) => finished.other(&reading, args.part)?,
    };
    let mut predictor = args.network.predictor(&finished)?;
    let seen = predictor.see(&dataset, &of)?;
    let card = &finished.file.card;
    let scores = Scores::of(&seen, &of.labels, &card.classes);
    if let Some(path) = &args.csv {
        check_free("--csv", path, args.force)?;
        write(path, &dataset, &of, &seen.logits)?;
    }
    let part = format!("{:?}", args.part).to_lowercase();
    dataset.remarks.iter().for_each(complain);
    if args.json {
        let mut json = serde_json::to_value(&scores).map_err(|e| Error::Program(e.to_string()))?;
        json["model"] = json!(card.model);
        json["method"] = json!(card.method);
        json["note"] = json!(card.note);
        json["data"] = json!(dataset.name);
        json["part"] = json!(part);
        return print_json(&json);
    }
    let note = card.note.as_ref().map_or(String::new(), |note| format!(" ({note})"));
    print(format_args!("{} trained with {}{note}, on {} ({part})\n", card.model, card.method, dataset.name))?;
    print(report(&scores))
}

/// The data that flags name; `None` for the run's own.
fn reading(args: &EvaluateArgs, finished: &Finished) -> Option<Reading> {
    let own = finished.config.reading();
    let EvaluateArgs { dataset, data_dir, image_size, label_column, .. } = args;
    let named = dataset.is_some() || data_dir.is_some() || image_size.is_some() || label_column.is_some();
    let same = dataset.is_none_or(|kind| kind == own.kind);
    (named || args.skip_unreadable).then(|| Reading {
        kind: dataset.unwrap_or(own.kind),
        dir: data_dir.clone().or(own.dir.filter(|_| same)),
        image_size: image_size.or(own.image_size.filter(|_| same)),
        skip_unreadable: args.skip_unreadable || own.skip_unreadable && same,
        label_column: match label_column {
            Some(column) => column.clone(),
            None if same => own.label_column,
            None => Reading::default().label_column,
        },
        ..Reading::default()
    })
}

fn report(scores: &Scores) -> String {
    let percent = |value: Option<f64>| optional(value, |v| format!("{v:.2}%"));
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let head = table(&[
        row("samples", scores.samples.to_string()),
        row("accuracy", percent(Some(scores.accuracy))),
        row("balanced accuracy", percent(Some(scores.balanced_accuracy))),
        row("mean loss", number(scores.loss, 4)),
    ]);
    let mut rows =
        vec![["class", "samples", "accuracy", "precision", "mostly mistaken for"].map(String::from).to_vec()];
    for (at, class) in scores.classes.iter().enumerate() {
        let others = scores.confusion[at].iter().enumerate().filter(|(to, n)| *to != at && **n > 0);
        // Of equal ones the first.
        let worst = others.rev().max_by_key(|(_, n)| **n);
        let worst = optional(worst, |(to, n)| format!("{} ({n})", scores.classes[to].name));
        rows.push(vec![
            class.name.clone(),
            class.samples.to_string(),
            percent(class.accuracy),
            percent(class.precision),
            worst,
        ]);
    }
    let mut text = format!("{head}\n\n{}", table(&rows));
    const WIDEST: usize = 20;
    if scores.classes.len() > WIDEST {
        return text + "\n\nthe confusion matrix is in --json";
    }
    // Columns by number: names are too wide.
    let numbers = (0..scores.classes.len()).map(|class| class.to_string());
    let mut rows = vec![std::iter::once("class / taken for".to_owned()).chain(numbers).collect()];
    for (at, (class, counts)) in scores.classes.iter().zip(&scores.confusion).enumerate() {
        let counts = counts.iter().map(u32::to_string);
        rows.push(std::iter::once(format!("{at} {}", class.name)).chain(counts).collect());
    }
    text.push_str(&format!("\n\n{}", table(&rows)));
    text
}

fn write(path: &Path, data: &Dataset, of: &Labelled, logits: &[f64]) -> Result<()> {
    let names = &data.class_names;
    let samples = of.indices.iter().zip(&of.labels).zip(logits.chunks(names.len()));
    let rows = samples.map(|((index, label), logits)| {
        let top = argmax(logits);
        (data.sample_name(*index), &names[*label as usize], &names[top], softmax(logits)[top])
    });
    write_atomically(path, &csv_text(&["sample", "label", "predicted", "probability"], rows)?)
}
