//! Counting values into bins, and drawing the counts.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::Drawn;
use super::frame::{Axis, Frame};
use super::style::{Pen, SOLID, line, shade};

/// Shares in percent of values in bins of equal width over `0..=high`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Histogram {
    pub high: f64,
    pub shares: Vec<f64>,
}

impl Histogram {
    /// Counts the finite `values` into `bins`; those beyond an end go into the bin there. Shares
    /// are of `of` values.
    pub fn new(values: &[f64], bins: usize, high: f64, of: usize) -> Histogram {
        let mut counts = vec![0_usize; bins];
        for value in values.iter().filter(|value| value.is_finite()) {
            // The cast takes what is below 0 to 0.
            counts[((value / high * bins as f64) as usize).min(bins - 1)] += 1;
        }
        let share = |count| 100.0 * count as f64 / of.max(1) as f64;
        Histogram { high, shares: counts.into_iter().map(share).collect() }
    }

    /// The largest share.
    pub fn peak(&self) -> f64 {
        self.shares.iter().copied().fold(0.0, f64::max)
    }

    /// Draws a shaded outline over the frame's horizontal axis, with heights on `axis`.
    pub fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        frame: &Frame,
        axis: &Axis,
        colour: RGBColor,
    ) -> Drawn<B> {
        if self.peak() == 0.0 {
            return Ok(());
        }
        let width = self.high / self.shares.len() as f64;
        let mut outline = vec![(frame.x_pixel(0.0), frame.y_pixel(axis, 0.0))];
        for (bin, &share) in self.shares.iter().enumerate() {
            let y = frame.y_pixel(axis, share);
            outline.push((frame.x_pixel(bin as f64 * width), y));
            outline.push((frame.x_pixel((bin + 1) as f64 * width), y));
        }
        outline.push((frame.x_pixel(self.high), frame.y_pixel(axis, 0.0)));
        area.draw(&Polygon::new(outline.clone(), shade(colour).filled()))?;
        line(area, outline.into_iter().map(Some), Pen { colour, width: 0.9, dash: SOLID })
    }
}

/// How many of `values` can be drawn.
pub(super) fn finite_count(values: &[f64]) -> usize {
    values.iter().filter(|value| value.is_finite()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_value_is_counted_once() {
        let values = [0.0, 0.4, 0.5, 1.0, 7.0, -1.0, f64::NAN, f64::INFINITY];
        let histogram = Histogram::new(&values, 2, 1.0, finite_count(&values));
        assert_eq!(histogram.shares, [50.0, 50.0]);
        assert_eq!(Histogram::new(&[], 3, 1.0, 0).shares, [0.0; 3]);
    }
}
