//! Programs in other languages write rings that this crate reads: the examples, compiled and run.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::path::{Path, PathBuf};
use std::process::Command;

use probe::reader::{RingFolder, RingReader};
use probe::{ColumnType, FOLDER_VARIABLE};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn cc(arguments: &[&str], out: &Path) {
    let done = Command::new("cc")
        .args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(here("include"))
        .args(arguments)
        .arg("-o")
        .arg(out)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Runs a program to its end and reads its ring: nothing is lost of a program that was gone before it was seen.
fn rows(program: &mut Command, dir: &Path, columns: usize) -> (RingReader, Vec<u64>) {
    let folder = RingFolder::open(dir).unwrap();
    let output = program.env(FOLDER_VARIABLE, dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2000 frames, 0 lost\n");
    let found = folder.rings().unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    let mut reader = RingReader::open(&found[0]).unwrap();
    assert!(reader.abandoned().unwrap());
    let mut words = Vec::new();
    reader.read(|batch, _| words.extend_from_slice(batch)).unwrap();
    assert_eq!(words.len(), 2000 * (columns + 1));
    (reader, words)
}

#[test]
fn a_c_program_speaks_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("encoder");
    cc(&[here("examples/encoder.c").to_str().unwrap()], &program);
    let probes = dir.path().join("probes");
    let (reader, words) = rows(Command::new(&program).arg("2000"), &probes, 5);
    let facts = reader.facts();
    assert_eq!(
        (facts.program.as_str(), facts.version.as_str(), facts.capacity),
        ("example-encoder", "1.0", 8192)
    );
    let types: Vec<_> =
        facts.table.columns.iter().map(|c| (c.name.as_str(), c.column_type, c.unit.as_str())).collect();
    assert_eq!(
        types,
        [
            ("number", ColumnType::U64, "1"),
            ("encode_ns", ColumnType::I64, "ns"),
            ("size_bytes", ColumnType::U64, "B"),
            ("quality", ColumnType::F64, "1"),
            ("keyframe", ColumnType::Bool, ""),
        ]
    );
    for (i, row) in words.chunks_exact(6).enumerate() {
        assert_eq!((row[1], row[5]), (i as u64, u64::from(i % 60 == 0)));
        assert!((row[2] as i64) > 0 && (f64::from_bits(row[4]) - row[3] as f64 / 10000.0).abs() < 1e-9);
    }
}

#[test]
fn a_python_program_speaks_for_itself() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("SKIPPED: python3 is not installed (Debian package python3)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let library = dir.path().join("libtriptych_probe.so");
    let header = here("include/triptych_probe.h");
    cc(&["-shared", "-fPIC", "-DTRIPTYCH_PROBE_API=", "-x", "c", header.to_str().unwrap()], &library);
    let probes = dir.path().join("probes");
    let mut python = Command::new("python3");
    python.arg("-B").arg(here("examples/encoder.py")).arg(&library).arg("2000");
    let (reader, words) = rows(&mut python, &probes, 4);
    assert_eq!(reader.facts().program, "example-python");
    for (i, row) in words.chunks_exact(5).enumerate() {
        let expected = (i as u64 * 2_654_435_761 % 1000) as f64 / 1000.0;
        assert_eq!((row[1], f64::from_bits(row[3]), row[4]), (i as u64, expected, u64::from(i % 60 == 0)));
    }
}

#[test]
fn where_nobody_records_a_program_runs_as_ever() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("encoder");
    cc(&[here("examples/encoder.c").to_str().unwrap()], &program);
    let output =
        Command::new(&program).arg("10").env(FOLDER_VARIABLE, dir.path().join("nowhere")).output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("nobody records"));
}
