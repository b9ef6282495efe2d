//! How many events a second go from one program to the disk: a ring, the real `triptych-agent`, a collector, files.
//!
//! `cargo bench --workspace --bench events [-- SECONDS]`. The program emits in bursts, a thousand a second; a row has two
//! values and its instant. A row is lost when the ring was full, and counted; what is on the disk at the end is read back.
#![allow(clippy::unwrap_used)] // a benchmark may fail loudly

mod common;

use std::fs;
use std::io::{Write, stdout};
use std::path::Path;
use std::time::{Duration, Instant};

use probe::{ColumnType, Probe, Table, Value};
use recording::Address;
use recording::collector::{Collector, CollectorOptions};
use recording::facts::{PlannedRun, RunFacts, RunStatus};
use recording::reader::read_table;
use recording::spec::{Levels, Panel};
use units::{Clock, MonotonicClock};

use common::{Agent, Used, used};

const RATES: [u64; 4] = [100_000, 500_000, 1_000_000, 2_000_000];
/// Rows that the ring holds: 0.26 s at a million a second.
const CAPACITY: usize = 1 << 18;
const SECONDS: u64 = 10;

/// Emits `rate` rows a second for `seconds`; gives the rows, and the program's own time in it.
fn emit(probes: &Path, rate: u64, seconds: u64) -> (u64, Duration) {
    let table = Table::new("events", "a benchmark").column("seq", ColumnType::U64, "1", "number").column(
        "value",
        ColumnType::F64,
        "",
        "anything",
    );
    let probe = Probe::shared_in(probes, "source", "1");
    let mut emitter = probe.declare(table, CAPACITY).unwrap();
    let (begin, mut seq, mut own) = (Instant::now(), 0, Duration::ZERO);
    for burst in 1..=seconds * 1000 {
        let start = Instant::now();
        while seq < burst * rate / 1000 {
            emitter.emit(MonotonicClock.now(), &[Value::U64(seq), Value::F64(0.5)]);
            seq += 1;
        }
        own += start.elapsed();
        std::thread::sleep((begin + Duration::from_millis(burst)).saturating_duration_since(Instant::now()));
    }
    (seq, own)
}

fn main() {
    // Cargo says `--bench` to benchmarks and `--test` when it only tries them.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let trial = arguments.iter().any(|a| a == "--test");
    let seconds = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(if trial { 1 } else { SECONDS });
    let mut out = stdout();
    writeln!(
        out,
        "  events/s   emitted  ring lost   on disk   program ns/event  agent CPU  agent RSS  collector CPU"
    )
    .unwrap();
    for rate in RATES {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        fs::create_dir(&run).unwrap();
        let options = CollectorOptions::new(Address::Unix(dir.path().join("collector")), run.clone());
        let collector = Collector::start(options).unwrap();
        let agent = Agent::start(dir.path(), &collector, &["--panel", "guest", "--no-defaults"]);
        let own_before = used(std::process::id()).cpu;
        let (begin, (emitted, emitting)) = (Instant::now(), emit(&dir.path().join("probes"), rate, seconds));
        let wall = begin.elapsed().as_secs_f64();
        let Used { cpu: agent_cpu, rss: agent_rss } = used(agent.id());
        let collector_cpu = used(std::process::id()).cpu - own_before - emitting.as_secs_f64();
        agent.end();
        let planned = PlannedRun { id: "r0001-p00-k0".into(), point: 0, repeat: 0 };
        let facts =
            RunFacts { status: RunStatus::Complete, ..RunFacts::begin(&planned, Levels::new(), "bench") };
        let _ = collector.rows(Panel::Guest, "source-events");
        let closed = collector.close(facts).unwrap();
        let lost: u64 = closed.panels["guest"].lost.values().sum();
        let rows = read_table(&run, "guest.source-events").unwrap().rows as u64;
        writeln!(
            out,
            "{rate:10} {emitted:9} {lost:10} {rows:9}   {:16.1}  {:8.1} %  {agent_rss:6.1} MB  {:11.1} %",
            emitting.as_secs_f64() * 1e9 / emitted as f64,
            agent_cpu / wall * 100.0,
            collector_cpu / wall * 100.0,
        )
        .unwrap();
        assert_eq!(rows + lost, emitted, "every row is on the disk or counted as lost");
    }
}
