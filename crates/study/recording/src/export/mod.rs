//! A record for other programs: CSV, JSON Lines, Parquet, or a trace that Perfetto opens; see `docs/export.md`.
//!
//! Rules: memory does not grow with the record (a trace's joined frames are the exception, see [`perfetto`]); a file is
//! there whole or not at all; units are never lost; what cannot be read is left out and said.

mod aligned;
mod index;
mod output;
mod packets;
mod perfetto;
mod sheet;
mod slices;
mod text;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, SchemaRef};
use serde::Serialize;
use thiserror::Error;

pub use aligned::clocks;

use self::aligned::Alignment;
use self::index::{RunRow, TableRow};
use self::sheet::Sheet;
use crate::batches::{Batches, file_of};
use crate::facts::{ClockFacts, FactsError, RunFacts, StudyFacts, read_run};
use crate::reader::{ReadError, tables};
use crate::spec::Panel;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One CSV file a table.
    Csv,
    /// One file of JSON objects, one a line, for each table.
    JsonLines,
    /// One Parquet file a table, with units as field metadata.
    Parquet,
    /// One trace a run.
    Perfetto,
}

impl Format {
    /// Extension of its files.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::JsonLines => "jsonl",
            Self::Parquet => "parquet",
            Self::Perfetto => "perfetto-trace",
        }
    }
}

/// The clock that instants are on in what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The collector's: instants of all panels can be compared.
    Collector,
    /// Each panel's own, as recorded.
    Panel,
}

/// A run to export.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Its folder.
    pub dir: PathBuf,
    /// Its responses by name, where there are any.
    pub responses: BTreeMap<String, f64>,
}

/// What to export.
#[derive(Clone, Debug)]
pub struct Request {
    /// The runs.
    pub runs: Vec<Source>,
    /// Units of settings and responses, and what the joins mean.
    pub plan: Option<StudyFacts>,
    /// What is written.
    pub format: Format,
    /// The folder that it is written into.
    pub out: PathBuf,
    /// Names of tables, with `*` and `?`; empty: every table.
    pub tables: Vec<String>,
    /// The clock of instants; a trace is always on the collector's.
    pub clock: Clock,
    /// Whether the folder may hold files already; ones of the same name are replaced.
    pub force: bool,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    /// The file.
    pub file: PathBuf,
    /// Folder of the run; `None` for files about all of them.
    pub run: Option<String>,
    /// The table; `None` for a trace.
    pub table: Option<String>,
    /// Rows, or packets of a trace.
    pub rows: u64,
    /// Size.
    pub bytes: u64,
    /// False where the torn end of a stream that was never closed had to be left out.
    pub complete: bool,
}

/// What could not be exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The file, folder or column.
    pub what: String,
    /// Why.
    pub why: String,
}

/// Why something is left out that a trace has no place for.
pub const NOT_SHOWN: &str = "a trace cannot show it";

/// What came of an export.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Every file, in the order of writing.
    pub files: Vec<Written>,
    /// What could not be read.
    pub left_out: Vec<LeftOut>,
}

/// An export ended early. Files written before are whole.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The folder holds something.
    #[error("{} is not empty: choose another folder, or --force to replace files of the same name", .0.display())]
    NotEmpty(PathBuf),
    /// The folder is the record's own.
    #[error("{} is part of the record that is exported: choose a folder outside of it", .0.display())]
    Inside(PathBuf),
    /// No run has a table of such a name.
    #[error("no table is called {} (there are: {})", wanted.join(" or "), have.join(", "))]
    NoTable {
        /// The patterns.
        wanted: Vec<String>,
        /// Tables of the runs.
        have: Vec<String>,
    },
    /// A file or folder could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A table's batch does not fit its schema.
    #[error("{}", path.display())]
    Arrow {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ArrowError,
    },
    /// It was asked to stop.
    #[error("interrupted after {files} files, which are whole; run it again with --force to go on")]
    Interrupted {
        /// Files written.
        files: usize,
    },
}

