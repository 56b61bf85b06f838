//! Where `hypergrad` has defaults of its own, and how to have `train`'s; which of a run's flags a
//! command has no use for.

use std::ffi::OsString;

use clap::{ArgMatches, CommandFactory};
use metatape::{Error, Result};

use super::args::{Metatape, given};

/// A run's settings that mean nothing to a command: the fields, the command, and why.
const WITHOUT: [(&[&str], &str, &str); 3] = [
    (&["epochs", "milestones", "theta_every", "set"], "hypergrad", "which looks at single steps"),
    (&["set"], "ablate", "whose variants have no settings of their own"),
    (&["route"], "ablate", "whose --variants say how the hypergradient is computed"),
];

/// The command line as typed. `hypergrad` shows the published step: V/n, and a weight net that
/// begins as published. It compares gradients of all of θ; with the output layer at zero, as
/// training begins, the first layer's part would be nothing but zeros.
pub fn command() -> clap::Command {
    let mut command = Metatape::command().mut_subcommand("hypergrad", |hypergrad| {
        let published = hypergrad.mut_arg("weight_net_init", |arg| arg.default_value("faithful"));
        let published = published.mut_arg("weights", |arg| arg.default_value("mean"));
        published.mut_arg("route", |arg| arg.help(ROUTE).hide_default_value(true))
    });
    for (fields, name, _) in WITHOUT {
        for field in fields {
            command = command.mut_subcommand(name, |c| c.mut_arg(field, |arg| arg.hide(true)));
        }
    }
    command
}

/// The command line's words. A negative number behind a flag is its value, which the flag's own
/// parser judges; clap would take `-inf` for a flag.
///
/// # Errors
/// As clap has them.
pub fn matches() -> clap::error::Result<ArgMatches> {
    command().try_get_matches_from(joined(std::env::args_os()))
}

/// `--lr -inf` as `--lr=-inf`.
fn joined(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut all: Vec<OsString> = Vec::new();
    for word in words {
        let negative = word.to_str().and_then(|word| word.strip_prefix('-')).is_some_and(|number| {
            let number = number.to_lowercase();
            number.starts_with(|c: char| c.is_ascii_digit() || c == '.') || number.parse::<f64>().is_ok()
        });
        let flag = |last: &&mut OsString| {
            last.to_str().is_some_and(|last| last.len() > 2 && last.starts_with("--") && !last.contains('='))
        };
        match all.last_mut().filter(|last| negative && flag(last)) {
            Some(flag) => {
                flag.push("=");
                flag.push(word);
            }
            None => all.push(word),
        }
    }
    all
}

/// What `--route` means to `hypergrad`.
const ROUTE: &str = "Only this route, beside the reference `reverse` [default: all; per-sample only where it takes less than \
                     200 GFLOP and its matrices less than 2 GiB]";

/// Refuses a flag that means nothing to the command that it stands behind.
///
/// # Errors
/// [`Error::Usage`] naming it.
pub fn check() -> Result<()> {
    for (fields, command, why) in WITHOUT {
        let typed = given(command);
        if let Some(field) = fields.iter().find(|field| typed.contains(**field)) {
            let flag = field.replace('_', "-");
            return Err(Error::Usage(format!("--{flag} is not for {command}, {why}; leave it out")));
        }
    }
    Ok(())
}

/// The flags, with values, by which this call of `hypergrad` would be as `train --method mwnet` is
/// by default, where the two have different defaults.
pub fn to_be_as_train() -> Vec<String> {
    let command = command();
    let Ok(matches) = matches() else { return Vec::new() };
    let Some(typed) = matches.subcommand_matches("hypergrad") else { return Vec::new() };
    let defaults = |subcommand, id: &str| -> Vec<String> {
        let arg =
            command.find_subcommand(subcommand).and_then(|c| c.get_arguments().find(|a| a.get_id() == id));
        let values = arg.map(|a| a.get_default_values()).unwrap_or_default();
        values.iter().map(|v| v.to_string_lossy().into_owned()).collect()
    };
    let mut flags = Vec::new();
    for arg in command.find_subcommand("hypergrad").into_iter().flat_map(clap::Command::get_arguments) {
        let (id, Some(long)) = (arg.get_id().as_str(), arg.get_long()) else { continue };
        let (own, train) = (defaults("hypergrad", id), defaults("train", id));
        if own == train || own.is_empty() || train.is_empty() {
            continue;
        }
        let value: Vec<String> =
            typed.get_raw(id).into_iter().flatten().map(|v| v.to_string_lossy().into_owned()).collect();
        if value != train {
            flags.push(format!("--{long} {}", train.join(",")));
        }
    }
    flags
}
