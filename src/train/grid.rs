//! Several methods on the same data over several seeds: a grid of runs in one folder, each kept
//! when it is finished.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::config::Config;
use super::files::{Claim, read_toml, to_toml, write_atomically};
use super::history::{EpochRow, History, LossBins};
use super::method::Method;
use super::paper::PaperCell;
use super::prepared::Prepared;
use super::run::{CHECKPOINT, CONFIG, Observer, Run};
use crate::data::{self, Dataset};
use crate::error::{Error, Result};
use crate::program::Session;
use crate::words::counted;

/// What a grid compares: `compare.toml`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Names of the methods, in the order of the table.
    pub methods: Vec<String>,
    /// One run each.
    pub seeds: Vec<u64>,
    /// The cell of the paper's tables that this repeats, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Everything else; its method and seed are replaced.
    pub config: Config,
}

impl Plan {
    /// Checks that there is something to compare, and nothing twice.
    fn check(&self) -> Result<()> {
        let twice = |again: bool, what: &str| match again {
            true => Err(Error::Usage(format!("{what} is listed twice"))),
            false => Ok(()),
        };
        if self.methods.is_empty() || self.seeds.is_empty() {
            return Err(Error::Usage("there is no method or no seed to compare".into()));
        }
        for (i, name) in self.methods.iter().enumerate() {
            twice(self.methods[..i].contains(name), name)?;
        }
        for (i, seed) in self.seeds.iter().enumerate() {
            twice(self.seeds[..i].contains(seed), &format!("seed {seed}"))?;
        }
        self.config.check()
    }
}

/// One run of the grid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CellId {
    /// How it trains.
    pub method: Method,
    /// On which draw of the data.
    pub seed: u64,
}

/// What is kept of a finished run: `cell.json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// The method's name.
    pub method: String,
    /// The seed.
    pub seed: u64,
    /// Why the run could not be brought to its end; then the other fields hold what there was until
    /// then.
    pub error: Option<String>,
    /// One row an epoch.
    pub rows: Vec<EpochRow>,
    /// `[true class][predicted class]`, at the end.
    pub confusion: Vec<Vec<u32>>,
    /// (loss, weight) at the end: the scheme's function of the loss, where it is one, otherwise the
    /// mean weight that samples of about that loss were given in the last epoch; empty where
    /// samples have no weights.
    pub curve: Vec<(f64, f64)>,
    /// Whether the curve is the scheme's function.
    pub curve_is_function: bool,
    /// Where it is not: of how many samples each of its points is the mean.
    #[serde(default)]
    pub curve_samples: Vec<f64>,
}

impl Cell {
    fn new(id: CellId, history: &History, error: Option<String>) -> Cell {
        let picture = history.pictures.last().filter(|p| p.epoch > 0 && p.groups.is_empty());
        let bins = history.by_loss.iter().enumerate().filter(|(_, bin)| bin.1 > 0.0);
        let (means, samples): (Vec<(f64, f64)>, Vec<f64>) =
            bins.map(|(i, &(mean, count))| ((LossBins::middle(i), mean), count)).unzip();
        let (curve, curve_samples) = picture.map_or((means, samples), |p| (p.curve.clone(), Vec::new()));
        Cell {
            method: id.method.to_string(),
            seed: id.seed,
            error,
            rows: history.rows.clone(),
            confusion: history.confusion.clone(),
            curve,
            curve_is_function: picture.is_some(),
            curve_samples,
        }
    }

    /// The same as a history, for its means.
    pub fn history(&self) -> History {
        History { rows: self.rows.clone(), confusion: self.confusion.clone(), ..History::default() }
    }

    /// The points of the curve, each with its number of samples; 1 where it is a function.
    pub fn weighted_curve(&self) -> Vec<(f64, f64, f64)> {
        let samples = self.curve_samples.iter().copied().chain(std::iter::repeat(1.0));
        self.curve.iter().zip(samples).map(|(point, samples)| (point.0, point.1, samples)).collect()
    }

