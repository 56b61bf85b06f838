//! The reweighting schemes against numbers worked out beside this program (a few lines of Python:
//! `math.exp`, `math.log`), in f64 and in f32, fused and not. Those that are steps of their own:
//! scheme_steps.rs.

use metatape::backend::cpu::Cpu;
use metatape::meta::schemes::{
    AdaBoost, ClassBalanced, CoTeaching, Draw, FineTune, Focal, Gce, GemanMcClure, Memory, MentorNet, Moment,
    Ohem, Scheme, Seen, SelfPaced, SelfPacedForm, Uniform, transition,
};
use metatape::program::{Backend, Options, Session, Values};
use metatape::tape::{Kind, Tape};

const LOSSES: [f64; 7] = [0.0, 0.1, 0.5, 1.0, 2.0, 3.0, 6.0];
const LABELS: [i32; 7] = [0, 1, 2, 0, 1, 2, 0];

fn machines() -> Vec<(Box<dyn Backend>, f64)> {
    vec![(Box::new(Cpu::<f64>::new(1).unwrap()), 1e-11), (Box::new(Cpu::<f32>::new(2).unwrap()), 2e-6)]
}

static NOTHING: Memory = Memory::new();

fn moment(epoch: usize, progress: f64, batch: usize) -> Moment<'static> {
    let step = (1000.0 * progress) as u64;
    Moment { step, steps: 1000, epoch, batch, positions: &[], memory: &NOTHING }
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
            tape.output("weight", weights).unwrap();
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
    // The median is 1; λ₁ = 1/2 after one step, 7/8 after three: weights clip(1 − (ℓ − λ₁)/2, 0,
    // 1).
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
    // A batch takes its own samples' weights; in the first round all have 1.
    let mut memory = Memory::new();
    let places = [6, 5, 4, 3, 2, 1, 0];
    let now = Moment { positions: &places, ..moment(0, 0.0, 7) };
    check(&AdaBoost::default(), &LOSSES, &LABELS, &now, 1, &[1.0; 7]);
    memory.set("sample_weights", vec![0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]);
    let now = Moment { memory: &memory, ..now };
    check(&AdaBoost::default(), &LOSSES, &LABELS, &now, 1, &[0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]);
}

#[test]
fn fine_tuning_has_the_last_steps() {
    let tuning = FineTune::default();
    let on_meta = |steps: u64| (0..steps).filter(|s| tuning.on_meta(*s, steps)).count();
    assert_eq!((on_meta(1800), on_meta(100), on_meta(2)), (270, 15, 1));
    let [before, after] = [1529, 1530].map(|step| tuning.draws(step, 1800));
    assert_eq!((before, after), (Draw::Train, Draw::Meta(Some(0.1))));
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
