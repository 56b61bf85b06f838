//! Which letters a PNG can show, and by which font: the program's own, or, for what that lacks, one
//! of the machine's.

use std::sync::{Arc, LazyLock};

use ab_glyph::{Font, FontRef};
use resvg::usvg::fontdb::{Database, ID};
use resvg::usvg::{FontResolver, Options};
use unicode_width::UnicodeWidthChar;

use super::canvas::{FAMILY, FILE, has_all};

/// The machine's fonts are looked for when one is needed: most pictures do without.
static OTHERS: LazyLock<Arc<Database>> = LazyLock::new(|| {
    let mut fonts = own();
    fonts.load_system_fonts();
    Arc::new(fonts)
});

/// With the program's own font, and others where that lacks a letter.
static OPTIONS: LazyLock<Options> = LazyLock::new(|| Options {
    font_family: FAMILY.into(),
    fontdb: Arc::new(own()),
    font_resolver: FontResolver {
        select_font: FontResolver::default_font_selector(),
        select_fallback: Box::new(|letter, used, fonts| {
            *fonts = OTHERS.clone();
            drawing(letter, fonts).filter(|face| !used.contains(face))
        }),
    },
    ..Options::default()
});

fn own() -> Database {
    let mut fonts = Database::new();
    fonts.load_font_data(FILE.to_vec());
    fonts
}

/// How pictures are drawn.
pub(super) fn options() -> &'static Options<'static> {
    &OPTIONS
}

/// The first font that has strokes for a letter: some only have little pictures, or an empty box.
fn drawing(letter: char, fonts: &Database) -> Option<ID> {
    let draws = |face: ID| {
        let has = |data: &[u8], index| {
            let font = FontRef::try_from_slice_and_index(data, index).ok()?;
            let glyph = font.glyph_id(letter);
            (glyph.0 != 0).then(|| font.outline(glyph)).flatten()
        };
        fonts.with_face_data(face, has).flatten().is_some()
    };
    fonts.faces().map(|face| face.id).find(|face| draws(*face))
}

/// A text whose every letter some font of this machine draws, or else its number stands for it, as
/// `\u{4e2d}`: nothing is left blank.
pub(super) fn legible(text: &str) -> String {
    let shown = |letter: char| match letter {
        _ if has_all(letter.encode_utf8(&mut [0; 4])) => letter.to_string(),
        // Marks join the letter before them, and a space is to be blank.
        _ if letter.width().unwrap_or(0) == 0 || letter.is_whitespace() => letter.to_string(),
        _ if drawing(letter, &OTHERS).is_some() => letter.to_string(),
        _ => letter.escape_unicode().to_string(),
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_that_no_font_draws_is_its_number() {
        // Of no script, and never to be one.
        assert_eq!(legible("a\u{10ffff}b"), "a\\u{10ffff}b");
        assert_eq!(legible("Ankle boot, naïve θ"), "Ankle boot, naïve θ");
        assert!(drawing('中', &own()).is_none() && drawing('b', &own()).is_some());
        // Whatever there is, each is drawn or written.
        for letter in ['中', '😀', 'ж', 'ع'] {
            let known = drawing(letter, &OTHERS).is_some();
            assert_eq!(legible(&letter.to_string()) == letter.to_string(), known);
        }
    }
}
