//! From a file of `kernels/` to machine code for one card, by NVRTC.

use std::ffi::{CString, c_char, c_int};
use std::ptr;

use cudarc::nvrtc::{result, sys};

use super::driver::Source;
use super::libraries;
use super::sources::HEADERS;
use crate::error::{Error, Result};

/// What every file is compiled with, besides the card; `kernels/check.py` takes the same.
pub(super) const STANDARD: &str = "--std=c++17";

/// A card's compute capability, as it is called in options: 9.0 is 90.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Capability(pub i32);

/// The compiler, loaded.
pub(super) struct Nvrtc {
    /// As people write it: 13.0.
    pub version: String,
    /// The cards that it knows.
    known: Vec<c_int>,
}

impl Nvrtc {
    /// Loads it.
    ///
    /// # Errors
    /// [`Error::Device`] if the library is not there or does not answer.
    pub fn load() -> Result<Nvrtc> {
        libraries::load_nvrtc()?;
        let (mut major, mut minor, mut count) = (0, 0, 0);
        // SAFETY: NVRTC writes to these three numbers.
        unsafe {
            check(sys::nvrtcVersion(&raw mut major, &raw mut minor), "tell its version")?;
            check(sys::nvrtcGetNumSupportedArchs(&raw mut count), "tell what it compiles for")?;
        }
        let mut known: Vec<c_int> = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: the list has the length that NVRTC asked for.
        check(unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) }, "tell what it compiles for")?;
        Ok(Nvrtc { version: format!("{major}.{minor}"), known })
    }

    /// That it makes machine code for a card.
    ///
    /// # Errors
    /// [`Error::Device`] with the cards that it knows.
    pub fn knows(&self, card: Capability) -> Result<()> {
        if self.known.contains(&card.0) {
            return Ok(());
        }
        let known: Vec<String> = self.known.iter().map(|a| format!("sm_{a}")).collect();
        Err(Error::Device(format!(
            "NVRTC {} does not compile for sm_{}; it compiles for {}",
            self.version,
            card.0,
            known.join(", ")
        )))
    }

    /// Machine code; for a card that is newer than this NVRTC, the driver's intermediate code (text
    /// that ends with a zero byte).
    ///
    /// # Errors
    /// [`Error::Device`] if NVRTC refuses, or knows neither the card nor an earlier one.
    pub fn compile(&self, source: &Source, card: Capability) -> Result<Vec<u8>> {
        let earlier = self.known.iter().copied().filter(|a| *a < card.0).max();
        let (intermediate, architecture) = match earlier {
            // With what only cards of 9.0 have (wgmma): such code runs on no later ones.
            _ if self.known.contains(&card.0) => {
                let only = if card.0 == 90 { "a" } else { "" };
                (false, format!("--gpu-architecture=sm_{}{only}", card.0))
            }
            Some(best) => (true, format!("--gpu-architecture=compute_{best}")),
            None => return self.knows(card).map(|()| Vec::new()),
        };
        let text = |t: &str| {
            CString::new(t).map_err(|_| Error::Device(format!("{} holds a zero byte", source.name)))
        };
        let (code, name) = (text(&source.text)?, text(&source.name)?);
        let headers = HEADERS.iter().map(|h| text(h.1)).collect::<Result<Vec<_>>>()?;
        let contents: Vec<*const c_char> = headers.iter().map(|h| h.as_ptr()).collect();
        let names: Vec<*const c_char> = HEADERS.iter().map(|h| h.0.as_ptr()).collect();
        let mut program = Compilation(ptr::null_mut());
        // SAFETY: all strings end with a zero and outlive the call; both lists have as many entries
        // as is said.
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
        let options = [text(&architecture)?, text(STANDARD)?];
        let options = options.each_ref().map(|o| o.as_ptr());
        // SAFETY: the program was created above; the options are as many as is said.
        let compiled =
            unsafe { sys::nvrtcCompileProgram(program.0, options.len() as c_int, options.as_ptr()) };
        if compiled != sys::nvrtcResult::NVRTC_SUCCESS {
            return Err(self.refused(source, compiled, &program));
        }
        program.code(intermediate)
    }

    fn refused(&self, source: &Source, answer: sys::nvrtcResult, program: &Compilation) -> Error {
        // SAFETY: the program was created by NVRTC.
        let log = unsafe { result::get_program_log(program.0) }.unwrap_or_default();
        let log: Vec<u8> = log.iter().map(|c| *c as u8).take_while(|c| *c != 0).collect();
        let (log, version) = (String::from_utf8_lossy(&log), &self.version);
        let what = format!("NVRTC {version} cannot compile kernels/{}", source.name);
        // NVRTC's list of errors grows with its versions.
        Error::Device(if answer == sys::nvrtcResult::NVRTC_ERROR_COMPILATION {
            format!("{what}, which is a defect of this program: {}", log.trim())
        } else if answer == sys::nvrtcResult::NVRTC_ERROR_BUILTIN_OPERATION_FAILURE {
            format!(
                "{what}, as it does not find its library libnvrtc-builtins.so.{version}, which is installed beside libnvrtc: install both \
                 from one package, and put their folder into LD_LIBRARY_PATH"
            )
        } else {
            format!("{what}: {answer:?} {}", log.trim())
        })
    }
}

/// A program of NVRTC's, destroyed when it goes out of scope.
struct Compilation(sys::nvrtcProgram);

impl Compilation {
    /// What was compiled.
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
    use super::super::sources::STRUCTURE;
    use super::*;

    /// With an NVRTC that knows the card and for a card that it does not know yet: machine code,
    /// and intermediate code.
    #[test]
    #[ignore = "needs NVRTC; .ci/run has it"]
    fn nvrtc_compiles_kernels_with_their_headers() {
        let nvrtc = Nvrtc::load().unwrap();
        if let Ok(version) = std::env::var("METATAPE_TEST_NVRTC") {
            assert_eq!(nvrtc.version, version, "another one than CUDA_HOME names was found");
        }
        for (card, begin) in [(90, &b"\x7fELF"[..]), (999, &b"//"[..])] {
            let image = nvrtc.compile(&STRUCTURE, Capability(card)).unwrap();
            assert!(
                image.starts_with(begin) || image[1..].starts_with(begin),
                "card {card}: {:?}",
                &image[..8]
            );
            let kernel = image.windows(6).any(|w| w == b"gather");
            assert!(kernel, "card {card}: no kernel `gather`");
        }
        let broken = Source { name: "broken.cu".into(), text: "#include \"common.cuh\"\nKERNEL(".into() };
        let error = nvrtc.compile(&broken, Capability(90)).unwrap_err().to_string();
        assert!(error.contains("kernels/broken.cu") && error.contains("defect"), "{error}");
        let error = nvrtc.compile(&STRUCTURE, Capability(1)).unwrap_err().to_string();
        assert!(error.contains("sm_1;") && error.contains("sm_90"), "{error}");
    }
}
