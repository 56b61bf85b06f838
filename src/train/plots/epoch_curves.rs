//! Anything that is measured once an epoch.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::frame::{Axis, Frame};
use super::style::{
    BLUE, DASHED, DOTTED, Dash, GREEN, Key, LONG, PURPLE, Pen, SOLID, VERMILLION, head, line, px,
};
use super::{Drawn, Figure};

/// One line of [`EpochCurves`].
#[derive(Clone, Copy, Debug)]
pub struct EpochLine<'a> {
    /// As the legend shows it.
    pub name: &'a str,
    /// The value after epoch 1, 2, …; NaN where it was not measured, which leaves a gap.
    pub values: &'a [f64],
}

/// Lines over epochs.
#[derive(Clone, Debug)]
pub struct EpochCurves<'a> {
    /// One line on data set, noise and model; may be empty.
    pub title: &'a str,
    /// What the values are, with their unit.
    pub label: &'a str,
    /// The least length of the vertical axis, so that noise on a constant does not look like a
    /// change.
    pub least_range: f64,
    /// Drawn in this order; up to four are told apart.
    pub lines: Vec<EpochLine<'a>>,
}

impl<'a> EpochCurves<'a> {
    /// Test accuracies in percent, of a method and, if there is one, of the baseline with uniform
    /// weights.
    pub fn accuracy(title: &'a str, method: EpochLine<'a>, baseline: Option<&'a [f64]>) -> EpochCurves<'a> {
        let baseline = baseline.map(|values| EpochLine { name: "baseline, uniform weights", values });
        let lines = [method].into_iter().chain(baseline).collect();
        EpochCurves { title, label: "test accuracy (%)", least_range: 2.0, lines }
    }

    /// Mean losses in nats on training and meta batches.
    pub fn losses(title: &'a str, train: &'a [f64], meta: &'a [f64]) -> EpochCurves<'a> {
        let lines = vec![
            EpochLine { name: "training batches", values: train },
            EpochLine { name: "meta batches", values: meta },
        ];
        EpochCurves { title, label: "mean cross-entropy (nats)", least_range: 0.1, lines }
    }
}

const LOOKS: [(RGBColor, Dash); 4] = [(BLUE, SOLID), (VERMILLION, DASHED), (GREEN, LONG), (PURPLE, DOTTED)];

impl Figure for EpochCurves<'_> {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn<B> {
        let epochs = self.lines.iter().map(|line| line.values.len()).max().unwrap_or(0);
        // Some room beside the first and the last mark.
        let room = 0.02 * epochs as f64 + 0.2;
        let x = Axis { whole: true, ..Axis::new(1.0 - room, epochs.max(1) as f64 + room, "epoch") };
        let values = || self.lines.iter().flat_map(|line| line.values).copied();
        let y = Axis::around(values(), self.least_range, self.label);
        let pens = LOOKS.iter().cycle().map(|&(colour, dash)| Pen { colour, width: 2.2, dash });
        let legend: Vec<(Key, String)> = self
            .lines
            .iter()
            .zip(pens.clone())
            .map(|(line, pen)| (Key::Line(pen), line.name.to_string()))
            .collect();
        let top = head(area, self.title, &legend)?;
        let frame = Frame::draw(area, top, x, y, None)?;
        for (curve, pen) in self.lines.iter().zip(pens) {
            let points: Vec<Option<(i32, i32)>> = curve
                .values
                .iter()
                .zip(1..)
                .map(|(&value, epoch)| frame.pixel(f64::from(epoch), value))
                .collect();
            line(area, points.iter().copied(), pen)?;
            // Marks show the single measurements while there are few, and those that no line
            // touches.
            if epochs <= 40 || points.len() < 2 {
                for point in points.into_iter().flatten() {
                    area.draw(&Circle::new(point, px(2.6), pen.colour.filled()))?;
                }
            }
        }
        if values().all(|value| !value.is_finite()) {
            frame.say_empty(area)?;
        }
        frame.close(area)
    }
}
