//! What an agent keeps: killed at any instant, or cut off from its collector, it loses no row and sends none twice.

#![allow(clippy::unwrap_used)] // the lint knows tests by their attribute, not their helpers

use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use probe::{ColumnType, Probe, Table, Value};
use recording::Address;
use recording::collector::{Collector, CollectorEvent, CollectorOptions};
use recording::facts::{PlannedRun, RunFacts, RunStatus};
use recording::reader::read_table;
use recording::spec::{Levels, Panel};
use units::{Clock, MonotonicClock};

/// The longest that a test waits for something to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// An agent's process, killed when it is dropped.
struct Agent(Child);

impl Agent {
    fn start(dir: &Path, collector: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_triptych-agent"))
            .args(["run", "--panel", "guest", "--no-defaults", "--collector", collector])
            .arg("--probes")
            .arg(dir.join("probes"))
            .arg("--spool")
            .arg(dir.join("spool"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn finish(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program that counts into a ring until it is told to stop; gives how far it came and what the ring lost.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Writer {
    fn start(probes: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let table = Table::new("count", "a test").column("seq", ColumnType::U64, "1", "number");
            let probe = Probe::shared_in(&probes, "counter", "1");
            let mut emitter = probe.declare(table, 1 << 18).unwrap();
            let mut seq = 0;
            while !told.load(Ordering::Acquire) {
                for _ in 0..20 {
                    emitter.emit(MonotonicClock.now(), &[Value::U64(seq)]);
                    seq += 1;
                }
                // Some 20,000 rows a second: the ring holds more than ten seconds of it.
                std::thread::park_timeout(Duration::from_millis(1));
            }
            seq
        });
        Self { stop, thread }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

fn facts() -> RunFacts {
    let planned = PlannedRun { id: "r0001-p00-k0".into(), point: 0, repeat: 0 };
    RunFacts { status: RunStatus::Complete, ..RunFacts::begin(&planned, Levels::new(), "test") }
}

fn collector(dir: &Path) -> Collector {
    let run = dir.join("run");
    std::fs::create_dir(&run).unwrap();
    let options = CollectorOptions::new(Address::Unix(dir.join("collector")), run);
    Collector::start(CollectorOptions { batch: Duration::from_millis(100), ..options }).unwrap()
}

/// Waits until the collector has more than `rows` rows.
fn await_rows(collector: &Collector, rows: u64) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    while collector.rows(Panel::Guest, "counter-count") <= rows {
        assert!(Instant::now() < deadline, "no more than {rows} rows came");
        collector.next_event(Duration::from_millis(20));
    }
    collector.rows(Panel::Guest, "counter-count")
}

/// Waits until an agent has the folder.
fn await_agent(dir: &Path) {
    let lock = dir.join("probes/agent.lock");
    let deadline = Instant::now() + PATIENCE;
    let taken = || File::open(&lock).is_ok_and(|f| f.try_lock_shared().is_err());
    while !taken() {
        assert!(Instant::now() < deadline, "no agent took the folder");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// From the first that the record has: what was written before the record began is not in it.
fn assert_every_row_once(run: &Path, emitted: u64) {
    let table = read_table(run, "guest.counter-count").unwrap();
    let seq = table.u64("seq").unwrap();
    let wrong = seq.iter().zip(seq[0]..).find(|(found, expected)| **found != *expected);
    assert_eq!((seq[0] + seq.len() as u64, wrong), (emitted, None), "every row once, in order");
    assert!(seq[0] < 20_000, "the first {} rows are not there", seq[0]);
}

#[test]
fn an_agent_killed_at_many_instants_loses_no_row_and_sends_none_twice() {
    let dir = tempfile::tempdir().unwrap();
    let collector = collector(dir.path());
    let address = collector.address().to_string();
    let mut agent = Agent::start(dir.path(), &address);
    await_agent(dir.path());
    let writer = Writer::start(dir.path().join("probes"));
    let (mut seen, mut random) = (0, 0x9e37_79b9_7f4a_7c15u64);
    for _ in 0..12 {
        seen = await_rows(&collector, seen);
        // At any instant of what it does over and over: read a ring, write the spool, send.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::park_timeout(Duration::from_micros(random >> 46));
        agent.kill();
        agent = Agent::start(dir.path(), &address);
    }
    agent.kill();
    while collector.next_event(Duration::from_millis(300)).is_some() {}
    let agent = Agent::start(dir.path(), &address);
    let deadline = Instant::now() + PATIENCE;
    while !matches!(collector.next_event(Duration::from_millis(50)), Some(CollectorEvent::Hello { .. })) {
        assert!(Instant::now() < deadline, "the agent did not come back");
    }
    await_rows(&collector, seen);
    let emitted = writer.stop();
    agent.finish();
    let closed = collector.close(facts()).unwrap();
    assert_eq!(closed.panels["guest"].lost.values().sum::<u64>(), 0);
    let back = closed.markers.iter().filter(|m| m.kind == "agent_back").count();
    assert!((1..=13).contains(&back), "{back} (one that was killed before it could connect was not there)");
    assert_every_row_once(&dir.path().join("run"), emitted);
    assert_eq!(std::fs::read_dir(dir.path().join("spool")).unwrap().count(), 0, "nothing is left to send");
}

/// A network that can be cut: passes bytes between its own socket and the collector's.
struct Network {
    open: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<UnixStream>>>,
}

impl Network {
    fn start(at: &Path, to: PathBuf) -> Self {
        let listener = UnixListener::bind(at).unwrap();
        let open = Arc::new(AtomicBool::new(true));
        let streams: Arc<Mutex<Vec<UnixStream>>> = Arc::default();
        let (passing, kept) = (Arc::clone(&open), Arc::clone(&streams));
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let (Ok(near), true) = (near, passing.load(Ordering::Acquire)) else { continue };
                let Ok(far) = UnixStream::connect(&to) else { continue };
                let all = [near.try_clone().unwrap(), far.try_clone().unwrap()];
                kept.lock().unwrap().extend(all);
                pass(near.try_clone().unwrap(), far.try_clone().unwrap());
                pass(far, near);
            }
        });
        Self { open, streams }
    }

    fn cut(&self) {
        self.open.store(false, Ordering::Release);
        self.streams.lock().unwrap().drain(..).for_each(|s| drop(s.shutdown(Shutdown::Both)));
    }

    fn mend(&self) {
        self.open.store(true, Ordering::Release);
    }
}

fn pass(mut from: UnixStream, mut to: UnixStream) {
    std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}

#[test]
fn a_network_that_is_cut_and_back_costs_nothing_and_the_gap_is_marked() {
    let dir = tempfile::tempdir().unwrap();
    let collector = collector(dir.path());
    let Address::Unix(far) = collector.address().clone() else { panic!("a Unix socket") };
    let network = Network::start(&dir.path().join("network"), far);
    let address = format!("unix:{}", dir.path().join("network").display());
    let agent = Agent::start(dir.path(), &address);
    await_agent(dir.path());
    let writer = Writer::start(dir.path().join("probes"));
    let mut seen = await_rows(&collector, 0);
    for _ in 0..2 {
        network.cut();
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "the collector did not notice");
            let event = collector.next_event(Duration::from_millis(50));
            if matches!(event, Some(CollectorEvent::Gone { clean: false, .. })) {
                break;
            }
        }
        // More than fits into a socket's buffers waits with the agent.
        std::thread::park_timeout(Duration::from_millis(1500));
        network.mend();
        seen = await_rows(&collector, seen + 20_000);
    }
    let emitted = writer.stop();
    agent.finish();
    let closed = collector.close(facts()).unwrap();
    assert_every_row_once(&dir.path().join("run"), emitted);
    for kind in ["agent_lost", "agent_back"] {
        assert_eq!(closed.markers.iter().filter(|m| m.kind == kind).count(), 2, "{kind}");
    }
}

#[test]
fn what_one_record_left_does_not_go_into_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let first = collector(dir.path());
    let address = first.address().to_string();
    let agent = Agent::start(dir.path(), &address);
    await_agent(dir.path());
    let writer = Writer::start(dir.path().join("probes"));
    await_rows(&first, 0);
    // Gone without a word, as after a kill.
    drop(first);
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let begun = MonotonicClock.now().0;
    let second = Collector::start(CollectorOptions::new(address.parse().unwrap(), other.clone())).unwrap();
    await_rows(&second, 10);
    writer.stop();
    agent.finish();
    drop(second);
    let table = read_table(&other, "guest.counter-count").unwrap();
    let oldest = table.i64("t_ns").unwrap()[0];
    assert!(oldest >= begun - 1_000_000_000, "rows of {} ms before", (begun - oldest) / 1_000_000);
}

