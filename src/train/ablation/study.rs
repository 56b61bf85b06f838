use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::cell::{self, CellProgress, CellResult};
use super::findings::Findings;
use super::pictures;
use super::variant::{Pool, Variant};
use crate::data::{DatasetKind, Noise};
use crate::error::{Error, Result};
use crate::program::Session;
use crate::train::cells::CellFolder;
use crate::train::config::Config as RunConfig;
use crate::train::prepared::Prepared;
use crate::words::counted;

/// Everything that decides a study's results.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Seeds 1, 2, … up to this one.
    pub seeds: u64,
    /// What is compared, `published` first.
    pub variants: Vec<Variant>,
    /// Images of the full meta set.
    pub meta_size: usize,
    /// The run that each cell is; its seed, route and meta size are the cell's.
    pub run: RunConfig,
}

impl Config {
    /// Checks what no single field shows.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the flag.
    pub fn check(&self) -> Result<()> {
        let usage = |sentence: String| Err(Error::Usage(sentence));
        self.run.check()?;
        if self.seeds == 0 {
            return usage("--seeds 0 measures nothing; give at least 1".into());
        }
        if self.variants.first() != Some(&Variant::Published) {
            return usage("--variants must have `published`, with which all others are compared".into());
        }
        for (i, variant) in self.variants.iter().enumerate() {
            if self.variants[..i].contains(variant) {
                return usage(format!("--variants names `{variant}` twice"));
            }
            match variant {
                Variant::Clean(n) | Variant::Noisy(n) | Variant::Imbalanced(n) if *n > self.meta_size => {
                    return usage(format!(
                        "--variants {variant}: the meta set has {}; give at least --meta-size {n}",
                        counted(self.meta_size, "image")
                    ));
                }
                Variant::Noisy(_) if self.run.noise == Noise::None => {
                    return usage(format!(
                        "--variants {variant}: without noise no label is wrong; add --noise, or leave it out"
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Where a study is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Cells that were finished before.
    pub finished: usize,
    /// All cells.
    pub cells: usize,
    /// The present one's variant.
    pub variant: Variant,
    /// Its seed.
    pub seed: u64,
    /// How far it is.
    pub cell: CellProgress,
}

/// A study: variants by seeds, in a folder.
///
/// Files: `config.toml`, `cells/*.json`, `results.csv`, `cosines.csv`, `summary.json` and the
/// plots.
pub struct Study {
    /// What is studied.
    pub config: Config,
    /// The folder.
    pub grid: CellFolder,
}

impl Study {
    /// A new study.
    ///
    /// # Errors
    /// As [`Config::check`] and [`CellFolder::start`], and for data that cannot be read or split.
    pub fn start(config: Config, out: &Path) -> Result<Study> {
        config.check()?;
        // What cannot be prepared is told before a folder is made.
        prepare(&config, 1)?.0.batcher(false)?;
        let grid = CellFolder::start(out, &config)?;
        Ok(Study { config, grid })
    }

    /// The study in a folder.
    ///
    /// # Errors
    /// As [`CellFolder::open`].
    pub fn resume(out: &Path) -> Result<Study> {
        let (grid, config) = CellFolder::open::<Config>(out)?;
        config.check()?;
        Ok(Study { config, grid })
    }

    /// The same study with more variants or more seeds; its finished cells are kept.
    ///
    /// # Errors
    /// As [`Study::start`], and then the study stays as it is; [`Error::Usage`] for a configuration
    /// that is not the old one with something added.
    pub fn extend(&mut self, config: Config) -> Result<()> {
        if config == self.config {
            return Ok(());
        }
        config.check()?;
        let old = &self.config;
        let grows = config.variants.starts_with(&old.variants) && config.seeds >= old.seeds;
        if !grows || config.run != old.run || config.meta_size != old.meta_size {
            let out = self.grid.out.display();
            return Err(Error::Usage(format!("{out}: only variants and seeds can be added to a study")));
        }
        // Without its data nothing could be trained, and what is finished could not be shown any
        // more.
        prepare(&config, 1)?.0.batcher(false)?;
        self.grid.reconfigure(&config)?;
        self.config = config;
        Ok(())
    }

    /// Cells, seed by seed: (variant, seed).
    pub fn cells(&self) -> Vec<(Variant, u64)> {
        (1..=self.config.seeds)
            .flat_map(|seed| self.config.variants.iter().map(move |variant| (*variant, seed)))
            .collect()
    }

    /// Trains all cells that are not finished, keeps each, and writes the results.
    ///
    /// # Errors
    /// Those of a session; files that cannot be written. A loss that is no longer finite ends its
    /// cell and is part of the results.
    pub fn run(
        &self,
        session: &dyn Fn() -> Result<Session>,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<Findings> {
        let cells = self.cells();
        let mut results = Vec::with_capacity(cells.len());
        let mut prepared: Option<(u64, Prepared, Pool)> = None;
        for (finished, (variant, seed)) in cells.iter().copied().enumerate() {
            let name = format!("{variant}-seed-{seed}");
            if let Some(result) = self.grid.finished::<CellResult>(&name)? {
                results.push(result);
                continue;
            }
            let (data, pool) = match &mut prepared {
                Some((of, data, pool)) if *of == seed => (data, pool),
                slot => {
                    let (data, pool) = prepare(&self.config, seed)?;
                    let (_, data, pool) = slot.insert((seed, data, pool));
                    (data, pool)
                }
            };
            let mut step = |cell| watch(Progress { finished, cells: cells.len(), variant, seed, cell });
            let result = match cell::train(data, pool, variant, session()?, &mut step) {
                // That it cannot be trained so is a result, too.
                Err(Error::Numeric(sentence)) => {
                    CellResult::diverged(variant, seed, data.dataset.test.len(), sentence)
                }
                result => result?,
            };
            self.grid.keep(&name, &result)?;
            results.push(result);
        }
        let findings = Findings::new(&self.config, &results, self.test_images(&results)?);
        self.write(&results, &findings)?;
        Ok(findings)
    }

    /// As the cells know, so that a finished study can be shown without its data; those from before
    /// they did ask the data.
    fn test_images(&self, results: &[CellResult]) -> Result<usize> {
        let run = &self.config.run;
        match results.iter().map(|result| result.test_images).max() {
            Some(0) | None => Ok(crate::data::load(run.dataset, run.data_dir.as_deref())?.test.len()),
            Some(images) => Ok(images),
        }
    }

    fn write(&self, results: &[CellResult], findings: &Findings) -> Result<()> {
        let table = |file: &str, rows: &mut dyn FnMut(&mut csv::Writer<Vec<u8>>) -> csv::Result<()>| {
            let broken = |e: &dyn std::fmt::Display| Error::Program(format!("{file}: {e}"));
            let mut csv = csv::Writer::from_writer(Vec::new());
            rows(&mut csv).map_err(|e| broken(&e))?;
            self.grid.write(file, &csv.into_inner().map_err(|e| broken(&e))?)
        };
        table("results.csv", &mut |csv| results.iter().try_for_each(|r| csv.serialize(CellRow::of(r))))?;
        table("cosines.csv", &mut |csv| {
            csv.write_record(["variant", "seed", "step", "epoch", "cosine"])?;
            for result in results {
                let other = result.other_batch.iter().map(|p| ("other-clean-batch".to_owned(), p));
                let own = result.cosines.iter().map(|p| (result.variant.to_string(), p));
                for (name, p) in own.chain(other) {
                    csv.serialize((name, result.seed, p.step, p.epoch, p.cosine))?;
                }
            }
            Ok(())
        })?;
        let text = serde_json::to_string_pretty(&json!({
            "dataset": self.config.run.dataset.to_string(),
            "noise": self.config.run.noise.to_string(),
            "model": self.config.run.model,
            "epochs": self.config.run.epochs,
            "seeds": self.config.seeds,
            "variants": findings.rows,
            "other_clean_batch_cosine": findings.other_batch,
            "conclusions": findings.conclusions(),
        }));
        let text = text.map_err(|e| Error::Program(e.to_string()))?;
        self.grid.write("summary.json", (text + "\n").as_bytes())?;
        pictures::draw(&self.config, results, findings, &self.grid.out)
    }
}

/// A row of `results.csv`.
#[derive(Serialize)]
struct CellRow {
    variant: Variant,
    seed: u64,
    meta_images: usize,
    final_test_accuracy: Option<f64>,
    best_test_accuracy: Option<f64>,
    mean_cosine: Option<f64>,
    mean_weight_clean: Option<f64>,
    mean_weight_corrupted: Option<f64>,
    ms_per_step: Option<f64>,
    error: Option<String>,
}

impl CellRow {
    fn of(result: &CellResult) -> CellRow {
        CellRow {
            variant: result.variant,
            seed: result.seed,
            meta_images: result.meta_images,
            final_test_accuracy: result.final_accuracy(),
            best_test_accuracy: result.accuracy.iter().copied().max_by(f64::total_cmp),
            mean_cosine: result.mean_cosine(),
            mean_weight_clean: result.mean_weight_clean,
            mean_weight_corrupted: result.mean_weight_corrupted,
            ms_per_step: result.ms_per_step,
            error: result.error.clone(),
        }
    }
}

/// A seed's training set, and the images set apart for its meta sets.
fn prepare(config: &Config, seed: u64) -> Result<(Prepared, Pool)> {
    let classes = match config.run.dataset {
        // Known without reading the files twice.
        DatasetKind::Cifar100 => 100,
        DatasetKind::Folder => {
            crate::data::load(config.run.dataset, config.run.data_dir.as_deref())?.classes()
        }
        _ => 10,
    };
    let apart = classes * Pool::per_class(classes, config.meta_size);
    let run = RunConfig { seed, meta_size: Some(apart), ..config.run.clone() };
    let data = Prepared::new(run).map_err(|error| match error {
        Error::Data(text) | Error::Usage(text) if text.contains("--meta-size") => Error::Data(format!(
            "a meta set of {} in a long tail of {} needs {} of each class set apart, and there are not so many ({text})",
            counted(config.meta_size, "image"),
            super::IMBALANCE,
            apart / classes
        )),
        error => error,
    })?;
    let pool = Pool::new(&data.split.meta, classes, config.meta_size, seed);
    Ok((data, pool))
}
