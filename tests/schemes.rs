//! The reweighting schemes against numbers worked out beside this program (a few lines of Python: `math.exp`, `math.log`), in f64 and in
//! f32, fused and not; those that need gradients against finite differences and the per-sample route.

use metatape::backend::cpu::Cpu;
use metatape::meta::schemes::{
    AdaBoost, ClassBalanced, CoTeaching, CoTeachingStep, FineTune, Focal, Gce, GemanMcClure, GlcStep,
    L2rwStep, MentorNet, Moment, Ohem, Scheme, Seen, SelfPaced, SelfPacedForm, Uniform, WeightedStep,
    transition,
};
use metatape::meta::{Batch, Optimiser, Sgd};
use metatape::nn::{Architecture, Forward, Network, Normalisation, Params};
use metatape::program::{Backend, Options, Program, Session, Values};
use metatape::tape::{Kind, Tape};

const LOSSES: [f64; 7] = [0.0, 0.1, 0.5, 1.0, 2.0, 3.0, 6.0];
const LABELS: [i32; 7] = [0, 1, 2, 0, 1, 2, 0];

fn machines() -> Vec<(Box<dyn Backend>, f64)> {
    vec![(Box::new(Cpu::<f64>::new(1).unwrap()), 1e-11), (Box::new(Cpu::<f32>::new(2).unwrap()), 2e-6)]
}

fn moment(epoch: usize, progress: f64, batch: usize) -> Moment<'static> {
    Moment { epoch, progress, batch, sample_weights: &[] }
}

/// The scheme's weights of a batch on every machine, `runs` times in a row; the last.
fn check(scheme: &dyn Scheme, losses: &[f64], labels: &[i32], now: &Moment, runs: usize, want: &[f64]) {
    for fuse in [true, false] {
        for (machine, tolerance) in machines() {
            let mut tape = Tape::new();
            let n = losses.len();
            let input = tape.input("loss", Kind::Float, [n]).unwrap();
            let y = tape.input("y", Kind::Int, [n]).unwrap();
            let weights = scheme.weights(&mut tape, &Seen { losses: input, labels: y }).unwrap();
            tape.output("weight", weights);
            let mut session = Session::new(machine);
            let program = session.compile(&tape, Options { fuse }).unwrap();
            session.feed(&program, "loss", Values::Float(losses)).unwrap();
            session.feed(&program, "y", Values::Int(labels)).unwrap();
            for (name, values) in scheme.inputs(now) {
                session.feed(&program, name, Values::Float(&values)).unwrap();
            }
            (0..runs).for_each(|_| session.run(&program).unwrap());
            let got = session.fetch(&program, "weight").unwrap();
            assert_eq!(got.len(), want.len());
            for (i, (a, b)) in got.iter().zip(want).enumerate() {
                assert!((a - b).abs() <= tolerance, "{scheme:?}, sample {i}: {a}, should be {b}");
            }
        }
    }
}

fn check_curve(scheme: &dyn Scheme, epoch: usize, want: [f64; 7]) {
    check(scheme, &LOSSES, &LABELS, &moment(epoch, 0.9, 7), 1, &want);
}

#[test]
fn functions_of_the_loss() {
    check_curve(&Uniform, 0, [1.0; 7]);
    let focal =
        [0.0, 0.009055917006, 0.154818121746, 0.399576400894, 0.747645072416, 0.902904615441, 0.995048639859];
    check_curve(&Focal::default(), 0, focal);
    let root =
        [0.0, 0.308484330176, 0.627271345023, 0.795060097621, 0.929873495032, 0.974788659983, 0.998759854932];
    check_curve(&Focal { gamma: 0.5 }, 0, root);
    let gce =
        [1.0, 0.932393819906, 0.704688089719, 0.496585303791, 0.246596963942, 0.122456428253, 0.01499557682];
    check_curve(&Gce::default(), 0, gce);
    // σ = ln 10
    let robust =
        [1.0, 0.996238411596, 0.91196837927, 0.707815388637, 0.324877473134, 0.137428053523, 0.016478691861];
    check_curve(&GemanMcClure::new(10), 0, robust);
    // σ = 2: (4/(ℓ² + 4))²
    let wider = [1.0, 0.995018687695, 0.885813148789, 0.64, 0.25, 0.094674556213, 0.01];
    check_curve(&GemanMcClure { sigma: 2.0 }, 0, wider);
}

