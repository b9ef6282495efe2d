//! An imported table on its way to the disk.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, UInt64Array};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::table::ImportedTable;
use crate::cells::Column;
use crate::files::{FileError, FileErrorKind, PARQUET, schema};

impl ImportedTable {
    /// Writes `<dir>/<panel>.<table>.parquet`. Nothing is synced: the import syncs once, when all is written.
    pub(crate) fn write(self, dir: &Path) -> Result<(), FileError> {
        let path = dir.join(format!("{}.{PARQUET}", self.stem()));
        let schema = schema(&self.table);
        let write = move |path: &Path| -> Result<(), FileErrorKind> {
            let first: ArrayRef = Arc::new(Int64Array::from(self.t_ns));
            let rest = self.columns.into_iter().map(|column| -> ArrayRef {
                match column {
                    Column::I64(v) => Arc::new(Int64Array::from(v)),
                    Column::U64(v) => Arc::new(UInt64Array::from(v)),
                    Column::F64(v) => Arc::new(Float64Array::from(v)),
                    Column::Bool(v) => Arc::new(BooleanArray::from(v)),
                }
            });
            let batch =
                RecordBatch::try_new(Arc::clone(&schema), std::iter::once(first).chain(rest).collect())?;
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(ZstdLevel::default()))
                .set_created_by(format!("triptych {}", env!("CARGO_PKG_VERSION")))
                .build();
            let mut writer = ArrowWriter::try_new(File::create_new(path)?, schema, Some(properties))?;
            writer.write(&batch)?;
            writer.close()?;
            Ok(())
        };
        write(&path).map_err(|source| FileError { path, source })
    }
}
