//! What is in a record: its facts, and for every table the rows, the time they span, gaps, and each indicator with unit,
//! smallest, middle and largest value. Works on closed, running and crashed records.
//!
//! Columns are read in groups, so that memory stays within [`MAX_CELLS`] cells for all but the longest tables.

use std::fs;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use serde::Serialize;

use crate::batches::{Batches, file_of};
use crate::export::derived;
use crate::files::T_NS;
use crate::reader::{ReadError, tables};

/// Cells held at once: 128 MiB.
const MAX_CELLS: usize = 16 << 20;
/// Rows farther apart than this are a gap, if they are also much farther apart than usual.
const GAP_NS: i64 = 1_000_000_000;
/// How much farther than the usual distance a gap is.
const GAP_FACTOR: i64 = 10;

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Indicator {
    /// Name.
    pub name: String,
    /// `i64`, `u64`, `f64` or `bool`.
    pub data_type: &'static str,
    /// Unit of the values.
    pub unit: String,
    /// What it is.
    pub description: String,
    /// Cells that are a number.
    pub values: u64,
    /// Smallest; flags are 0 and 1.
    pub min: Option<f64>,
    /// Middle.
    pub median: Option<f64>,
    /// Largest.
    pub max: Option<f64>,
}

/// A time without rows in a table that has rows at a regular distance otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// Its beginning on the panel's clock.
    pub from_ns: i64,
    /// Its length, nanoseconds.
    pub length_ns: i64,
}

/// A table of a record.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableContents {
    /// Name, such as `guest.frames`.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// What a row is.
    pub description: String,
    /// Rows.
    pub rows: u64,
    /// False where the torn end of a stream that was never closed had to be left out.
    pub complete: bool,
    /// First and last instant on the table's clock.
    pub span_ns: Option<[i64; 2]>,
    /// Rows a second.
    pub rate_hz: Option<f64>,
    /// Times without rows; the longest ones, at most [`MAX_GAPS`].
    pub gaps: Vec<Gap>,
    /// How many gaps there are.
    pub gap_count: u64,
    /// Rows whose instant is before that of the row before.
    pub backwards: u64,
    /// The columns after `t_ns`.
    pub indicators: Vec<Indicator>,
    /// Columns of types that this version does not know.
    pub unknown_columns: Vec<String>,
}

/// Most gaps of a table that are listed.
pub const MAX_GAPS: usize = 20;

/// A table that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// Name of the table.
    pub name: String,
    /// Why.
    pub why: String,
}

/// The tables of a run's folder, raw ones first. What cannot be read is said.
///
/// # Errors
/// The folder cannot be read.
pub fn of_run(run_dir: &Path) -> Result<(Vec<TableContents>, Vec<Unreadable>), ReadError> {
    let (mut contents, mut unreadable) = (Vec::new(), Vec::new());
    let mut names = tables(run_dir)?;
    names.extend(derived(run_dir));
    for name in names {
        let Some(path) = file_of(run_dir, &name) else { continue };
        match of_table(&path, &name) {
            Ok(table) => contents.push(table),
            Err(error) => {
                let cause = std::error::Error::source(&error).map_or(String::new(), |c| format!(": {c}"));
                unreadable.push(Unreadable { name, why: format!("{error}{cause}") });
            }
        }
    }
    Ok((contents, unreadable))
}

/// One table's file.
///
/// # Errors
/// It is not a table of a record.
pub fn of_file(path: &Path) -> Result<TableContents, ReadError> {
    let name = path.file_stem().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    of_table(path, &name)
}

fn of_table(path: &Path, name: &str) -> Result<TableContents, ReadError> {
    let all = Batches::open(path)?;
    let schema = all.schema().clone();
    let unknown_columns = all.left_out().to_vec();
    let mut instants = Vec::new();
    let mut first = Batches::open_columns(path, &|n| n == T_NS)?;
    for batch in first.by_ref() {
        if let Some(array) = batch?.column(0).as_primitive_opt::<Int64Type>() {
            instants.extend_from_slice(array.values());
        }
    }
    let rows = instants.len();
    let mut table = TableContents {
        name: name.to_owned(),
        file: path.to_owned(),
        bytes: fs::metadata(path).map_or(0, |m| m.len()),
        description: schema.metadata().get("description").cloned().unwrap_or_default(),
        rows: rows as u64,
        complete: !first.torn(),
        span_ns: None,
        rate_hz: None,
        gaps: Vec::new(),
        gap_count: 0,
        backwards: 0,
        indicators: Vec::new(),
        unknown_columns,
    };
    table.time(&instants);
    drop(instants);
    let names: Vec<_> = schema.fields().iter().skip(1).map(|f| f.name().clone()).collect();
    for group in names.chunks((MAX_CELLS / rows.max(1)).max(1)) {
        let batches = Batches::open_columns(path, &|n| group.iter().any(|g| g == n))?;
        table.indicators.extend(indicators(batches)?);
    }
    Ok(table)
}

