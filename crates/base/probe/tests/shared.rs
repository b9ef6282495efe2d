//! Rings in files: the program's side and the reader's.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use probe::reader::{RingFolder, RingReader};
use probe::{ColumnType, Emitter, Probe, Table, Value};
use units::Nanos;

fn table(name: &str) -> Table {
    Table::new(name, "a test").column("size", ColumnType::U64, "B", "size").column(
        "rate",
        ColumnType::F64,
        "Hz",
        "rate",
    )
}

fn emitter(dir: &Path, capacity: usize) -> Emitter {
    Probe::shared_in(dir, "test program", "1.0").declare(table("frames"), capacity).unwrap()
}

fn emit(emitter: &mut Emitter, rows: std::ops::Range<u64>) {
    for i in rows {
        emitter.emit(Nanos(i as i64), &[Value::U64(i * 2), Value::F64(i as f64 / 2.0)]);
    }
}

fn rings(dir: &Path) -> Vec<std::path::PathBuf> {
    RingFolder::open(dir).unwrap().rings().unwrap()
}

fn only_ring(dir: &Path) -> RingReader {
    let found = rings(dir);
    assert_eq!(found.len(), 1, "{found:?}");
    RingReader::open(&found[0]).unwrap()
}

fn read(reader: &mut RingReader) -> Vec<u64> {
    let mut words = Vec::new();
    reader.read(|batch, _| words.extend_from_slice(batch)).unwrap();
    words
}

#[test]
fn a_reader_finds_the_table_and_every_row_across_the_wrap() {
    let dir = tempfile::tempdir().unwrap();
    let mut emitter = emitter(dir.path(), 8);
    let mut reader = only_ring(dir.path());
    assert_eq!((reader.facts().program.as_str(), &reader.facts().table), ("test-program", &table("frames")));
    let mut instants = Vec::new();
    for round in 0..20u64 {
        emit(&mut emitter, round * 5..round * 5 + 5);
        for row in read(&mut reader).chunks_exact(3) {
            assert_eq!((row[1], f64::from_bits(row[2])), (row[0] * 2, row[0] as f64 / 2.0));
            instants.push(row[0]);
        }
    }
    assert_eq!(instants, (0..100).collect::<Vec<_>>());
    assert_eq!(reader.lost().unwrap(), 0);
}

#[test]
fn a_full_ring_counts_what_it_loses_and_goes_on_when_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut emitter = emitter(dir.path(), 4);
    let mut reader = only_ring(dir.path());
    emit(&mut emitter, 0..10);
    assert_eq!(read(&mut reader).len() / 3, 4);
    assert_eq!(reader.lost().unwrap(), 6);
    emit(&mut emitter, 10..12);
    assert_eq!(read(&mut reader)[0], 10);
}

#[test]
fn what_a_program_left_is_read_after_its_end_and_by_the_next_reader_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut emitter = emitter(dir.path(), 64);
    emit(&mut emitter, 0..10);
    let mut first = only_ring(dir.path());
    assert!(!first.found_attached() && !first.abandoned().unwrap());
    assert_eq!(read(&mut first).len() / 3, 10);
    emit(&mut emitter, 10..15);
    drop(first);
    drop(emitter);
    let mut second = only_ring(dir.path());
    assert!(second.found_attached() && second.abandoned().unwrap());
    assert_eq!(read(&mut second)[0], 10, "the next reader goes on where the one before it ended");
    second.remove();
    assert!(rings(dir.path()).is_empty());
}

#[test]
fn a_ring_that_nobody_read_is_taken_away_by_its_program() {
    let dir = tempfile::tempdir().unwrap();
    emit(&mut emitter(dir.path(), 64), 0..3);
    assert!(rings(dir.path()).is_empty());
}

#[test]
fn with_a_reader_in_the_folder_the_ring_of_a_short_program_stays() {
    let dir = tempfile::tempdir().unwrap();
    let folder = RingFolder::open(dir.path()).unwrap();
    emit(&mut emitter(dir.path(), 64), 0..3);
    let mut reader = RingReader::open(&folder.rings().unwrap()[0]).unwrap();
    assert_eq!(read(&mut reader).len() / 3, 3);
}

#[test]
fn a_folder_has_one_reader() {
    let dir = tempfile::tempdir().unwrap();
    let first = RingFolder::open(dir.path()).unwrap();
    assert!(RingFolder::open(dir.path()).is_err());
    drop(first);
    RingFolder::open(dir.path()).unwrap();
}

#[test]
fn rows_are_not_torn_while_both_sides_work() {
    let dir = tempfile::tempdir().unwrap();
    let total = 300_000u64;
    let mut emitter = emitter(dir.path(), 1024);
    let mut reader = only_ring(dir.path());
    let producer = std::thread::spawn(move || emit(&mut emitter, 0..total));
    let (mut rows, mut last) = (0u64, None);
    loop {
        let over = producer.is_finished();
        reader
            .read(|words, _| {
                for row in words.chunks_exact(3) {
                    assert!(last.is_none_or(|last| row[0] > last));
                    assert_eq!((row[1], f64::from_bits(row[2])), (row[0] * 2, row[0] as f64 / 2.0));
                    last = Some(row[0]);
                    rows += 1;
                }
            })
            .unwrap();
        if over {
            break;
        }
    }
    producer.join().unwrap();
    assert_eq!(rows + reader.lost().unwrap(), total);
    assert!(rows > 1024);
}

#[test]
fn files_that_are_no_rings_and_rings_that_lie_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut emitter = emitter(dir.path(), 8);
    emit(&mut emitter, 0..4);
    let path = rings(dir.path()).remove(0);
    let mut reader = RingReader::open(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    // A head far beyond what fits.
    file.write_all_at(&1_000_000u64.to_ne_bytes(), 64 * 8).unwrap();
    let error = reader.read(|_, _| panic!("no rows")).unwrap_err().to_string();
    assert!(error.contains("1000000 rows are waiting, but it holds 8"), "{error}");
    // A file that was cut: an error, and no signal.
    file.write_all_at(&4u64.to_ne_bytes(), 64 * 8).unwrap();
    file.set_len(700).unwrap();
    assert!(reader.read(|_, _| ()).is_err());
    assert!(RingReader::open(&path).is_err());
    let link = dir.path().join("link.ring");
    std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
    assert!(RingReader::open(&link).is_err());
    let text = dir.path().join("text.ring");
    fs::write(&text, "x".repeat(5000)).unwrap();
    let error = RingReader::open(&text).err().unwrap().to_string();
    assert!(error.contains("text.ring: it is no ring of a probe"), "{error}");
    // The program must not touch what was cut away from under it.
    std::mem::forget(emitter);
}
