//! Numbers and names in sentences.

/// A number and what it counts: `1 epoch`, `2 epochs`.
pub fn counted(n: usize, one: &str) -> String {
    match n {
        1 => format!("1 {one}"),
        n => format!("{n} {one}s"),
    }
}

/// Above this, a number's places before the point say nothing to a person.
const LONG: f64 = 1e7;

/// A number with so many digits behind its point; a large one as a power of ten.
pub fn number(value: f64, digits: usize) -> String {
    match value.abs() {
        LONG..f64::INFINITY => format!("{value:.digits$e}"),
        _ => format!("{value:.digits$}"),
    }
}

/// A number as short as it can be without another value; large and small ones as powers of ten.
pub fn exact(value: f64) -> String {
    match value.abs() {
        0.0 | 1e-5..1e16 => value.to_string(),
        _ => format!("{value:e}"),
    }
}

/// A name as it can stand in a line, an SVG, a page or a table: control characters, which none of
/// them may hold, as `\u{1b}`.
pub fn visible(name: &str) -> String {
    let unseen = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}' | '\u{2028}' | '\u{2029}');
    name.chars().map(|c| if unseen(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_never_long() {
        assert_eq!(
            [1.5, -2e6, 1e308, -1e8].map(|v| number(v, 2)),
            ["1.50", "-2000000.00", "1.00e308", "-1.00e8"]
        );
        assert_eq!([f64::NAN, f64::INFINITY, -0.0].map(|v| number(v, 1)), ["NaN", "inf", "-0.0"]);
        assert_eq!([0.05, 1e308, 1e-300, 100.0, 0.0].map(exact), ["0.05", "1e308", "1e-300", "100", "0"]);
    }

    #[test]
    fn names_are_one_line_that_xml_may_hold() {
        assert_eq!(visible("a\u{1b}[31m\nb\0"), "a\\u{1b}[31m\\u{a}b\\u{0}");
        assert_eq!(visible("Ankle boot 中 😀"), "Ankle boot 中 😀");
    }

    #[test]
    fn one_is_singular() {
        assert_eq!([0, 1, 2].map(|n| counted(n, "epoch")), ["0 epochs", "1 epoch", "2 epochs"]);
    }
}
