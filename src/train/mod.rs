//! Training runs: data, programs and files put together.
//!
//! | file | the one thing that happens there |
//! |---|---|
//! | `config.rs` | [`Config`]: everything that decides a run's results, as `config.toml` |
//! | `method.rs` | [`Method`]: which scheme weights the samples |
//! | `setup.rs` | a session with its first parameters |
//! | `step.rs` | a method's step program, and what its inputs are given |
//! | `learner.rs` | [`Learner`]: one method's programs, epoch by epoch |
//! | `history.rs` | what was measured: rows, curves, the summary |
//! | `checkpoint.rs` | states and history in one file, written atomically |
//! | `run.rs` | [`Run`]: all methods side by side, with the files of the run's folder |
//! | `pictures.rs` | which plots a run draws, from its history |
//! | `plots/` | how a plot is drawn |

mod checkpoint;
mod config;
mod history;
mod learner;
mod method;
mod pictures;
pub mod plots;
mod run;
pub mod setup;
mod step;

pub use config::Config;
pub use history::{EpochRow, History, Summary, WeightPicture};
pub use learner::{Learner, Measured, Prepared, StepReport};
pub use method::Method;
pub use run::{Observer, Run};
