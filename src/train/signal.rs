use serde::Serialize;

use super::prepared::Prepared;
use super::stepper::{At, Stepper};
use crate::error::{Error, Result};
use crate::meta::{ClosedForm, Order, ThetaValues};
use crate::program::Session;
use crate::words::exact;

/// One sample of one meta step: a row of the signal's CSV file.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SampleRow {
    /// From 1.
    pub step: u64,
    /// The image's place in the data set's training images.
    pub sample: u32,
    /// The label that training sees.
    pub label: i32,
    /// The right one, as far as it is known.
    pub true_label: i32,
    /// Whether they differ; none where nobody knows.
    pub corrupted: Option<bool>,
    /// `ℓ_i(w)`.
    pub loss: f64,
    /// `V(ℓ_i; θ)`.
    pub weight: f64,
    /// `V′(ℓ_i; θ) = ∂V/∂ℓ`.
    pub slope: f64,
    /// `c_i`: the share of the sample's gradient in the virtual step.
    pub coefficient: f64,
    /// `u_i = ⟨∇L_meta(ŵ), ∇ℓ_i(w)⟩`.
    pub u: f64,
    /// α as it stands in the hypergradient: the learning rate, with the virtual step's gain.
    pub alpha: f64,
    /// `−∂L_meta/∂V_i = α p_i`: what the sample alone asks of its weight.
    pub pull: f64,
    /// `−∂L_meta/∂V′_i = α q_i`: what it asks of V's slope; 0 where the loss that V reads is
    /// detached.
    pub slope_pull: f64,
    /// `V(ℓ_i; θ⁺) − V(ℓ_i; θ)`: how its weight really moves, as V is one function of all losses.
    pub moved: f64,
}

/// One meta step in numbers, as its program computed them.
#[derive(Clone, PartialEq, Debug)]
pub struct StepNumbers {
    /// From 1.
    pub step: u64,
    /// The classifier's learning rate.
    pub lr: f64,
    /// `L_meta(ŵ)`.
    pub meta_loss: f64,
    /// The batch, in its order.
    pub samples: Vec<SampleRow>,
    /// By parameter, θ before the step.
    pub theta: Vec<(String, Vec<f64>)>,
    /// By parameter, `∂L_meta/∂θ`.
    pub hypergrad: Vec<(String, Vec<f64>)>,
    /// The same from the samples' losses and u alone, in loops.
    pub closed_form: ClosedForm,
}

/// Meta steps one by one from fresh networks, in the published order, each with all of its
/// per-sample numbers.
pub struct Walk<'a> {
    data: &'a Prepared,
    session: Session,
    stepper: Stepper,
    done: u64,
}

impl<'a> Walk<'a> {
    /// Before the first step.
    ///
    /// # Errors
    /// As [`Stepper::new`].
    pub fn new(data: &'a Prepared, mut session: Session) -> Result<Walk<'a>> {
        data.begin(&mut session)?;
        let stepper = Stepper::new(data, Order::Published, &data.split.meta, &mut session)?;
        Ok(Walk { data, session, stepper, done: 0 })
    }

    /// The machine, for people.
    pub fn machine(&self) -> String {
        self.session.describe()
    }

    /// Takes the next step. The learning rate stays that of the first epoch.
    ///
    /// # Errors
    /// [`Error::Numeric`] if a number of the step is not finite.
    pub fn step(&mut self) -> Result<StepNumbers> {
        let Walk { data, session, stepper, done } = self;
        let (config, at) = (&data.config, *done);
        let outputs = stepper.program().outputs();
        let names: Vec<String> =
            outputs.filter_map(|o| o.name.strip_prefix("hypergrad.").map(str::to_owned)).collect();
        let theta = names
            .iter()
            .map(|n| Ok((n.clone(), session.read_state(&format!("theta.{n}"))?)))
            .collect::<Result<Vec<_>>>()?;
        stepper.run(data, session, At { step: at, meta_step: at, lr: config.lr })?;
        *done += 1;
        let fetch = |name: &str| session.fetch(stepper.program(), name);
        let (losses, weights, next) = (fetch("loss")?, fetch("weight")?, fetch("weight_next")?);
        let (u, meta_loss) = (fetch("u")?, fetch("meta_loss")?[0]);
        let hypergrad = names
            .iter()
            .map(|n| Ok((n.clone(), fetch(&format!("hypergrad.{n}"))?)))
            .collect::<Result<Vec<_>>>()?;
        let all = losses.iter().chain(&u).chain(&next).chain([&meta_loss]);
        if let Some(bad) = all.copied().find(|v| !v.is_finite()) {
            let (step, lr) = (at + 1, config.lr);
            return Err(Error::Numeric(format!(
                "step {step} has {bad} among its losses or u; try a smaller --lr than {}",
                exact(lr)
            )));
        }
        let values: Vec<Vec<f64>> = theta.iter().map(|t| t.1.clone()).collect();
        let rule = config.step(config.method);
        let closed_form = ThetaValues::new(&values)?.closed_form(&rule, config.lr, &losses, &u);
        let train = &data.split.train;
        let positions = stepper.positions(at);
        let samples = positions.iter().enumerate().map(|(i, position)| {
            let position = *position as usize;
            SampleRow {
                step: at + 1,
                sample: train.indices[position],
                label: train.labels[position],
                true_label: train.original_labels[position],
                corrupted: train.known.then_some(train.corrupted[position]),
                loss: losses[i],
                weight: weights[i],
                slope: closed_form.slopes[i],
                coefficient: closed_form.coefficients[i],
                u: u[i],
                alpha: config.lr * rule.reach(),
                pull: closed_form.pull[i],
                slope_pull: closed_form.slope_pull[i],
                moved: next[i] - weights[i],
            }
        });
        let samples = samples.collect();
        Ok(StepNumbers { step: at + 1, lr: config.lr, meta_loss, samples, theta, hypergrad, closed_form })
    }
}
