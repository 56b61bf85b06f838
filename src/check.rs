//! Derivatives of a function on a tape against differences of its values: for whoever writes an
//! operation, a layer or a loss.
//!
//! ```
//! use metatape::check::{Modes, Point, check_grads};
//!
//! // x · tanh x, at four points, to second order, by all mixes of forward and reverse mode
//! let variables = [([4].into(), vec![-1.5, -0.2, 0.3, 2.0])];
//! let point = Point { variables: &variables, given: &[] };
//! let worst = check_grads(
//!     &|tape, x| {
//!         let t = tape.tanh(x[0])?;
//!         Ok(vec![tape.mul(x[0], t)?])
//!     },
//!     point,
//!     2,
//!     Modes::Both,
//! )?;
//! assert!(worst < 1e-8);
//! # Ok::<(), metatape::Error>(())
//! ```
//!
//! As in HIPS autograd's `check_grads`, each walk's result is again a function of its arguments,
//! and is checked in turn. At order 2 with both modes that is six checks: jvp, vjp, and the two
//! walks of each.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use crate::backend::cpu::Cpu;
use crate::error::{Error, Result};
use crate::program::{Options, Program, Session, Values};
use crate::tape::{Kind, Shape, Tape, Var};

/// Step of the difference quotient, whose error is of fourth order in it; rounding adds about
/// 1e-16/STEP.
const STEP: f64 = 5e-4;
/// Most that a derivative may differ from it, relative to the derivative's norm (at least 1).
const TOLERANCE: f64 = 1e-8;

/// Several values from several variables, recorded on a tape.
pub type Function<'a> = dyn Fn(&mut Tape, &[Var]) -> Result<Vec<Var>> + 'a;

/// Which walks are checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Modes {
    /// `jvp`.
    Forward,
    /// `vjp`.
    Reverse,
    /// Both, and at higher orders all mixes of the two.
    Both,
}

/// Where derivatives are checked.
#[derive(Clone, Copy, Debug)]
pub struct Point<'a> {
    /// The variables: shapes, and entries in row-major order.
    pub variables: &'a [(Shape, Vec<f64>)],
    /// What the function reads besides, as inputs that it declares itself (labels, pixels), by
    /// name. What it does not declare is left out.
    pub given: &'a [(&'a str, Values<'a>)],
}

/// Checks the derivatives of `f` up to `order` at a point, in f64 on the CPU, along directions of a
/// fixed seed. Gives the largest difference from the quotient that was seen, relative to the
/// derivative's norm (at least 1).
///
/// # Errors
/// [`Error::Numeric`] for the first derivative that differs by more than 1e-8; it says by which
/// walks. If the function gives no values, or there are no variables. The function's own errors,
/// and those of the walks: a missing rule is one.
pub fn check_grads(f: &Function, point: Point, order: usize, modes: Modes) -> Result<f64> {
    let mut check = Check { modes, given: point.given, rng: Pcg64::seed_from_u64(1), worst: 0.0 };
    if order > 0 {
        check.level(f, point.variables, order, "")?;
    }
    Ok(check.worst)
}

/// Variables, or values: shapes and entries.
type Tensors = Vec<(Shape, Vec<f64>)>;

struct Check<'a> {
    modes: Modes,
    given: &'a [(&'a str, Values<'a>)],
    rng: Pcg64,
    worst: f64,
}

