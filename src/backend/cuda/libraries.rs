//! The libraries of CUDA, loaded at run time: which are needed, where they are looked for, and what is said when one is not there.
//!
//! cudarc loads them by name when it first calls them, and ends the process where it cannot; so each is asked for here before.

use std::path::PathBuf;

use cudarc::{cublas, driver, nvrtc};

use crate::error::{Error, Result};

/// A library of CUDA.
struct Library {
    /// As its file is called, without `lib` and ending.
    name: &'static str,
    /// What comes with it.
    package: &'static str,
    present: fn() -> bool,
}

const DRIVER: Library = Library {
    name: "cuda",
    package: "it belongs to NVIDIA's GPU driver",
    // SAFETY: loads the library, whose initialisers are sound in any process.
    present: || unsafe { driver::sys::is_culib_present() },
};
const NVRTC: Library = Library {
    name: "nvrtc",
    package: "it belongs to the CUDA toolkit 12 or 13, and to the Python package nvidia-cuda-nvrtc",
    // SAFETY: as above.
    present: || unsafe { nvrtc::sys::is_culib_present() },
};
const CUBLAS: Library = Library {
    name: "cublas",
    package: "it belongs to the CUDA toolkit 12 or 13, and to the Python package nvidia-cublas",
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
/// [`Error::Device`] naming the library that is missing, the file names that were tried and the folders.
pub(super) fn load_all() -> Result<()> {
    [DRIVER, CUBLAS].iter().try_for_each(Library::load)
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
        if (self.present)() || (self.load_from_toolkit() && (self.present)()) {
            return Ok(());
        }
        let mut files = cudarc::get_lib_name_candidates(self.name);
        // The names that this system uses; the others are of other systems.
        let versioned = format!("lib{}.so", self.name);
        files.retain(|f| !cfg!(unix) || *f == versioned || f.starts_with(&format!("{versioned}.")));
        let folders: Vec<String> = toolkit_folders().iter().map(|f| f.display().to_string()).collect();
        Err(Error::Device(format!(
            "a GPU needs the library lib{}, which cannot be loaded ({}); looked for {} where the system's loader looks \
             (LD_LIBRARY_PATH adds folders) and in {}; use --device cpu without it",
            self.name,
            self.package,
            files.join(", "),
            folders.join(", ")
        )))
    }

    /// Loads the library from a toolkit's folder, if one has it. A later request by name finds what is loaded already.
    fn load_from_toolkit(&self) -> bool {
        let names = cudarc::get_lib_name_candidates(self.name);
        let paths =
            toolkit_folders().into_iter().flat_map(|folder| names.iter().map(move |n| folder.join(n)));
        for path in paths.filter(|p| p.is_file()) {
            // SAFETY: as for the libraries above.
            if let Ok(library) = unsafe { libloading::Library::new(&path) } {
                // It stays as long as the process.
                std::mem::forget(library);
                return true;
            }
        }
        false
    }
}

/// Where toolkits put their libraries without telling the loader.
fn toolkit_folders() -> Vec<PathBuf> {
    let named = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    named.chain([PathBuf::from("/usr/local/cuda")]).map(|root| root.join("lib64")).collect()
}
