//! A study's folder is held by whoever runs or records it: one process at a time, and readers can tell whether a run that
//! was never closed is under way or was broken off. The kernel lets go of the lock when the process ends, however it ends.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// How long a reader may look at the lock, tries × time between two.
const PATIENCE: (u32, Duration) = (20, Duration::from_millis(5));

/// The hold on a study's folder; it ends when this value goes.
#[derive(Debug)]
pub struct Hold {
    _file: File,
}

impl Hold {
    /// Takes the folder, or gives `None` where another process has it.
    ///
    /// # Errors
    /// The folder cannot be opened, or its file system knows no locks.
    pub fn take(dir: &Path) -> io::Result<Option<Self>> {
        let file = File::open(dir)?;
        for _ in 0..PATIENCE.0 {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self { _file: file })),
                // Perhaps a reader that is just looking.
                Err(TryLockError::WouldBlock) => sleep(PATIENCE.1),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// Whether a process has the folder. Where that cannot be known it is taken to be so.
pub fn is_held(dir: &Path) -> bool {
    File::open(dir).map_or(true, |file| file.try_lock_shared().is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_held_once_and_until_the_hold_goes() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_held(dir.path()));
        let hold = Hold::take(dir.path()).unwrap().unwrap();
        assert!(is_held(dir.path()));
        assert!(Hold::take(dir.path()).unwrap().is_none());
        drop(hold);
        assert!(!is_held(dir.path()));
        assert!(Hold::take(dir.path()).unwrap().is_some());
        assert!(Hold::take(&dir.path().join("none")).is_err());
    }
}
