//! Exit codes, the same in all programs.

use std::process::ExitCode;

use streaming::decode::DecodeError;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// As it should.
    Success = 0,
    /// Something failed while it ran.
    Failure = 1,
    /// A decoder must be installed.
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
        match error.downcast_ref() {
            Some(DecodeError::Missing { .. }) => Self::Missing,
            _ => Self::Failure,
        }
    }
}
