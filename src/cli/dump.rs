//! The file that `metatape hypergrad --dump` writes: all named tensors of one step, as safetensors.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use metatape::train::values::Precision;
use metatape::train::{Tensor, write_tensors};
use metatape::{Error, Result};

/// How the numbers lie, for readers of the file.
const LAYOUT: &str = "row-major, little-endian; images and activations NHWC, convolution weights HWIO \
    (height, width, in, out), linear weights [in, out]";

/// Tensors being gathered for a file.
pub struct Dump {
    precision: Precision,
    tensors: Vec<Tensor>,
    metadata: HashMap<String, String>,
}

impl Dump {
    /// An empty one, its floating-point tensors in the run's precision.
    pub fn new(precision: Precision) -> Dump {
        let metadata = HashMap::from([("layout".to_owned(), LAYOUT.to_owned())]);
        Dump { precision, tensors: Vec::new(), metadata }
    }

    /// A line of the file's metadata.
    pub fn note(&mut self, key: &str, value: impl ToString) {
        self.metadata.insert(key.to_owned(), value.to_string());
    }

    /// A floating-point tensor.
    pub fn floats(&mut self, name: impl Into<String>, shape: &[usize], values: &[f64]) {
        self.tensors.push(Tensor::floats(name, shape, values, self.precision));
    }

    /// Labels `[n]`, as I64.
    pub fn labels(&mut self, name: &str, labels: &[i32]) {
        self.tensors.push(Tensor::labels(name, labels));
    }

    /// Writes the file: whole or not at all.
    ///
    /// # Errors
    /// As [`check_free`], and if the system refuses.
    pub fn write(self, path: &Path, force: bool) -> Result<()> {
        check_free("--dump", path, force)?;
        write_tensors(path, &self.tensors, self.metadata)
    }
}

/// Asks early for what would go wrong after a long computation, when the file of `flag` is written.
///
/// # Errors
/// [`Error::Usage`] if the file exists and `force` is not given, or what has its name is none;
/// [`Error::Io`] if its folder is missing.
pub fn check_free(flag: &str, path: &Path, force: bool) -> Result<()> {
    let shown = path.display();
    if path.is_dir() {
        return Err(Error::Usage(format!("{flag} {shown} is a folder; name a file in it")));
    }
    if path.metadata().is_ok_and(|what| !what.is_file()) {
        return Err(Error::Usage(format!("{flag} {shown} is a pipe, a socket or a device; name a file")));
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
