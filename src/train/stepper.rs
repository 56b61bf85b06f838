use super::prepared::Prepared;
use super::step::{Fed, Given};
use crate::data::{Batch, Batcher, Labelled};
use crate::error::Result;
use crate::meta::{MetaStep, Optimiser, Order, PlainStep};
use crate::nn::GROUPS;
use crate::program::{Options, Plan, Program, Session};
use crate::tape::Tape;

/// One order of the meta step as a program of a session, and the batches that it is fed.
pub struct Stepper {
    fed: Fed,
    train: Batcher,
    meta: Batcher,
    /// What does not change from step to step.
    own: Vec<(&'static str, Vec<f64>)>,
    /// The run's.
    seed: u64,
}

/// Where in a run a step is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct At {
    /// From 0; decides the training batch.
    pub step: u64,
    /// Decides the meta batch; in training the same.
    pub meta_step: u64,
    /// The classifier's learning rate.
    pub lr: f64,
}

impl Stepper {
    /// The step with all of its outputs.
    ///
    /// # Errors
    /// As [`Stepper::for_training`].
    pub fn new(data: &Prepared, order: Order, meta: &Labelled, session: &mut Session) -> Result<Stepper> {
        Stepper::load(data, Plan::new(&Stepper::tape(data, order)?, Options::default())?, meta, session)
    }

    /// The step with the outputs that training reads. States are the session's, by name. Meta
    /// batches are drawn from `meta`, training batches from the run's training set.
    ///
    /// # Errors
    /// If the batch is larger than the training set, or the device has no room.
    pub fn for_training(
        data: &Prepared,
        order: Order,
        meta: &Labelled,
        session: &mut Session,
    ) -> Result<Stepper> {
        let tape =
            if order == Order::Published { Stepper::lean_tape(data) } else { Stepper::tape(data, order) };
        Stepper::load(data, Plan::new(&tape?, Options::default())?, meta, session)
    }

    /// A step that is planned already.
    ///
    /// # Errors
    /// As [`Stepper::for_training`].
    pub fn load(data: &Prepared, plan: Plan, meta: &Labelled, session: &mut Session) -> Result<Stepper> {
        let config = &data.config;
        let (train, meta) = (data.batcher(false)?, data.meta_batcher(meta)?);
        let fed = Fed::new(plan, &data.dataset, session)?;
        let own = vec![
            ("lr.theta", vec![config.weight_net_rule(config.method).1]),
            (GROUPS, data.weight_net(config.method).groups_input()),
        ];
        Ok(Stepper { fed, train, meta, own, seed: config.seed })
    }

    /// The step as recorded, with all of its outputs.
    ///
    /// # Errors
    /// As [`MetaStep::record`].
    pub fn tape(data: &Prepared, order: Order) -> Result<Tape> {
        Stepper::record(data, |step, tape| step.record_in(tape, order))
    }

    /// The published step with the outputs that training reads, as a [`super::Learner`] runs it.
    ///
    /// # Errors
    /// As [`MetaStep::record`].
    pub fn lean_tape(data: &Prepared) -> Result<Tape> {
        Stepper::record(data, |step, tape| step.record(tape, false))
    }

    /// A plain step of the same classifier on the same batches: what a meta step is compared with.
    ///
    /// # Errors
    /// As [`PlainStep::record`].
    pub fn plain_tape(data: &Prepared) -> Result<Tape> {
        let (config, net) = (&data.config, data.net());
        let (optimiser, batch) = (Optimiser::Sgd(config.classifier()), data.batch(true));
        let mut tape = Tape::new();
        PlainStep { net, optimiser, data: &batch, batch: config.batch }.record(&mut tape)?;
        Ok(tape)
    }

    fn record(data: &Prepared, how: impl Fn(&MetaStep, &mut Tape) -> Result<()>) -> Result<Tape> {
        let (config, net) = (&data.config, data.net());
        let (weight_net, step, batch) =
            (data.weight_net(config.method), config.step(config.method), data.batch(true));
        let mut tape = Tape::new();
        let sizes = [config.batch; 2];
        how(
            &MetaStep { net, weight_net: &weight_net, config: &step, data: &batch, batch: sizes },
            &mut tape,
        )?;
        Ok(tape)
    }

    /// The compiled step, for its outputs.
    pub fn program(&self) -> &Program {
        &self.fed.program
    }

    /// All of `∂L_meta/∂θ` as the last step computed it, parameter after parameter; empty if the
    /// program does not keep it.
    ///
    /// # Errors
    /// Those of the machine.
    pub fn hypergrad(&self, session: &Session) -> Result<Vec<f64>> {
        hypergrad(session, self.program())
    }

    /// The training batch of `step`; the meta batch; those of further virtual steps.
    pub fn batches(&mut self, at: At) -> [&Batch; 2] {
        [self.train.batch(at.step), self.meta.batch(at.meta_step)]
    }

    /// Places in the training set of the batch of `step`.
    pub fn positions(&mut self, step: u64) -> &[u32] {
        &self.train.batch(step).positions
    }

    /// Takes a step.
    ///
    /// # Errors
    /// Those of the machine.
    pub fn run(&mut self, data: &Prepared, session: &mut Session, at: At) -> Result<()> {
        let Stepper { fed, train, meta, own, seed } = self;
        let further = 1..=fed.ahead() as u64;
        let ahead: Vec<_> = further.map(|further| train.batch(at.step + further).clone()).collect();
        let (batch, meta) = (train.batch(at.step), meta.batch(at.meta_step));
        let at = (at.lr, [*seed, at.step]);
        let data = &data.dataset;
        fed.run(session, &Given { data, batch, ahead: &ahead, meta, lr: at.0, at: at.1, scheme: own })
    }
}

/// [`Stepper::hypergrad`] of any program.
pub(super) fn hypergrad(session: &Session, program: &Program) -> Result<Vec<f64>> {
    let outputs = program.outputs().filter(|o| o.name.starts_with("hypergrad."));
    let parts = outputs.map(|o| session.fetch(program, &o.name));
    Ok(parts.collect::<Result<Vec<_>>>()?.concat())
}
