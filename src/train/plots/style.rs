//! The look that all charts share: sizes, colours, dashes.

/// Width and height of a picture in points, as an SVG viewer shows it.
pub(super) const SIZE: (f64, f64) = (720.0, 440.0);

/// So many classes can be told apart by name.
pub const READABLE: usize = 20;

pub(super) const INK: &str = "#1E1E1E";
pub(super) const GREY: &str = "#696969";
pub(super) const PALE: &str = "#E2E2E2";
pub(super) const WHITE: &str = "#FFFFFF";
pub(super) const BLUE: &str = "#0072B2";
pub(super) const VERMILLION: &str = "#D55E00";
const GREEN: &str = "#009E73";
const PURPLE: &str = "#CC79A7";
const ORANGE: &str = "#E69F00";
const SKY: &str = "#56B4E9";

/// Lengths of dash and gap in points; none is a solid line.
type Dash = Option<(f64, f64)>;

const SOLID: Dash = None;
const DASHED: Dash = Some((6.0, 4.0));
const DOTTED: Dash = Some((1.6, 3.2));

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pen {
    pub(super) colour: &'static str,
    /// In points.
    pub(super) width: f64,
    pub(super) dash: Dash,
}

impl Pen {
    pub(super) const THIN: Pen = Pen { colour: INK, width: 1.0, dash: SOLID };
    pub(super) const GRID: Pen = Pen { colour: PALE, width: 0.7, dash: SOLID };
    pub(super) const RULE: Pen = Pen { colour: GREY, width: 1.0, dash: DASHED };
    pub(super) const MEAN: Pen = Pen { colour: VERMILLION, width: 2.2, dash: SOLID };

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
}
