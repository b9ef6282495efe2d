//! An agent and a collector over a real socket: what a program emits is what the closed run holds.

#![allow(clippy::unwrap_used)] // the lint knows tests by their attribute, not their helpers

use std::path::Path;
use std::time::{Duration, Instant};

use agent::{AgentHandle, AgentOptions, Ready};
use probe::{ColumnType, Emitter, Probe, Table, Value};
use recording::Address;
use recording::collector::{Collector, CollectorError, CollectorEvent, CollectorOptions};
use recording::facts::{PlannedRun, RunFacts, RunStatus};
use recording::reader::{read_table, tables};
use recording::spec::{Level, Levels, Panel};
use units::{Clock, MonotonicClock};

fn frames(probe: &Probe) -> Emitter {
    let table = Table::new("frames", "frames of a test")
        .column("seq", ColumnType::U64, "1", "number")
        .column("fps", ColumnType::F64, "Hz", "rate")
        .column("keyframe", ColumnType::Bool, "", "flag");
    probe.declare(table, 1024).unwrap()
}

fn emit(emitter: &mut Emitter, count: u64) {
    for seq in 0..count {
        emitter.emit(MonotonicClock.now(), &[Value::U64(seq), Value::F64(29.5), Value::Bool(seq % 2 == 0)]);
    }
}

fn facts() -> RunFacts {
    let planned = PlannedRun { id: "r0001-p00-k0".into(), point: 0, repeat: 0 };
    RunFacts { status: RunStatus::Complete, ..RunFacts::begin(&planned, Levels::new(), "test") }
}

fn collector(dir: &Path) -> Collector {
    let options = CollectorOptions::new(Address::Unix(dir.join("socket")), dir.to_owned());
    Collector::start(CollectorOptions { batch: Duration::from_millis(50), ..options }).unwrap()
}

fn agent(collector: &Collector, panel: Panel, probe: &Probe) -> AgentHandle {
    let options = AgentOptions::new(collector.address().clone(), panel, "test", "0.0.1");
    agent::start(AgentOptions { machine: true, ..options }, probe).unwrap()
}

fn await_event(collector: &Collector, wanted: impl Fn(&CollectorEvent) -> bool) -> CollectorEvent {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        match collector.next_event(Duration::from_millis(100)) {
            Some(event) if wanted(&event) => return event,
            _ => {}
        }
    }
    panic!("the event did not come")
}

#[test]
fn what_a_program_emits_is_what_the_closed_run_holds() {
    let dir = tempfile::tempdir().unwrap();
    let collector = collector(dir.path());
    let probe = Probe::new();
    let mut emitter = frames(&probe);
    let agent = agent(&collector, Panel::Guest, &probe);
    emit(&mut emitter, 500);
    agent.mark("note", "half-way");
    let in_force = [("fps".to_owned(), Level::Int(30))].into();
    agent.ready(Ready { in_force, ..Ready::default() });
    await_event(&collector, |e| matches!(e, CollectorEvent::Ready { panel: Panel::Guest, .. }));
    emit(&mut emitter, 500);
    agent.finish();
    await_event(&collector, |e| matches!(e, CollectorEvent::Gone { panel: Panel::Guest, clean: true, .. }));
    assert_eq!(collector.rows(Panel::Guest, "frames"), 1000);
    let facts = collector.close(facts()).unwrap();

    assert_eq!(facts.status, RunStatus::Complete, "{}", facts.reason);
    let guest = &facts.panels["guest"];
    assert_eq!((guest.program.as_str(), guest.in_force["fps"].clone()), ("test", Level::Int(30)));
    assert!(guest.lost.is_empty());
    assert_eq!(facts.markers.iter().filter(|m| m.text == "half-way").count(), 1);
    assert_eq!(
        tables(dir.path()).unwrap(),
        ["guest.clock", "guest.frames", "guest.machine", "guest.process"]
    );
    let table = read_table(dir.path(), "guest.frames").unwrap();
    assert_eq!((table.rows, table.unit("fps"), table.unit("t_ns")), (1000, Some("Hz"), Some("ns")));
    assert!(table.u64("seq").unwrap().iter().copied().eq((0..500).chain(0..500)));
    assert!(table.i64("t_ns").unwrap().is_sorted());
    assert!(
        read_table(dir.path(), "guest.process").unwrap().rows >= 2,
        "one sample at the start and one at the end"
    );
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(
        left.iter().all(|n| {
            let n = n.to_string_lossy();
            n.ends_with(".parquet") || n == "run.toml"
        }),
        "{left:?}"
    );
}

#[test]
fn clocks_of_one_machine_are_found_equal_within_their_uncertainty() {
    let dir = tempfile::tempdir().unwrap();
    let collector = collector(dir.path());
    let probe = Probe::new();
    let agent = agent(&collector, Panel::Client, &probe);
    let deadline = Instant::now() + Duration::from_secs(10);
    while collector.rows(Panel::Client, "process") < 2 && Instant::now() < deadline {
        collector.next_event(Duration::from_millis(50));
    }
    agent.finish();
    let facts = collector.close(facts()).unwrap();
    let clock = facts.panels["client"].clock.as_ref().unwrap();
    assert!(clock.exchanges >= 10, "{clock:?}");
    let exchanges = read_table(dir.path(), "client.clock").unwrap();
    let instants = exchanges.i64("t_ns").unwrap();
    for t in [instants[0], instants[instants.len() - 1]] {
        let error = (clock.to_collector(t) - t).abs();
        assert!(error <= clock.uncertainty_ns, "error {error} ns: {clock:?}");
    }
    assert!(exchanges.rows as u32 >= clock.exchanges);
}

