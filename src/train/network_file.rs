//! `model.safetensors`: a trained network in PyTorch's names and layouts, with what is to be known
//! to use it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::SafeTensors;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::config::Config;
use super::prepared::Prepared;
use super::tensors::{Tensor, floats, read_tensors, write_tensors};
use super::torch::Slot;
use crate::error::{Error, Result};
use crate::nn::{Model, SharedModel};
use crate::program::Session;
use crate::tape::Shape;

/// The format's version.
const VERSION: u32 = 1;

/// What stands beside the tensors, as JSON under `metatape` in the file's metadata.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Card {
    /// Of the format.
    pub version: u32,
    /// The network's name.
    pub model: String,
    /// The layers, where it is one of a file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_text: Option<String>,
    /// How the tensors lie.
    pub layout: String,
    /// What it was trained with.
    pub method: String,
    /// Which network this is, where it is not all that the run tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What it was trained on.
    pub dataset: String,
    /// By label.
    pub classes: Vec<String>,
    /// Rows, columns, channels of an image; or the number of features.
    pub input: Vec<usize>,
    /// Of a table, the features by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// What is subtracted, per channel of pixel/255, or per feature.
    pub mean: Vec<f64>,
    /// By what is divided then.
    pub std: Vec<f64>,
}

const LAYOUT: &str = "PyTorch: convolutions [out, in/groups, h, w], linear layers [out, in], images NCHW as \
                      (pixel/255 - mean)/std";

/// A network in a file.
#[derive(Debug)]
pub struct NetworkFile {
    /// What is to be known of it.
    pub card: Card,
    /// SHA-256 of the file.
    pub hash: String,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl NetworkFile {
    /// Writes the network that a session holds: whole or not at all, the same bytes for the same
    /// numbers.
    pub(super) fn write(
        path: &Path,
        data: &Prepared,
        session: &Session,
        method: String,
        note: Option<String>,
    ) -> Result<()> {
        let set = &data.dataset;
        let card = Card {
            version: VERSION,
            model: data.config.model.clone(),
            model_text: data.config.model_text.clone(),
            layout: LAYOUT.into(),
            method,
            note,
            dataset: set.name.clone(),
            classes: set.class_names.clone(),
            input: set.shape.to_vec(),
            columns: set.columns.clone(),
            mean: set.mean.clone(),
            std: set.std.clone(),
        };
        let tensors = Slot::of(data.net(), &set.shape)?.into_iter().map(|slot| {
            let values = slot.theirs(&session.read_state(&slot.state)?);
            Ok(Tensor::floats(slot.name, &slot.shape, &values, data.config.precision))
        });
        let json = serde_json::to_string(&card).map_err(|e| Error::Program(e.to_string()))?;
        // `format` is what other readers of such files look for.
        let metadata = [("format", "pt".to_owned()), ("metatape", json)].map(|(k, v)| (k.to_owned(), v));
        write_tensors(path, &tensors.collect::<Result<Vec<_>>>()?, HashMap::from(metadata))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If it is missing, damaged, or not of this program and version.
    pub fn read(path: &Path) -> Result<NetworkFile> {
        let (bytes, metadata) = read_tensors(path, "train again, or fetch it again")?;
        let bad = |detail: String| Error::Data(format!("{}: {detail}", path.display()));
        let json = metadata.get("metatape").ok_or_else(|| {
            bad("is a safetensors file but not a network of metatape; give the model.safetensors of a run".into())
        })?;
        let other = |e: &dyn std::fmt::Display| {
            bad(format!("was written by another version of metatape ({e}); train again with this one"))
        };
        let card: Card = serde_json::from_str(json).map_err(|e| other(&e))?;
        if card.version != VERSION {
            return Err(other(&format!("format {}, this one reads {VERSION}", card.version)));
        }
        let channels = card.input.last().copied().unwrap_or(0);
        let sound = matches!(card.input.len(), 1 | 3)
            && card.input.iter().try_fold(1, |all: usize, n| all.checked_mul(*n)).is_some_and(|n| n > 0)
            && [card.mean.len(), card.std.len()] == [channels; 2]
            && card.std.iter().all(|std| *std > 0.0)
            && !card.classes.is_empty();
        if !sound {
            return Err(bad("its description contradicts itself; train again, or fetch it again".into()));
        }
        let hash = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(NetworkFile { card, hash, path: path.to_path_buf(), bytes })
    }

    /// The network that it is of.
    ///
    /// # Errors
    /// If this program does not know it.
    pub fn network(&self) -> Result<SharedModel> {
        let Card { model, model_text, classes, .. } = self.card.clone();
        let config = Config { model, model_text, ..Config::default() };
        config.network(classes.len()).map_err(|e| Error::Data(format!("{}: {e}", self.path.display())))
    }

    /// What it takes: `[h,w,c]` or `[d]`.
    pub fn input(&self) -> Shape {
        Shape::from(&self.card.input[..])
    }

    /// The values of a network's states, by name.
    ///
    /// # Errors
    /// [`Error::Data`] for tensors that are missing, of other shapes, or too many: a file of
    /// another network.
    pub fn states(&self, net: &dyn Model, sample: &Shape) -> Result<HashMap<String, Vec<f64>>> {
        let bad = |detail: String| {
            Error::Data(format!(
                "{} ({}): {detail}; it is of another network",
                self.path.display(),
                self.card.model
            ))
        };
        let tensors = SafeTensors::deserialize(&self.bytes).map_err(|e| Error::Program(e.to_string()))?;
        let slots = Slot::of(net, sample)?;
        let foreign = tensors.names().into_iter().filter(|name| slots.iter().all(|slot| slot.name != **name));
        if let Some(name) = foreign.min() {
            return Err(bad(format!("has `{name}`, which is not wanted here")));
        }
        let value = |slot: Slot| {
            let name = &slot.name;
            let view = tensors.tensor(name).map_err(|_| bad(format!("has no `{name}`")))?;
            if view.shape() != slot.shape {
                let (there, here) = (view.shape(), &slot.shape);
                return Err(bad(format!("`{name}` is {there:?} there and {here:?} here")));
            }
            let values = floats(&view)
                .ok_or_else(|| bad(format!("`{name}` is of type {:?}, expected F32 or F64", view.dtype())))?;
            match values.iter().find(|v| !v.is_finite()) {
                Some(v) => Err(Error::Data(format!("{}: `{name}` has the value {v}", self.path.display()))),
                None => Ok((slot.state.clone(), slot.ours(&values))),
            }
        };
        slots.into_iter().map(value).collect()
    }

    /// The values for a run that begins with this network: it must have as many classes.
    ///
    /// # Errors
    /// As [`NetworkFile::states`]; for another number of classes; if the file is not the one with
    /// the SHA-256 `recorded`.
    pub(super) fn beginning(
        &self,
        data: &Prepared,
        recorded: Option<&str>,
    ) -> Result<HashMap<String, Vec<f64>>> {
        let (path, there, here) = (self.path.display(), self.card.classes.len(), data.dataset.classes());
        if recorded.is_some_and(|hash| hash != self.hash) {
            return Err(Error::Data(format!(
                "--init {path} has changed since the run began; put the old file back, or start anew in another --out"
            )));
        }
        if there != here {
            return Err(Error::Data(format!(
                "--init {path} is a network of {there} classes, and {} has {here}; train from a network of {here}",
                data.dataset.name
            )));
        }
        self.states(data.net(), data.shape()).map_err(|e| Error::Data(format!("--init {e}")))
    }
}
