//! Which values an axis spans, and its ticks.

/// An axis: what it is called, and what it spans.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Axis {
    /// What the values are, with their unit.
    pub label: String,
    /// Its ends; where they are not given, those of the values with a little room.
    pub range: Option<(f64, f64)>,
    /// The least length where ends are not given, so that noise on a constant does not look like a
    /// change.
    pub least: f64,
    /// Only whole numbers get ticks.
    pub whole: bool,
    /// What stands at 0, 1, … instead of the numbers, if anything does.
    pub names: Vec<String>,
}

impl Axis {
    /// An axis over the values that there are.
    pub fn new(label: impl Into<String>) -> Axis {
        Axis { label: label.into(), least: 1e-9, ..Axis::default() }
    }

    /// The same from one end to another; an empty or unusable range becomes 0 … 1.
    pub fn over(self, low: f64, high: f64) -> Axis {
        let usable = low.is_finite() && high.is_finite() && high > low;
        Axis { range: Some(if usable { (low, high) } else { (0.0, 1.0) }), ..self }
    }

    /// The same, at least so long.
    pub fn at_least(self, least: f64) -> Axis {
        Axis { least, ..self }
    }

    /// The same with ticks at whole numbers only.
    pub fn whole(self) -> Axis {
        Axis { whole: true, ..self }
    }

    /// The same over 0, 1, …, each with its name; of `count` without names, with the numbers.
    pub fn named(self, names: Vec<String>, count: usize) -> Axis {
        Axis { names, whole: true, ..self }.over(-0.5, count as f64 - 0.5)
    }

    /// The same with ends: those of all finite values, if there were none.
    pub(super) fn fitted(&self, values: impl Iterator<Item = f64>) -> Axis {
        if self.range.is_some() {
            return self.clone();
        }
        let (low, high) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let room = 0.06 * (high - low) + 0.5 * (self.least - (high - low)).max(0.0);
        self.clone().over(low - room, high + room)
    }

    pub(super) fn ends(&self) -> (f64, f64) {
        self.range.unwrap_or((0.0, 1.0))
    }

    /// Where `value` lies between the low end (0) and the high one (1), within them.
    pub(super) fn place(&self, value: f64) -> f64 {
        let (low, high) = self.ends();
        ((value - low) / (high - low)).clamp(0.0, 1.0)
    }

    /// Ticks at round numbers (1, 2 or 5 times a power of ten apart), about `count` of them, with
    /// their texts.
    pub(super) fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        let (low, high) = self.ends();
        if !self.names.is_empty() {
            return (0..).map(f64::from).zip(self.names.iter().cloned()).collect();
        }
        let rough = (high - low) / count.max(1) as f64;
        let power = 10_f64.powf(rough.log10().floor());
        let distance = |step: f64| (step / rough).ln().abs();
        let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        let mut step = steps.into_iter().fold(power, |a, b| if distance(b) < distance(a) { b } else { a });
        if self.whole {
            step = step.max(1.0).round();
        }
        let digits = (-step.log10().floor()).max(0.0) as usize;
        let first = (low / step - 1e-9).ceil();
        (0..=4 * count)
            // `+ 0.0` makes −0 to 0.
            .map(|i| (first + i as f64) * step + 0.0)
            .take_while(|tick| *tick <= high + 1e-9 * step)
            .map(|tick| {
                // There is room for six figures.
                let places = (tick.abs().log10().floor() - step.log10().floor()).max(0.0) as usize;
                let text = match step {
                    1e-5..1e4 => format!("{tick:.digits$}"),
                    _ if tick == 0.0 => "0".to_owned(),
                    _ => format!("{tick:.places$e}"),
                };
                (tick, text.replace('-', "−"))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(low: f64, high: f64, count: usize) -> Vec<String> {
        Axis::new("").over(low, high).ticks(count).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_and_cover_the_axis() {
        assert_eq!(texts(0.0, 8.0, 9), ["0", "1", "2", "3", "4", "5", "6", "7", "8"]);
        assert_eq!(texts(0.0, 1.0, 6), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(texts(-0.3, 0.25, 6), ["−0.3", "−0.2", "−0.1", "0.0", "0.1", "0.2"]);
        assert_eq!(texts(70.2, 80.9, 6), ["72", "74", "76", "78", "80"]);
        assert_eq!(texts(0.0, 2.5e-4, 5), ["0.00000", "0.00005", "0.00010", "0.00015", "0.00020", "0.00025"]);
        let classes = Axis::new("").named(["ant", "bee"].map(str::to_owned).to_vec(), 2);
        assert_eq!(classes.ticks(9), [(0.0, "ant".to_owned()), (1.0, "bee".to_owned())]);
        let epochs = Axis::new("").whole().over(1.0, 3.0);
        assert_eq!(epochs.ticks(9).iter().map(|tick| tick.0).collect::<Vec<_>>(), [1.0, 2.0, 3.0]);
        assert_eq!(texts(0.0, 5e7, 6), ["0", "1e7", "2e7", "3e7", "4e7", "5e7"]);
        assert_eq!(texts(1.46e6, 1.62e6, 5), ["1.50e6", "1.55e6", "1.60e6"]);
        let wide = texts(-1e300, 1e300, 6);
        assert!((3..=30).contains(&wide.len()));
    }

    #[test]
    fn ranges_that_are_none_are_replaced() {
        for (low, high) in [(f64::NAN, 1.0), (2.0, 2.0), (3.0, 1.0), (0.0, f64::INFINITY)] {
            assert_eq!(Axis::new("").over(low, high).ends(), (0.0, 1.0));
        }
        let around = |values: &[f64]| Axis::new("").at_least(2.0).fitted(values.iter().copied()).ends();
        assert_eq!(around(&[5.0, f64::NAN, 5.0]), (4.0, 6.0));
        assert_eq!(around(&[f64::NAN]), (0.0, 1.0));
    }
}
