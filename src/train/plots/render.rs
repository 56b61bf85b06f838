//! From a chart to its two files.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::Tree;

use super::Chart;
use super::canvas::{Canvas, FILE};
use super::draw::draw;
use super::letters::{legible, options};
use super::style::SIZE;
use crate::train::write_atomically;
use crate::words::visible;
use crate::{Error, Result, room};

/// Pixels of the PNG a point.
const PNG_SCALE: f64 = 2.0;

/// Bytes that drawing one takes at most: the largest has [`super::draw::MOST_SQUARES`]² squares.
const ROOM: usize = 256 << 20;

/// The files that plots of these names are written to.
pub fn files(stems: impl IntoIterator<Item = String>) -> Vec<String> {
    stems.into_iter().flat_map(|stem| ["svg", "png"].map(|ending| format!("{stem}.{ending}"))).collect()
}

/// Writes `stem`.svg and `stem`.png, replacing what is there, and returns their paths in this
/// order.
///
/// # Errors
/// [`Error::Io`] with the path of the file that could not be written.
pub fn write(chart: &Chart, stem: &Path) -> Result<[PathBuf; 2]> {
    // The libraries that draw ask for memory without a way to say that there is none.
    room::check(ROOM, "drawing a plot", "end other programs")?;
    let chart = chart.clone().with_texts(&visible);
    let (svg, png) = (svg(&chart), png(&chart)?);
    // Not `with_extension`, which would cut a dot in the name itself.
    let file = |ending: &str, bytes: &[u8]| {
        let mut path = stem.as_os_str().to_owned();
        path.push(ending);
        let path = PathBuf::from(path);
        write_atomically(&path, bytes)?;
        Ok(path)
    };
    Ok([file(".svg", svg.as_bytes())?, file(".png", &png)?])
}

/// The chart as an SVG text that holds its font.
fn svg(chart: &Chart) -> String {
    let mut canvas = Canvas::new(&BASE64_STANDARD.encode(FILE));
    draw(chart, &mut canvas);
    canvas.svg + "</svg>\n"
}

/// The same as the bytes of a PNG file, with all texts as the fonts that there are can show them.
fn png(chart: &Chart) -> Result<Vec<u8>> {
    let broken = |e: &dyn Display| Error::Program(format!("a picture cannot be drawn: {e}"));
    let tree =
        Tree::from_str(&svg(&chart.clone().with_texts(&legible)), options()).map_err(|e| broken(&e))?;
    let pixels = |points: f64| (PNG_SCALE * points) as u32;
    let mut picture = Pixmap::new(pixels(SIZE.0), pixels(SIZE.1)).ok_or_else(|| broken(&"it has no size"))?;
    let scale = PNG_SCALE as f32;
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut picture.as_mut());
    picture.encode_png().map_err(|e| broken(&e))
}

#[cfg(test)]
mod tests {
    use super::super::{Axis, Layer, Pen};
    use super::*;

    /// How many pixels of a PNG are of this colour, nearly.
    fn count(png: &[u8], colour: [u8; 3]) -> usize {
        let image = image::load_from_memory(png).unwrap().into_rgb8();
        assert_eq!(image.dimensions(), (1440, 880));
        image.pixels().filter(|pixel| pixel.0.iter().zip(colour).all(|(a, b)| a.abs_diff(b) < 12)).count()
    }

    fn lines(title: &str, all: &[&[f64]]) -> Chart {
        let line = |(i, values): (usize, &&[f64])| {
            let points: Vec<(f64, f64)> = (1..).map(f64::from).zip(values.iter().copied()).collect();
            Layer::line(format!("line {i}"), Pen::number(i), &points)
        };
        let (x, y) = (Axis::new("epoch").whole(), Axis::new("test accuracy (%)").at_least(2.0));
        Chart { title: title.into(), x, y, layers: all.iter().enumerate().map(line).collect(), right: None }
    }

    #[test]
    fn both_files_show_the_data() {
        let dir = tempfile::tempdir().unwrap();
        let chart = lines("with <&> in it", &[&[60.0, 70.0, 75.0], &[60.0, 65.0, 66.0]]);
        let [svg, png] = write(&chart, &dir.path().join("a.b")).unwrap();
        assert_eq!(
            (svg.file_name().unwrap(), png.file_name().unwrap()),
            ("a.b.svg".as_ref(), "a.b.png".as_ref())
        );
        let svg = std::fs::read_to_string(svg).unwrap();
        assert!(svg.starts_with("<svg width=\"720\" height=\"440\" viewBox=\"0 0 720 440\""));
        let holds = |part: &str| svg.contains(part);
        assert!(holds("@font-face") && holds("with &lt;&amp;&gt; in it") && holds("\nline 0\n"));
        assert!(holds("#0072B2") && holds("#D55E00"));
        let png = std::fs::read(png).unwrap();
        assert!(count(&png, [0, 114, 178]) > 500 && count(&png, [213, 94, 0]) > 300);
        // Text: ticks and labels in the ink of no line.
        assert!(count(&png, [30, 30, 30]) > 2000);
    }