    /// Milliseconds of a training step, evaluation not counted.
    pub fn ms_per_step(&self) -> f64 {
        let seconds: f64 = self.rows.iter().map(|r| 1.0 / r.steps_per_second).sum();
        1e3 * seconds / self.rows.len() as f64
    }
}

/// What a grid's pictures say of its data: `names.json`, so that finished runs can be shown without
/// the images.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DataNames {
    /// The data set.
    pub dataset: String,
    /// Its classes, by label; empty where they are not known.
    pub classes: Vec<String>,
}

impl DataNames {
    fn of(dataset: &Dataset) -> DataNames {
        DataNames { dataset: dataset.name.clone(), classes: dataset.class_names.clone() }
    }

    /// Those of a grid's folder. One that was made before there was the file gets it now if its
    /// data are still there; if not, nothing but the names is lost.
    fn of_folder(out: &Path, config: &Config) -> Result<DataNames> {
        let path = out.join(NAMES);
        if path.exists() {
            let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
            return serde_json::from_str(&text).map_err(|e| {
                Error::Data(format!(
                    "{}: holds no names ({e}); remove it to have it written anew",
                    path.display()
                ))
            });
        }
        match data::load(config.dataset, config.data_dir.as_deref()) {
            Ok(dataset) => DataNames::of(&dataset).write(out),
            Err(_) => Ok(DataNames { dataset: config.dataset.to_string(), classes: Vec::new() }),
        }
    }

    fn write(self, out: &Path) -> Result<DataNames> {
        let text = serde_json::to_string_pretty(&self).map_err(|e| Error::Program(e.to_string()))?;
        write_atomically(&out.join(NAMES), (text + "\n").as_bytes())?;
        Ok(self)
    }
}

/// A grid and its folder: `compare.toml`, `names.json`, a folder `cells/<method>-seed<seed>` a run,
/// and what [`super::Comparison`] writes.
pub struct Grid {
    /// What is compared.
    pub plan: Plan,
    /// What its data are called.
    pub names: DataNames,
    /// The folder.
    pub out: PathBuf,
    /// Held as long as the grid is.
    _claim: Claim,
}

const PLAN: &str = "compare.toml";
const NAMES: &str = "names.json";
const CELL: &str = "cell.json";

impl Grid {
    /// A new grid in the folder `out`.
    ///
    /// # Errors
    /// As [`Prepared::new`]; [`Error::Usage`] if `out` holds a grid or a run already; if it cannot
    /// be written to.
    pub fn start(plan: Plan, out: &Path) -> Result<Grid> {
        let text = to_toml(&plan)?;
        // What cannot be prepared is told before a folder is made.
        let names = DataNames::of(&Prepared::new(plan.config.clone())?.dataset);
        let claim = Claim::fresh(out, &[PLAN, CONFIG, "summary.json", "results.csv"])?;
        let names = names.write(out)?;
        write_atomically(&out.join(PLAN), text.as_bytes())?;
        Ok(Grid { plan, names, out: out.to_path_buf(), _claim: claim })
    }

    /// The grid in a folder.
    ///
    /// # Errors
    /// If there is none, or it cannot be understood.
    pub fn resume(out: &Path) -> Result<Grid> {
        let path = out.join(PLAN);
        if !path.exists() {
            return Err(Error::Usage(format!(
                "{} holds no comparison to resume (there is no {PLAN}); give the --out of one, or leave --resume out",
                out.display()
            )));
        }
        let plan: Plan = read_toml(&path)?;
        plan.check().map_err(|e| {
            Error::Data(format!("{}: {e}; mend it, or start anew in another --out", path.display()))
        })?;
        let claim = Claim::new(out)?;
        let names = DataNames::of_folder(out, &plan.config)?;
        let grid = Grid { plan, names, out: out.to_path_buf(), _claim: claim };
        grid.cells()?;
        grid.paper()?;
        Ok(grid)
    }

