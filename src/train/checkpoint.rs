//! One file with everything that a run needs to go on: all states, bit for bit, and the history so
//! far.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::SafeTensors;
use serde::{Deserialize, Serialize};

use super::config::Config;
use super::history::{History, WeightPicture};
use super::sealed::CURE;
use super::sums::Underway;
use super::tensors::{Tensor, floats, read_tensors, write_tensors};
use crate::error::{Error, Result};
use crate::meta::schemes::Memory;
use crate::program::{Session, Values};
use crate::room;
use crate::tape::Kind;

/// What stands beside the tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The network that the states belong to.
    pub network: String,
    /// What the run was asked for.
    pub config: Config,
    /// Passes over the training set that all methods have done: epochs, where no method has more
    /// than one stage.
    pub epochs: usize,
    /// Where each method is, in their order.
    pub underway: Vec<Underway>,
    /// By method.
    pub histories: Vec<(String, History)>,
}

/// A method's states and numbers.
pub(super) struct Part<'a> {
    /// Before its tensors' names.
    pub prefix: &'a str,
    pub session: &'a Session,
    /// What its stages hand on, and what is known of its samples.
    pub memory: &'a Memory,
    /// Of which the samples' numbers stand among the tensors.
    pub pictures: &'a [WeightPicture],
}

/// What the names of numbers that are no states begin with, behind the prefix.
const NO_STATES: [&str; 2] = ["memory/", "picture/"];

fn memory_name(prefix: &str, name: &str) -> String {
    format!("{prefix}/{}{name}", NO_STATES[0])
}

fn picture_names(prefix: &str, picture: usize) -> [String; 2] {
    ["losses", "weights"].map(|what| format!("{prefix}/{}{picture}/{what}", NO_STATES[1]))
}

/// Writes the methods' floating-point states and numbers, and the progress.
pub(super) fn save(path: &Path, parts: &[Part], progress: &Progress) -> Result<()> {
    // All numbers, their bytes, and the file's, twice.
    let states = parts.iter().flat_map(|part| part.session.states());
    let numbers: usize = states.filter(|s| s.kind == Kind::Float).map(|s| s.shape.count()).sum();
    let kept: usize = parts.iter().flat_map(|part| part.memory.all().values()).map(Vec::len).sum();
    room::check(4 * size_of::<f64>() * (numbers + kept), "writing a checkpoint", "end other programs")?;
    let mut tensors = Vec::new();
    for Part { prefix, session, memory, pictures } in parts {
        for (name, values) in memory.all() {
            tensors.push(Tensor::doubles(memory_name(prefix, name), &[values.len()], values));
        }
        for (i, picture) in pictures.iter().enumerate().filter(|(_, p)| !p.losses.is_empty()) {
            for (name, values) in
                picture_names(prefix, i).into_iter().zip([&picture.losses, &picture.weights])
            {
                tensors.push(Tensor::doubles(name, &[values.len()], values));
            }
        }
        for state in session.states().iter().filter(|s| s.kind == Kind::Float) {
            let (name, values) = (format!("{prefix}/{}", state.name), session.read_state(&state.name)?);
            tensors.push(Tensor::floats(name, &state.shape, &values, progress.config.precision));
        }
    }
    let json = serde_json::to_string(progress).map_err(|e| Error::Program(e.to_string()))?;
    write_tensors(path, &tensors, HashMap::from([("progress".to_owned(), json)]))
}

/// A checkpoint that has been read.
pub(super) struct Saved {
    path: std::path::PathBuf,
    bytes: Vec<u8>,
    pub progress: Progress,
}

impl Saved {
    /// Reads a checkpoint.
    ///
    /// # Errors
    /// If the file is missing, damaged or not a checkpoint of this program.
    pub fn read(path: &Path) -> Result<Saved> {
        let (bytes, metadata) = read_tensors(path, CURE)?;
        let bad = |detail: String| {
            Error::Data(format!("{}: {detail}; start anew in another --out", path.display()))
        };
        let json = metadata.get("progress").ok_or_else(|| bad("is not a checkpoint of metatape".into()))?;
        let progress = serde_json::from_str(json)
            .map_err(|e| bad(format!("was written by another version of metatape ({e})")))?;
        Ok(Saved { path: path.to_path_buf(), bytes, progress })
    }

    /// A method's memory.
    ///
    /// # Errors
    /// If one of its tensors is no list of numbers.
    pub fn memory(&self, prefix: &str) -> Result<Memory> {
        let tensors = self.tensors()?;
        let mut memory = Memory::new();
        let of = memory_name(prefix, "");
        for (full, view) in tensors.tensors() {
            if let Some(name) = full.strip_prefix(&of) {
                let other =
                    || Error::Data(format!("{}: `{full}` is no list of numbers", self.path.display()));
                memory.set(name, floats(&view).ok_or_else(other)?);
            }
        }
        Ok(memory)
    }

    /// Gives pictures the samples' numbers, where they have any.
    ///
    /// # Errors
    /// If they are not numbers.
    pub fn fill(&self, prefix: &str, pictures: &mut [WeightPicture]) -> Result<()> {
        let tensors = self.tensors()?;
        for (i, picture) in pictures.iter_mut().enumerate() {
            let [losses, weights] = picture_names(prefix, i).map(|name| {
                let other =
                    || Error::Data(format!("{}: `{name}` is no list of numbers", self.path.display()));
                tensors.tensor(&name).map_or(Ok(Vec::new()), |view| floats(&view).ok_or_else(other))
            });
            (picture.losses, picture.weights) = (losses?, weights?);
        }
        Ok(())
    }

    fn tensors(&self) -> Result<SafeTensors<'_>> {
        SafeTensors::deserialize(&self.bytes).map_err(|e| Error::Program(e.to_string()))
    }

    /// Writes the states with `prefix` into a session.
    ///
    /// # Errors
    /// If one is missing, has another shape or is not wanted: a checkpoint of another model, or of
    /// a method as another version has it.
    pub fn restore(&self, prefix: &str, session: &mut Session) -> Result<()> {
        let tensors = self.tensors()?;
        let other = |what: String| {
            Error::Data(format!(
                "{}: {what}; it is of another model or method, or of another version of metatape: start anew in another --out",
                self.path.display()
            ))
        };
        let states: Vec<_> = session.states().iter().filter(|s| s.kind == Kind::Float).cloned().collect();
        let own = |name: &str| {
            let name = name.strip_prefix(prefix)?.strip_prefix('/')?;
            (!NO_STATES.iter().any(|folder| name.starts_with(folder))).then(|| name.to_owned())
        };
        let had = tensors.names().into_iter().filter_map(own);
        if let Some(name) = had.filter(|name| states.iter().all(|state| state.name != *name)).min() {
            return Err(other(format!("has `{prefix}/{name}`, which is not wanted here")));
        }
        for state in states {
            let name = format!("{prefix}/{}", state.name);
            let view = tensors.tensor(&name).map_err(|_| other(format!("has no `{name}`")))?;
            if view.shape() != &state.shape[..] {
                let (there, here) = (view.shape(), &state.shape);
                return Err(other(format!("`{name}` is {there:?} there and {here} here")));
            }
            let values = floats(&view).ok_or_else(|| {
                let (path, dtype) = (self.path.display(), view.dtype());
                Error::Data(format!("{path}: `{name}` is of type {dtype:?}, expected F32 or F64"))
            })?;
            session.write_state(&state.name, Values::Float(&values))?;
        }
        Ok(())
    }
}
