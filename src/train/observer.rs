use super::history::EpochRow;
use super::learner::StepReport;
use super::method::Method;
use super::run::Run;

/// What a run does after a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Then {
    /// The next one.
    #[default]
    GoOn,
    /// A checkpoint of this very step, and then the next one.
    Save,
    /// A checkpoint of this very step; and the run ends as stopped.
    Stop,
}

/// Who wants to know how a run goes, and may stop it.
pub trait Observer {
    /// Training begins, or goes on after `done` passes over the training set.
    fn begin(&mut self, run: &Run, done: usize);
    /// A step of the pass `pass` (from 0) is done; with one stage, passes are epochs.
    fn step(&mut self, method: Method, pass: usize, report: StepReport);
    /// An epoch of one method is done.
    fn epoch(&mut self, row: &EpochRow);
    /// Asked after every step and every pass.
    fn then(&mut self) -> Then {
        Then::GoOn
    }
}

/// Nobody does.
impl Observer for () {
    fn begin(&mut self, _: &Run, _: usize) {}
    fn step(&mut self, _: Method, _: usize, _: StepReport) {}
    fn epoch(&mut self, _: &EpochRow) {}
}
