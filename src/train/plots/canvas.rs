//! Strokes and texts as SVG, in points. The text's font is part of the program.

use std::fmt::Display;
use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, GlyphId};
use unicode_width::UnicodeWidthChar;

use super::style::{INK, Pen, SIZE};

/// The font file (see the README beside it), and its family's name.
pub(super) const FILE: &[u8] = include_bytes!("font/OpenSans-subset.ttf");
pub(super) const FAMILY: &str = "Open Sans";

static FONT: LazyLock<FontRef<'static>> =
    LazyLock::new(|| FontRef::try_from_slice(FILE).expect("the font that is compiled in is a font"));

/// Width of `words` in points, in an em of `size`.
pub(super) fn width(words: &str, size: f64) -> f64 {
    let em = FONT.units_per_em().unwrap_or(1.0);
    let advance = |letter: char| match FONT.glyph_id(letter) {
        // Another font's, in whose scripts a letter takes half of a square or all of it.
        GlyphId(0) => 0.5 * em * letter.width().unwrap_or(0) as f32,
        glyph => FONT.h_advance_unscaled(glyph),
    };
    size * f64::from(words.chars().map(advance).sum::<f32>() / em)
}

/// Whether the font has all letters of a text.
pub(super) fn has_all(words: &str) -> bool {
    words.chars().all(|letter| FONT.glyph_id(letter).0 != 0)
}

/// A place: to the right, and down.
pub(super) type At = (f64, f64);

/// Where a text stands by its place.
#[derive(Clone, Copy)]
pub(super) enum Side {
    /// Before it, its middle at it, or behind it.
    Left,
    Middle,
    Right,
    /// Its middle below it.
    Below,
    /// Its middle at it, running upwards.
    Upward,
    /// Below it, running upwards.
    Hanging,
}

/// An SVG document that is being written.
pub(super) struct Canvas {
    pub svg: String,
}

impl Canvas {
    /// An empty one, which holds the font.
    pub fn new(font: &str) -> Canvas {
        let (wide, high) = SIZE;
        // Viewers that do not load embedded fonts take one of the others.
        let families = format!("{FAMILY}, Noto Sans, DejaVu Sans, Helvetica, Arial, sans-serif");
        Canvas {
            svg: format!(
                "<svg width=\"{wide}\" height=\"{high}\" viewBox=\"0 0 {wide} {high}\" font-family=\"{families}\" \
                 xmlns=\"http://www.w3.org/2000/svg\">\n\
                 <style>@font-face{{font-family:\"{FAMILY}\";src:url(data:font/ttf;base64,{font})}}</style>\n\
                 <rect width=\"{wide}\" height=\"{high}\" fill=\"#FFFFFF\"/>\n"
            ),
        }
    }

    fn add(&mut self, element: impl Display) {
        self.svg.push_str(&format!("{element}\n"));
    }

    /// A line through points, cut wherever `points` holds `None`.
    pub fn line(&mut self, points: impl IntoIterator<Item = Option<At>>, pen: Pen) {
        let (mut path, mut command) = (String::new(), 'M');
        for point in points {
            if let Some((x, y)) = point {
                path.push_str(&format!("{command}{x:.2} {y:.2}"));
            }
            command = if point.is_some() { 'L' } else { 'M' };
        }
        let Pen { colour, width, dash } = pen;
        let dashes = dash.map_or(String::new(), |(dash, gap)| format!(" stroke-dasharray=\"{dash} {gap}\""));
        self.add(format_args!(
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" stroke-linejoin=\"round\"{dashes}/>"
        ));
    }

    /// A shape without an outline.
    pub fn area(&mut self, corners: &[At], colour: &str, opacity: f64) {
        let corners: Vec<String> = corners.iter().map(|(x, y)| format!("{x:.2},{y:.2}")).collect();
        let points = corners.join(" ");
        self.add(format_args!(
            "<polygon points=\"{points}\" fill=\"{colour}\" fill-opacity=\"{opacity:.3}\"/>"
        ));
    }

    /// A dot.
    pub fn dot(&mut self, (x, y): At, radius: f64, colour: &str, opacity: f64) {
        self.add(format_args!(
            "<circle cx=\"{x:.2}\" cy=\"{y:.2}\" r=\"{radius}\" fill=\"{colour}\" fill-opacity=\"{opacity}\"/>"
        ));
    }

    /// A text in an em of `size`.
    pub fn text(&mut self, words: &str, at: At, side: Side, size: f64, colour: &str) {
        let (x, y) = at;
        let anchor = match side {
            Side::Left | Side::Hanging => "end",
            Side::Middle | Side::Below | Side::Upward => "middle",
            Side::Right => "start",
        };
        // From the middle of a line, or from its upper end, to the baseline.
        let down = size * if let Side::Below = side { 0.76 } else { 0.34 };
        let turned = match side {
            Side::Upward | Side::Hanging => format!(" transform=\"rotate(270 {x:.2} {y:.2})\""),
            Side::Left | Side::Middle | Side::Right | Side::Below => String::new(),
        };
        let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let y = y + down;
        self.add(format_args!(
            "<text x=\"{x:.2}\" y=\"{y:.2}\" font-size=\"{size:.2}\" fill=\"{colour}\" text-anchor=\"{anchor}\"{turned}>\n{words}\n</text>"
        ));
    }

    /// A text in ink, made smaller where it would take more than `room`.
    pub fn fitted(&mut self, words: &str, at: At, size: f64, room: f64) {
        let size = size * (room / width(words, size).max(1.0)).min(1.0);
        self.text(words, (at.0, at.1 + size / 2.0), Side::Right, size, INK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_font_has_what_labels_need() {
        for letter in "The quick brown fox, 0123456789 (%) × − – ≥ θ α ℓ é ÷ ±".chars() {
            assert_ne!(FONT.glyph_id(letter).0, 0, "{letter}");
        }
    }
}
