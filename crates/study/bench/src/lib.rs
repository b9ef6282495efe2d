//! Study files to plans to runs; owns the trait `Subject`.

mod diagnostic;
mod estimate;
mod level;
pub mod plan;
mod study_file;

pub use diagnostic::{Diagnostic, Faults};
pub use estimate::{Estimate, Left};
pub use study_file::{MAX_FILE, MAX_RUNS, StudyFile};
