//! Reads a run's tables back as plain vectors, from Parquet or, while the run is under way or after a crash, from the
//! complete batches of its Arrow stream.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use arrow_ipc::reader::StreamReader;
use arrow_schema::{ArrowError, DataType, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use thiserror::Error;

pub use crate::cells::Column;
use crate::files::{ARROWS, PARQUET, T_NS};

/// Most rows of one table that are read: a day at 10,000 a second.
const MAX_ROWS: usize = 1_000_000_000;

/// A table, by columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns {
    /// Rows of every column.
    pub rows: usize,
    /// Names, `t_ns` first.
    pub names: Vec<String>,
    /// Units, in the same order.
    pub units: Vec<String>,
    /// Cells, in the same order.
    pub columns: Vec<Column>,
    /// False when the tail of a stream that was never closed had to be left out.
    pub complete: bool,
}

/// A table could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// No such table.
    #[error("{} has no table '{name}'", dir.display())]
    NoTable {
        /// The run's folder.
        dir: PathBuf,
        /// The table.
        name: String,
    },
    /// The operating system.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not an Arrow stream.
    #[error("{} is no Arrow stream", path.display())]
    Arrow {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ArrowError,
    },
    /// Not Parquet.
    #[error("{} is no Parquet file", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ParquetError,
    },
    /// Not a table of a record.
    #[error("{}: column '{column}': {what}", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// What is wrong with it.
        what: String,
    },
    /// The table has no such column, or one of another type.
    #[error("no column '{column}' of type {expected} (the table has: {})", have.join(", "))]
    NoColumn {
        /// The column asked for.
        column: String,
        /// The type asked for.
        expected: &'static str,
        /// The names that there are.
        have: Vec<String>,
    },
}

impl Column {
    fn new(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Int64 => Self::I64(Vec::new()),
            DataType::UInt64 => Self::U64(Vec::new()),
            DataType::Float64 => Self::F64(Vec::new()),
            DataType::Boolean => Self::Bool(Vec::new()),
            _ => return None,
        })
    }

    fn append(&mut self, array: &dyn Array) -> bool {
        match self {
            Self::I64(v) => array.as_primitive_opt::<Int64Type>().map(|a| v.extend_from_slice(a.values())),
            Self::U64(v) => array.as_primitive_opt::<UInt64Type>().map(|a| v.extend_from_slice(a.values())),
            Self::F64(v) => array.as_primitive_opt::<Float64Type>().map(|a| v.extend_from_slice(a.values())),
            Self::Bool(v) => array.as_boolean_opt().map(|a| v.extend(a.values().iter())),
        }
        .is_some()
    }
}

impl Columns {
    /// A column by name.
    pub fn get(&self, name: &str) -> Option<&Column> {
        self.names.iter().position(|n| n == name).and_then(|i| self.columns.get(i))
    }

    /// Unit of a column.
    pub fn unit(&self, name: &str) -> Option<&str> {
        self.names.iter().position(|n| n == name).and_then(|i| self.units.get(i)).map(String::as_str)
    }

    fn missing(&self, column: &str, expected: &'static str) -> ReadError {
        ReadError::NoColumn { column: column.into(), expected, have: self.names.clone() }
    }

    /// A column of signed integers.
    ///
    /// # Errors
    /// There is none of this name and type.
    pub fn i64(&self, name: &str) -> Result<&[i64], ReadError> {
        match self.get(name) {
            Some(Column::I64(v)) => Ok(v),
            _ => Err(self.missing(name, "i64")),
        }
    }

    /// A column of unsigned integers.
    ///
    /// # Errors
    /// There is none of this name and type.
    pub fn u64(&self, name: &str) -> Result<&[u64], ReadError> {
        match self.get(name) {
            Some(Column::U64(v)) => Ok(v),
            _ => Err(self.missing(name, "u64")),
        }
    }

    /// A column of numbers.
    ///
    /// # Errors
    /// There is none of this name and type.
    pub fn f64(&self, name: &str) -> Result<&[f64], ReadError> {
        match self.get(name) {
            Some(Column::F64(v)) => Ok(v),
            _ => Err(self.missing(name, "f64")),
        }
    }

    /// A column of flags.
    ///
    /// # Errors
    /// There is none of this name and type.
    pub fn bool(&self, name: &str) -> Result<&[bool], ReadError> {
        match self.get(name) {
            Some(Column::Bool(v)) => Ok(v),
            _ => Err(self.missing(name, "bool")),
        }
    }

