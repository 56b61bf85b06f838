//! Configurations of runs.

use metatape::train::Config;

/// What `metatape train --no-baseline` does.
pub fn reference(seed: u64) -> Config {
    Config { baseline: false, seed, ..Config::default() }
}
