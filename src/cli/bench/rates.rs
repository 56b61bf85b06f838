//! What machines can do at most, and how long a step must take on them.

use std::borrow::Cow;
use std::path::Path;
use std::str::FromStr;

use metatape::backend::cpu::rates::{copy_rate, multiply_add_rate};
use metatape::backend::cpu::team::Team;
use metatape::file::{named, read_text};
use metatape::train::values::Precision;
use metatape::words::counted;
use metatape::{Error, Result};
use serde_json::{Value, json};

use super::forecast::Forecast;
use crate::cli::cuda;
use crate::cli::report;

/// Seconds from the begin of one command of a captured graph to that of the next where the next
/// waits for it and neither has much to do. An assumption, of no data sheet.
const LAUNCH: f64 = 1.3e-6;

/// A card's figures.
#[derive(Clone, PartialEq, Debug)]
pub struct Card {
    /// For people.
    name: Cow<'static, str>,
    /// Where the figures are from.
    source: Cow<'static, str>,
    /// TB/s of its memory.
    bandwidth_tb_s: f64,
    /// TFLOP/s in f32, tf32, bf16, of dense matrices.
    tflop_s: [f64; 3],
}

/// The fields of a file of rates, but for its name.
const BANDWIDTH: &str = "bandwidth_tb_s";
const OPERATIONS: [&str; 3] = ["f32_tflop_s", "tf32_tflop_s", "bf16_tflop_s"];

/// Known cards: the name on the command line, the driver's name, the figures.
const KNOWN: [(&str, &str, Card); 3] = [
    (
        "h100",
        "NVIDIA H100 80GB HBM3",
        Card {
            name: Cow::Borrowed("H100 SXM"),
            source: Cow::Borrowed(
                "data sheet \"NVIDIA H100 Tensor Core GPU\"; tensor cores dense, as in the white paper \"NVIDIA H100 Tensor Core \
                 GPU Architecture\"",
            ),
            bandwidth_tb_s: 3.35,
            tflop_s: [67.0, 494.7, 989.4],
        },
    ),
    (
        "h200",
        "NVIDIA H200",
        Card {
            name: Cow::Borrowed("H200 SXM"),
            source: Cow::Borrowed(
                "data sheet \"NVIDIA H200 Tensor Core GPU\"; tensor cores dense, as the H100's",
            ),
            bandwidth_tb_s: 4.8,
            tflop_s: [67.0, 494.7, 989.4],
        },
    ),
    (
        "a100",
        "NVIDIA A100-SXM4-80GB",
        Card {
            name: Cow::Borrowed("A100 80GB SXM"),
            source: Cow::Borrowed("data sheet \"NVIDIA A100 Tensor Core GPU\"; tensor cores dense"),
            bandwidth_tb_s: 2.039,
            tflop_s: [19.5, 156.0, 312.0],
        },
    ),
];

/// A known card's name, or a file's.
impl FromStr for Card {
    type Err = Error;

    fn from_str(name: &str) -> Result<Card> {
        if let Some((_, _, card)) = KNOWN.iter().find(|known| known.0 == name) {
            return Ok(card.clone());
        }
        if !named(Path::new(name)) {
            return Err(Error::Usage(format!(
                "`{name}` is neither one of h100, h200, a100 nor a file of rates"
            )));
        }
        let text = read_text(Path::new(name), "read")?;
        Card::parse(&text).map_err(|what| {
            Error::Usage(format!(
                "{name}: {what}; a file of rates has the fields name, {BANDWIDTH}, {}",
                OPERATIONS.join(", ")
            ))
        })
    }
}

impl Card {
    /// The figures of a GPU as sessions describe it (`cuda:0 NVIDIA H200, f32`), if it is one of
    /// the known ones.
    pub fn of_device(description: &str) -> Option<Card> {
        let name = description.split_once(' ')?.1.rsplit_once(", ")?.0;
        KNOWN.iter().find(|known| known.1 == name).map(|known| known.2.clone())
    }

