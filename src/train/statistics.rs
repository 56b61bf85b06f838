//! Values over seeds: their spread, and differences taken seed by seed.

use std::fmt;

use serde::Serialize;

/// Mean and standard deviation over seeds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The sample standard deviation; none of one value.
    pub std: Option<f64>,
}

/// A mean of paired differences with its 95% interval by Student's t, which is never narrower than
/// one test image.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Difference {
    /// The mean, in points of accuracy.
    pub mean: f64,
    /// Half of the interval's width, or what one test image makes in accuracy if that is more: so
    /// for pairs that all differ by the same. None of one pair.
    pub half_width: Option<f64>,
}

/// Two-sided 95% quantiles of Student's t for 1, 2, … 30 degrees of freedom.
const T95: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

impl Spread {
    /// Of some values; none of nothing.
    pub fn of(values: &[f64]) -> Option<Spread> {
        if values.is_empty() {
            return None;
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        Some(Spread { mean, std: (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()) })
    }

    /// Whether the mean is higher; of means that only rounding tells apart, whether the deviation
    /// is smaller.
    pub fn above(&self, other: &Spread) -> bool {
        let equal = (self.mean - other.mean).abs() <= 1e-9 * self.mean.abs();
        if equal { self.std < other.std } else { self.mean > other.mean }
    }
}

impl Difference {
    /// Of differences, pair by pair; none of nothing. `image` is what one test image makes in
    /// accuracy: a few seeds that happen to differ by the same one or two images are no finding.
    pub fn of(differences: &[f64], image: f64) -> Option<Difference> {
        let Spread { mean, std } = Spread::of(differences)?;
        let n = differences.len();
        let t = || T95.get(n - 2).copied().unwrap_or(1.96);
        let half_width = std.map(|s| (t() * s / (n as f64).sqrt()).max(image));
        Some(Difference { mean, half_width })
    }

    /// Whether the interval leaves out 0, and then on which side the difference lies; of one pair
    /// nothing is known.
    pub fn beyond_spread(&self) -> Option<bool> {
        self.half_width.map(|half| self.mean.abs() > half)
    }

    /// Whether it lies beyond the spread, below.
    pub fn loses(&self) -> bool {
        self.beyond_spread() == Some(true) && self.mean < 0.0
    }

    /// Whether it lies beyond the spread, above.
    pub fn wins(&self) -> bool {
        self.beyond_spread() == Some(true) && self.mean > 0.0
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.std {
            Some(std) => format!("{:.2} ± {std:.2}", self.mean),
            None => format!("{:.2}", self.mean),
        };
        f.pad(&text.replace('-', "−"))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.half_width {
            Some(half) => format!("{:+.2} ± {half:.2}", self.mean),
            None => format!("{:+.2}", self.mean),
        };
        f.pad(&text.replace('-', "−"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_means_are_told_apart_by_their_deviations() {
        let spread = |mean, std| Spread { mean, std: Some(std) };
        let (wide, narrow, high) =
            (spread(83.06666666666668, 2.0), spread(83.06666666666666, 0.3), spread(83.2, 0.5));
        assert!(wide.mean > narrow.mean, "by rounding");
        assert!(narrow.above(&wide) && !wide.above(&narrow) && !wide.above(&wide));
        assert!(high.above(&narrow) && !narrow.above(&high));
    }

    #[test]
    fn intervals_are_students() {
        // By hand: differences 1, 2, 3; mean 2, s = 1, half = 4.303/√3.
        let difference = Difference::of(&[1.0, 2.0, 3.0], 0.02).unwrap();
        assert!((difference.mean - 2.0).abs() < 1e-12);
        assert!((difference.half_width.unwrap() - 4.303 / 3f64.sqrt()).abs() < 1e-12);
        assert_eq!(difference.beyond_spread(), Some(false));
        let one = Difference::of(&[1.0], 0.02).unwrap();
        assert_eq!((one.mean, one.half_width, one.beyond_spread()), (1.0, None, None));
        assert_eq!(Difference::of(&[], 0.02), None);
        let same = Difference::of(&[0.0, 0.0], 0.02).unwrap();
        assert_eq!((same.half_width, same.beyond_spread()), (Some(0.02), Some(false)));
    }
}
