//! The schemes whose training step is their own, on a small network in f64, against finite
//! differences and formulas in loops.

use metatape::Result;
use metatape::backend::cpu::Cpu;
use metatape::meta::schemes::{
    AdaBoost, CleanOnly, CoTeaching, FineTune, Glc, L2rw, Memory, Mixed, Moment, MwNet, MwNetRecipe, Oracle,
    Scheme, Seen, SoftMwNet, TrainStep, Uniform,
};
use metatape::meta::{Batch, Optimiser, Sgd, StepConfig, Weights};
use metatape::nn::{Forward, Mlp, Model, Normalisation, Params, WeightNet, WeightNetInit};
use metatape::program::{Options, Program, Session, Values};
use metatape::tape::{Kind, Tape, Unary, Var};

static NOTHING: Memory = Memory::new();

fn moment(epoch: usize, batch: usize) -> Moment<'static> {
    Moment { step: 500, steps: 1000, epoch, batch, positions: &[], memory: &NOTHING }
}

const N: usize = 6;
const M: usize = 4;
const LR: f64 = 0.05;

fn network() -> Mlp {
    Mlp { hidden: 5, classes: 3 }
}

fn given() -> Batch {
    Batch::Given([4, 3, 1].into())
}

fn sgd() -> Optimiser {
    Optimiser::Sgd(Sgd::PLAIN)
}

fn step<'a>(net: &'a Mlp, data: &'a Batch, stage: usize) -> TrainStep<'a> {
    TrainStep { net, optimiser: sgd(), data, batch: [N, M], stage }
}

/// Numbers in ±1 that look like none in particular.
fn numbers(count: usize, seed: f64) -> Vec<f64> {
    (0..count).map(|i| ((i as f64 + 1.0) * 12.9898 + seed * 78.233).sin()).collect()
}

/// A program in f64 with every state and input given; `scheme.*` by name.
fn prepare(tape: &Tape, extra: &[(&str, Vec<f64>)]) -> (Session, Program) {
    let mut session = Session::new(Box::new(Cpu::<f64>::new(1).unwrap()));
    let program = session.compile(tape, Options::default()).unwrap();
    for (i, state) in session.states().to_vec().into_iter().enumerate() {
        let values = numbers(state.shape.count(), 2.0 + i as f64);
        session.write_state(&state.name, Values::Float(&values)).unwrap();
    }
    for input in program.inputs().to_vec() {
        let count = input.shape.count();
        let given = extra.iter().find(|e| e.0 == input.name);
        match (input.kind, given) {
            (Kind::Int, _) => {
                let labels: Vec<i32> = (0..count as i32).map(|i| i % 3).collect();
                session.feed(&program, &input.name, Values::Int(&labels)).unwrap();
            }
            (_, Some((name, values))) => session.feed(&program, name, Values::Float(values)).unwrap(),
            (_, None) if input.name == "lr" => session.feed(&program, "lr", Values::Float(&[LR])).unwrap(),
            (_, None) => {
                let seed = if input.name == "x" { 0.3 } else { 0.7 };
                session.feed(&program, &input.name, Values::Float(&numbers(count, seed))).unwrap();
            }
        }
    }
    (session, program)
}

/// One weight for all.
#[derive(Debug)]
struct Lump;

impl Scheme for Lump {
    fn weights(&self, tape: &mut Tape, seen: &Seen) -> Result<Var> {
        tape.mean_all(seen.losses)
    }
}

#[test]
fn weights_are_one_for_each_loss() {
    let (net, data) = (network(), given());
    let error = step(&net, &data, 0).weighted(&mut Tape::new(), &Lump).unwrap_err().to_string();
    assert_eq!(error, "Lump: weights must be [6], one for each loss, got []");
}

