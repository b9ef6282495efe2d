//! Records that others made, read into ordinary studies: the `.rec` files and `matrix.csv` of a Python toolbox for
//! SPICE, the results trees of its successor, and plain CSV. The formats and what is assumed of each stand in
//! `docs/import.md`.
//!
//! [`survey`] finds what there is to read below the paths that a person names; [`Source::read`] reads one run of it;
//! [`Import`] puts runs into a study, all of them or none. Whatever a file holds, reading it ends: sizes are capped,
//! nothing recurses by the input's will, and what cannot be read is skipped, counted and named.

pub mod csv;
pub mod extract;
pub mod matrix;
pub mod prometheus;
pub mod rec;
mod rec_columns;
#[cfg(feature = "files")]
mod responses;
mod results;
mod scan;
mod skips;
mod source;
#[cfg(feature = "files")]
mod study;
mod table;
#[cfg(feature = "files")]
mod write;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::facts::FactsError;
#[cfg(feature = "files")]
use crate::files::FileError;

pub use csv::{CsvOptions, TimeColumn, TimeUnit};
pub use matrix::level;
pub use skips::Skips;
pub use source::{Format, Imported, Options, Source, Survey, survey};
#[cfg(feature = "files")]
pub use study::{Import, Summary, set_window};
pub use table::ImportedTable;

/// Largest file that is read: more than an hour of all the tables of a `.rec` at thousands of rows a second.
pub const MAX_FILE: u64 = 4 << 30;

/// What keeps something from being imported.
#[derive(Debug, Error)]
pub enum ImportError {
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
    /// A file does not hold what its format asks for.
    #[error("{}", place(path, *line, field, what))]
    Input {
        /// The file.
        path: PathBuf,
        /// Line, from 1; 0 where it is about the whole file.
        line: u64,
        /// Field; empty where it is about the line.
        field: String,
        /// What is wrong, and the remedy.
        what: String,
    },
    /// A file of facts of the study.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// A table could not be written.
    #[cfg(feature = "files")]
    #[error("cannot write a table")]
    Table(#[from] FileError),
    /// The study cannot take imported runs.
    #[error("{}: {what}", dir.display())]
    Study {
        /// Its folder.
        dir: PathBuf,
        /// Why, and the remedy.
        what: String,
    },
    /// The study has it already.
    #[error("{} is in the study already, as run {run}: nothing was imported; to import it once more, add --again", path.display())]
    Already {
        /// What was to be imported.
        path: PathBuf,
        /// The run.
        run: String,
    },
}

fn place(path: &Path, line: u64, field: &str, what: &str) -> String {
    let line = if line > 0 { format!(":{line}") } else { String::new() };
    let field = if field.is_empty() { String::new() } else { format!("field '{}': ", shown(field)) };
    format!("{}{line}: {field}{what}", path.display())
}

/// What a file calls something, fit for a message: short, and without control characters.
pub(crate) fn shown(text: &str) -> String {
    let mut out: String =
        text.chars().take(60).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    if text.chars().nth(60).is_some() {
        out.push('…');
    }
    out
}

impl ImportError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    pub(crate) fn input(path: &Path, line: u64, field: &str, what: impl Into<String>) -> Self {
        Self::Input { path: path.to_owned(), line, field: field.to_owned(), what: what.into() }
    }
}

/// Reads a whole file that is not larger than `most` bytes.
pub(crate) fn read_file(path: &Path, most: u64) -> Result<Vec<u8>, ImportError> {
    let meta = std::fs::metadata(path).map_err(ImportError::io("read", path))?;
    if !meta.is_file() {
        return Err(ImportError::input(path, 0, "", "is no file"));
    }
    if meta.len() > most {
        let what = format!("has {} bytes, more than the {most} that are read", meta.len());
        return Err(ImportError::input(path, 0, "", what));
    }
    std::fs::read(path).map_err(ImportError::io("read", path))
}
