//! Machine code of the files of `kernels/`: out of the cache, or compiled and put there.

use std::path::Path;

use rayon::prelude::*;

use super::cache::Cache;
use super::driver::Source;
use super::nvrtc::{Capability, Nvrtc, STANDARD};
use super::sources::{ALL, HEADERS};
use crate::error::{Error, Result};

/// Compiles files for one card, or takes what the cache has of an earlier compilation.
pub(super) struct Compiler {
    cache: Cache,
    card: Capability,
    /// Loads the compiler itself, which a machine whose cache has everything need not have.
    load: fn() -> Result<Nvrtc>,
}

impl Compiler {
    /// For a card.
    ///
    /// # Errors
    /// [`Error::Device`] if the cache has not everything and there is no NVRTC. Here, and not in
    /// the middle of a program: whoever asked for any device can still take another.
    pub fn new(card: Capability) -> Result<Compiler> {
        let compiler = Compiler { cache: Cache::new(), card, load: Nvrtc::load };
        compiler.ready()?;
        Ok(compiler)
    }

    fn ready(&self) -> Result<()> {
        match ALL.iter().find(|source| !self.has(source)) {
            Some(missing) => self.nvrtc(missing).map(drop),
            None => Ok(()),
        }
    }

    /// Machine code of a file, handed to `load`. Code from the cache that cannot be loaded is
    /// compiled anew.
    pub fn with_image<T>(&self, source: &Source, load: impl Fn(&[u8]) -> Result<T>) -> Result<T> {
        let key = self.key();
        let parts = parts(source, &key);
        if let Some(loaded) = self.cache.find(&parts).and_then(|image| load(&image).ok()) {
            return Ok(loaded);
        }
        let image = self.nvrtc(source)?.compile(source, self.card)?;
        let loaded = load(&image)?;
        // A folder that cannot be written to costs a compilation at the next start, nothing else.
        let _ = self.cache.store(&parts, &image);
        Ok(loaded)
    }

    /// Compiles those files that the cache has not into it, side by side. Without a cache there is
    /// nowhere to keep them.
    pub fn fill(&self, sources: &[&Source]) -> Result<()> {
        if !self.cache.has_place() {
            return Ok(());
        }
        let missing: Vec<_> = sources.iter().filter(|source| !self.has(source)).collect();
        let [first, _, ..] = missing[..] else { return Ok(()) };
        let (nvrtc, key) = (self.nvrtc(first)?, self.key());
        let one = |source: &&&Source| {
            let image = nvrtc.compile(source, self.card)?;
            let _ = self.cache.store(&parts(source, &key), &image);
            Ok(())
        };
        side_by_side(&missing, one).map(drop)
    }

    fn has(&self, source: &Source) -> bool {
        self.cache.has(&parts(source, &self.key()))
    }

    /// The compiler, for a file that the cache has not.
    fn nvrtc(&self, source: &Source) -> Result<Nvrtc> {
        let Capability(card) = self.card;
        let (what, models) = match ALL.iter().any(|s| s.name == source.name) {
            true => (format!("kernels/{}", source.name), ""),
            false => (format!("{}, which was written for this program", source.name), " --models MODEL"),
        };
        let damaged = self.cache.damaged(&parts(source, &self.key()));
        let damaged = damaged.map_or(String::new(), |file| format!(" ({} is damaged)", file.display()));
        (self.load)().map_err(|e| {
            Error::Device(format!(
                "{e}; it would have to compile {what}, of which the cache of kernels ({}) has nothing that this card can load{damaged}: `metatape \
                 kernels --arch sm_{card} --out DIR{models}` fills such a cache on any machine with NVRTC, and METATAPE_CACHE_DIR=DIR uses it",
                self.cache
            ))
        })
    }

    /// The card's part of the cache's keys.
    fn key(&self) -> [u8; 4] {
        self.card.0.to_le_bytes()
    }
}

/// What an image is kept under: all that decides what it computes. NVRTC's version is not among it,
/// so that a machine without NVRTC finds what another one has compiled.
fn parts<'a>(source: &'a Source, card: &'a [u8; 4]) -> Vec<&'a [u8]> {
    let mut parts = vec![source.name.as_bytes(), source.text.as_bytes(), card, STANDARD.as_bytes()];
    parts.extend(HEADERS.iter().map(|h| h.1.as_bytes()));
    parts
}

/// A file that [`compile_kernels`] has compiled.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Its name, as in `kernels/`.
    pub file: String,
    /// The cards' compute capability: 90 is 9.0.
    pub capability: i32,
    /// Of machine code.
    pub bytes: usize,
}

