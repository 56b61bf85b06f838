//! Parsers of single values. Where the library has a `FromStr`, clap uses that; these are the rest.

use std::fmt;
use std::str::FromStr;

use metatape::nn;
use metatape::{Error, Result};

use super::cuda;

/// `--model`: a name that [`nn::named`] knows.
pub fn model(name: &str) -> Result<String> {
    nn::named(name, 10).map(|_| name.to_owned())
}

/// Counts above this are slips of the finger, and would leave the range of sizes when multiplied.
const LARGEST_COUNT: usize = 1_000_000;

/// A count from 1 to a million.
pub fn positive(text: &str) -> Result<usize> {
    match text.parse::<usize>() {
        Ok(count) if (1..=LARGEST_COUNT).contains(&count) => Ok(count),
        _ => Err(Error::Usage(format!("`{text}` is not a whole number from 1 to {LARGEST_COUNT}"))),
    }
}

/// Any whole number of 64 bits.
pub fn seed(text: &str) -> Result<u64> {
    text.parse().map_err(|_| Error::Usage(format!("`{text}` is not a whole number from 0 to {}", u64::MAX)))
}

/// A finite number above 0.
pub fn rate(text: &str) -> Result<f64> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err(Error::Usage(format!("`{text}` is not a number above 0"))),
    }
}

/// A number of at least 0 and below 1.
pub fn share(text: &str) -> Result<f64> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..1.0).contains(&share) => Ok(share),
        _ => Err(Error::Usage(format!("`{text}` is not a number of at least 0 and below 1"))),
    }
}

/// A finite number of at least 1.
pub fn factor(text: &str) -> Result<f64> {
    match text.parse::<f64>() {
        Ok(factor) if factor >= 1.0 && factor.is_finite() => Ok(factor),
        _ => Err(Error::Usage(format!(
            "`{text}` is not an imbalance factor; give a number of at least 1 (the largest class over the smallest)"
        ))),
    }
}

/// Compute capability of the cards that the kernels run on: `sm_90` is 90.
pub fn architecture(text: &str) -> Result<i32> {
    let number = text.strip_prefix("sm_").and_then(|n| n.parse::<u16>().ok());
    number.filter(|n| *n >= 80).map(i32::from).ok_or_else(|| {
        Error::Usage(format!(
            "`{text}` is no architecture that the kernels run on; give sm_80 or later, as in sm_90"
        ))
    })
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
        match name {
            "f32" => Ok(Precision::F32),
            "f64" => Ok(Precision::F64),
            "tf32" => Ok(Precision::Tf32),
            "bf16" => Ok(Precision::Bf16),
            _ => Err(Error::Usage(format!(
                "there is no precision `{name}`; choose one of f32, f64, tf32, bf16"
            ))),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Precision::F32 => "f32",
            Precision::F64 => "f64",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        })
    }
}

impl Precision {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Precision::F32 | Precision::Tf32 | Precision::Bf16 => 4,
            Precision::F64 => 8,
        }
    }

    /// What a GPU calls it; `None` for what no GPU is used with.
    pub fn cuda(self) -> Option<cuda::Precision> {
        match self {
            Precision::F32 => Some(cuda::Precision::F32),
            Precision::F64 => None,
            Precision::Tf32 => Some(cuda::Precision::Tf32),
            Precision::Bf16 => Some(cuda::Precision::Bf16),
        }
    }
}

/// Whether a GPU replays captured graphs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Graphs {
    /// It does.
    On,
    /// It launches every kernel by itself.
    Off,
    /// First the one, then the other.
    Both,
}

impl FromStr for Graphs {
    type Err = Error;

    fn from_str(name: &str) -> Result<Graphs> {
        match name {
            "on" => Ok(Graphs::On),
            "off" => Ok(Graphs::Off),
            "both" => Ok(Graphs::Both),
            _ => Err(Error::Usage(format!("`{name}` is none of on, off, both"))),
        }
    }
}

/// Where to compute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceChoice {
    /// The first GPU that works with the precision, or else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<DeviceChoice> {
        let unknown =
            || Error::Usage(format!("there is no device `{name}`; choose one of auto, cpu, cuda, cuda:N"));
        match name {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => {
                let number = name.strip_prefix("cuda:").and_then(|n| n.parse().ok());
                number.map(DeviceChoice::Cuda).ok_or_else(unknown)
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.pad("auto"),
            DeviceChoice::Cpu => f.pad("cpu"),
            DeviceChoice::Cuda(n) => f.pad(&format!("cuda:{n}")),
        }
    }
}
