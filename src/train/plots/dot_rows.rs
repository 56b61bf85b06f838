//! Single values and their mean, a row for each thing that is compared.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::frame::Axis;
use super::style::{BLUE, DASHED, GREY, INK, PALE, Pen, SOLID, VERMILLION, head, line, px, text};
use super::text::width;
use super::{Drawn, Figure};

/// One row.
#[derive(Clone, PartialEq, Debug)]
pub struct DotRow {
    /// As it stands on the left.
    pub name: String,
    /// One dot each; those that are not finite are left out.
    pub values: Vec<f64>,
}

/// Rows of dots over one axis, each with a bar at its mean.
#[derive(Clone, Debug)]
pub struct DotRows<'a> {
    /// One line on the setting; may be empty.
    pub title: &'a str,
    /// What the values are, with their unit.
    pub label: &'a str,
    /// From above.
    pub rows: &'a [DotRow],
    /// Where a vertical line helps to compare.
    pub reference: Option<f64>,
}

impl Figure for DotRows<'_> {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn<B> {
        let top = head(area, self.title, &[])? + px(4.0);
        let (wide, high) = area.dim_in_pixel();
        let (right, bottom) = (wide as i32 - px(20.0), high as i32 - px(48.0));
        let distance = (bottom - top) / self.rows.len().max(1) as i32;
        let size = 12.0f64.min(0.8 * f64::from(distance) / f64::from(px(1.0)));
        let names = self.rows.iter().map(|row| width(&row.name, &text(size, INK))).max().unwrap_or(0);
        let left = px(24.0) + names * 9 / 8;
        let values = self.rows.iter().flat_map(|row| &row.values).copied().chain(self.reference);
        let axis = Axis::around(values, 0.1, self.label);
        let x = |value: f64| {
            let share = ((value - axis.low) / (axis.high - axis.low)).clamp(0.0, 1.0);
            left + (share * f64::from(right - left)).round() as i32
        };
        let pen = |colour, width, dash| Pen { colour, width, dash };
        for (value, name) in axis.ticks(8) {
            let at = x(value);
            line(area, [Some((at, top)), Some((at, bottom))], pen(PALE, 0.7, SOLID))?;
            let style = text(11.5, INK).pos(Pos::new(HPos::Center, VPos::Top));
            area.draw(&Text::new(name, (at, bottom + px(7.0)), style))?;
        }
        let style = text(13.0, INK).pos(Pos::new(HPos::Center, VPos::Center));
        area.draw(&Text::new(self.label.to_owned(), ((left + right) / 2, bottom + px(34.0)), style))?;
        if let Some(value) = self.reference {
            line(area, [Some((x(value), top)), Some((x(value), bottom))], pen(GREY, 1.0, DASHED))?;
        }
        for (i, row) in self.rows.iter().enumerate() {
            let at = top + distance * i as i32 + distance / 2;
            let style = text(size, INK).pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(row.name.clone(), (left - px(8.0), at + px(0.09 * size)), style))?;
            line(area, [Some((left, at)), Some((right, at))], pen(PALE, 0.5, SOLID))?;
            let finite: Vec<f64> = row.values.iter().copied().filter(|v| v.is_finite()).collect();
            for value in &finite {
                area.draw(&Circle::new((x(*value), at), px(3.0), BLUE.mix(0.6).filled()))?;
            }
            if !finite.is_empty() {
                let mean = x(finite.iter().sum::<f64>() / finite.len() as f64);
                let half = (distance * 3 / 10).min(px(8.0));
                let ends = [Some((mean, at - half)), Some((mean, at + half))];
                line(area, ends, pen(VERMILLION, 2.2, SOLID))?;
            }
        }
        let corners = [(left, top), (left, bottom), (right, bottom)];
        line(area, corners.map(Some), pen(INK, 1.0, SOLID))
    }
}
