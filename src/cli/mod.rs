//! The command line: one file a subcommand.
//!
//! | file | the one thing that happens there |
//! |---|---|
//! | `args.rs` | all flags, their defaults and their help |
//! | `values.rs` | parsers of single values, each error one sentence |
//! | `device.rs` | from `--device`, `--precision`, `--threads` to a backend |
//! | `report.rs` | standard output: text, tables, JSON |
//! | `train.rs` | `metatape train` |
//! | `ablate.rs` | `metatape ablate` |
//! | `run_config.rs` | from flags to a run's configuration |
//! | `compare.rs` | `metatape compare` |
//! | `hypergrad.rs`, `dump.rs` | `metatape hypergrad`, and the file that it writes |
//! | `explain.rs`, `lesson/` | `metatape hypergrad --explain`: its numbers, and its words |
//! | `bench.rs` | `metatape bench` |
//! | `info.rs` | `metatape info` |

mod ablate;
mod args;
mod bench;
mod compare;
mod device;
mod dump;
mod explain;
mod hypergrad;
mod info;
mod lesson;
mod report;
mod run_config;
mod train;
mod values;

use std::error::Error as _;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};
use metatape::Result;

use args::{Command, Metatape};

/// Runs the command; errors go to standard error as `metatape: <sentence>`, with exit code 2 for usage and 1 otherwise.
pub fn main() -> ExitCode {
    let command = match parse() {
        Ok(command) => command,
        Err(error) => return answer(&error),
    };
    match run(&command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("metatape: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// The command line as typed. `hypergrad` shows the published step: V/n, and a weight net that begins as published. It compares gradients
/// of all of θ; with the output layer at zero, as training begins, the first layer's part would be nothing but zeros.
fn parse() -> clap::error::Result<Command> {
    let command = Metatape::command().mut_subcommand("hypergrad", |hypergrad| {
        let published = hypergrad.mut_arg("weight_net_init", |arg| arg.default_value("faithful"));
        published.mut_arg("weights", |arg| arg.default_value("mean"))
    });
    Ok(Metatape::from_arg_matches(&command.try_get_matches()?)?.command)
}

fn run(command: &Command) -> Result<()> {
    match command {
        Command::Train(args) => train::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Hypergrad(args) => hypergrad::run(args),
        Command::Ablate(args) => ablate::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Info(args) => info::run(args),
    }
}

/// Help and version as clap prints them; a mistake as one sentence.
fn answer(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nobody is there to be told that the help could not be printed.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(2)
        }
        _ => {
            eprintln!("metatape: {}", sentence(error));
            ExitCode::from(2)
        }
    }
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
        return format!("{flag} must be given, too, with these flags");
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