/// `L_meta(w − α Σ_i ε_i ∇ℓ_i(w))` as a program with the input `eps`.
fn perturbed_meta_loss() -> Tape {
    let net = network();
    let mut tape = Tape::new();
    let mut w = Params::classifier();
    let losses = |tape: &mut Tape, w: &mut Params, n: usize, suffix: &str| {
        let x = tape.input(&format!("x{suffix}"), Kind::Float, [n, 4, 3, 1]).unwrap();
        let y = tape.input(&format!("y{suffix}"), Kind::Int, [n]).unwrap();
        let logits = net.logits(&mut Forward::new(tape, w, Normalisation::Batch), x).unwrap();
        tape.cross_entropy(logits, y).unwrap()
    };
    let train = losses(&mut tape, &mut w, N, "");
    let eps = tape.input("eps", Kind::Float, [N]).unwrap();
    let gradient = tape.vjp(&[(train, eps)], &w.vars()).unwrap();
    let moved = w.vars().into_iter().zip(gradient).map(|(w, g)| {
        let step = tape.scale(g.unwrap(), LR).unwrap();
        tape.sub(w, step).unwrap()
    });
    let moved = moved.collect();
    let mut virtual_w = w.with(moved);
    let meta = losses(&mut tape, &mut virtual_w, M, "_meta");
    let mean = tape.mean_all(meta).unwrap();
    tape.output("meta_loss", mean).unwrap();
    tape
}

fn meta_loss_after(eps: Vec<f64>) -> f64 {
    let (mut session, program) = prepare(&perturbed_meta_loss(), &[("eps", eps)]);
    session.run(&program).unwrap();
    session.fetch(&program, "meta_loss").unwrap()[0]
}

#[test]
fn l2rw_is_the_meta_gradient_in_the_weights() {
    let (net, data) = (network(), given());
    let mut tape = Tape::new();
    L2rw.record(&mut tape, &step(&net, &data, 0)).unwrap();
    let (mut session, program) = prepare(&tape, &[]);
    let before = session.read_state("w.fc2.bias").unwrap();
    session.run(&program).unwrap();
    let after = session.read_state("w.fc2.bias").unwrap();
    let (weights, u) = (session.fetch(&program, "weight").unwrap(), session.fetch(&program, "u").unwrap());

    // −∂L_meta/∂ε_i at ε = 0, by central differences.
    let probe = 1e-5;
    let slope: Vec<f64> = (0..N)
        .map(|i| {
            let at = |size: f64| {
                let mut eps = vec![0.0; N];
                eps[i] = size;
                meta_loss_after(eps)
            };
            -(at(probe) - at(-probe)) / (2.0 * probe)
        })
        .collect();
    assert!(slope.iter().any(|s| *s > 1e-4) && slope.iter().any(|s| *s < -1e-4), "{slope:?}");
    let total: f64 = slope.iter().map(|s| s.max(0.0)).sum();
    for i in 0..N {
        assert!((LR * u[i] - slope[i]).abs() < 1e-8, "{i}: {} and {}", LR * u[i], slope[i]);
        let want = N as f64 * slope[i].max(0.0) / total;
        assert!((weights[i] - want).abs() < 1e-5, "{i}: {} and {want}", weights[i]);
    }
    assert!((weights.iter().sum::<f64>() - N as f64).abs() < 1e-12);
    assert!(before != after);
}

