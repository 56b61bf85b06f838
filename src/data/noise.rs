//! Label noise. The corrupted label depends on the true class only, through a matrix C of
//! probabilities.

use std::fmt;
use std::str::FromStr;

use rand::RngExt;
use rand::seq::index::sample;

use crate::seed::{Stream, rng};
use crate::words::exact;
use crate::{Error, Result};

/// What is done to the training labels; K is the number of classes. Written `none`, `uniform:0.4`,
/// `flip:0.4`, `flip2:0.4`.
#[derive(Clone, Copy, Debug, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Noise {
    /// Labels stay.
    #[default]
    None,
    /// With this probability p a label is drawn anew from all K classes, the right one among them:
    /// C = (1−p) I + p/K. So p = 0.4 is 36% wrong labels on 10 classes.
    Uniform(f64),
    /// With this probability a label becomes the one wrong class that the seed chose for its class.
    Flip(f64),
    /// With half this probability each, a label becomes one of the two wrong classes that the seed
    /// chose for its class. (This is what the paper calls flip noise.)
    Flip2(f64),
}

/// Labels after [`Noise::corrupt`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrupted {
    /// `[n]`, as training sees them.
    pub labels: Vec<i32>,
    /// `[n]`, whether the label is really wrong (a redrawn label can be right).
    pub corrupted: Vec<bool>,
}

impl Noise {
    /// Applies the noise to `labels` `[n]`, each in `0..classes`. The same arguments give the same
    /// result.
    ///
    /// # Errors
    /// [`Error::Data`] if `flip` is asked of fewer than 2 classes, or `flip2` of fewer than 3, and
    /// for a label out of range; [`Error::Usage`] for a probability that is none.
    pub fn corrupt(self, labels: &[i32], classes: usize, seed: u64) -> Result<Corrupted> {
        let (p, needed) = match self {
            Noise::None => (0.0, 1),
            Noise::Uniform(p) => (p, 1),
            Noise::Flip(p) => (p, 2),
            Noise::Flip2(p) => (p, 3),
        };
        if !(0.0..=1.0).contains(&p) {
            return Err(Error::Usage(format!("--noise {self}: {p} is not a probability from 0 to 1")));
        }
        if classes < needed {
            return Err(Error::Data(format!(
                "--noise {self} needs at least {needed} classes and here are {classes}; take another --noise"
            )));
        }
        if let Some(label) = labels.iter().find(|&&label| label < 0 || label as usize >= classes) {
            return Err(Error::Data(format!("label {label} is out of range: there are {classes} classes")));
        }
        let wrong = wrong_classes(classes, needed - 1, seed);
        let mut rng = rng(seed, Stream::Noise, 0);
        let noisy: Vec<i32> = labels
            .iter()
            .map(|&label| {
                if !rng.random_bool(p) {
                    return label;
                }
                match self {
                    Noise::None => label,
                    Noise::Uniform(_) => rng.random_range(0..classes as i32),
                    Noise::Flip(_) => wrong[label as usize][0],
                    Noise::Flip2(_) => wrong[label as usize][usize::from(rng.random_bool(0.5))],
                }
            })
            .collect();
        let corrupted = noisy.iter().zip(labels).map(|(noisy, label)| noisy != label).collect();
        Ok(Corrupted { labels: noisy, corrupted })
    }
}

/// For each class `count` distinct other classes, chosen by the seed.
fn wrong_classes(classes: usize, count: usize, seed: u64) -> Vec<Vec<i32>> {
    let mut rng = rng(seed, Stream::NoiseTargets, 0);
    (0..classes)
        .map(|class| {
            // Drawn from the classes − 1 others: those from `class` on move up by one.
            let others = sample(&mut rng, classes - 1, count);
            others.iter().map(|other| (other + usize::from(other >= class)) as i32).collect()
        })
        .collect()
}

impl fmt::Display for Noise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Noise::None => f.write_str("none"),
            Noise::Uniform(p) => write!(f, "uniform:{}", exact(*p)),
            Noise::Flip(p) => write!(f, "flip:{}", exact(*p)),
            Noise::Flip2(p) => write!(f, "flip2:{}", exact(*p)),
        }
    }
}

impl FromStr for Noise {
    type Err = Error;

    fn from_str(text: &str) -> Result<Noise> {
        const FORMS: &str = "none, uniform:P, flip:P or flip2:P with a probability P from 0 to 1";
        let unknown = || Error::Usage(format!("--noise `{text}` is not known: write {FORMS}"));
        if text == "none" {
            return Ok(Noise::None);
        }
        let (name, p) = text.split_once(':').ok_or_else(unknown)?;
        let make = match name {
            "uniform" => Noise::Uniform,
            "flip" => Noise::Flip,
            "flip2" => Noise::Flip2,
            _ => return Err(unknown()),
        };
        match p.parse::<f64>() {
            // `abs` makes −0 to 0.
            Ok(p) if (0.0..=1.0).contains(&p) => Ok(make(p.abs())),
            _ => Err(Error::Usage(format!("--noise `{text}`: `{p}` is not a probability; write {FORMS}"))),
        }
    }
}

impl TryFrom<String> for Noise {
    type Error = Error;

