use super::{Forward, Model};
use crate::error::Result;
use crate::tape::Var;

/// `in – hidden – classes` with ReLU; images are flattened.
#[derive(Clone, PartialEq, Debug)]
pub struct Mlp {
    /// Width of the hidden layer.
    pub hidden: usize,
    /// Number of classes.
    pub classes: usize,
}

impl Model for Mlp {
    fn logits(&self, f: &mut Forward, x: Var) -> Result<Var> {
        let x = f.tape.flatten(x)?;
        let h = f.linear("fc1", x, self.hidden)?;
        let h = f.tape.relu(h)?;
        f.linear("fc2", h, self.classes)
    }
}
