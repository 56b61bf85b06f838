//! A sample's weight as a function of the loss.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::frame::{Axis, Frame};
use super::histogram::{Histogram, finite_count};
use super::style::{CLEAN, CORRUPTED, DASHED, DOTTED, GREY, INK, Key, Pen, SOLID, head, line};
use super::{Drawn, Figure};

/// The weight at several times of training, over the losses of the training samples: a method's
/// signature picture.
#[derive(Clone, Copy, Debug)]
pub struct WeightCurve<'a> {
    /// One line on data set, noise and model; may be empty.
    pub title: &'a str,
    /// The method, for the legend.
    pub method: &'a str,
    /// `[n]`, the losses at which the curves are known (cross-entropy in nats), ascending from 0;
    /// the last is the axis' end. Lines between them are straight, so 0.05 apart looks smooth.
    pub losses: &'a [f64],
    /// Name (such as `start`, `epoch 10`, `end`) and weights `[n]` of each curve in order of time;
    /// the last is drawn the strongest.
    pub curves: &'a [(String, Vec<f64>)],
    /// The losses of the training samples whose label is right, at the time of the last curve.
    pub clean: &'a [f64],
    /// The losses of those whose label is wrong; empty where there is no noise.
    pub corrupted: &'a [f64],
}

impl Figure for WeightCurve<'_> {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn<B> {
        let end = self.losses.iter().copied().filter(|loss| loss.is_finite()).fold(0.0, f64::max);
        let x = Axis::new(0.0, end, "loss of a training sample (nats; the last bin holds all above)");
        let weights = self.curves.iter().flat_map(|(_, weights)| weights).copied();
        let top = weights.filter(|weight| weight.is_finite()).fold(1.0, f64::max);
        let y = Axis::new(0.0, 1.04 * top, "weight of a training sample");

        let all = finite_count(self.clean) + finite_count(self.corrupted);
        let histogram = |values| Histogram::new(values, 48, x.high, all);
        let (clean, corrupted) = (histogram(self.clean), histogram(self.corrupted));
        let share =
            Axis::new(0.0, 1.1 * clean.peak().max(corrupted.peak()), "share of the training samples (%)");

        let pens = pens(self.curves.len());
        let mut legend: Vec<(Key, String)> = self
            .curves
            .iter()
            .zip(&pens)
            .map(|((name, _), pen)| (Key::Line(*pen), format!("{}, {name}", self.method)))
            .collect();
        for (values, colour, name) in [(self.clean, CLEAN, "clean"), (self.corrupted, CORRUPTED, "corrupted")]
        {
            if finite_count(values) > 0 {
                legend.push((Key::Area(colour), format!("losses, {name}")));
            }
        }
        let top = head(area, self.title, &legend)?;
        let frame = Frame::draw(area, top, x, y, (all > 0).then_some(&share))?;
        clean.draw(area, &frame, &share, CLEAN)?;
        corrupted.draw(area, &frame, &share, CORRUPTED)?;
        for ((_, weights), pen) in self.curves.iter().zip(pens) {
            let points = self.losses.iter().zip(weights).map(|(&loss, &weight)| frame.pixel(loss, weight));
            line(area, points, pen)?;
        }
        if all == 0 && self.curves.iter().all(|(_, weights)| finite_count(weights) == 0) {
            frame.say_empty(area)?;
        }
        frame.close(area)
    }
}

/// Black and solid for the last curve, grey with dashes for those before.
fn pens(curves: usize) -> Vec<Pen> {
    let earlier =
        [Pen { colour: GREY, width: 1.8, dash: DOTTED }, Pen { colour: GREY, width: 1.8, dash: DASHED }];
    let mut pens: Vec<Pen> = earlier.into_iter().cycle().take(curves.saturating_sub(1)).collect();
    pens.push(Pen { colour: INK, width: 2.6, dash: SOLID });
    pens
}
