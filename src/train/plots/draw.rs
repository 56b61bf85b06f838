//! From a chart to strokes and texts.

use super::axis::Axis;
use super::canvas::{At, Canvas, Side, width};
use super::style::{BLUE, GREY, INK, Pen, READABLE, SIZE, WHITE};
use super::{Chart, Layer};

const TICK_SIZE: f64 = 11.5;
const LABEL_SIZE: f64 = 13.0;
/// A line that has no more points than this shows each.
const MARKED: usize = 20;
/// How much an area lets through.
const SHADE: f64 = 0.35;
/// Room for a viewer's own font, which may be wider.
const WIDER: f64 = 1.125;

/// Draws a chart.
pub(super) fn draw(chart: &Chart, canvas: &mut Canvas) {
    let top = head(chart, canvas);
    let frame = Frame::new(chart, top);
    frame.axes(canvas, !chart.layers.iter().any(|layer| matches!(layer, Layer::Squares(_))));
    for layer in &chart.layers {
        frame.layer(canvas, layer);
    }
    let Frame { left, right, top, bottom, .. } = frame;
    if chart.layers.iter().all(|layer| layer.points().is_empty()) {
        let middle = ((left + right) / 2.0, (top + bottom) / 2.0);
        canvas.text("no data", middle, Side::Middle, 14.0, GREY);
    }
    // The axes' lines, over what was drawn inside.
    canvas.line([(left, top), (left, bottom), (right, bottom)].map(Some), Pen::THIN);
}

/// Draws title and legend in rows above the frame, where no data are; gives the height they take.
fn head(chart: &Chart, canvas: &mut Canvas) -> f64 {
    let (left, right, row, swatch, size) = (14.0, SIZE.0 - 14.0, 19.0, 24.0, 12.0);
    let (mut x, mut y) = (left, 10.0);
    if !chart.title.is_empty() {
        canvas.fitted(&chart.title, (x, y), 14.0, right - left);
        y += 24.0;
    }
    for layer in &chart.layers {
        let (Layer::Line { name, pen, .. } | Layer::Area { name, pen, .. }) = layer else { continue };
        let wide = swatch + 6.0 + width(name, size) * WIDER + 14.0;
        if x > left && x + wide > right {
            (x, y) = (left, y + row);
        }
        let (end, middle) = (x + swatch, y + 6.2);
        if let Layer::Area { .. } = layer {
            let corners = [(x, y + 1.2), (end, y + 1.2), (end, y + 11.2), (x, y + 11.2), (x, y + 1.2)];
            canvas.area(&corners, pen.colour, SHADE);
            canvas.line(corners.map(Some), *pen);
        } else {
            canvas.line([Some((x, middle)), Some((end, middle))], *pen);
        }
        canvas.text(name, (end + 6.0, middle), Side::Right, size, INK);
        x += wide;
    }
    if x > left { y + row } else { y }
}

/// How the ticks' texts below a frame stand: side by side in full size, smaller, or, where that
/// would not be legible, upwards.
struct Names {
    size: f64,
    upward: bool,
    /// What they need more than numbers do.
    height: f64,
}

impl Names {
    const LEGIBLE: f64 = 9.0;

    fn new(x: &Axis, wide: f64) -> Names {
        let (low, high) = x.ends();
        let widest = widest(x);
        let fitting = TICK_SIZE * (wide / (high - low) - 5.0) / widest.max(1.0);
        if widest == 0.0 || fitting >= Names::LEGIBLE {
            return Names { size: fitting.clamp(Names::LEGIBLE, TICK_SIZE), upward: false, height: 0.0 };
        }
        // A name of more than a quarter of the picture's height is made smaller.
        let size = f64::min(10.0, TICK_SIZE * SIZE.1 / 4.0 / widest);
        Names { size, upward: true, height: (widest * size / TICK_SIZE - 8.0).max(0.0) }
    }
}

/// The widest name, in full size.
fn widest(axis: &Axis) -> f64 {
    axis.names.iter().map(|name| width(name, TICK_SIZE)).fold(0.0, f64::max)
}

