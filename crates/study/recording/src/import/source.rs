//! What there is to import below the paths that a person names, and how one run of it is read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use super::csv::{self, CsvOptions};
use super::extract::Extractors;
use super::matrix;
use super::rec::{self, Message};
use super::results::{self, Folder, natural};
use super::table::ImportedTable;
use super::{ImportError, MAX_FILE, Skips, read_file, shown};
use crate::facts::{ImportFacts, Marker};
use crate::spec::{Level, Levels, Panel};

/// Bytes at the start of a file by which its format is guessed.
const START: u64 = 1 << 16;
/// Longest text of a marker; the whole stands in `messages.log`.
const MAX_TEXT: usize = 400;
/// Largest `matrix.csv`.
const MAX_MATRIX: u64 = 256 << 20;
/// Files below a folder that is searched for recordings.
const MAX_FOUND: usize = 1_000_000;
/// How deep it is searched.
const MAX_DEPTH: usize = 32;
/// What is assumed of every `.rec` file.
const REC_ASSUMPTIONS: [&str; 6] = [
    "each panel stamped with its own clock (seconds or microseconds since 1970); how the three clocks lie to each other is not in the file",
    "instants of messages are on the clock of the control centre, which is taken to be the collector's; those without an instant stand at the start",
    "'time' and 'gpu.time' are seconds, 'msg_ts' and 'in_queue_time' microseconds, durations seconds, sizes bytes, 'mm_time' milliseconds",
    "'mem.free' is in kB of 1024 bytes, as in /proc/meminfo",
    "'cpu', 'gpu' and '*-pid' are percent; of a process, percent of one core",
    "tables 'guest.guest', 'server.host' and 'client.client' are the panels' frames",
];

/// A format of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `.rec` files, alone or named by a `matrix.csv`.
    Rec,
    /// A results tree.
    Results,
    /// Plain CSV.
    Csv,
}

impl Format {
    /// As in facts: `rec`, `results`, `csv`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rec => "rec",
            Self::Results => "results",
            Self::Csv => "csv",
        }
    }
}

/// How to import.
#[derive(Debug)]
pub struct Options {
    /// The format; guessed from content when not given.
    pub format: Option<Format>,
    /// For CSV.
    pub csv: CsvOptions,
    /// For results trees.
    pub extractors: Extractors,
    /// Settings that hold for every run of this import, besides those that the files tell.
    pub settings: Levels,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            format: None,
            csv: CsvOptions::default(),
            extractors: Extractors::none(),
            settings: Levels::new(),
        }
    }
}

/// One run to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Its file or folder.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// With the settings of a `matrix.csv`.
    Rec(Option<Levels>),
    Results(Box<Folder>),
    Csv,
}

/// What was found, in the order in which it becomes runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// The runs.
    pub sources: Vec<Source>,
    /// Comments of `matrix.csv`.
    pub notes: Vec<String>,
    /// Files that a `matrix.csv` names and that are not there.
    pub missing: Vec<PathBuf>,
    /// What was left out.
    pub skips: Skips,
}

/// One run, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// Its file or folder.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// Settings it was recorded with.
    pub settings: Levels,
    /// Its tables.
    pub tables: Vec<ImportedTable>,
    /// Messages; those without an instant carry 0 and go to the start of the window.
    pub markers: Vec<Marker>,
    /// What is known of a panel besides: words of numbered words, labels of numbered series.
    pub panel_facts: BTreeMap<Panel, BTreeMap<String, String>>,
    /// Further files of the run: name and content.
    pub attachments: Vec<(String, String)>,
    /// Where it comes from, what was assumed and left out.
    pub facts: ImportFacts,
    /// What tells it from others: SHA-1 of its content.
    pub digest: String,
    /// Why it did not complete, if it did not.
    pub failed: Option<String>,
    /// When its file was changed last, nanoseconds since 1970.
    pub modified_ns: i64,
}

/// Finds what there is to import.
///
/// # Errors
/// A path cannot be read, or its format is none of the known ones.
pub fn survey(paths: &[PathBuf], options: &Options) -> Result<Survey, ImportError> {
    let mut survey = Survey::default();
    for path in paths {
        let meta = fs::metadata(path).map_err(ImportError::io("read", path))?;
        let before = survey.sources.len() + survey.missing.len();
        if meta.is_dir() {
            survey.folder(path, options)?
        } else {
            survey.file(path, options)?
        }
        if survey.sources.len() + survey.missing.len() == before {
            let why = survey.skips.clone().into_facts().into_keys().next();
            let what =
                why.map_or("nothing to import in it".into(), |why| format!("nothing to import in it: {why}"));
            return Err(ImportError::input(path, 0, "", what));
        }
    }
    Ok(survey)
}

