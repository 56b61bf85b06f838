use super::{Memory, Moment, PREDICTIONS, Scheme, Seen, TrainStep};
use crate::bilevel::Optimiser;
use crate::error::Result;
use crate::meta::optimiser::update;
use crate::meta::step::{Pass, meta_losses, real_step};
use crate::nn::{Params, WeightNet};
use crate::tape::{Kind, Tape, Unary, Var};

/// Meta-Weight-Net with soft labels: this crate's own form of the published step, and the default
/// of `metatape train`.
///
/// The weight that a sample's given label `y_i` does not get goes to what the network itself has
/// made of the sample so far, the running mean `z_i` of its probabilities, as in the soft labels of
/// CMW-Net-SL (Shu et al. 2023, arXiv 2202.05613); at the end the meta set is trained on, too:
///
/// ```text
/// logits  a_i = f(x_i) + π,   π_c = ln(share of class c in the training set / in the meta set)
/// weight  v_i = min(1, r_i),   r_i = V(−ln z_i(y_i); θ) / V(0; θ)
/// loss    L = (1/n) Σ_i CE(a_i, v_i e_{y_i} + (1 − v_i) z_i)
///           = (1/n) Σ_i [ℓ_i − (1 − v_i) d_i],   ℓ_i = CE(a_i, y_i),   d_i = ⟨z_i − e_{y_i}, a_i⟩
/// θ       −∂L_meta(w − α ∇L)/∂θ = (α/n) Σ_i u_i ∂r_i/∂θ,   u_i = ⟨∇L_meta(ŵ), ∇d_i(w)⟩,
///         without the samples that ask for more (u_i > 0) and count 1 already
/// w       moves down (L + λ L_meta)/(1 + λ),   λ = min(8 ρ, max(ρ, (1/n) Σ (1 − v_i)))
///         with ρ = |meta set|/|training set| behind θ's steps, and 0 before
/// ```
///
/// Why. (1) Every sample counts 1, whatever V is: V/ΣV lets a few samples make up a batch, V/n
/// shrinks the step, and both leave V's level to chance. (2) V reads the loss of z, not of one
/// pass: where a network gets few images right (a tenth of CIFAR-10), the loss of one pass says
/// little about the label, and V rose on it. A label that the network agrees with (a loss of 0) is
/// the measure: doubt is what V says less of a label than of that one. A V that rises doubts
/// nobody. (3) While θ learns, the meta set is held out: a network that knows it by heart has a
/// meta gradient that tells nothing, and V then sinks everywhere. (4) θ rests in the first steps,
/// when a longer step along any sample's gradient is good, and V would learn nothing but to say 1,
/// where its sigmoid is flat. (5) Then θ rests again, and the meta set has the room that doubted
/// labels leave; without doubt its samples count as any other's. They count as eight others' at
/// most: a few samples in much room are learned by heart. V begins flat, so that all labels count 1
/// until the meta set says otherwise. (6) A function of the loss cannot tell a rare class from a
/// wrong label. π makes up for classes that are rarer in training than in the meta set (Menon et
/// al. 2021, arXiv 2007.07314: train `f + ln share`, test f). (Offsets of the logits that the
/// hypergradient learned beside π gained nothing on long tails, and learned ten meta samples by
/// heart.)
///
/// States: `theta.*`, its moments. Inputs: `lr.theta`, `scheme.prior` `[classes]` (π),
/// `scheme.soft` `[n, classes]`, `scheme.kept` `[n]`. Outputs: `weight` `[n]` (v after θ's step),
/// `u` `[n]`, `predictions` `[n, classes]`, the new z. Memory: z of each training sample, and
/// whether it has one.
#[derive(Clone, PartialEq, Debug)]
pub struct SoftMwNet {
    /// V.
    pub weight_net: WeightNet,
    /// V's rule; the virtual step is plain SGD, the hypergradient exact.
    pub rule: Optimiser,
    /// V's learning rate.
    pub lr: f64,
    /// Samples of the training and of the meta set.
    pub sizes: [usize; 2],
    /// Classes.
    pub classes: usize,
    /// π, [`SoftMwNet::prior_of`].
    pub prior: Vec<f64>,
    /// Share of the old z in the new one, each time that a sample is seen.
    pub inertia: f64,
    /// The steps (from, to) in which θ moves; behind them the meta set is trained on.
    pub learns: [u64; 2],
}

