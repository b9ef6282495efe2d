//! Plain CSV of anybody's, with and without a column of time. The first byte chooses.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use recording::import::{CsvOptions, TimeColumn, csv};

fuzz_target!(|data: &[u8]| {
    let Some((choice, text)) = data.split_first() else { return };
    let mut options = CsvOptions::default();
    if choice & 1 == 1 {
        options.time = Some(TimeColumn { column: "t".into(), unit: None });
    }
    if choice & 2 == 2 {
        options.delimiter = Some(b',');
    }
    let Ok(parsed) = csv::parse(text, Path::new("x.csv"), &options) else { return };
    let table = &parsed.table;
    table.table.check().expect("names and width are those of a record");
    assert!(!table.t_ns.is_empty() && table.columns.iter().all(|c| c.len() == table.t_ns.len()));
});
