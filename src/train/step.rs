//! A method's step program, and how its inputs get their values.

use super::prepared::Prepared;
use crate::data::Batch as Samples;
use crate::error::{Error, Result};
use crate::meta::Optimiser;
use crate::meta::schemes::{Scheme, TrainStep};
use crate::nn::{feed_dropout, is_noise};
use crate::program::{InputId, Options, OutputId, Plan, Program, Session, Values};
use crate::tape::Tape;

/// What an input is given.
#[derive(PartialEq)]
enum Feed {
    Picks,
    /// Where samples are features, these themselves.
    Features,
    MetaFeatures,
    AheadFeatures(usize),
    Labels,
    /// Of the batch for the virtual step of this number, from 2.
    AheadPicks(usize),
    AheadLabels(usize),
    MetaPicks,
    MetaLabels,
    Lr,
    /// The scheme's own, by its name.
    Scheme(String),
}

/// Everything that a step's inputs may be given.
pub(super) struct Given<'a> {
    pub data: &'a Prepared,
    pub batch: &'a Samples,
    /// Those of further virtual steps.
    pub ahead: &'a [Samples],
    pub meta: &'a Samples,
    pub lr: f64,
    /// Seed and step, which decide what dropout drops.
    pub at: [u64; 2],
    /// Name and values.
    pub scheme: &'a [(&'static str, Vec<f64>)],
}

/// A program with what its inputs are given: the one place where a step of training is fed.
pub(super) struct Fed {
    pub program: Program,
    inputs: Vec<(InputId, Feed)>,
    /// Per input, the floats that it has; empty before the first step, and of integers.
    floats: Vec<Vec<f64>>,
}

impl Fed {
    /// A program of steps on a run's samples.
    pub fn new(plan: Plan, data: &Prepared, session: &mut Session) -> Result<Fed> {
        let program = data.load(plan, session)?;
        let mut inputs = Vec::new();
        for input in program.inputs().iter().filter(|input| !is_noise(&input.name)) {
            let feed = match input.name.as_str() {
                "picks" => Feed::Picks,
                "x" => Feed::Features,
                "x_meta" => Feed::MetaFeatures,
                "y" => Feed::Labels,
                "picks_meta" => Feed::MetaPicks,
                "y_meta" => Feed::MetaLabels,
                "lr" => Feed::Lr,
                name => match name.split_once('_').map(|(what, step)| (what, step.parse())) {
                    Some(("picks", Ok(step))) => Feed::AheadPicks(step),
                    Some(("x", Ok(step))) => Feed::AheadFeatures(step),
                    Some(("y", Ok(step))) => Feed::AheadLabels(step),
                    _ => Feed::Scheme(name.to_owned()),
                },
            };
            inputs.push((program.input(&input.name)?, feed));
        }
        Ok(Fed { floats: vec![Vec::new(); inputs.len()], inputs, program })
    }

    /// Batches that further virtual steps want.
    pub fn ahead(&self) -> usize {
        let step = |input: &(InputId, Feed)| match input.1 {
            Feed::AheadLabels(step) => step - 1,
            _ => 0,
        };
        self.inputs.iter().map(step).max().unwrap_or(0)
    }

    /// Whether the meta set takes part.
    pub fn reads_meta(&self) -> bool {
        self.inputs.iter().any(|i| i.1 == Feed::MetaLabels)
    }

    /// Gives the inputs their values and runs the step. Floats that have not changed since the last
    /// one stay where they are: most steps send a device nothing but indices and labels.
    pub fn run(&mut self, session: &mut Session, given: &Given) -> Result<()> {
        for ((id, feed), had) in self.inputs.iter().zip(&mut self.floats) {
            let samples = match feed {
                Feed::Features => Some(given.batch),
                Feed::MetaFeatures => Some(given.meta),
                Feed::AheadFeatures(step) => Some(&given.ahead[step - 2]),
                _ => None,
            };
            if let Some(samples) = samples {
                let features = given.data.features(&samples.picks);
                session.write_input(&self.program, *id, Values::Float(&features))?;
                continue;
            }
            let values = match feed {
                Feed::Picks => Values::Int(bytemuck::cast_slice(&given.batch.picks)),
                Feed::Labels => Values::Int(&given.batch.labels),
                Feed::MetaPicks => Values::Int(bytemuck::cast_slice(&given.meta.picks)),
                Feed::MetaLabels => Values::Int(&given.meta.labels),
                Feed::AheadPicks(step) => Values::Int(bytemuck::cast_slice(&given.ahead[step - 2].picks)),
                Feed::AheadLabels(step) => Values::Int(&given.ahead[step - 2].labels),
                Feed::Lr => Values::Float(std::slice::from_ref(&given.lr)),
                Feed::Features | Feed::MetaFeatures | Feed::AheadFeatures(_) => continue,
                Feed::Scheme(name) => {
                    let own = given.scheme.iter().find(|input| input.0 == name);
                    let nobody = || Error::Program(format!("the scheme gives its input `{name}` no value"));
                    Values::Float(&own.ok_or_else(nobody)?.1)
                }
            };
            if let Values::Float(new) = values {
                if !new.is_empty() && had == new {
                    continue;
                }
                had.clear();
                had.extend_from_slice(new);
            }
            session.write_input(&self.program, *id, values)?;
        }
        let [seed, step] = given.at;
        feed_dropout(session, &self.program, seed, step)?;
        session.run(&self.program)
    }
}

/// A scheme's compiled step.
pub(super) struct StepProgram {
    pub fed: Fed,
    pub loss: OutputId,
    pub correct: OutputId,
    pub meta_loss: Option<OutputId>,
    pub weight: Option<OutputId>,
}

impl StepProgram {
    /// The step of a scheme's stage (from 0) on a session.
    pub fn new(
        scheme: &dyn Scheme,
        stage: usize,
        data: &Prepared,
        session: &mut Session,
    ) -> Result<StepProgram> {
        let (config, net) = (&data.config, data.net());
        let (images, optimiser) = (data.batch(true), Optimiser::Sgd(config.classifier()));
        let mut tape = Tape::new();
        let step = TrainStep { net, optimiser, data: &images, batch: [config.batch; 2], stage };
        scheme.record(&mut tape, &step)?;
        let fed = Fed::new(Plan::new(&tape, Options::default())?, data, session)?;
        let program = &fed.program;
        Ok(StepProgram {
            loss: program.output("loss")?,
            correct: program.output("correct")?,
            meta_loss: program.output("meta_loss").ok(),
            weight: program.output("weight").ok(),
            fed,
        })
    }
}