/// Why a run is left out.
#[derive(Debug, Error)]
enum Unreadable {
    #[error(transparent)]
    Facts(#[from] FactsError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// How far an export is, in bytes of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read.
    pub done: u64,
    /// Bytes to read.
    pub total: u64,
}

/// Exports runs. `stop` is looked at between batches; `progress` is told of every one.
///
/// # Errors
/// The folder is not empty or part of the record, the disk is full, no table is called so, or it was stopped. What of
/// the record cannot be read is no error but said in the result.
pub fn export(
    request: &Request,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Exported, ExportError> {
    check_folder(request)?;
    let mut work = Work::plan(request, stop, progress)?;
    let mut rows = Vec::new();
    for run in std::mem::take(&mut work.runs) {
        let clocks = clocks(&run.dir, &run.facts);
        if request.format == Format::Perfetto {
            work.trace(&run, &clocks)?;
            continue;
        }
        for name in &run.tables {
            work.table(&run, name, &clocks)?;
        }
        rows.push(RunRow { folder: run.folder, facts: run.facts, clocks, responses: run.responses });
    }
    if request.format != Format::Perfetto {
        work.index(&rows)?;
    }
    Ok(work.exported)
}

/// A name with `*` and `?` in it.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // Where to go on when what came after the last star does not fit: every start is tried once.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, n) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Names of derived tables of a run, such as `frames.v1`.
pub fn derived(run_dir: &Path) -> Vec<String> {
    let name = |entry: io::Result<fs::DirEntry>| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        let stem = name.strip_suffix(".parquet")?;
        let (table, version) = stem.rsplit_once(".v")?;
        let is_version = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit());
        (is_version && !table.starts_with('.') && aligned::panel_of(stem).is_none()).then(|| stem.to_owned())
    };
    let mut names: Vec<_> = fs::read_dir(run_dir).into_iter().flatten().filter_map(name).collect();
    names.sort();
    names
}

/// A folder of its own: what is exported must never take the place of what was recorded.
fn check_folder(request: &Request) -> Result<(), ExportError> {
    let out = &request.out;
    let write = |source| ExportError::Write { path: out.clone(), source };
    let runs: Vec<_> = request.runs.iter().filter_map(|r| r.dir.canonicalize().ok()).collect();
    // Inside a run, or the folder of the runs: `<out>/<run>` would be the run itself.
    let is_record = |real: &Path| runs.iter().any(|run| real.starts_with(run) || run.parent() == Some(real));
    // Looked at before anything is made, by the part of the path that is there, and once more when all of it is.
    let mut parts = out.ancestors().filter(|a| !a.as_os_str().is_empty());
    let there = parts.find_map(|part| Some((part, part.canonicalize().ok()?)));
    let will_be =
        there.map(|(part, real)| out.strip_prefix(part).map_or(real.clone(), |rest| real.join(rest)));
    if will_be.is_some_and(|path| is_record(&path)) {
        return Err(ExportError::Inside(out.clone()));
    }
    fs::create_dir_all(out).map_err(write)?;
    if is_record(&out.canonicalize().map_err(write)?) {
        return Err(ExportError::Inside(out.clone()));
    }
    if !request.force && fs::read_dir(out).map_err(write)?.next().is_some() {
        return Err(ExportError::NotEmpty(out.clone()));
    }
    Ok(())
}

/// A run whose facts were read.
struct Run {
    folder: String,
    dir: PathBuf,
    facts: RunFacts,
    tables: Vec<String>,
    responses: BTreeMap<String, f64>,
}

struct Work<'a> {
    request: &'a Request,
    stop: &'a AtomicBool,
    tell: &'a mut dyn FnMut(Progress),
    at: Progress,
    runs: Vec<Run>,
    tables: Vec<TableRow>,
    columns: Option<Sheet>,
    exported: Exported,
}

impl<'a> Work<'a> {
    fn plan(
        request: &'a Request,
        stop: &'a AtomicBool,
        tell: &'a mut dyn FnMut(Progress),
    ) -> Result<Self, ExportError> {
        let mut work = Self {
            request,
            stop,
            tell,
            at: Progress { done: 0, total: 0 },
            runs: Vec::new(),
            tables: Vec::new(),
            columns: None,
            exported: Exported::default(),
        };
        let mut have = Vec::new();
        for source in &request.runs {
            match work.look_at(source, &mut have) {
                Ok(run) => work.runs.push(run),
                Err(error) => work.leave_out(source.dir.display().to_string(), &error),
            }
        }
        if !request.tables.is_empty() && work.runs.iter().all(|r| r.tables.is_empty()) {
            have.sort();
            have.dedup();
            return Err(ExportError::NoTable { wanted: request.tables.clone(), have });
        }
        Ok(work)
    }

