//! The three steps on a tape.

use super::config::{Route, StepConfig, VirtualStep, Weights};
use super::normalise::inverse_sum;
use super::optimiser::{buffer, update};
use super::route;
use crate::bilevel::Optimiser;
use crate::error::Result;
use crate::nn::{Forward, Model, Normalisation, Params, WeightNet};
use crate::tape::{GatherSpec, Kind, SampleSignals, Shape, Tape, Var};

/// Where a step's batches come from.
#[derive(Clone, PartialEq, Debug)]
pub enum Batch {
    /// The inputs `x` `[n, …]` and `x_meta`, of samples with these extents: `[h,w,c]` or `[d]`.
    Given(Shape),
    /// Picks `[n,4]` (index, dx, dy, flip) from the state `pixels` `[count,h,w,c]` of bytes: the
    /// inputs `picks`, `picks_meta`.
    Picked {
        /// Images in the state `pixels`.
        count: usize,
        /// Height, width and channels of an image.
        image: [usize; 3],
        /// Normalisation and augmentation.
        spec: GatherSpec,
    },
}

impl Batch {
    /// The samples of the batch whose inputs' names end in `suffix`: images `[n,h,w,c]`, features
    /// `[n,d]`.
    ///
    /// # Errors
    /// The tape's own, for an input that has another shape already.
    pub fn samples(&self, tape: &mut Tape, n: usize, suffix: &str) -> Result<Var> {
        match self {
            Batch::Given(sample) => tape.input(&format!("x{suffix}"), Kind::Float, sample.with(0, &[n])),
            Batch::Picked { count, image: [h, w, c], spec } => {
                let pixels = tape.state("pixels", Kind::Byte, [*count, *h, *w, *c])?;
                let picks = tape.input(&format!("picks{suffix}"), Kind::Int, [n, 4])?;
                tape.gather(pixels, picks, spec.clone())
            }
        }
    }
}

/// A meta step: losses, virtual step, hypergradient, weight-net step, real step.
///
/// Inputs: `x`/`picks`, `y` `[n]`, with more virtual steps `x_2`/`picks_2`, `y_2` and so on,
/// `x_meta`/`picks_meta`, `y_meta` `[m]`, the classifier's and the weight net's learning rates `lr`
/// and `lr.theta`; of a network with dropout, each pass's noise ([`crate::nn::feed_dropout`]).
/// States: `w.*`, `theta.*`, the moments `momentum.*`, `theta.moment*.*`, running statistics
/// `stats.*`.
pub struct MetaStep<'a> {
    /// The classifier.
    pub net: &'a dyn Model,
    /// The weight net.
    pub weight_net: &'a WeightNet,
    /// All options.
    pub config: &'a StepConfig,
    /// Where batches come from.
    pub data: &'a Batch,
    /// Training and meta batch sizes.
    pub batch: [usize; 2],
}

/// How a meta step begins.
pub(super) struct Start {
    /// The classifier's learning rate.
    pub lr: Var,
    /// Its parameters.
    pub w: Params,
    /// The weight net's.
    pub theta: Params,
    /// Images and labels.
    pub batch: (Var, Var),
    /// For a class-aware weight net, [`WeightNet::groups`] of the labels.
    pub groups: Option<Var>,
    /// `ℓ(w)` `[n]`.
    pub losses: Var,
    /// 1 per sample whose largest logit is its label's `[n]`.
    pub correct: Var,
    /// The losses' backward signals, if the route takes them and samples do not couple.
    pub signals: Option<SampleSignals>,
}

impl Start {
    /// `Σ_i c_i ∇ℓ_i(w)`.
    pub fn gradient(&self, tape: &mut Tape, c: Var) -> Result<Vec<Var>> {
        let w = self.w.vars();
        if let Some(signals) = &self.signals {
            return signals.gradient(tape, c);
        }
        tape.cotangents(&[(self.losses, c)], &w)
    }
}

/// The batch weighed at θ.
pub(super) struct Weighed {
    /// `ℓ(w)` as numbers that φ is differentiated in.
    pub losses: Var,
    /// `V(ℓ; θ)` `[n]`.
    pub weights: Var,
    /// `c = ∇_ℓ φ(ℓ, θ)` `[n]`.
    pub coefficients: Var,
}

