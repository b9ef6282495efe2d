//! Where `/proc` and `/sys` are: the machine's own, or a folder of fixtures.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::stat::Stat;

/// The folder in which `proc` and `sys` lie.
#[derive(Clone)]
pub struct Root {
    folder: PathBuf,
    stat: Stat,
}

impl Default for Root {
    /// This machine's own.
    fn default() -> Self {
        static OWN: OnceLock<Root> = OnceLock::new();
        OWN.get_or_init(|| Self::at("/")).clone()
    }
}

impl Root {
    /// Another folder that holds `proc/…` and `sys/…`, for tests.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        let stat = Stat::new(folder.join("proc/stat"));
        Self { folder, stat }
    }

    /// `/proc/stat`: all that have it from this root, or from a clone of it, share its readings.
    pub(super) fn stat(&self) -> Stat {
        self.stat.clone()
    }

    /// A file below `/proc`.
    pub fn proc(&self, path: impl AsRef<Path>) -> PathBuf {
        self.folder.join("proc").join(path)
    }

    /// A file below `/sys`.
    pub fn sys(&self, path: impl AsRef<Path>) -> PathBuf {
        self.folder.join("sys").join(path)
    }

    /// True for this machine's own, whose process clocks may be asked too.
    pub fn is_live(&self) -> bool {
        self.folder == Path::new("/")
    }
}
