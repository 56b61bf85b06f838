//! Many lines in one frame, told apart by colour and dash.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::frame::{Axis, Frame};
use super::style::{
    BLUE, DASHED, DOTTED, GREEN, GREY, INK, Key, ORANGE, PURPLE, Pen, READABLE, SKY, SOLID, VERMILLION, head,
    line, px,
};
use super::{Drawn, Figure};

/// One line of [`Lines`].
#[derive(Clone, PartialEq, Debug)]
pub struct Line {
    /// As the legend shows it.
    pub name: String,
    /// Which of the twenty-four looks it has, so that a method looks the same in all figures.
    pub look: usize,
    /// From left to right; one that is not finite leaves a gap.
    pub points: Vec<(f64, f64)>,
}

/// Up to twenty-four lines over a common axis.
#[derive(Clone, PartialEq, Debug)]
pub struct Lines<'a> {
    /// One line on data set, noise and model; may be empty.
    pub title: &'a str,
    /// What runs along the bottom, with its unit.
    pub across: &'a str,
    /// What runs upwards, with its unit.
    pub up: &'a str,
    /// Whether the horizontal axis has ticks at whole numbers only.
    pub whole: bool,
    /// Of whole numbers along the bottom, what stands there instead of them; up to twenty are
    /// legible, of more the numbers are shown.
    pub names: &'a [String],
    /// Ends of the vertical axis, if not those of the values.
    pub range: Option<(f64, f64)>,
    /// Drawn in this order.
    pub lines: Vec<Line>,
}

const COLOURS: [RGBColor; 8] = [INK, BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY];

impl Figure for Lines<'_> {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn<B> {
        let points = || self.lines.iter().flat_map(|line| line.points.iter().copied());
        let named = if self.names.len() <= READABLE { self.names.to_vec() } else { Vec::new() };
        let across = Axis::around(points().map(|p| p.0), 1e-9, self.across);
        let x = Axis { whole: self.whole, names: named, ..across };
        let y = match self.range {
            Some((low, high)) => Axis::new(low, high, self.up),
            None => Axis::around(points().map(|p| p.1), 2.0, self.up),
        };
        let pens: Vec<Pen> = [SOLID, DASHED, DOTTED]
            .into_iter()
            .flat_map(|dash| COLOURS.map(|colour| Pen { colour, width: 2.0, dash }))
            .collect();
        let pens: Vec<Pen> = self.lines.iter().map(|line| pens[line.look % pens.len()]).collect();
        let legend: Vec<(Key, String)> =
            self.lines.iter().zip(&pens).map(|(line, pen)| (Key::Line(*pen), line.name.clone())).collect();
        let top = head(area, self.title, &legend)?;
        let frame = Frame::draw(area, top, x, y, None)?;
        for (curve, pen) in self.lines.iter().zip(&pens) {
            let places: Vec<_> = curve.points.iter().map(|&(x, y)| frame.pixel(x, y)).collect();
            line(area, places.iter().copied(), *pen)?;
            // Marks show single measurements while there are few.
            if places.len() <= 12 {
                for place in places.into_iter().flatten() {
                    area.draw(&Circle::new(place, px(2.4), pen.colour.filled()))?;
                }
            }
        }
        if points().all(|p| !p.1.is_finite()) {
            frame.say_empty(area)?;
        }
        frame.close(area)
    }
}
