//! Which image files a folder has, and what they are labelled: by the folders they lie in, or by a
//! `metadata.csv`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::decode::ENDINGS;
use crate::words::counted;
use crate::{Error, Result};

/// An image file and its labels.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub path: PathBuf,
    /// As it is given.
    pub label: String,
    /// The right one, where it is known beside the one that is given.
    pub clean: Option<String>,
}

/// Files that are no images, by their endings.
#[derive(Default)]
pub(super) struct PassedOver(BTreeMap<String, usize>);

impl PassedOver {
    /// What there is to say about them.
    pub fn remark(&self, dir: &Path) -> Option<String> {
        let all: usize = self.0.values().sum();
        let kinds: Vec<String> = self.0.iter().map(|(ending, count)| format!("{count} {ending}")).collect();
        (all > 0).then(|| {
            format!("passed over {} in {}: {}", counted(all, "file"), dir.display(), kinds.join(", "))
        })
    }
}

/// The file that labels images.
const METADATA: &str = "metadata.csv";
/// Nested folders deeper than this go in a circle.
const DEEPEST: usize = 32;

/// The entries of the parts `train`, `meta` and `test` of a folder.
///
/// # Errors
/// For what is wrong with a `metadata.csv`, an empty class, and images that are in no class.
pub(super) fn parts(dir: &Path, over: &mut PassedOver) -> Result<[Vec<Entry>; 3]> {
    const PARTS: [&str; 3] = ["train", "meta", "test"];
    let mut parts = [const { Vec::new() }; 3];
    let metadata = dir.join(METADATA);
    if metadata.is_file() {
        for row in rows(&metadata)? {
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
        return Ok(parts);
    }
    for (part, name) in parts.iter_mut().zip(PARTS) {
        if dir.join(name).is_dir() {
            *part = entries(&dir.join(name), over)?;
        }
    }
    Ok(parts)
}

/// The entries of one folder: of its `metadata.csv`, or of its classes' folders.
///
/// # Errors
/// As [`parts`].
pub(super) fn entries(dir: &Path, over: &mut PassedOver) -> Result<Vec<Entry>> {
    let metadata = dir.join(METADATA);
    if metadata.is_file() {
        return Ok(rows(&metadata)?.into_iter().map(|row| row.entry(dir)).collect());
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
        walk(&path, &name.to_string_lossy(), DEEPEST, &mut all, over)?;
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

impl PassedOver {
    fn add(&mut self, name: &OsStr) {
        let ending = Path::new(name).extension();
        let ending = ending.map_or("without an ending".into(), |e| format!(".{}", e.to_string_lossy()));
        *self.0.entry(ending.to_lowercase()).or_default() += 1;
    }
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
        Entry { path: dir.join(&self.file_name), label: self.label, clean: self.clean_label }
    }
}

fn rows(path: &Path) -> Result<Vec<Row>> {
    let bad = |e: csv::Error| {
        Error::Data(format!(
            "{}: {e}; it needs the columns file_name and label, and may have clean_label and split",
            path.display()
        ))
    };
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).map_err(bad)?;
    let rows = reader.deserialize().collect::<std::result::Result<Vec<Row>, _>>().map_err(bad)?;
    match rows.iter().position(|row| row.label.is_empty()) {
        Some(row) => Err(Error::Data(format!("{}: row {} has no label", path.display(), row + 1))),
        None => Ok(rows),
    }
}
