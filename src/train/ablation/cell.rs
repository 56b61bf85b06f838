use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::variant::{Pool, Variant};
use crate::error::{Error, Result};
use crate::meta::{Order, Route};
use crate::program::Session;
use crate::train::history::mean_where;
use crate::train::scores;
use crate::train::stepper::{At, Stepper};
use crate::train::{Learner, Measured, Method, Prepared};

/// Cosines that are measured in an epoch, if it has so many steps.
const PROBES_PER_EPOCH: u64 = 2;

/// A cosine between two hypergradients.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Probe {
    /// Steps that were done.
    pub step: u64,
    /// Epoch that it fell in, from 1.
    pub epoch: usize,
    /// −1 … 1; none where one of the two is 0.
    pub cosine: Option<f64>,
}

/// What one variant gave with one seed. Accuracies in percent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CellResult {
    /// Which one.
    pub variant: Variant,
    /// Which seed.
    pub seed: u64,
    /// Images that meta batches were drawn from.
    pub meta_images: usize,
    /// Images that accuracies are measured on; 0 in files from before it was kept.
    #[serde(default)]
    pub test_images: usize,
    /// Test accuracy after each epoch.
    pub accuracy: Vec<f64>,
    /// Between the variant's hypergradient and the exact one.
    pub cosines: Vec<Probe>,
    /// Of the published variant: between the exact hypergradients on its own and on another meta
    /// batch of the same set.
    pub other_batch: Vec<Probe>,
    /// Mean V over training samples with their true label, at the end.
    pub mean_weight_clean: Option<f64>,
    /// Mean V over those with a wrong one.
    pub mean_weight_corrupted: Option<f64>,
    /// Milliseconds a step, probes and evaluation not counted.
    pub ms_per_step: Option<f64>,
    /// Why training could not be brought to its end; then there are no numbers.
    #[serde(default)]
    pub error: Option<String>,
}

impl CellResult {
    /// Of a loss that did not stay finite.
    pub fn diverged(variant: Variant, seed: u64, test_images: usize, error: String) -> CellResult {
        CellResult {
            variant,
            seed,
            meta_images: 0,
            test_images,
            accuracy: Vec::new(),
            cosines: Vec::new(),
            other_batch: Vec::new(),
            mean_weight_clean: None,
            mean_weight_corrupted: None,
            ms_per_step: None,
            error: Some(error),
        }
    }
}

/// Where a cell is.
#[derive(Clone, Copy, Debug)]
pub struct CellProgress {
    /// Steps done.
    pub step: u64,
    /// Of so many.
    pub steps: u64,
}

/// One variant's programs with one seed.
struct Cell {
    learner: Learner,
    /// The step, and for variants that do not move θ in each, the step without it.
    main: Stepper,
    between: Option<Stepper>,
    /// The exact hypergradient: the published step's, on the clean meta set's batch.
    exact: Stepper,
    /// The variant's own, where neither `main` nor `exact` has it.
    own: Option<Stepper>,
}

/// Trains one variant. `data` holds the seed's training set; its meta set and route are replaced by
/// the variant's.
///
/// # Errors
/// [`Error::Numeric`] if training diverges; those of [`Learner::new`].
pub fn train(
    data: &mut Prepared,
    pool: &Pool,
    variant: Variant,
    session: Session,
    watch: &mut dyn FnMut(CellProgress),
) -> Result<CellResult> {
    let noise = data.config.noise;
    let clean = Variant::Published.meta_set(pool, &data.split.train, noise)?;
    data.split.meta = variant.meta_set(pool, &data.split.train, noise)?;
    // What the variant before has set is not this one's.
    (data.config.route, data.config.unroll) = (Route::Jvp, 1);
    if variant == Variant::Uniform {
        return uniform(data, session, watch);
    }
    let mut learner = Learner::new(Method::MwNet, data, session)?;
    let exact = Stepper::new(data, Order::Gradient, &clean, learner.session_mut())?;
    match variant {
        Variant::FiniteDifference => data.config.route = Route::FiniteDifference,
        Variant::Unroll(k) => data.config.unroll = k,
        _ => {}
    }
    let order = if variant == Variant::TwoSteps { Order::TwoSteps } else { Order::Published };
    let meta = &data.split.meta;
    let main = Stepper::for_training(data, order, meta, learner.session_mut())?;
    let (mut between, mut own) = (None, None);
    if let Variant::Every(_) = variant {
        between = Some(Stepper::for_training(data, Order::FixedTheta, meta, learner.session_mut())?);
    }
    if variant.about_meta_set() || matches!(variant, Variant::FiniteDifference | Variant::Unroll(_)) {
        own = Some(Stepper::new(data, Order::Gradient, meta, learner.session_mut())?);
    }
    let cell = Cell { learner, main, between, exact, own };
    cell.train(data, variant, watch)
}

