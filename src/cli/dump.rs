//! The file that `metatape hypergrad --dump` writes: all named tensors of one step, as safetensors.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use metatape::train::values::Precision;
use metatape::train::write_atomically;
use metatape::{Error, Result};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

/// How the numbers lie, for readers of the file.
const LAYOUT: &str = "row-major, little-endian; images and activations NHWC, convolution weights HWIO \
    (height, width, in, out), linear weights [in, out]";

/// Tensors being gathered for a file.
pub struct Dump {
    float: Dtype,
    tensors: Vec<(String, Vec<usize>, Dtype, Vec<u8>)>,
    metadata: HashMap<String, String>,
}

impl Dump {
    /// An empty one, its floating-point tensors in the run's precision.
    pub fn new(precision: Precision) -> Dump {
        let float = match precision {
            Precision::F32 | Precision::Tf32 | Precision::Bf16 => Dtype::F32,
            Precision::F64 => Dtype::F64,
        };
        let metadata = HashMap::from([("layout".to_owned(), LAYOUT.to_owned())]);
        Dump { float, tensors: Vec::new(), metadata }
    }

    /// A line of the file's metadata.
    pub fn note(&mut self, key: &str, value: impl ToString) {
        self.metadata.insert(key.to_owned(), value.to_string());
    }

    /// A floating-point tensor. Numbers that came from an `f32` machine are `f32` again without
    /// loss.
    pub fn floats(&mut self, name: impl Into<String>, shape: &[usize], values: &[f64]) {
        let bytes = match self.float {
            Dtype::F64 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            _ => values.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect(),
        };
        self.tensors.push((name.into(), shape.to_vec(), self.float, bytes));
    }

    /// Labels `[n]`, as I64.
    pub fn labels(&mut self, name: &str, labels: &[i32]) {
        let bytes = labels.iter().flat_map(|l| i64::from(*l).to_le_bytes()).collect();
        self.tensors.push((name.to_owned(), vec![labels.len()], Dtype::I64, bytes));
    }

    /// Writes the file: whole or not at all.
    ///
    /// # Errors
    /// As [`check_free`], and if the system refuses.
    pub fn write(self, path: &Path, force: bool) -> Result<()> {
        check_free("--dump", path, force)?;
        let broken = |e| Error::Program(format!("the dump cannot be put together: {e}"));
        let mut views = Vec::with_capacity(self.tensors.len());
        for (name, shape, dtype, bytes) in &self.tensors {
            views.push((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).map_err(broken)?));
        }
        let bytes = safetensors::serialize(views, Some(self.metadata)).map_err(broken)?;
        write_atomically(path, &sorted(&bytes)?)
    }
}

/// The same safetensors file with its header in the order of names. The library writes the metadata
/// in a `HashMap`'s order, which is another in every process; so that two dumps of one step are the
/// same bytes, it is put in order here.
fn sorted(file: &[u8]) -> Result<Vec<u8>> {
    let broken = |detail: String| Error::Program(format!("the dump cannot be put in order: {detail}"));
    let (length, rest) = file.split_first_chunk::<8>().ok_or_else(|| broken("it has no header".into()))?;
    let (header, data) = rest
        .split_at_checked(u64::from_le_bytes(*length) as usize)
        .ok_or_else(|| broken("its header is cut short".into()))?;
    let mut header: Value = serde_json::from_slice(header).map_err(|e| broken(e.to_string()))?;
    header.sort_all_objects();
    let mut header = header.to_string().into_bytes();
    // The format aligns what follows to 8 bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok([&(header.len() as u64).to_le_bytes()[..], &header, data].concat())
}

/// Asks early for what would go wrong after a long computation, when the file of `flag` is written.
///
/// # Errors
/// [`Error::Usage`] if the file exists and `force` is not given, or a folder has its name;
/// [`Error::Io`] if its folder is missing.
pub fn check_free(flag: &str, path: &Path, force: bool) -> Result<()> {
    let shown = path.display();
    if path.is_dir() {
        return Err(Error::Usage(format!("{flag} {shown} is a folder; name a file in it")));
    }
    if path.exists() && !force {
        return Err(Error::Usage(format!(
            "{flag} {shown} exists already; add --force to overwrite it, or name another file"
        )));
    }
    match path.parent() {
        Some(folder) if folder != Path::new("") => {
            fs::metadata(folder).map(drop).map_err(Error::io(folder, "find the folder for the file"))
        }
        _ => Ok(()),
    }
}
