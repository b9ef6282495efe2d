//! A file of the kernel that is kept open and read again and again, into one buffer.
//!
//! The kernel makes the text anew for each read at offset 0, so that `pread` saves opening and closing; a file that was
//! removed (a cgroup, a disk) gives an error and is opened afresh the next time.

use std::fmt::Display;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::sampler::Rows;

/// The longest text that is read; `/proc/interrupts` of a machine of 1,024 cores is about 2 MiB.
const MAX_TEXT: usize = 4 << 20;
/// Why nothing was found in a text that could be read.
pub(super) const UNKNOWN: &str = "not the text that the kernel documents";

/// A text file, kept open.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
    length: usize,
    /// The kernel makes the whole text in one go, so that a read that leaves room has got all of it.
    whole: bool,
    gone: Gone,
}

/// Whether somebody misses a source, and was told.
#[derive(Debug, Default)]
pub(super) struct Gone(bool);

impl Gone {
    /// Marks that what was to be found in the file at `path` is gone, and that it is back: once each.
    pub(super) fn tell(&mut self, found: bool, path: &Path, error: &dyn Display, rows: &mut dyn Rows) {
        if found == self.0 {
            self.0 = !found;
            let path = path.display();
            match found {
                false => rows.mark("source_gone", &format!("{path}: {error}")),
                true => rows.mark("source_back", &path.to_string()),
            }
        }
    }
}

impl Source {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None, buffer: Vec::new(), length: 0, whole: false, gone: Gone::default() }
    }

    /// A file that is one record to the kernel (`single_open`): `/proc/stat`, not a list such as `/proc/diskstats`, of which
    /// a read may give a part. Saves the read that finds the end.
    pub(super) fn whole(path: PathBuf) -> Self {
        Self { whole: true, ..Self::new(path) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The whole text as it is now.
    ///
    /// # Errors
    /// The file is not there, may not be read, or is longer than [`MAX_TEXT`].
    pub(super) fn text(&mut self) -> io::Result<&[u8]> {
        self.length = 0;
        match self.fill() {
            Ok(length) => {
                self.length = length;
                Ok(self.last())
            }
            Err(error) => {
                self.file = None;
                Err(error)
            }
        }
    }

    /// The first lines of the text as it is now, about `bytes` long: of a list the kernel makes no more.
    ///
    /// # Errors
    /// The file is not there or may not be read.
    pub(super) fn start(&mut self, bytes: usize) -> io::Result<&[u8]> {
        self.length = 0;
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(&self.path)?),
        };
        if self.buffer.len() < bytes {
            self.buffer.resize(bytes, 0);
        }
        let count = file.read_at(&mut self.buffer[..bytes], 0).inspect_err(|_| self.file = None)?;
        // The last line may be cut.
        self.length = memchr::memrchr(b'\n', &self.buffer[..count]).map_or(0, |end| end + 1);
        Ok(self.last())
    }

    /// The text that was read last; empty if that failed.
    pub(super) fn last(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    fn fill(&mut self) -> io::Result<usize> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(&self.path)?),
        };
        let mut length = 0;
        loop {
            if length == self.buffer.len() {
                if length >= MAX_TEXT {
                    return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 4 MiB"));
                }
                self.buffer.resize((2 * length).max(4096), 0);
            }
            match file.read_at(&mut self.buffer[length..], length as u64) {
                Ok(0) => return Ok(length),
                Ok(count) => {
                    length += count;
                    if self.whole && length < self.buffer.len() {
                        return Ok(length);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What `parse` finds in the text. A file that cannot be read, or in which `parse` finds nothing, gives `None` and a
    /// mark, once, until it is well again.
    pub(super) fn parse<T>(
        &mut self,
        rows: &mut dyn Rows,
        parse: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Option<T> {
        let (found, error) = match self.text() {
            Ok(text) => (parse(text), None),
            Err(error) => (None, Some(error)),
        };
        let error: &dyn Display = error.as_ref().map_or(&UNKNOWN, |error| error);
        self.gone.tell(found.is_some(), &self.path, error, rows);
        found
    }
}

/// A short text that is read once: a model, a speed. `None` where there is none.
pub(super) fn once(path: &Path) -> Option<String> {
    let text = std::fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&text[..text.len().min(256)]).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::testing::Taken;

    #[test]
    fn a_file_that_goes_is_marked_once_and_read_again_when_it_is_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stat");
        let (mut source, mut taken) = (Source::new(path.clone()), Taken::default());
        let mut read = |taken: &mut Taken| source.parse(taken, |t| (!t.is_empty()).then_some(t.len()));
        assert_eq!((read(&mut taken), read(&mut taken)), (None, None));
        assert_eq!(taken.kinds(), ["source_gone"]);
        std::fs::write(&path, vec![b'x'; 10_000]).unwrap();
        assert_eq!((read(&mut taken), read(&mut taken)), (Some(10_000), Some(10_000)));
        assert_eq!(taken.kinds(), ["source_gone", "source_back"]);
        std::fs::write(&path, "").unwrap();
        assert_eq!(read(&mut taken), None);
        assert!(taken.marks[2].1.contains("documents"), "{:?}", taken.marks);
    }

    #[test]
    fn an_endless_file_is_refused() {
        assert!(Source::new("/dev/zero".into()).text().is_err());
    }
}
