//! The command line: one file a subcommand.
//!
//! | file | the one thing that happens there |
//! |---|---|
//! | `args.rs` | the flags, their defaults and their help |
//! | `defaults.rs` | where `hypergrad` has defaults of its own |
//! | `values.rs` | parsers of single values, each error one sentence |
//! | `cuda.rs` | GPUs; in a build without them, `no_cuda.rs` |
//! | `device.rs` | from `--device`, `--precision`, `--threads` to a backend |
//! | `report.rs` | standard output: text, tables, JSON |
//! | `folder.rs` | the folder of a command's results |
//! | `signals.rs` | Ctrl-C and SIGTERM |
//! | `progress.rs` | what commands that train show while they go on |
//! | `train.rs` | `metatape train` |
//! | `evaluate.rs`, `predict.rs` | `metatape evaluate`, `metatape predict` |
//! | `study.rs` | from a plan to the cells of a study, begun or resumed |
//! | `compare.rs` | `metatape compare` |
//! | `ablate.rs` | `metatape ablate` |
//! | `hypergrad.rs`, `dump.rs` | `metatape hypergrad`, and the file that it writes |
//! | `parting.rs` | samples by label and by class size |
//! | `explain.rs`, `lesson/` | `metatape hypergrad --explain`: its numbers, and its words |
//! | `bench/` | `metatape bench` |
//! | `kernels.rs` | `metatape kernels` |
//! | `info.rs` | `metatape info` |

mod ablate;
mod args;
mod bench;
mod compare;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(not(feature = "cuda"))]
#[path = "no_cuda.rs"]
mod cuda;
mod defaults;
mod device;
mod dump;
mod evaluate;
mod explain;
mod folder;
mod hypergrad;
mod info;
mod kernels;
mod lesson;
mod parting;
mod predict;
mod progress;
mod report;
mod signals;
mod study;
mod train;
mod values;

use std::error::Error as _;
use std::process::ExitCode;

use clap::FromArgMatches;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use metatape::{Error, Result};

use args::{Command, Metatape};

/// Runs the command; errors go to standard error as `metatape: <sentence>`, with exit code 2 for
/// usage, 128 and the signal's number for what a signal has stopped, and 1 otherwise.
pub fn main() -> ExitCode {
    let done = match parse() {
        Ok(command) => defaults::check().and_then(|()| run(&command)),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => report::sent(error.print()),
            _ => return refuse(&error),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::complain(format_args!("metatape: {error}"));
            ExitCode::from(match (&error, signals::caught()) {
                (Error::Stopped(_), Some(signal)) => 128 + signal,
                _ => error.exit_code(),
            })
        }
    }
}

fn parse() -> clap::error::Result<Command> {
    Ok(Metatape::from_arg_matches(&defaults::matches()?)?.command)
}

fn run(command: &Command) -> Result<()> {
    match command {
        Command::Train(args) => train::run(args),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Predict(args) => predict::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Hypergrad(args) => hypergrad::run(args),
        Command::Ablate(args) => ablate::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Kernels(args) => kernels::run(args),
        Command::Info(args) => info::run(args),
    }
}

/// A mistake as one sentence; where nothing was asked for, the help as clap prints it, on standard
/// error. If nobody is there to read it, nobody can be told so.
fn refuse(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => drop(error.print()),
        _ => report::complain(format_args!("metatape: {}", sentence(error))),
    }
    ExitCode::from(2)
}

/// A usage error in one line: which flag, which value, and what there is to choose from.
fn sentence(error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    // The library's own sentence about a value.
    if let (Some(source), Some(flag)) = (error.source(), context(ContextKind::InvalidArg)) {
        let flag = flag.split(' ').next().unwrap_or_default();
        let source = source.to_string();
        return if source.starts_with("--") { source } else { format!("{flag}: {source}") };
    }
    if let (ErrorKind::MissingRequiredArgument, Some(flag)) = (error.kind(), context(ContextKind::InvalidArg))
    {
        return format!("{flag} is missing: the other flags need it");
    }
    // The first paragraph of clap's text, less its `error: `.
    let text = error.to_string();
    let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
    let text = lines.collect::<Vec<_>>().join(" ");
    let text = text.strip_prefix("error: ").unwrap_or(&text).to_owned();
    match context(ContextKind::SuggestedArg).or_else(|| context(ContextKind::SuggestedSubcommand)) {
        Some(similar) => format!("{text}; did you mean `{similar}`?"),
        None => format!("{text}; `metatape --help` and `metatape COMMAND --help` list what there is"),
    }
}
