//! Training runs: data, programs and files put together.
//!
//! | file | the one thing that happens there |
//! |---|---|
//! | `config.rs` | [`Config`]: everything that decides a run's results, as `config.toml` |
//! | `setup.rs` | a session with its first parameters |
//! | `learner.rs` | [`Learner`]: one method's programs, epoch by epoch |
//! | `stepper.rs` | any order of the meta step as a program, and what each step feeds it |
//! | `signal.rs` | [`Walk`]: meta steps one by one, with every sample's numbers |
//! | `history.rs` | what was measured: rows, curves, the summary |
//! | `checkpoint.rs` | states and history in one file, written atomically |
//! | `run.rs` | [`Run`]: all methods side by side, with the files of the run's folder |
//! | `grid.rs` | [`Grid`]: a folder of finished cells, for studies of many runs |
//! | `ablation/` | [`ablation::Study`]: the method's open questions, answered by experiment |
//! | `pictures.rs` | which plots a run draws, from its history |
//! | `plots/` | how a plot is drawn |

pub mod ablation;
mod checkpoint;
mod config;
mod grid;
mod history;
mod learner;
mod pictures;
pub mod plots;
mod run;
pub mod setup;
mod signal;
mod stepper;

pub use config::{Config, Method};
pub use grid::Grid;
pub use history::{EpochRow, History, Summary, WeightPicture};
pub use learner::{Learner, Prepared, StepReport};
pub use run::{Observer, Run};
pub use signal::{SampleRow, StepNumbers, Walk};
pub use stepper::{At, Stepper};
