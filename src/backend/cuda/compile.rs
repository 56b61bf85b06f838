//! From a file of `kernels/` to machine code for one card, by NVRTC.

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;

use cudarc::nvrtc::{result, sys};

use super::cache::Cache;
use super::driver::Source;
use crate::error::{Error, Result};

/// What the files of `kernels/` include, by name.
const HEADERS: [(&CStr, &str); 4] = [
    (c"common.cuh", include_str!("../../../kernels/common.cuh")),
    (c"tensor.cuh", include_str!("../../../kernels/tensor.cuh")),
    (c"conv.cuh", include_str!("../../../kernels/conv.cuh")),
    (c"conv_roles.cuh", include_str!("../../../kernels/conv_roles.cuh")),
];

/// What a card's compute capability is called in options: 9.0 is 90.
#[derive(Clone, Copy)]
pub(super) struct Capability(pub i32);

/// Compiles a file, or takes what the cache has of an earlier compilation.
pub(super) struct Compiler {
    cache: Cache,
    /// All options; `kernels/check.py` compiles with the same.
    options: Vec<CString>,
    /// NVRTC's version, as a part of the cache's key.
    version: String,
    /// Whether the code is the driver's intermediate one, for cards that are newer than this NVRTC.
    intermediate: bool,
}

impl Compiler {
    /// For a card. NVRTC has been loaded.
    pub fn new(card: Capability) -> Result<Compiler> {
        let (mut major, mut minor, mut count) = (0, 0, 0);
        // SAFETY: NVRTC writes to these three numbers.
        unsafe {
            check(sys::nvrtcVersion(&raw mut major, &raw mut minor), "tell its version")?;
            check(sys::nvrtcGetNumSupportedArchs(&raw mut count), "tell what it compiles for")?;
        }
        let mut known: Vec<c_int> = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: the list has the length that NVRTC asked for.
        check(unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) }, "tell what it compiles for")?;
        let intermediate = !known.contains(&card.0);
        let architecture = if intermediate {
            let best = known.iter().copied().filter(|a| *a < card.0).max().ok_or_else(|| {
                Error::Device(format!(
                    "NVRTC {major}.{minor} compiles for no card of compute capability {}.{}; install the CUDA toolkit 12 or 13",
                    card.0 / 10,
                    card.0 % 10
                ))
            })?;
            format!("--gpu-architecture=compute_{best}")
        } else {
            format!("--gpu-architecture=sm_{}", card.0)
        };
        let options = [architecture.as_str(), "--std=c++17"].map(|o| CString::new(o).unwrap_or_default());
        Ok(Compiler {
            cache: Cache::new(),
            options: options.to_vec(),
            version: format!("{major}.{minor}"),
            intermediate,
        })
    }

    /// Machine code of a file, handed to `load`. Code from the cache that cannot be loaded is compiled anew.
    pub fn with_image<T>(&self, source: Source, load: impl Fn(&[u8]) -> Result<T>) -> Result<T> {
        let mut key: Vec<&[u8]> =
            vec![self.version.as_bytes(), source.name.as_bytes(), source.text.as_bytes()];
        key.extend(self.options.iter().map(|o| o.to_bytes()));
        key.extend(HEADERS.iter().map(|h| h.1.as_bytes()));
        if let Some(loaded) = self.cache.find(&key).and_then(|image| load(&image).ok()) {
            return Ok(loaded);
        }
        let image = self.compile(source)?;
        let loaded = load(&image)?;
        self.cache.store(&key, &image);
        Ok(loaded)
    }

    fn compile(&self, source: Source) -> Result<Vec<u8>> {
        let text = |t: &str| {
            CString::new(t).map_err(|_| Error::Device(format!("{} holds a zero byte", source.name)))
        };
        let (code, name) = (text(source.text)?, text(source.name)?);
        let headers = HEADERS.iter().map(|h| text(h.1)).collect::<Result<Vec<_>>>()?;
        let contents: Vec<*const c_char> = headers.iter().map(|h| h.as_ptr()).collect();
        let names: Vec<*const c_char> = HEADERS.iter().map(|h| h.0.as_ptr()).collect();
        let mut program = Compilation(ptr::null_mut());
        // SAFETY: all strings end with a zero and outlive the call; both lists have as many entries as is said.
        let created = unsafe {
            sys::nvrtcCreateProgram(
                &raw mut program.0,
                code.as_ptr(),
                name.as_ptr(),
                HEADERS.len() as c_int,
                contents.as_ptr(),
                names.as_ptr(),
            )
        };
        check(created, "take a program")?;
        let options: Vec<*const c_char> = self.options.iter().map(|o| o.as_ptr()).collect();
        // SAFETY: the program was created above; the options are as many as is said.
        let compiled =
            unsafe { sys::nvrtcCompileProgram(program.0, options.len() as c_int, options.as_ptr()) };
        if compiled.result().is_err() {
            // SAFETY: the program was created above.
            let log = unsafe { result::get_program_log(program.0) }.unwrap_or_default();
            let log: Vec<u8> = log.iter().map(|c| *c as u8).take_while(|c| *c != 0).collect();
            return Err(Error::Device(format!(
                "NVRTC {} cannot compile kernels/{}, which is a defect of this program: {}",
                self.version,
                source.name,
                String::from_utf8_lossy(&log).trim()
            )));
        }
        program.code(self.intermediate)
    }
}

