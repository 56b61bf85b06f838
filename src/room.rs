//! Memory that input decides the size of: whether it is there is asked first, so that too much is
//! an error that names what it was for, and not the end of the process.

use crate::error::{Error, Result};

/// That there are so many bytes in one piece.
///
/// # Errors
/// [`Error::Device`] saying what they are for, and what to do.
pub fn check(bytes: usize, what: &str, cure: &str) -> Result<()> {
    let refused = |have: String| {
        let mib = bytes.div_ceil(1 << 20);
        Error::Device(format!("{what} needs {mib} MiB of memory in one piece{have}; {cure}"))
    };
    // Linux grants addresses freely and ends the process when they are used, so for much the system
    // is asked what is really there.
    if let Some(available) = (bytes > MUCH).then(available).flatten().filter(|available| bytes > *available) {
        return Err(refused(format!(", and {} MiB are available", available >> 20)));
    }
    Vec::<u8>::new().try_reserve_exact(bytes).map_err(|_| refused(String::new()))
}

const MUCH: usize = 1 << 26;

/// Bytes that processes can still have, where the system says so: Linux.
fn available() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_no_machine_has_is_named() {
        super::check(1 << 20, "a picture", "wait").unwrap();
        for bytes in [1 << 50, usize::MAX] {
            let error = super::check(bytes, "a picture", "wait").unwrap_err().to_string();
            assert!(error.starts_with("a picture needs ") && error.contains("MiB"), "{error}");
        }
    }
}