#[test]
fn glc_corrects_the_loss_and_learns_from_both_sets() {
    let (net, data) = (network(), given());
    let matrix = vec![0.6, 0.3, 0.1, 0.2, 0.7, 0.1, 0.0, 0.5, 0.5];
    let mut tape = Tape::new();
    Glc { sizes: [30, 10] }.record(&mut tape, &step(&net, &data, 1)).unwrap();
    // The probabilities of the same network, and its loss as one function of the parameters.
    let (mut session, program) = prepare(&tape, &[("scheme.transition", matrix.clone())]);
    let logits = |session: &Session, suffix: &str, n: usize| -> Vec<Vec<f64>> {
        let state = |name: &str| session.read_state(name).unwrap();
        let (w1, b1, w2, b2) =
            (state("w.fc1.weight"), state("w.fc1.bias"), state("w.fc2.weight"), state("w.fc2.bias"));
        let x = numbers(n * 12, if suffix.is_empty() { 0.3 } else { 0.7 });
        let layer = |x: &[f64], w: &[f64], b: &[f64]| -> Vec<f64> {
            let out = b.len();
            (0..out).map(|o| b[o] + (0..x.len()).map(|i| x[i] * w[i * out + o]).sum::<f64>()).collect()
        };
        x.chunks(12)
            .map(|x| {
                let hidden: Vec<f64> = layer(x, &w1, &b1).iter().map(|h| h.max(0.0)).collect();
                layer(&hidden, &w2, &b2)
            })
            .collect()
    };
    let softmax = |z: &Vec<f64>| -> Vec<f64> {
        let sum: f64 = z.iter().map(|z| z.exp()).sum();
        z.iter().map(|z| z.exp() / sum).collect()
    };
    let corrected = |session: &Session| -> Vec<f64> {
        let p = logits(session, "", N);
        let p = p.iter().map(softmax).enumerate();
        p.map(|(i, p)| -(0..3).map(|k| p[k] * matrix[3 * k + i % 3]).sum::<f64>().ln()).collect()
    };
    let clean = |session: &Session| -> f64 {
        let p = logits(session, "_meta", M);
        p.iter().map(softmax).enumerate().map(|(i, p)| -p[i % 3].ln()).sum::<f64>() / M as f64
    };
    let whole =
        |session: &Session| 0.75 * corrected(session).iter().sum::<f64>() / N as f64 + 0.25 * clean(session);
    let want = corrected(&session);
    // The gradient by central differences, in one parameter.
    let mut bias = session.read_state("w.fc2.bias").unwrap();
    let old = bias[1];
    let mut at = |value: f64| {
        bias[1] = value;
        session.write_state("w.fc2.bias", Values::Float(&bias)).unwrap();
        whole(&session)
    };
    let gradient = (at(old + 1e-5) - at(old - 1e-5)) / 2e-5;
    at(old);
    session.run(&program).unwrap();
    for (got, want) in session.fetch(&program, "loss").unwrap().iter().zip(want) {
        assert!((got - want).abs() < 1e-12, "{got} and {want}");
    }
    let moved = session.read_state("w.fc2.bias").unwrap()[1] - old;
    assert!((moved + LR * gradient).abs() < 1e-9, "{moved} and {}", -LR * gradient);
}

#[test]
fn co_teaching_networks_learn_from_each_other() {
    let (net, data) = (network(), given());
    let choice = CoTeaching::new(0.5);
    let mut tape = Tape::new();
    choice.record(&mut tape, &step(&net, &data, 0)).unwrap();
    let (mut session, program) = prepare(&tape, &choice.inputs(&moment(20, N)));
    session.run(&program).unwrap();
    let of = |name: &str| session.fetch(&program, name).unwrap();
    let (first, second, weight) = (of("loss"), of("loss2"), of("weight"));
    let smallest = |losses: &[f64]| -> Vec<f64> {
        let mut sorted = losses.to_vec();
        sorted.sort_by(f64::total_cmp);
        losses.iter().map(|l| f64::from(*l < sorted[N / 2])).collect()
    };
    assert_eq!(weight, smallest(&second));
    assert_ne!(weight, smallest(&first), "numbers that tell the two networks apart");

    // The first network's step is that of a network whose samples have these weights.
    let moved = session.read_state("w.fc1.weight").unwrap();
    let mut tape = Tape::new();
    let halves = AdaBoost::default();
    halves.record(&mut tape, &step(&net, &data, 0)).unwrap();
    // Over n, so half of the samples with weight 2 are their mean.
    let doubled: Vec<f64> = weight.iter().map(|w| 2.0 * w).collect();
    let (mut alone, program) = prepare(&tape, &[("scheme.sample_weights", doubled)]);
    alone.run(&program).unwrap();
    for (got, want) in moved.iter().zip(alone.read_state("w.fc1.weight").unwrap()) {
        assert!((got - want).abs() < 1e-14, "{got} and {want}");
    }
}

/// V and its slope over the loss at θ = (fc1.weight, fc1.bias, fc2.weight `[units, groups]`,
/// fc2.bias `[groups]`).
fn v(theta: &[Vec<f64>], group: usize, loss: f64) -> (f64, f64) {
    let groups = theta[3].len();
    let own = theta[2].iter().skip(group).step_by(groups);
    let units = theta[0].iter().zip(&theta[1]).zip(own);
    let units: Vec<(f64, f64, f64)> =
        units.map(|((a, b), c)| (*a, *b, *c)).filter(|u| u.0 * loss + u.1 > 0.0).collect();
    let z = theta[3][group] + units.iter().map(|(a, b, c)| c * (a * loss + b)).sum::<f64>();
    let dz: f64 = units.iter().map(|(a, _, c)| c * a).sum();
    let v = 1.0 / (1.0 + (-z).exp());
    (v, v * (1.0 - v) * dz)
}

