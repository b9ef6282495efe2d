//! What one sample of a device or a service costs.
//!
//! Where the hardware is missing, its files are those of the tests' fixtures: the kernel's own work for `/proc` and `/sys`
//! is then not in the figure. The monitor is a scripted one in another thread.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;

use agent::devices::{DrmGpus, Energy};
use agent::sampler::{Rows, Sampler};
use agent::services::Qmp;
use criterion::{Criterion, criterion_group, criterion_main};
use probe::{Table, Value};
use units::Nanos;

struct Discard;

impl Rows for Discard {
    fn row(&mut self, table: &Table, at: Nanos, values: &[Value]) {
        black_box((table, at, values));
    }
    fn mark(&mut self, kind: &str, text: &str) {
        black_box((kind, text));
    }
    fn fact(&mut self, name: &str, value: &str) {
        black_box((name, value));
    }
}

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Answers every question at once.
fn monitor(path: &Path) {
    let listener = UnixListener::bind(path).expect("a fresh folder");
    std::thread::spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else { return };
        let _ = writeln!(
            stream,
            r#"{{"QMP": {{"version": {{"qemu": {{"major": 9, "minor": 0, "micro": 0}}}}}}}}"#
        );
        let Ok(read) = stream.try_clone() else { return };
        for line in BufReader::new(read).lines().map_while(Result::ok) {
            let asked: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            let answer = match asked["execute"].as_str().unwrap_or_default() {
                "query-blockstats" => r#"[{"device": "disk0", "stats": {"rd_bytes": 1, "wr_bytes": 2}}]"#,
                "query-cpus-fast" => "[]",
                "query-status" => r#"{"running": true, "status": "running"}"#,
                _ => "{}",
            };
            if writeln!(stream, r#"{{"return": {answer}, "id": {}}}"#, asked["id"]).is_err() {
                return;
            }
        }
    });
}

fn devices(criterion: &mut Criterion) {
    for name in ["i915", "xe", "amdgpu"] {
        let mut gpus = DrmGpus::new(&fixture("drm").join(name));
        gpus.sample(&mut Discard);
        criterion.bench_function(&format!("gpu-drm {name}"), |b| b.iter(|| gpus.sample(&mut Discard)));
    }
    // The first sample searches every process of this machine.
    let proc = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = proc.filter(|e| e.file_name().to_string_lossy().parse::<u32>().is_ok()).count();
    let root = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink("/proc", root.path().join("proc")).expect("a fresh folder");
    std::fs::create_dir_all(root.path().join("sys/class")).expect("a fresh folder");
    std::os::unix::fs::symlink(fixture("drm/i915/sys/class/drm"), root.path().join("sys/class/drm"))
        .expect("a fresh folder");
    criterion.bench_function(&format!("gpu-drm search of {processes} processes"), |b| {
        b.iter(|| DrmGpus::new(root.path()).sample(&mut Discard));
    });
    let mut energy = Energy::new(&fixture("rapl"));
    criterion.bench_function("energy 3 zones", |b| b.iter(|| energy.sample(&mut Discard)));
}

fn services(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("qmp");
    monitor(&path);
    let mut qmp = Qmp::new(&path.to_string_lossy()).expect("a short path");
    criterion.bench_function("qmp 1 disk, the answer included", |b| b.iter(|| qmp.sample(&mut Discard)));
}

criterion_group!(benches, devices, services);
criterion_main!(benches);
