//! Extractors: how numbers come out of a results tree's files, declared in a TOML file. Each entry `[[extract]]` names
//! files and one way of looking into them; `docs/import.md` is the reference.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use globset::{Glob, GlobMatcher};
use probe::{Column, ColumnType, MAX_COLUMNS, Table};
use regex::bytes::Regex;
use serde::Deserialize;
use serde_json_path::JsonPath;

use super::csv::{TimeUnit, number, unit_of};
use super::results::natural;
use super::scan::Cell;
use super::table::{Growing, ImportedTable, Kind, finish, free_name, name};
use super::{ImportError, Skips, prometheus, read_file, shown};
use crate::spec::Panel;

/// Largest file that is looked into.
const MAX_PAYLOAD: u64 = 256 << 20;
/// Files of one run that a pattern can match, and how deep below the run's folder they lie.
const MAX_FILES: usize = 10_000;
const MAX_DEPTH: usize = 8;
/// Table of single values.
const RESULTS: &str = "results";

/// The extractors of a file.
#[derive(Debug)]
pub struct Extractors(Vec<Extractor>);

/// As it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    file: String,
    regex: Option<String>,
    json: Option<String>,
    csv: Option<String>,
    #[serde(default)]
    prometheus: bool,
    #[serde(default)]
    unit: Option<String>,
    #[serde(default)]
    units: BTreeMap<String, String>,
    #[serde(default, rename = "type")]
    kind: Type,
    #[serde(default)]
    description: String,
    #[serde(default)]
    panel: Option<Panel>,
    #[serde(default)]
    table: Option<String>,
    #[serde(default)]
    time: Option<String>,
    #[serde(default)]
    time_unit: Option<String>,
    #[serde(default)]
    each: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    extract: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    #[default]
    Float,
    Int,
    Bool,
}

#[derive(Debug)]
enum Method {
    Regex(Regex),
    Json { value: JsonPath, time: Option<JsonPath> },
    Csv { column: String },
    Prometheus,
}

#[derive(Debug)]
enum Files {
    One(PathBuf),
    Glob(GlobMatcher),
}

#[derive(Debug)]
struct Extractor {
    entry: Entry,
    method: Method,
    files: Files,
    time_unit: TimeUnit,
    /// Names of the columns that it gives.
    columns: Vec<String>,
    /// More than one row.
    series: bool,
}

/// What the extractors found in one run.
#[derive(Debug, Default)]
pub(crate) struct Extracted {
    pub(crate) tables: Vec<ImportedTable>,
    pub(crate) skips: Skips,
    /// Labels of numbered series, by `panel.table`.
    pub(crate) labels: BTreeMap<(Panel, String), String>,
    /// Files that were looked into.
    pub(crate) files: Vec<PathBuf>,
}

/// One row of an extractor: its instant as text, and a text for each column.
type Row = (Option<Vec<u8>>, Vec<Option<Vec<u8>>>);

impl Extractors {
    /// No extractors: runs are their settings alone.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// Reads a file of extractors.
    ///
    /// # Errors
    /// It cannot be read, or an entry is not valid; the message says which field, and what is expected.
    pub fn read(path: &Path) -> Result<Self, ImportError> {
        let text = read_file(path, 1 << 20)?;
        Self::parse(&String::from_utf8_lossy(&text), path)
    }

