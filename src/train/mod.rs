//! Training runs: data, programs and files put together.
//!
//! | file | the one thing that happens there |
//! |---|---|
//! | `config.rs` | [`Config`]: everything that decides a run's results, as `config.toml` |
//! | `values.rs` | [`values`]: single values as people type them |
//! | `method.rs` | [`Method`]: which scheme weights the samples |
//! | `step.rs` | a method's step program, and what its inputs are given |
//! | `prepared.rs` | [`Prepared`]: a run's data, split and corrupted |
//! | `scores.rs` | [`Scores`]: from logits to counts and accuracies |
//! | `predictor.rs` | [`Finished`], [`Predictor`]: a run's network, used afterwards |
//! | `evaluator.rs` | the trained network on whole sets |
//! | `events.rs` | `metrics.csv` for TensorBoard |
//! | `curve.rs` | a scheme's weight as a function of the loss |
//! | `learner.rs` | [`Learner`]: one method's programs, step by step |
//! | `sums.rs` | what its steps add up to until an epoch is over |
//! | `looking.rs` | its network on whole sets: tests, pictures, samples |
//! | `stepper.rs` | any order of the meta step as a program, and what each step feeds it |
//! | `signal.rs` | [`Walk`]: meta steps one by one, with every sample's numbers |
//! | `samples.rs` | [`SampleReport`]: which labels to distrust |
//! | `history.rs` | what was measured: rows, curves, the summary |
//! | `warnings.rs` | what went wrong, from what was measured |
//! | `files.rs` | folders that one process works in, files that are written whole or not at all |
//! | `tensors.rs` | tensors in a file, the same bytes each time |
//! | `network_file.rs` | [`NetworkFile`]: a trained network as PyTorch has it |
//! | `checkpoint.rs` | states and history in one file |
//! | `sealed.rs` | checksums of all that is read back |
//! | `times.rs` | all that is about time, in one file |
//! | `observer.rs` | [`Observer`]: who looks at a run, and may stop it |
//! | `run.rs` | [`Run`]: all methods side by side, with the files of the run's folder |
//! | `resume.rs` | a run that goes on |
//! | `outcome.rs` | its summary |
//! | `paper.rs`, `paper.toml` | [`PaperCell`]: settings and figures of the paper's tables |
//! | `study/` | [`study::Study`]: arms by seeds, each cell kept when it is finished |
//! | `comparison.rs` | [`Comparison`]: methods as arms, their summary and plots |
//! | `torch.rs` | parameters under PyTorch's names and in its layouts |
//! | `tuning.rs` | [`Tuning`]: each method's best rate and settings, by a part of the meta set |
//! | `ablation/` | [`ablation::Variant`]: the method's open questions as arms, and what is found |
//! | `statistics.rs` | [`Spread`], [`Difference`]: values over seeds |
//! | `report.rs`, `report.html` | one page with all of a run or a study |
//! | `pictures.rs` | which plots a run draws, from its history |
//! | `plots/` | how a plot is drawn |

pub mod ablation;
mod checkpoint;
mod comparison;
mod config;
mod curve;
mod evaluator;
mod events;
mod files;
mod history;
mod learner;
mod looking;
mod method;
mod network_file;
mod observer;
mod outcome;
mod paper;
mod pictures;
pub mod plots;
mod predictor;
mod prepared;
mod recipe;
mod report;
mod resume;
mod run;
mod samples;
mod scores;
mod sealed;
mod signal;
mod statistics;
mod step;
mod stepper;
pub mod study;
mod sums;
mod tensors;
mod times;
mod torch;
mod tuning;
pub mod values;
mod warnings;

pub use comparison::{Comparison, MethodSummary};
pub use config::Config;
pub use files::{csv_text, write_atomically};
pub use history::{EpochRow, History, Summary, WeightPicture};
pub use learner::{Learner, Measured, Passed, StepReport};
pub use method::{Method, Setting, Settings, setting};
pub use network_file::{Card, NetworkFile};
pub use observer::{Observer, Then};
pub use paper::PaperCell;
pub use predictor::{Finished, Predictor};
pub use prepared::Prepared;
pub use run::Run;
pub use samples::{Finding, SampleReport, ranking};
pub use scores::{ClassScore, Scores};
pub use signal::{SampleRow, StepNumbers, Walk};
pub use statistics::{Difference, Spread};
pub use stepper::{At, Stepper};
pub use tensors::{Tensor, write_tensors};
pub use tuning::{Trial, Tuning};
