//! The libraries of CUDA, loaded at run time: which are needed, where they are looked for, and what
//! is said when one is not there.
//!
//! cudarc loads them by name when it first calls them, and ends the process where it cannot; so
//! each is asked for here before. The loader's own places come first (LD_LIBRARY_PATH, the
//! system's), then toolkits and Python packages that CUDA_HOME names.

use std::path::{Path, PathBuf};

use cudarc::{cublas, driver, nvrtc};

use crate::error::{Error, Result};

/// A library of CUDA.
struct Library {
    /// As its file is called, without `lib` and ending.
    name: &'static str,
    /// What it loads by itself, and must find: likewise.
    half: Option<&'static str>,
    /// What comes with it.
    package: &'static str,
    /// What needs it, and what to do without.
    user: &'static str,
    otherwise: &'static str,
    present: fn() -> bool,
}

const DRIVER: Library = Library {
    name: "cuda",
    half: None,
    package: "it belongs to NVIDIA's GPU driver",
    user: "a GPU",
    otherwise: "; use --device cpu without it",
    // SAFETY: loads the library, whose initialisers are sound in any process.
    present: || unsafe { driver::sys::is_culib_present() },
};
const NVRTC: Library = Library {
    name: "nvrtc",
    half: Some("nvrtc-builtins"),
    package: "it belongs to the CUDA toolkit 12 or 13, and to the Python package nvidia-cuda-nvrtc",
    user: "compiling kernels",
    otherwise: "",
    // SAFETY: as above.
    present: || unsafe { nvrtc::sys::is_culib_present() },
};
const CUBLAS: Library = Library {
    name: "cublas",
    half: Some("cublasLt"),
    package: "it belongs to the CUDA toolkit 12 or 13, and to the Python package nvidia-cublas",
    user: "a GPU",
    otherwise: "; use --device cpu without it",
    // SAFETY: as above.
    present: || unsafe { cublas::sys::is_culib_present() },
};

/// Whether the GPU driver's library is there.
pub(super) fn driver_present() -> bool {
    (DRIVER.present)()
}

/// Loads everything that every program on a GPU is run with.
///
/// # Errors
/// [`Error::Device`] naming the library that is missing, the file names that were tried and the
/// folders.
pub(super) fn load_all() -> Result<()> {
    DRIVER.load()?;
    CUBLAS.load()?;
    one_installation("cublas", "cublasLt")
}

/// Loads the compiler of kernels.
///
/// # Errors
/// As [`load_all`].
pub(super) fn load_nvrtc() -> Result<()> {
    NVRTC.load()
}

impl Library {
    fn load(&self) -> Result<()> {
        let folders = toolkit_folders();
        if (self.present)() || (folders.iter().any(|f| self.load_from(f)) && (self.present)()) {
            return Ok(());
        }
        let folders: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
        Err(Error::Device(format!(
            "{} needs the library lib{}, which cannot be loaded ({}); looked for {} where the system's loader looks (LD_LIBRARY_PATH adds \
             folders) and in {} (CUDA_HOME may name a toolkit, or the folder `nvidia` of Python's packages){}",
            self.user,
            self.name,
            self.package,
            file_names(self.name).join(", "),
            folders.join(", "),
            self.otherwise
        )))
    }

    /// Loads the library from a folder, if that has it. A later request by name finds what is
    /// loaded already. So does the library itself with its half: not every version looks beside its
    /// own file (NVRTC 13.0 does not).
    fn load_from(&self, folder: &Path) -> bool {
        let Some(path) = file_names(self.name).iter().map(|n| folder.join(n)).find(|p| p.is_file()) else {
            return false;
        };
        if let Some(half) = self.half {
            load_half(folder, half);
        }
        load(&path)
    }
}

/// Loads what a folder has of a half, whose files may be of several versions. What cannot be loaded
/// is missed later, if at all.
fn load_half(folder: &Path, half: &str) {
    for file in files(folder, &format!("lib{half}.so")) {
        load(&file);
    }
}

/// Loads a library for as long as the process lives; whether that could be done.
fn load(path: &Path) -> bool {
    // SAFETY: as for the libraries above.
    unsafe { libloading::Library::new(path) }.map(std::mem::forget).is_ok()
}

/// The names under which cudarc asks for a library, of this system's kind.
fn file_names(name: &str) -> Vec<String> {
    let mut names = cudarc::get_lib_name_candidates(name);
    let plain = format!("lib{name}.so");
    names.retain(|n| !cfg!(unix) || *n == plain || n.starts_with(&format!("{plain}.")));
    names
}

/// The files of a folder whose names begin so.
fn files(folder: &Path, begin: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| begins(p, begin)).collect();
    files.sort();
    files
}

fn begins(path: &Path, begin: &str) -> bool {
    path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(begin))
}

/// Where toolkits and Python's packages put their libraries without telling the loader: `lib64` and
/// `lib` below the toolkit, or `lib` of each part (`nvidia/cublas/lib`, `nvidia/cu13/lib`).
fn toolkit_folders() -> Vec<PathBuf> {
    let named = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let below = |root: PathBuf| {
        let parts = files(&root, "").into_iter().map(|part| part.join("lib")).filter(|lib| lib.is_dir());
        [root.join("lib64"), root.join("lib")].into_iter().chain(parts.collect::<Vec<_>>())
    };
    named.chain([PathBuf::from("/usr/local/cuda")]).flat_map(below).collect()
}