impl Survey {
    fn file(&mut self, path: &Path, options: &Options) -> Result<(), ImportError> {
        let start = start_of(path)?;
        let is_matrix = matrix::looks_like(&start);
        match options.format {
            Some(Format::Csv) => self.push(path, Format::Csv, Kind::Csv),
            Some(Format::Rec) if is_matrix => self.matrix(path)?,
            Some(Format::Rec) => self.push(path, Format::Rec, Kind::Rec(None)),
            Some(Format::Results) => {
                return Err(ImportError::input(path, 0, "", "is a file: a results tree is a folder"));
            }
            None if is_matrix => self.matrix(path)?,
            None if rec::looks_like(&start) => self.push(path, Format::Rec, Kind::Rec(None)),
            None if is_text_table(&start) => self.push(path, Format::Csv, Kind::Csv),
            None => {
                let what =
                    "is of no known format (.rec, matrix.csv, CSV with a header): name it with --format";
                return Err(ImportError::input(path, 1, "", what));
            }
        }
        Ok(())
    }

    fn folder(&mut self, path: &Path, options: &Options) -> Result<(), ImportError> {
        let matrix = path.join("matrix.csv");
        let wants = |format| options.format.is_none_or(|f| f == format);
        if wants(Format::Rec) && matrix.is_file() && matrix::looks_like(&start_of(&matrix)?) {
            return self.matrix(&matrix);
        }
        if options.format == Some(Format::Results) || (options.format.is_none() && results::looks_like(path))
        {
            let tree = results::walk(path)?;
            self.skips.merge(tree.skips);
            for folder in tree.folders {
                let path = folder.path.clone();
                self.push(&path, Format::Results, Kind::Results(Box::new(folder)));
            }
            return Ok(());
        }
        for (extension, format, kind) in
            [("rec", Format::Rec, Kind::Rec(None)), ("csv", Format::Csv, Kind::Csv)]
        {
            let found = if wants(format) { files(path, extension) } else { Vec::new() };
            found.iter().for_each(|file| self.push(file, format, kind.clone()));
            if !found.is_empty() {
                return Ok(());
            }
        }
        let what =
            "holds nothing to import: no matrix.csv, no folder with settings and exit_code, no .rec, no .csv";
        Err(ImportError::input(path, 0, "", what))
    }

    fn push(&mut self, path: &Path, format: Format, kind: Kind) {
        self.sources.push(Source { path: path.to_owned(), format, kind });
    }

    fn matrix(&mut self, path: &Path) -> Result<(), ImportError> {
        let matrix = matrix::parse(&read_file(path, MAX_MATRIX)?);
        self.notes.extend(matrix.comments);
        self.skips.merge(matrix.skips);
        let folder = path.parent().unwrap_or(Path::new(""));
        for entry in matrix.entries {
            let file = folder.join(&entry.file);
            if file.is_file() {
                self.push(&file, Format::Rec, Kind::Rec(Some(entry.settings)));
            } else {
                let line = entry.line;
                let place = || format!("{}:{line}: {}", path.display(), entry.file.display());
                self.skips.add("recording that matrix.csv names and that is missing", 1, place);
                self.missing.push(entry.file);
            }
        }
        Ok(())
    }
}

fn start_of(path: &Path) -> Result<Vec<u8>, ImportError> {
    let mut start = Vec::new();
    let file = File::open(path).map_err(ImportError::io("open", path))?;
    file.take(START).read_to_end(&mut start).map_err(ImportError::io("read", path))?;
    Ok(start)
}

/// Text with a first line of more than nothing.
fn is_text_table(start: &[u8]) -> bool {
    let first = start.split(|b| *b == b'\n').next().unwrap_or_default();
    !first.trim_ascii().is_empty() && !start.contains(&0) && start.contains(&b'\n')
}

/// Files with this extension below a folder, in numeric order; links to folders are not followed.
fn files(root: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![(root.to_owned(), 0)];
    while let Some((dir, depth)) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && depth < MAX_DEPTH {
                open.push((path, depth + 1));
            } else if kind.is_file()
                && path.extension().is_some_and(|e| e == extension)
                && found.len() < MAX_FOUND
            {
                found.push(path);
            }
        }
    }
    found.sort_by_cached_key(|p| natural(&p.to_string_lossy()));
    found
}

impl Source {
    /// Reads the run.
    ///
    /// # Errors
    /// Its file cannot be read, or nothing in it can.
    pub fn read(&self, options: &Options) -> Result<Imported, ImportError> {
        let mut imported = match &self.kind {
            Kind::Rec(settings) => self.rec(settings.as_ref(), options)?,
            Kind::Results(folder) => self.results(folder, &options.extractors),
            Kind::Csv => self.csv(options)?,
        };
        imported.settings.extend(options.settings.clone());
        imported.modified_ns = modified(&self.path);
        Ok(imported)
    }

    fn imported(&self, digest: String) -> Imported {
        Imported {
            path: self.path.clone(),
            format: self.format,
            settings: Levels::new(),
            tables: Vec::new(),
            markers: Vec::new(),
            panel_facts: BTreeMap::new(),
            attachments: Vec::new(),
            facts: ImportFacts {
                format: self.format.name().into(),
                files: vec![self.path.display().to_string()],
                ..ImportFacts::default()
            },
            digest,
            failed: None,
            modified_ns: 0,
        }
    }

