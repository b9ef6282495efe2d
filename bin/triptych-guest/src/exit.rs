//! Exit codes, the same in all programs.

use std::process::ExitCode;

use streaming::encode::EncodeError;
use streaming::source::SourceError;
use streaming::worker::WorkerError;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// As it should.
    Success = 0,
    /// Something failed while it ran.
    Failure = 1,
    /// It was asked for something that cannot be.
    Usage = 2,
    /// An encoder or library must be installed.
    Missing = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// The code for an error.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        if let Some(WorkerError::Encoder { missing, usage, .. }) = error.downcast_ref() {
            return if *missing {
                Self::Missing
            } else if *usage {
                Self::Usage
            } else {
                Self::Failure
            };
        }
        if let Some(error) = error.downcast_ref::<EncodeError>() {
            return match (error.is_missing_component(), error.is_usage()) {
                (true, _) => Self::Missing,
                (_, true) => Self::Usage,
                _ => Self::Failure,
            };
        }
        match error.downcast_ref::<SourceError>() {
            Some(SourceError::SizeNeeded | SourceError::TooLarge { .. }) => Self::Usage,
            _ => Self::Failure,
        }
    }
}
