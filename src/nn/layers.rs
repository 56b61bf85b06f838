use std::collections::{BTreeMap, HashSet};

use super::dropout::noise_input;
use super::params::Params;
use crate::error::{Error, Result};
use crate::seed::Stream;
use crate::tape::{First, Geometry, Init, Kind, Shape, Tape, Var};

/// Added to the variance in batch, layer and group norm (PyTorch's default).
pub const NORM_EPS: f64 = 1e-5;
/// Share of the new batch in batch norm's running statistics (PyTorch's default).
pub const NORM_MOMENTUM: f64 = 0.1;

/// Whether a pass is one of training: what batch norm subtracts and divides by, and whether dropout
/// drops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Normalisation {
    /// The batch's own mean and variance, differentiated through (training).
    Batch,
    /// The running statistics `stats.<layer>.mean` and `.var` (testing); dropout is the identity.
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

/// A convolution's filters: square, on an image padded with zeros. Filters of size 1 are a linear
/// layer over each pixel's channels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Filters {
    /// Channels of the output.
    pub out: usize,
    /// Rows and columns of a filter.
    pub size: usize,
    /// Pixels from one place of the filter to the next.
    pub stride: usize,
    /// Zeros on each side.
    pub pad: usize,
    /// Groups of neighbouring channels, as many of the input as of the output, between which
    /// nothing is mixed. 1: every output reads all of the input.
    pub groups: usize,
}

impl Filters {
    /// Filters of odd size with as many zeros around as keep the image's extents.
    pub fn same(out: usize, size: usize) -> Filters {
        Filters { out, size, stride: 1, pad: size / 2, groups: 1 }
    }

    /// The same with another stride.
    pub fn stride(self, stride: usize) -> Filters {
        Filters { stride, ..self }
    }

    /// The same in groups of channels (PyTorch's `groups`); in as many as the input has channels, a
    /// depthwise convolution. Both numbers of channels must be multiples of it.
    pub fn groups(self, groups: usize) -> Filters {
        Filters { groups, ..self }
    }

    /// Numbers that an output is summed over, on an input of so many channels: the fan-in that
    /// [`Init::kaiming`] and [`Init::torch`] want.
    pub fn fan_in(self, channels: usize) -> usize {
        self.size * self.size * self.of_group(channels)
    }

    /// Channels that a filter reads.
    fn of_group(self, channels: usize) -> usize {
        channels.checked_div(self.groups).unwrap_or(0)
    }
}

/// A forward pass being recorded: layers find their parameters by name, and declare them where they
/// are first used.
pub struct Forward<'a> {
    /// Where it is recorded.
    pub tape: &'a mut Tape,
    params: &'a mut Params,
    normalisation: Normalisation,
    /// See [`Forward::named`].
    name: String,
    /// Parameters that a layer of this pass has used.
    used: HashSet<String>,
    /// Statistics of the batch norms so far; empty with running statistics.
    pub moments: Vec<Moments>,
}

