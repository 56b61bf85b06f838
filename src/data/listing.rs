//! Which image files a folder has, and what they are labelled: by the folders they lie in, or by a
//! `metadata.csv`.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::decode::ENDINGS;
use crate::words::{counted, visible};
use crate::{Error, Result, file};

/// An image file and its labels.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub path: PathBuf,
    /// As it is given.
    pub label: String,
    /// The right one, where it is known beside the one that is given.
    pub clean: Option<String>,
}

/// What is not read, so that nothing is left out without a word.
#[derive(Default)]
pub(super) struct PassedOver {
    /// Files that are no images, by their endings.
    files: BTreeMap<String, usize>,
    /// Folders that are no part of a data set.
    folders: Vec<String>,
    /// Files that a `metadata.csv` does not name.
    unnamed: usize,
}

impl PassedOver {
    /// What there is to say about them.
    pub fn remark(&self, dir: &Path) -> Option<String> {
        let all: usize = self.files.values().sum();
        let kinds: Vec<String> =
            self.files.iter().map(|(ending, count)| format!("{count} {ending}")).collect();
        let shown: Vec<&str> = self.folders.iter().take(10).map(String::as_str).collect();
        let more = if self.folders.len() > shown.len() { ", …" } else { "" };
        let folders = counted(self.folders.len(), "folder");
        let said = [
            (all > 0).then(|| format!("{}: {}", counted(all, "file"), kinds.join(", "))),
            (!shown.is_empty())
                .then(|| format!("{folders} beside train, meta and test: {}{more}", shown.join(", "))),
            (self.unnamed > 0)
                .then(|| format!("{} that {METADATA} does not name", counted(self.unnamed, "file"))),
        ];
        let said: Vec<String> = said.into_iter().flatten().collect();
        (!said.is_empty()).then(|| format!("passed over {} (in {})", said.join("; "), dir.display()))
    }

    fn add(&mut self, name: &OsStr) {
        let ending = Path::new(name).extension();
        let ending =
            ending.map_or("without an ending".into(), |e| format!(".{}", visible(&e.to_string_lossy())));
        *self.files.entry(ending.to_lowercase()).or_default() += 1;
    }

    /// What lies beside the parts of a data set.
    fn beside(&mut self, dir: &Path) -> Result<()> {
        for name in sorted_names(dir)?.iter().filter(|name| PARTS.iter().all(|part| *name != part)) {
            match dir.join(name).is_dir() {
                true => self.folders.push(visible(&name.to_string_lossy())),
                false => self.add(name),
            }
        }
        Ok(())
    }

    /// The files below a folder that its `metadata.csv`, which has these rows, does not name.
    fn unnamed(&mut self, dir: &Path, rows: &[Row]) -> Result<()> {
        let (mut all, mut others) = (Vec::new(), PassedOver::default());
        walk(dir, "", DEEPEST, &mut all, &mut others)?;
        // All but the table itself.
        self.unnamed += others.files.values().sum::<usize>().saturating_sub(1);
        let named: HashSet<PathBuf> = rows.iter().map(|row| plain(&dir.join(&row.file_name))).collect();
        self.unnamed += all.iter().filter(|entry| !named.contains(&plain(&entry.path))).count();
        Ok(())
    }
}

/// A path without the steps that go nowhere.
fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}

/// Refuses a file that is listed twice: with two labels, or in two parts.
fn once<'a>(entries: impl Iterator<Item = &'a Entry>) -> Result<()> {
    let mut seen = HashSet::new();
    for entry in entries {
        if !seen.insert(plain(&entry.path)) {
            let path = entry.path.display();
            return Err(Error::Data(format!("{path} is listed twice in {METADATA}; leave one row out")));
        }
    }
    Ok(())
}

/// The file that labels images.
const METADATA: &str = "metadata.csv";
/// The parts of a data set.
const PARTS: [&str; 3] = ["train", "meta", "test"];
/// Nested folders deeper than this go in a circle.
const DEEPEST: usize = 32;

/// The entries of the parts `train`, `meta` and `test` of a folder.
///
/// # Errors
/// For what is wrong with a `metadata.csv`, an empty class, and images that are in no class.
pub(super) fn parts(dir: &Path, over: &mut PassedOver) -> Result<[Vec<Entry>; 3]> {
    let mut parts = [const { Vec::new() }; 3];
    let metadata = dir.join(METADATA);
    if file::named(&metadata) {
        let rows = rows(&metadata)?;
        over.unnamed(dir, &rows)?;
        for row in rows {
            let part = match &row.split {
                Some(split) => PARTS.iter().position(|part| part == split).ok_or_else(|| {
                    Error::Data(format!(
                        "{}: split `{split}` is none of train, meta, test",
                        metadata.display()
                    ))
                })?,
                // By the folder that it lies in, else for training.
                None => {
                    let first = Path::new(&row.file_name).components().next();
                    let named = |part: &&str| first.is_some_and(|first| *first.as_os_str() == **part);
                    PARTS.iter().position(named).unwrap_or(0)
                }
            };
            parts[part].push(row.entry(dir));
        }
        once(parts.iter().flatten())?;
        return Ok(parts);
    }
    if PARTS.iter().any(|name| dir.join(name).is_dir()) {
        over.beside(dir)?;
    }
    for (part, name) in parts.iter_mut().zip(PARTS) {
        if dir.join(name).is_dir() {
            *part = entries(&dir.join(name), over)?;
        }
    }
    once(parts.iter().flatten())?;
    Ok(parts)
}

