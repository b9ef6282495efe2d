//! One file per system that can be studied.

pub mod command;
mod execution;
mod process;
pub mod streaming;

use std::path::PathBuf;

use bench::{Conflict, StudyFile, Subject, SubjectError};
use recording::spec::{Levels, SubjectSpec};

/// The subject of a study; `programs` is the folder of the programs that subjects start. Of a command the study file says all.
pub fn of(study: Option<&StudyFile>, programs: PathBuf) -> Box<dyn Subject> {
    match study.and_then(|study| Some((study, study.command.clone()?))) {
        Some((study, command)) => Box::new(command::Command::new(command, study)),
        None => Box::new(streaming::Streaming::new(programs)),
    }
}

/// What each subject of this crate takes and gives, but for commands, of which the study file itself tells.
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
