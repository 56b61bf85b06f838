//! Where `hypergrad` has defaults of its own, and how to have `train`'s.

use clap::CommandFactory;

use super::args::Metatape;

/// The command line as typed. `hypergrad` shows the published step: V/n, and a weight net that
/// begins as published. It compares gradients of all of θ; with the output layer at zero, as
/// training begins, the first layer's part would be nothing but zeros.
pub fn command() -> clap::Command {
    Metatape::command().mut_subcommand("hypergrad", |hypergrad| {
        let published = hypergrad.mut_arg("weight_net_init", |arg| arg.default_value("faithful"));
        published.mut_arg("weights", |arg| arg.default_value("mean"))
    })
}

/// The flags, with values, by which this call of `hypergrad` would be as `train` is by default,
/// where the two have different defaults.
pub fn to_be_as_train() -> Vec<String> {
    let command = command();
    let matches = command.clone().get_matches();
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
