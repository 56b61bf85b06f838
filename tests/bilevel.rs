//! Hypergradients through an inner optimisation, in f64: every rule against differences of the
//! outer objective, the two modes against each other, the implicit routes against the optimum, and
//! what is refused.

use metatape::Result;
use metatape::backend::cpu::Cpu;
use metatape::bilevel::{
    Adam, Inner, Mode, Optimiser, Problem, Route, Sgd, Solution, Solver, Unrolling, hypergradient, solve,
};
use metatape::program::{Options, Program, Session, Values};
use metatape::tape::{Kind, Tape, Unary, Var};

const D: usize = 4;

/// Inner: a smooth loss of w that both outer variables bend, on so many batches in turn; outer:
/// another, with a term in λ itself.
fn problem(batches: usize) -> impl Problem {
    let inner = move |tape: &mut Tape, w: &[Var], outer: &[Var], step: usize| {
        let a = tape.input(&format!("a{}", step % batches), Kind::Float, [D, D])?;
        let mixed = tape.matmul(a, w[0])?;
        let bent = tape.sigmoid(mixed)?;
        let scale = tape.unary(Unary::Exp, outer[0])?;
        let scaled = tape.mul(bent, scale)?;
        let fit = tape.sum_all(scaled)?;
        let square = tape.mul(w[0], w[0])?;
        let norm = tape.sum_all(square)?;
        let decay = tape.scale_by(norm, outer[1])?;
        tape.add(fit, decay)
    };
    let outer = |tape: &mut Tape, w: &[Var], outer: &[Var]| {
        let b = tape.input("b", Kind::Float, [D, 1])?;
        let difference = tape.sub(w[0], b)?;
        let square = tape.mul(difference, difference)?;
        let fit = tape.sum_all(square)?;
        let own = tape.mul(outer[1], outer[1])?;
        let own = tape.reshape(own, [])?;
        tape.add(fit, own)
    };
    (inner, outer)
}

fn numbers(count: usize, seed: f64) -> Vec<f64> {
    (0..count).map(|i| ((i as f64 + 1.0) * 12.9898 + seed * 78.233).sin()).collect()
}

struct Recorded {
    session: Session,
    program: Program,
    lr: f64,
}

impl Recorded {
    fn new(rule: Optimiser, steps: usize, route: Route) -> Result<Recorded> {
        Recorded::on(2, 0.05, rule, steps, route)
    }

    fn on(batches: usize, lr: f64, rule: Optimiser, steps: usize, route: Route) -> Result<Recorded> {
        let number = lr;
        let mut tape = Tape::new();
        let w = tape.input("w", Kind::Float, [D, 1])?;
        let outer = [tape.input("scale", Kind::Float, [D, 1])?, tape.input("decay", Kind::Float, [])?];
        let lr = tape.input("lr", Kind::Float, [])?;
        let inner = Inner { rule: &rule, lr, steps };
        let solution: Solution = hypergradient(&mut tape, &problem(batches), &[w], &outer, inner, route)?;
        tape.output("outer", solution.outer)?;
        for (i, h) in solution.hypergradient.iter().enumerate() {
            tape.output(&format!("hypergradient.{i}"), *h)?;
        }
        let mut session = Session::new(Box::new(Cpu::<f64>::new(1)?));
        let program = session.compile(&tape, Options::default())?;
        Ok(Recorded { session, program, lr: number })
    }

    fn run(&mut self, outer: &[f64]) {
        let inputs: Vec<String> = self.program.inputs().iter().map(|i| i.name.clone()).collect();
        for name in inputs {
            let values = match name.as_str() {
                "w" => numbers(D, 1.0),
                "scale" => outer[..D].to_vec(),
                "decay" => vec![outer[D]],
                "lr" => vec![self.lr],
                "b" => numbers(D, 4.0),
                other => numbers(D * D, if other == "a0" { 2.0 } else { 3.0 }),
            };
            self.session.feed(&self.program, &name, Values::Float(&values)).unwrap();
        }
        self.session.run(&self.program).unwrap();
    }

    fn value(&mut self, outer: &[f64]) -> f64 {
        self.run(outer);
        self.session.fetch(&self.program, "outer").unwrap()[0]
    }

    fn hypergradient(&mut self, outer: &[f64]) -> Vec<f64> {
        self.run(outer);
        let of = |i: usize| self.session.fetch(&self.program, &format!("hypergradient.{i}")).unwrap();
        [of(0), of(1)].concat()
    }
}

/// λ: the scales' logarithms, then the decay.
fn point() -> Vec<f64> {
    [numbers(D, 5.0), vec![0.3]].concat()
}