    fn look_at(&mut self, source: &Source, have: &mut Vec<String>) -> Result<Run, Unreadable> {
        let facts = read_run(&source.dir.join("run.toml"))?;
        let mut names = tables(&source.dir)?;
        names.extend(derived(&source.dir));
        have.extend(names.iter().cloned());
        let wanted = &self.request.tables;
        names.retain(|name| wanted.is_empty() || wanted.iter().any(|pattern| matches(pattern, name)));
        for name in &names {
            let size = file_of(&source.dir, name).and_then(|p| fs::metadata(p).ok());
            self.at.total += size.map_or(0, |m| m.len());
        }
        let folder =
            source.dir.file_name().map_or_else(|| facts.id.clone(), |n| n.to_string_lossy().into_owned());
        Ok(Run { folder, dir: source.dir.clone(), facts, tables: names, responses: source.responses.clone() })
    }

    fn leave_out(&mut self, what: String, why: &dyn std::error::Error) {
        let mut text = why.to_string();
        let mut cause = why.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        self.exported.left_out.push(LeftOut { what, why: text });
    }

    fn go_on(&self) -> Result<(), ExportError> {
        if self.stop.load(Ordering::Acquire) {
            return Err(ExportError::Interrupted { files: self.exported.files.len() });
        }
        Ok(())
    }

    /// Opens a table; one that cannot be opened is left out.
    fn open(&mut self, run: &Run, name: &str) -> Option<Batches> {
        let what = || format!("{}: {name}", run.folder);
        match Batches::of_table(&run.dir, name) {
            Ok(batches) => {
                for column in batches.left_out() {
                    let why = "its type is not known to this version".to_owned();
                    self.exported.left_out.push(LeftOut { what: format!("{}.{column}", what()), why });
                }
                Some(batches)
            }
            Err(error) => {
                self.leave_out(what(), &error);
                None
            }
        }
    }

    /// Hands the batches of a table to `each`, and says how far it is. Gives whether the table was whole.
    fn read(
        &mut self,
        what: String,
        batches: &mut Batches,
        each: &mut dyn FnMut(&RecordBatch) -> Result<(), ExportError>,
    ) -> Result<bool, ExportError> {
        let (bytes, before) = (batches.bytes(), self.at.done);
        let rows =
            batches.rows().unwrap_or_else(|| bytes / (8 * batches.schema().fields().len().max(1)) as u64);
        let (mut read, mut whole) = (0u64, true);
        for batch in batches.by_ref() {
            self.go_on()?;
            match batch {
                Ok(batch) => {
                    read += batch.num_rows() as u64;
                    each(&batch)?;
                }
                Err(error) => {
                    self.leave_out(what.clone(), &error);
                    whole = false;
                }
            }
            let share = read as f64 / rows.max(1) as f64;
            self.at.done = before + (bytes as f64 * share.min(1.0)) as u64;
            (self.tell)(self.at);
        }
        self.at.done = before + bytes;
        (self.tell)(self.at);
        Ok(whole && !batches.torn())
    }

    fn table(
        &mut self,
        run: &Run,
        name: &str,
        clocks: &BTreeMap<Panel, ClockFacts>,
    ) -> Result<(), ExportError> {
        self.go_on()?;
        let Some(mut batches) = self.open(run, name) else { return Ok(()) };
        let format = self.request.format;
        let file = format!("{}/{name}.{}", run.folder, format.extension());
        let path = self.request.out.join(&file);
        let write = |source| ExportError::Write { path: path.clone(), source };
        fs::create_dir_all(self.request.out.join(&run.folder)).map_err(write)?;
        let alignment = Alignment::new(name, batches.schema(), clocks, self.request.clock);
        let mut sheet = Sheet::create(format, &path, &alignment.schema).map_err(write)?;
        let complete = self.read(format!("{}: {name}", run.folder), &mut batches, &mut |batch| {
            let aligned =
                alignment.apply(batch).map_err(|source| ExportError::Arrow { path: path.clone(), source })?;
            sheet.write(&aligned).map_err(write)
        })?;
        let (rows, bytes) = sheet.finish().map_err(write)?;
        self.exported.files.push(Written {
            file: path.clone(),
            run: Some(run.folder.clone()),
            table: Some(name.to_owned()),
            rows,
            bytes,
            complete,
        });
        self.tables.push(TableRow {
            run: run.folder.clone(),
            table: name.to_owned(),
            file,
            rows,
            bytes,
            complete,
            description: alignment.schema.metadata().get("description").cloned().unwrap_or_default(),
        });
        self.describe(&run.folder, name, &alignment.schema)
    }

