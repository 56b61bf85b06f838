use std::path::{Path, PathBuf};

use super::cell::Cell;
use super::plan::{Arm, Plan};
use crate::error::{Error, Result};
use crate::program::Session;
use crate::train::config::Config;
use crate::train::files::{Claim, Outputs, foreign, write_atomically};
use crate::train::history::rename;
use crate::train::observer::Observer;
use crate::train::report;
use crate::train::run::CHECKPOINT;
use crate::train::sealed::{read_json, read_toml, to_toml, write_json};
use crate::train::times::Times;
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

/// The folder of its cells.
pub(in crate::train) const CELLS: &str = "cells";
const CELL: &str = "cell.json";
const SUMMARY: &str = "summary.json";

impl<A: Arm> Study<A> {
    /// A new study in the folder `out`.
    ///
    /// # Errors
    /// As [`Plan::check`] and [`Arm::prepare`]; [`Error::Usage`] if `out` holds results already; if
    /// it cannot be written to.
    pub fn start(mut plan: Plan<A>, out: &Path) -> Result<Study<A>> {
        plan.check()?;
        plan.config.read_model()?;
        to_toml(&plan)?;
        // What cannot be prepared is told before a folder is made.
        let data = A::prepare(&plan.config)?;
        plan.config.data.clone_from(&data.config.data);
        let account = data.account();
        drop(data);
        let claim = Claim::fresh(out, &outputs(&plan))?;
        write_atomically(&out.join(A::PLAN), to_toml(&plan)?.as_bytes())?;
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
        plan.check()
            .map_err(|e| Error::Data(format!("{}: {e}; start anew in another --out", path.display())))?;
        let (out, claim) = (out.to_path_buf(), Claim::again(out, &outputs(&plan))?);
        Ok(Study { plan, out, account: Vec::new(), _claim: claim })
    }

    /// The same study with more arms or more seeds, or with its data elsewhere; its finished cells
    /// are kept.
    ///
    /// # Errors
    /// [`Error::Usage`] for a plan that is not the old one with something added, and for another's
    /// file in the way; as [`Arm::prepare`]; and then the plan stays as it is.
    pub fn extend(&mut self, plan: Plan<A>) -> Result<()> {
        if plan == self.plan {
            return Ok(());
        }
        plan.check()?;
        let old = &self.plan;
        let grows = plan.arms.starts_with(&old.arms) && plan.seeds.starts_with(&old.seeds);
        let config = plan.config.clone().placed_as(&old.config);
        if !grows || config != old.config || plan.preset != old.preset {
            let (out, arm, study) = (self.out.display(), A::ARM, A::STUDY);
            return Err(Error::Usage(format!("{out}: only {arm}s and seeds can be added to a {study}")));
        }
        let (had, has) = (outputs(old).last, outputs(&plan).last);
        foreign(&self.out, has.iter().filter(|file| !had.contains(file)))?;
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
    /// If its file cannot be read, or is of another cell or plan.
    pub fn finished(&self, arm: A, seed: u64) -> Result<Option<Cell>> {
        let folder = self.folder(arm, seed);
        let path = folder.join(CELL);
        if !path.exists() {
            return Ok(None);
        }
        let cure = format!("remove {} to have it trained again", folder.display());
        let mut cell: Cell = read_json(&path, &cure)?;
        if (&cell.arm[..], cell.seed) != (&arm.to_string()[..], seed) {
            return Err(Error::Data(format!(
                "{}: is of {} with seed {}, not of {arm} with seed {seed}; {cure}",
                path.display(),
                cell.arm,
                cell.seed
            )));
        }
        let (rows, epochs) = (cell.history.rows.len(), self.plan.config.epochs);
        if cell.error.is_none() && rows != epochs {
            let (path, rows) = (path.display(), counted(rows, "epoch"));
            return Err(Error::Data(format!("{path}: has {rows} and {} asks for {epochs}; {cure}", A::PLAN)));
        }
        rename(&mut cell.mean_weight, &mut cell.mean_weight_clean, cell.mean_weight_corrupted);
        cell.history.rename();
        Times::read(&folder)?.fill(&cell.arm, &mut cell.history);
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
            Times::of([(arm.to_string(), &finished.history, 0.0)]).write(&folder)?;
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
        let text = serde_json::to_string_pretty(summary).map_err(|e| Error::Program(e.to_string()))?;
        write_atomically(&self.out.join(SUMMARY), (text + "\n").as_bytes())
    }
}

/// All that a study of a plan writes. The summary says that the others are its own.
fn outputs<A: Arm>(plan: &Plan<A>) -> Outputs {
    let of_all = [SUMMARY, "results.csv", "times.csv", "epochs.csv", report::FILE].map(str::to_owned);
    Outputs {
        first: [A::PLAN, CELLS].iter().chain(A::FIRST).map(|file| (*file).to_owned()).collect(),
        last: of_all.into_iter().chain(A::files(plan)).collect(),
    }
}
