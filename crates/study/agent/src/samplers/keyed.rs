//! A sampler of one file with a key and a number on each line (`/proc/meminfo`, `/proc/vmstat`).

use probe::{ColumnType, Table, Value};
use units::{Clock, MonotonicClock};

use super::source::Source;
use super::text::keyed;
use super::{Kind, Root};
use crate::sampler::{Rows, Sampler, SamplerInfo};

/// What the file's numbers count in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scale {
    One,
    Kibi,
    Pages,
}

impl Scale {
    fn of(self, number: u64) -> u64 {
        number.saturating_mul(match self {
            Self::One => 1,
            Self::Kibi => 1024,
            Self::Pages => rustix::param::page_size() as u64,
        })
    }

    fn unit(self) -> &'static str {
        if matches!(self, Self::One) { "1" } else { "B" }
    }
}

/// One line: the kernel's key, what it counts in, the column's name and description.
pub(super) type Field = (&'static str, Scale, &'static str, &'static str);

/// What the file is and which lines are wanted.
pub(super) struct What {
    pub(super) kind: Kind,
    pub(super) description: &'static str,
    /// Below `/proc`.
    pub(super) path: &'static str,
    /// The kernel makes it as one record: see [`Source::whole`].
    pub(super) whole: bool,
    pub(super) fields: &'static [Field],
}

/// Samples the lines of `What` that the kernel has.
pub(super) struct Keyed {
    what: &'static What,
    source: Source,
    /// Those of `what.fields` that were there first, which are the table's columns.
    present: Vec<Field>,
    table: Table,
    /// So much of the text has all of them; the kernel makes no more than is asked for.
    enough: usize,
    found: Vec<Option<u64>>,
    values: Vec<Value>,
}

impl Keyed {
    pub(super) fn new(what: &'static What, root: &Root) -> Self {
        let table = Table::new(what.kind.name, what.description);
        let path = root.proc(what.path);
        let source = if what.whole { Source::whole(path) } else { Source::new(path) };
        let mut new = Self {
            what,
            source,
            present: Vec::new(),
            table,
            enough: 0,
            found: Vec::new(),
            values: Vec::new(),
        };
        new.choose();
        new
    }

    /// Finds out what the kernel tells.
    fn choose(&mut self) {
        let Ok(text) = self.source.text() else { return };
        let mut found = vec![None; self.what.fields.len()];
        let (_, end) = keyed(text, self.what.fields.iter().map(|field| field.0), &mut found);
        // Numbers grow.
        self.enough = end + 256;
        let fields = self.what.fields.iter().zip(found).filter(|(_, found)| found.is_some());
        self.present = fields.map(|(field, _)| *field).collect();
        self.table.columns.clear();
        for (_, scale, column, description) in &self.present {
            let table = std::mem::replace(&mut self.table, Table::new("", ""));
            self.table = table.column(column, ColumnType::U64, scale.unit(), description);
        }
        self.found = vec![None; self.present.len()];
        self.values = vec![Value::U64(0); self.present.len()];
    }
}

impl Sampler for Keyed {
    fn info(&self) -> SamplerInfo {
        let tables = if self.present.is_empty() { Vec::new() } else { vec![self.table.clone()] };
        super::info(&self.what.kind, self.what.description, self.source.path(), tables)
    }

    fn sample(&mut self, rows: &mut dyn Rows) {
        if self.present.is_empty() {
            self.choose();
        }
        let (present, found) = (&self.present, &mut self.found);
        let keys = present.iter().map(|field| field.0);
        let all = self
            .source
            .start(self.enough)
            .is_ok_and(|text| keyed(text, keys.clone(), found).0 == found.len());
        if !all && self.source.parse(rows, |text| (keyed(text, keys, found).0 > 0).then_some(())).is_none() {
            return;
        }
        let at = MonotonicClock.now();
        for ((value, found), field) in self.values.iter_mut().zip(&self.found).zip(&self.present) {
            // A line that the kernel leaves out now keeps its last number.
            if let Some(number) = found {
                *value = Value::U64(field.1.of(*number));
            }
        }
        rows.row(&self.table, at, &self.values);
    }
}
