//! The reading side of rings in files: what the machine's agent uses.
//!
//! Files are read and written with `pread` and `pwrite`, never mapped: a program that cuts its file short harms
//! nobody but itself. What it wrote is checked; a row may still hold any numbers.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{Ordering, fence};

use thiserror::Error;

use crate::folder::LOCK;
use crate::layout::{self, ATTACHED, COLUMN, FIXED, HEAD, LOST, RingFacts, TAIL};
use crate::mapped::RING;
use crate::schema::MAX_COLUMNS;

/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;

/// A ring could not be read.
#[derive(Debug, Error)]
pub enum ReaderError {
    /// The operating system.
    #[error("the ring {} cannot be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a ring, or a broken one.
    #[error("{}: {what}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// One ring, as its reader sees it.
pub struct RingReader {
    path: PathBuf,
    file: File,
    facts: RingFacts,
    tail: u64,
    found_attached: bool,
}

/// A folder of rings and the right to read them: one reader at a time.
pub struct RingFolder {
    dir: PathBuf,
    /// Locked as long as the reader lives.
    _lock: File,
}

impl RingFolder {
    /// Makes the folder (for this user alone) where it is missing, and takes it.
    ///
    /// # Errors
    /// It cannot be made, or another reader has it ([`io::ErrorKind::WouldBlock`]).
    pub fn open(dir: &Path) -> Result<Self, ReaderError> {
        let io = |source| ReaderError::Io { path: dir.to_owned(), source };
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io(error)),
            _ => {}
        }
        if !fs::symlink_metadata(dir).map_err(io)?.is_dir() {
            return Err(ReaderError::Invalid { path: dir.to_owned(), what: "it is no folder".into() });
        }
        let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o644).custom_flags(flags);
        let lock = options.open(dir.join(LOCK)).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(io(io::ErrorKind::WouldBlock.into())),
            Err(fs::TryLockError::Error(error)) => Err(io(error)),
        }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Files of the rings that are there now, sorted.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn rings(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
            if !hidden && path.extension().is_some_and(|e| e == RING) {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }
}

impl RingReader {
    /// Opens a ring and tells its writer that it is read.
    ///
    /// # Errors
    /// It is not a regular file, not a ring, or a broken one.
    pub fn open(path: &Path) -> Result<Self, ReaderError> {
        let io = |source| ReaderError::Io { path: path.to_owned(), source };
        let invalid = |what: &str| ReaderError::Invalid { path: path.to_owned(), what: what.into() };
        // A link may lead anywhere, and a pipe would hold this thread up.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(flags.bits() as i32)
            .open(path)
            .map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(invalid("it is no regular file"));
        }
        let wanted = metadata.len().min((FIXED + MAX_COLUMNS * COLUMN) as u64) as usize;
        let mut header = vec![0; wanted];
        file.read_exact_at(&mut header, 0).map_err(io)?;
        let facts = layout::decode(&header, metadata.len()).map_err(|what| invalid(&what))?;
        let mut this = Self { path: path.to_owned(), file, facts, tail: 0, found_attached: false };
        this.tail = this.word(TAIL).map_err(io)?;
        this.found_attached = this.word(ATTACHED).map_err(io)? != 0;
        this.file.write_all_at(&1u64.to_ne_bytes(), (ATTACHED * 8) as u64).map_err(io)?;
        Ok(this)
    }

    /// Rows read so far, since the ring was made.
    pub fn position(&self) -> u64 {
        self.tail
    }

    /// Goes on at `position`, where that is ahead: what lies before was read by a reader that was killed before it could
    /// say so. A position that the ring has not reached is ignored.
    ///
    /// # Errors
    /// The file is gone or cut short.
    pub fn skip_to(&mut self, position: u64) -> Result<(), ReaderError> {
        let io = |source| ReaderError::Io { path: self.path.clone(), source };
        let (ahead, waiting) =
            (position.wrapping_sub(self.tail), self.head().map_err(io)?.wrapping_sub(self.tail));
        if ahead > 0 && ahead <= waiting && waiting <= self.facts.capacity.into() {
            self.tail = position;
        }
        Ok(())
    }

    /// What it says of itself.
    pub fn facts(&self) -> &RingFacts {
        &self.facts
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True when another reader had found it before: what is in it was meant to be kept.
    pub fn found_attached(&self) -> bool {
        self.found_attached
    }

    /// Rows lost so far because the ring was full.
    ///
    /// # Errors
    /// The file is gone or cut short.
    pub fn lost(&self) -> Result<u64, ReaderError> {
        self.word(LOST).map_err(|source| ReaderError::Io { path: self.path.clone(), source })
    }

    /// True once the writing program has ended, however it did.
    ///
    /// # Errors
    /// The lock cannot be tried.
    pub fn abandoned(&self) -> Result<bool, ReaderError> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(fs::TryLockError::WouldBlock) => Ok(false),
            Err(fs::TryLockError::Error(source)) => Err(ReaderError::Io { path: self.path.clone(), source }),
        }
    }

    /// Removes the file, once everything in it has been read.
    pub fn remove(self) {
        let _ = fs::remove_file(&self.path);
    }

    fn word(&self, index: usize) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, (index * 8) as u64)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Rows written, once two looks agree: a look is a copy by the kernel, which need not be one load.
    fn head(&self) -> io::Result<u64> {
        let mut head = self.word(HEAD)?;
        for _ in 0..1000 {
            let again = self.word(HEAD)?;
            if again == head {
                break;
            }
            head = again;
        }
        Ok(head)
    }

    /// Hands over waiting rows as row-major words (the instant first), at most about 256 kB at a time, with the position
    /// behind them, and frees their place once `take` has returned. Gives the number of rows.
    ///
    /// # Errors
    /// The file is gone or cut short, or its indices make no sense.
    pub fn read(&mut self, mut take: impl FnMut(&[u64], u64)) -> Result<u64, ReaderError> {
        let path = self.path.clone();
        let io = |source| ReaderError::Io { path: path.clone(), source };
        let head = self.head().map_err(io)?;
        let capacity = u64::from(self.facts.capacity);
        let waiting = head.wrapping_sub(self.tail);
        if waiting > capacity {
            let what = format!("{waiting} rows are waiting, but it holds {capacity}");
            return Err(ReaderError::Invalid { path: self.path.clone(), what });
        }
        // RING-PUBLISH: what was written before `head` was is seen by the reads below.
        fence(Ordering::SeqCst);
        let width = self.facts.table.columns.len() + 1;
        let at_once = (CHUNK / (width * 8)).max(1) as u64;
        let begin = layout::header_len(self.facts.table.columns.len()) as u64;
        let (mut bytes, mut words) = (Vec::new(), Vec::new());
        while self.tail != head {
            let first = self.tail & (capacity - 1);
            let rows = (head.wrapping_sub(self.tail)).min(capacity - first).min(at_once);
            bytes.resize(rows as usize * width * 8, 0);
            self.file.read_exact_at(&mut bytes, begin + first * width as u64 * 8).map_err(io)?;
            words.clear();
            words.extend(bytes.as_chunks::<8>().0.iter().map(|b| u64::from_ne_bytes(*b)));
            take(&words, self.tail.wrapping_add(rows));
            // RING-FREE: the rows are copied before their place is given back.
            fence(Ordering::SeqCst);
            self.tail = self.tail.wrapping_add(rows);
            let pair = [self.tail.to_ne_bytes(), (!self.tail).to_ne_bytes()].concat();
            self.file.write_all_at(&pair, (TAIL * 8) as u64).map_err(io)?;
        }
        Ok(waiting)
    }
}
