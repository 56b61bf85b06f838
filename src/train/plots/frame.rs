//! The frame with its axes, and the mapping from values to pixels.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Drawn;
use super::style::{GREY, INK, PALE, Pen, SIZE, SOLID, line, px, text, upward};
use super::text::width;

/// The values that an axis spans, and what it is called.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub low: f64,
    pub high: f64,
    pub label: String,
    /// Only whole numbers get ticks.
    pub whole: bool,
    /// What stands at 0, 1, … instead of the numbers, if anything does.
    pub names: Vec<String>,
}

impl Axis {
    /// An axis over `low..=high`; an empty or unusable range becomes one of length 1.
    pub fn new(low: f64, high: f64, label: impl Into<String>) -> Axis {
        let usable = low.is_finite() && high.is_finite() && high > low;
        let (low, high) = if usable { (low, high) } else { (0.0, 1.0) };
        Axis { low, high, label: label.into(), whole: false, names: Vec::new() }
    }

    /// An axis that holds all finite `values` with a little room, widened to a range of at least
    /// `least`.
    pub fn around(values: impl Iterator<Item = f64>, least: f64, label: impl Into<String>) -> Axis {
        let (low, high) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return Axis::new(0.0, 1.0, label);
        }
        let room = 0.06 * (high - low) + 0.5 * (least - (high - low)).max(0.0);
        Axis::new(low - room, high + room, label)
    }

    /// Ticks at round numbers (1, 2 or 5 times a power of ten apart), about `count` of them, with
    /// their texts.
    pub fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        if !self.names.is_empty() {
            let places = (0..).map(f64::from).zip(self.names.iter().cloned());
            return places.filter(|(place, _)| (self.low..=self.high).contains(place)).collect();
        }
        let rough = (self.high - self.low) / count.max(1) as f64;
        let power = 10_f64.powf(rough.log10().floor());
        let distance = |step: f64| (step / rough).ln().abs();
        let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        let mut step = steps.into_iter().fold(power, |a, b| if distance(b) < distance(a) { b } else { a });
        if self.whole {
            step = step.max(1.0).round();
        }
        let digits = (-step.log10().floor()).max(0.0) as usize;
        let first = (self.low / step - 1e-9).ceil();
        (0..=4 * count)
            // `+ 0.0` makes −0 to 0.
            .map(|i| (first + i as f64) * step + 0.0)
            .take_while(|tick| *tick <= self.high + 1e-9 * step)
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

    /// Where `value` lies between `low` (0) and `high` (1), within them.
    fn place(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
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
    const SIZE: f64 = 11.5;
    const LEGIBLE: f64 = 9.0;

    fn new(x: &Axis, wide: i32) -> Names {
        let widest = x.names.iter().map(|name| width(name, &text(Names::SIZE, INK))).max().unwrap_or(0);
        let each = (f64::from(wide) / (x.high - x.low)) - f64::from(px(5.0));
        let fitting = Names::SIZE * each / f64::from(widest.max(1));
        if widest == 0 || fitting >= Names::LEGIBLE {
            return Names { size: fitting.clamp(Names::LEGIBLE, Names::SIZE), upward: false, height: 0 };
        }
        // A name of more than a quarter of the picture's height is made smaller.
        let most = f64::from(px(f64::from(SIZE.1) / 4.0));
        let size = 10.0f64.min(Names::SIZE * most / f64::from(widest));
        let long = f64::from(widest) * size / Names::SIZE;
        Names { size, upward: true, height: (long as i32 - px(8.0)).max(0) }
    }

    /// Draws a text whose upper end is at `at`.
    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        name: String,
        at: (i32, i32),
    ) -> Drawn<B> {
        let style = match self.upward {
            false => text(self.size, INK).pos(Pos::new(HPos::Center, VPos::Top)),
            true => upward(self.size, INK).pos(Pos::new(HPos::Right, VPos::Center)),
        };
        area.draw(&Text::new(name, at, style))
    }
}

/// The rectangle that the data are drawn in.
pub(super) struct Frame {
    left: i32,
    right: i32,
    top: i32,
    bottom: i32,
    x: Axis,
    y: Axis,
}

