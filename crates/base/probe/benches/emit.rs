//! What an emitted row costs the program: in rings on the heap and in files, with the clock's reading and without.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use probe::reader::{RingFolder, RingReader};
use probe::{ColumnType, Emitter, Probe, Table, Value};
use units::{Clock, MonotonicClock, Nanos};

/// Rows between two drains.
const ROWS: u64 = 4096;

fn table() -> Table {
    Table::new("frames", "a benchmark")
        .column("size", ColumnType::U64, "B", "")
        .column("encode_ns", ColumnType::I64, "ns", "")
        .column("rate", ColumnType::F64, "Hz", "")
        .column("keyframe", ColumnType::Bool, "", "")
}

fn rows(emitter: &mut Emitter, now: impl Fn() -> Nanos) {
    for i in 0..ROWS {
        let values = [Value::U64(i), Value::I64(17), Value::F64(29.97), Value::Bool(i % 60 == 0)];
        emitter.emit(now(), black_box(&values));
    }
}

fn emit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("emit");
    group.throughput(criterion::Throughput::Elements(ROWS));
    let heap = Probe::new();
    let mut emitter = heap.declare(table(), 2 * ROWS as usize).expect("a valid table");
    let mut drain = heap.drain();
    group.bench_function("heap", |b| {
        b.iter_batched(
            || drain.poll(|batch| _ = black_box(batch)),
            |()| rows(&mut emitter, || Nanos(1)),
            BatchSize::PerIteration,
        );
    });
    let dir = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
    let folder = RingFolder::open(dir.path()).expect("a fresh folder");
    let mut emitter = Probe::shared_in(dir.path(), "bench", "0")
        .declare(table(), 2 * ROWS as usize)
        .expect("a valid table");
    let path = folder.rings().expect("a readable folder").remove(0);
    let mut reader = RingReader::open(&path).expect("a fresh ring");
    for (name, clock) in [("shared", false), ("shared, with the clock", true)] {
        group.bench_function(name, |b| {
            b.iter_batched(
                || reader.read(|words, _| _ = black_box(words.len())).expect("an intact ring"),
                |_| {
                    if clock {
                        rows(&mut emitter, || MonotonicClock.now())
                    } else {
                        rows(&mut emitter, || Nanos(1))
                    }
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, emit);
criterion_main!(benches);
