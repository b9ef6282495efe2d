//! `.rec` files of the Python toolbox for SPICE: one line of messages, then three lines for each table: a header
//! `#panel.table|field;field…`, a JSON list of rows, and a JSON list of `[row, message]`.

use std::collections::BTreeSet;
use std::path::Path;

use probe::{Column, MAX_COLUMNS, Table};
use serde_json::Value;

use super::rec_columns::{known, stamp};
use super::scan::{Cell, Scanner};
use super::table::{Growing, ImportedTable, Kind, finish, free_name};
use super::{ImportError, Skips, shown};
use crate::spec::Panel;

/// Longest first line: the pipelines' graphs in it take tens of kilobytes each.
const MAX_MESSAGES: usize = 64 << 20;
/// Longest header: 256 fields of 64 bytes, and generously more.
const MAX_HEADER: usize = 1 << 20;
/// Rows by whose length the number of all is estimated. A cell has two bytes at the least, so columns take at most four
/// times the room of their text.
const SAMPLE: usize = 64;
/// Tables of one file.
const MAX_TABLES: usize = 1_000;

/// Something that was said while the record was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// When, in nanoseconds on the clock of the control centre, or of the panel where a table alone has it; `None` where
    /// the file gives no instant.
    pub t_ns: Option<i64>,
    /// The panel that said it, if one.
    pub panel: Option<Panel>,
    /// `guest`, `server`, `client`, `ui`, `script`.
    pub source: String,
    /// What was said.
    pub text: String,
}

/// What one file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rec {
    /// In order of time; those without an instant first, in the order in which they were said.
    pub messages: Vec<Message>,
    /// In the file's order.
    pub tables: Vec<ImportedTable>,
    /// What was left out.
    pub skips: Skips,
    /// Fields that nothing is known of, as `panel.table: field`.
    pub unknown: Vec<String>,
}

/// Whether a file begins as a `.rec` does.
pub(crate) fn looks_like(start: &[u8]) -> bool {
    let text = start.trim_ascii_start();
    is_header(text)
        || text.starts_with(b"[[")
        || (text.starts_with(b"[]") && text[2..].trim_ascii_start().starts_with(b"#"))
}

fn is_header(line: &[u8]) -> bool {
    let end = memchr::memchr(b'\n', line).unwrap_or(line.len());
    line.starts_with(b"#") && line[..end].contains(&b'|') && line[..end].contains(&b'.')
}

/// Reads a file's bytes. `path` is for messages.
///
/// # Errors
/// Nothing in it can be read: it has no table.
pub fn parse(bytes: &[u8], path: &Path) -> Result<Rec, ImportError> {
    let mut rec = Rec::default();
    let mut lines = Lines { rest: bytes, number: 0 };
    if !is_header(bytes) {
        let line = lines.next().unwrap_or_default();
        messages(line, &mut rec);
    }
    let mut marks = Vec::new();
    while let Some(header) = lines.next() {
        if header.trim_ascii().is_empty() {
            continue;
        }
        let at = lines.number;
        if !header.starts_with(b"#") {
            rec.skips.add("line that belongs to no table", 1, || format!("line {at}"));
            continue;
        }
        if rec.tables.len() >= MAX_TABLES {
            rec.skips.add(format!("table after the {MAX_TABLES}th"), 1, || format!("line {at}"));
            continue;
        }
        let header = Header::parse(header, at, &mut rec);
        let (rows, rows_at) = (lines.next_unless_header(), lines.number);
        let (said, said_at) = (lines.next_unless_header(), lines.number);
        match (header, rows) {
            (Some(header), Some(rows)) => {
                header.rows(rows, rows_at, &mut rec);
                marks.extend(said.map(|line| (header, line, said_at)));
            }
            (Some(_), None) => {
                rec.skips.add("table cut short: its rows are missing", 1, || format!("line {at}"));
            }
            // Why was counted; its lines go with it.
            (None, _) => {}
        }
    }
    let mut said: BTreeSet<(Option<Panel>, String)> =
        rec.messages.iter().map(|m| (None, m.text.clone())).collect();
    for (header, line, at) in &marks {
        header.messages(line, *at, &mut said, &mut rec);
    }
    rec.messages.sort_by_key(|m| m.t_ns);
    if rec.tables.is_empty() {
        let why = rec.skips.clone().into_facts().into_keys().next();
        let why = why.map_or("it has no line '#panel.table|fields'".into(), |why| {
            format!("no table can be read: {why}")
        });
        return Err(ImportError::input(path, 1, "", why));
    }
    Ok(rec)
}

