//! TensorBoard's event files: the columns of `metrics.csv` as scalars by epoch.
//!
//! A file is a row of records: the length of an `Event` (u64), its masked CRC, the event as
//! protocol buffer, the CRC of that. Sources: `tsl/lib/io/record_writer.h`,
//! `tensorflow/core/util/event.proto` and `tensorflow/core/framework/summary.proto` in TensorFlow,
//! of which here is what is written.

use std::fs::{File, create_dir_all, read_dir};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use prost::Message;

use super::history::EpochRow;
use crate::error::{Error, Result};

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = 1)]
    wall_time: f64,
    #[prost(int64, tag = 2)]
    step: i64,
    #[prost(string, optional, tag = 3)]
    file_version: Option<String>,
    #[prost(message, optional, tag = 5)]
    summary: Option<Scalars>,
    #[prost(message, optional, tag = 7)]
    session_log: Option<SessionLog>,
}

/// `Summary`.
#[derive(Clone, PartialEq, Message)]
struct Scalars {
    #[prost(message, repeated, tag = 1)]
    value: Vec<Scalar>,
}

/// `Summary.Value`.
#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = 1)]
    tag: String,
    #[prost(float, optional, tag = 2)]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = 1)]
    status: i32,
}

/// `SessionLog.SessionStatus.START`.
const START: i32 = 1;

/// What one method of a run writes from now on.
pub(super) struct EventFile {
    path: PathBuf,
    file: File,
    /// Epochs that are in this file, or in those before it.
    epochs: usize,
}

impl EventFile {
    /// A new file in a folder, which is made if it is not there. If it is the folder's first, it
    /// begins with these rows; they are in the files before it otherwise, and what those have of
    /// later epochs does not count.
    ///
    /// # Errors
    /// If the system refuses, as in all of these.
    pub fn begin(folder: &Path, rows: &[EpochRow]) -> Result<EventFile> {
        create_dir_all(folder).map_err(Error::io(folder, "create the folder"))?;
        let first = read_dir(folder).map_err(Error::io(folder, "list the folder"))?.next().is_none();
        // TensorBoard reads the files of a folder in the order of their names.
        let paths = (now() as u64..).map(|s| folder.join(format!("events.out.tfevents.{s}.metatape")));
        let path = paths.into_iter().find(|path| !path.exists()).unwrap_or_default();
        let file = File::create_new(&path).map_err(Error::io(&path, "create the file"))?;
        let mut events = EventFile { path, file, epochs: if first { 0 } else { rows.len() } };
        events.add(&Event { file_version: Some("brain.Event:2".into()), ..Event::default() })?;
        if !first {
            let step = rows.len() as i64 + 1;
            events.add(&Event {
                step,
                session_log: Some(SessionLog { status: START }),
                ..Event::default()
            })?;
        }
        events.write(rows)?;
        Ok(events)
    }

    /// Adds the rows that are not there yet.
    pub fn write(&mut self, rows: &[EpochRow]) -> Result<()> {
        for row in rows.iter().skip(self.epochs) {
            let fields = serde_json::to_value(row).map_err(|e| Error::Program(e.to_string()))?;
            let fields = fields.as_object().into_iter().flatten().filter(|(name, _)| *name != "epoch");
            let fields = fields.filter_map(|(name, value)| Some((&name[..], value.as_f64()?)));
            let times = [("seconds", row.seconds), ("steps_per_second", row.steps_per_second)];
            let scalar = |(tag, number): (&str, f64)| Scalar {
                tag: tag.to_owned(),
                simple_value: Some(number as f32),
            };
            let summary = Some(Scalars { value: fields.chain(times).map(scalar).collect() });
            self.add(&Event { step: row.epoch as i64, summary, ..Event::default() })?;
        }
        self.epochs = rows.len();
        self.file.sync_data().map_err(Error::io(&self.path, "write the file"))
    }

    /// Adds an event, as of now.
    fn add(&mut self, event: &Event) -> Result<()> {
        let event = Event { wall_time: now(), ..event.clone() }.encode_to_vec();
        let length = (event.len() as u64).to_le_bytes();
        let masked = |bytes| masked(bytes).to_le_bytes();
        let record = [&length[..], &masked(&length), &event, &masked(&event)].concat();
        self.file.write_all(&record).map_err(Error::io(&self.path, "write the file"))
    }
}

/// CRC-32C of bytes that have CRCs among them.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: usize) -> Vec<EpochRow> {
        let row = |epoch| EpochRow {
            epoch,
            method: "mwnet".into(),
            lr: 0.05,
            train_loss: 1.0 / epoch as f64,
            train_accuracy: 25.0,
            meta_loss: None,
            test_loss: 2.0,
            test_accuracy: 75.5,
            mean_weight: Some(0.75),
            mean_weight_clean: Some(0.75),
            mean_weight_corrupted: None,
            steps_per_second: 100.0,
            seconds: 1.5,
        };
        (1..=count).map(row).collect()
    }

    /// The events of all files, in the order of their names, by hand but for what is in them.
    fn events(folder: &Path) -> Vec<Event> {
        let mut paths: Vec<_> = read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let mut events = Vec::new();
        for path in paths {
            let bytes = std::fs::read(path).unwrap();
            // As TensorFlow's own files begin: 24 bytes, and the CRC of that.
            assert_eq!(bytes[..12], [24, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let n = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
                let crc = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
                assert_eq!((crc(8), crc(12 + n)), (masked(&rest[..8]), masked(&rest[12..12 + n])));
                events.push(Event::decode(&rest[12..12 + n]).unwrap());
                rest = &rest[16 + n..];
            }
        }
        events
    }

    #[test]
    fn scalars_by_epoch_and_what_a_stopped_run_had_ahead_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("tensorboard/mwnet");
        let mut file = EventFile::begin(&folder, &rows(1)).unwrap();
        file.write(&rows(2)).unwrap();
        file.write(&rows(3)).unwrap();
        // The checkpoint knew of two.
        let mut file = EventFile::begin(&folder, &rows(2)).unwrap();
        file.write(&rows(3)).unwrap();
        let events = events(&folder);
        let start = |event: &Event| event.session_log.as_ref().map(|log| log.status);
        let found: Vec<_> = events.iter().map(|e| (e.step, e.file_version.is_some(), start(e))).collect();
        let epoch = |step| (step, false, None);
        let version = (0, true, None);
        let start = (3, false, Some(1));
        assert_eq!(found, [version, epoch(1), epoch(2), epoch(3), version, start, epoch(3)]);
        let scalars = events[2].summary.clone().unwrap().value;
        let mut scalars: Vec<_> = scalars.iter().map(|s| (&s.tag[..], s.simple_value.unwrap())).collect();
        scalars.sort_by_key(|scalar| scalar.0);
        let expected = [
            ("lr", 0.05),
            ("mean_weight", 0.75),
            ("mean_weight_clean", 0.75),
            ("seconds", 1.5),
            ("steps_per_second", 100.0),
            ("test_accuracy", 75.5),
            ("test_loss", 2.0),
            ("train_accuracy", 25.0),
            ("train_loss", 0.5),
        ];
        assert_eq!(scalars, expected);
    }
}
