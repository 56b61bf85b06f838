//! Folders of results: one process works in each, and each file is written whole or not at all.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::Path;

use serde::Serialize;

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

    /// As [`Claim::new`], for new results: nothing of what they will write may be there.
    ///
    /// # Errors
    /// [`Error::Usage`] if something is, naming it.
    pub fn fresh(out: &Path, files: &Outputs) -> Result<Claim> {
        let claim = Claim::new(out)?;
        match PLANS.into_iter().find(|plan| there(out, plan)) {
            Some(plan) => Err(Error::Usage(format!(
                "{} holds results already (it has {plan}); continue them with --resume, or give another --out",
                out.display()
            ))),
            None => foreign(out, files.first.iter().chain(&files.last)).map(|()| claim),
        }
    }

    /// As [`Claim::new`], for results that go on: what is written at the end is there only if its
    /// first file is.
    ///
    /// # Errors
    /// [`Error::Usage`] naming what may be another's.
    pub fn again(out: &Path, files: &Outputs) -> Result<Claim> {
        let claim = Claim::new(out)?;
        let found: Vec<&str> =
            files.last.iter().filter(|name| there(out, name)).map(String::as_str).collect();
        match (files.last.first(), found.len().saturating_sub(SHOWN)) {
            (Some(first), more) if !found.is_empty() && found[0] != first => Err(Error::Usage(format!(
                "{} has no {first}, but what is written behind it: {}{}; that may be another's, and would be overwritten; \
                 put {first} back, or move the rest away, and --resume writes all of it again",
                out.display(),
                found[..found.len().min(SHOWN)].join(", "),
                if more > 0 { format!(" and {more} more") } else { String::new() }
            ))),
            _ => Ok(claim),
        }
    }
}

/// So many files in the way are named.
const SHOWN: usize = 10;

/// The files that tell a folder of results.
const PLANS: [&str; 3] = ["config.toml", "compare.toml", "ablate.toml"];

/// All that a command writes into its folder.
pub(super) struct Outputs {
    /// While it is at work.
    pub first: Vec<String>,
    /// At its end, the first of them before all others.
    pub last: Vec<String>,
}

/// Whether a folder has something of this name, a link to nowhere included.
fn there(out: &Path, name: &str) -> bool {
    out.join(name).symlink_metadata().is_ok()
}

/// That a folder has none of these files: they would be overwritten.
///
/// # Errors
/// [`Error::Usage`] naming the first.
pub(super) fn foreign<'a>(out: &Path, names: impl IntoIterator<Item = &'a String>) -> Result<()> {
    match names.into_iter().find(|name| there(out, name)) {
        None => Ok(()),
        Some(name) => Err(Error::Usage(format!(
            "{} has a file {name} that is not of these results and would be overwritten; move it away, or give another --out",
            out.display()
        ))),
    }
}

/// Behind the name of a file that is not whole yet: ours by its name alone.
const PARTIAL: &str = ".metatape-partial";

/// Writes a file so that at any moment, a crash or a full disk included, the old or the new content
/// is there, never a part.
///
/// # Errors
/// If the system refuses.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(PARTIAL);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("a/b");
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let files = Outputs { first: names(&["config.toml", "x"]), last: names(&["end", "y"]) };
        let claim = Claim::fresh(&out, &files).unwrap();
        // Locks are of open files, so a second one of this process is refused like another's.
        let refused = Claim::new(&out).err().unwrap().to_string();
        assert!(
            refused.starts_with("another metatape is at work in ") && refused.contains("b;"),
            "{refused}"
        );
        drop(claim);
        let write = |name: &str| write_atomically(&out.join(name), b"1").unwrap();
        let refused = |claim: Result<Claim>| claim.err().unwrap().to_string();
        write("y");
        let fresh = refused(Claim::fresh(&out, &files));
        assert!(fresh.contains("b has a file y that is not of these results"), "{fresh}");
        let again = refused(Claim::again(&out, &files));
        assert!(again.contains("b has no end, but what is written behind it: y; that may be"), "{again}");
        // The end was begun: it is ours.
        write("end");
        drop(Claim::again(&out, &files).unwrap());
        write("config.toml");
        let refused = refused(Claim::fresh(&out, &files));
        assert!(refused.contains("it has config.toml") && refused.contains("--resume"), "{refused}");
    }
}
