//! The weight net `V(ℓ; θ)`: 1 – hidden – 1, ReLU, sigmoid. A sample's loss goes in, its weight in (0, 1) comes out.

use super::params::{Param, Params};
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::tape::{Tape, Var};

/// The weight net's width and first values.
#[derive(Clone, PartialEq, Debug)]
pub struct WeightNet {
    /// Hidden units (100 in the paper).
    pub hidden: usize,
    /// Where θ begins.
    pub init: WeightNetInit,
}

/// Where θ begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WeightNetInit {
    /// PyTorch's default: U(±1) in the first layer, U(±1/√hidden) in the second.
    Faithful,
}

impl FromStr for WeightNetInit {
    type Err = Error;
    fn from_str(name: &str) -> Result<WeightNetInit> {
        match name {
            "faithful" => Ok(WeightNetInit::Faithful),
            _ => Err(Error::Usage(format!(
                "there is no weight-net initialisation `{name}`; choose one of faithful"
            ))),
        }
    }
}

impl fmt::Display for WeightNetInit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WeightNetInit::Faithful => f.pad("faithful"),
        }
    }
}

impl WeightNet {
    /// All parameters of θ.
    pub fn params(&self) -> Vec<Param> {
        [Param::linear("fc1", 1, self.hidden), Param::linear("fc2", self.hidden, 1)].concat()
    }

    /// Weights `[n]` of losses `[n]`.
    pub fn weights(&self, tape: &mut Tape, theta: &Params, losses: Var) -> Result<Var> {
        let shape = tape.shape(losses).clone();
        let x = tape.reshape(losses, [shape.count(), 1])?;
        let h = tape.linear(x, theta.get("fc1.weight")?, theta.get("fc1.bias")?)?;
        let h = tape.relu(h)?;
        let z = tape.linear(h, theta.get("fc2.weight")?, theta.get("fc2.bias")?)?;
        let v = tape.sigmoid(z)?;
        tape.reshape(v, shape)
    }
}
