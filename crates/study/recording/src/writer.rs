//! The thread that writes: takes rows from the receiving threads, collects them for a batch, and syncs them to the disk
//! away from the path on which they arrive. What is on the disk is told to whom it came from.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use probe::Table;

use crate::collector::CollectorEvent;
use crate::files::{FileError, TableWriter};

/// File of what happens once, while the run is under way: one JSON object a line. Closing the run puts it into
/// `run.toml`.
pub(crate) const JOURNAL: &str = "journal.jsonl";
/// What arrives within this time of one another goes to the disk together.
const TOGETHER: Duration = Duration::from_millis(50);
/// Most bytes of rows that wait for the end of a batch; more end it early.
const MAX_PENDING: usize = 8 << 20;

/// To be told once everything up to here is on the disk.
pub(crate) struct Done {
    pub(crate) synced: Arc<AtomicU64>,
    pub(crate) next: u64,
}

/// What a receiving thread gives to the writer. `stem` is `<panel>.<table>`.
pub(crate) enum Job {
    Declare { stem: String, table: Table },
    Rows { stem: String, words: Vec<u64>, done: Option<Done> },
    Journal { line: String, done: Option<Done> },
    Flush,
}

struct Open {
    writer: Option<TableWriter>,
    /// Whether there is a file.
    begun: bool,
    width: usize,
    pending: Vec<u64>,
    rows: u64,
    lost_rows: u64,
}

/// What was written, by stem.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Rows in files; a table whose file could not be begun is not here.
    pub(crate) rows: BTreeMap<String, u64>,
    /// Rows that could not be written.
    pub(crate) lost: BTreeMap<String, u64>,
}

pub(crate) struct Writer {
    dir: PathBuf,
    batch: Duration,
    tables: BTreeMap<String, Open>,
    journal: (Option<File>, Vec<u8>),
    done: Vec<Done>,
    pending: usize,
    events: Sender<CollectorEvent>,
    failed: bool,
}

impl Writer {
    pub(crate) fn new(dir: PathBuf, batch: Duration, events: Sender<CollectorEvent>) -> Self {
        Self {
            dir,
            batch,
            tables: BTreeMap::new(),
            journal: (None, Vec::new()),
            done: Vec::new(),
            pending: 0,
            events,
            failed: false,
        }
    }

    /// Works until every receiving thread has gone.
    pub(crate) fn run(mut self, jobs: &Receiver<Job>) -> Written {
        // Agents send together and then pause: what waits is written soon, but no more often than each batch.
        let (mut flushed, mut due) = (Instant::now(), None::<Instant>);
        loop {
            let wait = due.map_or(self.batch, |due| due.saturating_duration_since(Instant::now()));
            let asked = match jobs.recv_timeout(wait) {
                Ok(Job::Flush) => true,
                Ok(job) => {
                    self.take(job);
                    due.get_or_insert_with(|| {
                        (flushed + self.batch).max(Instant::now() + TOGETHER.min(self.batch))
                    });
                    self.pending > MAX_PENDING
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if asked || due.is_some_and(|due| Instant::now() >= due) {
                self.flush();
                (flushed, due) = (Instant::now(), None);
            }
        }
        self.flush();
        self.finish()
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Declare { stem, table } => {
                if !self.tables.contains_key(&stem) {
                    let width = table.columns.len() + 1;
                    let writer = TableWriter::create(&self.dir, &stem, &table);
                    let writer = writer.map_err(|error| self.report(error)).ok();
                    let begun = writer.is_some();
                    let open = Open { writer, begun, width, pending: Vec::new(), rows: 0, lost_rows: 0 };
                    self.tables.insert(stem, open);
                }
            }
            Job::Rows { stem, words, done } => {
                if let Some(open) = self.tables.get_mut(&stem) {
                    self.pending += words.len() * 8;
                    if open.pending.is_empty() {
                        open.pending = words;
                    } else {
                        open.pending.extend(words);
                    }
                }
                self.done.extend(done);
            }
            Job::Journal { line, done } => {
                self.journal.1.extend(line.bytes());
                self.journal.1.push(b'\n');
                self.done.extend(done);
            }
            Job::Flush => {}
        }
    }

    fn flush(&mut self) {
        let mut errors = Vec::new();
        // All are written before the first is synced: the file system's journal then takes them together, and forty
        // tables cost little more than one.
        let mut step = |open: &mut Open, done: Result<(), FileError>, rows: u64| match done {
            Ok(()) => true,
            Err(error) => {
                // Half a batch may be on the disk: nothing may follow it.
                open.writer = None;
                open.lost_rows += rows;
                errors.push(error);
                false
            }
        };
        let mut written = Vec::new();
        for open in self.tables.values_mut().filter(|open| !open.pending.is_empty()) {
            let rows = (open.pending.len() / open.width) as u64;
            let Some(done) = open.writer.as_mut().map(|w| w.append(&open.pending)) else {
                open.lost_rows += rows;
                continue;
            };
            if step(open, done, rows) {
                written.push((open, rows));
            }
        }
        for (open, rows) in written {
            if let Some(done) = open.writer.as_mut().map(TableWriter::sync)
                && step(open, done, rows)
            {
                open.rows += rows;
            }
        }
        self.tables.values_mut().for_each(|open| open.pending.clear());
        self.pending = 0;
        if let Err(error) = self.write_journal() {
            errors.push(FileError { path: self.dir.join(JOURNAL), source: error.into() });
        }
        errors.into_iter().for_each(|error| self.report(error));
        let done = std::mem::take(&mut self.done);
        if !self.failed {
            for Done { synced, next } in done {
                synced.fetch_max(next, Ordering::Release);
            }
        }
    }

    fn write_journal(&mut self) -> io::Result<()> {
        if self.journal.1.is_empty() {
            return Ok(());
        }
        let lines = std::mem::take(&mut self.journal.1);
        let file = match &mut self.journal.0 {
            Some(file) => file,
            none => none.insert(File::options().create(true).append(true).open(self.dir.join(JOURNAL))?),
        };
        file.write_all(&lines)?;
        file.sync_data()
    }

    /// The first failure is an event; further ones only count rows.
    fn report(&mut self, error: FileError) {
        tracing::debug!("{}: {}", error.path.display(), error.source);
        if !self.failed {
            self.failed = true;
            let _ = self.events.send(CollectorEvent::WriteFailed { error: error.cause(), path: error.path });
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
            if open.begun {
                written.rows.insert(stem, open.rows);
            }
        }
        written
    }
}
