//! The index over a study's runs: what each closed run gave, so that opening a study reads no tables. Rebuilt in silence
//! where it is missing, broken or out of date.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use recording::facts::RunFacts;
use recording::files::write_atomically;
use serde::{Deserialize, Serialize};

/// Changes when the definition of anything in the index changes, that of a run's quality included.
const VERSION: u32 = 2_000 + stats::quality::VERSION;
const FILE: &str = "index.json";

/// The state of `run.toml` that an entry was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    mtime_ns: i128,
    size: u64,
    inode: u64,
}

impl Stamp {
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let m = fs::metadata(path).ok()?;
        let mtime_ns = i128::from(m.mtime()) * 1_000_000_000 + i128::from(m.mtime_nsec());
        Some(Self { mtime_ns, size: m.len(), inode: m.ino() })
    }
}

/// A run in the index.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) stamp: Stamp,
    pub(crate) facts: RunFacts,
    pub(crate) responses: BTreeMap<String, f64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Index {
    version: u32,
    /// Hash of what the study asks of its runs: another question makes other answers.
    question: String,
    pub(crate) runs: BTreeMap<String, Entry>,
    #[serde(skip)]
    pub(crate) changed: bool,
}

impl Index {
    /// The index of a study, or an empty one.
    pub(crate) fn load(study_dir: &Path, question: &str) -> Self {
        let read = fs::read(study_dir.join(FILE)).ok();
        let index: Option<Self> = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        match index {
            Some(index) if index.version == VERSION && index.question == question => index,
            _ => Self { version: VERSION, question: question.to_owned(), ..Self::default() },
        }
    }

    /// The entry of a run, if it is of this state of the run.
    pub(crate) fn get(&self, id: &str, stamp: Stamp) -> Option<&Entry> {
        self.runs.get(id).filter(|e| e.stamp == stamp)
    }

    pub(crate) fn put(&mut self, id: &str, entry: Entry) {
        self.runs.insert(id.to_owned(), entry);
        self.changed = true;
    }

    /// Writes it if it has changed. A study that cannot be written to is read without an index.
    pub(crate) fn save(&self, study_dir: &Path) {
        if !self.changed {
            return;
        }
        let written = serde_json::to_vec(self).map(|bytes| write_atomically(&study_dir.join(FILE), &bytes));
        if let Ok(Err(error)) = written {
            tracing::debug!("no index: {error}");
        }
    }
}