    /// Adds a table's columns to the table of columns.
    fn describe(&mut self, run: &str, table: &str, schema: &SchemaRef) -> Result<(), ExportError> {
        let path = self.about("columns");
        let write = |source| ExportError::Write { path: path.clone(), source };
        let batch = index::columns(run, table, schema)
            .map_err(|source| ExportError::Arrow { path: path.clone(), source })?;
        let sheet = match &mut self.columns {
            Some(sheet) => sheet,
            none => none.insert(Sheet::create(self.request.format, &path, &batch.schema()).map_err(write)?),
        };
        sheet.write(&batch).map_err(write)
    }

    /// The file of a table about all runs.
    fn about(&self, name: &str) -> PathBuf {
        self.request.out.join(format!("{name}.{}", self.request.format.extension()))
    }

    fn trace(&mut self, run: &Run, clocks: &BTreeMap<Panel, ClockFacts>) -> Result<(), ExportError> {
        self.go_on()?;
        let path = self.request.out.join(format!("{}.{}", run.folder, Format::Perfetto.extension()));
        let write = |source| ExportError::Write { path: path.clone(), source };
        let mut trace = perfetto::Trace::create(&path, &run.folder, &run.facts, clocks).map_err(write)?;
        trace.follow_frames(&run.dir, self.request.plan.as_ref().map(|p| &p.subject)).map_err(write)?;
        let mut complete = true;
        for name in &run.tables {
            let Some(mut batches) = self.open(run, name) else { continue };
            let alignment = Alignment::new(name, batches.schema(), clocks, Clock::Collector);
            trace.begin_table(name, &alignment.schema).map_err(write)?;
            complete &= self.read(format!("{}: {name}", run.folder), &mut batches, &mut |batch| {
                let aligned = alignment
                    .apply(batch)
                    .map_err(|source| ExportError::Arrow { path: path.clone(), source })?;
                trace.rows(&aligned).map_err(write)
            })?;
        }
        let (finished, dropped) = trace.finish().map_err(write)?;
        for (what, why) in dropped {
            self.exported.left_out.push(LeftOut { what: format!("{}: {what}", run.folder), why });
        }
        let (rows, bytes) = finished;
        self.exported.files.push(Written {
            file: path.clone(),
            run: Some(run.folder.clone()),
            table: None,
            rows,
            bytes,
            complete,
        });
        Ok(())
    }

    /// Writes the tables about the tables.
    fn index(&mut self, rows: &[RunRow]) -> Result<(), ExportError> {
        let subject = self.request.plan.as_ref().map(|p| &p.subject);
        let format = self.request.format;
        let made = [("runs", index::runs(rows, subject)), ("tables", index::tables(&self.tables))];
        for (name, batch) in made {
            let path = self.about(name);
            let batch = batch.map_err(|source| ExportError::Arrow { path: path.clone(), source })?;
            self.describe("", name, &batch.schema())?;
            let write = |source| ExportError::Write { path: path.clone(), source };
            let mut sheet = Sheet::create(format, &path, &batch.schema()).map_err(write)?;
            sheet.write(&batch).map_err(write)?;
            self.close(sheet, name)?;
        }
        match self.columns.take() {
            Some(sheet) => self.close(sheet, "columns"),
            None => Ok(()),
        }
    }

    fn close(&mut self, sheet: Sheet, name: &str) -> Result<(), ExportError> {
        let file = self.about(name);
        let (rows, bytes) =
            sheet.finish().map_err(|source| ExportError::Write { path: file.clone(), source })?;
        let (run, table, complete) = (None, Some(name.to_owned()), true);
        self.exported.files.push(Written { file, run, table, rows, bytes, complete });
        Ok(())
    }
}
