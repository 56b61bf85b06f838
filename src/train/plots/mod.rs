//! The pictures of a run, as SVG and PNG: plain data in, files out.
//!
//! Each figure is a struct of slices that implements [`Figure`]: one drawing routine, used for both
//! files, so that they show the same. The font is part of the program, and of each SVG, so that no
//! machine needs to have it. Colours are those of Okabe and Ito, told apart by colour-blind eyes
//! too; lines differ in their dashes as well. Values that are not finite are left out, and data
//! without any leave an empty frame that says so.
//!
//! ```no_run
//! use metatape::train::plots::{EpochCurves, EpochLine, write};
//!
//! let method = EpochLine { name: "mwnet", values: &[71.0, 76.2, 79.8] };
//! let baseline = [70.1, 74.0, 75.3];
//! let figure = EpochCurves::accuracy("fashion-mnist-mini, uniform:0.6", method, Some(&baseline));
//! let [svg, png] = write(&figure, "runs/example/accuracy".as_ref())?;
//! # Ok::<(), metatape::Error>(())
//! ```

mod confusion;
mod dot_rows;
mod epoch_curves;
mod frame;
mod histogram;
mod lines;
mod render;
mod style;
mod text;
mod weight_curve;
mod weight_histogram;

pub use confusion::Confusion;
pub use dot_rows::{DotRow, DotRows};
pub use epoch_curves::{EpochCurves, EpochLine};
pub use lines::{Line, Lines};
pub use render::write;
pub use weight_curve::WeightCurve;
pub use weight_histogram::WeightHistogram;

use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind};
use plotters::prelude::DrawingBackend;

/// The result of drawing on `B`.
type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

/// A picture that can draw itself; [`write()`] makes files of it.
pub trait Figure {
    /// Draws the picture on an area of the size that [`write()`] uses.
    ///
    /// # Errors
    /// Those of the backend.
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn<B>;
}
