//! Values as people type them: what is no such value is an error of one sentence.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::models::ModelFile;

/// The choices of `--model`.
pub const MODELS: &str = "mlp|lenet|resnet32|wrn28-10|FILE.toml";
/// The choices of `--route`.
pub const ROUTES: &str = "layerwise|jvp|reverse|finite-difference|per-sample|implicit-cg:N|neumann:N";

/// `--model`: what [`ModelFile::open`] takes.
pub fn model(name: &str) -> Result<String> {
    ModelFile::open(name).map(|_| name.to_owned())
}

/// Counts above this are slips of the finger, and would leave the range of sizes when multiplied.
const LARGEST_COUNT: usize = 1_000_000;

/// A count from 1 to a million.
///
/// # Errors
/// [`Error::Usage`], as all of these.
pub fn positive(text: &str) -> Result<usize> {
    match text.parse::<usize>() {
        Ok(count) if (1..=LARGEST_COUNT).contains(&count) => Ok(count),
        _ => Err(Error::Usage(format!("`{text}` is not a whole number from 1 to {LARGEST_COUNT}"))),
    }
}

/// A number above 0 that is no slip of the finger.
pub fn rate(text: &str) -> Result<f64> {
    match text.parse::<f64>() {
        Ok(rate) if (1e-30..=1e30).contains(&rate) => Ok(rate),
        _ => Err(Error::Usage(format!("`{text}` is not a number from 1e-30 to 1e30"))),
    }
}

/// A number of at least 0 and below 1.
pub fn share(text: &str) -> Result<f64> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..1.0).contains(&share) => Ok(share),
        _ => Err(Error::Usage(format!("`{text}` is not a number of at least 0 and below 1"))),
    }
}

/// A number of at least 1 that is no slip of the finger.
pub fn factor(text: &str) -> Result<f64> {
    match text.parse::<f64>() {
        Ok(factor) if (1.0..=1e9).contains(&factor) => Ok(factor),
        _ => Err(Error::Usage(format!(
            "`{text}` is not an imbalance factor; give a number of at least 1 and at most 1e9 (the largest class over the \
             smallest)"
        ))),
    }
}

/// The floating-point numbers of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// Single.
    F32,
    /// Double.
    F64,
    /// Single; on a GPU, products of factors rounded to 10 bits of mantissa.
    Tf32,
    /// On a GPU: activations in bf16, all else in single precision.
    Bf16,
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Precision> {
        let all = [Precision::F32, Precision::F64, Precision::Tf32, Precision::Bf16];
        let found = all.into_iter().find(|p| p.name() == name);
        found.ok_or_else(|| Error::unknown("precision", name, &all.map(Precision::name)))
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Precision {
    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F64 => "f64",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        }
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Precision::F32 | Precision::Tf32 | Precision::Bf16 => 4,
            Precision::F64 => 8,
        }
    }
}
