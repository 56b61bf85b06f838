//! Folders of results: one process works in each, and each file is written whole or not at all.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// A folder that this process works in, until this is dropped: others are refused.
pub(super) struct Claim {
    /// The open folder, locked; `None` where the system locks no folders.
    _folder: Option<File>,
    /// Whether the folder was not there before.
    pub made: bool,
}

impl Claim {
    /// Makes the folder if it is not there, and takes it.
    ///
    /// # Errors
    /// [`Error::Usage`] if another process works in it; if it cannot be made.
    pub fn new(out: &Path) -> Result<Claim> {
        let made = !out.exists();
        std::fs::create_dir_all(out).map_err(|e| {
            Error::Data(format!("{}: cannot create the folder ({e}); give another --out", out.display()))
        })?;
        let Ok(folder) = File::open(out) else { return Ok(Claim { _folder: None, made }) };
        match folder.try_lock() {
            Ok(()) => Ok(Claim { _folder: Some(folder), made }),
            Err(TryLockError::WouldBlock) => Err(Error::Usage(format!(
                "another metatape is at work in {}; wait for its end, or give another --out",
                out.display()
            ))),
            Err(TryLockError::Error(_)) => Ok(Claim { _folder: None, made }),
        }
    }

    /// As [`Claim::new`], for new results: none of the files in `taken` may be there.
    ///
    /// # Errors
    /// [`Error::Usage`] if one is, naming it.
    pub fn fresh(out: &Path, taken: &[&str]) -> Result<Claim> {
        let claim = Claim::new(out)?;
        match taken.iter().find(|file| out.join(file).exists()) {
            None => Ok(claim),
            Some(file) => Err(Error::Usage(format!(
                "{} holds results already (it has {file}); continue them with --resume, or give another --out",
                out.display()
            ))),
        }
    }
}

/// Writes a file so that at any moment, a crash or a full disk included, the old or the new content
/// is there, never a part.
///
/// # Errors
/// If the system refuses.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Path::new(&partial);
    let mut file = File::create(partial).map_err(Error::io(partial, "create the file"))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| std::fs::rename(partial, path)) {
        // What is half written is of no use to anyone. If it cannot be removed either, the first
        // error is the one to tell of.
        let _ = std::fs::remove_file(partial);
        return Err(Error::io(path, "write the file")(error));
    }
    // The new name is on the disk when its folder is. Not every file system can be asked for that;
    // then it decides.
    if let Some(folder) = path.parent()
        && let Ok(folder) = File::open(folder)
    {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// Rows as the text of a CSV file, under a heading; an empty one where rows name their columns.
///
/// # Errors
/// For rows of different lengths.
pub fn csv_text(heading: &[&str], rows: impl IntoIterator<Item: Serialize>) -> Result<Vec<u8>> {
    let broken =
        |e: &dyn std::fmt::Display| Error::Program(format!("a CSV file cannot be put together: {e}"));
    let mut csv = csv::WriterBuilder::new().has_headers(heading.is_empty()).from_writer(Vec::new());
    if !heading.is_empty() {
        csv.write_record(heading).map_err(|e| broken(&e))?;
    }
    rows.into_iter().try_for_each(|row| csv.serialize(row)).map_err(|e| broken(&e))?;
    csv.into_inner().map_err(|e| broken(&e))
}

/// A configuration as the text of its file.
///
/// # Errors
/// If it has what TOML cannot hold: a path that is not UTF-8.
pub(super) fn to_toml(config: &impl Serialize) -> Result<String> {
    toml::to_string(config).map_err(|e| {
        Error::Usage(format!("the configuration cannot be written down ({e}); --data-dir must be UTF-8"))
    })
}

/// Reads a configuration.
///
/// # Errors
/// If the file cannot be read or understood.
pub(super) fn read_toml<C: DeserializeOwned>(path: &Path) -> Result<C> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
    toml::from_str(&text).map_err(|e| {
        let byte = e.span().map_or(0, |s| s.start as u64);
        let detail = format!("{}; mend it, or start anew in another --out", e.message().replace('\n', " "));
        Error::Format { path: path.to_path_buf(), byte, detail }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("a/b");
        let claim = Claim::fresh(&out, &["x"]).unwrap();
        // Locks are of open files, so a second one of this process is refused like another's.
        let refused = Claim::new(&out).err().unwrap().to_string();
        assert!(
            refused.starts_with("another metatape is at work in ") && refused.contains("b;"),
            "{refused}"
        );
        drop(claim);
        write_atomically(&out.join("x"), b"1").unwrap();
        drop(Claim::new(&out).unwrap());
        let refused = Claim::fresh(&out, &["y", "x"]).err().unwrap().to_string();
        assert!(refused.contains("it has x") && refused.contains("--resume"), "{refused}");
    }
}