/// Groups of the batch's samples; their labels are 0, 1, 2, 0, ….
fn group(weight_net: &WeightNet, sample: usize) -> usize {
    weight_net.groups.get(sample % 3).copied().unwrap_or(0)
}

/// c of the virtual step: V/n; V/S; or undetached (V + V′ℓ − V′F)/S.
fn shares(scheme: &MwNet, theta: &[Vec<f64>], losses: &[f64]) -> Vec<f64> {
    let v = |(i, loss): (usize, &f64)| v(theta, group(&scheme.weight_net, i), *loss);
    let all: Vec<(f64, f64)> = losses.iter().enumerate().map(v).collect();
    let sum: f64 = all.iter().map(|v| v.0).sum();
    let mean = all.iter().zip(losses).map(|(v, l)| v.0 * l).sum::<f64>() / sum;
    let share =
        |((v, slope), loss): (&(f64, f64), &f64)| match (scheme.config.weights, scheme.config.undetached) {
            (Weights::Mean, _) => v / losses.len() as f64,
            (Weights::Normalised, false) => v / sum,
            (Weights::Normalised, true) => (v + slope * loss - slope * mean) / sum,
        };
    all.iter().zip(losses).map(share).collect()
}

const THETA: [&str; 4] = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"];

/// By parameter, the states of this prefix.
fn theta_states(session: &Session, prefix: &str) -> Vec<Vec<f64>> {
    THETA.iter().map(|name| session.read_state(&format!("{prefix}.{name}")).unwrap()).collect()
}

/// What the 501st step takes from a parameter, in learning rates, at this gradient and these
/// moments: the published rules.
fn direction(rule: &Optimiser, theta: f64, gradient: f64, moments: [f64; 2]) -> f64 {
    match rule {
        Optimiser::Adam(_) => {
            let g = gradient + 1e-4 * theta;
            let [m, q] = [0.9 * moments[0] + 0.1 * g, 0.999 * moments[1] + 0.001 * g * g];
            let [m, q] = [m / (1.0 - 0.9f64.powi(501)), q / (1.0 - 0.999f64.powi(501))];
            m / (q.sqrt() + 1e-8)
        }
        Optimiser::Sgd(_) => {
            let g = gradient + 5e-4 * theta;
            g + 0.9 * (0.9 * moments[0] + g)
        }
    }
}