    fn try_from(text: String) -> Result<Noise> {
        text.parse()
    }
}

impl From<Noise> for String {
    fn from(noise: Noise) -> String {
        noise.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: usize = 10;
    const EACH: usize = 4000;

    /// `counts[true class][label]` after the noise, of `EACH` samples a class.
    fn counts(noise: Noise, seed: u64) -> Vec<Vec<usize>> {
        let labels: Vec<i32> = (0..CLASSES * EACH).map(|i| (i % CLASSES) as i32).collect();
        let out = noise.corrupt(&labels, CLASSES, seed).unwrap();
        let mut counts = vec![vec![0; CLASSES]; CLASSES];
        for ((&label, &noisy), &corrupted) in labels.iter().zip(&out.labels).zip(&out.corrupted) {
            counts[label as usize][noisy as usize] += 1;
            assert_eq!(corrupted, label != noisy);
        }
        counts
    }

    /// Whether a binomial count of `EACH` tries is within 5 standard deviations of its mean.
    fn plausible(count: usize, p: f64) -> bool {
        let n = EACH as f64;
        (count as f64 - n * p).abs() <= 5.0 * (n * p * (1.0 - p)).sqrt()
    }

    #[test]
    fn uniform_redraws_from_all_classes() {
        for (p, seed) in [(0.4, 1), (0.6, 2), (1.0, 3)] {
            let counts = counts(Noise::Uniform(p), seed);
            for (class, row) in counts.iter().enumerate() {
                for (label, &count) in row.iter().enumerate() {
                    let probability = p / CLASSES as f64 + if label == class { 1.0 - p } else { 0.0 };
                    assert!(plausible(count, probability), "{class} → {label}: {count} of {EACH}");
                }
            }
        }
    }

    #[test]
    fn flips_go_to_fixed_wrong_classes() {
        for (noise, targets, p) in [(Noise::Flip(0.4), 1, 0.4), (Noise::Flip2(0.4), 2, 0.2)] {
            let counts = counts(noise, 5);
            for (class, row) in counts.iter().enumerate() {
                assert!(plausible(row[class], 0.6));
                let wrong: Vec<usize> = (0..CLASSES)
                    .filter(|&label| label != class)
                    .map(|label| row[label])
                    .filter(|&n| n > 0)
                    .collect();
                assert_eq!(wrong.len(), targets);
                assert!(wrong.iter().all(|&count| plausible(count, p)), "{wrong:?}");
            }
        }
    }

    #[test]
    fn targets_depend_on_the_seed_and_cover_all_wrong_classes() {
        let mut seen = std::collections::HashSet::new();
        for seed in 0..200 {
            for (class, wrong) in wrong_classes(4, 2, seed).into_iter().enumerate() {
                assert!(wrong[0] != wrong[1] && wrong.iter().all(|&label| label != class as i32));
                seen.insert((class, wrong));
            }
        }
        assert_eq!(seen.len(), 4 * 3 * 2); // every ordered pair of the three others
    }

    #[test]
    fn extremes() {
        let labels: Vec<i32> = (0..500).map(|i| i % 5).collect();
        for noise in [Noise::None, Noise::Uniform(0.0), Noise::Flip(0.0), Noise::Flip2(0.0)] {
            let out = noise.corrupt(&labels, 5, 1).unwrap();
            assert_eq!(out.labels, labels);
            assert!(!out.corrupted.contains(&true));
        }
        let all = Noise::Flip2(1.0).corrupt(&labels, 5, 1).unwrap();
        assert!(!all.corrupted.contains(&false));
        assert_eq!(all, Noise::Flip2(1.0).corrupt(&labels, 5, 1).unwrap());
        assert_ne!(all, Noise::Flip2(1.0).corrupt(&labels, 5, 2).unwrap());
        let few = Noise::Flip2(0.5).corrupt(&[0, 1], 2, 1).unwrap_err();
        assert_eq!(
            few.to_string(),
            "--noise flip2:0.5 needs at least 3 classes and here are 2; take another --noise"
        );
        assert!(Noise::Flip(0.5).corrupt(&[0, 0], 1, 1).is_err());
        assert!(Noise::Uniform(f64::NAN).corrupt(&[0, 0], 1, 1).is_err());
        assert!(Noise::Uniform(0.5).corrupt(&[0, 2], 2, 1).is_err());
        assert!(Noise::None.corrupt(&[0, -1], 2, 1).is_err());
    }

    #[test]
    fn written_form() {
        for text in ["none", "uniform:0.6", "flip:0.25", "flip2:1", "uniform:0"] {
            assert_eq!(text.parse::<Noise>().unwrap().to_string(), text);
        }
        for text in
            ["", "uniform", "uniform:", "uniform:1.01", "flip:-0.1", "flip2:NaN", "flop:0.1", "none:0"]
        {
            let error = text.parse::<Noise>().unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let message = error.to_string();
            assert!(message.starts_with("--noise `") && message.contains("uniform:P"), "{message}");
        }
        let json = serde_json::to_string(&Noise::Flip(0.2)).unwrap();
        assert_eq!(json, "\"flip:0.2\"");
        assert_eq!(serde_json::from_str::<Noise>(&json).unwrap(), Noise::Flip(0.2));
    }
}