/// Values of a meta step that its routes and callers want.
pub(super) struct Recorded {
    /// The classifier's parameters.
    pub w: Params,
    /// The weight net's.
    pub theta: Params,
    /// Per-sample losses `ℓ(w)` `[n]`.
    pub losses: Var,
    /// `c = ∇_ℓ φ(ℓ, θ)` `[n]`: coefficients of the per-sample gradients in the virtual step.
    pub coefficients: Var,
    /// ŵ.
    pub virtual_w: Params,
    /// `−α·gain`: what a change of the virtual gradient is multiplied by in ŵ.
    pub reach: Var,
    /// Per-sample meta losses at ŵ `[m]`, and their mean.
    pub meta_losses: Var,
    /// `(1/m) Σ ℓ^meta(ŵ)`.
    pub meta_loss: Var,
    /// `∇L_meta(ŵ)`.
    pub meta_grad: Vec<Var>,
    /// What the finite-difference route needs to run the network again.
    pub batch: (Var, Var),
    /// [`Start::signals`].
    pub signals: Option<SampleSignals>,
}

impl MetaStep<'_> {
    /// Records the step. Outputs: `loss` `[n]`, `weight` `[n]` (V at the losses), `weight_next`
    /// (after θ's step), `correct` `[n]`, `meta_loss`; with `everything`, also `u` `[n]`,
    /// `virtual.*`, `meta_grad.*`, `hypergrad.*`, `w_next.*`, `theta_next.*`.
    ///
    /// # Errors
    /// None for networks and options of this crate; the tape's own errors are passed on.
    pub fn record(&self, tape: &mut Tape, everything: bool) -> Result<()> {
        self.config.check()?;
        let lr_theta = tape.input("lr.theta", Kind::Float, [])?;
        let mut start = self.start(tape, true)?;

        tape.section("virtual step");
        let weighed = self.weigh(tape, &mut start, self.config.undetached)?;
        let gradient = start.gradient(tape, weighed.coefficients)?;
        let (mut virtual_w, reach) = self.virtual_step(tape, &start.w, &gradient, start.lr)?;
        for step in 2..=self.config.unroll {
            virtual_w = self.further(tape, &mut start, virtual_w, step)?;
        }

        let recorded = self.meta_gradient(tape, &start, &weighed, virtual_w, reach)?;
        let (hypergrad, u) = route::hypergradient(tape, self.net, self.config, &recorded, everything)?;

        tape.section("weight-net step");
        let mut theta_next =
            update(tape, &self.config.weight_net, &start.theta, &hypergrad, lr_theta, "theta.moment")?;

        tape.section("real step");
        let [weights_next, counted] = self.weights(tape, &mut theta_next, weighed.losses, start.groups)?;
        let counted = tape.detach(counted)?;
        let phi = self.objective(tape, counted, weighed.losses)?;
        let coefficients = tape.gradient(phi, &[weighed.losses])?[0];
        let rule = Optimiser::Sgd(self.config.classifier);
        let gradient = start.gradient(tape, coefficients)?;
        let w_next = update(tape, &rule, &start.w, &gradient, start.lr, "momentum")?;

        tape.output("loss", start.losses)?;
        tape.output("weight", weighed.weights)?;
        tape.output("weight_next", weights_next)?;
        tape.output("correct", start.correct)?;
        tape.output("meta_loss", recorded.meta_loss)?;
        if everything {
            recorded.virtual_w.output(tape, "virtual")?;
            recorded.virtual_w.with(recorded.meta_grad.clone()).output(tape, "meta_grad")?;
            start.theta.with(hypergrad).output(tape, "hypergrad")?;
            theta_next.output(tape, "theta_next")?;
            w_next.output(tape, "w_next")?;
            if let Some(u) = u {
                tape.output("u", u)?;
            }
        }
        Ok(())
    }

    /// The losses at w; `train`: the running statistics move.
    pub(super) fn start(&self, tape: &mut Tape, train: bool) -> Result<Start> {
        let n = self.batch[0];
        let lr = tape.input("lr", Kind::Float, [])?;
        let (mut w, theta) = (Params::classifier(), Params::weight_net());
        tape.section("losses at w");
        let Pass { x, y, losses, correct, .. } =
            Pass::record(tape, self.net, self.data, n, &mut w, train.then_some("stats"), "")?;
        let groups = self.weight_net.groups(tape, y)?;
        let layerwise = self.config.route == Route::Layerwise && self.config.unroll == 1;
        let signals = if layerwise {
            tape.section("backward signals of the losses");
            tape.sample_signals(losses, &w.vars())?
        } else {
            None
        };
        Ok(Start { lr, w, theta, batch: (x, y), groups, losses, correct, signals })
    }

    /// V at the losses, and the coefficients that φ gives to the samples' gradients.
    pub(super) fn weigh(&self, tape: &mut Tape, start: &mut Start, undetached: bool) -> Result<Weighed> {
        let losses = tape.detach(start.losses)?;
        // A second value, so that φ is not differentiated in the loss that V reads.
        let read = if undetached { losses } else { tape.detach(start.losses)? };
        self.weighed(tape, &mut start.theta, losses, read, start.groups)
    }

    /// V at `read`, and ∇φ by `losses`.
    fn weighed(
        &self,
        tape: &mut Tape,
        theta: &mut Params,
        losses: Var,
        read: Var,
        groups: Option<Var>,
    ) -> Result<Weighed> {
        let [weights, counted] = self.weights(tape, theta, read, groups)?;
        let phi = self.objective(tape, counted, losses)?;
        let coefficients = tape.gradient(phi, &[losses])?[0];
        Ok(Weighed { losses, weights, coefficients })
    }

    /// One more virtual step, the `step`-th, on a batch of its own.
    pub(super) fn further(
        &self,
        tape: &mut Tape,
        start: &mut Start,
        mut w: Params,
        step: usize,
    ) -> Result<Params> {
        tape.section(&format!("virtual step {step}"));
        let n = self.batch[0];
        let name = format!("_{step}");
        let x = self.data.samples(tape, n, &name)?;
        let y = tape.input(&format!("y{name}"), Kind::Int, [n])?;
        let mut forward = Forward::new(tape, &mut w, Normalisation::Batch).named(&name);
        let logits = self.net.logits(&mut forward, x)?;
        let losses = tape.cross_entropy(logits, y)?;
        let groups = self.weight_net.groups(tape, y)?;
        // These losses depend on θ through the steps before, so what V reads stays connected to
        // them. φ is differentiated in a value of its own.
        let own = tape.variable(losses)?;
        let read = if self.config.undetached { own } else { losses };
        let weighed = self.weighed(tape, &mut start.theta, own, read, groups)?;
        let gradient = tape.cotangents(&[(losses, weighed.coefficients)], &w.vars())?;
        Ok(self.virtual_step(tape, &w, &gradient, start.lr)?.0)
    }

    /// The meta loss at the classifier that the step with these coefficients leads to, and its
    /// gradient there.
    pub(super) fn meta_gradient(
        &self,
        tape: &mut Tape,
        start: &Start,
        weighed: &Weighed,
        mut virtual_w: Params,
        reach: Var,
    ) -> Result<Recorded> {
        tape.section("meta loss and its gradient at ŵ");
        let meta_losses = meta_losses(tape, self.net, self.data, self.batch[1], &mut virtual_w)?;
        let meta_loss = tape.mean_all(meta_losses)?;
        let meta_grad = tape.gradient(meta_loss, &virtual_w.vars())?;
        Ok(Recorded {
            w: start.w.clone(),
            theta: start.theta.clone(),
            losses: start.losses,
            coefficients: weighed.coefficients,
            virtual_w,
            reach,
            meta_losses,
            meta_loss,
            meta_grad,
            batch: start.batch,
            signals: start.signals.clone(),
        })
    }

    /// V at these losses, and what φ takes of it: of normalised weights the ratio alone counts.
    fn weights(
        &self,
        tape: &mut Tape,
        theta: &mut Params,
        losses: Var,
        groups: Option<Var>,
    ) -> Result<[Var; 2]> {
        let v = self.weight_net.weights(tape, theta, losses, groups)?;
        let ratio = self.config.weights == Weights::Normalised && groups.is_none();
        Ok([v, if ratio { self.weight_net.relative(tape, theta, losses)? } else { v }])
    }

    /// φ: the weighted loss, of which `∇_ℓ` gives the coefficients.
    fn objective(&self, tape: &mut Tape, weights: Var, losses: Var) -> Result<Var> {
        let product = tape.mul(weights, losses)?;
        match self.config.weights {
            Weights::Mean => tape.mean_all(product),
            Weights::Normalised => {
                let (sum, inverse) = (tape.sum_all(product)?, inverse_sum(tape, weights)?);
                tape.mul(sum, inverse)
            }
        }
    }

    /// ŵ, and the factor from a change of the virtual gradient to one of ŵ.
    pub(super) fn virtual_step(
        &self,
        tape: &mut Tape,
        w: &Params,
        gradient: &[Var],
        lr: Var,
    ) -> Result<(Params, Var)> {
        let rule = self.config.classifier;
        let plain = self.config.virtual_step == VirtualStep::Plain;
        let mut next = Vec::with_capacity(gradient.len());
        for ((name, w), g) in w.iter().zip(gradient.iter().copied()) {
            let direction = if plain {
                g
            } else {
                let buffer = buffer(tape, &rule, "momentum", name, w)?;
                rule.direction(tape, w, g, buffer)?.0
            };
            let step = tape.scale_by(direction, lr)?;
            next.push(tape.sub(w, step)?);
        }
        Ok((w.with(next), tape.scale(lr, -self.config.reach())?))
    }
}