/// A step of the recipe: its weights, and θ's movement against differences of the meta loss over
/// the shares worked out above.
fn takes_the_step_of(recipe: MwNetRecipe, lr: f64, groups: Vec<usize>) {
    let weight_net = WeightNet { hidden: 3, init: WeightNetInit::Faithful, slope: 1.0, groups };
    let config = StepConfig {
        weights: recipe.weights,
        undetached: recipe.undetached,
        classifier: Sgd::PLAIN,
        weight_net: recipe.weight_net.optimiser().0,
        ..StepConfig::default()
    };
    assert_eq!(recipe.weight_net.optimiser().1, lr);
    let scheme = MwNet { weight_net, config, lr, theta_every: 1 };
    let (net, data) = (network(), given());
    let mut tape = Tape::new();
    scheme.record(&mut tape, &step(&net, &data, 0)).unwrap();
    let (mut session, program) = prepare(&tape, &scheme.inputs(&moment(0, N)));
    let rule = &scheme.config.weight_net;
    let moments: &[&str] = match rule {
        Optimiser::Adam(_) => &["theta.moment", "theta.moment2"],
        Optimiser::Sgd(_) => &["theta.moment"],
    };
    // Second moments are not negative.
    for prefix in moments {
        for (name, values) in THETA.iter().zip(theta_states(&session, prefix)) {
            let values: Vec<f64> = values.iter().map(|x| x.abs()).collect();
            session.write_state(&format!("{prefix}.{name}"), Values::Float(&values)).unwrap();
        }
    }
    if let Optimiser::Adam(_) = rule {
        // Its clock after 500 steps.
        for (clock, beta) in [("clock1", 0.9f64), ("clock2", 0.999)] {
            let value = [1.0 - beta.powi(500)];
            session.write_state(&format!("theta.moment.{clock}"), Values::Float(&value)).unwrap();
        }
    }
    let before = theta_states(&session, "theta");
    let buffers: Vec<_> = moments.iter().map(|prefix| theta_states(&session, prefix)).collect();
    session.run(&program).unwrap();
    let (losses, after) = (session.fetch(&program, "loss").unwrap(), theta_states(&session, "theta"));
    for (i, got) in session.fetch(&program, "weight").unwrap().iter().enumerate() {
        assert!((got - v(&before, group(&scheme.weight_net, i), losses[i]).0).abs() < 1e-14);
    }
    for p in 0..THETA.len() {
        for i in 0..before[p].len() {
            let at = |by: f64| {
                let mut theta = before.clone();
                theta[p][i] += by;
                meta_loss_after(shares(&scheme, &theta, &losses))
            };
            let gradient = (at(1e-4) - at(-1e-4)) / 2e-4;
            let moments = [0, 1].map(|m| buffers.get(m).map_or(0.0, |b| b[p][i]));
            let want = lr * direction(rule, before[p][i], gradient, moments);
            let moved = before[p][i] - after[p][i];
            let what = format!("{recipe:?}: {}[{i}]: {moved}, should be {want}", THETA[p]);
            assert!((moved - want).abs() < 1e-7 * want.abs().max(lr), "{what}");
        }
    }
}

#[test]
fn mw_net_takes_its_recipes_steps() {
    takes_the_step_of(MwNetRecipe::NOISE, 1e-3, Vec::new());
    takes_the_step_of(MwNetRecipe::NOISE_WRN, 1e-3, Vec::new());
    takes_the_step_of(MwNetRecipe::LONG_TAIL, 1e-5, Vec::new());
}

#[test]
fn a_class_aware_v_has_one_curve_a_group() {
    for recipe in [MwNetRecipe::CLASS_AWARE, MwNetRecipe::LONG_TAIL] {
        let lr = recipe.weight_net.optimiser().1;
        takes_the_step_of(recipe, lr, vec![0, 1, 1]);
        takes_the_step_of(recipe, lr, vec![2, 0, 1]);
    }
}

#[test]
fn a_class_aware_v_is_drawn_group_by_group() {
    let weight_net =
        WeightNet { hidden: 3, init: WeightNetInit::Faithful, slope: 1.0, groups: vec![2, 0, 1] };
    let scheme = MwNet { weight_net, config: StepConfig::default(), lr: 1e-3, theta_every: 1 };
    assert_eq!(scheme.groups(), [("large classes", 1), ("medium classes", 2), ("small classes", 0)]);
    let mut tape = Tape::new();
    let losses = tape.input("loss", Kind::Float, [N]).unwrap();
    let labels = tape.input("y", Kind::Int, [N]).unwrap();
    let curve = scheme.curve(&mut tape, &Seen { losses, labels }).unwrap().unwrap();
    tape.output("weight", curve).unwrap();
    let given: Vec<f64> = (0..N).map(|i| i as f64).collect();
    let inputs = [scheme.inputs(&moment(0, N)), vec![("loss", given.clone())]].concat();
    let (mut session, program) = prepare(&tape, &inputs);
    session.run(&program).unwrap();
    let theta = theta_states(&session, "theta");
    for (i, got) in session.fetch(&program, "weight").unwrap().iter().enumerate() {
        assert!((got - v(&theta, group(&scheme.weight_net, i), given[i]).0).abs() < 1e-14, "sample {i}");
    }
}

