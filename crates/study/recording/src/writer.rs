//! The thread that writes: takes rows from the receiving threads, collects them for a batch, and syncs them to
//! the disk away from the path on which they arrive.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use probe::Table;

use crate::collector::CollectorEvent;
use crate::files::{FileError, TableWriter};

/// What a receiving thread gives to the writer. `stem` is `<panel>.<table>`.
pub(crate) enum Job {
    Declare { stem: String, table: Table },
    Rows { stem: String, words: Vec<u64> },
}

struct Open {
    writer: Option<TableWriter>,
    width: usize,
    pending: Vec<u64>,
    rows: u64,
    lost_rows: u64,
}

/// What was written, by stem.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Rows in files.
    pub(crate) rows: BTreeMap<String, u64>,
    /// Rows that could not be written.
    pub(crate) lost: BTreeMap<String, u64>,
}

pub(crate) struct Writer {
    dir: PathBuf,
    batch: Duration,
    tables: BTreeMap<String, Open>,
    events: Sender<CollectorEvent>,
    failed: bool,
}

impl Writer {
    pub(crate) fn new(dir: PathBuf, batch: Duration, events: Sender<CollectorEvent>) -> Self {
        Self { dir, batch, tables: BTreeMap::new(), events, failed: false }
    }

    /// Works until every receiving thread has gone.
    pub(crate) fn run(mut self, jobs: &Receiver<Job>) -> Written {
        let mut due = Instant::now() + self.batch;
        loop {
            match jobs.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(job) => self.take(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= due {
                self.flush();
                due = Instant::now() + self.batch;
            }
        }
        self.flush();
        self.finish()
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Declare { stem, table } => {
                // A table that was declared before, by an agent that left and came back, goes on in its file.
                if !self.tables.contains_key(&stem) {
                    let width = table.columns.len() + 1;
                    let writer = TableWriter::create(&self.dir, &stem, &table);
                    let writer = writer.map_err(|error| self.report(error)).ok();
                    self.tables
                        .insert(stem, Open { writer, width, pending: Vec::new(), rows: 0, lost_rows: 0 });
                }
            }
            Job::Rows { stem, words } => {
                if let Some(open) = self.tables.get_mut(&stem) {
                    open.pending.extend(words);
                }
            }
        }
    }

    fn flush(&mut self) {
        let mut errors = Vec::new();
        for open in self.tables.values_mut() {
            let rows = (open.pending.len() / open.width) as u64;
            match open.writer.as_mut().map(|w| w.write(&open.pending)) {
                Some(Ok(())) => open.rows += rows,
                Some(Err(error)) => {
                    // Half a batch may be on the disk: nothing may follow it.
                    open.writer = None;
                    open.lost_rows += rows;
                    errors.push(error);
                }
                None => open.lost_rows += rows,
            }
            open.pending.clear();
        }
        errors.into_iter().for_each(|error| self.report(error));
    }

    /// The first failure is an event; further ones only count rows.
    fn report(&mut self, error: FileError) {
        tracing::debug!("{}: {}", error.path.display(), error.source);
        if !self.failed {
            self.failed = true;
            let _ = self
                .events
                .send(CollectorEvent::WriteFailed { path: error.path, error: error.source.to_string() });
        }
    }

    fn finish(mut self) -> Written {
        let mut written = Written::default();
        for (stem, open) in std::mem::take(&mut self.tables) {
            if let Some(Err(error)) = open.writer.map(TableWriter::finish) {
                self.report(error);
            }
            if open.lost_rows > 0 {
                written.lost.insert(stem.clone(), open.lost_rows);
            }
            written.rows.insert(stem, open.rows);
        }
        written
    }
}
