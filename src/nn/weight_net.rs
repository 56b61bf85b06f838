//! The weight net `V(ℓ; θ)`: 1 – hidden – 1, ReLU, sigmoid. A sample's loss goes in, its weight in
//! (0, 1) comes out. Class-aware, it has an output for each group of classes, and a sample's weight
//! is that of its label's group.

use super::params::Params;
use crate::error::Result;
use crate::tape::{Init, Kind, Tape, Unary, Var};

/// The weight net's width and first values.
#[derive(Clone, PartialEq, Debug)]
pub struct WeightNet {
    /// Hidden units (100 in the paper).
    pub hidden: usize,
    /// Where θ begins.
    pub init: WeightNetInit,
    /// With [`WeightNetInit::Kinks`], the slope of the hidden units: small for an optimiser whose
    /// steps do not depend on the gradient's size (Adam), 1 for SGD.
    pub slope: f64,
    /// Class-aware: the group (from 0) of each class; empty for one V for all classes.
    pub groups: Vec<usize>,
}

/// Input of a class-aware weight net: 1 at each class' group, else 0, `[classes, groups]`.
pub const GROUPS: &str = "weight_net.groups";

/// Where θ begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WeightNetInit {
    /// Half of the hidden units rise and half fall, with their kinks spread evenly over losses 0 to
    /// 6, so that some units see only the high losses and some only the low ones. The output layer
    /// starts at zero: V = 0.5 everywhere, and no direction is preferred.
    ///
    /// Why not [`WeightNetInit::Faithful`]: its units all but share one direction (most of them
    /// grow with the loss), so that a push which should raise V for everyone raises it most where
    /// losses are high. There the sigmoid then saturates, and the corrupted samples' own signal,
    /// which says "down", is multiplied by a vanishing slope: an increasing curve feeds on itself.
    /// `benches/peers/weight_net_init.py` trains with both in PyTorch.
    Kinks,
    /// [`WeightNetInit::Kinks`], but V begins at σ(2) = 0.88: labels are right until shown wrong.
    Trusting,
    /// PyTorch's default, as published: U(±1) in the first layer, U(±1/√hidden) in the second.
    Faithful,
}

/// Losses over which the kinks are spread: up to where a sample is as good as hopeless (e^{−6} =
/// 0.25% probability).
const LAST_KINK: f64 = 6.0;

/// Of the output layer, for [`WeightNet::relative`]: `e^20` is far from the ends of f32.
const LEAST_BIAS: f64 = -20.0;

impl WeightNet {
    /// First values of the parameters in their order: weight and bias of the hidden layer, then of
    /// the output.
    fn first(&self) -> [Init; 4] {
        let bias = match self.init {
            WeightNetInit::Kinks => 0.0,
            WeightNetInit::Trusting => 2.0,
            WeightNetInit::Faithful => {
                let (first, second) = (Init::torch(1), Init::torch(self.hidden));
                return [first.clone(), first, second.clone(), second];
            }
        };
        let (slopes, offsets) = self.kinks();
        [Init::Given(slopes), Init::Given(offsets), Init::Constant(0.0), Init::Constant(bias)]
    }

    /// Groups of classes, each with its own V.
    fn outputs(&self) -> usize {
        self.groups.iter().max().map_or(1, |last| last + 1)
    }

    /// The value of [`GROUPS`]; empty if V is one for all classes.
    pub fn groups_input(&self) -> Vec<f64> {
        let outputs = self.outputs();
        self.groups.iter().flat_map(|group| (0..outputs).map(move |g| f64::from(g == *group))).collect()
    }

    /// For labels `[n]`, 1 at each sample's group, else 0, `[n, groups]`; `None` if V is one for
    /// all classes.
    ///
    /// # Errors
    /// The tape's own.
    pub fn groups(&self, tape: &mut Tape, labels: Var) -> Result<Option<Var>> {
        if self.groups.is_empty() {
            return Ok(None);
        }
        let classes = self.groups.len();
        let of_class = tape.input(GROUPS, Kind::Float, [classes, self.outputs()])?;
        let one_hot = tape.one_hot(labels, classes)?;
        tape.matmul(one_hot, of_class).map(Some)
    }

