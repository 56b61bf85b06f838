//! A folder of finished cells: what a study of many runs has done so far, kept through any
//! interruption.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::files::{Claim, read_toml, to_toml, write_atomically};
use crate::error::{Error, Result};

const CONFIG: &str = "config.toml";
const CELLS: &str = "cells";

/// `config.toml`, and a file for each finished cell under `cells/`.
pub struct CellFolder {
    /// The study's folder.
    pub out: PathBuf,
    /// Held as long as the study is.
    _claim: Claim,
}

impl CellFolder {
    /// A new study in `out`, which is made if it is not there.
    ///
    /// # Errors
    /// If `out` holds a study or a run already, or cannot be written to.
    pub fn start(out: &Path, config: &impl Serialize) -> Result<CellFolder> {
        let taken = [CONFIG, CELLS, "checkpoint.safetensors", "results.csv", "summary.json"];
        let text = to_toml(config)?;
        let claim = Claim::fresh(out, &taken)?;
        let cells = out.join(CELLS);
        std::fs::create_dir_all(&cells).map_err(Error::io(&cells, "create the folder"))?;
        write_atomically(&out.join(CONFIG), text.as_bytes())?;
        Ok(CellFolder { out: out.to_path_buf(), _claim: claim })
    }

    /// The study in a folder, with its configuration.
    ///
    /// # Errors
    /// If there is none, or it cannot be understood.
    pub fn open<C: DeserializeOwned>(out: &Path) -> Result<(CellFolder, C)> {
        let path = out.join(CONFIG);
        if !path.exists() {
            return Err(Error::Usage(format!(
                "{} holds no study to resume (there is no {CONFIG}); give the --out of a study, or leave --resume out",
                out.display()
            )));
        }
        let config = read_toml(&path)?;
        let claim = Claim::new(out)?;
        // A study may have been stopped between its two first steps.
        let cells = out.join(CELLS);
        std::fs::create_dir_all(&cells).map_err(Error::io(&cells, "create the folder"))?;
        Ok((CellFolder { out: out.to_path_buf(), _claim: claim }, config))
    }

    /// Replaces the configuration by one that the finished cells are part of, too.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn reconfigure(&self, config: &impl Serialize) -> Result<()> {
        write_atomically(&self.out.join(CONFIG), to_toml(config)?.as_bytes())
    }

    fn path(&self, cell: &str) -> PathBuf {
        self.out.join(CELLS).join(format!("{cell}.json"))
    }

    /// What a cell gave, if it is finished.
    ///
    /// # Errors
    /// If its file cannot be read or understood.
    pub fn finished<T: DeserializeOwned>(&self, cell: &str) -> Result<Option<T>> {
        let path = self.path(cell);
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "read the finished cell"))?;
        serde_json::from_str(&text).map(Some).map_err(|e| {
            Error::Data(format!(
                "{}: is no finished cell of this program ({e}); remove it, and --resume computes it again",
                path.display()
            ))
        })
    }

    /// Keeps what a cell gave: whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn keep(&self, cell: &str, result: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(result).map_err(|e| Error::Program(e.to_string()))?;
        write_atomically(&self.path(cell), (text + "\n").as_bytes())
    }

    /// Writes one of the study's files, replacing what is there.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, file: &str, bytes: &[u8]) -> Result<()> {
        write_atomically(&self.out.join(file), bytes)
    }
}
