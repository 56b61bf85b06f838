//! Parsers of single values. Where the library has a parser, clap uses that; these are the rest.

use std::fmt;
use std::str::FromStr;

use metatape::tape::Shape;
use metatape::train::values::{positive, rate};
use metatape::{Error, Result};

/// The extents of a sample: an image's `HxWxC`, or the number of features.
pub fn sample(text: &str) -> Result<Shape> {
    let extents = text.split('x').map(positive).collect::<Result<Vec<usize>>>();
    match extents {
        Ok(extents) if matches!(extents.len(), 1 | 3) => Ok(extents.into()),
        _ => Err(Error::Usage(format!(
            "`{text}` is no sample; give an image's HxWxC, as in 32x32x3, or a number of features"
        ))),
    }
}

/// Any whole number of 64 bits.
pub fn seed(text: &str) -> Result<u64> {
    text.parse().map_err(|_| Error::Usage(format!("`{text}` is not a whole number from 0 to {}", u64::MAX)))
}

/// A bound, or `none`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bound(pub Option<f64>);

impl FromStr for Bound {
    type Err = Error;

    fn from_str(text: &str) -> Result<Bound> {
        if text == "none" { Ok(Bound(None)) } else { rate(text).map(Some).map(Bound) }
    }
}

/// Numbers of epochs, separated by commas, or `none`.
#[derive(Clone, PartialEq, Debug)]
pub struct Milestones(pub Vec<usize>);

impl FromStr for Milestones {
    type Err = Error;

    fn from_str(text: &str) -> Result<Milestones> {
        match text {
            "none" => Ok(Milestones(Vec::new())),
            list => list.split(',').map(positive).collect::<Result<_>>().map(Milestones),
        }
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