/// The rectangle that the data are drawn in.
struct Frame {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
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
    fn new(chart: &Chart, above: f64) -> Frame {
        let points: Vec<At> = chart.layers.iter().flat_map(Layer::points).collect();
        let rules = chart.layers.iter().filter_map(|l| if let Layer::Rule(x) = l { Some(*x) } else { None });
        let x = chart.x.fitted(points.iter().map(|p| p.0).chain(rules));
        let y = chart.y.fitted(points.iter().map(|p| p.1));
        let (top, right) = (above + 8.0, SIZE.0 - if chart.right.is_some() { 60.0 } else { 20.0 });
        let down = chart.layers.iter().any(|l| matches!(l, Layer::Dots(..) | Layer::Squares(_)));
        // Names on the left are made smaller where rows are low, or where they would take more than
        // a third of the picture.
        let (low, high) = y.ends();
        let row = 0.8 * (SIZE.1 - 52.0 - top) / (high - low);
        let size = TICK_SIZE * (SIZE.0 / 3.0 / widest(&y).max(1.0)).min(1.0);
        let size = if down { size.min(row) } else { size };
        let left = f64::max(60.0, 34.0 + widest(&y) * size / TICK_SIZE * WIDER);
        let names = Names::new(&x, right - left);
        let bottom = SIZE.1 - 52.0 - names.height;
        Frame { left, right, top, bottom, x, y, down, second: chart.right.clone(), names, size }
    }

    /// Grid, ticks and labels.
    fn axes(&self, canvas: &mut Canvas, grid: bool) {
        let Frame { left, right, top, bottom, x, y, names, size, .. } = self;
        let (across, upwards) = ((left + right) / 2.0, (top + bottom) / 2.0);
        for (value, name) in y.ticks(6) {
            let at = self.height(y, value);
            if grid {
                canvas.line([Some((*left, at)), Some((*right, at))], Pen::GRID);
            }
            canvas.line([Some((left - 4.0, at)), Some((*left, at))], Pen::THIN);
            canvas.text(&name, (left - 7.0, at), Side::Left, *size, INK);
        }
        for (value, name) in x.ticks(9) {
            let at = self.column(value);
            if self.down && grid {
                canvas.line([Some((at, *top)), Some((at, *bottom))], Pen::GRID);
            }
            canvas.line([Some((at, *bottom)), Some((at, bottom + 4.0))], Pen::THIN);
            let side = if names.upward { Side::Hanging } else { Side::Below };
            canvas.text(&name, (at, bottom + 7.0), side, names.size, INK);
        }
        canvas.text(&x.label, (across, bottom + 36.0 + names.height), Side::Middle, LABEL_SIZE, INK);
        canvas.text(&y.label, (18.0, upwards), Side::Upward, LABEL_SIZE, INK);
        let Some(axis) = &self.second else { return };
        let pen = Pen { colour: GREY, ..Pen::THIN };
        canvas.line([Some((*right, *top)), Some((*right, *bottom))], pen);
        for (value, name) in axis.ticks(6) {
            let at = self.height(axis, value);
            canvas.line([Some((*right, at)), Some((right + 4.0, at))], pen);
            canvas.text(&name, (right + 7.0, at), Side::Right, TICK_SIZE, GREY);
        }
        canvas.text(&axis.label, (SIZE.0 - 16.0, upwards), Side::Upward, LABEL_SIZE, GREY);
    }

