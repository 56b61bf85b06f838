use std::path::{Path, PathBuf};

use super::cell::Cell;
use super::plan::{Arm, Plan};
use crate::error::{Error, Result};
use crate::program::Session;
use crate::train::config::Config;
use crate::train::files::{Claim, read_toml, to_toml, write_atomically};
use crate::train::run::{CHECKPOINT, CONFIG, Observer};
use crate::words::counted;

/// Who wants to know how a study goes, and how each of its cells is trained.
pub trait StudyObserver<A>: Observer {
    /// It begins, or goes on: these cells are not finished.
    fn begin_study(&mut self, waiting: &[(A, u64)]);
    /// An arm is trained with a seed.
    fn begin_cell(&mut self, arm: A, seed: u64);
    /// It is finished.
    fn end_cell(&mut self, arm: A, cell: &Cell);
}

/// A study and its folder.
pub struct Study<A: Arm> {
    /// What is compared.
    pub plan: Plan<A>,
    /// The folder.
    pub out: PathBuf,
    /// What its first seed trains on, for people, if this process began it.
    pub account: Vec<String>,
    /// Held as long as the study is.
    _claim: Claim,
}

const CELLS: &str = "cells";
const CELL: &str = "cell.json";

impl<A: Arm> Study<A> {
    /// A new study in the folder `out`.
    ///
    /// # Errors
    /// As [`Plan::check`] and [`Arm::prepare`]; [`Error::Usage`] if `out` holds results already; if
    /// it cannot be written to.
    pub fn start(mut plan: Plan<A>, out: &Path) -> Result<Study<A>> {
        plan.check()?;
        plan.config.read_model()?;
        let text = to_toml(&plan)?;
        // What cannot be prepared is told before a folder is made.
        let account = A::prepare(&plan.config)?.account();
        let claim = Claim::fresh(out, &[A::PLAN, CELLS, CONFIG, CHECKPOINT, "summary.json", "results.csv"])?;
        write_atomically(&out.join(A::PLAN), text.as_bytes())?;
        Ok(Study { plan, out: out.to_path_buf(), account, _claim: claim })
    }

    /// The study in a folder.
    ///
    /// # Errors
    /// If there is none, or it cannot be understood.
    pub fn resume(out: &Path) -> Result<Study<A>> {
        let path = out.join(A::PLAN);
        if !path.exists() {
            return Err(Error::Usage(format!(
                "{} holds no {} to resume (there is no {}); give the --out of one, or leave --resume out",
                out.display(),
                A::STUDY,
                A::PLAN
            )));
        }
        let plan: Plan<A> = read_toml(&path)?;
        plan.check().map_err(|e| {
            Error::Data(format!("{}: {e}; mend it, or start anew in another --out", path.display()))
        })?;
        let (out, claim) = (out.to_path_buf(), Claim::new(out)?);
        Ok(Study { plan, out, account: Vec::new(), _claim: claim })
    }

    /// The same study with more arms or more seeds; its finished cells are kept.
    ///
    /// # Errors
    /// [`Error::Usage`] for a plan that is not the old one with something added; as
    /// [`Arm::prepare`]; and then the plan stays as it is.
    pub fn extend(&mut self, plan: Plan<A>) -> Result<()> {
        if plan == self.plan {
            return Ok(());
        }
        plan.check()?;
        let old = &self.plan;
        let grows = plan.arms.starts_with(&old.arms) && plan.seeds.starts_with(&old.seeds);
        if !grows || plan.config != old.config || plan.preset != old.preset {
            let (out, arm, study) = (self.out.display(), A::ARM, A::STUDY);
            return Err(Error::Usage(format!("{out}: only {arm}s and seeds can be added to a {study}")));
        }
        // Without its data nothing could be trained, and what is finished could not be shown any
        // more.
        A::prepare(&plan.config)?;
        write_atomically(&self.out.join(A::PLAN), to_toml(&plan)?.as_bytes())?;
        self.plan = plan;
        Ok(())
    }

    fn folder(&self, arm: A, seed: u64) -> PathBuf {
        self.out.join(CELLS).join(format!("{arm}-seed{seed}"))
    }

    /// A cell, if it is finished.
    ///
    /// # Errors
    /// If its file cannot be read, or is not of this plan.
    pub fn finished(&self, arm: A, seed: u64) -> Result<Option<Cell>> {
        let folder = self.folder(arm, seed);
        let path = folder.join(CELL);
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
        let broken = |what: String| {
            let (path, folder) = (path.display(), folder.display());
            Error::Data(format!("{path}: {what}; remove {folder} to have it trained again"))
        };
        let cell: Cell = serde_json::from_str(&text)
            .map_err(|e| broken(format!("is no finished cell of this version ({e})")))?;
        let (rows, epochs) = (cell.history.rows.len(), self.plan.config.epochs);
        if cell.error.is_none() && rows != epochs {
            return Err(broken(format!("has {} and {} asks for {epochs}", counted(rows, "epoch"), A::PLAN)));
        }
        Ok(Some(cell))
    }

    /// Trains all cells that are not finished, keeps each, and gives all.
    ///
    /// # Errors
    /// Those of training but for a loss that is no longer finite, which is part of the results;
    /// files that cannot be read or written.
    pub fn run(
        &self,
        session: &dyn Fn() -> Result<Session>,
        observer: &mut dyn StudyObserver<A>,
    ) -> Result<Vec<Cell>> {
        let ids = self.plan.cells();
        let mut cells =
            ids.iter().map(|id| self.finished(id.0, id.1)).collect::<Result<Vec<Option<Cell>>>>()?;
        let waiting: Vec<(A, u64)> =
            ids.iter().zip(&cells).filter(|(_, cell)| cell.is_none()).map(|(id, _)| *id).collect();
        observer.begin_study(&waiting);
        for ((arm, seed), cell) in ids.into_iter().zip(&mut cells).filter(|(_, cell)| cell.is_none()) {
            observer.begin_cell(arm, seed);
            let folder = self.folder(arm, seed);
            let config = Config { seed, ..self.plan.config.clone() };
            let finished = Cell { arm: arm.to_string(), ..arm.train(config, &folder, session, observer)? };
            std::fs::create_dir_all(&folder).map_err(Error::io(&folder, "create the folder"))?;
            write_json(&folder.join(CELL), &finished)?;
            // It can be large, and is of no use any more.
            let checkpoint = folder.join(CHECKPOINT);
            if checkpoint.exists() {
                std::fs::remove_file(&checkpoint).map_err(Error::io(&checkpoint, "remove"))?;
            }
            observer.end_cell(arm, &finished);
            *cell = Some(finished);
        }
        Ok(cells.into_iter().flatten().collect())
    }

    /// Writes `summary.json`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_summary(&self, summary: &impl serde::Serialize) -> Result<()> {
        write_json(&self.out.join("summary.json"), summary)
    }
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Program(e.to_string()))?;
    write_atomically(path, (text + "\n").as_bytes())
}
