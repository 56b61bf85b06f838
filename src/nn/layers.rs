use super::params::Params;
use crate::error::Result;
use crate::tape::{Geometry, Kind, Tape, Unary, Var};

/// Added to the variance in batch norm (PyTorch's default).
pub const NORM_EPS: f64 = 1e-5;
/// Share of the new batch in batch norm's running statistics (PyTorch's default).
pub const NORM_MOMENTUM: f64 = 0.1;

/// What batch norm subtracts and divides by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Normalisation {
    /// The batch's own mean and variance, differentiated through (training).
    Batch,
    /// The running statistics `stats.<layer>.mean` and `.var` (testing).
    Running,
}

/// A batch norm's statistics of one forward pass.
#[derive(Clone, Debug)]
pub struct Moments {
    /// The layer's name.
    pub layer: String,
    /// `[c]`.
    pub mean: Var,
    /// Biased, `[c]`.
    pub variance: Var,
    /// Numbers that each channel's statistics are taken over.
    pub count: usize,
}

/// A forward pass being recorded: layers find their parameters by name.
pub struct Forward<'a> {
    /// Where it is recorded.
    pub tape: &'a mut Tape,
    params: &'a Params,
    normalisation: Normalisation,
    /// Statistics of the batch norms so far; empty with running statistics.
    pub moments: Vec<Moments>,
}

impl<'a> Forward<'a> {
    /// A forward pass with the given parameters.
    pub fn new(tape: &'a mut Tape, params: &'a Params, normalisation: Normalisation) -> Forward<'a> {
        Forward { tape, params, normalisation, moments: Vec::new() }
    }

    /// `x·W + b`, `x` `[n, i]`.
    pub fn linear(&mut self, layer: &str, x: Var) -> Result<Var> {
        let w = self.params.get(&format!("{layer}.weight"))?;
        let b = self.params.get(&format!("{layer}.bias"))?;
        self.tape.linear(x, w, b)
    }

    /// Convolution without bias, `x` NHWC.
    pub fn conv(&mut self, layer: &str, x: Var, stride: usize, pad: usize) -> Result<Var> {
        let w = self.params.get(&format!("{layer}.weight"))?;
        self.tape.conv(x, w, Geometry { stride, pad })
    }

    /// Convolution with bias.
    pub fn conv_bias(&mut self, layer: &str, x: Var, stride: usize, pad: usize) -> Result<Var> {
        let y = self.conv(layer, x, stride, pad)?;
        let b = self.params.get(&format!("{layer}.bias"))?;
        self.tape.add_bias(y, b)
    }

    /// `scale·x̂ + bias` over all axes but the last.
    pub fn batch_norm(&mut self, layer: &str, x: Var) -> Result<Var> {
        let shape = self.tape.shape_of("batch norm", x)?;
        let xhat = match self.normalisation {
            Normalisation::Batch => {
                let (mean, variance) = self.tape.moments(x)?;
                let count = shape.count() / shape.last().copied().unwrap_or(1).max(1);
                self.moments.push(Moments { layer: layer.to_owned(), mean, variance, count });
                self.tape.normalise(x, NORM_EPS)?
            }
            Normalisation::Running => {
                let channels = shape.without(0..shape.len() - 1);
                let mean = self.tape.state(&format!("stats.{layer}.mean"), Kind::Float, channels.clone())?;
                let variance = self.tape.state(&format!("stats.{layer}.var"), Kind::Float, channels)?;
                let shifted = self.tape.offset(variance, NORM_EPS)?;
                let deviation = self.tape.unary(Unary::Sqrt, shifted)?;
                let r = self.tape.unary(Unary::Recip, deviation)?;
                let minus = self.tape.scale(mean, -1.0)?;
                let centred = self.tape.add_bias(x, minus)?;
                let r = self.tape.broadcast_to(r, shape.clone())?;
                self.tape.mul(centred, r)?
            }
        };
        let scale = self.params.get(&format!("{layer}.scale"))?;
        let scale = self.tape.broadcast_to(scale, shape)?;
        let scaled = self.tape.mul(xhat, scale)?;
        self.tape.add_bias(scaled, self.params.get(&format!("{layer}.bias"))?)
    }

    /// Records the step of the running statistics `<prefix>.*` (`stats` is what [`Normalisation::Running`] reads) towards this
    /// pass's batch: variances unbiased, as PyTorch keeps them.
    pub fn update_running(self, prefix: &str) -> Result<()> {
        for Moments { layer, mean, variance, count } in &self.moments {
            let unbiased = *count as f64 / (*count as f64 - 1.0).max(1.0);
            for (part, value, factor) in [("mean", *mean, 1.0), ("var", *variance, unbiased)] {
                let shape = self.tape.shape(value).clone();
                let slot = self.tape.state(&format!("{prefix}.{layer}.{part}"), Kind::Float, shape)?;
                let old = self.tape.scale(slot, 1.0 - NORM_MOMENTUM)?;
                let new = self.tape.scale(value, NORM_MOMENTUM * factor)?;
                let next = self.tape.add(old, new)?;
                self.tape.update(slot, next)?;
            }
        }
        Ok(())
    }
}