    fn parse(text: &str) -> std::result::Result<Card, String> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| e.message().to_owned())?;
        let known = |field: &&String| {
            let field = field.as_str();
            field == "name" || field == BANDWIDTH || OPERATIONS.contains(&field)
        };
        if let Some(field) = table.keys().find(|field| !known(field)) {
            return Err(format!("there is no field `{field}`"));
        }
        let get = |field: &str| table.get(field).ok_or_else(|| format!("the field `{field}` is missing"));
        let number = |field: &str| {
            let value = get(field)?;
            let number = value.as_float().or_else(|| value.as_integer().map(|i| i as f64));
            let positive = number.filter(|n| *n > 0.0 && n.is_finite());
            positive.ok_or_else(|| format!("`{field}` is {value}, not a number above 0"))
        };
        let name = get("name")?;
        let name = name.as_str().ok_or_else(|| format!("`name` is {name}, not a text"))?;
        let [f32, tf32, bf16] = OPERATIONS.map(number);
        Ok(Card {
            name: name.to_owned().into(),
            source: "a file of rates".into(),
            bandwidth_tb_s: number(BANDWIDTH)?,
            tflop_s: [f32?, tf32?, bf16?],
        })
    }

    /// What it does in a precision.
    pub fn rates(&self, precision: cuda::Precision) -> Rates {
        let tflop_s = match precision {
            cuda::Precision::F32 => self.tflop_s[0],
            cuda::Precision::Tf32 => self.tflop_s[1],
            cuda::Precision::Bf16 => self.tflop_s[2],
        };
        Rates {
            name: self.name.clone(),
            source: self.source.clone(),
            bytes: self.bandwidth_tb_s * 1e12,
            flops: tflop_s * 1e12,
            launch: Some(LAUNCH),
        }
    }
}

/// What a machine does at most.
#[derive(Clone, PartialEq, Debug)]
pub struct Rates {
    /// The machine, for people.
    name: Cow<'static, str>,
    /// Where the rates are from.
    source: Cow<'static, str>,
    /// Bytes a second.
    bytes: f64,
    /// Floating-point operations a second.
    flops: f64,
    /// Seconds of a launch; `None` where there are none.
    launch: Option<f64>,
}

impl Rates {
    /// This machine's CPU, measured now: multiply-adds in registers, and a copy within as much
    /// memory as each of the programs has.
    ///
    /// # Errors
    /// If the system refuses the threads or the memory.
    pub fn of_cpu<const N: usize>(
        threads: usize,
        precision: Precision,
        memory: [usize; N],
    ) -> Result<[Rates; N]> {
        /// Less is not worth a copy; of more, all is beyond every cache.
        const MEMORY: [usize; 2] = [1 << 16, 1 << 28];
        let mut team = Team::new(threads)?;
        let flops = match precision {
            Precision::F64 => multiply_add_rate::<f64>(&mut team),
            _ => multiply_add_rate::<f32>(&mut team),
        };
        let mut all = Vec::with_capacity(N);
        for memory in memory {
            let memory = memory.clamp(MEMORY[0], MEMORY[1]);
            all.push(Rates {
                name: "this CPU".into(),
                source: format!(
                    "measured on {}, copying within {}",
                    counted(threads, "thread"),
                    report::mib(memory)
                )
                .into(),
                bytes: copy_rate(&mut team, memory)?,
                flops,
                launch: None,
            });
        }
        Ok(all.try_into().unwrap_or_else(|_| unreachable!("one for each")))
    }

    /// For people.
    pub fn describe(&self) -> String {
        let per_second = |rate: f64, unit| match rate >= 1e12 {
            true => format!("{} T{unit}/s", rate / 1e12),
            false => format!("{:.1} G{unit}/s", rate / 1e9),
        };
        let launch = self.launch.map_or(String::new(), |l| format!(", {} µs a launch (assumed)", l * 1e6));
        let (bytes, flops) = (per_second(self.bytes, "B"), per_second(self.flops, "FLOP"));
        format!("{}: {bytes}, {flops}{launch}; {}", self.name, self.source)
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "source": self.source,
            "tb_per_s": self.bytes / 1e12,
            "tflop_per_s": self.flops / 1e12,
            "us_per_launch": self.launch.map(|l| l * 1e6),
        })
    }
}