    /// Slopes and offsets of the hidden units: `relu(±slope·(ℓ − t))` for t evenly from 0 to
    /// [`LAST_KINK`].
    fn kinks(&self) -> (Vec<f64>, Vec<f64>) {
        let rising = self.hidden.div_ceil(2);
        let unit = |i: usize| {
            let (sign, i, count) =
                if i < rising { (1.0, i, rising) } else { (-1.0, i - rising, self.hidden - rising) };
            let kink = LAST_KINK * i as f64 / (count - 1).max(1) as f64;
            (sign * self.slope, -sign * self.slope * kink)
        };
        (0..self.hidden).map(unit).unzip()
    }

    /// Weights `[n]` of losses `[n]` and the samples' [`WeightNet::groups`].
    ///
    /// # Errors
    /// The tape's own.
    pub fn weights(
        &self,
        tape: &mut Tape,
        theta: &mut Params,
        losses: Var,
        groups: Option<Var>,
    ) -> Result<Var> {
        let [logits, bias] = self.logits(tape, theta, losses)?;
        let logits = tape.add(logits, bias)?;
        let logits = match groups {
            Some(groups) => {
                let own = tape.mul(logits, groups)?;
                tape.sum(own, 1, 2)?
            }
            None => logits,
        };
        let v = tape.sigmoid(logits)?;
        tape.reshape(v, tape.shape_of("weight net", losses)?)
    }

    /// `V(ℓ)/σ(b)` `[n]` of losses `[n]`, b the output layer's bias: for weights of which only the
    /// ratio counts.
    ///
    /// Why not V itself: where V is flat, a ratio of its values does not change with b. The
    /// derivative, a sum over samples that comes to 0, would be what rounding leaves of it, of
    /// which Adam knows but the sign. Here, each sample's own part is 0: `∂/∂b ln(V/σ(b)) = σ(b) −
    /// V`. A b below −20 counts as that in the divisor, so that the quotient stays a number.
    ///
    /// # Errors
    /// The tape's own; for a class-aware V, one for its shape.
    pub fn relative(&self, tape: &mut Tape, theta: &mut Params, losses: Var) -> Result<Var> {
        let [logits, bias] = self.logits(tape, theta, losses)?;
        let logits = tape.add(logits, bias)?;
        let least = tape.constant(LEAST_BIAS, tape.shape(bias).clone());
        // ln σ(x) = −softplus(−x), of the broadcast bias: its two parts meet before they are
        // summed.
        let mut parts = [tape.maximum(bias, least)?, logits];
        for part in &mut parts {
            let minus = tape.scale(*part, -1.0)?;
            *part = tape.softplus(minus)?;
        }
        let log = tape.sub(parts[0], parts[1])?;
        let ratio = tape.unary(Unary::Exp, log)?;
        tape.reshape(ratio, tape.shape_of("weight net", losses)?)
    }

    /// The output layer before its bias and that bias, both `[n, outputs]`.
    fn logits(&self, tape: &mut Tape, theta: &mut Params, losses: Var) -> Result<[Var; 2]> {
        let (hidden, outputs) = (self.hidden, self.outputs());
        let [a, b, p, q] = self.first();
        let a = theta.param(tape, "fc1.weight", [1, hidden], a)?;
        let b = theta.param(tape, "fc1.bias", [hidden], b)?;
        let p = theta.param(tape, "fc2.weight", [hidden, outputs], p)?;
        let q = theta.param(tape, "fc2.bias", [outputs], q)?;
        let count = tape.shape_of("weight net", losses)?.count();
        let x = tape.reshape(losses, [count, 1])?;
        let h = tape.linear(x, a, b)?;
        let h = tape.relu(h)?;
        let logits = tape.matmul(h, p)?;
        let bias = tape.broadcast_to(q, tape.shape(logits).clone())?;
        Ok([logits, bias])
    }
}