/// That a library and the half that it loads come from one installation. The loader looks for each
/// by itself: where LD_LIBRARY_PATH names Python's packages, which have no `libcublas.so` but a
/// `libcublasLt.so.13`, it takes a toolkit's cuBLAS and Python's cuBLASLt.
///
/// # Errors
/// [`Error::Device`] if they cannot be had from one.
fn one_installation(name: &str, half: &str) -> Result<()> {
    // SAFETY: as for the libraries above.
    let open = || file_names(name).iter().find_map(|n| unsafe { libloading::Library::new(n) }.ok());
    let first = open();
    let Some((mine, other)) = loaded_apart(name, half) else {
        std::mem::forget(first);
        return Ok(());
    };
    // Nothing of it has run; so it goes, and its half with it, which may then be loaded from where
    // it should be.
    drop(first);
    load_half(&mine, half);
    std::mem::forget(open());
    match loaded_apart(name, half) {
        None => Ok(()),
        Some(_) => Err(Error::Device(format!(
            "lib{name} is loaded from {}, and lib{half} of another installation, {}; put the first of these folders first in LD_LIBRARY_PATH",
            mine.display(),
            other.display()
        ))),
    }
}

/// The folders of a library and of its half, where both are loaded, the library's has such a half,
/// and it is not the one that is loaded.
fn loaded_apart(name: &str, half: &str) -> Option<(PathBuf, PathBuf)> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let paths = || maps.lines().filter_map(|line| line.get(line.find('/')?..).map(Path::new));
    let folder = |name: &str| paths().find(|p| begins(p, &format!("lib{name}.so")))?.parent();
    let (mine, other) = (folder(name)?, folder(half)?);
    let apart = mine != other && !files(mine, &format!("lib{half}.so")).is_empty();
    apart.then(|| (mine.to_path_buf(), other.to_path_buf()))
}

#[cfg(all(test, simulator, target_os = "linux"))]
mod tests {
    use std::process::Command;

    use super::*;

    /// In the process that the test starts: whose libraries it is given.
    const HERE: &str = "METATAPE_TEST_PAIR";

    /// `libpair.so`, or `libpair.so.13` alone as Python's packages have it, and the half that it
    /// loads; both tell the folder's number.
    fn install(folder: &Path, number: u32, plain: bool) {
        std::fs::create_dir_all(folder).unwrap();
        let build = |output: &str, text: String, more: &[&str]| {
            std::fs::write(folder.join("text.c"), text).unwrap();
            let mut compiler = Command::new(std::env::var("CXX").unwrap_or_else(|_| "c++".into()));
            compiler
                .current_dir(folder)
                .args(["-shared", "-fPIC", "-o", output, "-x", "c", "text.c", "-x", "none"]);
            assert!(compiler.arg(format!("-Wl,-soname,{output}")).args(more).status().unwrap().success());
        };
        build("libpairLt.so.13", format!("int half() {{ return {number}; }}"), &[]);
        let text = format!("int half(); int both() {{ return 10 * {number} + half(); }}");
        build("libpair.so.13", text, &["-L.", "-l:libpairLt.so.13"]);
        if plain {
            std::fs::copy(folder.join("libpair.so.13"), folder.join("libpair.so")).unwrap();
        }
    }

    fn both() -> i32 {
        // SAFETY: built by `install`.
        unsafe {
            let library = file_names("pair").iter().find_map(|n| libloading::Library::new(n).ok()).unwrap();
            library.get::<unsafe extern "C" fn() -> i32>(b"both\0").unwrap()()
        }
    }

    #[test]
    fn a_library_and_its_half_come_from_one_installation() {
        if std::env::var_os(HERE).is_some() {
            assert_eq!(
                both(),
                21,
                "the loader by itself takes one of each; this test is of no use otherwise"
            );
            one_installation("pair", "pairLt").unwrap();
            assert_eq!(both(), 22);
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (python, toolkit) = (folder.path().join("python"), folder.path().join("toolkit"));
        install(&python, 1, false);
        install(&toolkit, 2, true);
        let name = "backend::cuda::libraries::tests::a_library_and_its_half_come_from_one_installation";
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", name, "--nocapture"]).env(HERE, "1");
        let child = child.env("LD_LIBRARY_PATH", std::env::join_paths([&python, &toolkit]).unwrap());
        let answer = child.output().unwrap();
        let text = String::from_utf8_lossy(&answer.stdout);
        assert!(text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&answer.stderr));
    }

    #[test]
    fn folders_of_toolkits_and_of_pythons_packages_are_searched() {
        let root = tempfile::tempdir().unwrap();
        for part in ["cu13", "cublas", "empty"] {
            std::fs::create_dir_all(root.path().join(part)).unwrap();
        }
        install(&root.path().join("cublas/lib"), 3, false);
        let library = Library { name: "pair", half: Some("pairLt"), ..NVRTC };
        assert!(!library.load_from(&root.path().join("cu13/lib")), "there is no such folder");
        assert!(library.load_from(&root.path().join("cublas/lib")));
        assert_eq!(both(), 33, "by name, when it is loaded");
    }
}