/// The entries of one folder: of its `metadata.csv`, or of its classes' folders.
///
/// # Errors
/// As [`parts`].
pub(super) fn entries(dir: &Path, over: &mut PassedOver) -> Result<Vec<Entry>> {
    let metadata = dir.join(METADATA);
    if file::named(&metadata) {
        let rows = rows(&metadata)?;
        over.unnamed(dir, &rows)?;
        let all: Vec<Entry> = rows.into_iter().map(|row| row.entry(dir)).collect();
        once(all.iter())?;
        return Ok(all);
    }
    let mut all = Vec::new();
    for name in sorted_names(dir)? {
        let path = dir.join(&name);
        if !path.is_dir() {
            if is_image(&name) {
                return Err(Error::Data(format!(
                    "{} is in no class: put it into a folder with the class' name, or label it in {}",
                    path.display(),
                    metadata.display()
                )));
            }
            over.add(&name);
            continue;
        }
        let before = all.len();
        walk(&path, &visible(&name.to_string_lossy()), DEEPEST, &mut all, over)?;
        if all.len() == before {
            return Err(Error::Data(format!(
                "{} is an empty class: it holds no image ({}); add images or remove the folder",
                path.display(),
                ENDINGS.map(|ending| format!(".{ending}")).join(", ")
            )));
        }
    }
    Ok(all)
}

/// All images below a folder, whatever their classes, in the order of their names; and what there
/// is to say about the rest.
pub(super) fn images(dir: &Path) -> Result<(Vec<PathBuf>, Option<String>)> {
    let (mut all, mut over) = (Vec::new(), PassedOver::default());
    walk(dir, "", DEEPEST, &mut all, &mut over)?;
    Ok((all.into_iter().map(|entry| entry.path).collect(), over.remark(dir)))
}

/// Appends the images below a folder, in the order of their names.
fn walk(dir: &Path, label: &str, deepest: usize, all: &mut Vec<Entry>, over: &mut PassedOver) -> Result<()> {
    if deepest == 0 {
        return Err(Error::Data(format!("{} is too deep: a link may lead in a circle", dir.display())));
    }
    for name in sorted_names(dir)? {
        let path = dir.join(&name);
        if path.is_dir() {
            walk(&path, label, deepest - 1, all, over)?;
        } else if is_image(&name) {
            all.push(Entry { path, label: label.to_owned(), clean: None });
        } else {
            over.add(&name);
        }
    }
    Ok(())
}

fn is_image(name: &OsStr) -> bool {
    let ending = Path::new(name).extension().map(OsStr::to_ascii_lowercase);
    ending.is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
}

/// All entries of a folder except hidden ones, sorted by name.
fn sorted_names(dir: &Path) -> Result<Vec<OsString>> {
    let entries = std::fs::read_dir(dir).map_err(Error::io(dir, "list the folder"))?;
    let names: std::io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.file_name())).collect();
    let mut names = names.map_err(Error::io(dir, "list the folder"))?;
    names.retain(|name| !name.as_encoded_bytes().starts_with(b"."));
    names.sort();
    Ok(names)
}

/// A row of `metadata.csv`.
#[derive(serde::Deserialize)]
struct Row {
    file_name: String,
    label: String,
    clean_label: Option<String>,
    split: Option<String>,
}

impl Row {
    fn entry(self, dir: &Path) -> Entry {
        let clean = self.clean_label.as_deref().map(visible);
        Entry { path: dir.join(&self.file_name), label: visible(&self.label), clean }
    }
}

fn rows(path: &Path) -> Result<Vec<Row>> {
    let bad = |e: csv::Error| {
        Error::Data(format!(
            "{}: {e}; it needs the columns file_name and label, and may have clean_label and split",
            path.display()
        ))
    };
    let bytes = file::read(path, "read the table")?;
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(&bytes[..]);
    let rows = reader.deserialize().collect::<std::result::Result<Vec<Row>, _>>().map_err(bad)?;
    match rows.iter().position(|row| row.label.is_empty()) {
        Some(row) => Err(Error::Data(format!("{}: row {} has no label", path.display(), row + 1))),
        None if rows.is_empty() => {
            Err(Error::Data(format!("{} has no rows; add some, or remove it", path.display())))
        }
        None => Ok(rows),
    }
}
