//! Whatever becomes of a file on its way, reading it ends, panics never, and gives only tables that a record can have.
#![allow(clippy::unwrap_used)] // the lint knows tests by their attribute, not their helpers

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use recording::import::extract::Extractors;
use recording::import::{CsvOptions, ImportedTable, csv, matrix, prometheus, rec};

const REC: &[u8] = include_bytes!("../../../../fuzz/seeds/import_rec/two_tables");
const MATRIX: &[u8] = include_bytes!("../../../../fuzz/seeds/import_rec/matrix");
const CSV: &[u8] = include_bytes!("../../../../fuzz/seeds/import_csv/timed");
const PROMETHEUS: &[u8] = include_bytes!("../../../../fuzz/seeds/import_extract/prometheus");
const JSON: &[u8] = include_bytes!("../../../../fuzz/seeds/import_extract/json");
const EXTRACT: &str = "[[extract]]\nname = 'a'\nfile = 'f'\nregex = '\"(?<a>\\w+)\": (?<b>\\S+)'\n\
    [[extract]]\nname = 'b'\nfile = 'f'\njson = '$..v'\neach = true\n\
    [[extract]]\nname = 'c'\nfile = 'f'\ncsv = 'v'\n[[extract]]\nname = 'd'\nfile = 'f'\nprometheus = true\n";

/// Bytes are replaced, left out, doubled, and the end is cut.
fn damaged(seed: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop_oneof![any::<u8>(), prop::sample::select(b"[]{}\",;:\n|#0123456789.eE-+ntfNI".to_vec())];
    (vec((any::<prop::sample::Index>(), 0u8..3, bytes), 0..12), any::<prop::sample::Index>(), any::<bool>())
        .prop_map(move |(damages, end, cut)| {
            let mut out = seed.to_vec();
            for (at, how, byte) in damages {
                let at = at.index(out.len());
                match how {
                    0 => out[at] = byte,
                    1 => out.insert(at, byte),
                    _ if out.len() > 1 => drop(out.remove(at)),
                    _ => {}
                }
            }
            if cut {
                out.truncate(end.index(out.len()) + 1);
            }
            out
        })
}

fn check(tables: &[ImportedTable]) -> Result<(), TestCaseError> {
    let mut stems = std::collections::BTreeSet::new();
    for table in tables {
        prop_assert_eq!(table.table.check(), Ok(()));
        prop_assert!(stems.insert(table.stem()));
        prop_assert!(!table.t_ns.is_empty() && table.columns.len() == table.table.columns.len());
        prop_assert!(table.columns.iter().all(|c| c.len() == table.t_ns.len()));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn damaged_recordings(bytes in damaged(REC)) {
        if let Ok(rec) = rec::parse(&bytes, Path::new("x.rec")) {
            check(&rec.tables)?;
        }
    }

    #[test]
    fn damaged_matrices_never_lead_out_of_their_folder(bytes in damaged(MATRIX)) {
        for entry in matrix::parse(&bytes).entries {
            prop_assert!(entry.file.is_relative() && !entry.file.components().any(|c| c.as_os_str() == ".."));
        }
    }

    #[test]
    fn damaged_csv(bytes in damaged(&CSV[1..])) {
        for time in [None, Some("t".parse().unwrap())] {
            let options = CsvOptions { time, ..CsvOptions::default() };
            if let Ok(parsed) = csv::parse(&bytes, Path::new("x.csv"), &options) {
                check(&[parsed.table])?;
            }
        }
    }

    #[test]
    fn damaged_answers_and_payloads(answer in damaged(&PROMETHEUS[1..]), payload in damaged(&JSON[1..])) {
        let _ = prometheus::parse(&answer);
        let extractors = Extractors::parse(EXTRACT, Path::new("x.toml")).unwrap();
        check(&extractors.look_into(&answer))?;
        check(&extractors.look_into(&payload))?;
    }
}