#[test]
fn a_run_that_was_never_closed_is_readable_to_its_last_batch() {
    let dir = tempfile::tempdir().unwrap();
    let collector = collector(dir.path());
    let probe = Probe::new();
    let mut emitter = frames(&probe);
    let agent = agent(&collector, Panel::Guest, &probe);
    emit(&mut emitter, 300);
    agent.finish();
    await_event(&collector, |e| matches!(e, CollectorEvent::Gone { .. }));
    drop(collector);
    let path = dir.path().join("guest.frames.arrows");
    assert_eq!(read_table(dir.path(), "guest.frames").unwrap().rows, 300);
    // What a crash in the middle of a write leaves: the file torn at any byte.
    let whole = std::fs::read(&path).unwrap();
    for cut in (whole.len() / 2..whole.len()).step_by(97) {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let table = read_table(dir.path(), "guest.frames").unwrap();
        assert!(table.rows <= 300 && table.columns.iter().all(|c| c.len() == table.rows));
    }
}

#[test]
fn the_program_hears_of_a_wish_to_stop_and_of_a_collector_that_died() {
    let dir = tempfile::tempdir().unwrap();
    let first = collector(dir.path());
    let probe = Probe::new();
    let agent = agent(&first, Panel::Host, &probe);
    let flag = agent.stop_flag();
    let stopped = || flag.load(std::sync::atomic::Ordering::Acquire);
    await_event(&first, |e| matches!(e, CollectorEvent::Hello { panel: Panel::Host, .. }));
    assert!(!stopped());
    first.request_stop(Panel::Host);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !stopped() && Instant::now() < deadline {
        first.next_event(Duration::from_millis(20));
    }
    assert!(stopped(), "asked to stop");
    drop(agent);

    let other = tempfile::tempdir().unwrap();
    let second = collector(other.path());
    let probe = Probe::new();
    let orphan = self::agent(&second, Panel::Host, &probe);
    let flag = orphan.stop_flag();
    drop(second);
    while !flag.load(std::sync::atomic::Ordering::Acquire) && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert!(orphan.stop_requested(), "the collector is gone");
}

#[test]
fn a_second_agent_for_a_panel_and_a_missing_collector_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let collector = collector(dir.path());
    let probe = Probe::new();
    let first = agent(&collector, Panel::Guest, &probe);
    await_event(&collector, |e| matches!(e, CollectorEvent::Hello { .. }));
    let second = agent(&collector, Panel::Guest, &Probe::new());
    let deadline = Instant::now() + Duration::from_secs(10);
    while !second.stop_requested() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert!(second.stop_requested() && !first.stop_requested());
    let nowhere = Address::Unix(dir.path().join("nobody"));
    let error = agent::start(AgentOptions::new(nowhere, Panel::Guest, "test", "0"), &probe).err().unwrap();
    assert!(error.to_string().contains("no collector at unix:"), "{error}");
}

#[test]
fn a_collector_beyond_loopback_wants_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let wide = Address::Tcp("0.0.0.0:0".parse().unwrap());
    let error = Collector::start(CollectorOptions::new(wide, dir.path().to_owned())).err().unwrap();
    assert!(error.to_string().contains("needs a token"), "{error}");
    let local = Address::Tcp("127.0.0.1:0".parse().unwrap());
    let options = CollectorOptions {
        token: Some("secret".into()),
        ..CollectorOptions::new(local, dir.path().to_owned())
    };
    let collector = Collector::start(options).unwrap();
    let start = |token: Option<&str>| {
        let options = AgentOptions::new(collector.address().clone(), Panel::Guest, "test", "0");
        agent::start(AgentOptions { token: token.map(Into::into), ..options }, &Probe::new()).unwrap()
    };
    let refused = start(None);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !refused.stop_requested() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert!(refused.stop_requested());
    let _accepted = start(Some("secret"));
    await_event(&collector, |e| matches!(e, CollectorEvent::Hello { panel: Panel::Guest, .. }));
}

#[test]
fn an_agent_reports_over_vsock_where_the_kernel_has_its_loopback() {
    let dir = tempfile::tempdir().unwrap();
    // Context 1 is this machine; the port is any.
    let address = Address::Vsock(1, u32::MAX);
    let collector = match Collector::start(CollectorOptions::new(address, dir.path().to_owned())) {
        Ok(collector) => collector,
        Err(CollectorError::Listen { source, .. }) => {
            eprintln!("SKIPPED: vsock has no loopback here (kernel module vsock_loopback): {source}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let probe = Probe::new();
    let mut emitter = frames(&probe);
    let agent = agent(&collector, Panel::Guest, &probe);
    emit(&mut emitter, 500);
    agent.finish();
    await_event(&collector, |e| matches!(e, CollectorEvent::Gone { panel: Panel::Guest, clean: true, .. }));
    let facts = collector.close(facts()).unwrap();
    assert!(facts.panels["guest"].clock.is_some());
    assert_eq!(read_table(dir.path(), "guest.frames").unwrap().rows, 500);
}