/// Inputs: π; z as it was, and its share in the new one (0 where there is none yet).
const PRIOR: &str = "scheme.prior";
const SOFT: &str = "scheme.soft";
const KEPT: &str = "scheme.kept";

/// What a meta sample counts at most, beside a training sample.
const MOST: f64 = 8.0;

/// Added to a probability before its logarithm is taken.
const LEAST: f64 = 1e-6;

/// Programs: θ moves; it rests; it rests and the meta set is trained on.
const LEARN: usize = 0;
const REST: usize = 1;
const BOTH: usize = 2;

/// In a method's [`Memory`]: z, row by row, and 1 where a sample has one.
const MEMORY: &str = "soft.labels";
const SEEN: &str = "soft.seen";

/// A batch before its weights.
struct Start {
    lr: Var,
    w: Params,
    theta: Params,
    losses: Var,
    /// `−ln z_y` `[n]`, which V reads.
    read: Var,
    /// d `[n]`.
    gap: Var,
}

impl SoftMwNet {
    /// The steps in which θ moves, of so many: those behind the share `from` and before `to`.
    pub fn between(steps: u64, from: f64, to: f64) -> [u64; 2] {
        [from, to].map(|share| (share * steps as f64).round() as u64)
    }

    /// π of so many samples of each class in the training and in the meta set, each with one more
    /// than it has, so that a class that is not there has a share.
    pub fn prior_of(train: &[usize], meta: &[usize]) -> Vec<f64> {
        let shares = |counts: &[usize]| {
            let all = (counts.iter().sum::<usize>() + counts.len()) as f64;
            counts.iter().map(|count| (count + 1) as f64 / all).collect::<Vec<_>>()
        };
        shares(train).iter().zip(shares(meta)).map(|(train, meta)| (train / meta).ln()).collect()
    }

    /// `V(ℓ)/V(0)` `[n]`, and the weights that it comes to, at most 1.
    fn weights(&self, tape: &mut Tape, theta: &mut Params, losses: Var) -> Result<[Var; 2]> {
        let v = self.weight_net.relative(tape, theta, losses)?;
        let nothing = tape.constant(0.0, [1]);
        let top = self.weight_net.relative(tape, theta, nothing)?;
        let top = tape.reshape(top, [])?;
        let inverse = tape.unary(Unary::Recip, top)?;
        let ratio = tape.scale_by(v, inverse)?;
        let one = tape.constant(1.0, tape.shape(ratio).clone());
        Ok([ratio, tape.minimum(ratio, one)?])
    }

    fn start(&self, tape: &mut Tape, step: &TrainStep) -> Result<Start> {
        let n = step.batch[0];
        let lr = tape.input("lr", Kind::Float, [])?;
        let (mut w, theta) = (Params::classifier(), Params::weight_net());
        tape.section("losses at w");
        let Pass { y, logits, correct, .. } =
            Pass::record(tape, step.net, step.data, n, &mut w, Some("stats"), "")?;
        let shape = tape.shape(logits).clone();
        let prior = tape.input(PRIOR, Kind::Float, [shape[1]])?;
        let prior = tape.broadcast_to(prior, shape.clone())?;
        let logits = tape.add(logits, prior)?;
        let losses = tape.cross_entropy(logits, y)?;
        let p = tape.softmax(logits)?;
        tape.section("soft labels");
        let before = tape.input(SOFT, Kind::Float, shape.clone())?;
        let kept = tape.input(KEPT, Kind::Float, [n])?;
        let now = tape.detach(p)?;
        // z⁺ = p + ρ (z − p)
        let change = tape.sub(before, now)?;
        let kept = tape.broadcast(kept, 1, 2, &shape)?;
        let change = tape.mul(change, kept)?;
        let soft = tape.add(now, change)?;
        let given = tape.one_hot(y, shape[1])?;
        let between = tape.sub(soft, given)?;
        let gap = tape.mul(between, logits)?;
        let gap = tape.sum(gap, 1, 2)?;
        let own = tape.mul(soft, given)?;
        let own = tape.sum(own, 1, 2)?;
        let own = tape.offset(own, LEAST)?;
        let own = tape.unary(Unary::Log, own)?;
        let read = tape.scale(own, -1.0)?;
        tape.output("loss", losses)?;
        tape.output("correct", correct)?;
        tape.output(PREDICTIONS, soft)?;
        Ok(Start { lr, w, theta, losses, read, gap })
    }

