//! Where `/proc` and `/sys` are: the machine's own, or a folder of fixtures.

use std::path::{Path, PathBuf};

/// The folder in which `proc` and `sys` lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Default for Root {
    /// This machine's own.
    fn default() -> Self {
        Self(PathBuf::from("/"))
    }
}

impl Root {
    /// Another folder that holds `proc/…` and `sys/…`, for tests.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// A file below `/proc`.
    pub fn proc(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.join("proc").join(path)
    }

    /// A file below `/sys`.
    pub fn sys(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.join("sys").join(path)
    }

    /// True for this machine's own, whose process clocks may be asked too.
    pub fn is_live(&self) -> bool {
        self.0 == Path::new("/")
    }
}
