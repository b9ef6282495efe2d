//! Plain CSV with a header: numbers, flags, and words where they are few.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use csv::{ByteRecord, ReaderBuilder};
use probe::{Column, ColumnType, MAX_COLUMNS, Table};

use super::scan::{Cell, Scanner};
use super::table::{Growing, ImportedTable, Kind, NULL, finish, free_name, name};
use super::{ImportError, Skips, shown};
use crate::spec::Panel;

/// Rows that decide what a column holds.
const SAMPLE: usize = 1_000;
/// Words of a column that becomes numbered words; more are free text, which has no place in a table.
const MAX_WORDS: usize = 32;
/// Longest such word.
const MAX_WORD: usize = 64;
const WORDS: &str = "other than the column's words";
const NO_FLAG: &str = "neither true nor false";
const NO_TIME: &str = "no instant";
const FIELD: &str = "text where a number belongs";

/// How a file is to be read; what is `None` is found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvOptions {
    /// What stands between fields.
    pub delimiter: Option<u8>,
    /// The column that stamps the rows.
    pub time: Option<TimeColumn>,
    /// Whose the table is.
    pub panel: Panel,
    /// Name of the table; the file's when not given.
    pub table: Option<String>,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self { delimiter: None, time: None, panel: Panel::Host, table: None }
    }
}

/// Unit of a column of instants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
    /// Dates with time and offset, as in RFC 3339.
    Rfc3339,
}

impl TimeUnit {
    /// The unit of this name: `s`, `ms`, `us`, `ns`, `rfc3339`.
    pub fn named(text: &str) -> Option<Self> {
        Some(match text {
            "s" => Self::S,
            "ms" => Self::Ms,
            "us" | "µs" => Self::Us,
            "ns" => Self::Ns,
            "rfc3339" => Self::Rfc3339,
            _ => return None,
        })
    }

    fn power(self) -> i32 {
        match self {
            Self::S => 9,
            Self::Ms => 6,
            Self::Us => 3,
            Self::Ns | Self::Rfc3339 => 0,
        }
    }

    /// Adds the instant that a text tells to a column of nanoseconds.
    pub(crate) fn push(self, text: &[u8], into: &mut Growing) {
        let date = || -> Option<i64> {
            let at: jiff::Timestamp = std::str::from_utf8(text).ok()?.trim().parse().ok()?;
            i64::try_from(at.as_nanosecond()).ok()
        };
        let digits = |n: i64| n.to_string();
        match self {
            Self::Rfc3339 => match date() {
                Some(n) => into.push(Scanner::new(digits(n).as_bytes()).cell().unwrap_or(Cell::Null)),
                None => into.push_bad(NO_TIME),
            },
            _ => match number(text) {
                Some(cell) => into.push(cell),
                None => into.push_bad(if text.is_empty() { NULL } else { NO_TIME }),
            },
        }
    }

    /// A column that takes its instants.
    pub(crate) fn column(self) -> Growing {
        Growing::new(Kind::Scaled(self.power()))
    }
}

/// `COLUMN[:unit]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeColumn {
    /// Its name in the header.
    pub column: String,
    /// Its unit; found by the name's end (`_ms`) or the first cell when not given.
    pub unit: Option<TimeUnit>,
}

impl FromStr for TimeColumn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (column, unit) = match text.rsplit_once(':') {
            Some((column, unit)) => {
                let known = TimeUnit::named(unit);
                (column, Some(known.ok_or(format!("'{unit}' is no unit of time: s, ms, us, ns or rfc3339"))?))
            }
            None => (text, None),
        };
        if column.is_empty() { Err("which column?".into()) } else { Ok(Self { column: column.into(), unit }) }
    }
}

/// What one file gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The table.
    pub table: ImportedTable,
    /// Numbered words, by column: `0 = idle; 1 = busy`.
    pub words: BTreeMap<String, String>,
    /// What the file does not say.
    pub assumptions: Vec<String>,
    /// What was left out.
    pub skips: Skips,
}

