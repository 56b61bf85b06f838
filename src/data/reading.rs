use std::path::{Path, PathBuf};

use super::{Dataset, DatasetKind, Table, arrays, cifar, folder, idx, labels, table};
use crate::meta::schemes::Set;
use crate::tape::Shape;
use crate::{Error, Result};

/// What to read, and how: all of it as it is, nothing is corrupted here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reading {
    /// Which kind of data.
    pub kind: DatasetKind,
    /// Where they lie; nowhere where they are built in. Of [`DatasetKind::Csv`] also one file.
    pub dir: Option<PathBuf>,
    /// A folder of samples with clean labels, for the meta set.
    pub meta_dir: Option<PathBuf>,
    /// Training samples set apart for the test, where there is no test set.
    pub test_size: Option<usize>,
    /// Sides of the square that images are resized to and cropped from their middle.
    pub image_size: Option<usize>,
    /// Whether images that cannot be read are left out.
    pub skip_unreadable: bool,
    /// A file of labels that training is given in place of the set's own, which are the truth then.
    pub train_labels: Option<PathBuf>,
    /// The column of the labels in tables.
    pub label_column: String,
    /// Threads that decode images; none: as many as the machine has.
    pub threads: Option<usize>,
}

impl Default for Reading {
    fn default() -> Reading {
        Reading {
            kind: DatasetKind::FashionMnistMini,
            dir: None,
            meta_dir: None,
            test_size: None,
            image_size: None,
            skip_unreadable: false,
            train_labels: None,
            label_column: "label".into(),
            threads: None,
        }
    }
}

/// The parts of a data set as a reader finds them.
pub(super) struct Tables {
    pub name: String,
    pub train: Table,
    pub meta: Option<Table>,
    pub test: Option<Table>,
    pub class_names: Vec<String>,
    /// Mean and deviation that are the field's, not the images'.
    pub statistics: Option<(Vec<f64>, Vec<f64>)>,
    pub coarse: Option<Vec<i32>>,
    pub remarks: Vec<String>,
}

impl Tables {
    /// Without a meta set, and nothing special.
    pub fn new(
        name: impl Into<String>,
        train: Table,
        test: Option<Table>,
        class_names: Vec<String>,
    ) -> Tables {
        let (meta, statistics, coarse) = (None, None, None);
        Tables { name: name.into(), train, meta, test, class_names, statistics, coarse, remarks: Vec::new() }
    }
}

impl Reading {
    /// Reads the data set into memory.
    ///
    /// Mean and deviation are computed from the training samples, except for CIFAR-10 and
    /// CIFAR-100, which get the constants that the published code uses for both. Colour images get
    /// reflect-padding by 4, random crops and flips.
    ///
    /// # Errors
    /// [`Error::Usage`] if `dir` is missing where the kind needs it, or given where it does not,
    /// and for an option that the kind has no use for; [`Error::Data`], [`Error::Format`] or
    /// [`Error::Io`] for what is wrong with the files.
    pub fn load(&self) -> Result<Dataset> {
        let (dir, kind) = (self.dir()?, self.kind);
        self.check()?;
        let mut tables = self.tables(dir)?;
        if let Some(meta_dir) = &self.meta_dir {
            let Table { shape, columns, .. } = &tables.train;
            let names = &tables.class_names;
            let (meta, remarks) = match kind {
                DatasetKind::Arrays => (arrays::meta(meta_dir)?, Vec::new()),
                DatasetKind::Csv => (table::part(self, meta_dir, "meta", [names, columns])?, Vec::new()),
                _ => folder::meta(self, meta_dir, shape, names)?,
            };
            tables.meta = Some(meta);
            tables.remarks.extend(remarks);
        }
        let Tables { name, train, meta, test, class_names, statistics, coarse, remarks } = tables;
        let mut dataset = match (test, self.test_size) {
            (Some(test), None) => Dataset::new(name, [train, test], class_names, statistics)?,
            (None, Some(size)) => Dataset::with_test_split(name, train, size, class_names)?,
            (Some(test), Some(_)) => {
                let name = test.name;
                return Err(Error::Usage(format!(
                    "--test-size is for data without a test set; here is the {name}"
                )));
            }
            (None, None) => {
                return Err(Error::Data(format!(
                    "{} has no test set: --dataset {kind} expects {}; put one there, or give --test-size N to set N of the \
                     training samples apart",
                    dir.display(),
                    kind.expected_files().unwrap_or_default()
                )));
            }
        };
        dataset.coarse = coarse;
        dataset.remarks = remarks;
        if let Some(meta) = meta {
            dataset = dataset.with_meta(meta)?;
        }
        if let Some(path) = &self.train_labels {
            labels::put(path, &mut dataset)?;
        }
        Ok(dataset)
    }