/// Emits `rows` rows at once into a ring that holds `room`.
fn burst(probe: &Probe, table: &str, column: &str, room: usize, rows: u64) {
    let table = Table::new(table, "a test").column(column, ColumnType::U64, "1", "number");
    let mut emitter = probe.declare(table, room).unwrap();
    for i in 0..rows {
        emitter.emit(MonotonicClock.now(), &[Value::U64(i)]);
    }
}

fn await_table(collector: &Collector, table: &str, rows: u64) {
    let deadline = Instant::now() + PATIENCE;
    while collector.rows(Panel::Guest, table) < rows {
        assert!(Instant::now() < deadline, "{table} has {} rows", collector.rows(Panel::Guest, table));
        collector.next_event(Duration::from_millis(20));
    }
}

#[test]
fn a_table_of_the_same_name_and_other_columns_is_recorded_beside_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let collector = collector(dir.path());
    let agent = Agent::start(dir.path(), &collector.address().to_string());
    await_agent(dir.path());
    let probes = dir.path().join("probes");
    while collector.next_event(Duration::from_millis(300)).is_some() {}
    let rings = || std::fs::read_dir(&probes).unwrap().count();
    let none = rings();
    for (program, column, table) in
        [("triptych-client", "decode_ns", "frames"), ("triptych-host", "taken_ns", "triptych-host-frames")]
    {
        let probe = Probe::shared_in(&probes, program, "1");
        burst(&probe, "frames", column, 64, 10);
        await_table(&collector, table, 10);
        drop(probe);
        let deadline = Instant::now() + PATIENCE;
        while rings() > none {
            assert!(Instant::now() < deadline, "the ring of {program} is still there");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
    agent.finish();
    let closed = collector.close(facts()).unwrap();
    assert_eq!(closed.panels["guest"].lost.values().sum::<u64>(), 0);
}

#[test]
fn what_one_record_lost_is_none_of_the_next_ones_losses() {
    let dir = tempfile::tempdir().unwrap();
    let first = collector(dir.path());
    let address = first.address().to_string();
    let agent = Agent::start(dir.path(), &address);
    await_agent(dir.path());
    while first.next_event(Duration::from_millis(300)).is_some() {}
    let probe = Probe::shared_in(&dir.path().join("probes"), "counter", "1");
    burst(&probe, "count", "seq", 8, 1000);
    await_table(&first, "counter-count", 8);
    let closed = first.close(facts()).unwrap();
    let lost: u64 = closed.panels["guest"].lost.values().sum();
    assert!((1..1000).contains(&lost), "{lost} of 1000 rows");
    // Rings are read on while nobody records.
    std::thread::park_timeout(Duration::from_millis(600));

    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let second = Collector::start(CollectorOptions::new(address.parse().unwrap(), other)).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !matches!(second.next_event(Duration::from_millis(50)), Some(CollectorEvent::Hello { .. })) {
        assert!(Instant::now() < deadline, "the agent did not come to the second record");
    }
    burst(&probe, "more", "seq", 64, 10);
    await_table(&second, "counter-more", 10);
    agent.finish();
    let closed = second.close(facts()).unwrap();
    assert_eq!(closed.panels["guest"].lost.values().sum::<u64>(), 0, "{:?}", closed.panels["guest"].lost);
}
