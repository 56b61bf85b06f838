//! Labels from a file of their own, in the place of those that a data set came with.

use std::collections::HashMap;
use std::path::Path;

use super::Dataset;
use super::arrays::{labels, npy, tensor};
use super::dataset::every_class;
use crate::words::{counted, visible};
use crate::{Error, Result, file};

/// Gives the training samples the labels of a file: `.npy`, `.safetensors` or `.txt` with one for
/// each, in order, or `.csv` with a column `label`, and maybe one of names, `file_name` or, as in a
/// run's `samples.csv`, `sample`. The set's own are the truth from then on.
pub(super) fn put(path: &Path, dataset: &mut Dataset) -> Result<()> {
    let bad = |detail: String| Error::Data(format!("{}: {detail}", path.display()));
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
    let of_array = |array| labels(&array).map_err(&bad);
    let given = match ending.as_str() {
        "npy" => of_array(npy(path)?)?,
        "safetensors" => of_array(tensor(path, None)?)?,
        "txt" => {
            let text = file::read_text(path, "read the labels")?;
            // Some editors mark their files so.
            let text = text.trim_start_matches('\u{feff}');
            let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            lines.into_iter().map(|line| label(line, dataset).map_err(&bad)).collect::<Result<_>>()?
        }
        "csv" => of_csv(path, dataset)?,
        _ => return Err(bad("labels are read from .npy, .safetensors, .csv and .txt files".into())),
    };
    let train = &mut dataset.train;
    if given.len() != train.len() {
        return Err(bad(format!(
            "has {}, and there are {}: one for each is needed, in their order",
            counted(given.len(), "label"),
            counted(train.len(), "training sample")
        )));
    }
    let classes = dataset.class_names.len();
    if let Some(at) = given.iter().position(|label| *label as usize >= classes) {
        return Err(bad(format!(
            "label {} of sample {at} is out of range: there are {classes} classes",
            given[at]
        )));
    }
    let own = std::mem::replace(&mut train.labels, given);
    train.truth.get_or_insert(own);
    train.name = format!("{} with the labels of {}", train.name, path.display());
    every_class(train, &dataset.class_names)
}

/// A class by its name, or by its number.
fn label(text: &str, dataset: &Dataset) -> std::result::Result<i32, String> {
    let names = &dataset.class_names;
    let named = names.iter().position(|name| *name == visible(text)).map(|place| place as i32);
    named
        .or_else(|| text.parse().ok().filter(|label| *label >= 0))
        .ok_or_else(|| format!("`{text}` is neither a class of {} nor a whole number from 0", dataset.name))
}

/// By name where there is such a column, else in order; without a heading, one column.
fn of_csv(path: &Path, dataset: &Dataset) -> Result<Vec<i32>> {
    let bad = |detail: String| Error::Data(format!("{}: {detail}", path.display()));
    let mut reader = csv::ReaderBuilder::new();
    let reader = reader.has_headers(false).trim(csv::Trim::All);
    let bytes = file::read(path, "read the labels")?;
    let mut reader = reader.from_reader(&bytes[..]);
    let records = reader.records().collect::<std::result::Result<Vec<_>, _>>();
    let mut records = records.map_err(|e| bad(e.to_string()))?;
    let heading = records.first().cloned().unwrap_or_default();
    let column = |name: &str| heading.iter().position(|column| column == name);
    let (labels, files) = (column("label"), column("file_name").or_else(|| column("sample")));
    match (labels, files, heading.len()) {
        (Some(_), Some(_), _) | (Some(_), None, 1) => drop(records.remove(0)),
        (None, _, 1) => {}
        (Some(_), None, _) => {
            return Err(bad(
                "has other columns beside `label`, and none of names: call theirs `file_name` or `sample`, \
                            or leave `label` alone, for labels in the samples' order"
                    .into(),
            ));
        }
        (None, ..) => return Err(bad("has no column `label`".into())),
    }
    let read = |row: &csv::StringRecord| {
        label(row.get(labels.unwrap_or(0)).unwrap_or_default(), dataset).map_err(&bad)
    };
    let Some(files) = files else { return records.iter().map(read).collect() };
    let mut by_name = HashMap::new();
    for row in &records {
        let name = visible(row.get(files).unwrap_or_default());
        if by_name.insert(name.clone(), read(row)?).is_some() {
            return Err(bad(format!("has two rows for {name}; leave one out")));
        }
    }
    let of = |index: &u32| {
        let name = dataset.sample_name(*index);
        let within = name.strip_prefix("train/").unwrap_or(&name);
        let found = by_name.get(&name).or_else(|| by_name.get(within)).copied();
        found.ok_or_else(|| bad(format!("has no row for {name}")))
    };
    dataset.train.indices.iter().map(of).collect()
}