#[test]
fn methods_without_weights_take_the_uniform_step() {
    let (net, data) = (network(), given());
    let moved = |scheme: &dyn Scheme, weighted: bool| {
        let mut tape = Tape::new();
        scheme.record(&mut tape, &step(&net, &data, 0)).unwrap();
        let (mut session, program) = prepare(&tape, &scheme.inputs(&moment(0, N)));
        session.run(&program).unwrap();
        assert_eq!(program.output("weight").is_ok(), weighted);
        session.read_state("w.fc1.weight").unwrap()
    };
    let uniform = moved(&Uniform, true);
    // Either set alone, and the first network of GLC.
    for scheme in [&FineTune::default() as &dyn Scheme, &CleanOnly, &Glc { sizes: [30, 10] }] {
        for (got, want) in moved(scheme, false).iter().zip(&uniform) {
            assert!((got - want).abs() < 1e-14, "{scheme:?}: {got} and {want}");
        }
    }
}

/// The means of `CE(f(x_i), t_i)` with `t_i = V_i e_{y_i} + (1 − V_i) z_i`, from probabilities and
/// logarithms (`soft_loss`), and of the meta loss, at w (`meta_loss`) and after a plain step down
/// the first, with α = 0.05 (`meta_after`); `p` `[n, 3]`. To the training batch's logits `offset`
/// is added. Inputs: `v` `[n]`, `z` `[n, 3]`, `offset` `[3]`.
fn soft_labels() -> Tape {
    let net = network();
    let mut tape = Tape::new();
    let mut w = Params::classifier();
    let logits = |tape: &mut Tape, w: &mut Params, n: usize, suffix: &str| {
        let x = tape.input(&format!("x{suffix}"), Kind::Float, [n, 4, 3, 1]).unwrap();
        net.logits(&mut Forward::new(tape, w, Normalisation::Batch), x).unwrap()
    };
    let out = logits(&mut tape, &mut w, N, "");
    let offset = tape.input("offset", Kind::Float, [3]).unwrap();
    let offset = tape.broadcast_to(offset, [N, 3].into()).unwrap();
    let out = tape.add(out, offset).unwrap();
    let p = tape.softmax(out).unwrap();
    let log_p = tape.unary(Unary::Log, p).unwrap();
    let y = tape.input("y", Kind::Int, [N]).unwrap();
    let given = tape.one_hot(y, 3).unwrap();
    let z = tape.input("z", Kind::Float, [N, 3]).unwrap();
    let v = tape.input("v", Kind::Float, [N]).unwrap();
    let v = tape.broadcast(v, 1, 2, &[N, 3].into()).unwrap();
    let away = tape.sub(given, z).unwrap();
    let away = tape.mul(v, away).unwrap();
    let target = tape.add(z, away).unwrap();
    let product = tape.mul(target, log_p).unwrap();
    let sum = tape.sum_all(product).unwrap();
    let loss = tape.scale(sum, -1.0 / N as f64).unwrap();
    let gradient = tape.gradient(loss, &w.vars()).unwrap();
    let moved = w.vars().into_iter().zip(gradient).map(|(w, g)| {
        let step = tape.scale(g, LR).unwrap();
        tape.sub(w, step).unwrap()
    });
    let moved = moved.collect();
    let y_meta = tape.input("y_meta", Kind::Int, [M]).unwrap();
    for (name, mut w) in [("meta_after", w.with(moved)), ("meta_loss", w)] {
        let out = logits(&mut tape, &mut w, M, "_meta");
        let losses = tape.cross_entropy(out, y_meta).unwrap();
        let mean = tape.mean_all(losses).unwrap();
        tape.output(name, mean).unwrap();
    }
    tape.output("p", p).unwrap();
    tape.output("soft_loss", loss).unwrap();
    tape
}

/// [`soft_labels`]' soft_loss, meta_loss, meta_after and p with these soft labels, weights, offsets
/// and parameters.
fn soft_objective(z: &[f64], v: &[f64], offset: &[f64], w: &[Vec<f64>]) -> [Vec<f64>; 4] {
    let given = [("z", z.to_vec()), ("v", v.to_vec()), ("offset", offset.to_vec())];
    let (mut session, program) = prepare(&soft_labels(), &given);
    for (name, values) in THETA.iter().zip(w) {
        session.write_state(&format!("w.{name}"), Values::Float(values)).unwrap();
    }
    session.run(&program).unwrap();
    ["soft_loss", "meta_loss", "meta_after", "p"].map(|name| session.fetch(&program, name).unwrap())
}

