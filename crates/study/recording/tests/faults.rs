//! What a killed collector and a full disk leave behind.
#![allow(clippy::unwrap_used)] // the lint knows tests by their attribute, not their helpers

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use probe::{ColumnType, Table};
use recording::files::{TableWriter, to_parquet};
use recording::reader::read_table;

const ROWS: u64 = 100;

fn table() -> Table {
    Table::new("frames", "frames of a test").column("size_bytes", ColumnType::U64, "B", "size")
}

fn batch(n: u64) -> Vec<u64> {
    (0..ROWS).flat_map(|i| [n * ROWS + i, i]).collect()
}

/// Not a test of its own: writes until it is killed, when the test below starts it as a child.
#[test]
fn child_that_writes_until_killed() {
    let Some(dir) = std::env::var_os("RECORD_HERE") else { return };
    let mut writer = TableWriter::create(Path::new(&dir), "guest.frames", &table()).unwrap();
    for n in 0.. {
        writer.write(&batch(n)).unwrap();
        println!("batch {n}");
    }
}

#[test]
fn a_record_killed_at_any_instant_holds_every_batch_that_was_reported_written() {
    for wanted in [1usize, 2, 5, 17, 40] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_that_writes_until_killed", "--exact", "--nocapture"])
            .env("RECORD_HERE", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let reported = lines.filter(|l| l.contains("batch ")).take(wanted).count();
        child.kill().unwrap();
        child.wait().unwrap();
        let record = read_table(dir.path(), "guest.frames").unwrap();
        assert_eq!(reported, wanted);
        assert!(record.rows as u64 >= wanted as u64 * ROWS, "{} rows of {wanted} batches", record.rows);
        assert_eq!(record.rows as u64 % ROWS, 0, "only whole batches");
        let t = record.i64("t_ns").unwrap();
        assert!(t.iter().enumerate().all(|(i, t)| *t == i as i64), "rows are whole and in order");
        // Closing it later gives the same rows as Parquet.
        assert_eq!(to_parquet(dir.path(), "guest.frames").unwrap(), record.rows);
        assert_eq!(read_table(dir.path(), "guest.frames").unwrap().columns, record.columns);
    }
}

/// Not a test of its own: a disk that is full after 64 KiB, as far as this process can tell.
#[test]
fn child_on_a_full_disk() {
    let Some(dir) = std::env::var_os("RECORD_FULL") else { return };
    let limit = rustix::process::Rlimit { current: Some(64 * 1024), maximum: Some(64 * 1024) };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
    let mut writer = TableWriter::create(Path::new(&dir), "guest.frames", &table()).unwrap();
    let error = (0..1000).find_map(|n| writer.write(&batch(n)).err()).expect("the disk is full some time");
    assert!(error.to_string().contains("guest.frames.arrows"), "{error}");
}

#[test]
fn a_full_disk_is_an_error_that_names_the_file_and_what_was_written_stays_readable() {
    let dir = tempfile::tempdir().unwrap();
    // A shell ignores the signal that the limit brings, so that writing fails as it does on a full disk.
    let status = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" child_on_a_full_disk --exact"])
        .arg(std::env::current_exe().unwrap())
        .env("RECORD_FULL", dir.path())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let record = read_table(dir.path(), "guest.frames").unwrap();
    assert!(record.rows > 0, "the beginning is there");
    assert_eq!(record.rows as u64 % ROWS, 0, "only whole batches");
}