    fn rec(&self, settings: Option<&Levels>, options: &Options) -> Result<Imported, ImportError> {
        let bytes = read_file(&self.path, MAX_FILE)?;
        let rec = rec::parse(&bytes, &self.path)?;
        let mut imported = self.imported(sha1(&[&bytes]));
        imported.settings = match settings {
            Some(settings) => settings.clone(),
            None => self.own_settings(&rec.messages, options),
        };
        imported.facts.assumptions = REC_ASSUMPTIONS.map(String::from).to_vec();
        let unknown = rec.unknown.iter().map(|field| format!("the unit of '{field}' is not known"));
        imported.facts.assumptions.extend(unknown);
        imported.facts.skipped = rec.skips.into_facts();
        imported.tables = rec.tables;
        let (markers, log) = markers(&rec.messages);
        imported.markers = markers;
        if !log.is_empty() {
            imported.attachments.push(("messages.log".into(), log));
        }
        Ok(imported)
    }

    /// Where nothing else tells the settings: the file's name, where it is `k=v_k=v`, then what a script said of its own
    /// (`codec: …`); else the file is told by its name.
    fn own_settings(&self, messages: &[Message], options: &Options) -> Levels {
        let stem = self.path.file_stem().map_or(String::new(), |s| s.to_string_lossy().into_owned());
        let mut settings = matrix::settings(&stem).unwrap_or_default();
        for message in messages.iter().filter(|m| m.source == "script") {
            if let Some((key, value)) = message.text.split_once(": ")
                && key != "encoding"
                && value.len() <= 64
                && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
                && settings.len() < matrix::MAX_SETTINGS
            {
                settings.entry(key.to_owned()).or_insert_with(|| matrix::level(value));
            }
        }
        if settings.is_empty() && options.settings.is_empty() {
            settings.insert("source".into(), Level::Text(shown(&stem)));
        }
        settings
    }

    fn csv(&self, options: &Options) -> Result<Imported, ImportError> {
        let bytes = read_file(&self.path, MAX_FILE)?;
        let parsed = csv::parse(&bytes, &self.path, &options.csv)?;
        let mut imported = self.imported(sha1(&[&bytes]));
        imported.settings = self.own_settings(&[], options);
        imported.facts.assumptions = parsed.assumptions;
        imported.facts.skipped = parsed.skips.into_facts();
        let of_panel = imported.panel_facts.entry(parsed.table.panel).or_default();
        for (column, words) in parsed.words {
            of_panel.insert(format!("words of {}.{column}", parsed.table.table.name), words);
        }
        imported.tables.push(parsed.table);
        Ok(imported)
    }

    fn results(&self, folder: &Folder, extractors: &Extractors) -> Imported {
        let extracted = extractors.apply(&folder.path);
        let settings = format!("{:?}", folder.settings);
        let number = format!("{:?}", folder.number);
        let below = folder.below.to_string_lossy();
        let digest =
            sha1(&[below.as_bytes(), settings.as_bytes(), number.as_bytes(), folder.exit_code.as_bytes()]);
        let mut imported = self.imported(digest);
        imported.settings = folder.settings.clone();
        imported.tables = extracted.tables;
        imported.facts.files.extend(extracted.files.iter().map(|p| p.display().to_string()));
        imported.facts.skipped = extracted.skips.into_facts();
        imported.facts.assumptions = vec![
            "everything was seen on the host, unless an extractor says otherwise".into(),
            "single values have no instant: they stand at the start of the series, or at 0".into(),
        ];
        imported.failed = (folder.exit_code != "0").then(|| format!("exit code {}", folder.exit_code));
        if let Some(number) = &folder.number {
            imported.panel_facts.entry(Panel::Host).or_default().insert("run".into(), number.to_string());
        }
        for ((panel, table), labels) in extracted.labels {
            imported.panel_facts.entry(panel).or_default().insert(format!("series of {table}"), labels);
        }
        imported
    }
}

/// Messages as markers, and a log of those that are too long to be one.
fn markers(messages: &[Message]) -> (Vec<Marker>, String) {
    let mut log = String::new();
    let marker = |m: &Message| {
        let setting = m.text.starts_with("!encoding")
            || m.text.starts_with("encoding:")
            || m.text.starts_with("resolution:");
        let mut text = m.text.clone();
        if text.chars().nth(MAX_TEXT).is_some() {
            log.push_str(&format!("{} {}: {}\n", m.t_ns.unwrap_or(0), m.source, m.text));
            text = m.text.chars().take(MAX_TEXT / 4).collect();
            text.push_str(&format!("… ({} bytes, whole in messages.log)", m.text.len()));
        }
        Marker {
            t_ns: m.t_ns.unwrap_or(0),
            panel: m.panel,
            kind: if setting { "setting" } else { "note" }.into(),
            text: if m.panel.is_some() { text } else { format!("{}: {text}", m.source) },
        }
    };
    (messages.iter().map(marker).collect(), log)
}

fn sha1(parts: &[&[u8]]) -> String {
    let mut hash = Sha1::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn modified(path: &Path) -> i64 {
    let modified = fs::metadata(path).and_then(|m| m.modified()).ok();
    let since = modified.and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(0)
}