/// A program of NVRTC's, destroyed when it goes out of scope.
struct Compilation(sys::nvrtcProgram);

impl Compilation {
    /// What was compiled: machine code, or intermediate code (text that ends with a zero byte).
    fn code(&self, intermediate: bool) -> Result<Vec<u8>> {
        type Size = unsafe fn(sys::nvrtcProgram, *mut usize) -> sys::nvrtcResult;
        type Get = unsafe fn(sys::nvrtcProgram, *mut c_char) -> sys::nvrtcResult;
        let (size, get): (Size, Get) = if intermediate {
            (sys::nvrtcGetPTXSize, sys::nvrtcGetPTX)
        } else {
            (sys::nvrtcGetCUBINSize, sys::nvrtcGetCUBIN)
        };
        let mut bytes = 0;
        // SAFETY: the program has been compiled.
        check(unsafe { size(self.0, &raw mut bytes) }, "tell the size of its code")?;
        let mut code = vec![0_u8; bytes];
        // SAFETY: as above; `code` has the size that NVRTC gave.
        check(unsafe { get(self.0, code.as_mut_ptr().cast()) }, "give its code")?;
        Ok(code)
    }
}

impl Drop for Compilation {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: created by NVRTC, destroyed once. What it says of it changes nothing.
            let _ = unsafe { result::destroy_program(self.0) };
        }
    }
}

fn check(answer: sys::nvrtcResult, what: &str) -> Result<()> {
    answer.result().map_err(|e| Error::Device(format!("NVRTC cannot {what}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With an NVRTC that knows the card and for a card that it does not know yet: machine code, and intermediate code.
    #[test]
    #[ignore = "needs NVRTC where the loader finds it; .ci/run has it"]
    fn nvrtc_compiles_kernels_with_their_headers() {
        let source = super::super::launch::structure::SOURCE;
        for (card, begin) in [(90, &b"\x7fELF"[..]), (999, &b"//"[..])] {
            let compiler = Compiler::new(Capability(card)).unwrap();
            let image = compiler.compile(source).unwrap();
            assert!(
                image.starts_with(begin) || image[1..].starts_with(begin),
                "card {card}: {:?}",
                &image[..8]
            );
            let kernel = image.windows(6).any(|w| w == b"gather");
            assert!(kernel, "card {card}: no kernel `gather`");
        }
        let broken = Source { name: "broken.cu", text: "#include \"common.cuh\"\nKERNEL(" };
        let error = Compiler::new(Capability(90)).unwrap().compile(broken).unwrap_err().to_string();
        assert!(error.contains("kernels/broken.cu") && error.contains("error"), "{error}");
    }
}