    #[test]
    fn nothing_and_oddities_are_drawn_without_panic() {
        let nan = f64::NAN;
        let huge = [1e308, -1e308, f64::INFINITY, 0.0];
        for values in [&[][..], &[nan], &[nan, nan], &[5.0], &[5.0, 5.0, 5.0], &[1.0, nan, 2.0], &huge] {
            let empty = values.iter().all(|value| value.is_nan());
            let mut chart = lines("", &[values; 5]);
            assert_eq!(svg(&chart).contains("no data"), empty);
            chart.right = Some(Axis::new("").over(0.0, 0.0));
            chart.layers.push(Layer::histogram(String::new(), Pen::area(true), values, 4, 1.0, values.len()));
            assert!(!svg(&chart).contains("no data"));
            let rows = vec![Layer::Rule(nan), Layer::Dots(0, values.to_vec()), Layer::Dots(1, Vec::new())];
            let y = Axis::new("").named(vec!["a".into(), "long name ".repeat(30)], 2);
            let chart = Chart { y, layers: rows, ..Chart::default() };
            assert_eq!(svg(&chart).contains("no data"), empty);
        }
        let squares = Chart { layers: vec![Layer::Squares(Vec::new())], ..Chart::default() };
        assert!(svg(&squares).contains("no data"));
        assert!(svg(&Chart::default()).contains("no data"));
    }

    #[test]
    fn a_matrix_has_its_first_row_on_top() {
        let axis = |label: &str| Axis::new(label).named(vec!["ant 0".into(), "bee 1".into()], 2);
        let shares = vec![vec![0.75, 0.25], vec![0.0, 1.0]];
        let layers = vec![Layer::Squares(shares)];
        let chart = Chart { x: axis("predicted"), y: axis("true"), layers, ..Chart::default() };
        let drawn = svg(&chart);
        // (x, y) of the text.
        let at = |text: &str| -> (f64, f64) {
            let before = &drawn[..drawn.find(&format!("\n{text}\n")).unwrap()];
            let tag = &before[before.rfind("<text").unwrap()..];
            let number =
                |name: &str| tag.split(name).nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
            (number(" x=\""), number(" y=\""))
        };
        let (first, second, last) = (at("75"), at("25"), at("100"));
        assert!(first.0 < second.0 && first.1 == second.1 && last.0 == second.0 && last.1 > first.1);
        assert!((at("ant 0").1 - first.1).abs() < 5.0);
    }

    /// A name that no XML may hold, and one that the program's own font lacks: neither breaks the
    /// picture, and neither is blank.
    #[test]
    fn odd_names_are_seen() {
        let named = |name: &str| {
            let y = Axis::new("").named(vec![name.into()], 1);
            Chart { y, layers: vec![Layer::Dots(0, vec![1.0])], ..Chart::default() }
        };
        let dir = tempfile::tempdir().unwrap();
        let [svg, _] = write(&named("bell \u{7}"), &dir.path().join("odd")).unwrap();
        assert!(std::fs::read_to_string(svg).unwrap().contains("\nbell \\u{7}\n"));
        // A title takes the same room, whatever it says.
        let ink = |title: &str| count(&png(&lines(title, &[&[1.0, 2.0]])).unwrap(), [30, 30, 30]);
        for name in ["中国", "😀", "\u{10ffff}", "Ж"] {
            assert!(ink(name) > ink("\u{a0}") + 20, "{name}: {} of {}", ink(name), ink("\u{a0}"));
        }
    }

    #[test]
    fn a_matrix_of_many_classes_has_no_more_squares_than_can_be_seen() {
        for (classes, squares) in [(100, 100), (250, 250), (251, 126), (1000, 250)] {
            let shares =
                (0..classes).map(|row| (0..classes).map(|c| f64::from(u8::from(c == row))).collect());
            let axis = || Axis::new("class").named(Vec::new(), classes);
            let layers = vec![Layer::Squares(shares.collect())];
            let drawn = svg(&Chart { x: axis(), y: axis(), layers, ..Chart::default() });
            assert_eq!(drawn.matches("<polygon").count(), squares * squares, "{classes}");
            assert_eq!(drawn.matches("fill-opacity=\"1.000\"").count(), squares, "{classes}");
        }
    }

    #[test]
    fn an_error_names_the_file() {
        let error = write(&lines("", &[&[1.0]]), Path::new("/no/such/folder/plot")).unwrap_err().to_string();
        assert!(error.starts_with("/no/such/folder/plot.svg"), "{error}");
    }
}
