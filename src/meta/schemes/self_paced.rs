use super::{Moment, Scheme, Seen, positive};
use crate::error::Result;
use crate::tape::{Kind, Tape, Unary, Var};

/// How the weight falls with the loss.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SelfPacedForm {
    /// `1[ℓ < λ]` (Kumar, Packer & Koller 2010).
    Hard,
    /// `max(0, 1 − ℓ/λ)` (Jiang et al. 2014).
    Linear,
}

/// Self-paced learning: only samples with losses below λ are learned from, and λ ← μλ after every
/// epoch, from easy to hard.
///
/// λ begins at ln K, the loss of an untrained network of K classes, so that about half of the
/// samples are in from the start; μ = 1.1. Input: `scheme.lambda` (a scalar, in nats).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SelfPaced {
    /// Hard or linear.
    pub form: SelfPacedForm,
    /// λ in the first epoch.
    pub first: f64,
    /// μ, its growth an epoch.
    pub pace: f64,
}

impl SelfPaced {
    /// The defaults for K classes.
    pub fn new(form: SelfPacedForm, classes: usize) -> SelfPaced {
        SelfPaced { form, first: (classes.max(2) as f64).ln(), pace: 1.1 }
    }

    /// λ in an epoch (from 0).
    pub fn lambda(&self, epoch: usize) -> f64 {
        self.first * self.pace.powi(epoch as i32)
    }
}

impl Scheme for SelfPaced {
    fn curve(&self, tape: &mut Tape, seen: &Seen) -> Result<Option<Var>> {
        let losses = seen.losses;
        let lambda = tape.input("scheme.lambda", Kind::Float, [])?;
        match self.form {
            SelfPacedForm::Hard => {
                let lambda = tape.broadcast_to(lambda, tape.shape(losses).clone())?;
                let room = tape.sub(lambda, losses)?;
                positive(tape, room).map(Some)
            }
            SelfPacedForm::Linear => {
                let inverse = tape.unary(Unary::Recip, lambda)?;
                let relative = tape.scale_by(losses, inverse)?;
                let minus = tape.scale(relative, -1.0)?;
                let rest = tape.offset(minus, 1.0)?;
                tape.relu(rest).map(Some)
            }
        }
    }

    fn inputs(&self, now: &Moment) -> Vec<(&'static str, Vec<f64>)> {
        vec![("scheme.lambda", vec![self.lambda(now.epoch)])]
    }
}