    /// As [`Extractors::read`], from text. `path` is for messages.
    ///
    /// # Errors
    /// As [`Extractors::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ImportError> {
        let file: File = toml::from_str(text).map_err(|error: toml::de::Error| {
            let before = &text[..error.span().map_or(0, |s| s.start.min(text.len()))];
            let line = before.matches('\n').count() as u64 + 1;
            ImportError::input(path, line, "", error.message())
        })?;
        let mut made = Vec::new();
        for (i, entry) in file.extract.into_iter().enumerate() {
            let named = format!("extract[{i}] ({})", entry.name);
            made.push(
                Extractor::new(entry).map_err(|(field, what)| {
                    ImportError::input(path, 0, &format!("{named}.{field}"), what)
                })?,
            );
        }
        Ok(Self(made))
    }

    /// Looks into a run's files.
    pub(crate) fn apply(&self, dir: &Path) -> Extracted {
        let mut out = Extracted::default();
        let listed = self.0.iter().any(|e| matches!(e.files, Files::Glob(_))).then(|| list(dir));
        let rows = self.0.iter().map(|e| e.rows(&e.files(dir, listed.as_deref()), &mut out)).collect();
        self.tables(rows, &dir.display().to_string(), &mut out);
        out
    }

    /// The columns of single values and of series that they give, with panel and table, in order of the file. Those of a
    /// `prometheus` extractor are known only once there is something to look into.
    pub fn columns(&self) -> Vec<(Panel, String, Column)> {
        let known = self.0.iter().filter(|extractor| !matches!(extractor.method, Method::Prometheus));
        let of = |extractor: &Extractor| {
            let table = match extractor.series {
                true => extractor.table(),
                false => name(extractor.entry.table.as_deref().unwrap_or(RESULTS)),
            };
            let columns = 0..extractor.columns.len();
            let place = |i| (extractor.panel(), table.clone(), extractor.column(i));
            columns.map(place).collect::<Vec<_>>()
        };
        known.flat_map(of).collect()
    }

    /// The files below a run's folder that they name; those that a pattern would match are not known.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().filter_map(|extractor| match &extractor.files {
            Files::One(path) => Some(path.as_path()),
            Files::Glob(_) => None,
        })
    }

    /// What they find in the files of a run's folder, and what was passed over.
    pub fn read_run(&self, dir: &Path) -> (Vec<ImportedTable>, Skips) {
        let found = self.apply(dir);
        (found.tables, found.skips)
    }

    /// Looks into `bytes` as if they were the file of every extractor.
    pub fn look_into(&self, bytes: &[u8]) -> Vec<ImportedTable> {
        let mut out = Extracted::default();
        let rows = self.0.iter().map(|e| e.found(bytes, &mut out).ok()).collect();
        self.tables(rows, "bytes", &mut out);
        out.tables
    }

    /// Tables of what each extractor has found; `None` where its files could not be read, which was counted. `place` is
    /// for messages.
    fn tables(&self, found: Vec<Option<Vec<Row>>>, place: &str, out: &mut Extracted) {
        let mut single: BTreeMap<(Panel, String), Vec<(Column, Growing)>> = BTreeMap::new();
        for (extractor, rows) in self.0.iter().zip(found) {
            let Some(rows) = rows else { continue };
            let named = shown(&extractor.entry.name);
            if extractor.series || matches!(extractor.method, Method::Prometheus) {
                extractor.series(rows, out);
                continue;
            }
            let Some((_, values)) = rows.first() else {
                out.skips.add(format!("extractor '{named}': no match"), 1, || place.into());
                continue;
            };
            let said = format!("extractor '{named}': match after the first (each = true takes all)");
            out.skips.add(said, rows.len() as u64 - 1, || place.into());
            let table = name(extractor.entry.table.as_deref().unwrap_or(RESULTS));
            let columns = single.entry((extractor.panel(), table)).or_default();
            for (i, value) in values.iter().enumerate().take(MAX_COLUMNS - columns.len()) {
                let mut column = extractor.column(i);
                column.name = free_name(&column.name, |n| columns.iter().any(|(c, _)| c.name == n));
                let mut growing = extractor.growing();
                push(value.as_deref(), &mut growing);
                columns.push((column, growing));
            }
        }
        let first = out.tables.iter().filter_map(|t| t.t_ns.iter().min().copied()).min().unwrap_or(0);
        for ((panel, table), columns) in single {
            let mut t = TimeUnit::Ns.column();
            push(Some(first.to_string().as_bytes()), &mut t);
            let (specs, cells): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
            let taken = |n: &str| out.tables.iter().any(|t| t.panel == panel && t.table.name == n);
            let mut table = Table::new(free_name(&table, taken), "single values of the run");
            table.columns = specs;
            out.tables.extend(finish(panel, table, t, cells, place, &mut out.skips));
        }
        // A table whose every column was left out says nothing.
        out.tables.retain(|t| !t.columns.is_empty());
    }
}

