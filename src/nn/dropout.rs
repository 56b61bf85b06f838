//! What dropout layers are fed.

use rand::RngExt;

use crate::error::Result;
use crate::program::{Program, Session, Values};
use crate::seed::{Stream, rng};

/// Before a layer's name in the input of its noise; the pass is named between them.
const PREFIX: &str = "dropout";

/// The input of a layer's noise in the pass that is named `pass`.
pub(super) fn noise_input(layer: &str, pass: &str) -> String {
    format!("{PREFIX}{pass}.{layer}")
}

/// Whether an input is a dropout layer's noise.
pub(crate) fn is_noise(input: &str) -> bool {
    let pass = input.split_once('.').and_then(|(first, _)| first.strip_prefix(PREFIX));
    pass.is_some_and(|pass| pass.is_empty() || pass.starts_with('_'))
}

/// Gives all dropout layers of a program the noise of a step: numbers uniform in 0..1, a function
/// of seed and step. Call it before each run that is a step of training. It does nothing for a
/// program without dropout. An input of another purpose must not be called `dropout.…` or
/// `dropout_….…`: it would be given noise.
///
/// # Errors
/// If the program is another session's; those of the machine.
pub fn feed_dropout(session: &mut Session, program: &Program, seed: u64, step: u64) -> Result<()> {
    let mut rng = rng(seed, Stream::Dropout, step);
    let mut noise = Vec::new();
    for input in program.inputs().iter().filter(|input| is_noise(&input.name)) {
        noise.clear();
        noise.extend((0..input.shape.count()).map(|_| rng.random::<f64>()));
        session.feed(program, &input.name, Values::Float(&noise))?;
    }
    Ok(())
}
