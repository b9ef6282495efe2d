//! The tables about the tables: `runs`, `tables` and `columns`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};

use super::aligned::text;
use crate::facts::{ClockFacts, RunFacts};
use crate::spec::{Level, Panel, SubjectSpec};

/// Collects fields and their columns.
#[derive(Default)]
struct Build {
    fields: Vec<Field>,
    columns: Vec<ArrayRef>,
}

impl Build {
    fn add(&mut self, name: &str, unit: &str, description: &str, column: ArrayRef) {
        let metadata =
            [("unit".to_owned(), unit.to_owned()), ("description".to_owned(), description.to_owned())];
        let field = Field::new(name, column.data_type().clone(), true);
        self.fields.push(field.with_metadata(HashMap::from(metadata)));
        self.columns.push(column);
    }

    fn text<S: AsRef<str>>(&mut self, name: &str, about: &str, cells: impl Iterator<Item = Option<S>>) {
        let cells: StringArray = cells.collect();
        self.add(name, "", about, Arc::new(cells));
    }

    fn i64(&mut self, name: &str, unit: &str, about: &str, cells: impl Iterator<Item = Option<i64>>) {
        let cells: Int64Array = cells.collect();
        self.add(name, unit, about, Arc::new(cells));
    }

    fn u64(&mut self, name: &str, unit: &str, about: &str, cells: impl Iterator<Item = Option<u64>>) {
        let cells: UInt64Array = cells.collect();
        self.add(name, unit, about, Arc::new(cells));
    }

    fn f64(&mut self, name: &str, unit: &str, about: &str, cells: impl Iterator<Item = Option<f64>>) {
        let cells: Float64Array = cells.collect();
        self.add(name, unit, about, Arc::new(cells));
    }

    fn done(self) -> Result<RecordBatch, ArrowError> {
        RecordBatch::try_new(Arc::new(Schema::new(self.fields)), self.columns)
    }
}

/// What `runs` says of a run.
pub(super) struct RunRow {
    /// Name of its folder, here and in the study.
    pub(super) folder: String,
    pub(super) facts: RunFacts,
    pub(super) clocks: BTreeMap<Panel, ClockFacts>,
    pub(super) responses: BTreeMap<String, f64>,
}

/// One row for each run: facts, settings asked for, responses, quality and clocks.
pub(super) fn runs(rows: &[RunRow], subject: Option<&SubjectSpec>) -> Result<RecordBatch, ArrowError> {
    let mut b = Build::default();
    let facts = || rows.iter().map(|r| &r.facts);
    b.text("run", "folder of the run", rows.iter().map(|r| Some(&r.folder)));
    b.u64("point", "1", "index of the point in the study's plan", facts().map(|f| Some(f.point.into())));
    b.u64("repeat", "1", "repeat of the point, from 0", facts().map(|f| Some(f.repeat.into())));
    let status = |f: &RunFacts| Some(format!("{:?}", f.status).to_lowercase());
    b.text("status", "running, complete, failed or interrupted", facts().map(status));
    b.text("reason", "why it did not complete", facts().map(|f| Some(&f.reason)));
    b.text("started", "UTC, RFC 3339", facts().map(|f| Some(&f.started)));
    b.text("ended", "UTC, RFC 3339; empty while running", facts().map(|f| Some(&f.ended)));
    b.i64("started_ns", "ns", "start on the collector's clock", facts().map(|f| Some(f.started_ns)));
    let window = |i: usize| facts().map(move |f| f.window_ns.map(|w| w[i]));
    b.i64("window_start_ns", "ns", "start of the recorded window on the collector's clock", window(0));
    b.i64("window_end_ns", "ns", "end of the recorded window on the collector's clock", window(1));
    b.text("writer", "program that recorded it", facts().map(|f| Some(&f.writer)));
    let disturbed: BooleanArray = facts().map(|f| f.quality.as_ref().map(|q| q.disturbed)).collect();
    b.add(
        "disturbed",
        "",
        "whether something outside disturbed it; missing: nobody looked",
        Arc::new(disturbed),
    );
    let said = |f: &RunFacts| {
        let texts = f.quality.as_ref()?.disturbances.iter().map(|d| d.text.as_str());
        Some(texts.collect::<Vec<_>>().join("; "))
    };
    b.text("disturbances", "what disturbed it, worst first", facts().map(said));
    b.text("imported_from", "format of the source", facts().map(|f| f.import.as_ref().map(|i| &i.format)));
    add_settings(&mut b, rows, subject);
    let responses: BTreeSet<_> = rows.iter().flat_map(|r| r.responses.keys()).collect();
    for name in responses {
        let known = subject.and_then(|s| s.responses.iter().find(|r| r.name == *name));
        let (unit, about) = known.map_or(("", name.as_str()), |r| (&r.unit, &r.label));
        b.f64(&format!("response_{name}"), unit, about, rows.iter().map(|r| r.responses.get(name).copied()));
    }
    for panel in Panel::ALL {
        let clock = || rows.iter().map(move |r| r.clocks.get(&panel));
        if clock().flatten().next().is_none() {
            continue;
        }
        let name = |what: &str| format!("clock_{panel}_{what}");
        b.i64(
            &name("offset_ns"),
            "ns",
            "collector minus panel at the reference",
            clock().map(|c| Some(c?.offset_ns)),
        );
        b.f64(&name("drift_ppm"), "ppm", "change of the offset", clock().map(|c| Some(c?.drift_ppm)));
        let uncertainty = clock().map(|c| Some(c?.worst_uncertainty_ns()));
        b.i64(&name("uncertainty_ns"), "ns", "half-width of what the exchanges allow", uncertainty);
    }
    b.done()
}

