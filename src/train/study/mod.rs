//! Several ways to train, side by side on the same data over several seeds: a folder of cells, each
//! kept when it is finished.
//!
//! What is compared is an [`Arm`]: a name with a way to train. `metatape compare` has methods as
//! arms, `metatape ablate` variants of the published step. Folder: the plan ([`Arm::PLAN`]), and a
//! `cells/<arm>-seed<seed>/cell.json` a cell; then the tables, the summary and the pictures.
//!
//! | file | the one thing that happens there |
//! |---|---|
//! | `plan.rs` | [`Arm`], and [`Plan`]: which arms, which seeds, how |
//! | `cell.rs` | [`Cell`]: what is kept of one arm with one seed |
//! | `engine.rs` | [`Study`]: begun, resumed, extended, run |
//! | `summary.rs` | [`ArmSummary`]: from cells to means, and the tables of both |

mod cell;
mod engine;
mod plan;
mod summary;

pub use cell::{Cell, Probe};
pub(super) use engine::CELLS;
pub use engine::{Study, StudyObserver};
pub use plan::{Arm, Plan};
pub use summary::{ArmSummary, first_warnings};
pub(super) use summary::{differences, ended, warnings};
