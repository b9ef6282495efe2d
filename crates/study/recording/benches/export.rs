//! What exporting a table as text costs: bytes and rows a second, from Parquet on the disk to the file written.
#![allow(missing_docs)] // criterion_group makes an undocumented function

use std::path::Path;
use std::sync::atomic::AtomicBool;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use probe::ColumnType::{Bool, F64, I64, U64};
use probe::Table;
use recording::export::{Clock, Format, Request, Source, export};
use recording::files::{TableWriter, to_parquet};

const ROWS: u64 = 200_000;

/// A table such as the guest's frames: instants, durations, sizes, rates, flags.
fn record(dir: &Path) {
    let table = Table::new("frames", "Made-up frames")
        .column("captured_ns", I64, "ns", "Instant at which capture finished")
        .column("encode_ns", I64, "ns", "Encoding")
        .column("size_bytes", U64, "B", "Size of the access unit")
        .column("keyframe", Bool, "", "Whether decoding can start here")
        .column("fps", F64, "Hz", "Frame rate of the last second")
        .column("cpu_percent", F64, "%", "CPU, 100: one core");
    let mut writer = TableWriter::create(dir, "guest.frames", &table).expect("a fresh folder");
    let rows = |range: std::ops::Range<u64>| {
        range.flat_map(|i| {
            let t = 1_000_000_000_000 + i * 16_683_350;
            let noise = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            let number = |scale: f64| (noise as f64 * scale).to_bits();
            [
                t,
                t + noise,
                3_000_000 + noise,
                noise % 90_000,
                u64::from(i % 60 == 0),
                number(1e-6),
                number(1e-5),
            ]
        })
    };
    for start in (0..ROWS).step_by(10_000) {
        writer.write(&rows(start..start + 10_000).collect::<Vec<_>>()).expect("room on the disk");
    }
    writer.finish().expect("room on the disk");
    to_parquet(dir, "guest.frames").expect("room on the disk");
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1/run.toml"), dir.join("run.toml"))
        .expect("the golden facts are there");
}

fn bench(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("r0001-p00-k0");
    std::fs::create_dir(&dir).expect("a fresh folder");
    record(&dir);
    for (name, format) in [
        ("csv", Format::Csv),
        ("jsonl", Format::JsonLines),
        ("parquet", Format::Parquet),
        ("perfetto", Format::Perfetto),
    ] {
        let request = Request {
            runs: vec![Source { dir: dir.clone(), responses: [].into() }],
            plan: None,
            format,
            out: folder.path().join(name),
            tables: Vec::new(),
            clock: Clock::Collector,
            force: true,
        };
        let run = || export(&request, &AtomicBool::new(false), &mut |_| {}).expect("an export");
        let bytes: u64 = run().files.iter().map(|f| f.bytes).sum();
        let mut group = c.benchmark_group(format!("export {ROWS} rows of 7 columns"));
        group.sample_size(10);
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function(format!("{name}, bytes written"), |b| b.iter(run));
        group.throughput(Throughput::Elements(ROWS));
        group.bench_function(format!("{name}, rows"), |b| b.iter(run));
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