/// A field as a cell where it is a whole number or flag and nothing else.
pub(crate) fn number(text: &[u8]) -> Option<Cell<'_>> {
    let text = text.trim_ascii();
    let text = text.strip_prefix(b"+").unwrap_or(text);
    let mut scanner = Scanner::new(text);
    let cell = match text.first()? {
        b'.' | b'0'..=b'9' => Cell::Number(scanner.number()?),
        b'-' if text.get(1).is_some_and(|b| b.is_ascii_digit() || *b == b'.') => {
            Cell::Number(scanner.number()?)
        }
        _ => {
            let lower = text.to_ascii_lowercase();
            return matches!(&lower[..], b"nan" | b"inf" | b"-inf" | b"infinity" | b"-infinity")
                .then_some(Cell::NotFinite);
        }
    };
    (scanner.at == text.len()).then_some(cell)
}

fn flag(text: &[u8]) -> Option<bool> {
    match text.trim_ascii() {
        t if t.eq_ignore_ascii_case(b"true") => Some(true),
        t if t.eq_ignore_ascii_case(b"false") => Some(false),
        _ => None,
    }
}

fn reader(bytes: &[u8], delimiter: u8) -> csv::Reader<&[u8]> {
    ReaderBuilder::new().delimiter(delimiter).has_headers(false).flexible(true).from_reader(bytes)
}

/// The delimiter that cuts the first rows into the same number of fields, and into most.
fn delimiter(bytes: &[u8]) -> u8 {
    let score = |delimiter: u8| {
        let widths: Vec<_> =
            reader(bytes, delimiter).byte_records().take(20).map_while(|r| Some(r.ok()?.len())).collect();
        let first = widths.first().copied().unwrap_or(0);
        let same = widths.iter().filter(|w| **w == first).count();
        (first > 1, same, first)
    };
    // The first of equals: a comma.
    [b'|', b'\t', b';', b','].into_iter().max_by_key(|d| score(*d)).unwrap_or(b',')
}

/// Name and unit of a header's field: `load [%]`, `load (%)`, `wait_ms`.
fn named(field: &str) -> (String, &str) {
    let field = field.trim();
    for (open, close) in [('[', ']'), ('(', ')')] {
        if let Some((stem, unit)) = field.strip_suffix(close).and_then(|f| f.rsplit_once(open))
            && !stem.trim().is_empty()
            && unit.len() <= 16
        {
            return (name(stem), unit.trim());
        }
    }
    (name(field), unit_of(field))
}

/// The unit that the end of a name tells.
pub(crate) fn unit_of(name: &str) -> &'static str {
    const ENDS: [(&str, &str); 9] = [
        ("ns", "ns"),
        ("us", "µs"),
        ("ms", "ms"),
        ("s", "s"),
        ("bytes", "B"),
        ("percent", "%"),
        ("pct", "%"),
        ("hz", "Hz"),
        ("fps", "Hz"),
    ];
    let last = name.rsplit_once('_').map(|(_, last)| last.to_ascii_lowercase());
    ENDS.iter().find(|(end, _)| last.as_deref() == Some(end)).map_or("", |(_, unit)| unit)
}

/// What the first rows say that a column holds.
#[derive(Clone, Copy, Debug, Default)]
struct Sampled {
    numbers: usize,
    flags: usize,
    words: usize,
}

enum Kept {
    Numbers(Growing),
    Flags(Growing),
    Words(Growing, Vec<Vec<u8>>),
    /// Free text, and how many cells it had.
    Text(u64),
}

impl Kept {
    fn new(sampled: Sampled) -> Self {
        let Sampled { numbers, flags, words } = sampled;
        match () {
            () if flags > numbers && flags >= words => Self::Flags(Growing::new(Kind::Flag)),
            () if words > numbers => Self::Words(Growing::new(Kind::Count(1)), Vec::new()),
            () => Self::Numbers(Growing::new(Kind::Auto)),
        }
    }

