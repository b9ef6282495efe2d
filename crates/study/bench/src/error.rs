//! What keeps a study from being made or gone on with. The failure of a run is none of these.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::subject::SubjectError;

/// See the module.
#[derive(Debug, Error)]
pub enum BenchError {
    /// A file or folder of the study.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process runs the study.
    #[error("{} is being run by another process: wait for it or stop it", .0.display())]
    Busy(PathBuf),
    /// A run id that is no folder name.
    #[error("{}/plan.toml: '{id}' is no run id", dir.display())]
    RunId {
        /// The study.
        dir: PathBuf,
        /// The id.
        id: String,
    },
    /// The study was made for another subject, or for another version of it.
    #[error("the study is about '{study}', not about '{subject}'")]
    Subject {
        /// Subject of the study.
        study: String,
        /// Subject given.
        subject: String,
    },
    /// The subject cannot even say what it takes.
    #[error("the subject does not work")]
    Spec(#[source] SubjectError),
    /// A file of facts.
    #[error(transparent)]
    Facts(#[from] recording::facts::FactsError),
}

impl BenchError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
