//! The one error type: every message names the thing that is wrong and what to do about it.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, as one sentence a person can act on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Shapes or kinds of an operation's arguments do not fit; nothing was recorded.
    #[error("{op}: {detail}")]
    Shape {
        /// The operation, as the printed tape names it.
        op: String,
        /// Both shapes and the rule that they break.
        detail: String,
    },
    /// A value that what takes it cannot work with: one of another tape, or a constant to
    /// differentiate by.
    #[error("{op}: {detail}")]
    Value {
        /// The operation or walk that was given it.
        op: String,
        /// What is wrong with the value, and what to write instead.
        detail: String,
    },
    /// A walk met an operation whose derivative is not defined. Never a silent zero.
    #[error("no derivative rule for argument {arg} of `{op}`: {hint}")]
    MissingRule {
        /// The operation, as the printed tape names it.
        op: String,
        /// Position of the argument that was to be differentiated.
        arg: usize,
        /// What to do instead.
        hint: String,
    },
    /// A program is used in a way that it was not built for (unknown input, wrong length, …).
    #[error("{0}")]
    Program(String),
    /// A flag, name or combination of them that a user typed is wrong (exit code 2).
    #[error("{0}")]
    Usage(String),
    /// The data do not allow what was asked (an empty class, too few images, labels out of range).
    #[error("{0}")]
    Data(String),
    /// A file's content is wrong at a place.
    #[error("{}: {detail} (at byte {byte})", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Offset of the first byte that is wrong.
        byte: u64,
        /// What is wrong, and what was expected.
        detail: String,
    },
    /// The operating system refused a file operation.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb phrase ("read", "create the folder").
        action: &'static str,
        /// The system's own answer.
        source: std::io::Error,
    },
    /// A computation left the range of its numbers (a loss that turned NaN or infinite).
    #[error("{0}")]
    Numeric(String),
    /// A training that was asked to stop, and keeps a checkpoint of its last step.
    #[error("{0}")]
    Stopped(String),
    /// A training that came to its end with warnings, where none were allowed.
    #[error("{0}")]
    Warned(String),
    /// A device or library that is not there.
    #[error("{0}")]
    Device(String),
}

impl Error {
    /// An [`Error::Io`] for `path`; use as `.map_err(Error::io(path, "read"))`.
    pub fn io(path: impl AsRef<Path>, action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { path, action, source }
    }

    /// The [`Error::Usage`] of a name that is none of those known.
    pub fn unknown(what: &str, name: &str, known: &[&str]) -> Error {
        let (near, known) = (Error::nearest(name, known.iter().copied()), known.join(", "));
        Error::Usage(format!("there is no {what} `{name}`{near}; choose one of {known}"))
    }

    /// ` (did you mean …?)`, or nothing where no known name is near: as rustc has it, a third of
    /// the letters may be wrong. Of names as near, the one that begins like it.
    pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
        let (name, most) = (name.to_lowercase(), name.chars().count().max(3) / 3);
        let alike = |known: &str| name.chars().zip(known.chars()).take_while(|(a, b)| a == b).count();
        let near = known.into_iter().map(|known| (strsim::osa_distance(&name, known), known));
        let near = near.filter(|near| near.0 <= most).min_by_key(|near| (near.0, Reverse(alike(near.1))));
        near.map_or(String::new(), |(_, known)| format!(" (did you mean `{known}`?)"))
    }

    /// An [`Error::Shape`].
    pub(crate) fn shape(op: impl Into<String>, detail: impl Into<String>) -> Error {
        Error::Shape { op: op.into(), detail: detail.into() }
    }

    /// The process exit code that this error stands for: 2 for usage, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Error::Usage(_)) { 2 } else { 1 }
    }
}
