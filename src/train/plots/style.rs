//! The look that all charts share: sizes, colours, dashes, title and legend.

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::{FontTransform, RGBAColor, TextStyle};

use super::text::{FAMILY, SIZE_PER_EM, width};
use super::{Drawn, Layer};

/// Width and height of a figure in points, as an SVG viewer shows it.
pub(super) const SIZE: (u32, u32) = (720, 440);
/// Pixels a point on the canvas that is drawn on. Backends take whole pixels, so a fine canvas is
/// what makes lines smooth.
pub(super) const SCALE: u32 = 4;

/// So many classes can be told apart by name.
pub const READABLE: usize = 20;

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

/// Lengths of dash and gap in points; no gap is a solid line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Dash(f64, f64);

pub(super) const SOLID: Dash = Dash(1.0, 0.0);
pub(super) const DASHED: Dash = Dash(6.0, 4.0);
pub(super) const DOTTED: Dash = Dash(1.6, 3.2);

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pen {
    pub(super) colour: RGBColor,
    /// In points.
    pub(super) width: f64,
    pub(super) dash: Dash,
}

impl Pen {
    /// One of twenty-four that are told apart, by colour and dash.
    pub fn number(look: usize) -> Pen {
        let colours = [BLUE, VERMILLION, GREEN, PURPLE, INK, ORANGE, SKY, GREY];
        let dashes = [SOLID, DASHED, DOTTED];
        Pen { colour: colours[look % colours.len()], width: 2.1, dash: dashes[look % dashes.len()] }
    }

    /// Of an area.
    pub fn area(corrupted: bool) -> Pen {
        Pen { colour: if corrupted { VERMILLION } else { BLUE }, width: 0.9, dash: SOLID }
    }

    /// Of what a chart is about.
    pub fn strong() -> Pen {
        Pen { colour: INK, width: 2.6, dash: SOLID }
    }

    /// Of what was there before that.
    pub fn earlier(number: usize) -> Pen {
        Pen { colour: GREY, width: 1.8, dash: [DOTTED, DASHED][number % 2] }
    }

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

/// How a shaded area is filled.
pub(super) fn shade(colour: RGBColor) -> RGBAColor {
    colour.mix(0.35)
}

/// Draws title and legend in rows above the frame, where no data are, and returns the height used
/// in pixels.
pub(super) fn head<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    title: &str,
    layers: &[Layer],
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
    let (mut x, mut named) = (left, 0);
    for layer in layers {
        let (Layer::Line { name, pen, .. } | Layer::Area { name, pen, .. }) = layer else { continue };
        // Room also for a viewer's own font, which may be wider.
        let wide = swatch + px(6.0) + width(name, &style) * 9 / 8 + px(14.0);
        if x > left && x + wide > right {
            (x, y) = (left, y + row);
        }
        let middle = y + px(6.2);
        if let Layer::Area { .. } = layer {
            let (top, bottom, end) = (middle - px(5.0), middle + px(5.0), x + swatch);
            area.draw(&Rectangle::new([(x, top), (end, bottom)], shade(pen.colour).filled()))?;
            let outline = [(x, top), (end, top), (end, bottom), (x, bottom), (x, top)];
            line(area, outline.map(Some), *pen)?;
        } else {
            line(area, [Some((x, middle)), Some((x + swatch, middle))], *pen)?;
        }
        area.draw(&Text::new(name.clone(), (x + swatch + px(6.0), y), style.clone()))?;
        (x, named) = (x + wide, named + 1);
    }
    Ok(if named == 0 { y } else { y + row })
}
