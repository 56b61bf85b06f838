//! A rule's step of all parameters: moments are states.

use crate::bilevel::{Optimiser, Sgd};
use crate::error::Result;
use crate::nn::Params;
use crate::tape::{Kind, Tape, Var};

/// The momentum buffer of parameter `name`, the state `<prefix>.<name>`; none without momentum.
pub(super) fn buffer(tape: &mut Tape, rule: &Sgd, prefix: &str, name: &str, w: Var) -> Result<Option<Var>> {
    if rule.momentum == 0.0 {
        return Ok(None);
    }
    let shape = tape.shape(w).clone();
    tape.state(&format!("{prefix}.{name}"), Kind::Float, shape).map(Some)
}

/// Records the updates of all parameters and their moments ([`Optimiser::clipped`],
/// [`Optimiser::update`]); gives the next parameters. `lr` is one number.
pub(super) fn update(
    tape: &mut Tape,
    rule: &Optimiser,
    params: &Params,
    gradients: &[Var],
    lr: Var,
    moments: &str,
) -> Result<Params> {
    let gradients = rule.clipped(tape, gradients, 0.0)?;
    let mut next = Vec::with_capacity(gradients.len());
    for ((name, w), g) in params.iter().zip(&gradients) {
        next.push(rule.update(tape, moments, name, w, *g, lr)?);
    }
    Ok(params.with(next))
}
