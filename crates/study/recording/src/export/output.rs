//! A file that is there whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file under a temporary name; [`Output::finish`] gives it its own. Dropped before that, nothing of it stays.
pub(super) struct Output {
    file: File,
    path: PathBuf,
    temporary: Option<PathBuf>,
    bytes: u64,
}

impl Output {
    /// Begins a file. One that is there already stays until this one is whole.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a file has a folder and a name"));
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".new");
        let temporary = dir.join(hidden);
        let file = File::create(&temporary)?;
        Ok(Self { file, path: path.to_owned(), temporary: Some(temporary), bytes: 0 })
    }

    /// Puts it on the disk under its name; gives its size.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.file.sync_data()?;
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &self.path)?;
        }
        self.temporary = None;
        Ok(self.bytes)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::remove_file(temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.csv");
        let mut half = Output::create(&path).unwrap();
        half.write_all(b"half").unwrap();
        drop(half);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut whole = Output::create(&path).unwrap();
        whole.write_all(b"whole").unwrap();
        assert!(!path.exists());
        assert_eq!(whole.finish().unwrap(), 5);
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        // A second one replaces it only once it is whole.
        drop(Output::create(&path).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