struct Lines<'a> {
    rest: &'a [u8],
    /// Of the line given last, from 1.
    number: u64,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', self.rest).unwrap_or(self.rest.len());
        let line = &self.rest[..end];
        self.rest = &self.rest[(end + 1).min(self.rest.len())..];
        self.number += 1;
        Some(line)
    }

    /// A table whose lines are missing must not take those of the next.
    fn next_unless_header(&mut self) -> Option<&'a [u8]> {
        if self.rest.starts_with(b"#") { None } else { self.next() }
    }
}

/// A table's header, understood.
struct Header {
    panel: Panel,
    table: Table,
    kinds: Vec<Kind>,
    /// Which field stamps the rows.
    stamp: usize,
    power: i32,
}

impl Header {
    fn parse(line: &[u8], at: u64, rec: &mut Rec) -> Option<Self> {
        let mut skip = |what: String| {
            rec.skips.add(what, 1, || format!("line {at}"));
            None
        };
        if line.len() > MAX_HEADER {
            return skip(format!("table whose header has more than {MAX_HEADER} bytes"));
        }
        let Ok(text) = std::str::from_utf8(line) else {
            return skip("table whose header is not UTF-8".into());
        };
        let Some((names, fields)) = text[1..].trim_end().split_once('|') else {
            return skip("table whose header has no '|'".into());
        };
        let Some((mode, table)) = names.split_once('.') else {
            return skip(format!("table '{}': not 'panel.table'", shown(names)));
        };
        let panel = match mode.trim() {
            "guest" => Panel::Guest,
            "server" | "host" => Panel::Host,
            "client" => Panel::Client,
            other => return skip(format!("table of '{}': no panel is called so", shown(other))),
        };
        let fields: Vec<&str> = fields.split(';').map(str::trim).collect();
        if fields.len() > MAX_COLUMNS {
            return skip(format!("table with more than {MAX_COLUMNS} columns"));
        }
        let Some((stamp, power)) = stamp(&fields) else {
            return skip(format!("table '{}': no field msg_ts or time", shown(names)));
        };
        // What each panel's program says of its frames is its table of the panel's own name.
        let frames = table == mode || (table, mode) == ("host", "server");
        let wanted = if frames { "frames" } else { table };
        let taken = |n: &str| rec.tables.iter().any(|t| t.panel == panel && t.table.name == n);
        let mut made = Table::new(free_name(wanted, taken), format!("'{}' of the source", shown(names)));
        let mut kinds = Vec::new();
        for (_, field) in fields.iter().enumerate().filter(|(i, _)| *i != stamp) {
            let known = known(field);
            let name = free_name(&known.column.name, |n| made.columns.iter().any(|c| c.name == n));
            if !known.understood && rec.unknown.len() < MAX_COLUMNS {
                rec.unknown.push(format!("{panel}.{}: {}", made.name, shown(field)));
            }
            made.columns.push(Column { name, ..known.column });
            kinds.push(known.kind);
        }
        Some(Self { panel, table: made, kinds, stamp, power })
    }

    /// Reads the line of rows into the record. A row that is none is stepped over; where the line ends too early, the
    /// rows before are kept.
    fn rows(&self, line: &[u8], at: u64, rec: &mut Rec) {
        let stem = format!("{}.{}", self.panel, self.table.name);
        let mut columns: Vec<_> = self.kinds.iter().map(|kind| Growing::new(*kind)).collect();
        columns.insert(self.stamp, Growing::new(Kind::Scaled(self.power)));
        let mut scanner = Scanner::new(line);
        let mut rows = 0;
        let mut whole = scanner.take(b'[');
        while whole && !scanner.take(b']') {
            let start = scanner.at;
            if row(&mut scanner, &mut columns) {
                rows += 1;
                if rows == SAMPLE {
                    // Columns that grow by doubling cost as much again as the numbers in them.
                    let more = (line.len() - scanner.at) / (scanner.at / rows) + SAMPLE;
                    columns.iter_mut().for_each(|c| c.reserve(more));
                }
            } else {
                columns.iter_mut().for_each(|c| c.truncate(rows));
                scanner.at = start;
                whole = scanner.cell().is_some();
                let what = if whole {
                    "row of the wrong length or form"
                } else {
                    "row cut short, and what follows it"
                };
                rec.skips.add(format!("{stem}: {what}"), 1, || format!("line {at}, byte {start}"));
            }
            if whole && !scanner.take(b',') {
                whole = scanner.peek() == Some(b']');
                if !whole {
                    let byte = scanner.at;
                    rec.skips.add(format!("{stem}: rows cut short"), 1, || format!("line {at}, byte {byte}"));
                }
            }
        }
        if scanner.at == 0 {
            rec.skips.add(format!("{stem}: no list of rows"), 1, || format!("line {at}"));
        }
        let place = format!("line {at}");
        let t = columns.remove(self.stamp);
        rec.tables.extend(finish(self.panel, self.table.clone(), t, columns, &place, &mut rec.skips));
    }

