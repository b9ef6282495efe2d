//! The one trait, and what the engine gives to those who implement it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use probe::{Table, Value};
use recording::Address;
use recording::spec::{Levels, Panel, SubjectSpec};
use recording::wire::Ready;
use thiserror::Error;
use units::Nanos;

use crate::conflict::Conflict;

/// One point of the matrix, complete: levels of the varied factors, fixed settings and the subject's defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Position in the design, from 0.
    pub index: u32,
    /// A value for every factor of the subject's spec.
    pub settings: Levels,
}

/// How a run ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The window was recorded to its end.
    Complete,
    /// The person wanted to stop, see [`EventSink::cancelled`].
    Cancelled,
}

/// A system that can be studied. The engine owns order, repetition, seeds and clocks; a subject never sees the store.
///
/// Call order: `spec` at any time; then for each run `prepare`, `run` (only if `prepare` succeeded) and always
/// `teardown`. Between two runs nothing of the subject is left running.
pub trait Subject: Send {
    /// Factors in, indicators out, with units, ranges and defaults. The same at every call.
    ///
    /// # Errors
    /// What the subject needs to know itself is missing.
    fn spec(&self) -> Result<SubjectSpec, SubjectError>;

    /// Whether programs of a run report to a collector. Where none does there is none either, and the engine samples the machine
    /// itself: a run costs milliseconds then.
    fn reports(&self) -> bool {
        true
    }

    /// What can only fail at a point whose levels are each valid. Asked before anything is run; also [`Subject::prepare`]
    /// refuses such a point.
    fn conflicts(&self, settings: &Levels) -> Vec<Conflict> {
        let _ = settings;
        Vec::new()
    }

    /// Brings the system to this point of the matrix. Called before every run.
    ///
    /// # Errors
    /// The point cannot be reached; the run is marked failed.
    fn prepare(&mut self, point: &Point) -> Result<(), SubjectError>;

    /// One run; events and samples go to `sink` as they happen.
    ///
    /// # Errors
    /// The run is marked failed with the error's text as its reason; what was recorded is kept.
    fn run(&mut self, sink: &mut dyn EventSink) -> Result<Outcome, SubjectError>;

    /// Ends everything that `prepare` and `run` started. Idempotent, also after a failure.
    ///
    /// # Errors
    /// Something is left behind that the subject could not remove.
    fn teardown(&mut self) -> Result<(), SubjectError>;
}

/// What a run can do to its record. Lives as long as the run.
pub trait EventSink {
    /// Where agents find the collector of this run.
    fn collector(&self) -> &Address;
    /// The run's folder: programs' logs go here as `<panel>.log`.
    fn run_dir(&self) -> &Path;
    /// Time before the window.
    fn warmup(&self) -> Duration;
    /// Length of the window.
    fn record(&self) -> Duration;
    /// True once the person wants to stop; a run ends soon after.
    fn cancelled(&self) -> bool;
    /// Waits until each of `panels` has said that it is ready, at most until `deadline` from now.
    /// `check` is called every now and then; its error ends the wait.
    ///
    /// # Errors
    /// A panel failed or went away, time ran out, nothing can be written, or the person wants to stop.
    fn wait_ready(
        &mut self,
        panels: &[Panel],
        deadline: Duration,
        check: &mut dyn FnMut() -> Result<(), SubjectError>,
    ) -> Result<BTreeMap<Panel, Ready>, SubjectError>;
    /// Lets `span` pass while watching over the panels; `check` as in [`EventSink::wait_ready`].
    ///
    /// # Errors
    /// As [`EventSink::wait_ready`].
    fn watch(
        &mut self,
        span: Duration,
        check: &mut dyn FnMut() -> Result<(), SubjectError>,
    ) -> Result<(), SubjectError>;
    /// Looks after the run without waiting; to be called several times a second while the subject waits for something itself.
    ///
    /// # Errors
    /// As [`EventSink::wait_ready`].
    fn look(&mut self) -> Result<(), SubjectError>;
    /// The window starts now.
    fn begin_window(&mut self);
    /// The window ends now.
    fn end_window(&mut self);
    /// Marks the present instant.
    fn event(&mut self, panel: Option<Panel>, kind: &str, text: &str);
    /// Adds a row to `<panel>.<table>`, stamped with the collector's clock; the first one makes the table. For what no program
    /// of the run reports itself.
    ///
    /// # Errors
    /// The row is not of the table's form, or nothing can be written.
    fn row(&mut self, panel: Panel, table: &Table, at: Nanos, values: &[Value]) -> Result<(), SubjectError>;
    /// Checks that the programs of `panels` answer; waits a moment for one that has not been heard of just now.
    ///
    /// # Errors
    /// One does not answer, or as [`EventSink::wait_ready`].
    fn wait_answers(
        &mut self,
        panels: &[Panel],
        check: &mut dyn FnMut() -> Result<(), SubjectError>,
    ) -> Result<(), SubjectError>;
    /// Asks a panel to finish; from now on its leaving is no failure.
    fn stop(&mut self, panel: Panel);
    /// Waits for the good-bye of a panel that was asked to finish.
    ///
    /// # Errors
    /// Its connection ended without one, or not before `deadline` from now.
    fn wait_farewell(&mut self, panel: Panel, deadline: Duration) -> Result<(), SubjectError>;
}

/// Why a run failed. The text becomes the `reason` of `run.toml`.
#[derive(Debug, Error)]
pub enum SubjectError {
    /// A panel did not say that it was ready.
    #[error("{panel} was not ready after {seconds} s; see {panel}.log in the run's folder")]
    NotReady {
        /// The panel.
        panel: Panel,
        /// Time waited.
        seconds: u64,
    },
    /// A panel reported that it cannot go on.
    #[error("{panel} reported: {reason}")]
    Fault {
        /// The panel.
        panel: Panel,
        /// In its own words.
        reason: String,
    },
    /// A panel's connection ended before the run did.
    #[error("{panel} went away during the run; see {panel}.log in the run's folder")]
    Gone {
        /// The panel.
        panel: Panel,
    },
    /// A panel's program stood still.
    #[error("{panel} did not answer for {seconds:.1} s")]
    Silent {
        /// The panel.
        panel: Panel,
        /// Time without an answer.
        seconds: f64,
    },
    /// A panel's program did not end when it was asked to.
    #[error("{panel} did not end and was killed")]
    Killed {
        /// The panel.
        panel: Panel,
    },
    /// A panel's program ended, but did not say that it had sent all it had.
    #[error(
        "{panel} ended without a good-bye: its last rows may be missing; see {panel}.log in the run's folder"
    )]
    NoFarewell {
        /// The panel.
        panel: Panel,
    },
    /// A program ended before the run did.
    #[error("{program} ended early ({status}): {reason}")]
    Program {
        /// Program or panel.
        program: String,
        /// Exit status or signal.
        status: String,
        /// Last words of its log.
        reason: String,
    },
    /// Something that must be installed is not.
    #[error("{what} is missing: {remedy}")]
    Missing {
        /// What is missing.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// The record cannot be written.
    #[error("{path} cannot be written: {error}; what was recorded before is kept")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// Settings that do not go together, or a state that cannot be reached.
    #[error("{0}")]
    Setting(String),
    /// A failure of the operating system.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The person wants to stop.
    #[error("stopped by the person")]
    Cancelled,
}