    fn tables(&self, dir: &Path) -> Result<Tables> {
        match self.kind {
            DatasetKind::FashionMnistMini => idx::embedded(),
            DatasetKind::Mnist | DatasetKind::FashionMnist => idx::load(self.kind, dir),
            DatasetKind::Cifar10 => cifar::load10(dir),
            DatasetKind::Cifar100 => cifar::load100(dir),
            DatasetKind::Folder => folder::load(self, dir),
            DatasetKind::Arrays => arrays::load(dir),
            DatasetKind::Csv => table::load(self, dir),
        }
    }

    /// Reads one part alone, for a network that was trained on samples of this shape, with these
    /// classes and columns ([`Dataset::columns`]): labels are matched to them by name. Folders,
    /// arrays and tables need have no other part; a folder without parts is taken as a whole. Also
    /// what there is to say about it.
    ///
    /// # Errors
    /// As [`Reading::load`]; [`Error::Data`] for a class that is none of `names`.
    pub fn part(
        &self,
        set: Set,
        shape: &Shape,
        [names, columns]: [&[String]; 2],
    ) -> Result<(Table, Vec<String>)> {
        let (dir, kind) = (self.dir()?, self.kind);
        self.check()?;
        let which = match set {
            Set::Train => "train",
            Set::Meta => "meta",
            Set::Test => "test",
        };
        let lacking = || Error::Data(format!("{} of --dataset {kind} has no {which} set", dir.display()));
        let (mut table, own, remarks) = match kind {
            DatasetKind::Folder => return folder::part(self, dir, set, shape, names),
            DatasetKind::Csv => return Ok((table::part(self, dir, which, [names, columns])?, Vec::new())),
            DatasetKind::Arrays => {
                let table = arrays::one(dir, which)?.ok_or_else(lacking)?;
                let classes = table.labels.iter().map(|label| label + 1).max().unwrap_or(0);
                (table, (0..classes).map(|class| class.to_string()).collect(), Vec::new())
            }
            _ => {
                let Tables { train, meta, test, class_names, remarks, .. } = self.tables(dir)?;
                let [train, meta, test] = [Some(train), meta, test];
                let table = match set {
                    Set::Train => train,
                    Set::Meta => meta,
                    Set::Test => test,
                };
                (table.ok_or_else(lacking)?, class_names, remarks)
            }
        };
        for label in &mut table.labels {
            let name = own.get(*label as usize).map_or("?", String::as_str);
            let place = names.iter().position(|known| known == name);
            *label = place.ok_or_else(|| unknown(&table.name, name, names))? as i32;
        }
        Ok((table, remarks))
    }

    /// The folder, if the kind has one.
    fn dir(&self) -> Result<&Path> {
        let kind = self.kind;
        match (&self.dir, kind.expected_files()) {
            (Some(dir), None) => Err(Error::Usage(format!(
                "--data-dir {} is of no use to --dataset {kind}, which is part of this program: \
                 name the data set that the folder holds, or leave --data-dir out",
                dir.display()
            ))),
            (None, Some(files)) => {
                Err(Error::Usage(format!("--dataset {kind} needs --data-dir, a folder with {files}")))
            }
            (Some(file), Some(_)) if kind == DatasetKind::Csv && file.is_file() => Ok(file),
            (Some(dir), Some(files)) if !dir.is_dir() => {
                Err(Error::Data(format!("{} is not a folder: expected one with {files}", dir.display())))
            }
            (dir, _) => Ok(dir.as_deref().unwrap_or(Path::new(""))),
        }
    }

    /// Options that mean nothing to the kind.
    fn check(&self) -> Result<()> {
        let kind = self.kind;
        let images = kind == DatasetKind::Folder
            || self.meta_dir.is_some() && !matches!(kind, DatasetKind::Arrays | DatasetKind::Csv);
        let useless = [
            (self.image_size.is_some() && !images, "--image-size"),
            (self.skip_unreadable && !images, "--skip-unreadable"),
            (self.label_column != "label" && kind != DatasetKind::Csv, "--label-column"),
        ];
        match useless.iter().find(|option| option.0) {
            Some((_, flag)) => {
                Err(Error::Usage(format!("{flag} is of no use to --dataset {kind}; leave it out")))
            }
            None => Ok(()),
        }
    }
}

/// The error of a class that a network does not know.
pub(super) fn unknown(what: &str, class: &str, names: &[String]) -> Error {
    let shown: Vec<&str> = names.iter().take(10).map(String::as_str).collect();
    let more = if names.len() > shown.len() { ", …" } else { "" };
    let shown = shown.join(", ");
    Error::Data(format!("{what}: the class `{class}` is none of those trained on, which are {shown}{more}"))
}

/// Classes by the labels that training samples have: in the order of numbers if all are whole
/// numbers, else of names.
pub(super) fn classes<'a>(labels: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut names: Vec<String> = labels.cloned().collect();
    names.sort();
    names.dedup();
    if names.iter().all(|name| name.parse::<u64>().is_ok()) {
        names.sort_by_key(|name| name.parse::<u64>().unwrap_or_default());
    }
    names
}
