//! Frames of all panels side by side, with the durations between them on one clock.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use recording::facts::{ClockBasis, ClockFacts, RunFacts};
use recording::files::FileErrorKind;
use recording::reader::{Column, Columns, read_table};
use recording::spec::{Join, Panel};
use stats::join::{Part, align};

use crate::StoreError;

/// Version of the derived table's definition; part of its file's name.
const VERSION: u32 = 1;

/// A duration of each row.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinedSpan {
    /// Name of the column.
    pub name: String,
    /// One sentence.
    pub description: String,
    /// Nanoseconds by row; `None` where one of the two instants is missing.
    pub ns: Vec<Option<i64>>,
    /// Half-width of the uncertainty that the clocks leave, in nanoseconds: both panels' added up, or 0 within a panel.
    pub uncertainty_ns: i64,
    /// True across panels when a clock was found from the frames: relative to the quickest frame then, whose own time
    /// nobody knows.
    pub relative: bool,
}

/// Rows of several panels' tables that tell of the same frames.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Joined {
    /// Name of the join.
    pub name: String,
    /// Panels of the parts, in order of flow.
    pub panels: Vec<Panel>,
    /// Position in each part's table; by row, then by part.
    pub rows: Vec<Vec<Option<usize>>>,
    /// Instant of each row on the collector's clock: `t_ns` of the first part that has it.
    pub t_ns: Vec<i64>,
    /// By row and part: the part's `t_ns` on the collector's clock.
    pub part_t_ns: Vec<Vec<Option<i64>>>,
    /// Durations across panels.
    pub spans: Vec<JoinedSpan>,
    /// Rows that every part has.
    pub matched: usize,
    /// Entries that lack a partner, by part.
    pub unmatched: Vec<usize>,
    /// Places between partners where the key differs.
    pub mismatched: usize,
}

/// Whether a panel's clock is one that [`crate::align_by_frames`] found: latencies from it or to it are relative to the
/// quickest frame.
pub fn is_relative(facts: &RunFacts, panel: Panel) -> bool {
    let clock = facts.panels.get(panel.name()).and_then(|p| p.clock.as_ref());
    clock.is_some_and(|c| c.basis == ClockBasis::Frames)
}

/// Instants of 0 mean "never", see the tables' descriptions.
fn instant(column: &Column, row: usize, clock: Option<&ClockFacts>) -> Option<i64> {
    let raw = match column {
        Column::I64(v) => *v.get(row)?,
        Column::U64(v) => i64::try_from(*v.get(row)?).ok()?,
        Column::F64(_) | Column::Bool(_) => return None,
    };
    (raw != 0).then(|| clock.map_or(raw, |c| c.to_collector(raw)))
}

fn keys(table: &Columns, name: &str) -> Option<Vec<u64>> {
    match table.get(name)? {
        Column::U64(v) => Some(v.clone()),
        Column::I64(v) => Some(v.iter().map(|x| *x as u64).collect()),
        Column::F64(_) | Column::Bool(_) => None,
    }
}

