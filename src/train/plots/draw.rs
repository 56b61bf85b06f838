//! From a chart to strokes and texts.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::Axis;
use super::style::{
    BLUE, DASHED, GREY, INK, PALE, Pen, READABLE, SIZE, SOLID, VERMILLION, head, line, px, shade, text,
    upward,
};
use super::text::width;
use super::{Chart, Drawn, Layer};

const TICK_SIZE: f64 = 11.5;
const LABEL_SIZE: f64 = 13.0;
const THIN: Pen = Pen { colour: INK, width: 1.0, dash: SOLID };
const GRID: Pen = Pen { colour: PALE, width: 0.7, dash: SOLID };
const CENTRED: Pos = Pos { h_pos: HPos::Center, v_pos: VPos::Center };
/// A line that has no more points than this shows each.
const MARKED: usize = 20;

/// Draws a chart on an area.
pub(super) fn draw<B: DrawingBackend>(chart: &Chart, area: &DrawingArea<B, Shift>) -> Drawn<B> {
    let top = head(area, &chart.title, &chart.layers)?;
    let frame = Frame::new(chart, area.dim_in_pixel(), top);
    frame.axes(area, !chart.layers.iter().any(|layer| matches!(layer, Layer::Squares(_))))?;
    for layer in &chart.layers {
        frame.layer(area, layer)?;
    }
    if chart.layers.iter().all(|layer| layer.points().is_empty()) {
        let style = text(14.0, GREY).pos(CENTRED);
        area.draw(&Text::new("no data", frame.middle(), style))?;
    }
    // The axes' lines, over what was drawn inside.
    let corners = [(frame.left, frame.top), (frame.left, frame.bottom), (frame.right, frame.bottom)];
    line(area, corners.map(Some), THIN)
}

/// How the ticks' texts below a frame stand: side by side in full size, smaller, or, where that
/// would not be legible, upwards.
struct Names {
    size: f64,
    upward: bool,
    /// Pixels that they need more than numbers do.
    height: i32,
}

impl Names {
    const LEGIBLE: f64 = 9.0;

    fn new(x: &Axis, wide: i32) -> Names {
        let (low, high) = x.ends();
        let each = (f64::from(wide) / (high - low)) - f64::from(px(5.0));
        let widest = widest(x);
        let fitting = TICK_SIZE * each / f64::from(widest.max(1));
        if widest == 0 || fitting >= Names::LEGIBLE {
            return Names { size: fitting.clamp(Names::LEGIBLE, TICK_SIZE), upward: false, height: 0 };
        }
        // A name of more than a quarter of the picture's height is made smaller.
        let most = f64::from(px(f64::from(SIZE.1) / 4.0));
        let size = 10.0f64.min(TICK_SIZE * most / f64::from(widest));
        let long = f64::from(widest) * size / TICK_SIZE;
        Names { size, upward: true, height: (long as i32 - px(8.0)).max(0) }
    }
}

/// Pixels of the widest name, in full size.
fn widest(axis: &Axis) -> i32 {
    axis.names.iter().map(|name| width(name, &text(TICK_SIZE, INK))).max().unwrap_or(0)
}

/// The rectangle that the data are drawn in.
struct Frame {
    left: i32,
    right: i32,
    top: i32,
    bottom: i32,
    x: Axis,
    y: Axis,
    /// Whether y runs downwards.
    down: bool,
    second: Option<Axis>,
    /// Of the ticks below, and of those on the left.
    names: Names,
    size: f64,
}