/// That w has taken a plain step down a loss, by the loss's differences.
fn went_down(before: &[Vec<f64>], after: &[Vec<f64>], loss: impl Fn(&[Vec<f64>]) -> f64) {
    for p in 0..THETA.len() {
        for i in 0..before[p].len() {
            let by = |by: f64| {
                let mut w = before.to_vec();
                w[p][i] += by;
                loss(&w)
            };
            let want = LR * (by(1e-5) - by(-1e-5)) / 2e-5;
            let moved = before[p][i] - after[p][i];
            assert!((moved - want).abs() < 1e-9, "w {}[{i}]: {moved}, should be {want}", THETA[p]);
        }
    }
}

/// A step with θ's, or with θ as it is: z, u, both movements, by differences of [`soft_labels`].
fn soft_step(stage: usize, sizes: [usize; 2]) {
    let weight_net = WeightNet { hidden: 3, init: WeightNetInit::Faithful, slope: 1.0, groups: Vec::new() };
    let rule = Optimiser::Sgd(Sgd::PLAIN);
    let prior = SoftMwNet::prior_of(&[59, 29, 9], &[2, 4, 1]);
    for (got, share) in prior.iter().zip([0.6 / 0.3, 0.3 / 0.5, 0.1 / 0.2_f64]) {
        assert!((got - share.ln()).abs() < 1e-14);
    }
    let (classes, inertia, learns) = (3, 0.6, [0, 9]);
    let offsets = prior.clone();
    let scheme = SoftMwNet { weight_net, rule, lr: 0.3, sizes, classes, prior, inertia, learns };
    let (net, data) = (network(), given());
    let mut tape = Tape::new();
    scheme.record(&mut tape, &step(&net, &data, stage)).unwrap();
    // Half of the batch has been seen before.
    let (positions, mut memory) = ([4, 1, 7, 0, 2, 9], Memory::new());
    let before = [0.2, 0.5, 0.3, 0.7, 0.1, 0.2, 0.0, 0.9, 0.1];
    scheme.remember(&mut memory, &positions[..3], &before);
    let now = Moment { positions: &positions, memory: &memory, ..moment(0, N) };
    let (mut session, program) = prepare(&tape, &scheme.inputs(&now));
    let [theta, w] = ["theta", "w"].map(|prefix| theta_states(&session, prefix));
    session.run(&program).unwrap();
    let fetch = |name: &str| session.fetch(&program, name).unwrap();
    let z = fetch("predictions");

    let at = |v: &[f64], w: &[Vec<f64>]| soft_objective(&z, v, &offsets, w);
    let read: Vec<f64> = (0..N).map(|i| -(z[i * 3 + i % 3] + 1e-6).ln()).collect();
    let ratio =
        |theta: &[Vec<f64>]| read.iter().map(|l| v(theta, 0, *l).0 / v(theta, 0, 0.0).0).collect::<Vec<_>>();
    let curve = |theta: &[Vec<f64>]| ratio(theta).iter().map(|r| r.min(1.0)).collect::<Vec<_>>();
    let p = &at(&curve(&theta), &w)[3];
    for i in 0..N * 3 {
        let want = before.get(i).map_or(p[i], |z| 0.6 * z + 0.4 * p[i]);
        assert!((z[i] - want).abs() < 1e-14, "z[{i}] is {}, should be {want}", z[i]);
    }
    // What V reads of a sample that has a z, at its place in the training set, and of one that has
    // none.
    scheme.remember(&mut memory, &positions, &z);
    let given: Vec<i32> =
        (0..10).map(|i| positions.iter().position(|p| *p == i).map_or(0, |i| i as i32 % 3)).collect();
    let reads = scheme.reads(&memory, &given, vec![7.0; 10]);
    for (place, value) in reads.iter().enumerate() {
        let want = positions.iter().position(|p| *p as usize == place).map_or(7.0, |i| read[i]);
        assert!((value - want).abs() < 1e-12, "{place}: {value}, should be {want}");
    }
    let after = theta_states(&session, "theta");
    if stage == 0 {
        let (first, u) = (ratio(&theta), fetch("u"));
        for i in 0..N {
            let by = |by: f64| {
                let mut v = curve(&theta);
                v[i] += by;
                at(&v, &w)[2][0]
            };
            let want = -(by(1e-4) - by(-1e-4)) / 2e-4 * N as f64 / LR;
            assert!((u[i] - want).abs() < 1e-7, "u[{i}] is {}, should be {want}", u[i]);
        }
        // Each weight moves with its ratio, but for those that ask for more than 1.
        let meta_after = |theta: &[Vec<f64>]| {
            let mut v: Vec<f64> = first.iter().map(|r| r.min(1.0)).collect();
            for (i, r) in ratio(theta).iter().enumerate() {
                v[i] += if u[i] > 0.0 && first[i] > 1.0 { 0.0 } else { r - first[i] };
            }
            at(&v, &w)[2][0]
        };
        for p in 0..THETA.len() {
            for i in 0..theta[p].len() {
                let by = |by: f64| {
                    let mut theta = theta.clone();
                    theta[p][i] += by;
                    meta_after(&theta)
                };
                let want = 0.3 * (by(1e-4) - by(-1e-4)) / 2e-4;
                let moved = theta[p][i] - after[p][i];
                assert!((moved - want).abs() < 1e-9, "{}[{i}]: {moved}, should be {want}", THETA[p]);
            }
        }
    } else {
        assert_eq!(theta, after);
    }
    let weights = curve(&after);
    for (got, want) in fetch("weight").iter().zip(&weights) {
        assert!((got - want).abs() < 1e-14);
    }
    let doubt = 1.0 - weights.iter().sum::<f64>() / N as f64;
    let ratio = sizes[1] as f64 / sizes[0] as f64;
    let room = if stage == 2 { doubt.max(ratio).min(8.0 * ratio) } else { 0.0 };
    went_down(&w, &theta_states(&session, "w"), |w| {
        let [soft, meta, ..] = at(&weights, w);
        (soft[0] + room * meta[0]) / (1.0 + room)
    });
}

