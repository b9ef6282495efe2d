//! Where the agent of a machine looks for rings.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Names another folder; of use where programs and agent belong to different users.
pub const FOLDER_VARIABLE: &str = "TRIPTYCH_PROBES";

/// Where rings are unless [`FOLDER_VARIABLE`] says otherwise: a folder of this user's in memory.
pub fn default_folder() -> PathBuf {
    format!("/dev/shm/triptych-{}", rustix::process::getuid().as_raw()).into()
}

/// Where an agent of this user is to read rings: the folder that [`FOLDER_VARIABLE`] names, or the default one.
pub fn readers_folder() -> PathBuf {
    env::var_os(FOLDER_VARIABLE).filter(|v| !v.is_empty()).map_or_else(default_folder, PathBuf::from)
}

/// The folder in which rings are read now, or `None` where no agent has made one. The default folder counts only when
/// it belongs to this user and nobody else may write there: in `/dev/shm` anybody can make a folder of that name.
pub fn folder() -> Option<PathBuf> {
    if let Some(named) = env::var_os(FOLDER_VARIABLE).filter(|v| !v.is_empty()) {
        return Some(PathBuf::from(named)).filter(|dir| dir.is_dir());
    }
    let dir = default_folder();
    let metadata = fs::symlink_metadata(&dir).ok()?;
    let own = metadata.uid() == rustix::process::getuid().as_raw() && metadata.mode() & 0o022 == 0;
    (metadata.is_dir() && own).then_some(dir)
}

/// The file in the folder that its reader keeps locked.
pub(crate) const LOCK: &str = "agent.lock";

/// True while a reader has the folder.
pub(crate) fn is_read(dir: &Path) -> bool {
    let Ok(file) = File::open(dir.join(LOCK)) else { return false };
    matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
}

/// `text` with everything but `a-z`, `0-9`, `_` and `-` replaced, so that it is part of a file's name.
pub(crate) fn file_name(text: &str) -> String {
    let keep = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    let name: String = text.to_lowercase().chars().map(|c| if keep(c) { c } else { '-' }).take(63).collect();
    if name.is_empty() { "program".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_programs_name_makes_a_files_name() {
        for (text, expected) in [("triptych-guest", "triptych-guest"), ("../X y", "---x-y"), ("", "program")]
        {
            assert_eq!(file_name(text), expected);
        }
    }
}
