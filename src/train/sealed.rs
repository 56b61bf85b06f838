//! Files that are read back end with a checksum (CRC-32C) of all that stands before it, or hold one
//! of all their other bytes: what is damaged is named, and never taken for something else.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::files::write_atomically;
use crate::error::{Error, Result};
use crate::file;

/// Around the eight digits, at the end of a file.
type Seal = [&'static str; 2];

const TOML: Seal = ["# crc32c: ", "\n"];
/// A last field; the object that it belongs to is closed here.
const JSON: Seal = [",\n  \"crc32c\": \"", "\"\n}\n"];
/// In the header of a safetensors file: no text within quotes can hold it.
const FIELD: &[u8] = b"\"crc32c\":\"";
const DIGITS: usize = 8;
const NONE: &[u8; DIGITS] = b"00000000";

/// What to do about a run's or a study's own file.
pub(super) const CURE: &str = "put a copy of it back, or start anew in another --out";

/// A configuration as the text of its file.
///
/// # Errors
/// If it has what TOML cannot hold: a path that is not UTF-8.
pub(super) fn to_toml(config: &impl Serialize) -> Result<String> {
    let text = toml::to_string(config).map_err(|e| {
        Error::Usage(format!("the configuration cannot be written down ({e}); --data-dir must be UTF-8"))
    })?;
    Ok(sealed(text, TOML))
}

/// Reads a configuration.
///
/// # Errors
/// If the file cannot be read, is damaged, or is not understood.
pub(super) fn read_toml<C: DeserializeOwned>(path: &Path) -> Result<C> {
    toml::from_str(&open(path, TOML, CURE)?).map_err(|e| {
        let byte = e.span().map_or(0, |s| s.start as u64);
        let detail = format!("{}; start anew in another --out", e.message().replace('\n', " "));
        Error::Format { path: path.to_path_buf(), byte, detail }
    })
}

/// Writes an object.
///
/// # Errors
/// If the system refuses.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|e| Error::Program(e.to_string()))?;
    // Less its last line, a brace.
    text.truncate(text.rfind('\n').unwrap_or(0));
    write_atomically(path, sealed(text, JSON).as_bytes())
}

/// Reads an object.
///
/// # Errors
/// If the file cannot be read or is damaged, with what to do about it, or is another version's.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path, cure: &str) -> Result<T> {
    let text = open(path, JSON, cure)? + "}";
    serde_json::from_str(&text).map_err(|e| {
        Error::Data(format!("{}: was written by another version of metatape ({e}); {cure}", path.display()))
    })
}

fn sealed(text: String, [before, after]: Seal) -> String {
    let sum = crc32c::crc32c(text.as_bytes());
    format!("{text}{before}{sum:08x}{after}")
}

/// The text without its seal.
fn open(path: &Path, seal: Seal, cure: &str) -> Result<String> {
    let bytes = file::read(path, "read")?;
    let text = bytes.len().checked_sub(seal[0].len() + DIGITS + seal[1].len());
    let text = text.and_then(|length| std::str::from_utf8(&bytes[..length]).ok());
    match text.filter(|text| sealed((*text).to_owned(), seal).as_bytes() == bytes) {
        Some(text) => Ok(text.to_owned()),
        None => Err(damaged(path, cure)),
    }
}

/// The error of a file that is not as it was written.
pub(super) fn damaged(path: &Path, cure: &str) -> Error {
    Error::Data(format!(
        "{} is damaged: it is not as it was written, its checksum says; {cure}",
        path.display()
    ))
}

/// The field of a safetensors file's metadata, before there is a checksum.
pub(super) fn blank() -> (String, String) {
    ("crc32c".into(), String::from_utf8_lossy(NONE).into_owned())
}

/// Puts the checksum into its field.
pub(super) fn seal_tensors(file: &mut [u8]) -> Option<()> {
    let at = field(file)?;
    let sum = format!("{:08x}", sum(file, at));
    file[at..at + DIGITS].copy_from_slice(sum.as_bytes());
    Some(())
}

/// Whether a safetensors file is as it was written.
pub(super) fn whole(file: &[u8]) -> bool {
    field(file).is_some_and(|at| format!("{:08x}", sum(file, at)).as_bytes() == &file[at..at + DIGITS])
}

/// Where the field's eight digits stand.
fn field(file: &[u8]) -> Option<usize> {
    let (length, rest) = file.split_first_chunk::<8>()?;
    let header = rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let at = header.windows(FIELD.len()).position(|part| part == FIELD)? + 8 + FIELD.len();
    (at + DIGITS <= file.len()).then_some(at)
}

/// Of all bytes, as before the field was filled in.
fn sum(file: &[u8], at: usize) -> u32 {
    let before = crc32c::crc32c_append(crc32c::crc32c(&file[..at]), NONE);
    crc32c::crc32c_append(before, &file[at + DIGITS..])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let value = BTreeMap::from([("epochs", 20), ("seed", 3)]);
        type Read = fn(&Path) -> Result<BTreeMap<String, i32>>;
        let json: Read = |path| read_json(path, "do");
        let kinds: [(Vec<u8>, Read); 2] = [
            (to_toml(&value).unwrap().into_bytes(), read_toml),
            (
                {
                    write_json(&path, &value).unwrap();
                    std::fs::read(&path).unwrap()
                },
                json,
            ),
        ];
        assert!(serde_json::from_slice::<serde_json::Value>(&kinds[1].0).unwrap()["crc32c"].is_string());
        for (bytes, read) in kinds {
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(read(&path).unwrap().into_values().collect::<Vec<_>>(), [20, 3]);
            let refused = |bytes: &[u8]| {
                std::fs::write(&path, bytes).unwrap();
                let error = read(&path).unwrap_err().to_string();
                assert!(error.contains("a is damaged: "), "{error}");
            };
            for bit in 0..8 * bytes.len() {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                refused(&flipped);
            }
            (0..bytes.len()).for_each(|length| refused(&bytes[..length]));
            refused(&[&bytes[..], b" "].concat());
        }
    }
}
