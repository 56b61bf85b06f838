//! Which class is taken for which.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::style::{BLUE, INK, PALE, Pen, READABLE, SIZE, SOLID, head, line, px, text};
use super::text::width;
use super::{Drawn, Figure};

/// A confusion matrix: a row a true class, a column a predicted one, each cell its share of the
/// row.
#[derive(Clone, Copy, Debug)]
pub struct Confusion<'a> {
    /// One line on method, data set, noise and model; may be empty.
    pub title: &'a str,
    /// Names of the classes.
    pub names: &'a [String],
    /// `[true][predicted]`, counts.
    pub counts: &'a [Vec<f64>],
}

impl Figure for Confusion<'_> {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn<B> {
        let classes = self.counts.len().max(1);
        let readable = classes <= READABLE;
        let top = head(area, self.title, &[])? + px(14.0);
        let (left, bottom) = (px(if readable { 150.0 } else { 70.0 }), px(f64::from(SIZE.1) - 46.0));
        let right = area.dim_in_pixel().0 as i32 - px(60.0);
        let x = |column: usize| left + (right - left) * column as i32 / classes as i32;
        let y = |row: usize| top + (bottom - top) * row as i32 / classes as i32;
        let centred = Pos::new(HPos::Center, VPos::Center);
        for (row, counts) in self.counts.iter().enumerate() {
            let total: f64 = counts.iter().sum();
            for (column, count) in counts.iter().enumerate() {
                let share = if total > 0.0 { count / total } else { 0.0 };
                let corners = [(x(column), y(row)), (x(column + 1), y(row + 1))];
                area.draw(&Rectangle::new(corners, BLUE.mix(share).filled()))?;
                if readable && share >= 0.005 {
                    let colour = if share > 0.55 { WHITE } else { INK };
                    let middle = ((x(column) + x(column + 1)) / 2, (y(row) + y(row + 1)) / 2);
                    let words = format!("{:.0}", 100.0 * share);
                    area.draw(&Text::new(words, middle, text(10.5, colour).pos(centred)))?;
                }
            }
        }
        let pen = Pen { colour: PALE, width: 0.5, dash: SOLID };
        for i in (0..=classes).filter(|i| readable || *i == 0 || *i == classes) {
            line(area, [Some((x(i), top)), Some((x(i), bottom))], pen)?;
            line(area, [Some((left, y(i))), Some((right, y(i)))], pen)?;
        }
        let step = classes.div_ceil(READABLE);
        for i in (0..classes).step_by(step) {
            let name = match self.names.get(i) {
                Some(name) if readable => format!("{name} {i}"),
                _ => i.to_string(),
            };
            let beside = (left - px(6.0), (y(i) + y(i + 1)) / 2);
            // A long name is made smaller rather than cut.
            let fits = f64::from(left - px(12.0)) / f64::from(width(&name, &text(10.5, INK)).max(1));
            area.draw(&Text::new(
                name,
                beside,
                text(10.5 * fits.min(1.0), INK).pos(Pos::new(HPos::Right, VPos::Center)),
            ))?;
            let below = ((x(i) + x(i + 1)) / 2, bottom + px(12.0));
            area.draw(&Text::new(i.to_string(), below, text(10.5, INK).pos(centred)))?;
        }
        let below = ((left + right) / 2, bottom + px(32.0));
        let label = "predicted class; rows: true class, shares in percent";
        area.draw(&Text::new(label, below, text(13.0, INK).pos(centred)))
    }
}
