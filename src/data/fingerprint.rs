use serde::{Deserialize, Serialize};

use super::{Dataset, Part, Samples};
use crate::{Error, Result};

/// What tells whether data are still the same: how many they are, and checksums (CRC-32C) of all
/// that was read. Where files lie, and what they are called, is not in it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Training samples.
    pub train: usize,
    /// Samples with clean labels that lie apart.
    pub meta: usize,
    /// Test samples.
    pub test: usize,
    /// Of the classes' names.
    pub classes: String,
    /// Of one sample's shape, and of all samples as they came from their files.
    pub samples: String,
    /// Of all labels, the right ones where there are two.
    pub labels: String,
    /// Of the labels that training is given in their place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<String>,
}

impl Fingerprint {
    /// Of data in memory.
    pub fn of(data: &Dataset) -> Fingerprint {
        let Dataset { train, meta, test, .. } = data;
        let parts = || [Some(train), meta.as_ref(), Some(test)].into_iter().flatten();
        let right = |part: &Part| sum_of(part.truth.as_ref().unwrap_or(&part.labels));
        let shape: Vec<u64> = data.shape.iter().map(|side| *side as u64).collect();
        let samples = match &data.samples {
            Samples::Bytes(all) => crc32c::crc32c_append(sum_of(&shape), all),
            Samples::Floats(all) => crc32c::crc32c_append(sum_of(&shape), bytemuck::cast_slice(all)),
        };
        // Which samples a part has, too: a test set may be drawn from the others.
        let labels: Vec<u32> = parts().flat_map(|part| [sum_of(&part.indices), right(part)]).collect();
        let given = parts().filter(|part| part.truth.is_some()).map(|part| sum_of(&part.labels));
        let given: Vec<u32> = given.collect();
        let digits = |sum: u32| format!("{sum:08x}");
        Fingerprint {
            train: train.len(),
            meta: meta.as_ref().map_or(0, Part::len),
            test: test.len(),
            classes: digits(crc32c::crc32c(data.class_names.join("\n").as_bytes())),
            samples: digits(samples),
            labels: digits(sum_of(&labels)),
            given: (!given.is_empty()).then(|| digits(sum_of(&given))),
        }
    }

    /// That data are still those that this is of.
    ///
    /// # Errors
    /// [`Error::Data`] naming what has changed.
    pub fn check(&self, now: &Fingerprint, name: &str) -> Result<()> {
        let count = |what: &str, had: usize, has: usize| {
            (had != has).then(|| format!("{has} {what} samples instead of {had}"))
        };
        let content = |what: &str, same: bool| (!same).then(|| format!("other {what}"));
        let changes: Vec<String> = [
            count("training", self.train, now.train),
            count("meta", self.meta, now.meta),
            count("test", self.test, now.test),
            content("classes", self.classes == now.classes),
            content("images or features", self.samples == now.samples),
            content("labels", self.labels == now.labels),
            content("labels to train on", self.given == now.given),
        ]
        .into_iter()
        .flatten()
        .collect();
        if changes.is_empty() {
            return Ok(());
        }
        Err(Error::Data(format!(
            "{name} has changed since this began: it has {}; put it back as it was, name the old data with --data-dir, or start \
             anew in another --out",
            changes.join(", ")
        )))
    }
}

fn sum_of<T: bytemuck::NoUninit>(values: &[T]) -> u32 {
    crc32c::crc32c(bytemuck::cast_slice(values))
}