fn close(got: &[f64], want: &[f64], tolerance: f64, what: &str) {
    let length = want.iter().map(|v| v * v).sum::<f64>().sqrt();
    let error = got.iter().zip(want).map(|(g, w)| (g - w).powi(2)).sum::<f64>().sqrt() / length;
    assert!(error < tolerance, "{what}: {got:?} is not {want:?}: error {error:.1e}");
}

fn rules() -> [(&'static str, Optimiser); 5] {
    let adam = Adam { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.01 };
    [
        ("plain", Optimiser::Sgd(Sgd::PLAIN)),
        ("momentum", Optimiser::Sgd(Sgd { momentum: 0.9, weight_decay: 0.1, ..Sgd::PLAIN })),
        ("nesterov", Optimiser::Sgd(Sgd { momentum: 0.8, nesterov: true, ..Sgd::PLAIN })),
        ("adam", Optimiser::Adam(adam)),
        ("clipped", Optimiser::Sgd(Sgd { momentum: 0.9, clip: Some(0.5), ..Sgd::PLAIN })),
    ]
}

#[test]
fn unrolled_steps_of_every_rule_are_differentiated_exactly() {
    for (name, rule) in rules() {
        for steps in [1, 5] {
            let of = |mode| Recorded::new(rule, steps, Route::Unrolled(mode)).unwrap();
            let (mut reverse, mut forward) = (of(Mode::Reverse), of(Mode::Forward));
            let (at, eps) = (point(), 1e-6);
            let by_differences: Vec<f64> = (0..at.len())
                .map(|i| {
                    let mut side = |by: f64| {
                        let mut moved = at.clone();
                        moved[i] += by;
                        reverse.value(&moved)
                    };
                    (side(eps) - side(-eps)) / (2.0 * eps)
                })
                .collect();
            let exact = reverse.hypergradient(&at);
            close(&exact, &by_differences, 1e-7, &format!("{name}, {steps} steps"));
            close(&forward.hypergradient(&at), &exact, 1e-12, &format!("{name}, {steps} steps, forward"));
        }
    }
}

/// A gradient of exactly 0 has a step of Adam whose root has no slope: the hypergradient is a
/// number all the same.
#[test]
fn adam_at_a_gradient_of_zero_has_no_nan() -> Result<()> {
    let mut tape = Tape::new();
    let w = tape.input("w", Kind::Float, [])?;
    let lambda = tape.input("lambda", Kind::Float, [])?;
    let lr = tape.constant(0.1, []);
    let inner = |tape: &mut Tape, w: &[Var], outer: &[Var], _: usize| {
        let product = tape.mul(w[0], outer[0])?;
        tape.mul(product, w[0])
    };
    let outer = |tape: &mut Tape, w: &[Var], _: &[Var]| tape.sigmoid(w[0]);
    let rule = Optimiser::Adam(Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 });
    let inner_run = Inner { rule: &rule, lr, steps: 3 };
    let route = Route::Unrolled(Mode::Reverse);
    let solution = hypergradient(&mut tape, &(inner, outer), &[w], &[lambda], inner_run, route)?;
    tape.output("h", solution.hypergradient[0])?;
    let mut session = Session::new(Box::new(Cpu::<f32>::new(1)?));
    let program = session.compile(&tape, Options::default())?;
    session.feed(&program, "w", Values::Float(&[0.0]))?;
    session.feed(&program, "lambda", Values::Float(&[1.0]))?;
    session.run(&program)?;
    assert_eq!(session.fetch(&program, "h")?, [0.0]);
    Ok(())
}

/// Far down the inner problem, unrolled and implicit routes are one hypergradient.
#[test]
fn implicit_routes_agree_with_long_unrolling() {
    let of = |route| Recorded::on(1, 0.3, Optimiser::Sgd(Sgd::PLAIN), 150, route).unwrap();
    let unrolled = of(Route::Unrolled(Mode::Reverse)).hypergradient(&point());
    let cg = Solver::ConjugateGradients { iterations: D, damping: 0.0 };
    close(&of(Route::Implicit(cg)).hypergradient(&point()), &unrolled, 1e-9, "conjugate gradients");
    // Away from the optimum, and with too few iterations, they are not.
    let one = Solver::ConjugateGradients { iterations: 1, damping: 0.0 };
    let short = of(Route::Implicit(one)).hypergradient(&point());
    assert!(short.iter().zip(&unrolled).any(|(a, b)| (a - b).abs() > 1e-4), "one iteration is enough?");
}

