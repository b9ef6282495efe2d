//! `.rec` files and `matrix.csv` of anybody's.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use recording::import::{matrix, rec};

fuzz_target!(|data: &[u8]| {
    for entry in matrix::parse(data).entries {
        assert!(entry.file.is_relative() && !entry.file.components().any(|c| c.as_os_str() == ".."));
    }
    let Ok(rec) = rec::parse(data, Path::new("x.rec")) else { return };
    let mut stems = std::collections::BTreeSet::new();
    for table in &rec.tables {
        table.table.check().expect("names and width are those of a record");
        assert!(stems.insert(table.stem()), "each table once");
        assert_eq!(table.columns.len(), table.table.columns.len());
        assert!(table.columns.iter().all(|c| c.len() == table.t_ns.len()), "every column is as long");
    }
});