impl TableContents {
    fn time(&mut self, instants: &[i64]) {
        let (Some(first), Some(last)) = (instants.iter().min(), instants.iter().max()) else { return };
        self.span_ns = Some([*first, *last]);
        let span = last.saturating_sub(*first);
        if span > 0 {
            self.rate_hz = Some((instants.len() - 1) as f64 * 1e9 / span as f64);
        }
        let mut apart: Vec<i64> = instants.windows(2).map(|w| w[1].saturating_sub(w[0])).collect();
        self.backwards = apart.iter().filter(|d| **d < 0).count() as u64;
        let mut gaps: Vec<Gap> = apart
            .iter()
            .zip(instants)
            .filter(|(length, _)| **length > GAP_NS)
            .map(|(length, from)| Gap { from_ns: *from, length_ns: *length })
            .collect();
        if gaps.is_empty() {
            return;
        }
        let middle = apart.len() / 2;
        let usual = *apart.select_nth_unstable(middle).1;
        gaps.retain(|g| g.length_ns > usual.saturating_mul(GAP_FACTOR));
        self.gap_count = gaps.len() as u64;
        gaps.sort_by_key(|g| std::cmp::Reverse(g.length_ns));
        gaps.truncate(MAX_GAPS);
        gaps.sort_by_key(|g| g.from_ns);
        self.gaps = gaps;
    }
}

fn indicators(mut batches: Batches) -> Result<Vec<Indicator>, ReadError> {
    let schema = batches.schema().clone();
    let mut values: Vec<Vec<f64>> = vec![Vec::new(); schema.fields().len()];
    for batch in batches.by_ref() {
        let batch = batch?;
        for (column, values) in values.iter_mut().enumerate() {
            append(&batch, column, values);
        }
    }
    let text =
        |field: &arrow_schema::Field, key: &str| field.metadata().get(key).cloned().unwrap_or_default();
    let indicator = |(field, mut values): (&std::sync::Arc<arrow_schema::Field>, Vec<f64>)| {
        let fold = |f: fn(f64, f64) -> f64, values: &[f64]| values.iter().copied().reduce(f);
        let (min, max) = (fold(f64::min, &values), fold(f64::max, &values));
        let middle = values.len() / 2;
        let median = (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f64::total_cmp).1);
        Indicator {
            name: field.name().clone(),
            data_type: match field.data_type() {
                arrow_schema::DataType::Int64 => "i64",
                arrow_schema::DataType::UInt64 => "u64",
                arrow_schema::DataType::Boolean => "bool",
                _ => "f64",
            },
            unit: text(field, "unit"),
            description: text(field, "description"),
            values: values.len() as u64,
            min,
            median,
            max,
        }
    };
    Ok(schema.fields().iter().zip(values).map(indicator).collect())
}

/// Appends the cells of a column that are a finite number.
fn append(batch: &RecordBatch, column: usize, values: &mut Vec<f64>) {
    let array = batch.column(column);
    let rows = (0..array.len()).filter(|row| array.is_valid(*row));
    if let Some(a) = array.as_primitive_opt::<Int64Type>() {
        values.extend(rows.map(|row| a.value(row) as f64));
    } else if let Some(a) = array.as_primitive_opt::<UInt64Type>() {
        values.extend(rows.map(|row| a.value(row) as f64));
    } else if let Some(a) = array.as_primitive_opt::<Float64Type>() {
        values.extend(rows.map(|row| a.value(row)).filter(|v| v.is_finite()));
    } else if let Some(a) = array.as_boolean_opt() {
        values.extend(rows.map(|row| f64::from(u8::from(a.value(row)))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{TableWriter, to_parquet};
    use probe::ColumnType::{Bool, F64};
    use probe::Table;

    #[test]
    fn a_table_says_its_span_gaps_and_indicators_running_and_closed() {
        let dir = tempfile::tempdir().unwrap();
        let spec =
            Table::new("x", "made up").column("v", F64, "%", "a value").column("on", Bool, "", "a flag");
        let mut writer = TableWriter::create(dir.path(), "guest.x", &spec).unwrap();
        let row = |t: i64, v: f64| [t as u64, v.to_bits(), u64::from(v > 2.0)];
        let mut rows: Vec<u64> = (0..20).flat_map(|i| row(i * 100_000_000, 1.0)).collect();
        rows.extend(row(9_000_000_000, 5.0));
        rows.extend(row(8_900_000_000, f64::NAN));
        writer.write(&rows).unwrap();
        writer.finish().unwrap();
        let running = of_run(dir.path()).unwrap().0.remove(0);
        to_parquet(dir.path(), "guest.x").unwrap();
        let closed = of_run(dir.path()).unwrap().0.remove(0);
        assert_eq!((running.rows, closed.rows, running.complete), (22, 22, true));
        assert_eq!(running.indicators, closed.indicators);
        assert_eq!(closed.span_ns, Some([0, 9_000_000_000]));
        assert_eq!(closed.gaps, [Gap { from_ns: 1_900_000_000, length_ns: 7_100_000_000 }]);
        assert_eq!((closed.gap_count, closed.backwards), (1, 1));
        let v = &closed.indicators[0];
        assert_eq!((v.values, v.min, v.median, v.max), (21, Some(1.0), Some(1.0), Some(5.0)));
        assert_eq!((v.unit.as_str(), v.data_type, closed.indicators[1].data_type), ("%", "f64", "bool"));
    }

    #[test]
    fn a_file_that_is_no_table_is_said_and_others_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1/host.frames.arrows");
        fs::copy(golden, dir.path().join("host.frames.arrows")).unwrap();
        fs::write(dir.path().join("guest.broken.parquet"), "not Parquet").unwrap();
        let (read, unreadable) = of_run(dir.path()).unwrap();
        assert_eq!((read.len(), read[0].rows, read[0].complete), (1, 2, false));
        assert_eq!(unreadable[0].name, "guest.broken");
    }
}