/// Compiles every file of `kernels/`, and others (those that [`super::written`] gives), for cards
/// of these compute capabilities (90 is 9.0) into a folder that `METATAPE_CACHE_DIR` may name on
/// machines without NVRTC; none of these cards need be here. What was compiled, and NVRTC's
/// version.
///
/// # Errors
/// [`Error::Device`] if there is no NVRTC or it does not know a card, [`Error::Io`] if the folder
/// cannot be written to.
pub fn compile_kernels(
    folder: &Path,
    capabilities: &[i32],
    others: &[Source],
) -> Result<(Vec<Compiled>, String)> {
    let (nvrtc, cache) = (Nvrtc::load()?, Cache::in_folder(folder));
    capabilities.iter().try_for_each(|c| nvrtc.knows(Capability(*c)))?;
    let sources = ALL.iter().copied().chain(others);
    let jobs = sources.flat_map(|source| capabilities.iter().map(move |c| (source, *c)));
    let compile = |&(source, capability): &(&Source, i32)| {
        let image = nvrtc.compile(source, Capability(capability))?;
        let stored = cache.store(&parts(source, &capability.to_le_bytes()), &image);
        stored.map_err(Error::io(folder, "write compiled kernels to"))?;
        Ok(Compiled { file: source.name.to_string(), capability, bytes: image.len() })
    };
    let compiled = side_by_side(&jobs.collect::<Vec<_>>(), compile)?;
    Ok((compiled, nvrtc.version))
}

/// Does something with each, on a pool of its own.
///
/// # Errors
/// The first of them, and [`Error::Device`] if the system refuses the threads.
fn side_by_side<T: Sync, R: Send>(all: &[T], one: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let pool = rayon::ThreadPoolBuilder::new().build();
    let pool = pool.map_err(|e| Error::Device(format!("no threads to compile kernels with: {e}")))?;
    #[expect(clippy::disallowed_methods, reason = "on the pool that is started here")]
    pool.install(|| all.par_iter().map(&one).collect())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// On a machine without NVRTC.
    fn without_nvrtc(folder: &Path, card: i32) -> Compiler {
        let load = || Err(Error::Device("there is no libnvrtc".into()));
        Compiler { cache: Cache::in_folder(folder), card: Capability(card), load }
    }

    /// That a filled folder is all that is needed for one card, and of no use for another.
    fn hold_without_nvrtc(folder: &Path, card: i32, other: i32) {
        let compiler = without_nvrtc(folder, card);
        compiler.ready().unwrap();
        for source in ALL {
            let images = RefCell::new(Vec::new());
            let load = |image: &[u8]| {
                images.borrow_mut().push(image.to_vec());
                Ok(())
            };
            compiler.with_image(source, load).unwrap_or_else(|e| panic!("{}: {e}", source.name));
            assert_eq!(images.borrow().len(), 1, "{}", source.name);
            let error = compiler.with_image(source, |_| -> Result<()> { Err(Error::Device("no".into())) });
            let error = error.unwrap_err().to_string();
            assert!(error.contains(&*source.name) && error.contains("libnvrtc"), "{error}");
        }
        let compiler = without_nvrtc(folder, other);
        let ready = compiler.ready().unwrap_err().to_string();
        let later = compiler.with_image(ALL[0], |_| Ok(())).unwrap_err().to_string();
        for text in ["libnvrtc", &format!("--arch sm_{other} "), &folder.display().to_string()] {
            assert!(ready.contains(text) && later.contains(text), "{text}: {ready}, {later}");
        }
    }

    #[test]
    fn a_filled_cache_needs_no_nvrtc() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::in_folder(folder.path());
        for source in ALL {
            assert!(without_nvrtc(folder.path(), 90).ready().is_err(), "{} is not there yet", source.name);
            cache.store(&parts(source, &90_i32.to_le_bytes()), source.name.as_bytes()).unwrap();
        }
        hold_without_nvrtc(folder.path(), 90, 80);
        // What is damaged is named, and never loaded.
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let path = file.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(path, bytes).unwrap();
        }
        let error = without_nvrtc(folder.path(), 90).with_image(ALL[0], |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains(".cubin is damaged"), "{error}");
        // Another text is another file.
        let changed = Source { text: "// nothing".into(), ..ALL[0].clone() };
        assert!(without_nvrtc(folder.path(), 90).with_image(&changed, |_| Ok(())).is_err());
    }

    #[test]
    #[ignore = "needs NVRTC; .ci/run has it"]
    fn nvrtc_fills_a_cache_that_needs_no_nvrtc() {
        let folder = tempfile::tempdir().unwrap();
        let (compiled, version) = compile_kernels(folder.path(), &[90], &[]).unwrap();
        assert_eq!(compiled.len(), ALL.len());
        assert!(compiled.iter().all(|c| c.capability == 90 && c.bytes > 1000), "{compiled:?}");
        assert!(version.starts_with("1"), "{version}");
        hold_without_nvrtc(folder.path(), 90, 80);
        let error = compile_kernels(folder.path(), &[90, 1], &[]).unwrap_err().to_string();
        assert!(error.contains("sm_1;"), "{error}");
    }
}
