//! `times.json`: all that is known of a training's times. Its other files have none, so that two
//! runs of one configuration leave the same bytes.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::history::History;
use super::sealed::{read_json, write_json};
use crate::error::Result;

const CURE: &str = "remove it: only times are lost";

/// The file's name.
pub(super) const FILE: &str = "times.json";

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Times {
    methods: Vec<OfMethod>,
}

#[derive(Serialize, Deserialize)]
struct OfMethod {
    method: String,
    /// Steps a second over all epochs, evaluation not counted, and seconds with it: for people.
    steps_per_second: Option<f64>,
    seconds: Option<f64>,
    epochs: Vec<OfEpoch>,
    /// Seconds spent in the steps of an epoch that is not over.
    underway: f64,
}

/// None where nobody knows.
#[derive(Serialize, Deserialize)]
struct OfEpoch {
    steps_per_second: Option<f64>,
    seconds: Option<f64>,
}

impl Times {
    /// Of methods by name, with the seconds of the epoch under way.
    pub fn of<'a>(all: impl IntoIterator<Item = (String, &'a History, f64)>) -> Times {
        let method = |(method, history, underway): (String, &History, f64)| OfMethod {
            method,
            steps_per_second: history.steps_per_second(),
            seconds: Some(history.seconds()),
            epochs: history.rows.iter().map(OfEpoch::of).collect(),
            underway,
        };
        Times { methods: all.into_iter().map(method).collect() }
    }

    /// Those in a folder; none where the file is not there.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn read(folder: &Path) -> Result<Times> {
        let path = folder.join(FILE);
        if path.exists() { read_json(&path, CURE) } else { Ok(Times::default()) }
    }

    /// # Errors
    /// If the system refuses.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write_json(&folder.join(FILE), self)
    }

    /// Gives a method's epochs their times, and the seconds of the epoch under way.
    pub fn fill(&self, method: &str, history: &mut History) -> f64 {
        let Some(own) = self.methods.iter().find(|own| own.method == method) else { return 0.0 };
        for (row, epoch) in history.rows.iter_mut().zip(&own.epochs) {
            row.steps_per_second = epoch.steps_per_second.unwrap_or(f64::NAN);
            row.seconds = epoch.seconds.unwrap_or(f64::NAN);
        }
        own.underway
    }
}

impl OfEpoch {
    fn of(row: &super::EpochRow) -> OfEpoch {
        // JSON has no other numbers.
        let finite = |value: f64| Some(value).filter(|value| value.is_finite());
        OfEpoch { steps_per_second: finite(row.steps_per_second), seconds: finite(row.seconds) }
    }
}