impl Frame {
    /// Draws frame, grid, ticks and labels below `top` pixels; a `second` vertical axis stands on
    /// the right.
    pub fn draw<B: DrawingBackend>(
        area: &DrawingArea<B, Shift>,
        top: i32,
        x: Axis,
        y: Axis,
        second: Option<&Axis>,
    ) -> Result<Frame, DrawingAreaErrorKind<B::ErrorType>> {
        let (width, height) = area.dim_in_pixel();
        let right = width as i32 - px(if second.is_some() { 60.0 } else { 20.0 });
        let left = px(60.0);
        let names = Names::new(&x, right - left);
        let bottom = height as i32 - px(52.0) - names.height;
        let frame = Frame { left, right, top: top + px(8.0), bottom, x, y };
        frame.axes(area, second, &names)?;
        Ok(frame)
    }

    fn axes<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        second: Option<&Axis>,
        names: &Names,
    ) -> Drawn<B> {
        let (size, label_size) = (11.5, 13.0);
        let middle = ((self.left + self.right) / 2, (self.top + self.bottom) / 2);
        let grid = Pen { colour: PALE, width: 0.7, dash: SOLID };
        let (tick, gap) = (px(4.0), px(7.0));
        // Text is centred by its small letters; digits are taller.
        let lower = px(0.09 * size);
        for (value, name) in self.y.ticks(6) {
            let at = self.y_pixel(&self.y, value);
            line(area, [Some((self.left, at)), Some((self.right, at))], grid)?;
            line(area, [Some((self.left - tick, at)), Some((self.left, at))], axis_pen())?;
            let style = text(size, INK).pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(name, (self.left - gap, at + lower), style))?;
        }
        for (value, name) in self.x.ticks(9) {
            let at = self.x_pixel(value);
            line(area, [Some((at, self.bottom)), Some((at, self.bottom + tick))], axis_pen())?;
            names.draw(area, name, (at, self.bottom + gap))?;
        }
        let centred = |style: TextStyle<'static>| style.pos(Pos::new(HPos::Center, VPos::Center));
        let below = (middle.0, self.bottom + px(36.0) + names.height);
        area.draw(&Text::new(self.x.label.clone(), below, centred(text(label_size, INK))))?;
        let beside = (px(18.0), middle.1);
        area.draw(&Text::new(self.y.label.clone(), beside, centred(upward(label_size, INK))))?;
        if let Some(axis) = second {
            let pen = Pen { colour: GREY, ..axis_pen() };
            line(area, [Some((self.right, self.top)), Some((self.right, self.bottom))], pen)?;
            for (value, name) in axis.ticks(6) {
                let at = self.y_pixel(axis, value);
                line(area, [Some((self.right, at)), Some((self.right + tick, at))], pen)?;
                let style = text(size, GREY).pos(Pos::new(HPos::Left, VPos::Center));
                area.draw(&Text::new(name, (self.right + gap, at + lower), style))?;
            }
            let beside = (area.dim_in_pixel().0 as i32 - px(16.0), middle.1);
            area.draw(&Text::new(axis.label.clone(), beside, centred(upward(label_size, GREY))))?;
        }
        Ok(())
    }

    /// Draws the axes' lines, over what was drawn inside.
    pub fn close<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn<B> {
        let corners = [(self.left, self.top), (self.left, self.bottom), (self.right, self.bottom)];
        line(area, corners.map(Some), axis_pen())
    }

    /// Says in the middle of the frame that there is nothing to show.
    pub fn say_empty<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn<B> {
        let middle = ((self.left + self.right) / 2, (self.top + self.bottom) / 2);
        let style = text(14.0, GREY).pos(Pos::new(HPos::Center, VPos::Center));
        area.draw(&Text::new("no data", middle, style))
    }

    /// The column of `value`.
    pub fn x_pixel(&self, value: f64) -> i32 {
        self.left + (self.x.place(value) * f64::from(self.right - self.left)).round() as i32
    }

    /// The row of `value` on a vertical axis.
    pub fn y_pixel(&self, axis: &Axis, value: f64) -> i32 {
        self.bottom - (axis.place(value) * f64::from(self.bottom - self.top)).round() as i32
    }

    /// The pixel of a point, none if it is not finite; values beyond the axes are drawn at their
    /// ends.
    pub fn pixel(&self, x: f64, y: f64) -> Option<(i32, i32)> {
        (x.is_finite() && y.is_finite()).then(|| (self.x_pixel(x), self.y_pixel(&self.y, y)))
    }
}

