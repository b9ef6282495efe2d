//! A table's files: Arrow IPC while the run is under way, Parquet once it is closed.
//!
//! `<panel>.<table>.arrows` is an Arrow IPC stream: the schema, then batches, each synced before the next is begun, so
//! that a crash loses at most the last one. `<panel>.<table>.parquet` has the same columns, compressed with zstd.
//! The first column is `t_ns`; every field carries `unit` and `description` as metadata.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, UInt64Array};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use probe::{ColumnType, Table};
use thiserror::Error;

use crate::atomic::sync_folder;
pub use crate::atomic::write_atomically;
pub use crate::cells::T_NS;

/// Extension of a table that is still being written.
pub const ARROWS: &str = "arrows";
/// Extension of a closed table.
pub const PARQUET: &str = "parquet";

/// A table's file could not be written or converted.
#[derive(Debug, Error)]
#[error("{}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: FileErrorKind,
}

/// Why a table's file could not be written or converted.
#[derive(Debug, Error)]
pub enum FileErrorKind {
    /// The operating system.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Arrow.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    /// Parquet.
    #[error(transparent)]
    Parquet(#[from] ParquetError),
}

impl FileError {
    /// What is at the bottom of it, such as `No space left on device (os error 28)`.
    pub fn cause(&self) -> String {
        let mut error: &dyn std::error::Error = &self.source;
        while let Some(source) = error.source() {
            error = source;
        }
        error.to_string()
    }
}

fn in_file<T>(path: &Path, result: Result<T, FileErrorKind>) -> Result<T, FileError> {
    result.map_err(|source| FileError { path: path.to_owned(), source })
}

/// The Arrow schema of a table, `t_ns` first.
pub fn schema(table: &Table) -> SchemaRef {
    let field = |name: &str, data_type, unit: &str, description: &str| {
        let metadata =
            [("unit".to_owned(), unit.to_owned()), ("description".to_owned(), description.to_owned())];
        Field::new(name, data_type, false).with_metadata(HashMap::from(metadata))
    };
    let data_type = |column_type| match column_type {
        ColumnType::I64 => DataType::Int64,
        ColumnType::U64 => DataType::UInt64,
        ColumnType::F64 => DataType::Float64,
        ColumnType::Bool => DataType::Boolean,
    };
    let first = field(T_NS, DataType::Int64, "ns", "instant of the row on the panel's monotonic clock");
    let rest =
        table.columns.iter().map(|c| field(&c.name, data_type(c.column_type), &c.unit, &c.description));
    let metadata = HashMap::from([("description".to_owned(), table.description.clone())]);
    Arc::new(Schema::new_with_metadata(std::iter::once(first).chain(rest).collect::<Vec<_>>(), metadata))
}

/// Columns from row-major words; `words.len()` is a multiple of the number of columns, `t_ns` included.
fn batch(schema: &SchemaRef, words: &[u64]) -> Result<RecordBatch, ArrowError> {
    let width = schema.fields().len();
    let columns = schema.fields().iter().enumerate().map(|(i, field)| -> ArrayRef {
        let cells = words.iter().skip(i).step_by(width).copied();
        match field.data_type() {
            DataType::UInt64 => Arc::new(UInt64Array::from_iter_values(cells)),
            DataType::Float64 => Arc::new(Float64Array::from_iter_values(cells.map(f64::from_bits))),
            DataType::Boolean => Arc::new(BooleanArray::from_iter(cells.map(|c| Some(c != 0)))),
            _ => Arc::new(Int64Array::from_iter_values(cells.map(|c| c as i64))),
        }
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect())
}

/// Writes one table while the run is under way.
pub struct TableWriter {
    path: PathBuf,
    schema: SchemaRef,
    writer: StreamWriter<File>,
}

impl TableWriter {
    /// Starts `<dir>/<panel>.<table>.arrows`; `stem` is `<panel>.<table>`. The file is there with its schema or, whenever
    /// this is cut off, not at all.
    ///
    /// # Errors
    /// The file exists already or cannot be written.
    pub fn create(dir: &Path, stem: &str, table: &Table) -> Result<Self, FileError> {
        let path = dir.join(format!("{stem}.{ARROWS}"));
        let schema = schema(table);
        let temporary = dir.join(format!(".{stem}.{ARROWS}.new"));
        let open = || -> Result<_, FileErrorKind> {
            if path.exists() {
                return Err(io::Error::from(io::ErrorKind::AlreadyExists).into());
            }
            let writer = StreamWriter::try_new(File::create(&temporary)?, &schema)?;
            fs::rename(&temporary, &path)?;
            Ok(writer)
        };
        let writer = in_file(&path, open().inspect_err(|_| drop(fs::remove_file(&temporary))))?;
        Ok(Self { path, schema, writer })
    }

    /// Writes rows as one batch and syncs them to the disk. `words` as in [`crate::wire::Message::Rows`].
    ///
    /// # Errors
    /// The disk is full or gone. What was written before stays readable; write no more.
    pub fn write(&mut self, words: &[u64]) -> Result<(), FileError> {
        self.append(words)?;
        if words.is_empty() { Ok(()) } else { self.sync() }
    }

    /// Writes rows as one batch, which is safe once [`TableWriter::sync`] has returned.
    ///
    /// # Errors
    /// As [`TableWriter::write`].
    pub fn append(&mut self, words: &[u64]) -> Result<(), FileError> {
        if words.is_empty() {
            return Ok(());
        }
        let mut write = || -> Result<(), FileErrorKind> {
            self.writer.write(&batch(&self.schema, words)?)?;
            Ok(self.writer.get_mut().flush()?)
        };
        in_file(&self.path, write())
    }

    /// Waits until everything that was appended is on the disk.
    ///
    /// # Errors
    /// As [`TableWriter::write`].
    pub fn sync(&mut self) -> Result<(), FileError> {
        in_file(&self.path, self.writer.get_ref().sync_data().map_err(Into::into))
    }

    /// Cells in a row, `t_ns` included.
    pub fn width(&self) -> usize {
        self.schema.fields().len()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// As [`TableWriter::write`].
    pub fn finish(mut self) -> Result<(), FileError> {
        let mut finish = || -> Result<(), FileErrorKind> {
            self.writer.finish()?;
            Ok(self.writer.get_ref().sync_data()?)
        };
        in_file(&self.path, finish())
    }
}

/// Turns `<stem>.arrows` into `<stem>.parquet`, and removes it only when that is safely on the disk. Batches after a
/// torn one (the run was killed) are not there; all before it are kept. Gives the number of rows.
///
/// # Errors
/// The Parquet file cannot be written; the `.arrows` file stays.
pub fn to_parquet(dir: &Path, stem: &str) -> Result<usize, FileError> {
    let source = dir.join(format!("{stem}.{ARROWS}"));
    let target = dir.join(format!("{stem}.{PARQUET}"));
    let temporary = dir.join(format!(".{stem}.{PARQUET}.new"));
    let open =
        || -> Result<_, FileErrorKind> { Ok(StreamReader::try_new_buffered(File::open(&source)?, None)?) };
    let reader = in_file(&source, open())?;
    let convert = || -> Result<usize, FileErrorKind> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by(format!("triptych {}", env!("CARGO_PKG_VERSION")))
            .build();
        let schema = reader.schema();
        let mut writer = ArrowWriter::try_new(File::create(&temporary)?, schema, Some(properties))?;
        let mut rows = 0;
        for batch in reader.map_while(Result::ok) {
            rows += batch.num_rows();
            writer.write(&batch)?;
        }
        writer.into_inner()?.sync_all()?;
        fs::rename(&temporary, &target)?;
        sync_folder(dir)?;
        Ok(rows)
    };
    let rows = in_file(&target, convert().inspect_err(|_| drop(fs::remove_file(&temporary))))?;
    in_file(&source, fs::remove_file(&source).map_err(Into::into))?;
    Ok(rows)
}

/// Writes a whole table as `<stem>.parquet`. Nothing is synced: the caller does so, for many files at once.
///
/// # Errors
/// The disk is full or gone; then there is no such file.
pub fn write_table(dir: &Path, stem: &str, table: &Table, words: &[u64]) -> Result<(), FileError> {
    let target = dir.join(format!("{stem}.{PARQUET}"));
    let temporary = dir.join(format!(".{stem}.{PARQUET}.new"));
    let write = || -> Result<(), FileErrorKind> {
        let schema = schema(table);
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by(format!("triptych {}", env!("CARGO_PKG_VERSION")))
            .build();
        let batch = batch(&schema, words)?;
        let mut writer = ArrowWriter::try_new(File::create(&temporary)?, schema, Some(properties))?;
        writer.write(&batch)?;
        writer.close()?;
        Ok(fs::rename(&temporary, &target)?)
    };
    in_file(&target, write().inspect_err(|_| drop(fs::remove_file(&temporary))))
}

/// Space held back in a run's folder and given free when the run is closed, so that `run.toml` can say that the disk is
/// full. Without it nothing is lost but the reason.
pub struct Reserve(PathBuf);

impl Reserve {
    /// Bytes: a run.toml with many markers is far below it.
    const SIZE: usize = 64 * 1024;

    /// Takes the space in the run's folder.
    pub fn take(dir: &Path) -> Self {
        let path = dir.join(".reserve");
        let written = File::create(&path).and_then(|mut f| f.write_all(&[0xa5; Self::SIZE]));
        if let Err(error) = written {
            tracing::debug!("no space could be reserved: {error}");
        }
        Self(path)
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
