//! Standard output: text, tables, JSON.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::Path;

use metatape::file::read_text;
use metatape::words::counted;
use metatape::{Error, Result};
use unicode_width::UnicodeWidthStr;

/// Writes a text and a line end to standard output.
pub fn print(text: impl Display) -> Result<()> {
    sent(writeln!(std::io::stdout(), "{text}"))
}

/// What has become of a text for standard output. A reader that has gone away (`| head`) is no
/// error: the work goes on.
pub fn sent(written: std::io::Result<()>) -> Result<()> {
    match written.and_then(|()| std::io::stdout().flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io("standard output", "write")(e)),
        _ => Ok(()),
    }
}

/// A line on standard error. If nobody is there to read it, nobody can be told so.
pub fn complain(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// What went wrong in trainings, on standard error, behind all else: a terminal shows it with the
/// summary, and it is not among what is piped on. All files are in `out` by now.
///
/// # Errors
/// If it is to be strict and there is any.
pub fn warn(warnings: &[String], strict: bool, out: &Path) -> Result<()> {
    warnings.iter().for_each(|warning| complain(format_args!("metatape: warning: {warning}")));
    match warnings.len() {
        count if strict && count > 0 => Err(Error::Warned(format!(
            "--strict: {}, as above; all files are in {}",
            counted(count, "warning"),
            out.display()
        ))),
        _ => Ok(()),
    }
}

/// [`print`] of indented JSON.
pub fn print_json(value: &serde_json::Value) -> Result<()> {
    print(format_args!("{value:#}"))
}

/// [`print`] of a text file that was just written.
pub fn print_file(path: &Path) -> Result<()> {
    print(read_text(path, "read")?.trim_end())
}

/// A cell of a table; `-` for what there is not.
pub fn optional<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or("-".to_owned(), text)
}

/// Rows in columns: the first to the left, the others to the right; the first row is the heading.
pub fn table(rows: &[Vec<String>]) -> String {
    table_left(rows, &[0])
}

/// [`table`] with these columns to the left.
pub fn table_left(rows: &[Vec<String>], left: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|t| t.width()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(c, (text, width))| {
            // Classes may have names of any script.
            let space = " ".repeat(width - text.width());
            if left.contains(&c) { text.clone() + &space } else { space + text }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Columns of running text.
const WIDTH: usize = 118;

/// A paragraph in lines of the page's width.
pub fn wrap(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= WIDTH {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n")
}

/// The middle one, or the mean of the two in the middle; NaN of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n => (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0,
    }
}

/// A number of milliseconds with about three digits.
pub fn ms(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// Bytes in MiB.
pub fn mib(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}
