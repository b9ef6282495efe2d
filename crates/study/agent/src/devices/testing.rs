//! Takes what samplers give, for tests.

use std::collections::BTreeMap;

use probe::{Table, Value};
use units::Nanos;

use crate::sampler::Rows;

/// Everything that a sampler gave.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) rows: Vec<(Table, Nanos, Vec<Value>)>,
    pub(crate) marks: Vec<(String, String)>,
    pub(crate) facts: BTreeMap<String, String>,
}

impl Rows for Collected {
    fn row(&mut self, table: &Table, at: Nanos, values: &[Value]) {
        table.check().unwrap();
        let types = |v: &[Value]| v.iter().map(|v| v.column_type()).collect::<Vec<_>>();
        let declared: Vec<_> = table.columns.iter().map(|c| c.column_type).collect();
        assert_eq!(types(values), declared, "{}", table.name);
        self.rows.push((table.clone(), at, values.to_vec()));
    }

    fn mark(&mut self, kind: &str, text: &str) {
        self.marks.push((kind.into(), text.into()));
    }

    fn fact(&mut self, name: &str, value: &str) {
        self.facts.insert(name.into(), value.into());
    }
}

impl Collected {
    fn values(&self, table: &str, column: &str) -> Vec<Value> {
        let rows = self.rows.iter().filter(|(t, ..)| t.name == table);
        rows.map(|(t, _, values)| {
            let at = t.columns.iter().position(|c| c.name == column);
            values[at.unwrap_or_else(|| panic!("{table} has no column {column}"))]
        })
        .collect()
    }

    pub(crate) fn f64(&self, table: &str, column: &str) -> Vec<f64> {
        let number = |v: Value| match v {
            Value::F64(v) => v,
            other => panic!("{table}.{column} is {other:?}"),
        };
        self.values(table, column).into_iter().map(number).collect()
    }

    pub(crate) fn u64(&self, table: &str, column: &str) -> Vec<u64> {
        let number = |v: Value| match v {
            Value::U64(v) => v,
            other => panic!("{table}.{column} is {other:?}"),
        };
        self.values(table, column).into_iter().map(number).collect()
    }

    pub(crate) fn tables(&self) -> Vec<String> {
        let names: std::collections::BTreeSet<_> = self.rows.iter().map(|(t, ..)| t.name.clone()).collect();
        names.into_iter().collect()
    }
}