    /// The same grid with more methods or more seeds; its finished runs are kept.
    ///
    /// # Errors
    /// [`Error::Usage`] for a plan that is not the old one with something added; as
    /// [`Prepared::new`], and then the plan stays as it is.
    pub fn extend(&mut self, plan: Plan) -> Result<()> {
        if plan == self.plan {
            return Ok(());
        }
        plan.check()?;
        let old = &self.plan;
        let grows = plan.methods.starts_with(&old.methods) && plan.seeds.starts_with(&old.seeds);
        if !grows || plan.config != old.config || plan.preset != old.preset {
            let out = self.out.display();
            return Err(Error::Usage(format!("{out}: only methods and seeds can be added to a comparison")));
        }
        // Without its data nothing could be trained, and what is finished could not be shown any
        // more.
        Prepared::new(plan.config.clone())?;
        write_atomically(&self.out.join(PLAN), to_toml(&plan)?.as_bytes())?;
        self.plan = plan;
        Ok(())
    }

    /// All runs: seed after seed, so that what is finished can be compared.
    ///
    /// # Errors
    /// For a method that is not known.
    pub fn cells(&self) -> Result<Vec<CellId>> {
        let methods = self.plan.methods.iter().map(|name| name.parse()).collect::<Result<Vec<Method>>>()?;
        let of_seed =
            |seed: &u64| methods.iter().map(|&method| CellId { method, seed: *seed }).collect::<Vec<_>>();
        Ok(self.plan.seeds.iter().flat_map(of_seed).collect())
    }

    /// The paper's cell that the grid repeats.
    ///
    /// # Errors
    /// For a name that is not known.
    pub fn paper(&self) -> Result<Option<PaperCell>> {
        self.plan.preset.as_deref().map(PaperCell::named).transpose()
    }

    fn folder(&self, id: CellId) -> PathBuf {
        self.out.join("cells").join(format!("{}-seed{}", id.method, id.seed))
    }

    /// A run that is finished.
    ///
    /// # Errors
    /// If its file cannot be read.
    pub fn finished(&self, id: CellId) -> Result<Option<Cell>> {
        let path = self.folder(id).join(CELL);
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
        let advice = format!("remove {} to have it trained again", self.folder(id).display());
        let cell: Cell = serde_json::from_str(&text).map_err(|e| Error::Format {
            path: path.clone(),
            byte: 0,
            detail: format!("is no finished run ({e}); {advice}"),
        })?;
        let (rows, epochs) = (cell.rows.len(), self.plan.config.epochs);
        if cell.error.is_none() && rows != epochs {
            let path = path.display();
            let rows = counted(rows, "epoch");
            return Err(Error::Data(format!("{path}: has {rows} and {PLAN} asks for {epochs}; {advice}")));
        }
        Ok(Some(cell))
    }

    /// Brings a run to its end, from its last checkpoint if it was begun. Its checkpoint, which can
    /// be large, is then removed.
    ///
    /// A loss that is no longer finite ends the run, and is part of its result.
    ///
    /// # Errors
    /// All other errors of a run.
    pub fn run(
        &self,
        id: CellId,
        session: &dyn Fn() -> Result<Session>,
        observer: &mut dyn Observer,
    ) -> Result<Cell> {
        let folder = self.folder(id);
        let mut run = if folder.join(CONFIG).exists() {
            Run::resume(&folder, session)?
        } else {
            let config =
                Config { method: id.method, baseline: false, seed: id.seed, ..self.plan.config.clone() };
            Run::start(config, &folder, session)?
        };
        let error = match run.finish(observer) {
            Ok(_) => None,
            Err(Error::Numeric(sentence)) => Some(sentence),
            Err(error) => return Err(error),
        };
        let cell = Cell::new(id, &run.histories()[0], error);
        let text = serde_json::to_string(&cell).map_err(|e| Error::Program(e.to_string()))?;
        write_atomically(&folder.join(CELL), text.as_bytes())?;
        let checkpoint = folder.join(CHECKPOINT);
        if checkpoint.exists() {
            std::fs::remove_file(&checkpoint).map_err(Error::io(&checkpoint, "remove"))?;
        }
        Ok(cell)
    }
}
