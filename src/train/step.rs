//! A method's step program, and how its inputs get their values.

use super::method::{Method, co_teaching};
use super::prepared::Prepared;
use crate::data::Batch as Samples;
use crate::error::{Error, Result};
use crate::meta::schemes::{CoTeachingStep, GlcStep, L2rwStep, Scheme, WeightedStep};
use crate::meta::{MetaStep, Optimiser, PlainStep};
use crate::program::{InputId, Options, OutputId, Program, Session, Values};
use crate::tape::Tape;

/// What an input is given.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Feed {
    Picks,
    Labels,
    MetaPicks,
    MetaLabels,
    Lr,
    LrTheta,
    /// Adam's bias correction of the first (0) or the second (1) moment.
    Correction(usize),
    Transition,
    /// The scheme's own, by its name.
    Scheme,
}

/// Everything that a step's inputs may be given.
pub(super) struct Given<'a> {
    pub batch: &'a Samples,
    pub meta: &'a Samples,
    pub lr: f64,
    pub lr_theta: f64,
    pub corrections: [f64; 2],
    pub transition: &'a [f64],
    /// Name and values.
    pub scheme: &'a [(&'static str, Vec<f64>)],
}

/// A compiled step.
pub(super) struct StepProgram {
    pub program: Program,
    inputs: Vec<(InputId, Feed)>,
    pub loss: OutputId,
    pub correct: OutputId,
    pub meta_loss: Option<OutputId>,
    pub weight: Option<OutputId>,
}

impl StepProgram {
    /// The step of a method's stage (from 0) on a session.
    pub fn new(
        method: Method,
        stage: usize,
        data: &Prepared,
        scheme: Option<&dyn Scheme>,
        session: &mut Session,
    ) -> Result<StepProgram> {
        let program = session.compile(&record(method, stage, data, scheme)?, Options::default())?;
        let mut inputs = Vec::new();
        for input in program.inputs() {
            let feed = match input.name.as_str() {
                "picks" => Feed::Picks,
                "y" => Feed::Labels,
                "picks_meta" => Feed::MetaPicks,
                "y_meta" => Feed::MetaLabels,
                "lr" => Feed::Lr,
                "lr.theta" => Feed::LrTheta,
                "adam.correction1" => Feed::Correction(0),
                "adam.correction2" => Feed::Correction(1),
                "glc.transition" => Feed::Transition,
                name if name.starts_with("scheme.") => Feed::Scheme,
                name => return Err(Error::Program(format!("nobody gives the input `{name}` of {method}"))),
            };
            inputs.push((program.input(&input.name)?, feed));
        }
        Ok(StepProgram {
            loss: program.output("loss")?,
            correct: program.output("correct")?,
            meta_loss: program.output("meta_loss").ok(),
            weight: program.output("weight").ok(),
            inputs,
            program,
        })
    }

    /// Whether the meta set takes part.
    pub fn reads_meta(&self) -> bool {
        self.inputs.iter().any(|i| i.1 == Feed::MetaPicks)
    }

    /// Gives the inputs their values and runs the step.
    pub fn run(&self, session: &mut Session, given: &Given) -> Result<()> {
        for (id, feed) in &self.inputs {
            let values = match feed {
                Feed::Picks => Values::Int(bytemuck::cast_slice(&given.batch.picks)),
                Feed::Labels => Values::Int(&given.batch.labels),
                Feed::MetaPicks => Values::Int(bytemuck::cast_slice(&given.meta.picks)),
                Feed::MetaLabels => Values::Int(&given.meta.labels),
                Feed::Lr => Values::Float(std::slice::from_ref(&given.lr)),
                Feed::LrTheta => Values::Float(std::slice::from_ref(&given.lr_theta)),
                Feed::Correction(moment) => Values::Float(&given.corrections[*moment..=*moment]),
                Feed::Transition => Values::Float(given.transition),
                Feed::Scheme => continue,
            };
            session.write_input(&self.program, *id, values)?;
        }
        for (name, values) in given.scheme {
            session.feed(&self.program, name, Values::Float(values))?;
        }
        session.run(&self.program)
    }
}

fn record(method: Method, stage: usize, prepared: &Prepared, scheme: Option<&dyn Scheme>) -> Result<Tape> {
    let Prepared { config, net, split, .. } = prepared;
    let images = prepared.batch(true);
    let (data, n) = (&images, config.batch);
    let (batch, optimiser) = ([n; 2], Optimiser::Sgd(config.classifier()));
    let mut tape = Tape::new();
    match (method, scheme) {
        (Method::MwNet | Method::MwNetLongTail, _) => {
            let (weight_net, options) = (config.weight_net(method), config.step(method));
            MetaStep { net, weight_net: &weight_net, config: &options, data, batch }
                .record(&mut tape, false)?;
        }
        (Method::L2rw, _) => L2rwStep { net, optimiser, data, batch }.record(&mut tape)?,
        (Method::Glc, _) if stage > 0 => {
            let sizes = [split.train.indices.len(), split.meta.indices.len()];
            GlcStep { net, optimiser, data, batch, sizes }.record(&mut tape)?;
        }
        (Method::CoTeaching, _) => {
            let choice = co_teaching(config, net.classes);
            CoTeachingStep { net, optimiser, data, batch: n, choice: &choice }.record(&mut tape)?;
        }
        (_, Some(scheme)) => WeightedStep { net, optimiser, data, batch: n, scheme }.record(&mut tape)?,
        (_, None) => PlainStep { net, optimiser, data, batch: n }.record(&mut tape)?,
    }
    Ok(tape)
}
