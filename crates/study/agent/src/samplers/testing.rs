//! What the samplers' tests share: a taker of rows that checks what it is given, and folders of fixtures.

use std::fs;
use std::path::Path;

use probe::{Table, Value};
use tempfile::TempDir;
use units::Nanos;

use super::Root;
use crate::sampler::{Rows, Sampler};

/// Keeps what a sampler gives.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) rows: Vec<(Table, Nanos, Vec<Value>)>,
    pub(super) marks: Vec<(String, String)>,
    pub(super) facts: Vec<(String, String)>,
}

impl Rows for Taken {
    fn row(&mut self, table: &Table, at: Nanos, values: &[Value]) {
        table.check().unwrap();
        let types: Vec<_> = values.iter().map(|v| v.column_type()).collect();
        let expected: Vec<_> = table.columns.iter().map(|c| c.column_type).collect();
        assert_eq!(types, expected, "values of {}", table.name);
        self.rows.push((table.clone(), at, values.to_vec()));
    }

    fn mark(&mut self, kind: &str, text: &str) {
        self.marks.push((kind.into(), text.into()));
    }

    fn fact(&mut self, name: &str, value: &str) {
        self.facts.push((name.into(), value.into()));
    }
}

impl Taken {
    pub(super) fn of(sampler: &mut dyn Sampler) -> Self {
        let mut taken = Self::default();
        sampler.sample(&mut taken);
        taken
    }

    pub(super) fn kinds(&self) -> Vec<&str> {
        self.marks.iter().map(|(kind, _)| kind.as_str()).collect()
    }

    /// The names of tables, in the order of their rows.
    pub(super) fn tables(&self) -> Vec<&str> {
        self.rows.iter().map(|(table, ..)| table.name.as_str()).collect()
    }

    /// A cell of the last row of `table`.
    pub(super) fn cell(&self, table: &str, column: &str) -> Value {
        let (table, _, values) = self.rows.iter().rfind(|r| r.0.name == table).unwrap_or_else(|| {
            panic!("no row of {table}: {:?} {:?}", self.tables(), self.marks);
        });
        let at = table.columns.iter().position(|c| c.name == column);
        values[at.unwrap_or_else(|| panic!("no column {column} in {:?}", table.columns))]
    }

    pub(super) fn count(&self, table: &str, column: &str) -> u64 {
        match self.cell(table, column) {
            Value::U64(count) => count,
            other => panic!("{column} is {other:?}"),
        }
    }
}

/// A folder with these files, and the root that points to it.
pub(super) fn fixture(files: &[(&str, &str)]) -> (TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        write(dir.path(), path, text);
    }
    let root = Root::at(dir.path());
    (dir, root)
}

pub(super) fn write(dir: &Path, path: &str, text: &str) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}