fn add_settings(b: &mut Build, rows: &[RunRow], subject: Option<&SubjectSpec>) {
    let names: BTreeSet<_> = rows.iter().flat_map(|r| r.facts.asked.keys()).collect();
    for name in names {
        let levels = || rows.iter().map(|r| r.facts.asked.get(name));
        let factor = subject.and_then(|s| s.factors.iter().find(|f| f.name == *name));
        let (unit, about) = factor.map_or(("", "setting asked for"), |f| (&f.unit, &f.description));
        let column = format!("setting_{name}");
        let all = |test: fn(&Level) -> bool| levels().flatten().all(test);
        if all(|l| matches!(l, Level::Int(_))) {
            let cell = |l: Option<&Level>| if let Some(Level::Int(n)) = l { Some(*n) } else { None };
            b.i64(&column, unit, about, levels().map(cell));
        } else if all(|l| l.as_f64().is_some()) {
            b.f64(&column, unit, about, levels().map(|l| l.and_then(Level::as_f64)));
        } else if all(|l| matches!(l, Level::Bool(_))) {
            let cell = |l: Option<&Level>| if let Some(Level::Bool(v)) = l { Some(*v) } else { None };
            let cells: BooleanArray = levels().map(cell).collect();
            b.add(&column, unit, about, Arc::new(cells));
        } else {
            let cells: StringArray = levels().map(|l| l.map(ToString::to_string)).collect();
            b.add(&column, unit, about, Arc::new(cells));
        }
    }
}

/// What `tables` says of a table.
pub(super) struct TableRow {
    pub(super) run: String,
    pub(super) table: String,
    pub(super) file: String,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) complete: bool,
    pub(super) description: String,
}

/// One row for each table written.
pub(super) fn tables(rows: &[TableRow]) -> Result<RecordBatch, ArrowError> {
    let mut b = Build::default();
    b.text("run", "folder of the run", rows.iter().map(|r| Some(&r.run)));
    b.text("table", "name of the table", rows.iter().map(|r| Some(&r.table)));
    b.text("file", "where it is, from this folder", rows.iter().map(|r| Some(&r.file)));
    b.u64("rows", "1", "rows written", rows.iter().map(|r| Some(r.rows)));
    b.u64("bytes", "B", "size of the file", rows.iter().map(|r| Some(r.bytes)));
    let complete: BooleanArray = rows.iter().map(|r| Some(r.complete)).collect();
    b.add("complete", "", "false where a torn end had to be left out", Arc::new(complete));
    b.text("description", "what a row is", rows.iter().map(|r| Some(&r.description)));
    b.done()
}

/// One row for each column of a table; `run` is empty for tables about all runs.
pub(super) fn columns(run: &str, table: &str, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let rows: Vec<(&str, &str, &Field)> = schema.fields().iter().map(|f| (run, table, f.as_ref())).collect();
    let mut b = Build::default();
    b.text("run", "folder of the run; missing for columns of runs", {
        rows.iter().map(|r| (!r.0.is_empty()).then_some(r.0))
    });
    b.text("table", "name of the table", rows.iter().map(|r| Some(r.1)));
    b.text("column", "name of the column", rows.iter().map(|r| Some(r.2.name())));
    let data_type = |f: &Field| match f.data_type() {
        DataType::Int64 => "i64",
        DataType::UInt64 => "u64",
        DataType::Float64 => "f64",
        DataType::Boolean => "bool",
        _ => "text",
    };
    b.text("type", "i64, u64, f64, bool or text", rows.iter().map(|r| Some(data_type(r.2))));
    b.text(
        "unit",
        "unit of the cells; empty for flags and text",
        rows.iter().map(|r| Some(text(r.2, "unit"))),
    );
    b.text("description", "what a cell is", rows.iter().map(|r| Some(text(r.2, "description"))));
    let clock = |f: &Field| f.metadata().get("clock").cloned();
    b.text("clock", "for instants: the clock they are on", rows.iter().map(|r| clock(r.2)));
    let uncertainty = |f: &Field| f.metadata().get("uncertainty_ns").and_then(|v| v.parse().ok());
    b.i64(
        "uncertainty_ns",
        "ns",
        "for instants brought onto the collector's clock: how far they may be off",
        rows.iter().map(|r| uncertainty(r.2)),
    );
    b.done()
}
