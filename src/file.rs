//! Files that are read, all of them here. A pipe, a socket or a device may never end, or never
//! begin, so each is refused before it is opened; what does not fit into memory is refused before
//! it is read.

use std::fs::{File, metadata};
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::room;

/// Whether something has this name, if only a link to nothing: what cannot be read is an error, and
/// not taken for what is not there.
pub fn named(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Opens a file to read it from its beginning.
///
/// # Errors
/// [`Error::Io`] with the verb phrase `action`; [`Error::Data`] for what is no file.
pub fn open(path: &Path, action: &'static str) -> Result<File> {
    let kind = metadata(path).map_err(Error::io(path, action))?;
    if !kind.is_file() && !kind.is_dir() {
        return Err(Error::Data(format!(
            "{}: cannot {action}: it is a pipe, a socket or a device; save its content as a file",
            path.display()
        )));
    }
    File::open(path).map_err(Error::io(path, action))
}

/// All of a file.
///
/// # Errors
/// As [`open`], and if reading fails.
pub fn read(path: &Path, action: &'static str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fitting(path, action)?.read_to_end(&mut bytes).map_err(Error::io(path, action))?;
    Ok(bytes)
}

/// All of a file of text.
///
/// # Errors
/// As [`read`], and if it is no UTF-8.
pub fn read_text(path: &Path, action: &'static str) -> Result<String> {
    let mut text = String::new();
    fitting(path, action)?.read_to_string(&mut text).map_err(Error::io(path, action))?;
    Ok(text)
}

/// As [`open`], if there is memory for all of it.
fn fitting(path: &Path, action: &'static str) -> Result<File> {
    let file = open(path, action)?;
    let length = file.metadata().map_err(Error::io(path, action))?.len();
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    room::check(length, &format!("reading {}", path.display()), "name a smaller file")?;
    Ok(file)
}