    /// A column of any type, as numbers.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn numbers(&self, name: &str) -> Result<Vec<f64>, ReadError> {
        self.get(name).map(Column::numbers).ok_or_else(|| self.missing(name, "number"))
    }

    fn of(path: &Path, schema: &Schema) -> Result<Self, ReadError> {
        let wrong = |column: &str, what: String| ReadError::Column {
            path: path.to_owned(),
            column: column.into(),
            what,
        };
        let mut table = Self { complete: true, ..Self::default() };
        for field in schema.fields() {
            let column = Column::new(field.data_type()).ok_or_else(|| {
                wrong(field.name(), format!("type {} has no place in a record", field.data_type()))
            })?;
            table.names.push(field.name().clone());
            table.units.push(field.metadata().get("unit").cloned().unwrap_or_default());
            table.columns.push(column);
        }
        match table.columns.first() {
            Some(Column::I64(_)) if table.names[0] == T_NS => Ok(table),
            _ => Err(wrong(T_NS, "it must come first and be a 64-bit integer".into())),
        }
    }

    fn append(&mut self, path: &Path, batch: &RecordBatch) -> Result<(), ReadError> {
        let wrong = |column: &str, what: &str| ReadError::Column {
            path: path.to_owned(),
            column: column.into(),
            what: what.into(),
        };
        if self.rows.saturating_add(batch.num_rows()) > MAX_ROWS {
            return Err(wrong(T_NS, "more rows than any record has"));
        }
        for (i, (column, name)) in self.columns.iter_mut().zip(&self.names).enumerate() {
            let array = batch.columns().get(i).ok_or_else(|| wrong(name, "missing in a batch"))?;
            if array.null_count() > 0 {
                return Err(wrong(name, "has cells without a value"));
            }
            if !column.append(array.as_ref()) {
                return Err(wrong(name, "changes its type"));
            }
        }
        self.rows += batch.num_rows();
        Ok(())
    }
}

/// Reads a table of a run, such as `guest.frames`.
///
/// # Errors
/// There is no such table, or its file is not one of a record.
pub fn read_table(run_dir: &Path, name: &str) -> Result<Columns, ReadError> {
    let parquet = run_dir.join(format!("{name}.{PARQUET}"));
    if parquet.exists() {
        return read_parquet(&parquet);
    }
    let arrows = run_dir.join(format!("{name}.{ARROWS}"));
    if arrows.exists() {
        return read_arrows(&arrows);
    }
    Err(ReadError::NoTable { dir: run_dir.to_owned(), name: name.to_owned() })
}

/// Reads one Parquet file whose first column is `t_ns`.
///
/// # Errors
/// As [`read_table`].
pub fn read_parquet(path: &Path) -> Result<Columns, ReadError> {
    let parquet = |source| ReadError::Parquet { path: path.to_owned(), source };
    let file = File::open(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(parquet)?;
    let mut table = Columns::of(path, builder.schema())?;
    let arrow = |source| ReadError::Arrow { path: path.to_owned(), source };
    for batch in builder.with_batch_size(65_536).build().map_err(parquet)? {
        table.append(path, &batch.map_err(arrow)?)?;
    }
    Ok(table)
}

/// Reads the complete batches of an Arrow stream.
///
/// # Errors
/// Its beginning is no Arrow stream; a torn end is none.
pub fn read_arrows(path: &Path) -> Result<Columns, ReadError> {
    let file = File::open(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
    let arrow = |source| ReadError::Arrow { path: path.to_owned(), source };
    let reader = StreamReader::try_new_buffered(file, None).map_err(arrow)?;
    let mut table = Columns::of(path, &reader.schema())?;
    for batch in reader {
        let Ok(batch) = batch else {
            table.complete = false;
            break;
        };
        table.append(path, &batch)?;
    }
    Ok(table)
}

/// Names of the tables in a run's folder, sorted: `client.clock`, `client.frames`, …
///
/// # Errors
/// The folder cannot be read.
pub fn tables(run_dir: &Path) -> Result<Vec<String>, ReadError> {
    let io = |source| ReadError::Io { path: run_dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(run_dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let Some((stem, extension)) = name.to_str().and_then(|n| n.rsplit_once('.')) else { continue };
        let is_panel = stem.split_once('.').is_some_and(|(panel, table)| {
            crate::spec::Panel::ALL.iter().any(|p| p.name() == panel) && !table.is_empty()
        });
        if is_panel && [ARROWS, PARQUET].contains(&extension) {
            names.push(stem.to_owned());
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}