fn push(text: Option<&[u8]>, into: &mut Growing) {
    let Some(text) = text else { return into.push(Cell::Null) };
    let flag = match text.trim_ascii() {
        t if t.eq_ignore_ascii_case(b"true") => Some(Cell::Bool(true)),
        t if t.eq_ignore_ascii_case(b"false") => Some(Cell::Bool(false)),
        _ => None,
    };
    into.push(number(text).or(flag).unwrap_or(Cell::Text));
}

/// Every file below a run's folder, in numeric order; links are not followed.
fn list(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![(PathBuf::new(), 0)];
    while let Some((below, depth)) = open.pop() {
        let Ok(entries) = std::fs::read_dir(dir.join(&below)) else { continue };
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            let below = below.join(entry.file_name());
            if kind.is_dir() && depth < MAX_DEPTH {
                open.push((below, depth + 1));
            } else if kind.is_file() && found.len() < MAX_FILES {
                found.push(below);
            }
        }
    }
    found.sort_by_cached_key(|p| natural(&p.to_string_lossy()));
    found
}

impl Extractor {
    fn new(entry: Entry) -> Result<Self, (&'static str, String)> {
        let ways = [entry.regex.is_some(), entry.json.is_some(), entry.csv.is_some(), entry.prometheus];
        if ways.iter().filter(|w| **w).count() != 1 {
            return Err(("regex", "exactly one of regex, json, csv and prometheus = true is needed".into()));
        }
        let mut columns = vec![name(&entry.name)];
        if entry.name.is_empty() {
            return Err(("name", "must not be empty".into()));
        }
        let method = if let Some(text) = &entry.regex {
            let regex = Regex::new(text).map_err(|e| ("regex", e.to_string()))?;
            let named: Vec<_> =
                regex.capture_names().flatten().filter(|n| Some(*n) != entry.time.as_deref()).collect();
            if !named.is_empty() {
                columns = named.into_iter().map(name).collect();
            } else if regex.captures_len() < 2 {
                return Err(("regex", "it needs a group in parentheses: the value".into()));
            }
            if let Some(time) = &entry.time
                && !regex.capture_names().flatten().any(|n| n == time)
            {
                return Err(("time", format!("the regular expression has no group '{time}'")));
            }
            Method::Regex(regex)
        } else if let Some(text) = &entry.json {
            let path = |field, text: &str| JsonPath::parse(text).map_err(|e| (field, e.to_string()));
            let time = entry.time.as_deref().map(|t| path("time", t)).transpose()?;
            Method::Json { value: path("json", text)?, time }
        } else if let Some(column) = &entry.csv {
            Method::Csv { column: column.clone() }
        } else {
            columns = vec![
                "series".into(),
                if entry.name == "series" { "value".into() } else { name(&entry.name) },
            ];
            Method::Prometheus
        };
        let time_unit = match entry.time_unit.as_deref() {
            None => TimeUnit::S,
            Some(unit) => TimeUnit::named(unit)
                .ok_or(("time_unit", format!("'{unit}' is no unit of time: s, ms, us, ns or rfc3339")))?,
        };
        let relative = Path::new(&entry.file);
        if entry.file.is_empty()
            || !relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
        {
            return Err(("file", "must be a path below the run's folder".into()));
        }
        let files = if entry.file.contains(['*', '?', '[', '{']) {
            Files::Glob(Glob::new(&entry.file).map_err(|e| ("file", e.to_string()))?.compile_matcher())
        } else {
            Files::One(relative.to_owned())
        };
        let series = entry.each || entry.time.is_some();
        Ok(Self { method, files, time_unit, columns, series, entry })
    }

    fn panel(&self) -> Panel {
        self.entry.panel.unwrap_or(Panel::Host)
    }

    fn files(&self, dir: &Path, listed: Option<&[PathBuf]>) -> Vec<PathBuf> {
        match &self.files {
            Files::One(path) => vec![dir.join(path)],
            Files::Glob(glob) => {
                listed.unwrap_or_default().iter().filter(|p| glob.is_match(p)).map(|p| dir.join(p)).collect()
            }
        }
    }

    fn growing(&self) -> Growing {
        Growing::new(match self.entry.kind {
            Type::Float => Kind::Float,
            Type::Int => Kind::Scaled(0),
            Type::Bool => Kind::Flag,
        })
    }