#[test]
fn a_finite_difference_is_near_and_of_one_plain_step_only() {
    let (plain, probe) = (Optimiser::Sgd(Sgd::PLAIN), Route::FiniteDifference(1e-5));
    let exact = Recorded::new(plain, 1, Route::Unrolled(Mode::Reverse)).unwrap().hypergradient(&point());
    let near = Recorded::new(plain, 1, probe).unwrap().hypergradient(&point());
    close(&near, &exact, 1e-8, "finite difference");
    for (rule, steps) in [(plain, 2), (rules()[1].1, 1), (rules()[3].1, 1), (rules()[4].1, 1)] {
        let Err(error) = Recorded::new(rule, steps, probe) else { panic!("{rule:?}, {steps} steps") };
        assert!(error.to_string().contains("one step of plain SGD"), "{error}");
    }
}

#[test]
fn a_finite_difference_sees_what_the_rate_depends_on() {
    let by = |route| {
        let mut tape = Tape::new();
        let [w, lambda, e] = ["w", "lambda", "e"].map(|name| tape.input(name, Kind::Float, [1]).unwrap());
        let square = |tape: &mut Tape, x: Var| tape.mul(x, x);
        let inner = |tape: &mut Tape, w: &[Var], outer: &[Var], _: usize| {
            let apart = tape.sub(w[0], outer[0])?;
            let bent = square(tape, apart).and_then(|s| square(tape, s))?;
            tape.sum_all(bent)
        };
        let outer = |tape: &mut Tape, w: &[Var], _: &[Var]| {
            let s = square(tape, w[0])?;
            tape.sum_all(s)
        };
        let lr = tape.unary(Unary::Exp, e).unwrap();
        let lr = tape.reshape(lr, []).unwrap();
        let run = Inner { rule: &Optimiser::Sgd(Sgd::PLAIN), lr, steps: 1 };
        let found = hypergradient(&mut tape, &(inner, outer), &[w], &[lambda, e], run, route).unwrap();
        for (name, var) in ["by lambda", "by e"].into_iter().zip(found.hypergradient) {
            tape.output(name, var).unwrap();
        }
        let mut session = Session::new(Box::new(Cpu::<f64>::new(1).unwrap()));
        let program = session.compile(&tape, Options::default()).unwrap();
        for (name, value) in [("w", 0.7), ("lambda", -0.2), ("e", -2.0)] {
            session.feed(&program, name, Values::Float(&[value])).unwrap();
        }
        session.run(&program).unwrap();
        ["by lambda", "by e"].map(|name| session.fetch(&program, name).unwrap()[0])
    };
    let exact = by(Route::Unrolled(Mode::Reverse));
    assert!(exact.iter().all(|slope| slope.abs() > 0.05), "{exact:?}");
    close(&by(Route::FiniteDifference(1e-5)), &exact, 1e-8, "finite difference");
}

#[test]
fn objectives_are_one_number() {
    let mut tape = Tape::new();
    let w = tape.input("w", Kind::Float, [D]).unwrap();
    let lambda = tape.input("lambda", Kind::Float, [D]).unwrap();
    let lr = tape.constant(0.1, []);
    let inner = |tape: &mut Tape, w: &[Var], outer: &[Var], _: usize| tape.mul(w[0], outer[0]);
    let outer = |tape: &mut Tape, w: &[Var], _: &[Var]| tape.sum_all(w[0]);
    let run = Inner { rule: &Optimiser::Sgd(Sgd::PLAIN), lr, steps: 1 };
    let route = Route::Unrolled(Mode::Reverse);
    let error =
        hypergradient(&mut tape, &(inner, outer), &[w], &[lambda], run, route).unwrap_err().to_string();
    assert!(error.contains("inner objective") && error.contains("[4]"), "{error}");
}

/// `(w − λ)²`, of the `w` that is given, or of one from outside.
fn apart(tape: &mut Tape, w: Var, lambda: Var) -> Result<Var> {
    let apart = tape.sub(w, lambda)?;
    let square = tape.mul(apart, apart)?;
    tape.sum_all(square)
}

