//! Compiled kernels on disk, by the hash of everything that they were made from.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

/// Compiled kernels of this machine's user.
pub(super) struct Cache {
    /// `None` where there is no place for it.
    folder: Option<PathBuf>,
}

impl Cache {
    /// In `METATAPE_CACHE_DIR`, or else in the user's cache folder: `$XDG_CACHE_HOME/metatape` or `~/.cache/metatape`.
    pub fn new() -> Cache {
        let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let xdg = || variable("XDG_CACHE_HOME").map(|p| p.join("metatape"));
        let home = || variable("HOME").map(|p| p.join(".cache").join("metatape"));
        Cache { folder: variable("METATAPE_CACHE_DIR").or_else(xdg).or_else(home) }
    }

    /// What was stored for these parts, if anything was and all of it is there: the driver is told no length, so a file that was cut off
    /// must not reach it.
    pub fn find(&self, parts: &[&[u8]]) -> Option<Vec<u8>> {
        let mut bytes = std::fs::read(self.folder.as_ref()?.join(name(parts))).ok()?;
        let content = bytes.split_off(bytes.len().min(SUM));
        (bytes == Sha256::digest(&content).as_slice()).then_some(content)
    }

    /// Stores bytes for these parts: the old or the new content is there at any moment, whoever else writes. A folder that
    /// cannot be written to costs a compilation at the next start, nothing else.
    pub fn store(&self, parts: &[&[u8]], bytes: &[u8]) {
        if let Some(folder) = &self.folder {
            let _ = write(folder, &name(parts), bytes);
        }
    }
}

/// Bytes of the hash of its content that a file begins with.
const SUM: usize = 32;

fn write(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
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
        cache.store(&[b"ab", b"c"], b"image");
        assert_eq!(cache.find(&[b"ab", b"c"]).as_deref(), Some(&b"image"[..]));
        assert_eq!(cache.find(&[b"a", b"bc"]), None, "the border between the parts counts");
        cache.store(&[b"ab", b"c"], b"other");
        assert_eq!(cache.find(&[b"ab", b"c"]).as_deref(), Some(&b"other"[..]));
        let file = folder.path().join("new").join(name(&[b"ab", b"c"]));
        let whole = std::fs::read(&file).unwrap();
        for damaged in
            [&whole[..whole.len() - 1], &whole[..SUM], &whole[..3], &[&whole[..], b"x"].concat(), b""]
        {
            std::fs::write(&file, damaged).unwrap();
            assert_eq!(cache.find(&[b"ab", b"c"]), None, "{damaged:?} is not whole");
        }
        let files = std::fs::read_dir(folder.path().join("new")).unwrap().count();
        assert_eq!(files, 1, "nothing half written is left");
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let cache = Cache { folder: Some(file) };
        cache.store(&[b"a"], b"image");
        assert_eq!(cache.find(&[b"a"]), None);
        Cache { folder: None }.store(&[b"a"], b"image");
    }
}