    fn layer(&self, canvas: &mut Canvas, layer: &Layer) {
        match layer {
            Layer::Line { pen, points, .. } => {
                let finite = |p: &At| p.0.is_finite() && p.1.is_finite();
                let place = |p: &At| finite(p).then(|| (self.column(p.0), self.height(&self.y, p.1)));
                canvas.line(points.iter().map(place), *pen);
                for at in points.iter().filter_map(place).filter(|_| points.len() <= MARKED) {
                    canvas.dot(at, 2.5, pen.colour, 1.0);
                }
            }
            Layer::Area { pen, outline, .. } => {
                let axis = self.second.as_ref().unwrap_or(&self.y);
                let place = |p: &At| (self.column(p.0), self.height(axis, p.1));
                let outline: Vec<At> = outline.iter().map(place).collect();
                canvas.area(&outline, pen.colour, SHADE);
                canvas.line(outline.into_iter().map(Some), *pen);
            }
            Layer::Dots(row, _) => {
                let at = self.height(&self.y, *row as f64);
                let values: Vec<f64> = layer.points().into_iter().map(|point| point.0).collect();
                values.iter().for_each(|value| canvas.dot((self.column(*value), at), 3.0, BLUE, 0.6));
                if !values.is_empty() {
                    let mean = self.column(values.iter().sum::<f64>() / values.len() as f64);
                    let half = 0.5 * self.size;
                    canvas.line([Some((mean, at - half)), Some((mean, at + half))], Pen::MEAN);
                }
            }
            Layer::Rule(value) => {
                let at = self.column(*value);
                canvas.line([Some((at, self.top)), Some((at, self.bottom))], Pen::RULE);
            }
            Layer::Squares(rows) => self.squares(canvas, rows),
        }
    }

    fn squares(&self, canvas: &mut Canvas, rows: &[Vec<f64>]) {
        let place = |row, column| (self.column(column), self.height(&self.y, row));
        // Of more classes than there are points, some are one square.
        let side = rows.len().div_ceil(MOST_SQUARES).max(1);
        let half = side as f64 / 2.0;
        for (row, block) in rows.chunks(side).enumerate() {
            for (column, share) in together(block, side).iter().enumerate() {
                let middle = |place: usize| (place * side) as f64 + half - 0.5;
                let (y, x) = (middle(row), middle(column));
                let corners = [(-half, -half), (-half, half), (half, half), (half, -half), (-half, -half)];
                let corners = corners.map(|(down, right)| place(y + down, x + right));
                canvas.area(&corners, BLUE, *share);
                if rows.len() <= READABLE {
                    canvas.line(corners.map(Some), Pen { width: 0.5, ..Pen::GRID });
                }
                if rows.len() <= READABLE && *share >= 0.005 {
                    let colour = if *share > 0.55 { WHITE } else { INK };
                    canvas.text(&format!("{:.0}", 100.0 * share), place(y, x), Side::Middle, 10.5, colour);
                }
            }
        }
    }

    /// The column of `value`; what lies beyond the axis is drawn at its end.
    fn column(&self, value: f64) -> f64 {
        self.left + self.x.place(value) * (self.right - self.left)
    }

    /// The height of `value` on a vertical axis.
    fn height(&self, axis: &Axis, value: f64) -> f64 {
        let up = axis.place(value) * (self.bottom - self.top);
        if self.down { self.top + up } else { self.bottom - up }
    }
}

/// Squares of a matrix, in a row.
pub(super) const MOST_SQUARES: usize = 250;

/// The mean of some rows, `side` columns together.
fn together(rows: &[Vec<f64>], side: usize) -> Vec<f64> {
    let mut sums = vec![0.0; rows.first().map_or(0, |row| row.len().div_ceil(side))];
    for row in rows {
        sums.iter_mut().zip(row.chunks(side)).for_each(|(sum, part)| *sum += part.iter().sum::<f64>());
    }
    sums.iter_mut().for_each(|sum| *sum /= rows.len() as f64);
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_upwards_only_where_they_do_not_fit() {
        let stand = |name: &str, count: usize| {
            Names::new(&Axis::new("").named(vec![name.to_owned(); count], count), 640.0)
        };
        let (short, close, long, longest) =
            (stand("cat", 10), stand("Ankle boot", 10), stand("Ankle boot", 20), stand(&"x".repeat(90), 10));
        assert!(!short.upward && short.size == TICK_SIZE && short.height == 0.0);
        assert!(!close.upward && (Names::LEGIBLE..TICK_SIZE + 0.1).contains(&close.size));
        assert!(long.upward && long.size >= Names::LEGIBLE && long.height > 0.0);
        assert!(longest.upward && longest.height <= SIZE.1 / 4.0);
        // Numbers stand as ever.
        let none = Names::new(&Axis::new("").over(0.0, 8.0), 640.0);
        assert!(!none.upward && none.size == TICK_SIZE && none.height == 0.0);
    }
}
