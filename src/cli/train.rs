//! `metatape train`.

use metatape::{Error, Result};

use super::args::TrainArgs;

/// Trains.
pub fn run(_args: &TrainArgs) -> Result<()> {
    Err(Error::Program("this build has no training loop; build a later version".into()))
}
