//! Study files to plans to runs; owns the trait [`Subject`] and its [conformance suite](conformance).
//!
//! The engine prints nothing (see [`Progress`]), knows no system, and never ends a study because of one run.

mod alone;
mod campaign;
pub mod command;
pub mod condition;
mod conflict;
pub mod conformance;
mod design;
mod diagnostic;
mod engine;
mod error;
mod estimate;
mod level;
mod own;
pub mod plan;
mod progress;
mod range;
mod sections;
mod sink;
mod study_file;
mod subject;
mod tables;
mod written;

pub use campaign::Campaign;
pub use conflict::Conflict;
pub use design::{Design, DesignKind};
pub use diagnostic::{Diagnostic, Faults, nearest_word};
pub use engine::{Manner, StudyOutcome, Watch, chain, run_study, run_study_watched};
pub use error::BenchError;
pub use estimate::{Estimate, Left};
pub use level::is_level;
pub use progress::{Progress, RunEnd, Silent};
pub use sink::Machine;
pub use study_file::{MAX_FILE, MAX_RUNS, StudyFile};
pub use subject::{EventSink, Outcome, Point, Subject, SubjectError};
