//! A method's step program, and how its inputs get their values.

use super::prepared::Prepared;
use crate::data::{Batch as Picks, Dataset, Samples};
use crate::error::{Error, Result};
use crate::meta::schemes::{PREDICTIONS, Scheme, TrainStep};
use crate::meta::{Batch, Optimiser};
use crate::nn::{feed_dropout, is_noise};
use crate::program::{InputId, Options, OutputId, Plan, Program, Session, Values};
use crate::tape::{GatherSpec, Scalar, Tape};

/// Images on the device, and their normalisation, `augmented` with the border that crops are taken
/// from; features are given to each step.
pub(super) fn source(data: &Dataset, augmented: bool) -> Batch {
    let scalars = |v: &[f64]| v.iter().copied().map(Scalar).collect();
    let pad = data.augment.filter(|_| augmented).map_or(0, |a| a.pad);
    let spec = GatherSpec { mean: scalars(&data.mean), std: scalars(&data.std), pad };
    match data.shape[..] {
        [h, w, c] => Batch::Picked { count: data.count(), image: [h, w, c], spec },
        _ => Batch::Given(data.shape.clone()),
    }
}

/// Features `[n, d]` of a batch, normalised.
fn features(data: &Dataset, picks: &[[i32; 4]], into: &mut Vec<f64>) {
    let Dataset { samples, mean, std, .. } = data;
    into.clear();
    if let (Samples::Floats(all), d) = (samples, data.sample_len()) {
        let rows = picks.iter().flat_map(|pick| &all[pick[0] as usize * d..][..d]);
        let moments = mean.iter().zip(std).cycle();
        into.extend(rows.zip(moments).map(|(v, (mean, std))| (f64::from(*v) - mean) / std));
    }
}

fn has_pixels(session: &Session) -> bool {
    session.states().iter().any(|s| s.name == "pixels")
}

/// Gives the session's programs the data set's images, if they read any.
pub(super) fn upload(session: &mut Session, data: &Dataset) -> Result<()> {
    match &data.samples {
        Samples::Bytes(pixels) if has_pixels(session) => {
            session.write_state("pixels", Values::Shared(pixels))
        }
        _ => Ok(()),
    }
}

/// Whose samples.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    Batch,
    /// Of the batch for the virtual step of this number, from 2.
    Ahead(usize),
    Meta,
}

/// What an input is given.
#[derive(PartialEq)]
enum Feed {
    /// Which images.
    Picks(Of),
    /// Where samples are features, these themselves.
    Features(Of),
    Labels(Of),
    Lr,
    /// The scheme's own, by its name.
    Scheme(String),
}

impl Feed {
    /// What the input of this name is given.
    fn named(name: &str) -> Feed {
        let (what, of) = name.split_once('_').unwrap_or((name, ""));
        let of = match of {
            "" => Some(Of::Batch),
            "meta" => Some(Of::Meta),
            step => step.parse().ok().map(Of::Ahead),
        };
        match (what, of) {
            ("picks", Some(of)) => Feed::Picks(of),
            ("x", Some(of)) => Feed::Features(of),
            ("y", Some(of)) => Feed::Labels(of),
            ("lr", Some(Of::Batch)) => Feed::Lr,
            _ => Feed::Scheme(name.to_owned()),
        }
    }
}

/// Everything that a step's inputs may be given.
pub(super) struct Given<'a> {
    pub data: &'a Dataset,
    pub batch: &'a Picks,
    /// Those of further virtual steps.
    pub ahead: &'a [Picks],
    pub meta: &'a Picks,
    pub lr: f64,
    /// Seed and step, which decide what dropout drops.
    pub at: [u64; 2],
    /// Name and values.
    pub scheme: &'a [(&'static str, Vec<f64>)],
}

impl Given<'_> {
    fn of(&self, of: Of) -> &Picks {
        match of {
            Of::Batch => self.batch,
            Of::Ahead(step) => &self.ahead[step - 2],
            Of::Meta => self.meta,
        }
    }
}

/// A program with what its inputs are given: the one place where a step of training is fed.
pub(super) struct Fed {
    pub program: Program,
    inputs: Vec<(InputId, Feed)>,
    /// Per input, the floats that it has; empty before the first step, and of integers.
    floats: Vec<Vec<f64>>,
    /// A batch's, on their way.
    features: Vec<f64>,
}

impl Fed {
    /// A program of steps on a data set's samples; the session gets its images, if it is the first
    /// that reads them.
    pub fn new(plan: Plan, data: &Dataset, session: &mut Session) -> Result<Fed> {
        let had = has_pixels(session);
        let program = session.load(plan)?;
        if !had {
            upload(session, data)?;
        }
        let mut inputs = Vec::new();
        for input in program.inputs().iter().filter(|input| !is_noise(&input.name)) {
            inputs.push((program.input(&input.name)?, Feed::named(&input.name)));
        }
        Ok(Fed { floats: vec![Vec::new(); inputs.len()], features: Vec::new(), inputs, program })
    }

    /// Batches that further virtual steps want.
    pub fn ahead(&self) -> usize {
        let step = |input: &(InputId, Feed)| match input.1 {
            Feed::Labels(Of::Ahead(step)) => step - 1,
            _ => 0,
        };
        self.inputs.iter().map(step).max().unwrap_or(0)
    }

    /// Whether the meta set takes part.
    pub fn reads_meta(&self) -> bool {
        self.inputs.iter().any(|i| i.1 == Feed::Labels(Of::Meta))
    }

    /// Gives the inputs their values and runs the step. Floats that have not changed since the last
    /// one stay where they are: most steps send a device nothing but indices and labels.
    pub fn run(&mut self, session: &mut Session, given: &Given) -> Result<()> {
        for ((id, feed), had) in self.inputs.iter().zip(&mut self.floats) {
            let values = match feed {
                Feed::Picks(of) => Values::Int(given.of(*of).picks.as_flattened()),
                Feed::Labels(of) => Values::Int(&given.of(*of).labels),
                Feed::Features(of) => {
                    features(given.data, &given.of(*of).picks, &mut self.features);
                    Values::Float(&self.features)
                }
                Feed::Lr => Values::Float(std::slice::from_ref(&given.lr)),
                Feed::Scheme(name) => {
                    let own = given.scheme.iter().find(|input| input.0 == name);
                    let nobody = || Error::Program(format!("the scheme gives its input `{name}` no value"));
                    Values::Float(&own.ok_or_else(nobody)?.1)
                }
            };
            // Features are other ones each time.
            if let (Values::Float(new), Feed::Lr | Feed::Scheme(_)) = (values, feed) {
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
    pub predictions: Option<OutputId>,
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
        let fed = Fed::new(Plan::new(&tape, Options::default())?, &data.dataset, session)?;
        let program = &fed.program;
        Ok(StepProgram {
            loss: program.output("loss")?,
            correct: program.output("correct")?,
            meta_loss: program.output("meta_loss").ok(),
            weight: program.output("weight").ok(),
            predictions: program.output(PREDICTIONS).ok(),
            fed,
        })
    }
}