#[test]
fn an_inner_objective_that_reads_w_from_outside_is_refused() {
    let cg = Solver::ConjugateGradients { iterations: 2, damping: 0.0 };
    let routes = [
        (Route::Unrolled(Mode::Reverse), 2),
        (Route::Unrolled(Mode::Forward), 3),
        (Route::Implicit(cg), 0),
        (Route::Implicit(cg), 1),
        (Route::FiniteDifference(1e-3), 1),
    ];
    for (route, steps) in routes {
        let record = |beside: bool| {
            let mut tape = Tape::new();
            let [w0, v0, lambda] = ["w", "v", "lambda"].map(|n| tape.input(n, Kind::Float, [2]).unwrap());
            let lr = tape.constant(0.1, []);
            let inner = move |tape: &mut Tape, w: &[Var], outer: &[Var], _: usize| {
                let own = apart(tape, w[0], outer[0])?;
                // A term that keeps near to where the run begins is of both, and right.
                let second = if beside { apart(tape, w[1], v0)? } else { apart(tape, v0, outer[0])? };
                tape.add(own, second)
            };
            let outer = |tape: &mut Tape, w: &[Var], _: &[Var]| {
                let sum = tape.add(w[0], w[1])?;
                tape.sum_all(sum)
            };
            let run = Inner { rule: &Optimiser::Sgd(Sgd::PLAIN), lr, steps };
            hypergradient(&mut tape, &(inner, outer), &[w0, v0], &[lambda], run, route)
        };
        record(true).unwrap();
        let error = record(false).unwrap_err().to_string();
        assert!(error.contains("number 1 (from 0) of the `w`"), "{route:?}: {error}");
    }
}

#[test]
fn a_finite_difference_from_a_w_that_depends_on_lambda_is_refused() {
    let of = |route| {
        let mut tape = Tape::new();
        let lambda = tape.input("lambda", Kind::Float, [2]).unwrap();
        let w = tape.scale(lambda, 3.0).unwrap();
        let lr = tape.constant(0.1, []);
        let inner = |tape: &mut Tape, w: &[Var], outer: &[Var], _: usize| apart(tape, w[0], outer[0]);
        let outer = |tape: &mut Tape, w: &[Var], _: &[Var]| tape.sum_all(w[0]);
        let run = Inner { rule: &Optimiser::Sgd(Sgd::PLAIN), lr, steps: 1 };
        let found = hypergradient(&mut tape, &(inner, outer), &[w], &[lambda], run, route)?;
        tape.output("h", found.hypergradient[0])?;
        let mut session = Session::new(Box::new(Cpu::<f64>::new(1)?));
        let program = session.compile(&tape, Options::default())?;
        session.feed(&program, "lambda", Values::Float(&[0.5, -2.0]))?;
        session.run(&program)?;
        session.fetch(&program, "h")
    };
    // w₁ = 3λ − 0.2·(3λ − λ) = 2.6 λ
    close(&of(Route::Unrolled(Mode::Reverse)).unwrap(), &[2.6, 2.6], 1e-14, "unrolled");
    let error = of(Route::FiniteDifference(1e-3)).unwrap_err().to_string();
    assert!(error.contains("does not depend on the outer variables"), "{error}");
}

#[test]
fn lists_rates_and_clips_that_do_not_fit_are_refused() {
    let mut tape = Tape::new();
    let [a, b] = ["a", "b"].map(|name| tape.input(name, Kind::Float, [3]).unwrap());
    let one = tape.constant(0.1, []);
    let plain = Optimiser::Sgd(Sgd::PLAIN);
    let mut run = Unrolling::new(plain, &[a, b]);
    let error = run.step(&mut tape, &[a], one).unwrap_err().to_string();
    assert!(error.contains("1 tensors were given for 2"), "{error}");
    let error = Unrolling::new(plain, &[a]).step(&mut tape, &[b], a).unwrap_err().to_string();
    assert!(error.contains("must be one number, got [3]"), "{error}");
    for clip in [0.0, -1.0, f64::NAN] {
        let rule = Optimiser::Sgd(Sgd { clip: Some(clip), ..Sgd::PLAIN });
        let error = Unrolling::new(rule, &[a]).step(&mut tape, &[b], one).unwrap_err().to_string();
        assert!(error.contains("must be above 0"), "{error}");
    }
    let solver = Solver::ConjugateGradients { iterations: 1, damping: 0.0 };
    for (point, gradient, target) in [(vec![a], vec![a, b], vec![b]), (vec![a, b], vec![a], vec![b])] {
        let error = solve(&mut tape, &point, &gradient, &target, solver).unwrap_err().to_string();
        assert!(error.contains("there must be one for each"), "{error}");
    }
}

/// `A v = t` for a diagonal A, by each solver: v, and what it says is missing.
fn solved(diagonal: &[f64], target: &[f64], solver: impl Fn(&mut Tape) -> Solver) -> (Vec<f64>, f64) {
    let mut tape = Tape::new();
    let shape = [target.len()];
    let [a, x, t] = ["a", "x", "t"].map(|name| tape.input(name, Kind::Float, shape).unwrap());
    let gradient = tape.mul(a, x).unwrap();
    let solver = solver(&mut tape);
    let (v, missing) = solve(&mut tape, &[x], &[gradient], &[t], solver).unwrap();
    tape.output("v", v[0]).unwrap();
    tape.output("missing", missing).unwrap();
    let mut session = Session::new(Box::new(Cpu::<f64>::new(1).unwrap()));
    let program = session.compile(&tape, Options::default()).unwrap();
    for (name, values) in [("a", diagonal), ("t", target), ("x", target)] {
        if program.input(name).is_ok() {
            session.feed(&program, name, Values::Float(values)).unwrap();
        }
    }
    session.run(&program).unwrap();
    (session.fetch(&program, "v").unwrap(), session.fetch(&program, "missing").unwrap()[0])
}

