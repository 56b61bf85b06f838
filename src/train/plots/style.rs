//! The look that all figures share: sizes, colours, text.

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::{FontTransform, RGBAColor, TextStyle};

use super::Drawn;
use super::text::{FAMILY, SIZE_PER_EM, width};

/// Width and height of a figure in points, as an SVG viewer shows it.
pub(super) const SIZE: (u32, u32) = (720, 440);
/// Pixels a point on the canvas that is drawn on. Backends take whole pixels, so a fine canvas is
/// what makes lines smooth.
pub(super) const SCALE: u32 = 4;

/// So many classes can be told apart by name.
pub(super) const READABLE: usize = 20;

/// Points as pixels of the canvas.
pub(super) fn px(points: f64) -> i32 {
    (points * f64::from(SCALE)).round() as i32
}

pub(super) const INK: RGBColor = RGBColor(30, 30, 30);
pub(super) const GREY: RGBColor = RGBColor(105, 105, 105);
pub(super) const PALE: RGBColor = RGBColor(226, 226, 226);
pub(super) const BLUE: RGBColor = RGBColor(0, 114, 178);
pub(super) const VERMILLION: RGBColor = RGBColor(213, 94, 0);
pub(super) const GREEN: RGBColor = RGBColor(0, 158, 115);
pub(super) const PURPLE: RGBColor = RGBColor(204, 121, 167);
pub(super) const ORANGE: RGBColor = RGBColor(230, 159, 0);
pub(super) const SKY: RGBColor = RGBColor(86, 180, 233);

/// Clean samples, and samples with a wrong label, in all figures.
pub(super) const CLEAN: RGBColor = BLUE;
pub(super) const CORRUPTED: RGBColor = VERMILLION;

/// Lengths of dash and gap in points; no gap is a solid line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Dash(pub f64, pub f64);

pub(super) const SOLID: Dash = Dash(1.0, 0.0);
pub(super) const DASHED: Dash = Dash(6.0, 4.0);
pub(super) const DOTTED: Dash = Dash(1.6, 3.2);
pub(super) const LONG: Dash = Dash(12.0, 4.0);

/// How a line looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pen {
    pub colour: RGBColor,
    /// In points.
    pub width: f64,
    pub dash: Dash,
}

impl Pen {
    fn stroke(&self) -> ShapeStyle {
        self.colour.stroke_width(px(self.width) as u32)
    }
}

/// Text of `size` points.
pub(super) fn text(size: f64, colour: RGBColor) -> TextStyle<'static> {
    (FAMILY, size * SIZE_PER_EM * f64::from(SCALE)).into_font().color(&colour)
}

/// Text of `size` points that runs upwards.
pub(super) fn upward(size: f64, colour: RGBColor) -> TextStyle<'static> {
    text(size, colour).transform(FontTransform::Rotate270)
}

/// A line through pixels, cut wherever `points` holds `None`.
pub(super) fn line<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    points: impl IntoIterator<Item = Option<(i32, i32)>>,
    pen: Pen,
) -> Drawn<B> {
    let mut piece = Vec::new();
    for point in points.into_iter().chain([None]) {
        match point {
            Some(point) => piece.push(point),
            None if piece.len() < 2 => piece.clear(),
            None if pen.dash.1 == 0.0 => {
                area.draw(&PathElement::new(std::mem::take(&mut piece), pen.stroke()))?
            }
            None => {
                let (dash, gap) = (px(pen.dash.0), px(pen.dash.1));
                area.draw(&DashedPathElement::new(std::mem::take(&mut piece), dash, gap, pen.stroke()))?;
            }
        }
    }
    Ok(())
}

/// What stands before a name in the legend.
#[derive(Clone, Copy, Debug)]
pub(super) enum Key {
    Line(Pen),
    Area(RGBColor),
}

/// How a shaded area is filled.
pub(super) fn shade(colour: RGBColor) -> RGBAColor {
    colour.mix(0.35)
}

/// Draws title and legend in rows above the frame, where no data are, and returns the height used
/// in pixels.
pub(super) fn head<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    title: &str,
    legend: &[(Key, String)],
) -> Result<i32, DrawingAreaErrorKind<B::ErrorType>> {
    let (left, right) = (px(14.0), area.dim_in_pixel().0 as i32 - px(14.0));
    let mut y = px(10.0);
    if !title.is_empty() {
        // A long title is made smaller rather than cut.
        let fits = f64::from(right - left) / f64::from(width(title, &text(14.0, INK)).max(1));
        area.draw(&Text::new(title.to_string(), (left, y), text(14.0 * fits.min(1.0), INK)))?;
        y += px(24.0);
    }
    let (row, swatch, style) = (px(19.0), px(24.0), text(12.0, INK));
    let mut x = left;
    for (key, name) in legend {
        // Room also for a viewer's own font, which may be wider.
        let wide = swatch + px(6.0) + width(name, &style) * 9 / 8 + px(14.0);
        if x > left && x + wide > right {
            (x, y) = (left, y + row);
        }
        let middle = y + px(6.2);
        match key {
            Key::Line(pen) => line(area, [Some((x, middle)), Some((x + swatch, middle))], *pen)?,
            Key::Area(colour) => {
                let corners = [(x, middle - px(5.0)), (x + swatch, middle + px(5.0))];
                area.draw(&Rectangle::new(corners, shade(*colour).filled()))?;
                let [(left, top), (right, bottom)] = corners;
                let outline = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)];
                line(area, outline.map(Some), Pen { colour: *colour, width: 0.9, dash: SOLID })?;
            }
        }
        area.draw(&Text::new(name.clone(), (x + swatch + px(6.0), y), style.clone()))?;
        x += wide;
    }
    Ok(if legend.is_empty() { y } else { y + row })
}
