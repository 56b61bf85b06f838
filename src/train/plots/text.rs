//! Text. An SVG names the font and holds it; on a bitmap we set the glyphs ourselves, at the places
//! where an SVG viewer puts them, because the drawing library ignores the space before each glyph
//! and uses another scale there.

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, Glyph, PxScale, point};
use plotters::prelude::{BitMapBackend, DrawingBackend};
use plotters::style::TextStyle;
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingErrorKind, FontTransform,
};

/// The font file (see the README beside it), and the family name that an SVG gives it.
pub(super) const FILE: &[u8] = include_bytes!("font/OpenSans-subset.ttf");
pub(super) const FAMILY: &str = "Open Sans";

/// The drawing library's font sizes are this many times the em.
pub(super) const SIZE_PER_EM: f64 = 1.24;

static FONT: LazyLock<FontRef<'static>> =
    LazyLock::new(|| FontRef::try_from_slice(FILE).expect("the font that is compiled in is a font"));

/// Width of `words` in pixels.
pub(super) fn width(words: &str, style: &TextStyle<'_>) -> i32 {
    set(words, style.font.get_size() / SIZE_PER_EM).1.ceil() as i32
}

/// The glyphs of `words` on a baseline from the origin, for an em of so many pixels, and where they
/// end.
fn set(words: &str, em: f64) -> (Vec<Glyph>, f32) {
    let per_unit = em as f32 / FONT.units_per_em().unwrap_or(1.0);
    let scale = PxScale::from(per_unit * FONT.height_unscaled());
    let mut end = 0.0;
    let glyphs = words
        .chars()
        .map(|letter| {
            let id = FONT.glyph_id(letter);
            let glyph = id.with_scale_and_position(scale, point(end, 0.0));
            end += per_unit * FONT.h_advance_unscaled(id);
            glyph
        })
        .collect();
    (glyphs, end)
}

/// A bitmap whose text stands as in the SVG; all else is the drawing library's.
pub(super) struct Bitmap<'a>(pub BitMapBackend<'a>);

type Outcome<B> = Result<(), DrawingErrorKind<<B as DrawingBackend>::ErrorType>>;

impl<'a> DrawingBackend for Bitmap<'a> {
    type ErrorType = <BitMapBackend<'a> as DrawingBackend>::ErrorType;

    fn draw_text<S: BackendTextStyle>(&mut self, words: &str, style: &S, at: BackendCoord) -> Outcome<Self> {
        let em = style.size() / SIZE_PER_EM;
        let (glyphs, end) = set(words, em);
        let start = match style.anchor().h_pos {
            HPos::Left => 0.0,
            HPos::Center => -0.5 * end,
            HPos::Right => -end,
        };
        // As the library's SVG backend shifts text, with the x-height of this font (0.535 em) for 2
        // ex.
        let baseline = match style.anchor().v_pos {
            VPos::Top => 0.76 * em,
            VPos::Center => 0.5 * 0.535 * em,
            VPos::Bottom => -0.5 * 0.535 * em,
        } as f32;
        let color = style.color();
        for mut glyph in glyphs {
            glyph.position.x += start;
            glyph.position.y += baseline;
            let Some(outline) = FONT.outline_glyph(glyph) else { continue };
            let corner = outline.px_bounds().min;
            let mut covered = Vec::new();
            outline.draw(|x, y, coverage| covered.push((x, y, coverage)));
            for (x, y, coverage) in covered {
                let (x, y) = (corner.x as i32 + x as i32, corner.y as i32 + y as i32);
                let (x, y) = match style.transform() {
                    FontTransform::None => (x, y),
                    FontTransform::Rotate90 => (-y, x),
                    FontTransform::Rotate180 => (-x, -y),
                    FontTransform::Rotate270 => (y, -x),
                };
                let alpha = color.alpha * f64::from(coverage.clamp(0.0, 1.0));
                self.0.draw_pixel((at.0 + x, at.1 + y), BackendColor { alpha, ..color })?;
            }
        }
        Ok(())
    }

    fn get_size(&self) -> (u32, u32) {
        self.0.get_size()
    }

    fn ensure_prepared(&mut self) -> Outcome<Self> {
        self.0.ensure_prepared()
    }

    fn present(&mut self) -> Outcome<Self> {
        self.0.present()
    }

    fn draw_pixel(&mut self, at: BackendCoord, color: BackendColor) -> Outcome<Self> {
        self.0.draw_pixel(at, color)
    }

    fn draw_line<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
    ) -> Outcome<Self> {
        self.0.draw_line(from, to, style)
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
        fill: bool,
    ) -> Outcome<Self> {
        self.0.draw_rect(from, to, style, fill)
    }
}

#[cfg(test)]
mod tests {
    use plotters::prelude::*;

    use super::super::style::{INK, text};
    use super::*;

    #[test]
    fn the_font_has_what_labels_need() {
        for letter in "The quick brown fox, 0123456789 (%) × − – ≥ θ α ℓ é".chars() {
            assert_ne!(FONT.glyph_id(letter).0, 0, "{letter}");
        }
    }

    #[test]
    fn text_stands_where_its_anchor_says() {
        let style = text(12.0, INK);
        let wide = width("Hamburg", &style);
        let (side, middle) = (600_u32, 300);
        let inked = |style: TextStyle<'static>| {
            let mut pixels = vec![255; (side * side * 3) as usize];
            {
                let bitmap = Bitmap(BitMapBackend::with_buffer(&mut pixels, (side, side)));
                bitmap.into_drawing_area().draw(&Text::new("Hamburg", (middle, middle), style)).unwrap();
            }
            let dark: Vec<(i32, i32)> = (0..side * side)
                .filter(|&i| pixels[3 * i as usize] < 128)
                .map(|i| ((i % side) as i32, (i / side) as i32))
                .collect();
            let span = |at: fn(&(i32, i32)) -> i32| {
                (dark.iter().map(at).min().unwrap(), dark.iter().map(at).max().unwrap())
            };
            (span(|p| p.0), span(|p| p.1))
        };
        let near = |a: i32, b: i32| (a - b).abs() <= 6;
        let ((left, right), (top, _)) = inked(style.clone());
        assert!(near(left, middle) && near(right, middle + wide) && top >= middle);
        let centred = plotters_backend::text_anchor::Pos::new(HPos::Center, VPos::Center);
        let ((left, right), (top, bottom)) = inked(style.pos(centred));
        assert!(near(left, middle - wide / 2) && near(right, middle + wide / 2));
        assert!(top < middle && middle < bottom);
        let upward = style.transform(FontTransform::Rotate270).pos(centred);
        let ((left, right), (top, bottom)) = inked(upward);
        assert!(near(top, middle - wide / 2) && near(bottom, middle + wide / 2));
        assert!(left < middle && middle < right);
    }
}
