//! Which processes hold a GPU open.
//!
//! To look through every descriptor of every process is what costs, so it is done seldom and in slices; in between, the
//! descriptors that were found are read again. Those of other users show only to root (or with `CAP_SYS_PTRACE`).

use std::collections::VecDeque;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use units::Nanos;

/// Time from the start of one search to the start of the next.
const SEARCH_EVERY: Nanos = Nanos(5_000_000_000);
/// Processes that are looked through in one go: some milliseconds, see docs/samplers.md.
const SLICE: usize = 64;
/// Linux has no more processes unless told to.
const MAX_PROCESSES: usize = 1 << 17;
/// Descriptors of one process that are looked at.
const MAX_DESCRIPTORS: usize = 1 << 14;

/// A search under way, or the wait for the next.
#[derive(Debug)]
pub(super) struct Search {
    proc: PathBuf,
    left: VecDeque<u32>,
    running: bool,
    started: Option<Nanos>,
    /// Processes that could not be looked into.
    refused: usize,
}

/// What a step of the search came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Not yet time.
    Resting,
    /// There is more to search.
    Searching,
    /// Everything has been looked through; so many processes could not be looked into.
    Done(usize),
}

impl Search {
    pub(super) fn new(proc: PathBuf) -> Self {
        Self { proc, left: VecDeque::new(), running: false, started: None, refused: 0 }
    }

    #[cfg(test)]
    pub(super) fn proc(&self) -> &Path {
        &self.proc
    }

    /// Looks through the next processes and gives the fdinfo files of GPUs that are found. The first search is done in
    /// one step, so that the first row knows all clients.
    pub(super) fn step(&mut self, now: Nanos, mut found: impl FnMut(PathBuf)) -> Step {
        let first = self.started.is_none();
        if !self.running {
            if self.started.is_some_and(|started| now.0 - started.0 < SEARCH_EVERY.0) {
                return Step::Resting;
            }
            (self.started, self.running, self.refused) = (Some(now), true, 0);
            self.left = processes(&self.proc);
        }
        let slice = if first { usize::MAX } else { SLICE };
        for _ in 0..slice {
            let Some(pid) = self.left.pop_front() else {
                self.running = false;
                return Step::Done(self.refused);
            };
            if descriptors(&self.proc.join(pid.to_string()), &mut found)
                .is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
            {
                self.refused += 1;
            }
        }
        Step::Searching
    }
}

fn processes(proc: &Path) -> VecDeque<u32> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).take(MAX_PROCESSES).collect()
}

fn descriptors(process: &Path, found: &mut impl FnMut(PathBuf)) -> std::io::Result<()> {
    for entry in fs::read_dir(process.join("fd"))?.flatten().take(MAX_DESCRIPTORS) {
        if fs::read_link(entry.path()).is_ok_and(|to| to.starts_with("/dev/dri")) {
            found(process.join("fdinfo").join(entry.file_name()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(processes: usize) -> tempfile::TempDir {
        let machine = tempfile::tempdir().unwrap();
        for pid in 1..=processes {
            let fds = machine.path().join(pid.to_string()).join("fd");
            fs::create_dir_all(&fds).unwrap();
            std::os::unix::fs::symlink("/dev/null", fds.join("0")).unwrap();
            std::os::unix::fs::symlink("/dev/dri/renderD128", fds.join("7")).unwrap();
        }
        machine
    }

    #[test]
    fn the_first_search_is_whole_and_later_ones_are_in_slices_and_seldom() {
        let machine = machine(SLICE + 10);
        let mut search = Search::new(machine.path().to_owned());
        let mut count = 0;
        assert_eq!(search.step(Nanos(0), |_| count += 1), Step::Done(0));
        assert_eq!(count, SLICE + 10, "one of the two descriptors of each");
        assert_eq!(search.step(Nanos(4_999_999_999), |_| count += 1), Step::Resting);
        assert_eq!(search.step(Nanos(5_000_000_000), |_| count += 1), Step::Searching);
        assert_eq!(count, 2 * SLICE + 10);
        assert_eq!(search.step(Nanos(5_100_000_000), |_| count += 1), Step::Done(0));
        assert_eq!(count, 2 * (SLICE + 10));
        assert_eq!(search.step(Nanos(9_999_999_999), |_| count += 1), Step::Resting);
    }
}