#[test]
fn self_paced_learning_has_its_pace() {
    // λ = ln 10 = 2.302585 in the first epoch, 3.064741 in the fourth.
    let hard = SelfPaced::new(SelfPacedForm::Hard, 10);
    check_curve(&hard, 0, [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
    check_curve(&hard, 3, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
    let at = |lambda| SelfPaced { form: SelfPacedForm::Hard, first: lambda, pace: 2.0 };
    // A loss of λ itself is out.
    check_curve(&at(0.5), 0, [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    check_curve(&at(0.5), 2, [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
    let linear = [1.0, 0.967370812780, 0.836854063898, 0.673708127796, 0.347416255592, 0.021124383389, 0.0];
    check_curve(&SelfPaced::new(SelfPacedForm::Linear, 10), 3, linear);
}

#[test]
fn ohem_takes_exactly_k_with_ties() {
    let now = moment(0, 0.0, 7);
    // round(0.5·7) = 4
    check(&Ohem::default(), &LOSSES, &LABELS, &now, 1, &[0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
    let tied = [2.0, 1.0, 2.0, 2.0, 1.0, 2.0, 2.0];
    check(&Ohem { share: 0.25 }, &tied, &LABELS, &now, 1, &[1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    check(&Ohem { share: 0.001 }, &LOSSES, &LABELS, &now, 1, &[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    check(&Ohem { share: 1.0 }, &[0.0; 7], &LABELS, &now, 1, &[1.0; 7]);
}

#[test]
fn co_teaching_keeps_the_smallest_and_fewer_with_time() {
    let choice = CoTeaching::new(0.4);
    for (epoch, kept) in [(0, 1.0), (1, 0.96), (5, 0.8), (10, 0.6), (30, 0.6)] {
        assert!((choice.kept(epoch) - kept).abs() < 1e-12, "epoch {epoch}");
    }
    // ⌊0.6·7⌋ = 4, ⌊0.96·7⌋ = 6
    check(&choice, &LOSSES, &LABELS, &moment(12, 0.5, 7), 1, &[1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
    check(&choice, &LOSSES, &LABELS, &moment(1, 0.5, 7), 1, &[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
    let tied = [0.0, 0.0, 5.0, 0.0, 0.0, 0.0, 0.0];
    check(&choice, &tied, &LABELS, &moment(12, 0.5, 7), 1, &[1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
    // 0.7·10 is 7, whatever it is in binary.
    let ten: Vec<f64> = (0..10).map(f64::from).collect();
    let want: Vec<f64> = (0..10).map(|i| f64::from(i < 7)).collect();
    check(&CoTeaching::new(0.3), &ten, &[0; 10], &moment(10, 0.5, 10), 1, &want);
}

#[test]
fn class_balanced_weights() {
    let want = [0.2393292360088335, 0.3674419730958617, 2.3932287908953045];
    let scheme = ClassBalanced::with_beta(&[100, 10, 1], 0.9);
    for (got, want) in scheme.class_weights().iter().zip(want) {
        assert!((got - want).abs() < 1e-12);
    }
    check(&scheme, &LOSSES, &LABELS, &moment(0, 0.0, 7), 1, &[0, 1, 2, 0, 1, 2, 0].map(|class| want[class]));
    let paper = ClassBalanced::new(&[5000, 500, 50]);
    for (got, want) in
        paper.class_weights().iter().zip([0.03410736180099411, 0.2751672254368821, 2.6907254127621236])
    {
        assert!((got - want).abs() < 1e-9);
    }
    assert_eq!(ClassBalanced::new(&[7, 0, 7]).class_weights(), [1.0, 0.0, 1.0]);
}

#[test]
fn mentornet_follows_a_percentile_after_its_burn_in() {
    let scheme = MentorNet { percentile: 0.5, inertia: 0.5, width: 2.0, burn_in: 0.2 };
    check(&scheme, &LOSSES, &LABELS, &moment(0, 0.1, 7), 1, &[1.0; 7]);
    // The median is 1; λ₁ = 1/2 after one step, 7/8 after three: weights clip(1 − (ℓ − λ₁)/2, 0, 1).
    check(&scheme, &LOSSES, &LABELS, &moment(0, 0.2, 7), 1, &[1.0, 1.0, 1.0, 0.75, 0.25, 0.0, 0.0]);
    check(&scheme, &LOSSES, &LABELS, &moment(0, 0.2, 7), 3, &[1.0, 1.0, 1.0, 0.9375, 0.4375, 0.0, 0.0]);
    let upper = MentorNet { percentile: 1.0, inertia: 0.0, ..scheme };
    check(&upper, &LOSSES, &LABELS, &moment(0, 0.5, 7), 1, &[1.0; 7]);
    let lower = MentorNet { percentile: 0.0, inertia: 0.0, ..scheme };
    check(&lower, &LOSSES, &LABELS, &moment(0, 0.5, 7), 1, &[1.0, 0.95, 0.75, 0.5, 0.0, 0.0, 0.0]);
}

#[test]
fn adaboost_rounds() {
    // ε = 1/4, α = ln 3 + ln 2 = 1.7917595, e^α = 6: weights 1, 1, 1, 6 over 9, with mean 1.
    let round = AdaBoost::round(&[1.0; 4], &[false, false, false, true], 3);
    assert!((round.error - 0.25).abs() < 1e-15 && (round.vote - 1.791759469228055).abs() < 1e-12);
    for (got, want) in round.weights.iter().zip([4.0 / 9.0, 4.0 / 9.0, 4.0 / 9.0, 24.0 / 9.0]) {
        assert!((got - want).abs() < 1e-12);
    }
    // The scale of the weights does not matter. The next error weighs what was wrong before.
    let next = AdaBoost::round(&[2.0, 2.0, 2.0, 12.0], &[true, false, false, false], 3);
    assert!((next.error - 1.0 / 9.0).abs() < 1e-15);
    assert!((next.vote - (8f64.ln() + 2f64.ln())).abs() < 1e-12);
    // No better than chance among three: no vote, equal weights again.
    let useless = AdaBoost::round(&[3.0, 1.0, 1.0, 1.0], &[true, false, false, true], 3);
    assert_eq!((useless.vote, &useless.weights[..]), (0.0, &[1.0; 4][..]));
    let perfect = AdaBoost::round(&[1.0; 4], &[false; 4], 3);
    assert!(perfect.vote.is_finite() && perfect.weights == [1.0; 4]);
    let given = [0.5, 1.0, 1.5, 1.0, 1.0, 1.0, 1.0];
    let now = Moment { sample_weights: &given, ..moment(0, 0.0, 7) };
    check(&AdaBoost::default(), &LOSSES, &LABELS, &now, 1, &given);
}

#[test]
fn fine_tuning_has_the_last_steps() {
    let tuning = FineTune::default();
    let on_meta = |steps: u64| (0..steps).filter(|s| tuning.on_meta(*s, steps)).count();
    assert_eq!((on_meta(1800), on_meta(100), on_meta(2)), (270, 15, 1));
    assert!(tuning.on_meta(1799, 1800) && tuning.on_meta(1530, 1800) && !tuning.on_meta(1529, 1800));
}

#[test]
fn the_noise_matrix_is_a_mean_by_class() {
    let p = [0.7, 0.2, 0.1, 0.5, 0.4, 0.1, 0.0, 0.0, 1.0];
    let matrix = transition(&p, &[0, 0, 2], 3);
    let want = [0.6, 0.3, 0.1, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
    for (got, want) in matrix.iter().zip(want) {
        assert!((got - want).abs() < 3e-6 && *got > 0.0);
    }
    for row in matrix.chunks(3) {
        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }
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

#[test]
fn l2rw_is_the_meta_gradient_in_the_weights() {
    let (net, data) = (network(), Batch::Given);
    let mut tape = Tape::new();
    L2rwStep { net: &net, optimiser: sgd(), data: &data, batch: [N, M] }.record(&mut tape).unwrap();
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
                let (mut session, program) = prepare(&perturbed_meta_loss(), &[("eps", eps)]);
                session.run(&program).unwrap();
                session.fetch(&program, "meta_loss").unwrap()[0]
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
    let step = GlcStep { net: &net, optimiser: sgd(), data: &data, batch: [N, M], sizes: [30, 10] };
    step.record(&mut tape).unwrap();
    // The probabilities of the same network, and its loss as one function of the parameters.
    let (mut session, program) = prepare(&tape, &[("glc.transition", matrix.clone())]);
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
    CoTeachingStep { net: &net, optimiser: sgd(), data: &data, batch: N, choice: &choice }
        .record(&mut tape)
        .unwrap();
    let (mut session, program) = prepare(&tape, &choice.inputs(&moment(20, 0.5, N)));
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
    WeightedStep { net: &net, optimiser: sgd(), data: &data, batch: N, scheme: &halves }
        .record(&mut tape)
        .unwrap();
    // Over n, so half of the samples with weight 2 are their mean.
    let doubled: Vec<f64> = weight.iter().map(|w| 2.0 * w).collect();
    let (mut alone, program) = prepare(&tape, &[("scheme.sample_weights", doubled)]);
    alone.run(&program).unwrap();
    for (got, want) in moved.iter().zip(alone.read_state("w.fc1.weight").unwrap()) {
        assert!((got - want).abs() < 1e-14, "{got} and {want}");
    }
}