#[test]
fn a_solver_says_what_is_missing() {
    let (a, t) = ([1.0, 2.0, 4.0], [1.0, 1.0, -1.0]);
    let cg = |iterations, damping| move |_: &mut Tape| Solver::ConjugateGradients { iterations, damping };
    // ‖t − A v‖ / ‖t‖ for what came out.
    let missing = |a: &[f64], damping: f64, v: &[f64]| {
        let rest = a.iter().zip(&t).zip(v).map(|((a, t), v)| (t - (a + damping) * v).powi(2));
        (rest.sum::<f64>() / 3.0).sqrt()
    };
    let (v, said) = solved(&a, &t, cg(3, 0.0));
    close(&v, &[1.0, 0.5, -0.25], 1e-12, "conjugate gradients");
    assert!(said < 1e-12, "{said}");
    for (iterations, damping) in [(1, 0.0), (2, 0.0), (1, 0.5)] {
        let (v, said) = solved(&a, &t, cg(iterations, damping));
        let want = missing(&a, damping, &v);
        assert!(want > 1e-3 && (said - want).abs() < 1e-12, "{iterations}: {said}, not {want}");
    }
    // Without positive curvature it ends, and what it has solved by then is not enough.
    let (v, said) = solved(&[1.0, -2.0, 4.0], &t, cg(3, 0.0));
    let want = missing(&[1.0, -2.0, 4.0], 0.0, &v);
    assert!(want > 0.1 && (said - want).abs() < 1e-12, "{said}, not {want}");
    for terms in [1, 40] {
        let neumann =
            |tape: &mut Tape| Solver::Neumann { terms, rate: tape.constant(0.25, []), damping: 0.5 };
        let (v, said) = solved(&a, &t, neumann);
        let want = missing(&a, 0.5, &v);
        assert!((said - want).abs() < 1e-12, "{terms} terms: {said}, not {want}");
    }
    // In whatever unit the target is.
    let (v, _) = solved(&a, &t.map(|t| t * 1e-60), cg(3, 0.0));
    close(&v.iter().map(|v| v * 1e60).collect::<Vec<_>>(), &[1.0, 0.5, -0.25], 1e-12, "a small target");
    let (v, said) = solved(&a, &[0.0; 3], cg(3, 0.0));
    assert!(v == [0.0; 3] && said == 0.0, "{v:?}, {said}");
}

#[test]
fn a_solution_says_how_far_the_system_is_solved() {
    let at = |iterations| {
        let solver = Solver::ConjugateGradients { iterations, damping: 0.0 };
        let mut tape = Tape::new();
        let [w, lambda] = ["w", "lambda"].map(|name| tape.input(name, Kind::Float, [3]).unwrap());
        let lr = tape.constant(0.1, []);
        let inner = |tape: &mut Tape, w: &[Var], outer: &[Var], _: usize| {
            let square = tape.mul(w[0], w[0])?;
            let bent = tape.mul(square, outer[0])?;
            tape.sum_all(bent)
        };
        let outer = |tape: &mut Tape, w: &[Var], _: &[Var]| tape.sum_all(w[0]);
        let run = Inner { rule: &Optimiser::Sgd(Sgd::PLAIN), lr, steps: 0 };
        let found =
            hypergradient(&mut tape, &(inner, outer), &[w], &[lambda], run, Route::Implicit(solver)).unwrap();
        tape.output("missing", found.residual.unwrap()).unwrap();
        let mut session = Session::new(Box::new(Cpu::<f64>::new(1).unwrap()));
        let program = session.compile(&tape, Options::default()).unwrap();
        for (name, value) in [("w", [1.0, 2.0, 3.0]), ("lambda", [1.0, 3.0, 5.0])] {
            if program.input(name).is_ok() {
                session.feed(&program, name, Values::Float(&value)).unwrap();
            }
        }
        session.run(&program).unwrap();
        session.fetch(&program, "missing").unwrap()[0]
    };
    assert!(at(3) < 1e-12 && at(1) > 0.1, "{} {}", at(3), at(1));
}
