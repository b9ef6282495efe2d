//! What keeps a study from being read.

use std::io;
use std::path::PathBuf;

use recording::facts::FactsError;
use recording::files::FileErrorKind;
use recording::reader::ReadError;
use thiserror::Error;

/// See the module.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A file of facts.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// A table.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The operating system.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A derived table cannot be written.
    #[error("cannot write {}", path.display())]
    Derived {
        /// The file.
        path: PathBuf,
        /// Why.
        source: FileErrorKind,
    },
    /// The study has no such response.
    #[error("no response '{name}': the study has {}", have.join(", "))]
    NoResponse {
        /// What was asked for.
        name: String,
        /// What there is.
        have: Vec<String>,
    },
    /// The study has no such run.
    #[error("no run '{0}' in this study")]
    NoRun(String),
    /// The study's subject joins nothing.
    #[error("the subject '{0}' joins no tables across panels")]
    NoJoin(String),
}

impl StoreError {
    pub(crate) fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
