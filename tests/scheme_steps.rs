//! The schemes whose training step is their own, on a small network in f64, against finite differences and formulas in loops; and
//! what happens between the stages of those that train several networks.

use metatape::backend::cpu::Cpu;
use metatape::meta::schemes::{
    AdaBoost, CoTeaching, FineTune, Glc, L2rw, Memory, Moment, MwNet, MwNetRecipe, Predictions, Scheme, Set,
    Stages, TrainStep, Trained, Uniform,
};
use metatape::meta::{Batch, Optimiser, Preset, Sgd, StepConfig, Weights};
use metatape::nn::{Architecture, Forward, Network, Normalisation, Params, WeightNet, WeightNetInit};
use metatape::program::{Options, Program, Session, Values};
use metatape::tape::{Kind, Tape};

static NOTHING: Memory = Memory::new();

fn moment(epoch: usize, batch: usize) -> Moment<'static> {
    Moment { step: 500, steps: 1000, epoch, batch, positions: &[], memory: &NOTHING }
}

const N: usize = 6;
const M: usize = 4;
const LR: f64 = 0.05;

fn network() -> Network {
    Network { image: [4, 3, 1], classes: 3, architecture: Architecture::Mlp(5) }
}

fn sgd() -> Optimiser {
    Optimiser::Sgd(Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 })
}

