//! The folder of a command's results.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use metatape::{Error, Result};

/// Begins results in the folder that was given, or else in `runs/<date-name>`, with a number behind
/// it if that is taken.
pub fn in_folder<R>(given: Option<&Path>, name: &str, begin: impl FnOnce(&Path) -> Result<R>) -> Result<R> {
    let Some(out) = given else {
        let out = new_folder(name)?;
        // If nothing comes of it, neither is its folder left.
        return begin(&out).inspect_err(|_| drop(std::fs::remove_dir(&out)));
    };
    begin(out)
}

fn new_folder(name: &str) -> Result<PathBuf> {
    let runs = Path::new("runs");
    std::fs::create_dir_all(runs).map_err(|e| {
        Error::Data(format!("the folder runs cannot be made here ({e}); name another with --out"))
    })?;
    let date = jiff::ZonedDateTime::now().strftime("%Y-%m-%d-%H%M%S").to_string();
    let first = runs.join(format!("{date}-{name}"));
    let numbered = (2..).map(|i| runs.join(format!("{date}-{name}-{i}")));
    for out in std::iter::once(first).chain(numbered) {
        // Of several runs that begin in one second only one makes it.
        match std::fs::create_dir(&out) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(|()| out.clone()).map_err(Error::io(&out, "create the folder")),
        }
    }
    unreachable!("there is a number that is not taken")
}
