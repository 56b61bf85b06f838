//! Tables of numbers, `.csv` with a heading: a column of labels, all others features.

use std::path::{Path, PathBuf};

use super::reading::{Reading, Tables, classes};
use super::{DatasetKind, Table, missing_file};
use crate::words::visible;
use crate::{Error, Result, file};

/// A file's rows.
struct Rows {
    path: PathBuf,
    /// Of the features.
    columns: Vec<String>,
    values: Vec<f64>,
    labels: Vec<String>,
    /// The right labels, where there is a column of them.
    clean: Option<Vec<String>>,
}

/// The column of right labels beside those that are given.
const CLEAN: &str = "clean_label";

/// Reads `train.csv`, `meta.csv` and `test.csv` of a folder, or one file.
pub(super) fn load(how: &Reading, dir: &Path) -> Result<Tables> {
    let path = |which: &str| Some(dir.join(format!("{which}.csv"))).filter(|path| file::named(path));
    let missing = || missing_file(DatasetKind::Csv, dir, "train.csv");
    let train = if dir.is_file() { dir.to_path_buf() } else { path("train").ok_or_else(missing)? };
    let train = rows(&train, &how.label_column, true)?;
    let names = classes(train.labels.iter());
    told_apart(&train.path, train.columns.len(), &train.values, &|at| {
        format!("column `{}`", train.columns[at])
    })?;
    let columns = train.columns.clone();
    let further =
        |which: &str| path(which).map(|path| other(how, &path, which, [&names, &columns])).transpose();
    let (meta, test) = (further("meta")?, further("test")?);
    let name = dir.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let train = table(train, "training", &names)?;
    Ok(Tables { meta, ..Tables::new(name, train, test, names) })
}

/// One part, for these classes and columns: a file, or the file of this name in a folder.
pub(super) fn part(how: &Reading, dir: &Path, which: &str, known: [&[String]; 2]) -> Result<Table> {
    let path = if dir.is_file() { dir.to_path_buf() } else { dir.join(format!("{which}.csv")) };
    other(how, &path, which, known)
}

/// The rows of a file without labels; if it has a column of them, that is passed over.
pub(super) fn unlabelled(path: &Path, label_column: &str, columns: &[String]) -> Result<(usize, Vec<f32>)> {
    let rows = rows(path, label_column, false)?;
    same(&rows, columns)?;
    Ok((rows.columns.len(), rows.values.into_iter().map(|value| value as f32).collect()))
}

fn other(how: &Reading, path: &Path, title: &str, [names, columns]: [&[String]; 2]) -> Result<Table> {
    let rows = rows(path, &how.label_column, true)?;
    same(&rows, columns)?;
    table(rows, title, names).map(Table::right)
}

/// Refuses columns that are not those of the training table, where they are known: as many others
/// would be taken for them.
fn same(rows: &Rows, columns: &[String]) -> Result<()> {
    let place = rows.columns.iter().zip(columns).position(|(own, known)| own != known);
    let (path, have, known) = (rows.path.display(), rows.columns.len(), columns.len());
    match place {
        Some(at) => Err(Error::Data(format!(
            "{path} has other columns than the training table: `{}` in the place of `{}`; give it the same, in \
             that order",
            rows.columns[at], columns[at]
        ))),
        None if known > 0 && have != known => Err(Error::Data(format!(
            "{path} has other columns than the training table: {have} features, not {known}"
        ))),
        None => Ok(()),
    }
}

fn table(rows: Rows, title: &str, names: &[String]) -> Result<Table> {
    let place = |label: &String| {
        let place = names.iter().position(|name| name == label).map(|place| place as i32);
        let unknown = || format!("{}: the class `{label}` has no training rows", rows.path.display());
        place.ok_or_else(|| Error::Data(unknown()))
    };
    let labels = rows.labels.iter().map(place).collect::<Result<_>>()?;
    let truth = rows.clean.iter().map(|clean| clean.iter().map(place).collect()).next().transpose()?;
    let name = format!("{title} set {}", rows.path.display());
    let values = rows.values.iter().map(|value| *value as f32).collect();
    let columns = rows.columns.clone();
    Ok(Table { columns, truth, ..Table::features(name, rows.columns.len(), values, labels) })
}