    /// The table's last line: `[[row, text], …]`. What is said already is not said twice; the rest is placed by its row.
    fn messages(&self, line: &[u8], at: u64, said: &mut BTreeSet<(Option<Panel>, String)>, rec: &mut Rec) {
        if line.trim_ascii() == b"[]" || line.trim_ascii().is_empty() {
            return;
        }
        let parsed =
            if line.len() > MAX_MESSAGES { None } else { serde_json::from_slice::<Vec<Value>>(line).ok() };
        let Some(list) = parsed else {
            return rec
                .skips
                .add("messages of a table: the line is no JSON list", 1, || format!("line {at}"));
        };
        for (i, entry) in list.iter().enumerate() {
            let Some([row, Value::String(text)]) = entry.as_array().map(Vec::as_slice) else {
                let place = || format!("line {at}, entry {}", i + 1);
                rec.skips.add("message of a table that is not [row, text]", 1, place);
                continue;
            };
            if said.contains(&(None, text.clone())) || !said.insert((Some(self.panel), text.clone())) {
                continue;
            }
            let cell = row.get(self.stamp).map(Value::to_string);
            let t_ns = cell.and_then(|text| match Scanner::new(text.as_bytes()).cell()? {
                Cell::Number(n) => n.scaled(self.power),
                _ => None,
            });
            let source = self.panel.name().to_owned();
            rec.messages.push(Message { t_ns, panel: Some(self.panel), source, text: text.clone() });
        }
    }
}

/// One row, exactly as wide as the header.
#[inline]
fn row(scanner: &mut Scanner<'_>, columns: &mut [Growing]) -> bool {
    if !scanner.take(b'[') {
        return false;
    }
    let mut first = true;
    for column in columns {
        if !first && !scanner.comma() {
            return false;
        }
        first = false;
        if !column.take(scanner) {
            return false;
        }
    }
    scanner.take(b']')
}

/// The first line: `[instant µs | 0 | null, source, text]`, newest first.
fn messages(line: &[u8], rec: &mut Rec) {
    let parsed =
        if line.len() > MAX_MESSAGES { None } else { serde_json::from_slice::<Vec<Value>>(line).ok() };
    let Some(list) = parsed else {
        return rec.skips.add("messages: the line is no JSON list", 1, || "line 1".into());
    };
    for (i, entry) in list.iter().enumerate().rev() {
        let fields = match entry.as_array().map(Vec::as_slice) {
            Some([t, Value::String(source), Value::String(text)]) => instant(t).map(|t| (t, source, text)),
            _ => None,
        };
        match fields {
            Some((t_ns, source, text)) => rec.messages.push(Message {
                t_ns,
                panel: panel(source),
                source: shown(source),
                text: text.clone(),
            }),
            None => rec
                .skips
                .add("message that is not [instant, source, text]", 1, || format!("line 1, entry {}", i + 1)),
        }
    }
}

/// `None` where it is no instant; `Some(None)` where the file gives none.
fn instant(t: &Value) -> Option<Option<i64>> {
    match t {
        Value::Null => Some(None),
        Value::Number(n) if n.as_f64() == Some(0.0) => Some(None),
        Value::Number(n) => n.as_i64()?.checked_mul(1_000).map(Some),
        _ => None,
    }
}