    /// L as losses and their coefficients: `1/n` of ℓ and `−(1 − V)/n` of d. The third is 1 − V.
    fn loss(tape: &mut Tape, start: &Start, weights: Var) -> Result<(Vec<(Var, Var)>, Var)> {
        let n = tape.shape(weights).count();
        let doubt = tape.scale(weights, -1.0)?;
        let doubt = tape.offset(doubt, 1.0)?;
        let minus = tape.scale(doubt, -1.0 / n as f64)?;
        Ok((vec![(start.losses, tape.constant(1.0 / n as f64, [n])), (start.gap, minus)], doubt))
    }

    /// θ's step; V behind it.
    fn learn(&self, tape: &mut Tape, step: &TrainStep, start: &mut Start) -> Result<Var> {
        let TrainStep { net, data, batch: [n, m], .. } = *step;
        let lr_theta = tape.input("lr.theta", Kind::Float, [])?;
        tape.section("virtual step");
        let [ratio, weights] = self.weights(tape, &mut start.theta, start.read)?;
        let (pairs, _) = SoftMwNet::loss(tape, start, weights)?;
        let w = start.w.vars();
        let mut moved = Vec::with_capacity(w.len());
        for (gradient, w) in tape.cotangents(&pairs, &w)?.into_iter().zip(&w) {
            let change = tape.scale_by(gradient, start.lr)?;
            moved.push(tape.sub(*w, change)?);
        }
        let mut virtual_w = start.w.with(moved);
        tape.section("meta loss and its gradient at ŵ");
        let meta_losses = meta_losses(tape, net, data, m, &mut virtual_w)?;
        let meta_loss = tape.mean_all(meta_losses)?;
        let gradient = tape.gradient(meta_loss, &virtual_w.vars())?;
        tape.section("jvp: u, the change of d along the meta gradient");
        let seeds: Vec<_> = w.into_iter().zip(gradient).collect();
        let u = tape.jvp(&seeds, &[start.gap])?[0];
        let u = tape.or_zero(u, start.gap)?;
        tape.section("hypergradient");
        // A sample that counts 1 already can ask for less, not for more.
        let (more, above) = (tape.relu(u)?, tape.offset(ratio, -1.0)?);
        let idle = tape.mask(more, above)?;
        let asked = tape.sub(u, idle)?;
        let share = tape.scale(start.lr, -1.0 / n as f64)?;
        let asked = tape.scale_by(asked, share)?;
        let gradients = tape.cotangents(&[(ratio, asked)], &start.theta.vars())?;
        tape.section("weight-net step");
        start.theta = update(tape, &self.rule, &start.theta, &gradients, lr_theta, "theta.moment")?;
        tape.output("u", u)?;
        Ok(self.weights(tape, &mut start.theta, start.read)?[1])
    }
}

impl Scheme for SoftMwNet {
    /// The weight at the present θ, over the losses of z.
    fn curve(&self, tape: &mut Tape, seen: &Seen) -> Result<Option<Var>> {
        Ok(Some(self.weights(tape, &mut Params::weight_net(), seen.losses)?[1]))
    }