#[test]
fn soft_labels_take_what_v_withholds_and_the_meta_set_the_room() {
    soft_step(0, [1000, 10]);
    soft_step(1, [1000, 10]);
    soft_step(2, [1000, 10]);
    // The meta set counts at least as its size says, and at most eight times that.
    soft_step(2, [10, 9]);
    soft_step(2, [1000, 100]);
}

#[test]
fn both_sets_are_one() {
    let (net, data) = (network(), given());
    let mut tape = Tape::new();
    Mixed { sizes: [30, 10] }.record(&mut tape, &step(&net, &data, 0)).unwrap();
    let (mut session, program) = prepare(&tape, &[]);
    let w = theta_states(&session, "w");
    session.run(&program).unwrap();
    went_down(&w, &theta_states(&session, "w"), |w| {
        let [noisy, clean, ..] = soft_objective(&[0.0; 3 * N], &[1.0; N], &[0.0; 3], w);
        0.75 * noisy[0] + 0.25 * clean[0]
    });
}

#[test]
fn the_oracle_leaves_out_wrong_labels_and_counts_all_others_the_same() {
    let (net, data) = (network(), given());
    // Of 30 training samples 20 are right; the batch has one that is not.
    let mut right = vec![1.0; 30];
    right[..10].fill(0.0);
    let oracle = Oracle { right, meta: 10 };
    let positions: Vec<u32> = (0..N as u32).map(|i| 9 + i).collect();
    let memory = Memory::new();
    let now = Moment { step: 0, steps: 1, epoch: 0, batch: N, positions: &positions, memory: &memory };
    let inputs = oracle.inputs(&now);
    let r: Vec<f64> = (0..N).map(|i| if i == 0 { 0.0 } else { 1.0 }).collect();
    assert_eq!(inputs, [("scheme.right", r.clone())]);
    let mut tape = Tape::new();
    oracle.record(&mut tape, &step(&net, &data, 0)).unwrap();
    let (mut session, program) = prepare(&tape, &inputs);
    let w = theta_states(&session, "w");
    session.run(&program).unwrap();
    went_down(&w, &theta_states(&session, "w"), |w| {
        // Soft labels of zeros: what a weight takes from a label goes nowhere.
        let [right, clean, ..] = soft_objective(&[0.0; 3 * N], &r, &[0.0; 3], w);
        30.0 / 30.0 * right[0] + 10.0 / 30.0 * clean[0]
    });
}