impl Frame {
    fn new(chart: &Chart, (wide, high): (u32, u32), top: i32) -> Frame {
        let points: Vec<(f64, f64)> = chart.layers.iter().flat_map(Layer::points).collect();
        let rules = chart.layers.iter().filter_map(|l| if let Layer::Rule(x) = l { Some(*x) } else { None });
        let x = chart.x.fitted(points.iter().map(|p| p.0).chain(rules));
        let y = chart.y.fitted(points.iter().map(|p| p.1));
        let (top, right) = (top + px(8.0), wide as i32 - px(if chart.right.is_some() { 60.0 } else { 20.0 }));
        let (low, end) = y.ends();
        let down = chart.layers.iter().any(|l| matches!(l, Layer::Dots(..) | Layer::Squares(_)));
        // Names on the left are made smaller where rows are low, or where they would take more than
        // a third of the picture.
        let row = f64::from(high as i32 - px(52.0) - top) / (end - low) / f64::from(px(1.0));
        let room = f64::from(right / 3) / f64::from(widest(&y).max(1));
        let size = if down { TICK_SIZE.min(0.8 * row).min(TICK_SIZE * room) } else { TICK_SIZE };
        // Room also for a viewer's own font, which may be wider.
        let beside = f64::from(widest(&y)) * size / TICK_SIZE * 9.0 / 8.0;
        let left = px(60.0).max(px(34.0) + beside as i32);
        let names = Names::new(&x, right - left);
        let bottom = high as i32 - px(52.0) - names.height;
        Frame { left, right, top, bottom, x, y, down, second: chart.right.clone(), names, size }
    }

    fn middle(&self) -> (i32, i32) {
        ((self.left + self.right) / 2, (self.top + self.bottom) / 2)
    }