impl Check<'_> {
    /// `f`, reached by the walks of `path`, and its derivatives up to `order`.
    fn level(&mut self, f: &Function, x: &[(Shape, Vec<f64>)], order: usize, path: &str) -> Result<()> {
        let k = x.len();
        let direction = self.random(x);
        let quotient = self.quotient(f, x, &direction)?;
        if k == 0 || quotient.is_empty() {
            return Err(Error::Program(
                "without variables and values there is no derivative to check".into(),
            ));
        }
        if self.modes != Modes::Reverse {
            let jvp = |tape: &mut Tape, v: &[Var]| -> Result<Vec<Var>> {
                let (x, tangents) = v.split_at(k);
                let y = f(tape, x)?;
                let seeds: Vec<(Var, Var)> = x.iter().copied().zip(tangents.iter().copied()).collect();
                let moved = tape.jvp(&seeds, &y)?;
                moved.into_iter().zip(y).map(|(t, y)| tape.or_zero(t, y)).collect()
            };
            let (at, path) = ([x, &direction[..]].concat(), format!("{path}jvp"));
            for ((_, got), (_, want)) in self.value(&jvp, &at)?.iter().zip(&quotient) {
                for (got, want_here) in got.iter().zip(want) {
                    self.agree(*got, *want_here, norm(want), &path)?;
                }
            }
            if order > 1 {
                self.level(&jvp, &at, order - 1, &format!("{path}, "))?;
            }
        }
        if self.modes != Modes::Forward {
            let vjp = |tape: &mut Tape, v: &[Var]| -> Result<Vec<Var>> {
                let (x, cotangents) = v.split_at(k);
                let seeds: Vec<(Var, Var)> =
                    f(tape, x)?.into_iter().zip(cotangents.iter().copied()).collect();
                tape.cotangents(&seeds, x)
            };
            let cotangents = self.random(&quotient);
            let (at, path) = ([x, &cotangents[..]].concat(), format!("{path}vjp"));
            let back = self.value(&vjp, &at)?;
            let size = cotangents.iter().zip(&quotient).map(|(c, q)| norm(&c.1) * norm(&q.1)).sum();
            self.agree(dot(&back, &direction), dot(&cotangents, &quotient), size, &path)?;
            if order > 1 {
                self.level(&vjp, &at, order - 1, &format!("{path}, "))?;
            }
        }
        Ok(())
    }

    fn agree(&mut self, got: f64, want: f64, size: f64, path: &str) -> Result<()> {
        let difference = (got - want).abs() / size.max(1.0);
        self.worst = self.worst.max(difference);
        if difference <= TOLERANCE {
            return Ok(());
        }
        Err(Error::Numeric(format!(
            "{path}: the derivative is {got}, but differences of the values give {want}"
        )))
    }

    /// 0.1 to 1 in size, either sign.
    fn random(&mut self, like: &[(Shape, Vec<f64>)]) -> Tensors {
        let mut number =
            |_: &f64| self.rng.random_range(0.1..1.0) * if self.rng.random_bool(0.5) { 1.0 } else { -1.0 };
        like.iter().map(|(shape, values)| (shape.clone(), values.iter().map(&mut number).collect())).collect()
    }

    /// `(8(f(x + h) − f(x − h)) − (f(x + 2h) − f(x − 2h)))/12` for `h` = STEP along the direction,
    /// over STEP.
    fn quotient(&self, f: &Function, x: &[(Shape, Vec<f64>)], direction: &Tensors) -> Result<Tensors> {
        let mut run = Run::new(f, x)?;
        let mut sums: Option<Tensors> = None;
        for (steps, factor) in [(1.0, 8.0), (-1.0, -8.0), (2.0, -1.0), (-2.0, 1.0)] {
            let move_by = |(x, d): (&f64, &f64)| x + steps * STEP * d;
            let moved: Vec<Vec<f64>> =
                x.iter().zip(direction).map(|(x, d)| x.1.iter().zip(&d.1).map(move_by).collect()).collect();
            let values = run.at(&moved, self.given)?;
            let sums = sums.get_or_insert_with(|| {
                values.iter().map(|(shape, v)| (shape.clone(), vec![0.0; v.len()])).collect()
            });
            for (sum, value) in sums.iter_mut().zip(values) {
                sum.1.iter_mut().zip(value.1).for_each(|(s, v)| *s += factor * v / (12.0 * STEP));
            }
        }
        Ok(sums.unwrap_or_default())
    }

    fn value(&self, f: &Function, x: &[(Shape, Vec<f64>)]) -> Result<Tensors> {
        let entries: Vec<Vec<f64>> = x.iter().map(|x| x.1.clone()).collect();
        Run::new(f, x)?.at(&entries, self.given)
    }
}

/// A function made ready to run at any point.
struct Run {
    session: Session,
    program: Program,
    shapes: Vec<Shape>,
}

impl Run {
    fn new(f: &Function, x: &[(Shape, Vec<f64>)]) -> Result<Run> {
        let mut tape = Tape::new();
        let declare = |(i, (shape, _)): (usize, &(Shape, Vec<f64>))| {
            tape.input(&variable(i), Kind::Float, shape.clone())
        };
        let x: Vec<Var> = x.iter().enumerate().map(declare).collect::<Result<_>>()?;
        let values = f(&mut tape, &x)?;
        for (i, y) in values.iter().enumerate() {
            tape.output(&format!("check.value{i}"), *y)?;
        }
        let shapes = values.iter().map(|y| tape.shape(*y).clone()).collect();
        let mut session = Session::new(Box::new(Cpu::<f64>::new(1)?));
        let program = session.compile(&tape, Options::default())?;
        Ok(Run { session, program, shapes })
    }

    fn at(&mut self, x: &[Vec<f64>], given: &[(&str, Values)]) -> Result<Tensors> {
        let Run { session, program, shapes } = self;
        for (i, x) in x.iter().enumerate() {
            session.feed(program, &variable(i), Values::Float(x))?;
        }
        for (name, values) in given {
            if program.inputs().iter().any(|input| input.name == *name) {
                session.feed(program, name, *values)?;
            }
        }
        session.run(program)?;
        let value = |(i, shape): (usize, &Shape)| {
            Ok((shape.clone(), session.fetch(program, &format!("check.value{i}"))?))
        };
        shapes.iter().enumerate().map(value).collect()
    }
}

fn variable(i: usize) -> String {
    format!("check.variable{i}")
}

fn norm(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn dot(a: &Tensors, b: &Tensors) -> f64 {
    a.iter().zip(b).flat_map(|(a, b)| a.1.iter().zip(&b.1)).map(|(a, b)| a * b).sum()
}
