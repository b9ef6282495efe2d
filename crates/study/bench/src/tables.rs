//! Tables that a subject fills itself, beside those of the programs of its run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use probe::{Table, Value};
use recording::files::{FileError, TableWriter, to_parquet};
use recording::spec::Panel;
use units::Nanos;

use crate::subject::SubjectError;

/// What was added is safe on the disk after this time at the latest, or at the end.
const SYNC_EVERY: Duration = Duration::from_millis(500);

/// The tables of a run under way.
pub(crate) struct Tables {
    dir: PathBuf,
    open: BTreeMap<String, TableWriter>,
    synced: Instant,
}

impl Tables {
    /// None yet, in the run's folder.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.into(), open: BTreeMap::new(), synced: Instant::now() }
    }

    /// Adds a row.
    pub(crate) fn row(
        &mut self,
        panel: Panel,
        table: &Table,
        at: Nanos,
        values: &[Value],
    ) -> Result<(), SubjectError> {
        let stem = format!("{panel}.{}", table.name);
        if !self.open.contains_key(&stem) {
            let wrong =
                |error: &dyn std::fmt::Display| SubjectError::Setting(format!("table {stem}: {error}"));
            table.check().map_err(|error| wrong(&error))?;
            let writer = TableWriter::create(&self.dir, &stem, table).map_err(failed)?;
            self.open.insert(stem.clone(), writer);
        }
        let Some(writer) = self.open.get_mut(&stem) else { return Ok(()) };
        if writer.width() != values.len() + 1 {
            let what = format!("table {stem} has {} columns, not {}", writer.width() - 1, values.len());
            return Err(SubjectError::Setting(what));
        }
        let words: Vec<u64> =
            std::iter::once(at.0 as u64).chain(values.iter().map(|value| value.to_bits())).collect();
        writer.append(&words).map_err(failed)?;
        if self.synced.elapsed() >= SYNC_EVERY {
            self.synced = Instant::now();
            for writer in self.open.values_mut() {
                writer.sync().map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Closes them: each becomes Parquet.
    pub(crate) fn close(&mut self) -> Result<(), SubjectError> {
        for (stem, writer) in std::mem::take(&mut self.open) {
            writer.finish().and_then(|()| to_parquet(&self.dir, &stem)).map_err(failed)?;
        }
        Ok(())
    }
}

fn failed(error: FileError) -> SubjectError {
    SubjectError::Write { error: error.cause(), path: error.path }
}
