//! From a chart to its two files.

use std::fmt::Display;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use image::imageops::{FilterType, resize};
use image::{ImageFormat, RgbImage};
use plotters::prelude::*;

use super::Chart;
use super::draw::draw;
use super::style::{SCALE, SIZE};
use super::text::{Bitmap, FAMILY, FILE};
use crate::{Error, Result};

/// Pixels of the PNG a point; the canvas is finer, and its pixels are averaged.
const PNG_SCALE: u32 = 2;

/// Writes `stem`.svg and `stem`.png, replacing what is there, and returns their paths in this
/// order.
///
/// # Errors
/// [`Error::Io`] with the path of the file that could not be written.
pub fn write(chart: &Chart, stem: &Path) -> Result<[PathBuf; 2]> {
    // Not `with_extension`, which would cut a dot in the name itself.
    let path = |ending: &str| {
        let mut name = stem.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let paths = [path(".svg"), path(".png")];
    std::fs::write(&paths[0], svg(chart, &paths[0])?).map_err(Error::io(&paths[0], "write the plot"))?;
    std::fs::write(&paths[1], png(chart, &paths[1])?).map_err(Error::io(&paths[1], "write the plot"))?;
    Ok(paths)
}

/// The size of the canvas in pixels.
fn canvas() -> (u32, u32) {
    (SIZE.0 * SCALE, SIZE.1 * SCALE)
}

/// An error of a drawing library as one of ours.
fn drawing<E: Display>(path: &Path) -> impl FnOnce(E) -> Error {
    let path = path.to_path_buf();
    move |error| Error::Io { path, action: "draw the plot", source: io::Error::other(error.to_string()) }
}

/// The chart as an SVG text that holds its font.
fn svg(chart: &Chart, path: &Path) -> Result<String> {
    let mut drawn = String::new();
    {
        let area = SVGBackend::with_string(&mut drawn, canvas()).into_drawing_area();
        area.fill(&WHITE).map_err(drawing(path))?;
        draw(chart, &area).map_err(drawing(path))?;
        area.present().map_err(drawing(path))?;
    }
    // Shown at the size in points; the drawing itself keeps the fine coordinates of its viewBox.
    let (width, height) = canvas();
    let sized = drawn.replacen(
        &format!("<svg width=\"{width}\" height=\"{height}\""),
        &format!("<svg width=\"{}\" height=\"{}\"", SIZE.0, SIZE.1),
        1,
    );
    // Viewers that do not load embedded fonts take one of the others.
    let families = format!("font-family=\"{FAMILY}, Noto Sans, DejaVu Sans, Helvetica, Arial, sans-serif\"");
    let named = sized.replace(&format!("font-family=\"{FAMILY}\""), &families);
    let face = format!(
        "<style>@font-face{{font-family:\"{FAMILY}\";src:url(data:font/ttf;base64,{})}}</style>\n",
        base64(FILE)
    );
    let Some(start) = named.find("<svg").and_then(|at| Some(at + named[at..].find('>')? + 1)) else {
        return Err(drawing(path)("the drawing library wrote no <svg> element"));
    };
    Ok(format!("{}\n{face}{}", &named[..start], named[start..].trim_start()))
}

/// The chart as the bytes of a PNG file.
fn png(chart: &Chart, path: &Path) -> Result<Vec<u8>> {
    let (width, height) = canvas();
    let mut pixels = vec![0; (width * height * 3) as usize];
    {
        let area = Bitmap(BitMapBackend::with_buffer(&mut pixels, canvas())).into_drawing_area();
        area.fill(&WHITE).map_err(drawing(path))?;
        draw(chart, &area).map_err(drawing(path))?;
        area.present().map_err(drawing(path))?;
    }
    let image = RgbImage::from_raw(width, height, pixels)
        .ok_or_else(|| drawing(path)("the canvas has an unexpected size"))?;
    let image = resize(&image, SIZE.0 * PNG_SCALE, SIZE.1 * PNG_SCALE, FilterType::Triangle);
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).map_err(drawing(path))?;
    Ok(bytes.into_inner())
}

/// Base64 with padding (RFC 4648), as data URLs want it.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0, |word, i| word << 8 | u32::from(*chunk.get(i).unwrap_or(&0)));
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Axis, Layer, Pen};
    use super::*;

    #[test]
    fn base64_vectors_of_rfc_4648() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (plain, coded) in cases {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    /// How many pixels of a PNG are of this colour, nearly.
    fn count(png: &[u8], colour: [u8; 3]) -> usize {
        let image = image::load_from_memory(png).unwrap().into_rgb8();
        assert_eq!(image.dimensions(), (SIZE.0 * PNG_SCALE, SIZE.1 * PNG_SCALE));
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
        assert!(svg.starts_with("<svg width=\"720\" height=\"440\" viewBox=\"0 0 2880 1760\""));
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
        let path = Path::new("x.svg");
        for values in [&[][..], &[nan], &[nan, nan], &[5.0], &[5.0, 5.0, 5.0], &[1.0, nan, 2.0], &huge] {
            let empty = values.iter().all(|value| value.is_nan());
            let mut chart = lines("", &[values; 5]);
            assert_eq!(svg(&chart, path).unwrap().contains("no data"), empty);
            chart.right = Some(Axis::new("").over(0.0, 0.0));
            chart.layers.push(Layer::histogram(String::new(), Pen::area(true), values, 4, 1.0, values.len()));
            assert!(!svg(&chart, path).unwrap().contains("no data"));
            let rows = vec![Layer::Rule(nan), Layer::Dots(0, values.to_vec()), Layer::Dots(1, Vec::new())];
            let y = Axis::new("").named(vec!["a".into(), "long name ".repeat(30)], 2);
            let chart = Chart { y, layers: rows, ..Chart::default() };
            assert_eq!(svg(&chart, path).unwrap().contains("no data"), empty);
        }
        let squares = Chart { layers: vec![Layer::Squares(Vec::new())], ..Chart::default() };
        assert!(svg(&squares, path).unwrap().contains("no data"));
        assert!(svg(&Chart::default(), path).unwrap().contains("no data"));
    }

    #[test]
    fn a_matrix_has_its_first_row_on_top() {
        let axis = |label: &str| Axis::new(label).named(vec!["ant 0".into(), "bee 1".into()], 2);
        let shares = vec![vec![0.75, 0.25], vec![0.0, 1.0]];
        let layers = vec![Layer::Squares(shares)];
        let chart = Chart { x: axis("predicted"), y: axis("true"), layers, ..Chart::default() };
        let drawn = svg(&chart, Path::new("x.svg")).unwrap();
        // (x, y) of the text.
        let at = |text: &str| -> (i32, i32) {
            let before = &drawn[..drawn.find(&format!("\n{text}\n")).unwrap()];
            let tag = &before[before.rfind("<text").unwrap()..];
            let number =
                |name: &str| tag.split(name).nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
            (number(" x=\""), number(" y=\""))
        };
        let (first, second, last) = (at("75"), at("25"), at("100"));
        assert!(first.0 < second.0 && first.1 == second.1 && last.0 == second.0 && last.1 > first.1);
        assert!((at("ant 0").1 - first.1).abs() < 20);
    }

    #[test]
    fn an_error_names_the_file() {
        let error = write(&lines("", &[&[1.0]]), Path::new("/no/such/folder/plot")).unwrap_err().to_string();
        assert!(error.starts_with("/no/such/folder/plot.svg: cannot write the plot"), "{error}");
    }
}
