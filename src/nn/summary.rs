use super::{Forward, Model, Normalisation, Params};
use crate::error::Result;
use crate::tape::{Kind, Shape, Tape};

/// What a model declares, seen by recording it once.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Names and shapes of the parameters, in the order of the forward pass.
    pub params: Vec<(String, Shape)>,
    /// Names and channels of the batch norms, likewise.
    pub norms: Vec<(String, usize)>,
    /// Number of classes.
    pub classes: usize,
}

impl Summary {
    /// The model on samples with these extents: `[h,w,c]` or `[d]`.
    ///
    /// # Errors
    /// For samples that the model cannot take.
    pub fn of(model: &dyn Model, sample: &Shape) -> Result<Summary> {
        let (mut tape, mut params) = (Tape::new(), Params::classifier());
        let x = tape.input("x", Kind::Float, sample.with(0, &[1]))?;
        let mut forward = Forward::new(&mut tape, &mut params, Normalisation::Batch);
        let logits = model.logits(&mut forward, x)?;
        let moments = std::mem::take(&mut forward.moments);
        let norms = moments.into_iter().map(|m| (m.layer, tape.shape(m.mean).count())).collect();
        let classes = tape.shape(logits).last().copied().unwrap_or(1);
        let params = params.iter().map(|(name, var)| (name.to_owned(), tape.shape(var).clone())).collect();
        Ok(Summary { params, norms, classes })
    }

    /// Numbers in all parameters together.
    pub fn count(&self) -> usize {
        self.params.iter().map(|p| p.1.count()).sum()
    }

    /// Whether a sample's loss depends on the other samples of its batch (train-mode batch norm).
    pub fn couples_samples(&self) -> bool {
        !self.norms.is_empty()
    }
}
