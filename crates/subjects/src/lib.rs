//! One file per system that can be studied.

mod process;
pub mod streaming;

use bench::{Conflict, SubjectError};
use recording::spec::{Levels, SubjectSpec};

/// What each subject of this crate takes and gives.
///
/// # Errors
/// A subject lacks what it needs to tell.
pub fn specs() -> Result<Vec<SubjectSpec>, SubjectError> {
    Ok(vec![streaming::spec()])
}

/// What can only fail at a point of a subject of this crate, see [`bench::Subject::conflicts`].
pub fn conflicts(subject: &str, settings: &Levels) -> Vec<Conflict> {
    match subject {
        "streaming" => streaming::conflicts(settings),
        _ => Vec::new(),
    }
}
