//! metatape: one tape, Jacobian blocks as data, three walks.
//!
//! A training step is a *program*: a list (the [`tape::Tape`]) of operations from one small closed
//! set. Recording infers shapes; nothing is computed. Each operation says once, per argument, what
//! its Jacobian block is, as a value ([`tape::LinearMap`]): forward mode (`jvp`) applies the
//! blocks, reverse mode (`vjp`) applies their transposes, and both record more operations on the
//! same tape, so that they nest. A [`program::Session`] makes a tape ready for a machine and runs
//! it. On this stand networks, each one function ([`nn`]); hypergradients of any bilevel problem
//! ([`bilevel`]); the meta step of Meta-Weight-Net, one such problem ([`meta`], whose first page
//! derives it); data (`data`) and training runs (`train`).
//!
//! A module imports only those before it in this list: [`error`], [`room`], [`seed`], [`tape`],
//! [`program`], [`backend`], [`check`], [`nn`], [`bilevel`], [`meta`], `words`, `data`, `train`.
//!
//! # Features
//!
//! Both are on by default; `default-features = false` leaves everything else, with the CPU.
//!
//! | feature | what it brings |
//! |---|---|
//! | `lab` | the modules `data`, `train` (runs, studies, plots) and `words`, and the command `metatape` |
//! | `cuda` | the module `backend::cuda`: NVIDIA GPUs. No toolkit is needed to build it |
//!
//! # A second derivative
//!
//! ```
//! use metatape::backend::cpu::Cpu;
//! use metatape::program::{Options, Session, Values};
//! use metatape::tape::{Kind, Tape};
//!
//! let mut tape = Tape::new();
//! let x = tape.input("x", Kind::Float, [2])?;
//! let s = tape.sigmoid(x)?;
//! let y = tape.sum_all(s)?;
//! let slope = tape.gradient(y, &[x])?[0]; // reverse: σ′(x)
//! let ones = tape.constant(1.0, [2]);
//! let bend = tape.jvp(&[(x, ones)], &[slope])?[0]; // forward over reverse: σ″(x)
//! let bend = tape.or_zero(bend, x)?;
//! tape.output("slope", slope)?;
//! tape.output("bend", bend)?;
//! println!("{tape}"); // a program that a person can read
//!
//! let mut session = Session::new(Box::new(Cpu::<f64>::new(1)?));
//! let program = session.compile(&tape, Options::default())?;
//! session.feed(&program, "x", Values::Float(&[0.0, 1.0]))?;
//! session.run(&program)?;
//!
//! let sigma = 1.0 / (1.0 + (-1.0f64).exp());
//! let (slope, bend) = (session.fetch(&program, "slope")?, session.fetch(&program, "bend")?);
//! assert!((slope[1] - sigma * (1.0 - sigma)).abs() < 1e-15);
//! assert!((bend[1] - sigma * (1.0 - sigma) * (1.0 - 2.0 * sigma)).abs() < 1e-15);
//! assert_eq!(bend[0], 0.0);
//! # Ok::<(), metatape::Error>(())
//! ```

#![warn(missing_docs)]

pub mod backend;
pub mod bilevel;
pub mod check;
#[cfg(feature = "lab")]
pub mod data;
pub mod error;
pub mod file;
pub mod meta;
#[cfg(feature = "lab")]
pub mod models;
pub mod nn;
pub mod program;
pub mod room;
pub mod seed;
pub mod tape;
#[cfg(feature = "lab")]
pub mod train;
#[cfg(feature = "lab")]
pub mod words;

pub use error::{Error, Result};