    fn push(&mut self, field: &[u8]) {
        match self {
            Self::Numbers(column) | Self::Flags(column) | Self::Words(column, _)
                if field.trim_ascii().is_empty() =>
            {
                column.push(Cell::Null);
            }
            Self::Numbers(column) => match number(field) {
                Some(cell) => column.push(cell),
                None => column.push_bad(FIELD),
            },
            Self::Flags(column) => match (flag(field), number(field)) {
                (Some(flag), _) => column.push(Cell::Bool(flag)),
                (None, Some(cell)) => column.push(cell),
                (None, None) => column.push_bad(NO_FLAG),
            },
            Self::Words(column, words) => {
                let word = field.trim_ascii();
                let code = words.iter().position(|w| w == word);
                if code.is_none() && (words.len() == MAX_WORDS || word.len() > MAX_WORD) {
                    let so_far = column.cells.len() as u64;
                    *self = Self::Text(so_far + 1);
                    return;
                }
                let code = code.unwrap_or_else(|| {
                    words.push(word.to_owned());
                    words.len() - 1
                });
                match Scanner::new(code.to_string().as_bytes()).cell() {
                    Some(cell) => column.push(cell),
                    None => column.push_bad(WORDS),
                }
            }
            Self::Text(n) => *n += 1,
        }
    }
}

/// Reads a file's bytes. `path` is for messages and for the table's name.
///
/// # Errors
/// There is no header, no such column of time, no row, or more columns than a table has.
pub fn parse(bytes: &[u8], path: &Path, options: &CsvOptions) -> Result<Parsed, ImportError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let delimiter = options.delimiter.unwrap_or_else(|| delimiter(&bytes[..bytes.len().min(1 << 16)]));
    let mut rows = reader(bytes, delimiter);
    let mut header = ByteRecord::new();
    let got = rows.read_byte_record(&mut header).unwrap_or(false);
    if !got || header.iter().all(|f| f.trim_ascii().is_empty()) {
        return Err(ImportError::input(
            path,
            1,
            "",
            "has no header: a CSV file begins with the names of its columns",
        ));
    }
    if header.len() > MAX_COLUMNS {
        let what = format!("has {} columns, more than the {MAX_COLUMNS} of a table: cut it", header.len());
        let field = String::from_utf8_lossy(&header[MAX_COLUMNS]).into_owned();
        return Err(ImportError::input(path, 1, &field, what));
    }
    let fields: Vec<String> = header.iter().map(|f| String::from_utf8_lossy(f).trim().to_owned()).collect();
    let mut file = File::new(path, fields, options)?;
    file.sample(bytes, delimiter);
    file.read(&mut rows);
    file.finish(path, options)
}

struct File {
    fields: Vec<String>,
    time: Option<(usize, Option<TimeUnit>)>,
    sampled: Vec<Sampled>,
    unit: TimeUnit,
    t: Growing,
    kept: Vec<Kept>,
    skips: Skips,
}

impl File {
    fn new(path: &Path, fields: Vec<String>, options: &CsvOptions) -> Result<Self, ImportError> {
        let time = match &options.time {
            None => None,
            Some(time) => {
                let at = fields.iter().position(|f| *f == time.column).ok_or_else(|| {
                    let have: Vec<_> = fields.iter().take(20).map(|f| shown(f)).collect();
                    let what =
                        format!("no such column to take instants from; there are: {}", have.join(", "));
                    ImportError::input(path, 1, &time.column, what)
                })?;
                Some((at, time.unit))
            }
        };
        Ok(Self {
            sampled: vec![Sampled::default(); fields.len()],
            fields,
            time,
            unit: TimeUnit::S,
            t: TimeUnit::S.column(),
            kept: Vec::new(),
            skips: Skips::default(),
        })
    }

    /// Looks at the first rows, and settles what each column holds.
    fn sample(&mut self, bytes: &[u8], delimiter: u8) {
        let mut first_instant = None;
        for record in reader(bytes, delimiter).byte_records().skip(1).take(SAMPLE).flatten() {
            for (field, sampled) in record.iter().zip(&mut self.sampled) {
                match (number(field), flag(field)) {
                    (Some(_), _) => sampled.numbers += 1,
                    (None, Some(_)) => sampled.flags += 1,
                    _ if field.trim_ascii().is_empty() => {}
                    _ => sampled.words += 1,
                }
            }
            if let (None, Some((at, _))) = (&first_instant, self.time) {
                first_instant = record.get(at).map(<[u8]>::to_owned);
            }
        }
        self.kept = self.sampled.iter().map(|s| Kept::new(*s)).collect();
        if let Some((at, unit)) = self.time {
            let dated = first_instant.is_some_and(|text| number(&text).is_none());
            let ending = || self.fields[at].rsplit_once('_').and_then(|(_, end)| TimeUnit::named(end));
            self.unit =
                unit.or_else(|| dated.then_some(TimeUnit::Rfc3339)).or_else(ending).unwrap_or(TimeUnit::S);
            self.t = self.unit.column();
        }
    }

