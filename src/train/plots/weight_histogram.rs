//! The weights that training samples got.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::frame::{Axis, Frame};
use super::histogram::{Histogram, finite_count};
use super::style::{CLEAN, CORRUPTED, Key, head};
use super::{Drawn, Figure};
use crate::words::counted;

/// How the weights of samples with a right label and of those with a wrong one are distributed.
#[derive(Clone, Copy, Debug)]
pub struct WeightHistogram<'a> {
    /// One line on data set, noise and model; may be empty.
    pub title: &'a str,
    /// The weights of the training samples whose label is right.
    pub clean: &'a [f64],
    /// The weights of those whose label is wrong; empty where there is no noise.
    pub corrupted: &'a [f64],
}

impl Figure for WeightHistogram<'_> {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn<B> {
        let finite = self.clean.iter().chain(self.corrupted).copied().filter(|weight| weight.is_finite());
        let x = Axis::new(0.0, finite.fold(1.0, f64::max), "weight of a training sample");
        let groups = [(self.clean, CLEAN, "clean"), (self.corrupted, CORRUPTED, "corrupted")];
        let histograms =
            groups.map(|(weights, _, _)| Histogram::new(weights, 40, x.high, finite_count(weights)));
        let peak = histograms.iter().map(Histogram::peak).fold(0.0, f64::max);
        let y = Axis::new(0.0, 1.06 * peak, "share of each group (%)");
        let legend: Vec<(Key, String)> = groups
            .iter()
            .filter(|(weights, _, _)| finite_count(weights) > 0)
            .map(|(weights, colour, name)| {
                let n = finite_count(weights);
                let mean = weights.iter().filter(|weight| weight.is_finite()).sum::<f64>() / n as f64;
                (
                    Key::Area(*colour),
                    format!("{}, mean weight {mean:.2}", counted(n, &format!("{name} sample"))),
                )
            })
            .collect();
        let top = head(area, self.title, &legend)?;
        let frame = Frame::draw(area, top, x, y.clone(), None)?;
        for (histogram, (_, colour, _)) in histograms.iter().zip(groups) {
            histogram.draw(area, &frame, &y, colour)?;
        }
        if legend.is_empty() {
            frame.say_empty(area)?;
        }
        frame.close(area)
    }
}
