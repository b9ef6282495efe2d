//! One file per system that can be studied.

mod process;
pub mod streaming;

use bench::SubjectError;
use recording::spec::SubjectSpec;

/// What each subject of this crate takes and gives.
///
/// # Errors
/// A subject lacks what it needs to tell.
pub fn specs() -> Result<Vec<SubjectSpec>, SubjectError> {
    Ok(vec![streaming::spec()])
}