    /// Grid, ticks and labels.
    fn axes<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, grid: bool) -> Drawn<B> {
        let (middle, tick, gap) = (self.middle(), px(4.0), px(7.0));
        // Text is centred by its small letters; digits are taller.
        let lower = px(0.09 * self.size);
        for (value, name) in self.y.ticks(6) {
            let at = self.y_pixel(&self.y, value);
            if grid {
                line(area, [Some((self.left, at)), Some((self.right, at))], GRID)?;
            }
            line(area, [Some((self.left - tick, at)), Some((self.left, at))], THIN)?;
            let style = text(self.size, INK).pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(name, (self.left - gap, at + lower), style))?;
        }
        let below = match self.names.upward {
            false => text(self.names.size, INK).pos(Pos::new(HPos::Center, VPos::Top)),
            true => upward(self.names.size, INK).pos(Pos::new(HPos::Right, VPos::Center)),
        };
        for (value, name) in self.x.ticks(9) {
            let at = self.x_pixel(value);
            if self.down && grid {
                line(area, [Some((at, self.top)), Some((at, self.bottom))], GRID)?;
            }
            line(area, [Some((at, self.bottom)), Some((at, self.bottom + tick))], THIN)?;
            area.draw(&Text::new(name, (at, self.bottom + gap), below.clone()))?;
        }
        let label = |axis: &Axis, at, style: TextStyle<'static>| {
            area.draw(&Text::new(axis.label.clone(), at, style.pos(CENTRED)))
        };
        label(&self.x, (middle.0, self.bottom + px(36.0) + self.names.height), text(LABEL_SIZE, INK))?;
        label(&self.y, (px(18.0), middle.1), upward(LABEL_SIZE, INK))?;
        let Some(axis) = &self.second else { return Ok(()) };
        let pen = Pen { colour: GREY, ..THIN };
        line(area, [Some((self.right, self.top)), Some((self.right, self.bottom))], pen)?;
        for (value, name) in axis.ticks(6) {
            let at = self.y_pixel(axis, value);
            line(area, [Some((self.right, at)), Some((self.right + tick, at))], pen)?;
            let style = text(TICK_SIZE, GREY).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(name, (self.right + gap, at + lower), style))?;
        }
        label(axis, (area.dim_in_pixel().0 as i32 - px(16.0), middle.1), upward(LABEL_SIZE, GREY))
    }

    fn layer<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, layer: &Layer) -> Drawn<B> {
        match layer {
            Layer::Line { pen, points, .. } => {
                let finite = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
                let pixel =
                    |p: &(f64, f64)| finite(p).then(|| (self.x_pixel(p.0), self.y_pixel(&self.y, p.1)));
                line(area, points.iter().map(pixel), *pen)?;
                let few = points.iter().filter_map(pixel).filter(|_| points.len() <= MARKED);
                few.into_iter().try_for_each(|at| area.draw(&Circle::new(at, px(2.5), pen.colour.filled())))
            }
            Layer::Area { pen, outline, .. } => {
                let axis = self.second.as_ref().unwrap_or(&self.y);
                let pixel = |p: &(f64, f64)| (self.x_pixel(p.0), self.y_pixel(axis, p.1));
                let outline: Vec<(i32, i32)> = outline.iter().map(pixel).collect();
                area.draw(&Polygon::new(outline.clone(), shade(pen.colour).filled()))?;
                line(area, outline.into_iter().map(Some), *pen)
            }
            Layer::Dots(row, _) => {
                let at = self.y_pixel(&self.y, *row as f64);
                let values: Vec<f64> = layer.points().into_iter().map(|point| point.0).collect();
                for value in &values {
                    area.draw(&Circle::new((self.x_pixel(*value), at), px(3.0), BLUE.mix(0.6).filled()))?;
                }
                if values.is_empty() {
                    return Ok(());
                }
                let mean = self.x_pixel(values.iter().sum::<f64>() / values.len() as f64);
                let half = px(8.0).min(px(0.4 * self.size));
                let pen = Pen { colour: VERMILLION, width: 2.2, dash: SOLID };
                line(area, [Some((mean, at - half)), Some((mean, at + half))], pen)
            }
            Layer::Rule(value) => {
                let at = self.x_pixel(*value);
                let pen = Pen { colour: GREY, width: 1.0, dash: DASHED };
                line(area, [Some((at, self.top)), Some((at, self.bottom))], pen)
            }
            Layer::Squares(rows) => self.squares(area, rows),
        }
    }

    fn squares<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, rows: &[Vec<f64>]) -> Drawn<B> {
        let x = |column: usize| self.x_pixel(column as f64 - 0.5);
        let y = |row: usize| self.y_pixel(&self.y, row as f64 - 0.5);
        for (row, shares) in rows.iter().enumerate() {
            for (column, share) in shares.iter().enumerate() {
                let corners = [(x(column), y(row)), (x(column + 1), y(row + 1))];
                area.draw(&Rectangle::new(corners, BLUE.mix(*share).filled()))?;
                if rows.len() <= READABLE {
                    area.draw(&Rectangle::new(corners, PALE.stroke_width(px(0.5) as u32)))?;
                }
                if rows.len() <= READABLE && *share >= 0.005 {
                    let colour = if *share > 0.55 { WHITE } else { INK };
                    let middle = ((x(column) + x(column + 1)) / 2, (y(row) + y(row + 1)) / 2);
                    let style = text(10.5, colour).pos(CENTRED);
                    area.draw(&Text::new(format!("{:.0}", 100.0 * share), middle, style))?;
                }
            }
        }
        Ok(())
    }

    /// The column of `value`; what lies beyond the axis is drawn at its end.
    fn x_pixel(&self, value: f64) -> i32 {
        self.left + (self.x.place(value) * f64::from(self.right - self.left)).round() as i32
    }

    /// The row of `value` on a vertical axis.
    fn y_pixel(&self, axis: &Axis, value: f64) -> i32 {
        let up = (axis.place(value) * f64::from(self.bottom - self.top)).round() as i32;
        if self.down { self.top + up } else { self.bottom - up }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_upwards_only_where_they_do_not_fit() {
        let stand = |name: &str, count: usize| {
            Names::new(&Axis::new("").named(vec![name.to_owned(); count], count), px(640.0))
        };
        let (short, close, long, longest) =
            (stand("cat", 10), stand("Ankle boot", 10), stand("Ankle boot", 20), stand(&"x".repeat(90), 10));
        assert!(!short.upward && short.size == TICK_SIZE && short.height == 0);
        assert!(!close.upward && (Names::LEGIBLE..TICK_SIZE + 0.1).contains(&close.size));
        assert!(long.upward && long.size >= Names::LEGIBLE && long.height > 0);
        assert!(longest.upward && longest.height <= px(f64::from(SIZE.1) / 4.0));
        // Numbers stand as ever.
        let none = Names::new(&Axis::new("").over(0.0, 8.0), px(640.0));
        assert!(!none.upward && none.size == TICK_SIZE && none.height == 0);
    }
}
