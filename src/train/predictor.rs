//! A run's network, used after the run.

use std::path::{Path, PathBuf};

use super::config::Config;
use super::evaluator::{Evaluator, at_once};
use super::network_file::{Card, NetworkFile};
use super::prepared::Prepared;
use super::run::{CONFIG, MODEL};
use super::sealed::read_toml;
use super::step::upload;
use crate::data::{Dataset, Labelled, Reading, Samples, Table};
use crate::error::{Error, Result};
use crate::meta::schemes::{Predictions, Set};
use crate::program::Session;

/// The network of a finished run and how it came about.
#[derive(Debug)]
pub struct Finished {
    /// The run's folder.
    pub out: PathBuf,
    /// What it was asked for.
    pub config: Config,
    /// What it has come to.
    pub file: NetworkFile,
}

impl Finished {
    /// What a run's folder holds.
    ///
    /// # Errors
    /// If the run is not finished; as [`NetworkFile::read`]; for a configuration that cannot be
    /// understood.
    pub fn read(out: &Path) -> Result<Finished> {
        let (model, config, shown) = (out.join(MODEL), out.join(CONFIG), out.display());
        if !config.exists() {
            return Err(Error::Usage(format!(
                "--run {shown} holds no run (there is no {CONFIG}); give the --out of one"
            )));
        }
        if !model.exists() {
            return Err(Error::Usage(format!(
                "--run {shown} is not finished (there is no {MODEL}); go on with `metatape train --out {shown} --resume`"
            )));
        }
        Ok(Finished { out: out.to_path_buf(), config: read_toml(&config)?, file: NetworkFile::read(&model)? })
    }

    /// A part of the run's own data: the training set with its labels as they came, less the meta
    /// set; the meta set; the test set.
    ///
    /// # Errors
    /// As [`Prepared::new`]; [`Error::Data`] if the data are no longer those of the run.
    pub fn own(&self, set: Set) -> Result<(Dataset, Labelled)> {
        let mut config = Config { init: None, init_sha256: None, ..self.config.clone() };
        if set == Set::Test {
            config.train_labels = None;
            config.data.iter_mut().for_each(|data| data.given = None);
        }
        let Prepared { dataset, split, .. } = Prepared::new(config)?;
        let card = &self.file.card;
        if dataset.class_names != card.classes || dataset.shape != self.file.input() {
            return Err(Error::Data(format!(
                "{}: the run was trained on {} classes and samples {}, and {} now has {} and {}; name its data with --data-dir",
                self.out.display(),
                card.classes.len(),
                self.file.input(),
                dataset.name,
                dataset.classes(),
                dataset.shape
            )));
        }
        let labelled = match set {
            Set::Train => Labelled { indices: split.train.indices, labels: split.train.original_labels },
            Set::Meta => split.meta,
            Set::Test => tested(&dataset),
        };
        Ok((dataset, labelled))
    }

    /// A part of other data with the same classes.
    ///
    /// # Errors
    /// As [`Reading::part`]; for samples of another shape.
    pub fn other(&self, reading: &Reading, set: Set) -> Result<(Dataset, Labelled)> {
        let Card { classes, columns, .. } = &self.file.card;
        let (table, remarks) = reading.part(set, &self.file.input(), [classes, columns])?;
        let dataset = Dataset { remarks, ..self.dataset(table)? };
        let labelled = tested(&dataset);
        Ok((dataset, labelled))
    }

    fn dataset(&self, table: Table) -> Result<Dataset> {
        let card = &self.file.card;
        let statistics = (card.mean.clone(), card.std.clone());
        Dataset::apart(table, &self.file.input(), card.classes.clone(), statistics)
    }
}

fn tested(dataset: &Dataset) -> Labelled {
    Labelled { indices: dataset.test.indices.clone(), labels: dataset.test.labels.clone() }
}

/// A finished run's network on a machine.
pub struct Predictor {
    session: Session,
    evaluator: Evaluator,
    /// A batch of samples.
    piece: Dataset,
}

impl Predictor {
    /// The network in a session of its own.
    ///
    /// # Errors
    /// As [`NetworkFile::network`] and [`NetworkFile::states`]; the machine's.
    pub fn new(finished: &Finished, mut session: Session) -> Result<Predictor> {
        let (net, shape) = (finished.file.network()?, finished.file.input());
        session.begin_with(finished.file.states(net.as_ref(), &shape)?);
        let n = at_once(&shape, usize::MAX);
        let (name, labels) = ("batch".to_owned(), vec![0; n]);
        let table = match shape[..] {
            [h, w, c] => Table::images(name, [h, w, c], vec![0; n * shape.count()], labels),
            _ => Table::features(name, shape.count(), vec![0.0; n * shape.count()], labels),
        };
        let piece = finished.dataset(table)?;
        let evaluator = Evaluator::new(net.as_ref(), &piece, &mut session)?;
        Ok(Predictor { session, evaluator, piece })
    }

    /// Predictions on some samples of a data set, with their labels.
    ///
    /// # Errors
    /// The machine's.
    pub fn see(&mut self, data: &Dataset, of: &Labelled) -> Result<Predictions> {
        let Predictor { session, evaluator, piece } = self;
        let (n, len) = (piece.count(), piece.sample_len());
        let mut all = Predictions::default();
        for (indices, labels) in of.indices.chunks(n).zip(of.labels.chunks(n)) {
            let places = indices.iter().map(|i| *i as usize * len..(*i as usize + 1) * len);
            piece.samples = match &data.samples {
                Samples::Bytes(from) => {
                    let mut bytes = places.flat_map(|place| &from[place]).copied().collect::<Vec<u8>>();
                    bytes.resize(n * len, 0);
                    Samples::bytes(bytes)
                }
                Samples::Floats(from) => {
                    Samples::floats(places.flat_map(|place| &from[place]).copied().collect())
                }
            };
            upload(session, piece)?;
            let seen = evaluator.predict(session, piece, &piece.test.indices[..labels.len()], labels)?;
            all.losses.extend(seen.losses);
            all.hits.extend(seen.hits);
            all.logits.extend(seen.logits);
        }
        Ok(all)
    }

    /// Logits `[n, classes]` of samples without labels.
    ///
    /// # Errors
    /// As [`Predictor::see`]; for samples of another shape.
    pub fn logits(&mut self, finished: &Finished, table: Table) -> Result<Vec<f64>> {
        let data = finished.dataset(table)?;
        Ok(self.see(&data, &tested(&data))?.logits)
    }
}