fn step<'a>(net: &'a Network, data: &'a Batch, stage: usize) -> TrainStep<'a> {
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

/// `L_meta(w − α Σ_i ε_i ∇ℓ_i(w))` as a program with the input `eps`.
fn perturbed_meta_loss() -> Tape {
    let net = network();
    let mut tape = Tape::new();
    let w = Params::states(&mut tape, "w", &net.params()).unwrap();
    let losses = |tape: &mut Tape, w: &Params, n: usize, suffix: &str| {
        let x = tape.input(&format!("x{suffix}"), Kind::Float, [n, 4, 3, 1]).unwrap();
        let y = tape.input(&format!("y{suffix}"), Kind::Int, [n]).unwrap();
        let logits = net.logits(&mut Forward::new(tape, w, Normalisation::Batch), x).unwrap();
        tape.cross_entropy(logits, y).unwrap()
    };
    let train = losses(&mut tape, &w, N, "");
    let eps = tape.input("eps", Kind::Float, [N]).unwrap();
    let gradient = tape.vjp(&[(train, eps)], &w.vars()).unwrap();
    let moved = w.vars().into_iter().zip(gradient).map(|(w, g)| {
        let step = tape.scale(g.unwrap(), LR).unwrap();
        tape.sub(w, step).unwrap()
    });
    let moved = moved.collect();
    let virtual_w = w.with(moved);
    let meta = losses(&mut tape, &virtual_w, M, "_meta");
    let mean = tape.mean_all(meta).unwrap();
    tape.output("meta_loss", mean);
    tape
}

fn meta_loss_after(eps: Vec<f64>) -> f64 {
    let (mut session, program) = prepare(&perturbed_meta_loss(), &[("eps", eps)]);
    session.run(&program).unwrap();
    session.fetch(&program, "meta_loss").unwrap()[0]
}

#[test]
fn l2rw_is_the_meta_gradient_in_the_weights() {
    let (net, data) = (network(), Batch::Given);
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
    let (net, data) = (network(), Batch::Given);
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
    let (net, data) = (network(), Batch::Given);
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

/// V, its slope over the loss, at θ = (fc1.weight, fc1.bias, fc2.weight, fc2.bias).
fn v(theta: &[Vec<f64>], loss: f64) -> (f64, f64) {
    let units = || theta[0].iter().zip(&theta[1]).zip(&theta[2]).filter(|((a, b), _)| **a * loss + **b > 0.0);
    let z = theta[3][0] + units().map(|((a, b), c)| c * (a * loss + b)).sum::<f64>();
    let dz: f64 = units().map(|((a, _), c)| c * a).sum();
    let v = 1.0 / (1.0 + (-z).exp());
    (v, v * (1.0 - v) * dz)
}

/// c of the virtual step, of a recipe: V/n; V/S; or undetached (V + V′ℓ − V′F)/S.
fn shares(recipe: &MwNetRecipe, theta: &[Vec<f64>], losses: &[f64]) -> Vec<f64> {
    let all: Vec<(f64, f64)> = losses.iter().map(|l| v(theta, *l)).collect();
    let sum: f64 = all.iter().map(|v| v.0).sum();
    let mean = all.iter().zip(losses).map(|(v, l)| v.0 * l).sum::<f64>() / sum;
    let share = |((v, slope), loss): (&(f64, f64), &f64)| match (recipe.weights, recipe.undetached) {
        (Weights::Mean, _) => v / losses.len() as f64,
        (Weights::Normalised, false) => v / sum,
        (Weights::Normalised, true) => (v + slope * loss - slope * mean) / sum,
    };
    all.iter().zip(losses).map(share).collect()
}

#[test]
fn mw_net_takes_its_recipes_steps() {
    const NAMES: [&str; 4] = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"];
    let weight_net = WeightNet { hidden: 3, init: WeightNetInit::Faithful, slope: 1.0 };
    for recipe in [MwNetRecipe::NOISE, MwNetRecipe::NOISE_WRN, MwNetRecipe::LONG_TAIL] {
        let (rule, lr) = recipe.weight_net.optimiser();
        let config = StepConfig {
            weights: recipe.weights,
            undetached: recipe.undetached,
            classifier: Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 },
            weight_net: rule,
            ..StepConfig::default()
        };
        let scheme = MwNet { weight_net: weight_net.clone(), config, lr };
        let (net, data) = (network(), Batch::Given);
        let mut tape = Tape::new();
        scheme.record(&mut tape, &step(&net, &data, 0)).unwrap();
        let (mut session, program) = prepare(&tape, &scheme.inputs(&moment(0, N)));
        let states = |session: &Session, prefix: &str| -> Vec<Vec<f64>> {
            NAMES
                .map(|n| {
                    session.read_state(&format!("{prefix}.{n}")).unwrap().iter().map(|x| x.abs()).collect()
                })
                .into()
        };
        // Second moments are not negative.
        let moments: &[&str] = match rule {
            Optimiser::Adam(_) => &["theta.moment", "theta.moment2"],
            Optimiser::Sgd(_) => &["theta.moment"],
        };
        for prefix in moments {
            for (name, values) in NAMES.iter().zip(states(&session, prefix)) {
                session.write_state(&format!("{prefix}.{name}"), Values::Float(&values)).unwrap();
            }
        }
        let theta = || NAMES.map(|n| session.read_state(&format!("theta.{n}")).unwrap());
        let before = theta();
        let buffers: Vec<Vec<Vec<f64>>> = moments.iter().map(|p| states(&session, p)).collect();
        session.run(&program).unwrap();
        let losses = session.fetch(&program, "loss").unwrap();
        for (got, loss) in session.fetch(&program, "weight").unwrap().iter().zip(&losses) {
            assert!((got - v(&before, *loss).0).abs() < 1e-14);
        }
        let after = NAMES.map(|n| session.read_state(&format!("theta.{n}")).unwrap());
        let loss_at = |theta: &[Vec<f64>]| meta_loss_after(shares(&recipe, theta, &losses));
        for (p, name) in NAMES.iter().enumerate() {
            for i in 0..before[p].len() {
                let at = |by: f64| {
                    let mut theta = before.clone();
                    theta[p][i] += by;
                    loss_at(&theta)
                };
                let gradient = (at(1e-4) - at(-1e-4)) / 2e-4;
                let direction = match rule {
                    Optimiser::Adam(_) => {
                        let g = gradient + 1e-4 * before[p][i];
                        let (m, q) =
                            (0.9 * buffers[0][p][i] + 0.1 * g, 0.999 * buffers[1][p][i] + 0.001 * g * g);
                        let (m, q) = (m / (1.0 - 0.9f64.powi(501)), q / (1.0 - 0.999f64.powi(501)));
                        m / (q.sqrt() + 1e-8)
                    }
                    Optimiser::Sgd(_) => {
                        let g = gradient + 5e-4 * before[p][i];
                        g + 0.9 * (0.9 * buffers[0][p][i] + g)
                    }
                };
                let want = match recipe.weight_net {
                    Preset::Adam | Preset::SgdNoise => 1e-3 * direction,
                    Preset::SgdImbalance => 1e-5 * direction,
                };
                let moved = before[p][i] - after[p][i];
                assert!(
                    (moved - want).abs() < 1e-7 * want.abs().max(lr),
                    "{recipe:?}: {name}[{i}]: {moved}, should be {want}"
                );
            }
        }
        assert_eq!(scheme.over(), recipe.weights);
    }
}

/// A network whose predictions are known.
struct Known {
    train: Predictions,
    meta: Predictions,
    test: Predictions,
}

impl Trained for Known {
    fn classes(&self) -> usize {
        3
    }

    fn labels(&self, _: Set) -> &[i32] {
        &[0, 1]
    }

    fn see(&mut self, set: Set) -> metatape::Result<Predictions> {
        Ok(match set {
            Set::Train => self.train.clone(),
            Set::Meta => self.meta.clone(),
            Set::Test => self.test.clone(),
        })
    }
}

/// A network that gets these training samples right, and takes the two test images for these classes.
fn known(hits: [f64; 4], test: [usize; 2]) -> Known {
    let one_hot = |class: &usize| (0..3).map(|k| if k == *class { 2.0 } else { -1.0 }).collect::<Vec<f64>>();
    let seen = |hits: &[f64], logits: Vec<f64>| Predictions { losses: vec![], hits: hits.to_vec(), logits };
    Known {
        train: seen(&hits, vec![]),
        meta: seen(&[], vec![0.0, 3f64.ln(), 0.0, 0.0, 0.0, 0.0]),
        test: seen(&[], test.iter().flat_map(one_hot).collect()),
    }
}

#[test]
fn adaboost_s_rounds_vote_together() {
    let (scheme, mut memory) = (AdaBoost { rounds: 3 }, Memory::new());
    let stages: &dyn Stages = scheme.stages().unwrap();
    assert_eq!((stages.count(), stages.steps()), (3, 1));
    assert_ne!(stages.seed(7, 1), stages.seed(7, 2));
    // ε = 1/4: α = ln 3 + ln 2; weights 2/3·(1, 1, 1, 6)/1.5 with mean 1.
    stages.next(&mut memory, &mut known([1.0, 1.0, 1.0, 0.0], [0, 1])).unwrap();
    for (got, want) in memory.get("sample_weights").iter().zip([4.0, 4.0, 4.0, 24.0].map(|w| w / 9.0)) {
        assert!((got - want).abs() < 1e-12);
    }
    // ε = (4/9)/4 = 1/9: α = ln 8 + ln 2. The weights of the wrong sample times 16: (64, 4, 4, 24)/9, mean 24/9.
    stages.next(&mut memory, &mut known([0.0, 1.0, 1.0, 1.0], [2, 1])).unwrap();
    for (got, want) in memory.get("sample_weights").iter().zip([64.0, 4.0, 4.0, 24.0].map(|w| w / 24.0)) {
        assert!((got - want).abs() < 1e-12);
    }
    // ε = 4/96 = 1/24: α = ln 23 + ln 2. First image: 0 by round 1, 2 by round 2, 0 by round 3.
    let votes = stages.scores(&memory, &mut known([1.0, 0.0, 1.0, 1.0], [0, 2])).unwrap();
    let want = [6f64.ln() + 46f64.ln(), 0.0, 16f64.ln(), 0.0, 6f64.ln() + 16f64.ln(), 46f64.ln()];
    for (got, want) in votes.iter().zip(want) {
        assert!((got - want).abs() < 1e-12, "{votes:?}");
    }
    // Looking at the votes of the last round changes nothing.
    assert!(memory.get("votes")[0] < 2.0);
}

#[test]
fn glc_hands_its_noise_matrix_on() {
    let (scheme, mut memory) = (Glc { sizes: [4, 2] }, Memory::new());
    let stages = scheme.stages().unwrap();
    assert_eq!((stages.count(), stages.steps(), stages.seed(7, 1)), (2, 2, 7));
    let mut network = known([1.0; 4], [0, 2]);
    stages.next(&mut memory, &mut network).unwrap();
    // Softmax of (0, ln 3, 0) is (0.2, 0.6, 0.2), and the class without images keeps its label.
    let want = [0.2, 0.6, 0.2, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.0, 0.0, 1.0];
    let given = scheme.inputs(&Moment { memory: &memory, ..moment(0, N) });
    assert_eq!(given[0].0, "scheme.transition");
    for (got, want) in given[0].1.iter().zip(want) {
        assert!((got - want).abs() < 3e-6, "{given:?}");
    }
    assert_eq!(stages.scores(&memory, &mut network).unwrap(), network.test.logits);
}

#[test]
fn methods_without_weights_take_the_uniform_step() {
    let (net, data) = (network(), Batch::Given);
    let moved = |scheme: &dyn Scheme, weighted: bool| {
        let mut tape = Tape::new();
        scheme.record(&mut tape, &step(&net, &data, 0)).unwrap();
        let (mut session, program) = prepare(&tape, &scheme.inputs(&moment(0, N)));
        session.run(&program).unwrap();
        assert_eq!(program.output("weight").is_ok(), weighted);
        session.read_state("w.fc1.weight").unwrap()
    };
    let uniform = moved(&Uniform, true);
    // Fine-tuning on either set, and the first network of GLC.
    for scheme in [&FineTune::default() as &dyn Scheme, &Glc { sizes: [30, 10] }] {
        for (got, want) in moved(scheme, false).iter().zip(&uniform) {
            assert!((got - want).abs() < 1e-14, "{scheme:?}: {got} and {want}");
        }
    }
}