    fn read(&mut self, rows: &mut csv::Reader<&[u8]>) {
        let mut record = ByteRecord::new();
        let mut row = 0u64;
        loop {
            match rows.read_byte_record(&mut record) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    return self
                        .skips
                        .add(format!("rows from here on: {error}"), 1, || format!("after row {row}"));
                }
            }
            row += 1;
            if record.len() != self.fields.len() {
                let line = record.position().map_or(0, csv::Position::line);
                self.skips.add("row of the wrong length", 1, || {
                    format!("line {line}: {} fields instead of {}", record.len(), self.fields.len())
                });
                continue;
            }
            match self.time {
                Some((at, _)) => self.unit.push(record[at].trim_ascii(), &mut self.t),
                None => match Scanner::new((row - 1).to_string().as_bytes()).cell() {
                    Some(cell) => self.t.push(cell),
                    None => self.t.push_bad(NO_TIME),
                },
            }
            let time = self.time.map(|(at, _)| at);
            for (i, (field, kept)) in record.iter().zip(&mut self.kept).enumerate() {
                if Some(i) != time {
                    kept.push(field);
                }
            }
        }
    }

    fn finish(mut self, path: &Path, options: &CsvOptions) -> Result<Parsed, ImportError> {
        let stem = path.file_stem().map_or("table".into(), |s| s.to_string_lossy().into_owned());
        let table = options.table.clone().unwrap_or(stem);
        let mut table = Table::new(name(&table), format!("'{}'", shown(&path.display().to_string())));
        let (mut columns, mut words) = (Vec::new(), BTreeMap::new());
        let time = self.time.map(|(at, _)| at);
        for (i, (field, kept)) in
            self.fields.iter().zip(self.kept).enumerate().filter(|(i, _)| Some(*i) != time)
        {
            let (wanted, unit) = named(field);
            let name = free_name(&wanted, |n| table.columns.iter().any(|c| c.name == n));
            let mut about = format!("'{}' of the file", shown(field));
            let (column, unit) = match kept {
                Kept::Numbers(column) => (column, unit),
                Kept::Flags(column) => (column, ""),
                Kept::Words(column, said) => {
                    about = format!("which word; run.toml has them; '{}' of the file", shown(field));
                    let said =
                        said.iter().enumerate().map(|(i, w)| format!("{i} = {}", String::from_utf8_lossy(w)));
                    words.insert(name.clone(), said.collect::<Vec<_>>().join("; "));
                    (column, "")
                }
                Kept::Text(n) => {
                    let what = format!("cell of column '{}', which is free text", shown(field));
                    self.skips.add(what, n, || format!("field {}", i + 1));
                    continue;
                }
            };
            table.columns.push(Column {
                name,
                column_type: ColumnType::F64,
                unit: unit.into(),
                description: about,
            });
            columns.push(column);
        }
        let assumptions = self.time.map_or_else(
            || vec!["the file has no column of time (--time): row n stands at n seconds, from 0".into()],
            |(at, given)| match given {
                Some(_) => Vec::new(),
                None => {
                    vec![format!("the unit of '{}' is taken to be {:?}", shown(&self.fields[at]), self.unit)]
                }
            },
        );
        let table = finish(options.panel, table, self.t, columns, "data", &mut self.skips);
        let skips = self.skips;
        let none = || {
            let why =
                skips.clone().into_facts().into_keys().next().unwrap_or_else(|| "it has no rows".into());
            ImportError::input(path, 0, "", format!("no row can be read: {why}"))
        };
        let table = table.ok_or_else(none)?;
        words.retain(|column, _| table.table.columns.iter().any(|c| c.name == *column));
        Ok(Parsed { table, words, assumptions, skips })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::Column as Cells;

    fn parse(text: &str, time: Option<&str>) -> Result<Parsed, ImportError> {
        let options = CsvOptions { time: time.map(|t| t.parse().unwrap()), ..CsvOptions::default() };
        super::parse(text.as_bytes(), Path::new("load.csv"), &options)
    }

    #[test]
    fn numbers_flags_and_few_words_become_columns_and_free_text_does_not() {
        let mut text = "at;load [%];busy;state;wait_ms;note\n".to_owned();
        for i in 0..40 {
            let state = ["idle", "\"run;ning\""][i % 2];
            text.push_str(&format!("{}.5;{i}.25;{};{state};{i};note {i}\n", i, i % 3 == 0));
        }
        let parsed = parse(&text, Some("at")).unwrap();
        let table = &parsed.table;
        assert_eq!(table.stem(), "host.load");
        assert_eq!(&table.t_ns[..2], [500_000_000, 1_500_000_000]);
        let named: Vec<_> = table.table.columns.iter().map(|c| (c.name.as_str(), c.unit.as_str())).collect();
        assert_eq!(named, [("load", "%"), ("busy", ""), ("state", ""), ("wait_ms", "ms")]);
        assert!(matches!(&table.columns[0], Cells::F64(v) if v[39] == 39.25));
        assert!(matches!(&table.columns[1], Cells::Bool(v) if v[0] && !v[1]));
        assert!(matches!(&table.columns[2], Cells::U64(v) if v[..3] == [0, 1, 0]));
        assert!(matches!(&table.columns[3], Cells::I64(v) if v[39] == 39));
        assert_eq!(parsed.words["state"], "0 = idle; 1 = run;ning");
        assert_eq!(parsed.skips.count("cell of column 'note', which is free text"), 40);
        assert_eq!(parsed.assumptions, ["the unit of 'at' is taken to be S"]);
    }

    #[test]
    fn instants_are_read_in_their_unit() {
        for (time, cell, expected) in [
            ("t:ms", "1.5", 1_500_000),
            ("t:ns", "7", 7),
            ("t", "2026-01-01T00:00:00.25Z", 1_767_225_600_250_000_000),
            ("t:us", "-3", -3_000),
        ] {
            let parsed = parse(&format!("t,x\n{cell},1\n"), Some(time)).unwrap();
            assert_eq!(parsed.table.t_ns, [expected], "{time}");
        }
        assert_eq!(parse("x\n5\n6\n", None).unwrap().table.t_ns, [0, 1_000_000_000]);
        assert_eq!(parse("t_ms,x\n5,6\n", Some("t_ms")).unwrap().table.t_ns, [5_000_000]);
    }

    #[test]
    fn rows_that_cannot_be_read_are_counted_with_their_place() {
        let parsed = parse("t,x\n1,2\n2,3,4\n3\n4,x\n5,\n6,NaN\n7,1e999\nlate,8\n9,\u{fffd}\n10,10\n11,11\n12,12\n13,13\n14,14\n15,15\n", Some("t:s")).unwrap();
        assert_eq!(parsed.table.t_ns.len(), 7);
        let facts: Vec<_> =
            parsed.skips.into_facts().into_iter().map(|(what, n)| format!("{n} {what}")).collect();
        assert_eq!(
            facts,
            [
                "1 host.load: row, t_ns no instant (first: data, row 6)",
                "1 host.load: row, x not finite (NaN or infinite) (first: data, row 4)",
                "2 host.load: row, x text where a number belongs (first: data, row 2)",
                "1 host.load: row, x too large for 64 bits (first: data, row 5)",
                "1 host.load: row, x without a value (first: data, row 3)",
                "2 row of the wrong length (first: line 3: 3 fields instead of 2)",
            ]
        );
    }

    #[test]
    fn what_is_no_table_is_refused_with_its_place() {
        let wide = format!("{}\n", "a,".repeat(1_000_000));
        for (text, time, expected) in [
            ("", None, "load.csv:1: has no header"),
            ("a,b\n", None, "load.csv: no row can be read"),
            (
                "a,b\n1,2\n",
                Some("c"),
                "load.csv:1: field 'c': no such column to take instants from; there are: a, b",
            ),
            (wide.as_str(), None, "load.csv:1: field 'a': has 1000001 columns, more than the 256"),
        ] {
            let error = parse(text, time).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        assert!("x:h".parse::<TimeColumn>().unwrap_err().contains("no unit of time"));
    }
}