/// Joins a run's tables. Tables that are missing (the run failed early) are as if empty.
pub(crate) fn join(run_dir: &Path, facts: &RunFacts, join: &Join) -> Result<Joined, StoreError> {
    let mut tables = Vec::new();
    for (panel, table) in &join.parts {
        let read = read_table(run_dir, &format!("{panel}.{table}"));
        tables.push(match read {
            Err(recording::reader::ReadError::NoTable { .. }) => Columns::default(),
            other => other?,
        });
    }
    // Also of a run that is under way, or whose collector was killed.
    let clocks = recording::export::clocks(run_dir, facts);
    let clock = |panel: Panel| clocks.get(&panel);
    let key_columns: Vec<_> = tables.iter().map(|t| keys(t, &join.key).unwrap_or_default()).collect();
    let also: Vec<_> = tables.iter().map(|t| join.also.first().and_then(|name| keys(t, name))).collect();
    let parts: Vec<_> =
        key_columns.iter().zip(&also).map(|(key, also)| Part { key, also: also.as_deref() }).collect();
    let aligned = align(&parts);

    let part_of: BTreeMap<Panel, usize> =
        join.parts.iter().enumerate().map(|(i, (panel, _))| (*panel, i)).collect();
    let at = |row: &[Option<usize>], panel: Panel, column: &str| -> Option<i64> {
        let part = *part_of.get(&panel)?;
        instant(tables[part].get(column)?, row[part]?, clock(panel))
    };
    let mut rows = aligned.rows;
    let first_instant =
        |row: &[Option<usize>]| join.parts.iter().find_map(|(panel, _)| at(row, *panel, "t_ns")).unwrap_or(0);
    rows.sort_by_key(|row| first_instant(row));
    let spans = join.spans.iter().map(|span| {
        let across = span.from.0 != span.to.0;
        let uncertainty = |panel: Panel| clock(panel).map_or(0, |c| c.uncertainty_ns);
        // Between clocks of which one is unknown there is no duration, and none is made up.
        let known = !across || (clock(span.from.0).is_some() && clock(span.to.0).is_some());
        JoinedSpan {
            name: span.name.clone(),
            description: span.description.clone(),
            ns: rows
                .iter()
                .map(|row| {
                    let (from, to) = (at(row, span.from.0, &span.from.1)?, at(row, span.to.0, &span.to.1)?);
                    to.checked_sub(from).filter(|_| known)
                })
                .collect(),
            uncertainty_ns: if across { uncertainty(span.from.0) + uncertainty(span.to.0) } else { 0 },
            relative: across && [span.from.0, span.to.0].into_iter().any(|p| is_relative(facts, p)),
        }
    });
    Ok(Joined {
        name: join.name.clone(),
        panels: join.parts.iter().map(|(panel, _)| *panel).collect(),
        spans: spans.collect(),
        t_ns: rows.iter().map(|row| first_instant(row)).collect(),
        part_t_ns: rows
            .iter()
            .map(|row| join.parts.iter().map(|(p, _)| at(row, *p, "t_ns")).collect())
            .collect(),
        rows,
        matched: aligned.matched,
        unmatched: aligned.unmatched,
        mismatched: aligned.mismatched,
    })
}

impl Joined {
    /// Writes `<name>.v1.parquet` into the run's folder, whole or not at all: `t_ns` on the collector's clock, the row
    /// in each panel's table, and the spans. Missing partners are null.
    pub(crate) fn write(&self, run_dir: &Path) -> Result<PathBuf, StoreError> {
        let path = run_dir.join(format!("{}.v{VERSION}.parquet", self.name));
        let temporary = run_dir.join(format!(".{}.new", self.name));
        self.write_to(&temporary).and_then(|()| Ok(fs::rename(&temporary, &path)?)).map_err(|source| {
            let _ = fs::remove_file(&temporary);
            StoreError::Derived { path: path.clone(), source }
        })?;
        Ok(path)
    }

    fn write_to(&self, path: &Path) -> Result<(), FileErrorKind> {
        let field = |name: String, unit: &str, description: &str| {
            let metadata =
                [("unit".to_owned(), unit.to_owned()), ("description".to_owned(), description.to_owned())];
            Field::new(name, DataType::Int64, true).with_metadata(std::collections::HashMap::from(metadata))
        };
        let mut fields = vec![field("t_ns".into(), "ns", "instant of the frame on the collector's clock")];
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(self.t_ns.clone()))];
        for (part, panel) in self.panels.iter().enumerate() {
            fields.push(field(format!("{panel}_row"), "1", "row in the panel's table, from 0"));
            let rows = self.rows.iter().map(|row| row[part].map(|r| r as i64));
            columns.push(Arc::new(Int64Array::from_iter(rows)));
        }
        for span in &self.spans {
            fields.push(field(span.name.clone(), "ns", &span.description));
            columns.push(Arc::new(Int64Array::from_iter(span.ns.iter().copied())));
        }
        let schema = Arc::new(Schema::new(fields));
        let properties =
            WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        let mut writer = ArrowWriter::try_new(File::create(path)?, Arc::clone(&schema), Some(properties))?;
        writer.write(&RecordBatch::try_new(schema, columns)?)?;
        writer.into_inner()?.sync_all()?;
        Ok(())
    }
}
