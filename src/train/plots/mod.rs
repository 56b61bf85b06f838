//! Pictures as SVG and PNG: plain data in, files out.
//!
//! A [`Chart`] says what is to be seen: two axes, and layers of lines, areas, dots or squares in
//! their frame. The PNG is made from the SVG, so that they show the same. The font is part of the
//! program, and of each SVG, so that no machine needs to have it; what it lacks, such as Chinese, a
//! PNG draws with the machine's fonts, or writes as `\u{4e2d}` where they lack it too. Colours are
//! those of Okabe and Ito, told apart by colour-blind eyes too; lines differ in their dashes as
//! well. Values that are not finite are left out, and data without any leave an empty frame that
//! says so.
//!
//! ```no_run
//! use metatape::train::plots::{Axis, Chart, Layer, Pen, write};
//!
//! let chart = Chart {
//!     title: "fashion-mnist-mini, uniform:0.6".into(),
//!     x: Axis::new("epoch").whole(),
//!     y: Axis::new("test accuracy (%)").at_least(2.0),
//!     layers: vec![Layer::line("mwnet", Pen::number(0), &[(1.0, 71.0), (2.0, 76.2)])],
//!     ..Chart::default()
//! };
//! let [svg, png] = write(&chart, "runs/example/accuracy".as_ref())?;
//! # Ok::<(), metatape::Error>(())
//! ```
//!
//! | file | the one thing that happens there |
//! |---|---|
//! | `axis.rs` | which values an axis spans, and its ticks |
//! | `style.rs` | sizes, colours, dashes |
//! | `draw.rs` | from a chart to strokes and texts |
//! | `canvas.rs` | strokes and texts as SVG, and the font |
//! | `letters.rs` | which letters a PNG can show, and by which font |
//! | `render.rs` | the two files |

mod axis;
mod canvas;
mod draw;
mod letters;
mod render;
mod style;

pub use axis::Axis;
pub use render::{files, write};
pub use style::{Pen, READABLE};

/// A picture.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Chart {
    /// One line on data set, noise and model; may be empty.
    pub title: String,
    /// What runs along the bottom.
    pub x: Axis,
    /// What runs upwards; one with names runs downwards, so that the first stands on top.
    pub y: Axis,
    /// A second vertical axis, on the right, that areas are drawn to.
    pub right: Option<Axis>,
    /// Drawn in this order.
    pub layers: Vec<Layer>,
}

impl Chart {
    /// The same with all of its texts as `shown` has them.
    fn with_texts(mut self, shown: &dyn Fn(&str) -> String) -> Chart {
        let names = self.layers.iter_mut().filter_map(|layer| match layer {
            Layer::Line { name, .. } | Layer::Area { name, .. } => Some(name),
            Layer::Dots(..) | Layer::Rule(_) | Layer::Squares(_) => None,
        });
        let axes = [Some(&mut self.x), Some(&mut self.y), self.right.as_mut()].into_iter().flatten();
        let of_axes = axes.flat_map(|axis| std::iter::once(&mut axis.label).chain(&mut axis.names));
        std::iter::once(&mut self.title).chain(of_axes).chain(names).for_each(|text| *text = shown(text));
        self
    }
}

/// What is drawn in a chart's frame.
#[derive(Clone, PartialEq, Debug)]
pub enum Layer {
    /// A line from left to right; a point that is not finite leaves a gap.
    Line {
        /// As the legend shows it.
        name: String,
        /// How it looks.
        pen: Pen,
        /// (x, y).
        points: Vec<(f64, f64)>,
    },
    /// A shaded area over the bottom of the frame.
    Area {
        /// As the legend shows it.
        name: String,
        /// Its colour, which is lighter inside.
        pen: Pen,
        /// From the left to the right end of the bottom.
        outline: Vec<(f64, f64)>,
    },
    /// Dots in the row of this number, and a bar at their mean.
    Dots(usize, Vec<f64>),
    /// A dashed line from bottom to top, to compare with.
    Rule(f64),
    /// `[row][column]`, each a square of a colour and a number for its share (0 … 1) of the row.
    Squares(Vec<Vec<f64>>),
}

impl Layer {
    /// A line.
    pub fn line(name: impl Into<String>, pen: Pen, points: &[(f64, f64)]) -> Layer {
        Layer::Line { name: name.into(), pen, points: points.to_vec() }
    }

    /// How values are distributed: shares in percent of `of` values, in so many bins of equal width
    /// over `0..=high`. Those beyond an end go into the bin there.
    pub fn histogram(name: String, pen: Pen, values: &[f64], bins: usize, high: f64, of: usize) -> Layer {
        let mut counts = vec![0_usize; bins];
        for value in values.iter().filter(|value| value.is_finite()) {
            // The cast takes what is below 0 to 0.
            counts[((value / high * bins as f64) as usize).min(bins - 1)] += 1;
        }
        let place = |bin: usize| high * bin as f64 / bins as f64;
        let mut outline = vec![(0.0, 0.0)];
        for (bin, count) in counts.into_iter().enumerate() {
            let share = 100.0 * count as f64 / of.max(1) as f64;
            outline.extend([(place(bin), share), (place(bin + 1), share)]);
        }
        outline.push((high, 0.0));
        Layer::Area { name, pen, outline }
    }

    /// Its points; of dots and squares, with the numbers of rows and columns.
    fn points(&self) -> Vec<(f64, f64)> {
        let all = match self {
            Layer::Line { points, .. } | Layer::Area { outline: points, .. } => points.clone(),
            Layer::Dots(row, values) => values.iter().map(|value| (*value, *row as f64)).collect(),
            Layer::Rule(_) => Vec::new(),
            Layer::Squares(rows) => {
                let row = |(row, shares): (usize, &Vec<f64>)| {
                    (0..shares.len()).map(move |column| (column as f64, row as f64))
                };
                rows.iter().enumerate().flat_map(row).collect()
            }
        };
        all.into_iter().filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
    }
}

/// The largest y of an area or a line, at least 0.
pub fn peak<'a>(layers: impl IntoIterator<Item = &'a Layer>) -> f64 {
    layers.into_iter().flat_map(Layer::points).map(|point| point.1).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_value_is_counted_once() {
        let values = [0.0, 0.4, 0.5, 1.0, 7.0, -1.0, f64::NAN, f64::INFINITY];
        let outline = |values: &[f64], bins, of| match Layer::histogram(
            String::new(),
            Pen::number(0),
            values,
            bins,
            1.0,
            of,
        ) {
            Layer::Area { outline, .. } => outline,
            other => panic!("{other:?}"),
        };
        let halves = [(0.0, 0.0), (0.0, 50.0), (0.5, 50.0), (0.5, 50.0), (1.0, 50.0), (1.0, 0.0)];
        assert_eq!(outline(&values, 2, 6), halves);
        assert!(outline(&[], 3, 0).iter().all(|point| point.1 == 0.0));
    }
}
