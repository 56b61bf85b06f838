//! Parsers of single values. Where the library has a `FromStr`, clap uses that; these are the rest.

use std::fmt;
use std::str::FromStr;

use metatape::nn::{Network, WeightNetInit};
use metatape::{Error, Result};

/// The weight net's first values by name, the default first.
pub const WEIGHT_NET_INITS: [(&str, WeightNetInit); 1] = [("faithful", WeightNetInit::Faithful)];

/// `--weight-net-init`.
pub fn weight_net_init(name: &str) -> Result<WeightNetInit> {
    let found = WEIGHT_NET_INITS.iter().find(|(known, _)| *known == name);
    found.map(|(_, init)| *init).ok_or_else(|| {
        let names = WEIGHT_NET_INITS.map(|(known, _)| known).join(", ");
        Error::Usage(format!("there is no weight-net initialisation `{name}`; choose one of {names}"))
    })
}

/// `--model`: a name that [`Network::named`] knows.
pub fn model(name: &str) -> Result<String> {
    Network::named(name, [32, 32, 3], 10).map(|_| name.to_owned())
}

/// A count of at least 1.
pub fn positive(text: &str) -> Result<usize> {
    match text.parse::<usize>() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(Error::Usage(format!("`{text}` is not a whole number of at least 1"))),
    }
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

/// Whether each of `text`'s forms is one of a few names.
macro_rules! choice {
    ($(#[$doc:meta])* $type:ident, $what:literal, $($(#[$case_doc:meta])* $case:ident = $name:literal),+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $type { $($(#[$case_doc])* $case),+ }

        impl FromStr for $type {
            type Err = Error;
            fn from_str(name: &str) -> Result<$type> {
                match name {
                    $($name => Ok($type::$case),)+
                    _ => Err(Error::Usage(format!(
                        "there is no {} `{name}`; choose one of {}", $what, [$($name),+].join(", ")
                    ))),
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $($type::$case => $name),+ })
            }
        }
    };
}

choice!(
    /// The floating-point numbers of a run.
    Precision, "precision",
    /// Single.
    F32 = "f32",
    /// Double.
    F64 = "f64"
);

/// Where to compute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceChoice {
    /// The best there is: the CPU, as long as that is the only backend.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<DeviceChoice> {
        let unknown = || Error::Usage(format!("there is no device `{name}`; choose one of auto, cpu, cuda, cuda:N"));
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
