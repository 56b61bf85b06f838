//! Compiled kernels on disk, by the hash of everything that they were made from.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use crate::file;

/// Compiled kernels in a folder.
pub(super) struct Cache {
    /// `None` where there is no place for it.
    folder: Option<PathBuf>,
}

impl Cache {
    /// This machine's user's: in `METATAPE_CACHE_DIR`, or else in the user's cache folder:
    /// `$XDG_CACHE_HOME/metatape` or `~/.cache/metatape`.
    pub fn new() -> Cache {
        let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let xdg = || variable("XDG_CACHE_HOME").map(|p| p.join("metatape"));
        let home = || variable("HOME").map(|p| p.join(".cache").join("metatape"));
        Cache { folder: variable("METATAPE_CACHE_DIR").or_else(xdg).or_else(home) }
    }

    /// In a given folder.
    pub fn in_folder(folder: &Path) -> Cache {
        Cache { folder: Some(folder.to_path_buf()) }
    }

    /// Whether there is a place for it.
    pub fn has_place(&self) -> bool {
        self.folder.is_some()
    }

    /// Whether something was stored for these parts, whole or not.
    pub fn has(&self, parts: &[&[u8]]) -> bool {
        self.folder.as_ref().is_some_and(|folder| folder.join(name(parts)).is_file())
    }

    /// What was stored for these parts, if anything was and all of it is there: the driver is told
    /// no length, so a file that was cut off must not reach it.
    pub fn find(&self, parts: &[&[u8]]) -> Option<Vec<u8>> {
        let mut bytes = file::read(&self.folder.as_ref()?.join(name(parts)), "read").ok()?;
        let content = bytes.split_off(bytes.len().min(SUM));
        (bytes == Sha256::digest(&content).as_slice()).then_some(content)
    }

    /// The file of these parts, if it is there and not as it was written.
    pub fn damaged(&self, parts: &[&[u8]]) -> Option<PathBuf> {
        let file = self.folder.as_ref()?.join(name(parts));
        (self.has(parts) && self.find(parts).is_none()).then_some(file)
    }

    /// Stores bytes for these parts, if there is a place: the old or the new content is there at
    /// any moment, whoever else writes.
    pub fn store(&self, parts: &[&[u8]], bytes: &[u8]) -> io::Result<()> {
        self.folder.as_ref().map_or(Ok(()), |folder| write(folder, &name(parts), bytes))
    }
}

/// Where it is.
impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.folder {
            Some(folder) => folder.display().fmt(f),
            None => f.write_str("none: METATAPE_CACHE_DIR and HOME are not set"),
        }
    }
}

/// Bytes of the hash of its content that a file begins with.
const SUM: usize = 32;

fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    // Threads of one process may be at the same kernels.
    static WRITES: AtomicU64 = AtomicU64::new(0);
    std::fs::create_dir_all(folder)?;
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let partial = folder.join(format!("{name}.{}.{number}.partial", std::process::id()));
    std::fs::write(&partial, [Sha256::digest(bytes).as_slice(), bytes].concat())
        .and_then(|()| std::fs::rename(&partial, folder.join(name)))
        .inspect_err(|_| drop(std::fs::remove_file(&partial)))
}

/// The file's name: a hash of all parts and of where each ends.
fn name(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let hex: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    format!("{hex}.cubin")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_found_by_the_same_parts_only() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { folder: Some(folder.path().join("new")) };
        assert_eq!(cache.find(&[b"ab", b"c"]), None);
        assert!(!cache.has(&[b"ab", b"c"]));
        cache.store(&[b"ab", b"c"], b"image").unwrap();
        assert_eq!(cache.find(&[b"ab", b"c"]).as_deref(), Some(&b"image"[..]));
        assert!(cache.has(&[b"ab", b"c"]) && !cache.has(&[b"a", b"bc"]));
        assert_eq!(cache.find(&[b"a", b"bc"]), None, "the border between the parts counts");
        cache.store(&[b"ab", b"c"], b"other").unwrap();
        assert_eq!((cache.damaged(&[b"ab", b"c"]), cache.damaged(&[b"a", b"bc"])), (None, None));
        assert_eq!(cache.find(&[b"ab", b"c"]).as_deref(), Some(&b"other"[..]));
        let file = folder.path().join("new").join(name(&[b"ab", b"c"]));
        let whole = std::fs::read(&file).unwrap();
        for damaged in
            [&whole[..whole.len() - 1], &whole[..SUM], &whole[..3], &[&whole[..], b"x"].concat(), b""]
        {
            std::fs::write(&file, damaged).unwrap();
            assert_eq!(cache.find(&[b"ab", b"c"]), None, "{damaged:?} is not whole");
            assert_eq!(cache.damaged(&[b"ab", b"c"]).as_ref(), Some(&file));
        }
        let files = std::fs::read_dir(folder.path().join("new")).unwrap().count();
        assert_eq!(files, 1, "nothing half written is left");
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_told_and_no_folder_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let cache = Cache { folder: Some(file) };
        cache.store(&[b"a"], b"image").unwrap_err();
        assert_eq!(cache.find(&[b"a"]), None);
        Cache { folder: None }.store(&[b"a"], b"image").unwrap();
    }
}
