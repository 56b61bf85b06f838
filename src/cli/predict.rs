//! `metatape predict`: what a run's network takes files for.

use std::path::{Path, PathBuf};

use clap::Args;
use metatape::data::Loose;
use metatape::meta::schemes::{argmax, softmax};
use metatape::train::{Finished, csv_text, write_atomically};
use metatape::words::{counted, visible};
use metatape::{Error, Result};
use serde_json::{Value, json};

use super::dump::check_free;
use super::evaluate::NetworkArgs;
use super::report::{complain, print, print_json, table_left};

/// `metatape predict`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Images are read as in training, with the run's --image-size. Arrays (.npy, [n, ...]) and, for features, \
tables (.csv with a heading) give a row for each sample, as in table.csv[0].

Examples:
  metatape predict --run runs/a photo.jpg more-photos/
  metatape predict --run runs/a photos --csv - --skip-unreadable
  metatape predict --run runs/a photos --json"
)]
pub struct PredictArgs {
    /// Files, and folders of images
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Files that cannot be read are named and left out, and are no failure
    #[arg(long)]
    pub skip_unreadable: bool,
    /// Which network, and where.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Write path, class, probability and every class' probability to this file, or to standard
    /// output (-) in the place of the table
    #[arg(long, value_name = "FILE.csv|-", help_heading = "Output")]
    pub csv: Option<PathBuf>,
    /// Overwrite that file if it exists
    #[arg(long, requires = "csv", help_heading = "Output")]
    pub force: bool,
    /// Print JSON instead of a table, with all probabilities and logits
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// Files are read so many at a time.
const AT_ONCE: usize = 1000;

/// A sample's name and logits.
type Row = (String, Vec<f64>);

/// Predicts and reports.
pub fn run(args: &PredictArgs) -> Result<()> {
    let dash = args.csv.as_deref() == Some(Path::new("-"));
    if dash && args.json {
        return Err(Error::Usage("--csv - and --json both want standard output; leave one out".into()));
    }
    if let Some(path) = args.csv.as_ref().filter(|_| !dash) {
        check_free("--csv", path, args.force)?;
    }
    let finished = Finished::read(&args.network.run)?;
    let (config, classes) = (&finished.config, &finished.file.card.classes);
    let loose = Loose {
        shape: finished.file.input(),
        image_size: config.image_size,
        label_column: config.label_column.clone(),
        columns: finished.file.card.columns.clone(),
        threads: args.network.device.threads,
    };
    let mut predictor = args.network.predictor(&finished)?;
    let (mut faults, mut rows) = (Vec::new(), Vec::<Row>::new());
    let (files, remarks) = loose.files(&args.paths, &mut faults);
    remarks.iter().for_each(complain);
    for files in files.chunks(AT_ONCE) {
        let Some(table) = loose.read(files, &mut faults)? else { continue };
        let names = table.names.clone();
        let logits = predictor.logits(&finished, table)?;
        rows.extend(names.into_iter().zip(logits.chunks(classes.len()).map(<[f64]>::to_vec)));
    }
    for fault in &faults {
        complain(format_args!("metatape: {fault}"));
    }
    if let Some(path) = &args.csv {
        let text = csv(&rows, classes)?;
        match dash {
            true => print(text.trim_end())?,
            false => {
                check_free("--csv", path, args.force)?;
                write_atomically(path, text.as_bytes())?;
            }
        }
    }
    match (args.json, dash) {
        (true, _) => print_json(&json(&finished, &rows))?,
        (false, true) => {}
        (false, false) if rows.is_empty() => {}
        (false, false) => print(shown(&rows, classes))?,
    }
    if rows.is_empty() {
        return Err(Error::Data("there is no sample to predict; name files that can be read".into()));
    }
    match (faults.len(), args.skip_unreadable) {
        (0, _) | (_, true) => Ok(()),
        (n, false) => Err(Error::Data(format!(
            "{} could not be read; the others are predicted (--skip-unreadable makes that a success)",
            counted(n, "path")
        ))),
    }
}

fn shown(rows: &[Row], classes: &[String]) -> String {
    let mut lines = vec![["path", "class", "probability"].map(String::from).to_vec()];
    for (name, logits) in rows {
        let top = argmax(logits);
        lines.push(vec![visible(name), classes[top].clone(), format!("{:.4}", softmax(logits)[top])]);
    }
    table_left(&lines, &[0, 1])
}

fn json(finished: &Finished, rows: &[Row]) -> Value {
    let card = &finished.file.card;
    let row = |(path, logits): &Row| {
        let (top, probabilities) = (argmax(logits), softmax(logits));
        json!({
            "path": path,
            "class": card.classes[top],
            "probability": probabilities[top],
            "probabilities": probabilities,
            "logits": logits,
        })
    };
    let rows: Vec<Value> = rows.iter().map(row).collect();
    json!({ "model": card.model, "note": card.note, "classes": card.classes, "predictions": rows })
}

fn csv(rows: &[Row], classes: &[String]) -> Result<String> {
    let own = ["path", "class", "probability"].into_iter();
    let heading: Vec<&str> = own.chain(classes.iter().map(String::as_str)).collect();
    let rows = rows.iter().map(|(name, logits)| {
        let (top, all) = (argmax(logits), softmax(logits));
        (name, &classes[top], all[top], all)
    });
    let bytes = csv_text(&heading, rows)?;
    String::from_utf8(bytes).map_err(|e| Error::Program(format!("the table is no text: {e}")))
}