    fn reads(&self, memory: &Memory, labels: &[i32], losses: Vec<f64>) -> Vec<f64> {
        let [soft, seen] = [MEMORY, SEEN].map(|name| memory.get(name));
        let of_z = |(i, (loss, label)): (usize, (f64, &i32))| match seen.get(i) {
            Some(seen) if *seen > 0.0 => -(soft[i * self.classes + *label as usize] + LEAST).ln(),
            _ => loss,
        };
        losses.into_iter().zip(labels).enumerate().map(of_z).collect()
    }

    fn record(&self, tape: &mut Tape, step: &TrainStep) -> Result<()> {
        let TrainStep { net, optimiser, data, batch: [_, m], stage } = *step;
        let mut start = self.start(tape, step)?;
        let weights = match stage {
            LEARN => self.learn(tape, step, &mut start)?,
            _ => self.weights(tape, &mut start.theta, start.read)?[1],
        };
        let weights = tape.detach(weights)?;
        tape.output("weight", weights)?;
        tape.section("real step");
        let (mut pairs, doubt) = SoftMwNet::loss(tape, &start, weights)?;
        if stage == BOTH {
            let [train, meta] = self.sizes.map(|count| count as f64);
            let least = tape.constant(meta / train.max(1.0), []);
            let doubt = tape.mean_all(doubt)?;
            let room = tape.maximum(doubt, least)?;
            let most = tape.scale(least, MOST)?;
            let room = tape.minimum(room, most)?;
            let whole = tape.offset(room, 1.0)?;
            let share = tape.unary(Unary::Recip, whole)?;
            for pair in &mut pairs {
                pair.1 = tape.scale_by(pair.1, share)?;
            }
            let losses = meta_losses(tape, net, data, m, &mut start.w)?;
            let share = tape.mul(room, share)?;
            let share = tape.scale(share, 1.0 / m as f64)?;
            pairs.push((losses, tape.broadcast_to(share, tape.shape(losses).clone())?));
            let meta_loss = tape.mean_all(losses)?;
            tape.output("meta_loss", meta_loss)?;
        }
        real_step(tape, &start.w, &pairs, &optimiser, start.lr, "momentum").map(drop)
    }

    fn programs(&self) -> usize {
        3
    }

    fn program(&self, step: u64) -> usize {
        match self.learns {
            [from, _] if step < from => REST,
            [_, to] if step < to => LEARN,
            _ => BOTH,
        }
    }

    fn inputs(&self, now: &Moment) -> Vec<(&'static str, Vec<f64>)> {
        // Rows `width` wide of what is remembered; zeros before anything is.
        let rows = |name: &str, width: usize| -> Vec<f64> {
            let all = now.memory.get(name);
            let places = now.positions.iter().flat_map(|p| (0..width).map(move |i| *p as usize * width + i));
            places.map(|place| all.get(place).copied().unwrap_or(0.0)).collect()
        };
        let kept = rows(SEEN, 1).iter().map(|seen| self.inertia * seen).collect();
        vec![
            ("lr.theta", vec![self.lr]),
            (PRIOR, self.prior.clone()),
            (SOFT, rows(MEMORY, self.classes)),
            (KEPT, kept),
        ]
    }

    fn remember(&self, memory: &mut Memory, positions: &[u32], predictions: &[f64]) {
        for (name, width) in [(MEMORY, self.classes), (SEEN, 1)] {
            memory.entry(name).resize(self.sizes[0] * width, 0.0);
        }
        let soft = memory.entry(MEMORY);
        for (position, row) in positions.iter().zip(predictions.chunks(self.classes)) {
            soft[*position as usize * self.classes..][..self.classes].copy_from_slice(row);
        }
        let seen = memory.entry(SEEN);
        positions.iter().for_each(|position| seen[*position as usize] = 1.0);
    }
}