/// A classifier's forward pass over a training batch.
pub(super) struct Pass {
    /// Images `[n,h,w,c]` or features `[n,d]`.
    pub x: Var,
    /// Labels `[n]`, the input `y`.
    pub y: Var,
    /// `[n, classes]`.
    pub logits: Var,
    /// Per-sample losses `[n]`.
    pub losses: Var,
    /// Hits `[n]`.
    pub correct: Var,
}

impl Pass {
    /// Records the pass at the parameters `w`, by the name that its dropout layers have noise by;
    /// the running statistics `<stats>.*` move, if given.
    pub fn record(
        tape: &mut Tape,
        net: &dyn Model,
        data: &Batch,
        n: usize,
        w: &mut Params,
        stats: Option<&str>,
        name: &str,
    ) -> Result<Pass> {
        let x = data.samples(tape, n, "")?;
        let y = tape.input("y", Kind::Int, [n])?;
        let mut forward = Forward::new(tape, w, Normalisation::Batch).named(name);
        let logits = net.logits(&mut forward, x)?;
        let losses = forward.tape.cross_entropy(logits, y)?;
        if let Some(stats) = stats {
            forward.update_running(stats)?;
        }
        let correct = tape.correct(logits, y)?;
        Ok(Pass { x, y, logits, losses, correct })
    }
}

/// Per-sample losses `[m]` of the meta batch at some parameters. Running statistics stay as they
/// are: a virtual model's are thrown away.
pub(super) fn meta_losses(
    tape: &mut Tape,
    net: &dyn Model,
    data: &Batch,
    m: usize,
    w: &mut Params,
) -> Result<Var> {
    let x = data.samples(tape, m, "_meta")?;
    let y = tape.input("y_meta", Kind::Int, [m])?;
    let mut forward = Forward::new(tape, w, Normalisation::Batch).named("_meta");
    let logits = net.logits(&mut forward, x)?;
    tape.cross_entropy(logits, y)
}

/// `w⁺` from the gradient of per-sample losses with their coefficients, `Σ ⟨c, ℓ⟩` over all pairs;
/// `momentum` names the momentum buffers.
pub(super) fn real_step(
    tape: &mut Tape,
    w: &Params,
    weighted: &[(Var, Var)],
    rule: &Optimiser,
    lr: Var,
    momentum: &str,
) -> Result<Params> {
    let gradients = tape.cotangents(weighted, &w.vars())?;
    update(tape, rule, w, &gradients, lr, momentum)
}
