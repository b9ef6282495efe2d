//! A ring's file, mapped by the program that writes it.

#![allow(unsafe_code)] // a shared mapping as a slice of atomics

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapRaw;

use crate::folder::is_read;
use crate::layout::{self, ATTACHED, RingFacts};

/// Extension of a ring's file.
pub(crate) const RING: &str = "ring";

/// The mapping, and the lock by which a reader knows that the writer lives.
pub(crate) struct Mapped {
    map: MmapRaw,
    words: usize,
    /// Locked (shared) for as long as this program lives, however it ends.
    _file: File,
    path: PathBuf,
}

impl Mapped {
    /// Makes the file. It appears under its name only when it is whole.
    pub(crate) fn create(dir: &Path, facts: &RingFacts) -> io::Result<Self> {
        let name = format!("{}.{}.{}", facts.program, facts.pid, facts.table.name);
        let (path, temporary) = (dir.join(format!("{name}.{RING}")), dir.join(format!(".{name}.new")));
        let make = || {
            let mut file = File::options().read(true).write(true).create_new(true).open(&temporary)?;
            file.write_all(&layout::encode(facts))?;
            let len = layout::file_len(facts.table.columns.len(), facts.capacity);
            file.set_len(len)?;
            file.try_lock_shared()?;
            let map = MmapRaw::map_raw(&file)?;
            // A program with the same number and name wrote here before this one: what it left is read by now, or
            // belongs to nobody.
            fs::rename(&temporary, &path)?;
            Ok(Self { map, words: (len / 8) as usize, _file: file, path })
        };
        make().inspect_err(|_| drop(fs::remove_file(&temporary)))
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, shared and writable, `words` 64-bit words long (the file was set to that
        // length before), and lives as long as `self`. All access, here and by the reader, is to whole aligned words,
        // here through atomics only. The file belongs to this program, in a folder of its user: who cuts it short
        // there could as well kill the program.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<AtomicU64>(), self.words) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // With a reader, the file is the reader's to take away, also when it has not come to it yet.
        let found = self.words()[ATTACHED].load(Ordering::Acquire) != 0;
        if !found && !self.path.parent().is_some_and(is_read) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
