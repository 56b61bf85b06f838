//! One file with everything that a run needs to go on: all states, bit for bit, and the history so
//! far.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::SafeTensors;
use serde::{Deserialize, Serialize};

use super::config::Config;
use super::history::{History, WeightPicture};
use super::tensors::{Tensor, floats, write_tensors};
use crate::error::{Error, Result};
use crate::meta::schemes::Memory;
use crate::program::{Session, Values};
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

/// The names of numbers that are no states.
fn memory_name(prefix: &str, name: &str) -> String {
    format!("{prefix}/memory/{name}")
}

fn picture_names(prefix: &str, picture: usize) -> [String; 2] {
    ["losses", "weights"].map(|what| format!("{prefix}/picture/{picture}/{what}"))
}

/// Writes the methods' floating-point states and numbers, and the progress.
pub(super) fn save(path: &Path, parts: &[Part], progress: &Progress) -> Result<()> {
    let mut tensors = Vec::new();
    for Part { prefix, session, memory, pictures } in parts {
        for (name, values) in memory.all() {
            tensors.push(Tensor::doubles(memory_name(prefix, name), &[values.len()], values));
        }
        for (i, picture) in pictures.iter().enumerate() {
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
    /// If the file is missing, cut short or not a checkpoint of this program.
    pub fn read(path: &Path) -> Result<Saved> {
        let bytes = std::fs::read(path).map_err(Error::io(path, "read the checkpoint"))?;
        let bad = |detail: String| Error::Format { path: path.to_path_buf(), byte: 0, detail };
        let (_, metadata) = SafeTensors::read_metadata(&bytes)
            .map_err(|e| bad(format!("is not a whole checkpoint ({e}); start anew in another --out")))?;
        SafeTensors::deserialize(&bytes)
            .map_err(|e| bad(format!("is not a whole checkpoint ({e}); start anew in another --out")))?;
        let json = metadata.metadata().as_ref().and_then(|m| m.get("progress"));
        let json = json.ok_or_else(|| {
            bad("is a safetensors file but not a checkpoint of metatape; start anew in another --out".into())
        })?;
        let progress = serde_json::from_str(json).map_err(|e| {
            bad(format!("was written by another version of metatape ({e}); start anew in another --out"))
        })?;
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

    /// Gives pictures the samples' numbers.
    ///
    /// # Errors
    /// If they are not there.
    pub fn fill(&self, prefix: &str, pictures: &mut [WeightPicture]) -> Result<()> {
        let tensors = self.tensors()?;
        for (i, picture) in pictures.iter_mut().enumerate() {
            let [losses, weights] = picture_names(prefix, i).map(|name| {
                let missing = || Error::Data(format!("{}: has no `{name}`", self.path.display()));
                let view = tensors.tensor(&name).map_err(|_| missing())?;
                floats(&view).ok_or_else(missing)
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
    /// If one is missing or has another shape: a checkpoint of another model.
    pub fn restore(&self, prefix: &str, session: &mut Session) -> Result<()> {
        let tensors = self.tensors()?;
        for state in session.states().to_vec().into_iter().filter(|s| s.kind == Kind::Float) {
            let name = format!("{prefix}/{}", state.name);
            let view = tensors.tensor(&name).map_err(|_| {
                Error::Data(format!(
                    "{}: has no `{name}`; it is of another model or method",
                    self.path.display()
                ))
            })?;
            if view.shape() != &state.shape[..] {
                return Err(Error::Data(format!(
                    "{}: `{name}` is {:?} there and {} here; it is of another model",
                    self.path.display(),
                    view.shape(),
                    state.shape
                )));
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
