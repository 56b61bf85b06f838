//! Tensors in a file: one home of what is written as safetensors, the same bytes each time.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;

use super::files::write_atomically;
use super::sealed::{blank, damaged, seal_tensors, whole};
use super::values::Precision;
use crate::error::{Error, Result};
use crate::file;

/// A tensor for a file.
pub struct Tensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tensor {
    /// Numbers of 64 bits.
    pub fn doubles(name: impl Into<String>, shape: &[usize], values: &[f64]) -> Tensor {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Tensor { name: name.into(), dtype: Dtype::F64, shape: shape.to_vec(), bytes }
    }

    /// Numbers of a machine of this precision, as 64 or 32 bits. Those that came from 32 bits are
    /// the same again.
    pub fn floats(name: impl Into<String>, shape: &[usize], values: &[f64], precision: Precision) -> Tensor {
        if precision == Precision::F64 {
            return Tensor::doubles(name, shape, values);
        }
        let bytes = values.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect();
        Tensor { name: name.into(), dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    /// Labels `[n]`, as I64.
    pub fn labels(name: impl Into<String>, labels: &[i32]) -> Tensor {
        let bytes = labels.iter().flat_map(|l| i64::from(*l).to_le_bytes()).collect();
        Tensor { name: name.into(), dtype: Dtype::I64, shape: vec![labels.len()], bytes }
    }
}

/// Writes tensors and metadata, `crc32c` among it: whole or not at all, and always the same bytes.
///
/// # Errors
/// If two tensors have one name, or the system refuses.
pub fn write_tensors(path: &Path, tensors: &[Tensor], mut metadata: HashMap<String, String>) -> Result<()> {
    metadata.extend([blank()]);
    let broken =
        |detail: String| Error::Program(format!("{}: cannot be put together: {detail}", path.display()));
    let views = tensors.iter().map(|t| Ok((&t.name, TensorView::new(t.dtype, t.shape.clone(), &t.bytes)?)));
    let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
    let bytes = views.and_then(|views| safetensors::serialize(views, Some(metadata)));
    let bytes = bytes.map_err(|e| broken(e.to_string()))?;
    let mut bytes = sorted(&bytes).map_err(broken)?;
    seal_tensors(&mut bytes).ok_or_else(|| broken("it has no place for its checksum".into()))?;
    write_atomically(path, &bytes)
}

/// The bytes of a file that [`write_tensors`] has written, and its metadata.
///
/// # Errors
/// If it cannot be read, or is damaged, with what to do about it.
pub(super) fn read_tensors(path: &Path, cure: &str) -> Result<(Vec<u8>, HashMap<String, String>)> {
    let bytes = file::read(path, "read")?;
    match SafeTensors::read_metadata(&bytes) {
        Ok((_, header)) if whole(&bytes) => {
            SafeTensors::deserialize(&bytes).map_err(|_| damaged(path, cure))?;
            Ok((bytes, header.metadata().clone().unwrap_or_default()))
        }
        // Not a bit of it needs to be wrong.
        Ok((_, header)) if !header.metadata().as_ref().is_some_and(ours) => Err(Error::Data(format!(
            "{} is damaged, or another program's: it has no checksum of metatape; {cure}",
            path.display()
        ))),
        _ => Err(damaged(path, cure)),
    }
}

/// Whether metadata look like those of a file that this crate has written, damaged or not.
fn ours(metadata: &HashMap<String, String>) -> bool {
    metadata.keys().any(|key| ["crc32c", "metatape"].contains(&key.as_str()))
}

/// The same safetensors file with its header in the order of names: the library writes the metadata
/// in a `HashMap`'s order, which is another in every process.
fn sorted(file: &[u8]) -> Result<Vec<u8>, String> {
    let (length, rest) = file.split_first_chunk::<8>().ok_or("it has no header")?;
    let (header, data) =
        rest.split_at_checked(u64::from_le_bytes(*length) as usize).ok_or("its header is cut short")?;
    let mut header: Value = serde_json::from_slice(header).map_err(|e| e.to_string())?;
    header.sort_all_objects();
    let mut header = header.to_string().into_bytes();
    // The format aligns what follows to 8 bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok([&(header.len() as u64).to_le_bytes()[..], &header, data].concat())
}

/// The floating-point numbers of a tensor's bytes; `None` for another type.
pub(super) fn floats(view: &TensorView) -> Option<Vec<f64>> {
    match view.dtype() {
        Dtype::F64 => Some(numbers(view.data(), f64::from_le_bytes)),
        Dtype::F32 => Some(numbers(view.data(), |b: [u8; 4]| f64::from(f32::from_le_bytes(b)))),
        _ => None,
    }
}

fn numbers<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|c| f(*c)).collect()
}
