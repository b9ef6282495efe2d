//! `/proc/stat`, which several samplers read: one reading serves those that are asked in the same wake-up.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use units::{Clock, MonotonicClock, Nanos};

use super::source::{Gone, Source, UNKNOWN};
use crate::sampler::Rows;

/// A reading serves others for as long.
const FRESH: Nanos = Nanos::from_millis(1);

struct Reading {
    source: Source,
    /// Counts the readings; odd or even means nothing.
    number: u64,
    at: Nanos,
}

/// One reader of the file. Its clones read the same one.
pub(super) struct Stat {
    shared: Arc<Mutex<Reading>>,
    path: PathBuf,
    /// The reading that it was given last.
    seen: u64,
    gone: Gone,
}

impl Clone for Stat {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), path: self.path.clone(), seen: 0, gone: Gone::default() }
    }
}

impl Stat {
    pub(super) fn new(path: PathBuf) -> Self {
        let source = Source::whole(path.clone());
        let reading = Reading { source, number: 0, at: Nanos(i64::MIN / 2) };
        Self { shared: Arc::new(Mutex::new(reading)), path, seen: 0, gone: Gone::default() }
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// What `parse` finds in a text that this reader has not had yet and that is not older than [`FRESH`], and when it was
    /// read. As [`Source::parse`] otherwise.
    pub(super) fn parse<T>(
        &mut self,
        rows: &mut dyn Rows,
        parse: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Option<(Nanos, T)> {
        let mut reading = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = &mut *reading;
        let now = MonotonicClock.now();
        let usable = reading.number != self.seen && now.0 - reading.at.0 < FRESH.0;
        let mut error = None;
        if !usable || reading.source.last().is_empty() {
            error = reading.source.text().err();
            reading.number += 1;
            reading.at = MonotonicClock.now();
        }
        self.seen = reading.number;
        let found = if error.is_none() { parse(reading.source.last()) } else { None };
        match &error {
            Some(error) => self.gone.tell(false, &self.path, error, rows),
            None => self.gone.tell(found.is_some(), &self.path, &UNKNOWN, rows),
        }
        found.map(|found| (reading.at, found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::testing::Taken;

    #[test]
    fn a_reading_serves_every_reader_once_and_not_for_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stat");
        std::fs::write(&path, "1").unwrap();
        let mut first = Stat::new(path.clone());
        let (mut second, mut taken) = (first.clone(), Taken::default());
        let mut text = |stat: &mut Stat| stat.parse(&mut taken, |text| Some(text.to_vec())).unwrap();
        let (at, told) = text(&mut first);
        std::fs::write(&path, "2").unwrap();
        // Within a millisecond mostly, and right if not.
        let (then, shared) = text(&mut second);
        assert!(then == at && shared == told || then.0 - at.0 >= FRESH.0 && shared == b"2");
        assert_eq!(text(&mut second).1, b"2", "never the same twice");
        std::fs::write(&path, "3").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert_eq!(text(&mut first).1, b"3");
    }

    #[test]
    fn each_reader_misses_what_it_looks_for_and_says_so_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stat");
        let mut first = Stat::new(path.clone());
        let (mut second, mut taken) = (first.clone(), Taken::default());
        let mut look =
            |stat: &mut Stat, for_it: bool| stat.parse(&mut taken, |_| for_it.then_some(())).is_some();
        assert!(!look(&mut first, true) && !look(&mut first, true), "there is no file");
        std::fs::write(&path, "1").unwrap();
        assert!(look(&mut first, true) && !look(&mut second, false) && !look(&mut second, false));
        assert!(look(&mut first, true));
        assert_eq!(taken.kinds(), ["source_gone", "source_back", "source_gone"]);
    }
}