/// How long a step must take at a machine's rates, in milliseconds, for each reason alone.
pub struct Floor {
    pub bytes: f64,
    pub operations: f64,
    pub launches: Option<f64>,
    rates: Rates,
}

impl Floor {
    pub fn new(forecast: &Forecast, rates: Rates) -> Floor {
        let all = &forecast.all;
        Floor {
            bytes: all.work.bytes() as f64 / rates.bytes * 1e3,
            operations: forecast.flops as f64 / rates.flops * 1e3,
            launches: rates.launch.map(|launch| all.told() as f64 * launch * 1e3),
            rates,
        }
    }

    /// The largest of all, and its reason.
    pub fn binding(&self) -> (f64, &'static str) {
        let reasons = [(self.bytes, "bytes"), (self.operations, "operations")];
        let launches = self.launches.map(|ms| (ms, "launches"));
        reasons.into_iter().chain(launches).fold((0.0, "nothing"), |a, b| if b.0 > a.0 { b } else { a })
    }

    /// The largest of all, in milliseconds.
    pub fn ms(&self) -> f64 {
        self.binding().0
    }

    /// What the rates are and where they are from, in lines; once where both floors have the same.
    pub fn rates(floors: &[&Floor; 2]) -> String {
        let mut lines = floors.map(|floor| report::wrap(&floor.rates.describe())).to_vec();
        lines.dedup();
        lines.join("\n")
    }

    pub fn json(&self) -> Value {
        json!({
            "ms": self.ms(),
            "binds": self.binding().1,
            "bytes_ms": self.bytes,
            "operations_ms": self.operations,
            "launches_ms": self.launches,
            "rates": self.rates.json(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "name = \"X\"\nbandwidth_tb_s = 2\nf32_tflop_s = 3.5\ntf32_tflop_s = 7\nbf16_tflop_s = 14\n";

    #[test]
    fn a_file_of_rates_is_read_and_its_mistakes_are_named() {
        let card = Card::parse(GOOD).unwrap();
        let rates = card.rates(cuda::Precision::Tf32);
        assert_eq!((rates.bytes, rates.flops, rates.launch), (2e12, 7e12, Some(LAUNCH)));
        for (from, to, part) in [
            ("tf32_tflop_s = 7\n", "", "`tf32_tflop_s` is missing"),
            ("bandwidth_tb_s = 2", "bandwidth_tb_s = \"2\"", "`bandwidth_tb_s` is \"2\", not a number"),
            ("bf16_tflop_s = 14", "bf16_tflop_s = 0", "`bf16_tflop_s` is 0, not a number above 0"),
            ("f32_tflop_s = 3.5", "f32_tflop_s = inf", "`f32_tflop_s` is inf"),
            ("name = \"X\"", "name = 3", "`name` is 3, not a text"),
            ("name = \"X\"", "name = \"X\"\nwatts = 700", "no field `watts`"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD);
            let error = Card::parse(&text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert!(Card::parse("name = ").is_err());
    }

    /// Cards of a similar name (PCIe, NVL, parts of one) are slower.
    #[test]
    fn a_device_is_known_by_its_whole_name() {
        let card = |device: &str| Card::of_device(&format!("cuda:0 {device}, bf16")).map(|c| c.name);
        assert_eq!(card("NVIDIA H100 80GB HBM3").as_deref(), Some("H100 SXM"));
        assert_eq!(card("NVIDIA H200").as_deref(), Some("H200 SXM"));
        assert_eq!(card("NVIDIA A100-SXM4-80GB").as_deref(), Some("A100 80GB SXM"));
        for other in ["NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "simulator"]
        {
            assert_eq!(card(other), None, "{other}");
        }
    }
}
