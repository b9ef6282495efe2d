//! Tables that the engine or a subject fills itself, beside those of the programs of a run.
//!
//! Rows wait in memory for half a second at most; then they are on the disk. The table of a run that is over before goes
//! there as a whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use probe::{Table, Value};
use recording::files::{FileError, TableWriter, to_parquet, write_table};
use units::Nanos;

use crate::subject::SubjectError;

/// What was added is safe on the disk after this time at the latest.
const SYNC_EVERY: Duration = Duration::from_millis(500);

struct Filling {
    table: Table,
    /// Rows that wait.
    words: Vec<u64>,
    writer: Option<TableWriter>,
}

impl Filling {
    fn close(self, dir: &Path, stem: &str) -> Result<(), FileError> {
        let Some(mut writer) = self.writer else {
            return write_table(dir, stem, &self.table, &self.words);
        };
        writer.write(&self.words)?;
        writer.finish()?;
        to_parquet(dir, stem).map(drop)
    }
}

/// The tables of a run under way.
pub(crate) struct Tables {
    dir: PathBuf,
    filling: BTreeMap<String, Filling>,
    synced: Instant,
}

impl Tables {
    /// None yet, in the run's folder.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.into(), filling: BTreeMap::new(), synced: Instant::now() }
    }

    /// Adds a row to the table of the files `stem`.
    pub(crate) fn row(
        &mut self,
        stem: &str,
        table: &Table,
        at: Nanos,
        values: &[Value],
    ) -> Result<(), SubjectError> {
        if !self.filling.contains_key(stem) {
            table.check().map_err(|error| SubjectError::Setting(format!("table {stem}: {error}")))?;
            let filling = Filling { table: table.clone(), words: Vec::new(), writer: None };
            self.filling.insert(stem.to_owned(), filling);
        }
        let Some(filling) = self.filling.get_mut(stem) else { return Ok(()) };
        if filling.table.columns.len() != values.len() {
            let what =
                format!("table {stem} has {} columns, not {}", filling.table.columns.len(), values.len());
            return Err(SubjectError::Setting(what));
        }
        filling.words.push(at.0 as u64);
        filling.words.extend(values.iter().map(|value| value.to_bits()));
        self.flush()
    }

    /// Puts what waits on the disk when it is time.
    pub(crate) fn flush(&mut self) -> Result<(), SubjectError> {
        if self.synced.elapsed() < SYNC_EVERY {
            return Ok(());
        }
        self.synced = Instant::now();
        for (stem, filling) in self.filling.iter_mut().filter(|(_, filling)| !filling.words.is_empty()) {
            let writer = match &mut filling.writer {
                Some(writer) => writer,
                none => none.insert(TableWriter::create(&self.dir, stem, &filling.table).map_err(failed)?),
            };
            writer.write(&filling.words).map_err(failed)?;
            filling.words.clear();
        }
        Ok(())
    }

    /// Leaves out tables of which nothing is on the disk yet.
    pub(crate) fn leave_out(&mut self, which: impl Fn(&str) -> bool) {
        self.filling.retain(|stem, filling| filling.writer.is_some() || !which(stem));
    }

    /// Closes them: each becomes Parquet. Those that were short are not synced, which is the caller's to do.
    pub(crate) fn close(&mut self) -> Result<(), SubjectError> {
        let mut closed = Ok(());
        for (stem, filling) in std::mem::take(&mut self.filling) {
            // One that cannot be written does not keep the others from it.
            closed = closed.and(filling.close(&self.dir, &stem).map_err(failed));
        }
        closed
    }
}

fn failed(error: FileError) -> SubjectError {
    SubjectError::Write { error: error.cause(), path: error.path }
}