fn panel(source: &str) -> Option<Panel> {
    match source {
        "server" => Some(Panel::Host),
        other => Panel::ALL.into_iter().find(|p| p.name() == other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::Column as Cells;

    const GOOD: &str = "[[5, \"guest\", \"x\"], [null, \"ui\", \"y\"], [0, \"script\", \"z\"]]\n\
        #guest.guest|guest.msg_ts;guest.frame_size;guest.encode_duration\n\
        [[1000, 7, 0.5], [2000, 8, 0.25]]\n[[[1000, 7, 0.5], \"x\"], [[2000, 8, 0.25], \"!new\"]]\n\
        #server.mem|time;mem.free\n[[1.5, 4]]\n[]\n";

    fn parse(text: &str) -> Result<Rec, ImportError> {
        super::parse(text.as_bytes(), Path::new("a.rec"))
    }

    fn skipped(rec: Rec) -> Vec<String> {
        rec.skips.into_facts().into_iter().map(|(what, n)| format!("{n} {what}")).collect()
    }

    #[test]
    fn tables_and_messages_are_read_with_their_units() {
        let rec = parse(GOOD).unwrap();
        let frames = &rec.tables[0];
        assert_eq!(
            (frames.stem().as_str(), frames.t_ns.as_slice()),
            ("guest.frames", [1_000_000, 2_000_000].as_slice())
        );
        assert_eq!(frames.columns, [Cells::U64(vec![7, 8]), Cells::I64(vec![500_000_000, 250_000_000])]);
        assert_eq!(rec.tables[1].stem(), "host.mem");
        assert_eq!(rec.tables[1].columns, [Cells::U64(vec![4096])]);
        let said: Vec<_> = rec.messages.iter().map(|m| (m.t_ns, m.text.as_str())).collect();
        assert_eq!(
            said,
            [(None, "z"), (None, "y"), (Some(5_000), "x"), (Some(2_000_000), "!new")]
                .map(|x| x)
                .into_iter()
                .collect::<Vec<_>>()
        );
        assert!(rec.skips.is_empty());
    }

    #[track_caller]
    fn check(from: &str, to: &str, rows: usize, expected: &[&str]) {
        assert!(GOOD.contains(from), "{from}");
        let rec = parse(&GOOD.replacen(from, to, 1)).unwrap();
        assert_eq!(rec.tables.iter().map(|t| t.t_ns.len()).sum::<usize>(), rows, "{to}");
        assert_eq!(skipped(rec), expected, "{to}");
    }

    #[test]
    fn what_can_be_read_is_kept_and_what_was_skipped_is_counted() {
        check(
            "8, 0.25]]\n",
            "8], [3000, 9, 1], [4000, 1, 2, 3], 5, {\"a\": [1]}]\n",
            3,
            &["4 guest.frames: row of the wrong length or form (first: line 3, byte 17)"],
        );
        check(
            "8, 0.25]]\n",
            "8, 0.\n",
            2,
            &["1 guest.frames: row cut short, and what follows it (first: line 3, byte 17)"],
        );
        check(
            "8, 0.25]]\n",
            "8, null]]\n",
            2,
            &["1 guest.frames: row, encode_ns without a value (first: line 3, row 2)"],
        );
        check(
            "7, 0.5], [2000, 8, 0.25",
            "7, NaN], [2000, 8, null",
            3,
            &[
                "1 guest.frames: column encode_ns in most rows not finite (NaN or infinite): left out (first: line 3)",
            ],
        );
        check(
            "[2000, 8",
            "[900, 8",
            3,
            &[
                "1 guest.frames: instant earlier than the row before (kept, in the file's order) (first: line 3, row 2)",
            ],
        );
        check(
            "[2000, 8",
            "[99999999999999999999, 8",
            2,
            &["1 guest.frames: row, t_ns too large for 64 bits (first: line 3, row 2)"],
        );
        check(
            "#server.mem",
            "#router.mem",
            2,
            &["1 table of 'router': no panel is called so (first: line 5)"],
        );
        check(
            "[[5,",
            "[[5.5,",
            3,
            &["1 message that is not [instant, source, text] (first: line 1, entry 1)"],
        );
        check("[[5, \"guest\"", "[[5, guest\"", 3, &["1 messages: the line is no JSON list (first: line 1)"]);
    }

    #[test]
    fn a_file_without_a_table_is_refused_with_its_place() {
        for (text, expected) in [
            ("[]\n", "a.rec:1: it has no line '#panel.table|fields'"),
            (
                "[]\n#guest.x|a;b\n[]\n",
                "a.rec:1: no table can be read: table 'guest.x': no field msg_ts or time (first: line 2)",
            ),
            (
                "#guest.x|time\n",
                "a.rec:1: no table can be read: table cut short: its rows are missing (first: line 1)",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), expected);
        }
        let wide = format!("[]\n#guest.x|time;{}\n[]\n[]\n", "a;".repeat(400_000));
        assert!(parse(&wide).unwrap_err().to_string().contains("more than 256 columns"));
    }

    #[test]
    fn a_nesting_bomb_costs_one_row() {
        let bomb = "[".repeat(100_000);
        let text = format!(
            "[]\n#guest.mem|time;mem.free\n[[1, 2], [2, {bomb}\n[]\n#guest.cpu|time;cpu.idle\n[[1, 50.5]]\n[]\n"
        );
        let rec = parse(&text).unwrap();
        assert_eq!(rec.tables.iter().map(|t| t.t_ns.len()).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(skipped(rec), ["1 guest.mem: row cut short, and what follows it (first: line 3, byte 9)"]);
    }

    #[test]
    fn rows_cut_short_cannot_take_quadratic_time() {
        // Each row opens another list: a reader that looked for the end from each of them would never end.
        let text = format!("[]\n#guest.mem|time;mem.free\n[[1, 2], {}\n[]\n", "[1, [".repeat(200_000));
        let rec = parse(&text).unwrap();
        assert_eq!(rec.tables[0].t_ns.len(), 1);
    }
}