fn axis_pen() -> Pen {
    Pen { colour: INK, width: 1.0, dash: SOLID }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(low: f64, high: f64, count: usize) -> Vec<String> {
        Axis::new(low, high, "").ticks(count).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_and_cover_the_axis() {
        assert_eq!(texts(0.0, 8.0, 9), ["0", "1", "2", "3", "4", "5", "6", "7", "8"]);
        assert_eq!(texts(0.0, 1.0, 6), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(texts(-0.3, 0.25, 6), ["−0.3", "−0.2", "−0.1", "0.0", "0.1", "0.2"]);
        assert_eq!(texts(70.2, 80.9, 6), ["72", "74", "76", "78", "80"]);
        assert_eq!(texts(0.0, 2.5e-4, 5), ["0.00000", "0.00005", "0.00010", "0.00015", "0.00020", "0.00025"]);
        let names = ["ant", "bee", "cat"].map(str::to_owned).to_vec();
        let classes = Axis { names, ..Axis::new(-0.2, 1.1, "") };
        assert_eq!(classes.ticks(9), [(0.0, "ant".to_owned()), (1.0, "bee".to_owned())]);
        let epochs = Axis { whole: true, ..Axis::new(1.0, 3.0, "") };
        assert_eq!(epochs.ticks(9).iter().map(|tick| tick.0).collect::<Vec<_>>(), [1.0, 2.0, 3.0]);
        assert_eq!(texts(0.0, 5e7, 6), ["0", "1e7", "2e7", "3e7", "4e7", "5e7"]);
        assert_eq!(texts(1.46e6, 1.62e6, 5), ["1.50e6", "1.55e6", "1.60e6"]);
        let wide = texts(-1e300, 1e300, 6);
        assert!((3..=30).contains(&wide.len()));
    }

    #[test]
    fn ranges_that_are_none_are_replaced() {
        for (low, high) in [(f64::NAN, 1.0), (2.0, 2.0), (3.0, 1.0), (0.0, f64::INFINITY)] {
            let axis = Axis::new(low, high, "");
            assert_eq!((axis.low, axis.high), (0.0, 1.0));
        }
        let constant = Axis::around([5.0, f64::NAN, 5.0].into_iter(), 2.0, "");
        assert_eq!((constant.low, constant.high), (4.0, 6.0));
        let none = Axis::around([f64::NAN].into_iter(), 2.0, "");
        assert_eq!((none.low, none.high), (0.0, 1.0));
    }
    #[test]
    fn names_stand_upwards_only_where_they_do_not_fit() {
        let stand = |name: &str, count: usize| {
            let names = vec![name.to_owned(); count];
            Names::new(&Axis { names, ..Axis::new(-0.5, count as f64 - 0.5, "") }, px(640.0))
        };
        let (short, close, long, longest) =
            (stand("cat", 10), stand("Ankle boot", 10), stand("Ankle boot", 20), stand(&"x".repeat(90), 10));
        assert!(!short.upward && short.size == Names::SIZE && short.height == 0);
        assert!(!close.upward && (Names::LEGIBLE..Names::SIZE + 0.1).contains(&close.size));
        assert!(long.upward && long.size >= Names::LEGIBLE && long.height > 0);
        assert!(longest.upward && longest.height <= px(f64::from(SIZE.1) / 4.0));
        // Numbers stand as ever.
        let none = Names::new(&Axis::new(0.0, 8.0, ""), px(640.0));
        assert!(!none.upward && none.size == Names::SIZE && none.height == 0);
    }
}