    fn column(&self, i: usize) -> Column {
        let entry = &self.entry;
        let name = self.columns[i].clone();
        let unit = entry.units.get(&name).or(entry.unit.as_ref()).cloned();
        let unit = unit.unwrap_or_else(|| unit_of(&name).to_owned());
        let said = if entry.description.is_empty() { "value".to_owned() } else { shown(&entry.description) };
        let description = format!("{said}; from {}", shown(&entry.file));
        Column { unit, column_type: ColumnType::F64, description, name }
    }

    /// Rows of all files, in their order; `None` where every file was of no use.
    fn rows(&self, files: &[PathBuf], out: &mut Extracted) -> Option<Vec<Row>> {
        let (mut rows, mut useless) = (Vec::new(), 0);
        let what = |why: &str| format!("extractor '{}': {why}", shown(&self.entry.name));
        for path in files {
            let bytes = match read_file(path, MAX_PAYLOAD) {
                Ok(bytes) => bytes,
                Err(error) => {
                    out.skips.add(what("file that cannot be read"), 1, || error.to_string());
                    useless += 1;
                    continue;
                }
            };
            match self.found(&bytes, out) {
                Ok(found) => rows.extend(found),
                Err(why) => {
                    let place = || format!("{}: {why}", path.display());
                    out.skips.add(what("file of another form"), 1, place);
                    useless += 1;
                }
            }
            out.files.push(path.clone());
        }
        (files.is_empty() || useless < files.len()).then_some(rows)
    }

    /// Rows of one file, or why it has none.
    fn found(&self, bytes: &[u8], out: &mut Extracted) -> Result<Vec<Row>, String> {
        match &self.method {
            Method::Regex(regex) => Ok(self.by_regex(regex, bytes)),
            Method::Json { value, time } => by_json(value, time.as_ref(), bytes),
            Method::Csv { column } => by_csv(column, self.entry.time.as_deref(), bytes),
            Method::Prometheus => self.by_prometheus(bytes, out),
        }
    }

    fn by_regex(&self, regex: &Regex, bytes: &[u8]) -> Vec<Row> {
        let time = self.entry.time.as_deref();
        let named: Vec<_> = regex.capture_names().flatten().filter(|n| Some(*n) != time).collect();
        let row = |captures: regex::bytes::Captures<'_>| {
            let text = |m: regex::bytes::Match<'_>| m.as_bytes().to_owned();
            let values = if named.is_empty() {
                vec![captures.get(1).map(text)]
            } else {
                named.iter().map(|n| captures.name(n).map(text)).collect()
            };
            (time.and_then(|t| captures.name(t).map(text)), values)
        };
        regex.captures_iter(bytes).map(row).collect()
    }

    fn by_prometheus(&self, bytes: &[u8], out: &mut Extracted) -> Result<Vec<Row>, String> {
        let series = prometheus::parse(bytes)?;
        let said: Vec<_> = series.iter().enumerate().map(|(i, s)| format!("{i} = {}", s.labels)).collect();
        let labels = out.labels.entry((self.panel(), self.table())).or_default();
        if !labels.is_empty() {
            labels.push_str("; ");
        }
        labels.push_str(&said.join("; "));
        let mut rows = Vec::new();
        for (i, series) in series.into_iter().enumerate() {
            let broken = format!("extractor '{}': sample that is not [t, value]", shown(&self.entry.name));
            out.skips.add(broken, series.broken, || series.labels.clone());
            for (t, value) in series.values {
                rows.push((
                    Some(t.into_bytes()),
                    vec![Some(i.to_string().into_bytes()), Some(value.into_bytes())],
                ));
            }
        }
        Ok(rows)
    }

    fn table(&self) -> String {
        name(self.entry.table.as_deref().unwrap_or(&self.entry.name))
    }

    fn series(&self, rows: Vec<Row>, out: &mut Extracted) {
        let stamped = self.entry.time.is_some() || matches!(self.method, Method::Prometheus);
        let mut t = if stamped { self.time_unit.column() } else { TimeUnit::S.column() };
        let mut specs: Vec<_> = (0..self.columns.len()).map(|i| self.column(i)).collect();
        let mut cells: Vec<_> = specs.iter().map(|_| self.growing()).collect();
        if matches!(self.method, Method::Prometheus) {
            specs[0] = Column {
                name: "series".into(),
                column_type: ColumnType::U64,
                unit: String::new(),
                description: "which series; run.toml has the labels".into(),
            };
            cells[0] = Growing::new(Kind::Count(1));
        }
        for (row, (at, values)) in rows.iter().enumerate() {
            match at {
                Some(text) => self.time_unit.push(text.trim_ascii(), &mut t),
                None if stamped => t.push(Cell::Null),
                None => push(Some(row.to_string().as_bytes()), &mut t),
            }
            for (value, cells) in values.iter().zip(&mut cells) {
                push(value.as_deref(), cells);
            }
        }
        let panel = self.panel();
        let mut table = Table::new(self.table(), format!("extractor '{}'", shown(&self.entry.name)));
        table.name =
            free_name(&table.name, |n| out.tables.iter().any(|t| t.panel == panel && t.table.name == n));
        table.columns = specs;
        let place = shown(&self.entry.file);
        out.tables.extend(finish(panel, table, t, cells, &place, &mut out.skips));
    }
}

