//! One file with everything that a run needs to go on: all states, bit for bit, and the history so
//! far.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::config::Config;
use super::files::write_atomically;
use super::history::{History, WeightPicture};
use super::values::Precision;
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
    let wide = progress.config.precision == Precision::F64;
    let dtype = if wide { Dtype::F64 } else { Dtype::F32 };
    let mut tensors = Vec::new();
    let doubles = |values: &[f64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    for Part { prefix, session, memory, pictures } in parts {
        for (name, values) in memory.all() {
            tensors.push((memory_name(prefix, name), Dtype::F64, vec![values.len()], doubles(values)));
        }
        for (i, picture) in pictures.iter().enumerate() {
            for (name, values) in
                picture_names(prefix, i).into_iter().zip([&picture.losses, &picture.weights])
            {
                tensors.push((name, Dtype::F64, vec![values.len()], doubles(values)));
            }
        }
        for state in session.states().iter().filter(|s| s.kind == Kind::Float) {
            let values = session.read_state(&state.name)?;
            // An f32 state comes as f64 and goes back without loss.
            let bytes: Vec<u8> = match wide {
                true => doubles(&values),
                false => values.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect(),
            };
            tensors.push((format!("{prefix}/{}", state.name), dtype, state.shape.to_vec(), bytes));
        }
    }
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| Ok((name.clone(), TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
    let json = serde_json::to_string(progress).map_err(|e| Error::Program(e.to_string()))?;
    let metadata = HashMap::from([("progress".to_owned(), json)]);
    let bytes = views.and_then(|views| safetensors::serialize(views, Some(metadata)));
    let bytes =
        bytes.map_err(|e| Error::Program(format!("{}: cannot be put together: {e}", path.display())))?;
    write_atomically(path, &bytes)
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
    /// None for a file that [`Saved::read`] took.
    pub fn memory(&self, prefix: &str) -> Result<Memory> {
        let tensors = self.tensors()?;
        let mut memory = Memory::new();
        let of = memory_name(prefix, "");
        for (full, view) in tensors.tensors() {
            if let Some(name) = full.strip_prefix(&of) {
                memory.set(name, numbers(view.data(), f64::from_le_bytes));
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
                Ok(numbers(view.data(), f64::from_le_bytes))
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
            let values: Vec<f64> = match view.dtype() {
                Dtype::F64 => numbers(view.data(), f64::from_le_bytes),
                Dtype::F32 => numbers(view.data(), |b: [u8; 4]| f64::from(f32::from_le_bytes(b))),
                other => {
                    return Err(Error::Data(format!(
                        "{}: `{name}` is of type {other:?}, expected F32 or F64",
                        self.path.display()
                    )));
                }
            };
            session.write_state(&state.name, Values::Float(&values))?;
        }
        Ok(())
    }
}

fn numbers<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|c| f(*c)).collect()
}
