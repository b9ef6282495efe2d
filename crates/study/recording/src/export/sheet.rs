//! One table as a file of the format asked for.

use std::io::{self, Write};
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::Format;
use super::output::Output;
use super::text::Lines;

/// Text is handed to the operating system in pieces of this size.
const PIECE: usize = 256 << 10;
/// A Parquet row group ends once this much of it waits in memory.
const ROW_GROUP: usize = 32 << 20;

enum Writer {
    Text { lines: Lines, waiting: Vec<u8>, output: Output },
    Parquet(Box<ArrowWriter<Output>>),
}

/// A file of rows being written; not there until [`Sheet::finish`].
pub(super) struct Sheet {
    writer: Writer,
    rows: u64,
}

fn io(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(inner) => io::Error::other(inner),
        },
        other => io::Error::other(other),
    }
}

impl Sheet {
    /// Begins the file.
    pub(super) fn create(format: Format, path: &Path, schema: &SchemaRef) -> io::Result<Self> {
        let output = Output::create(path)?;
        let mut waiting = Vec::new();
        let writer = match format {
            Format::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_created_by(format!("triptych {}", env!("CARGO_PKG_VERSION")))
                    .build();
                let writer = ArrowWriter::try_new(output, SchemaRef::clone(schema), Some(properties));
                Writer::Parquet(Box::new(writer.map_err(io)?))
            }
            Format::JsonLines => Writer::Text { lines: Lines::json(schema), waiting, output },
            Format::Csv | Format::Perfetto => {
                let lines = Lines::csv(schema, &mut waiting);
                Writer::Text { lines, waiting, output }
            }
        };
        Ok(Self { writer, rows: 0 })
    }

    /// Appends rows.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> io::Result<()> {
        self.rows += batch.num_rows() as u64;
        match &mut self.writer {
            Writer::Text { lines, waiting, output } => {
                lines.append(batch, waiting);
                if waiting.len() >= PIECE {
                    output.write_all(waiting)?;
                    waiting.clear();
                }
                Ok(())
            }
            Writer::Parquet(writer) => {
                writer.write(batch).map_err(io)?;
                if writer.in_progress_size() > ROW_GROUP {
                    writer.flush().map_err(io)?;
                }
                Ok(())
            }
        }
    }

    /// Puts the file on the disk under its name; gives rows and bytes.
    pub(super) fn finish(self) -> io::Result<(u64, u64)> {
        let bytes = match self.writer {
            Writer::Text { waiting, mut output, .. } => {
                output.write_all(&waiting)?;
                output.finish()?
            }
            Writer::Parquet(writer) => writer.into_inner().map_err(io)?.finish()?,
        };
        Ok((self.rows, bytes))
    }
}