/// The baseline: it has no hypergradient.
fn uniform(data: &Prepared, session: Session, watch: &mut dyn FnMut(CellProgress)) -> Result<CellResult> {
    let mut learner = Learner::new(Method::Uniform, data, session)?;
    let (per_epoch, epochs) = (learner.steps_per_epoch(), data.config.epochs);
    let steps = per_epoch * epochs as u64;
    let (mut accuracy, mut seconds) = (Vec::new(), 0.0);
    for epoch in 0..epochs {
        let before = per_epoch * epoch as u64;
        let measured = learner.pass(data, epoch, &mut |_, report| {
            watch(CellProgress { step: before + report.step, steps });
        })?;
        if let Some(Measured { row, .. }) = measured {
            accuracy.push(row.test_accuracy);
            seconds += per_epoch as f64 / row.steps_per_second;
        }
    }
    Ok(CellResult {
        variant: Variant::Uniform,
        seed: data.config.seed,
        meta_images: 0,
        test_images: data.dataset.test.len(),
        accuracy,
        cosines: Vec::new(),
        other_batch: Vec::new(),
        mean_weight_clean: None,
        mean_weight_corrupted: None,
        ms_per_step: Some(1e3 * seconds / steps as f64),
        error: None,
    })
}

impl Cell {
    fn train(
        mut self,
        data: &Prepared,
        variant: Variant,
        watch: &mut dyn FnMut(CellProgress),
    ) -> Result<CellResult> {
        let (per_epoch, epochs) = (self.learner.steps_per_epoch(), data.config.epochs);
        let steps = per_epoch * epochs as u64;
        let distance = (per_epoch / PROBES_PER_EPOCH).max(1);
        let (mut accuracy, mut cosines, mut other_batch) = (Vec::new(), Vec::new(), Vec::new());
        let mut seconds = 0.0;
        // The last hypergradient that θ moved by.
        let mut latest = Vec::new();
        for epoch in 0..epochs {
            let lr = data.config.lr_at(epoch);
            for step in per_epoch * epoch as u64..per_epoch * (epoch as u64 + 1) {
                let at = At { step, meta_step: step, lr };
                let moves = match variant {
                    Variant::Every(k) => step % k == 0,
                    _ => true,
                };
                // In the middle of each stretch, so that it falls on no step of an alternation in
                // particular.
                let probed = step % distance == distance / 2;
                // Before the step: the same w, θ and batches.
                let exact = match probed || (moves && self.between.is_some()) {
                    true => self.gradient(data, false, at)?,
                    false => Vec::new(),
                };
                if moves && self.between.is_some() {
                    latest.clone_from(&exact);
                } else if probed && self.own.is_some() {
                    latest = self.gradient(data, true, at)?;
                }
                if probed && variant == Variant::Published {
                    // A batch that training does not come to.
                    let other = self.gradient(data, false, At { meta_step: steps + step, ..at })?;
                    other_batch.push(Probe { step, epoch: epoch + 1, cosine: cosine(&other, &exact) });
                    latest.clone_from(&exact);
                }
                let began = Instant::now();
                let (session, main) = (self.learner.session_mut(), &mut self.main);
                let stepper = if moves { main } else { self.between.as_mut().unwrap_or(main) };
                stepper.run(data, session, at)?;
                seconds += began.elapsed().as_secs_f64();
                if probed {
                    if variant == Variant::TwoSteps {
                        latest = hypergrad(self.learner.session(), &self.main)?;
                    }
                    cosines.push(Probe { step, epoch: epoch + 1, cosine: cosine(&latest, &exact) });
                }
                watch(CellProgress { step: step + 1, steps });
            }
            let (loss, confusion) = self.learner.test(data)?;
            if !loss.is_finite() {
                return Err(Error::Numeric(format!(
                    "{variant}, seed {}: the test loss is {loss} after epoch {}; start again with a smaller --lr than {}",
                    data.config.seed,
                    epoch + 1,
                    data.config.lr
                )));
            }
            accuracy.push(scores::accuracy(&confusion));
        }
        let weights = self.learner.picture(data, epochs)?.map(|p| p.weights).unwrap_or_default();
        let mean = |flag| mean_where(&weights, &data.split.train.corrupted, flag);
        Ok(CellResult {
            variant,
            seed: data.config.seed,
            meta_images: data.split.meta.indices.len(),
            test_images: data.dataset.test.len(),
            accuracy,
            cosines,
            other_batch,
            mean_weight_clean: mean(false),
            mean_weight_corrupted: mean(true),
            ms_per_step: Some(1e3 * seconds / steps as f64),
            error: None,
        })
    }

    /// The exact hypergradient or the variant's own, at the present w and θ.
    fn gradient(&mut self, data: &Prepared, own: bool, at: At) -> Result<Vec<f64>> {
        let Cell { learner, exact, own: variants, .. } = self;
        let stepper = if own { variants.as_mut().unwrap_or(exact) } else { exact };
        stepper.run(data, learner.session_mut(), at)?;
        hypergrad(learner.session(), stepper)
    }
}

/// All of `∂L_meta/∂θ`, parameter after parameter.
fn hypergrad(session: &Session, stepper: &Stepper) -> Result<Vec<f64>> {
    let program = stepper.program();
    let mut all = Vec::new();
    for output in program.outputs().filter(|o| o.name.starts_with("hypergrad.")) {
        all.extend(session.fetch(program, &output.name)?);
    }
    Ok(all)
}

fn cosine(a: &[f64], b: &[f64]) -> Option<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    (lengths > 0.0 && lengths.is_finite()).then(|| dot(a, b) / lengths)
}
