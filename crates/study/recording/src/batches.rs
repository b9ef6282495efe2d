//! Reads a table's file batch by batch, so that memory does not grow with the table: Parquet, or the complete batches of
//! an Arrow stream. For whole tables as plain vectors see [`crate::reader`].

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::files::{ARROWS, PARQUET, T_NS};
use crate::reader::ReadError;

/// Rows of a batch read from Parquet.
const BATCH_ROWS: usize = 16_384;

enum Source {
    Parquet(ParquetRecordBatchReader),
    Arrows(StreamReader<BufReader<File>>),
}

/// The batches of one table, in order.
pub struct Batches {
    path: PathBuf,
    schema: SchemaRef,
    source: Source,
    rows: Option<u64>,
    bytes: u64,
    left_out: Vec<String>,
    torn: bool,
    ended: bool,
}

/// The file that holds a table of a run now.
pub fn file_of(run_dir: &Path, name: &str) -> Option<PathBuf> {
    [PARQUET, ARROWS]
        .map(|extension| run_dir.join(format!("{name}.{extension}")))
        .into_iter()
        .find(|p| p.is_file())
}

fn is_known(field: &Field) -> bool {
    matches!(field.data_type(), DataType::Int64 | DataType::UInt64 | DataType::Float64 | DataType::Boolean)
}

/// Positions of the columns to read: those that are wanted and whose type is one of a record.
fn chosen(
    path: &Path,
    schema: &Schema,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<(Vec<usize>, Vec<String>), ReadError> {
    match schema.fields().first() {
        Some(first) if first.name() == T_NS && *first.data_type() == DataType::Int64 => {}
        _ => {
            return Err(ReadError::Column {
                path: path.to_owned(),
                column: T_NS.into(),
                what: "it must come first and be a 64-bit integer".into(),
            });
        }
    }
    let of_type = |known: bool| schema.fields().iter().enumerate().filter(move |(_, f)| is_known(f) == known);
    let kept = of_type(true).filter(|(_, f)| wanted(f.name())).map(|(i, _)| i).collect();
    Ok((kept, of_type(false).map(|(_, f)| f.name().clone()).collect()))
}

impl Batches {
    /// Opens a table of a run, such as `guest.frames`, or a derived one, such as `frames.v1`.
    ///
    /// # Errors
    /// There is no such table, or its file is not one of a record.
    pub fn of_table(run_dir: &Path, name: &str) -> Result<Self, ReadError> {
        let none = || ReadError::NoTable { dir: run_dir.to_owned(), name: name.to_owned() };
        Self::open(&file_of(run_dir, name).ok_or_else(none)?)
    }

    /// Opens a table's file with all its columns. Columns of a type that this version does not know are left out.
    ///
    /// # Errors
    /// It is not a table of a record; a torn end of a stream is none.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Self::open_columns(path, &|_| true)
    }

    /// Opens a table's file with only the columns that are wanted.
    ///
    /// # Errors
    /// As [`Batches::open`].
    pub fn open_columns(path: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Self, ReadError> {
        let io = |source| ReadError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        let is_stream = path.extension().is_some_and(|e| e == ARROWS);
        let (source, schema, rows, left_out) =
            if is_stream { open_stream(path, file, wanted)? } else { open_parquet(path, file, wanted)? };
        Ok(Self { path: path.to_owned(), schema, source, rows, bytes, left_out, torn: false, ended: false })
    }

    /// The columns, with `unit` and `description` as metadata.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows, where the file says so before they are read.
    pub fn rows(&self) -> Option<u64> {
        self.rows
    }

    /// Size of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Names of columns whose type this version does not know.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// True once the end of a stream that was never closed had to be left out.
    pub fn torn(&self) -> bool {
        self.torn
    }
}

type Opened = (Source, SchemaRef, Option<u64>, Vec<String>);

fn open_stream(path: &Path, file: File, wanted: &dyn Fn(&str) -> bool) -> Result<Opened, ReadError> {
    let arrow = |source| ReadError::Arrow { path: path.to_owned(), source };
    let all = StreamReader::try_new_buffered(file, None).map_err(arrow)?.schema();
    let (kept, left_out) = chosen(path, &all, wanted)?;
    let schema = Arc::new(all.project(&kept).map_err(arrow)?);
    let file = File::open(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
    let projection = (kept.len() < all.fields().len()).then_some(kept);
    let reader = StreamReader::try_new_buffered(file, projection).map_err(arrow)?;
    Ok((Source::Arrows(reader), schema, None, left_out))
}

fn open_parquet(path: &Path, file: File, wanted: &dyn Fn(&str) -> bool) -> Result<Opened, ReadError> {
    let parquet = |source| ReadError::Parquet { path: path.to_owned(), source };
    let arrow = |source| ReadError::Arrow { path: path.to_owned(), source };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(parquet)?;
    let all = Arc::clone(builder.schema());
    let (kept, left_out) = chosen(path, &all, wanted)?;
    let schema = Arc::new(all.project(&kept).map_err(arrow)?);
    let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).ok();
    let mask = ProjectionMask::roots(builder.parquet_schema(), kept);
    let reader = builder.with_batch_size(BATCH_ROWS).with_projection(mask).build().map_err(parquet)?;
    Ok((Source::Parquet(reader), schema, rows, left_out))
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let batch = match &mut self.source {
            Source::Parquet(reader) => reader.next(),
            Source::Arrows(reader) => match reader.next() {
                Some(Err(_)) => {
                    self.torn = true;
                    None
                }
                other => other,
            },
        };
        match batch {
            Some(Ok(batch)) => Some(Ok(batch)),
            Some(Err(source)) => {
                self.ended = true;
                Some(Err(ReadError::Arrow { path: self.path.clone(), source }))
            }
            None => {
                self.ended = true;
                None
            }
        }
    }
}