fn rows(path: &Path, label_column: &str, labelled: bool) -> Result<Rows> {
    let bad = |detail: String| Error::Data(format!("{}: {detail}", path.display()));
    let broken = |e: csv::Error| bad(e.to_string());
    let bytes = file::read(path, "read the table")?;
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(&bytes[..]);
    let heading: Vec<String> = reader.headers().map_err(broken)?.iter().map(visible).collect();
    if heading.is_empty() {
        return Err(bad("is empty".into()));
    }
    if let Some((_, twice)) = heading.iter().enumerate().find(|(i, name)| heading[..*i].contains(name)) {
        return Err(bad(format!("has two columns `{twice}`; rename one, or leave it out")));
    }
    let at = heading.iter().position(|column| column == label_column);
    let clean = heading.iter().position(|column| column == CLEAN).filter(|clean| Some(*clean) != at);
    if labelled && at.is_none() {
        let near = Error::nearest(label_column, heading.iter().map(String::as_str));
        let more = if heading.len() > 10 { ", …" } else { "" };
        let shown = heading[..heading.len().min(10)].join(", ");
        return Err(bad(format!(
            "has no column `{label_column}`{near}, but {shown}{more}; name that of the labels with --label-column"
        )));
    }
    let features = heading.iter().enumerate().filter(|column| ![at, clean].contains(&Some(column.0)));
    let columns: Vec<String> = features.map(|column| column.1.clone()).collect();
    if columns.is_empty() {
        return Err(bad("has no column besides the labels'".into()));
    }
    let (mut values, mut labels, mut right) = (Vec::new(), Vec::new(), Vec::new());
    for (row, record) in reader.records().enumerate() {
        let record = record.map_err(broken)?;
        for (column, field) in record.iter().enumerate() {
            if [at, clean].contains(&Some(column)) {
                if labelled && field.is_empty() {
                    let what = if Some(column) == at { "label" } else { CLEAN };
                    return Err(bad(format!("row {} has no {what}", row + 1)));
                }
                if Some(column) == at { &mut labels } else { &mut right }.push(visible(field));
                continue;
            }
            let value = field.parse::<f64>().ok().filter(|value| (*value as f32).is_finite());
            values.push(value.ok_or_else(|| {
                bad(format!(
                    "row {}, column `{}`: `{field}` is no finite number; encode it as numbers, or remove the column",
                    row + 1,
                    heading[column]
                ))
            })?);
        }
    }
    if values.is_empty() {
        return Err(bad("has no rows, only a heading; add some".into()));
    }
    Ok(Rows { path: path.to_path_buf(), columns, values, labels, clean: clean.map(|_| right) })
}

/// Refuses features `[n, d]` whose numbers differ by less than f32, in which all features are kept,
/// can tell: a time in seconds since 1970, say. `name` is what feature number so-and-so is called.
pub(super) fn told_apart(
    path: &Path,
    d: usize,
    values: &[f64],
    name: &dyn Fn(usize) -> String,
) -> Result<()> {
    let rows = (values.len() / d.max(1)) as f64;
    let mut means = vec![0.0; d];
    for row in values.chunks_exact(d.max(1)) {
        means.iter_mut().zip(row).for_each(|(mean, v)| *mean += v / rows);
    }
    // Squared deviation; what 32 bits lose at most; whether not all are the first one.
    let mut found = vec![(0.0, 0.0_f64, false); d];
    for row in values.chunks_exact(d.max(1)) {
        for (((square, lost, differ), v), (mean, first)) in
            found.iter_mut().zip(row).zip(means.iter().zip(values))
        {
            *square += (v - mean).powi(2) / rows;
            *lost = lost.max((v - f64::from(*v as f32)).abs());
            *differ |= v != first;
        }
    }
    for (at, ((square, lost, differ), mean)) in found.into_iter().zip(means).enumerate() {
        let deviation = square.sqrt();
        if differ && lost > deviation / 100.0 {
            return Err(Error::Data(format!(
                "{}: {} has numbers of {mean:.3e} on average that differ by {deviation:.1e}, less than 32-bit numbers can \
                 tell; subtract their mean from them",
                path.display(),
                name(at)
            )));
        }
    }
    Ok(())
}