fn by_json(value: &JsonPath, time: Option<&JsonPath>, bytes: &[u8]) -> Result<Vec<Row>, String> {
    let json: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let texts = |path: &JsonPath| -> Vec<Vec<u8>> {
        let text = |v: &serde_json::Value| match v {
            serde_json::Value::String(s) => s.clone().into_bytes(),
            other => other.to_string().into_bytes(),
        };
        path.query(&json).iter().map(|v| text(v)).collect()
    };
    let values = texts(value);
    let Some(time) = time else { return Ok(values.into_iter().map(|v| (None, vec![Some(v)])).collect()) };
    let times = texts(time);
    if times.len() != values.len() {
        return Err(format!("{} instants for {} values", times.len(), values.len()));
    }
    Ok(times.into_iter().zip(values).map(|(t, v)| (Some(t), vec![Some(v)])).collect())
}

fn by_csv(column: &str, time: Option<&str>, bytes: &[u8]) -> Result<Vec<Row>, String> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let header = reader.byte_headers().map_err(|e| e.to_string())?.clone();
    let at = |wanted: &str| {
        let found = header.iter().position(|f| f.trim_ascii() == wanted.as_bytes());
        found.ok_or_else(|| format!("line 1: no column '{}'", shown(wanted)))
    };
    let (value, time) = (at(column)?, time.map(at).transpose()?);
    let mut rows = Vec::new();
    for record in reader.byte_records() {
        let record = record.map_err(|e| e.to_string())?;
        let field = |i: usize| record.get(i).map(<[u8]>::to_owned);
        rows.push((time.and_then(field), vec![field(value)]));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::Column as Cells;

    fn extractors(text: &str) -> Result<Extractors, ImportError> {
        Extractors::parse(text, Path::new("x.toml"))
    }

    fn apply(text: &str, files: &[(&str, &str)]) -> Extracted {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        extractors(text).unwrap().apply(dir.path())
    }

    #[test]
    fn single_values_become_one_row_of_results() {
        let out = apply(
            r#"
            [[extract]]
            name = "free"
            file = "mem"
            regex = '(\d+)'
            unit = "kB"
            type = "int"
            [[extract]]
            name = "time"
            file = "log*"
            regex = 'user (?<user_s>[\d.]+) sys (?<sys_s>[\d.]+)'
            [[extract]]
            name = "ok"
            file = "out/r.json"
            json = "$.a[1].ok"
            type = "bool"
            panel = "guest"
            [[extract]]
            name = "gone"
            file = "mem"
            regex = 'x(\d+)'
            "#,
            &[
                ("mem", "399568\n"),
                ("log1", "user 1.5 sys 2"),
                ("out/r.json", r#"{"a": [{}, {"ok": true}]}"#),
            ],
        );
        let results = out.tables.iter().find(|t| t.stem() == "host.results").unwrap();
        let named: Vec<_> =
            results.table.columns.iter().map(|c| (c.name.as_str(), c.unit.as_str())).collect();
        assert_eq!(named, [("free", "kB"), ("user_s", "s"), ("sys_s", "s")]);
        assert_eq!(
            results.columns,
            [Cells::I64(vec![399_568]), Cells::F64(vec![1.5]), Cells::F64(vec![2.0])]
        );
        let guest = out.tables.iter().find(|t| t.stem() == "guest.results").unwrap();
        assert_eq!(guest.columns, [Cells::Bool(vec![true])]);
        assert_eq!(out.skips.count("extractor 'gone': no match"), 1);
    }

    #[test]
    fn series_become_tables_of_their_own() {
        let out = apply(
            r#"
            [[extract]]
            name = "rate"
            file = "log"
            regex = 't=(?<t>\d+) rate=(?<rate>\S+)'
            time = "t"
            time_unit = "ms"
            unit = "Hz"
            [[extract]]
            name = "load"
            file = "l.csv"
            csv = "load"
            time = "at"
            [[extract]]
            name = "cpu"
            file = "p.json"
            prometheus = true
            unit = "%"
            [[extract]]
            name = "steps"
            file = "s.json"
            json = "$.steps[*].n"
            type = "int"
            each = true
            "#,
            &[
                ("log", "t=1 rate=2.5\nt=2 rate=x\nt=3 rate=4\n"),
                ("l.csv", "at,load\n1,0.5\n2,0.75\n"),
                (
                    "p.json",
                    r#"{"data": {"result": [{"metric": {"c": "0"}, "values": [[1, "5"], [2, "NaN"]]}, {"metric": {"c": "1"}, "values": [[1, "7"]]}]}}"#,
                ),
                ("s.json", r#"{"steps": [{"n": 4}, {"n": 5}]}"#),
            ],
        );
        let table = |stem: &str| out.tables.iter().find(|t| t.stem() == stem).unwrap();
        assert_eq!(
            (table("host.rate").t_ns.clone(), table("host.rate").columns.clone()),
            (vec![1_000_000, 3_000_000], vec![Cells::F64(vec![2.5, 4.0])])
        );
        assert_eq!(table("host.load").t_ns, [1_000_000_000, 2_000_000_000]);
        assert_eq!(table("host.cpu").columns, [Cells::U64(vec![0, 1]), Cells::F64(vec![5.0, 7.0])]);
        assert_eq!(out.labels[&(Panel::Host, "cpu".into())], r#"0 = {c="0"}; 1 = {c="1"}"#);
        assert_eq!(table("host.steps").columns, [Cells::I64(vec![4, 5])]);
        assert_eq!(table("host.steps").t_ns, [0, 1_000_000_000]);
    }

    #[test]
    fn entries_that_are_not_valid_are_refused_with_their_field() {
        for (text, expected) in [
            ("[[extract]]\nname = \"a\"\n", "x.toml:1: missing field `file`"),
            ("[[extract]]\nname = 'a'\nfile = 'f'\nreg = 'x'\n", "x.toml:4: unknown field `reg`"),
            ("[[extract]]\nname = 'a'\nfile = 'f'\n", "x.toml: field 'extract[0] (a).regex': exactly one of"),
            (
                "[[extract]]\nname = 'a'\nfile = 'f'\nregex = '\\d'\n",
                "x.toml: field 'extract[0] (a).regex': it needs a group",
            ),
            (
                "[[extract]]\nname = 'a'\nfile = '../f'\nregex = '(x)'\n",
                "x.toml: field 'extract[0] (a).file': must be a path below",
            ),
            (
                "[[extract]]\nname = 'a'\nfile = 'f'\nregex = '(x)'\ntime = 't'\n",
                "x.toml: field 'extract[0] (a).time': the regular expression has no",
            ),
            ("[[extract]]\nname = 'a'\nfile = 'f'\njson = '$['\n", "x.toml: field 'extract[0] (a).json'"),
        ] {
            let error = extractors(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn files_of_another_form_are_counted() {
        let out = apply(
            "[[extract]]\nname = 'a'\nfile = 'f'\njson = '$.a'\n[[extract]]\nname = 'b'\nfile = 'none'\ncsv = 'b'\n[[extract]]\nname = 'c'\nfile = 'f'\ncsv = 'c'\n",
            &[("f", "{not json")],
        );
        assert!(out.tables.is_empty());
        assert_eq!(out.skips.count("extractor 'a': file of another form"), 1);
        assert_eq!(out.skips.count("extractor 'b': file that cannot be read"), 1);
        assert_eq!(out.skips.count("extractor 'c': file of another form"), 1);
    }
}
