//! A whole file in memory, unpacked if it was gzipped, that knows its path for errors.

use std::borrow::Cow;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::{Error, Result, room};

/// The content of a file.
pub(super) struct Source<'a> {
    path: PathBuf,
    gzipped: bool,
    /// What the file holds, unpacked.
    pub bytes: Cow<'a, [u8]>,
}

impl<'a> Source<'a> {
    /// Reads `path`; a content that starts as gzip does is unpacked, whatever the name.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Format`] if it is gzipped and damaged.
    pub fn read(path: &Path) -> Result<Source<'a>> {
        let bytes = crate::file::read(path, "read the file")?;
        Source::new(path, bytes.into())
    }

    /// The same for bytes that are in memory already.
    pub fn new(path: &Path, bytes: Cow<'a, [u8]>) -> Result<Source<'a>> {
        let path = path.to_path_buf();
        if !bytes.starts_with(&[0x1f, 0x8b]) {
            return Ok(Source { path, gzipped: false, bytes });
        }
        let mut unpacked = Vec::new();
        let mut decoder = MultiGzDecoder::new(&bytes[..]);
        loop {
            // It may become a thousand times as large, and that is known at its end.
            let more = unpacked.len().max(1 << 20);
            room::check(unpacked.len() + more, &format!("unpacking {}", path.display()), "name another")?;
            match decoder.by_ref().take(more as u64).read_to_end(&mut unpacked) {
                Ok(0) => return Ok(Source { path, gzipped: true, bytes: unpacked.into() }),
                Ok(_) => {}
                Err(error) => {
                    let byte = (bytes.len() - decoder.get_ref().len()) as u64;
                    let detail = match error.kind() {
                        io::ErrorKind::UnexpectedEof => "the gzip file is truncated: fetch it again".into(),
                        _ => format!("the gzip file is damaged ({error}): fetch it again"),
                    };
                    return Err(Error::Format { path, byte, detail });
                }
            }
        }
    }

    /// An [`Error::Format`] about the unpacked byte `byte` of this file.
    pub fn error(&self, byte: usize, detail: impl std::fmt::Display) -> Error {
        let place = if self.gzipped { ", counted in the unpacked content" } else { "" };
        let detail = format!("{detail}{place}; fetch the file again, or name another --data-dir");
        Error::Format { path: self.path.clone(), byte: byte as u64, detail }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn gzip_is_told_by_content_and_damage_is_reported() {
        let content: Vec<u8> = (0..4000_u32).map(|i| ((i * i) >> 3) as u8).collect();
        let packed = gzip(&content);
        let read = |bytes: &[u8]| Source::new(Path::new("x.gz"), bytes.to_vec().into());
        assert_eq!(read(&packed).unwrap().bytes[..], content[..]);
        assert_eq!(read(&content).unwrap().bytes[..], content[..]);

        let cut = read(&packed[..packed.len() / 2]).err().unwrap().to_string();
        assert!(cut.starts_with("x.gz: the gzip file is truncated"), "{cut}");
        let mut flipped = packed.clone();
        let place = packed.len() - 6; // inside the checksum
        flipped[place] ^= 0xff;
        let damaged = read(&flipped).err().unwrap().to_string();
        assert!(damaged.starts_with("x.gz: the gzip file is damaged"), "{damaged}");
    }

    #[test]
    fn missing_file_is_an_io_error() {
        let error = Source::read(Path::new("/no/such/file")).err().unwrap();
        assert!(matches!(error, Error::Io { .. }));
        assert!(error.to_string().starts_with("/no/such/file: cannot read the file"), "{error}");
    }
}
