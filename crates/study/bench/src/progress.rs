//! What a study tells of itself while it runs. The engine prints nothing.

use std::path::Path;

use recording::facts::{PlannedRun, RunStatus, StudyFacts};
use recording::spec::Levels;
use store::RunSummary;

use crate::estimate::Left;

/// A run that has ended.
#[derive(Clone, Debug)]
pub struct RunEnd {
    /// The run.
    pub run: PlannedRun,
    /// How it ended.
    pub status: RunStatus,
    /// Why it did not complete, or why a complete run has no summary; else empty.
    pub reason: String,
    /// Responses, where they could be made.
    pub summary: Option<RunSummary>,
}

/// Hears of a study's progress. Every method may be left out.
pub trait Progress {
    /// Before the first run: `done` runs are complete from an earlier time.
    fn study_started(&mut self, _dir: &Path, _study: &StudyFacts, _done: usize) {}
    /// A run starts, at these levels of the varied factors.
    fn run_started(&mut self, _run: &PlannedRun, _levels: &Levels) {}
    /// Several times a second while a run is going on.
    fn tick(&mut self, _left: Left) {}
    /// A run has ended; `left` is what the rest will take.
    fn run_ended(&mut self, _end: &RunEnd, _left: Left) {}
}

/// Hears and says nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Progress for Silent {}
