//! `in – hidden – classes` with ReLU.

use super::{Forward, Network, Param};
use crate::error::Result;
use crate::tape::Var;

pub(super) fn params(net: &Network, hidden: usize) -> Vec<Param> {
    let pixels = net.image.iter().product();
    [Param::linear("fc1", pixels, hidden), Param::linear("fc2", hidden, net.classes)].concat()
}

pub(super) fn logits(f: &mut Forward, x: Var) -> Result<Var> {
    let x = f.tape.flatten(x)?;
    let h = f.linear("fc1", x)?;
    let h = f.tape.relu(h)?;
    f.linear("fc2", h)
}