impl<'a> Forward<'a> {
    /// A forward pass with these parameters.
    pub fn new(tape: &'a mut Tape, params: &'a mut Params, normalisation: Normalisation) -> Forward<'a> {
        let (name, used, moments) = (String::new(), HashSet::new(), Vec::new());
        Forward { tape, params, normalisation, name, used, moments }
    }

    /// Gives the pass a name, `_` first, as in `_meta`, by which its dropout layers have noise of
    /// their own. Passes of one name over one batch drop the same.
    pub fn named(self, name: &str) -> Forward<'a> {
        Forward { name: name.to_owned(), ..self }
    }

    /// The parameter `name` (`<layer>.<role>`), declared where it is first asked for.
    ///
    /// # Errors
    /// If a layer of this pass has it already (two layers of one name would silently share their
    /// weights; layers that should, say so with [`Forward::again`]), or it has another shape.
    pub fn param(&mut self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<Var> {
        self.first_use(name)?;
        self.params.param(self.tape, name, shape, init)
    }

    /// Refuses a `<layer>.<role>` that this pass has already.
    fn first_use(&mut self, name: &str) -> Result<()> {
        if self.used.insert(name.to_owned()) {
            return Ok(());
        }
        Err(Error::Program(format!(
            "two layers of one forward pass are called `{}`; give each a name of its own, or call `again` before the second \
             to share the weights",
            name.rsplit_once('.').map_or(name, |(layer, _)| layer)
        )))
    }

    /// Lets a layer be used once more in this pass, with the same weights and, for dropout, the
    /// same noise.
    pub fn again(&mut self, layer: &str) {
        self.used.retain(|name| name.rsplit_once('.').map(|(of, _)| of) != Some(layer));
    }

    /// The extent of the last axis, for a layer.
    fn channels(&self, layer: &str, x: Var) -> Result<usize> {
        Ok(self.tape.shape_of(layer, x)?.last().copied().unwrap_or(1))
    }

    /// `x·W + b`, `x` `[n, i]`, result `[n, out]`; first values PyTorch's default.
    ///
    /// # Errors
    /// Those of [`Forward::param`], and if `x` has another number of axes.
    pub fn linear(&mut self, layer: &str, x: Var, out: usize) -> Result<Var> {
        let init = Init::torch(self.channels(layer, x)?);
        self.linear_from(layer, x, out, [init.clone(), init])
    }

    /// As [`Forward::linear`], with the first values of weight and bias.
    ///
    /// # Errors
    /// As there.
    pub fn linear_from(&mut self, layer: &str, x: Var, out: usize, [weight, bias]: [Init; 2]) -> Result<Var> {
        let inputs = self.channels(layer, x)?;
        let w = self.param(&format!("{layer}.weight"), [inputs, out], weight)?;
        let b = self.param(&format!("{layer}.bias"), [out], bias)?;
        self.tape.linear(x, w, b)
    }

    /// Convolution without bias, `x` `[n,h,w,i]`, result `[n,h′,w′,out]`, weights
    /// `[size,size,i/groups,out]`.
    ///
    /// # Errors
    /// Those of [`Forward::param`], for images that the filters do not fit, and for channels that
    /// the groups do not divide.
    pub fn conv(&mut self, layer: &str, x: Var, filters: Filters, init: Init) -> Result<Var> {
        let Filters { out, size, stride, pad, groups } = filters;
        let shape = [size, size, filters.of_group(self.channels(layer, x)?), out];
        let w = self.param(&format!("{layer}.weight"), shape, init)?;
        self.tape.conv(x, w, Geometry { stride, pad, groups })
    }

    /// Adds `<layer>.bias` `[c]` along the last axis of `x`.
    ///
    /// # Errors
    /// Those of [`Forward::param`].
    pub fn bias(&mut self, layer: &str, x: Var, init: Init) -> Result<Var> {
        let channels = self.channels(layer, x)?;
        let b = self.param(&format!("{layer}.bias"), [channels], init)?;
        self.tape.add_bias(x, b)
    }

    /// `scale·x̂ + bias` over all axes but the last.
    ///
    /// # Errors
    /// Those of [`Forward::param`].
    pub fn batch_norm(&mut self, layer: &str, x: Var) -> Result<Var> {
        let shape = self.tape.shape_of(layer, x)?;
        let channels = self.channels(layer, x)?;
        let xhat = match self.normalisation {
            Normalisation::Batch => {
                let (mean, variance) = self.tape.moments(x)?;
                let count = shape.count() / channels.max(1);
                self.moments.push(Moments { layer: layer.to_owned(), mean, variance, count });
                self.tape.normalise(x, NORM_EPS)?
            }
            Normalisation::Running => {
                let [mean, variance] = running(self.tape, "stats", layer, channels)?;
                let r = self.tape.inverse_deviation(variance, NORM_EPS)?;
                let minus = self.tape.scale(mean, -1.0)?;
                let centred = self.tape.add_bias(x, minus)?;
                let r = self.tape.broadcast_to(r, shape)?;
                self.tape.mul(centred, r)?
            }
        };
        self.scale_and_bias(layer, xhat, 1)
    }

    /// `scale ∘ x̂ + bias`, x̂ of mean 0 and variance 1 over each sample's numbers in the last
    /// `axes` axes: 1 in `[n, …, c]` takes each pixel's channels by themselves, 3 in `[n,h,w,c]`
    /// whole images. Scale (at first 1) and bias (0) have the extents of these axes, as in PyTorch.
    /// The same in testing.
    ///
    /// # Errors
    /// Those of [`Forward::param`], and if `x` has fewer axes, or `axes` is 0.
    pub fn layer_norm(&mut self, layer: &str, x: Var, axes: usize) -> Result<Var> {
        let xhat = self.tape.layer_normalise(x, axes, NORM_EPS)?;
        self.scale_and_bias(layer, xhat, axes)
    }

    /// `scale ∘ x̂ + bias` for `x` `[n, …, c]`, x̂ of mean 0 and variance 1 over each sample's
    /// numbers in each of `groups` groups of neighbouring channels. Scale (at first 1) and bias (0)
    /// are `[c]`, as in PyTorch. The same in testing.
    ///
    /// # Errors
    /// Those of [`Forward::param`], and if `groups` does not divide the channels.
    pub fn group_norm(&mut self, layer: &str, x: Var, groups: usize) -> Result<Var> {
        let xhat = self.tape.group_normalise(x, groups, NORM_EPS)?;
        self.scale_and_bias(layer, xhat, 1)
    }

    /// `<layer>.scale` and `<layer>.bias` of the last `axes` axes' extents, applied to `xhat`.
    fn scale_and_bias(&mut self, layer: &str, xhat: Var, axes: usize) -> Result<Var> {
        let shape = self.tape.shape(xhat).clone();
        let own = Shape::from(&shape[shape.len() - axes..]);
        let scale = self.param(&format!("{layer}.scale"), own.clone(), Init::Constant(1.0))?;
        let scale = self.tape.broadcast_to(scale, shape)?;
        let scaled = self.tape.mul(xhat, scale)?;
        let bias = self.param(&format!("{layer}.bias"), own, Init::Constant(0.0))?;
        self.tape.add_bias(scaled, bias)
    }

    /// In training, each entry of `x` is 0 with probability `p`, the others are divided by `1 − p`;
    /// in testing ([`Normalisation::Running`]) and with `p` = 0 this is `x`.
    ///
    /// What is dropped is an input of the program, so that a step stays one recorded program:
    /// `dropout.<layer>`, in a pass with a name `dropout<name>.<layer>` ([`Forward::named`]), of
    /// `x`'s shape. It wants numbers uniform in 0..1, new ones in each step, and drops where they
    /// are at most `p`. Training feeds them; a program of one's own is fed by
    /// [`super::feed_dropout`].
    ///
    /// # Errors
    /// If `p` is not in 0..1; if a dropout layer of this pass has this name already.
    pub fn dropout(&mut self, layer: &str, x: Var, p: f64) -> Result<Var> {
        if p == 0.0 || self.normalisation == Normalisation::Running {
            return Ok(x);
        }
        self.first_use(&format!("{layer}.dropout"))?;
        let shape = self.tape.shape_of("dropout", x)?;
        let noise = self.tape.input(&noise_input(layer, &self.name), Kind::Float, shape)?;
        self.tape.dropout(x, noise, p)
    }

    /// Records the step of the running statistics `<prefix>.*` (`stats` is what
    /// [`Normalisation::Running`] reads) towards this pass's batch: variances unbiased, as PyTorch
    /// keeps them. A layer that was used again takes a step for each use, in their order.
    ///
    /// # Errors
    /// The tape's own.
    pub fn update_running(self, prefix: &str) -> Result<()> {
        let mut now: BTreeMap<Var, Var> = BTreeMap::new();
        for Moments { layer, mean, variance, count } in &self.moments {
            let unbiased = *count as f64 / (*count as f64 - 1.0).max(1.0);
            let channels = self.tape.shape(*mean).count();
            let slots = running(self.tape, prefix, layer, channels)?;
            for (slot, value, factor) in [(slots[0], *mean, 1.0), (slots[1], *variance, unbiased)] {
                let old = now.get(&slot).copied().unwrap_or(slot);
                let old = self.tape.scale(old, 1.0 - NORM_MOMENTUM)?;
                let new = self.tape.scale(value, NORM_MOMENTUM * factor)?;
                now.insert(slot, self.tape.add(old, new)?);
            }
        }
        now.into_iter().try_for_each(|(slot, next)| self.tape.update(slot, next))
    }
}

/// A batch norm's running mean (0 before the first batch) and variance (1), `[channels]`.
fn running(tape: &mut Tape, prefix: &str, layer: &str, channels: usize) -> Result<[Var; 2]> {
    let mut slot = |part: &str, value: f64| {
        let first = First { init: Init::Constant(value), stream: Stream::Classifier, counter: 0 };
        tape.state_from(&format!("{prefix}.{layer}.{part}"), Kind::Float, [channels], first)
    };
    Ok([slot("mean", 0.0)?, slot("var", 1.0)?])
}
