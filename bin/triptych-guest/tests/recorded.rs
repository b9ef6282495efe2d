//! What the guest reports to a collector agrees with what the host received.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use recording::Address;
use recording::collector::{Collector, CollectorEvent, CollectorOptions};
use recording::reader::{Columns, read_table};
use recording::spec::{Level, Panel};
use spice::stream_device::{Message, Parser, VideoCodec};

const DEADLINE: Duration = Duration::from_secs(20);

struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn guest(folder: &Path, arguments: &[&str]) -> Kept {
    let child = Command::new(env!("CARGO_BIN_EXE_triptych-guest"))
        .args(["--port", &format!("unix:{}", folder.join("stream").display())])
        .args(["--collector", &format!("unix:{}", folder.join("collector").display())])
        .args(arguments)
        .stderr(Stdio::null())
        .spawn();
    Kept(child.unwrap())
}

fn collector(folder: &Path) -> Collector {
    let run = folder.join("run");
    std::fs::create_dir(&run).unwrap();
    let options = CollectorOptions::new(Address::Unix(folder.join("collector")), run);
    Collector::start(CollectorOptions { batch: Duration::from_millis(20), ..options }).unwrap()
}

/// The first event that satisfies, before the deadline.
fn wait_for<T>(collector: &Collector, mut wanted: impl FnMut(CollectorEvent) -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < DEADLINE, "the event did not come");
        if let Some(found) = collector.next_event(DEADLINE).and_then(&mut wanted) {
            return found;
        }
    }
}

#[test]
fn each_frame_sent_is_a_row_with_its_size_and_its_instants_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("stream")).unwrap();
    let collector = collector(folder.path());
    let arguments =
        ["--size", "320x180", "--codec", "vp8", "--fps", "50", "--gop", "10", "--set", "threads=2"];
    let mut guest = guest(folder.path(), &arguments);
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.write_all(&Message::StartStop(vec![VideoCodec::Vp8]).encode()).unwrap();
    let (mut parser, mut received, mut buffer) = (Parser::new(), Vec::new(), [0; 65_536]);
    let mut asked = false;
    loop {
        let n = socket.read(&mut buffer).unwrap();
        if n == 0 {
            break;
        }
        for message in parser.push(&buffer[..n]).unwrap() {
            if let Message::Data(data) = message {
                received.push((data.len() as u64, data[0] & 1 == 0));
            }
        }
        if received.len() >= 60 && !asked {
            asked = true;
            collector.request_stop(Panel::Guest);
        }
    }
    assert_eq!(guest.0.wait().unwrap().code(), Some(0));
    let ready = wait_for(&collector, |event| match event {
        CollectorEvent::Ready { ready, .. } => Some(ready),
        _ => None,
    });
    assert_eq!(ready.in_force["codec"], Level::Text("vp8".into()));
    assert_eq!(ready.in_force["encoder.threads"], Level::Int(2));
    assert_eq!(ready.in_force["encoder.keyframe-max-dist"], Level::Int(10));
    assert!(ready.versions.contains_key("vp8enc") && ready.versions.contains_key("gstreamer"));
    assert!(wait_for(&collector, |event| match event {
        CollectorEvent::Gone { clean, .. } => Some(clean),
        _ => None,
    }));
    let start = Instant::now();
    let mut frames = read_table(&folder.path().join("run"), "guest.frames");
    while frames.as_ref().map_or(0, |f| f.rows) < received.len() && start.elapsed() < DEADLINE {
        frames = read_table(&folder.path().join("run"), "guest.frames");
    }
    check(&frames.unwrap(), &received);
}

fn check(frames: &Columns, received: &[(u64, bool)]) {
    assert_eq!(frames.rows, received.len());
    let (sizes, keys): (Vec<u64>, Vec<bool>) = received.iter().copied().unzip();
    assert_eq!(frames.u64("size_bytes").unwrap(), sizes);
    assert_eq!(frames.bool("keyframe").unwrap(), keys);
    assert_eq!(frames.u64("seq").unwrap(), (0..received.len() as u64).collect::<Vec<_>>());
    let column = |name| frames.i64(name).unwrap();
    for row in 0..frames.rows {
        let at = |name| column(name)[row];
        let order = [at("t_ns"), at("captured_ns"), at("send_start_ns"), at("sent_ns")];
        assert!(order.is_sorted(), "row {row}: {order:?}");
        assert_eq!(at("captured_ns") - at("t_ns"), at("capture_ns"));
        assert_eq!(at("sent_ns") - at("send_start_ns"), at("send_ns"));
        assert!(at("encode_ns") > 0 && at("captured_ns") + at("encode_ns") <= at("send_start_ns"));
    }
    assert!(frames.f64("requested_fps").unwrap().iter().all(|fps| *fps == 50.0));
}

#[test]
fn a_fault_reaches_the_collector_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let collector = collector(folder.path());
    let mut guest = guest(folder.path(), &["--connect-timeout", "0"]);
    let reason = wait_for(&collector, |event| match event {
        CollectorEvent::Fault { reason, .. } => Some(reason),
        _ => None,
    });
    assert!(reason.contains("is triptych-host running"), "{reason}");
    assert_eq!(guest.0.wait().unwrap().code(), Some(1));
}

#[test]
fn the_guest_ends_in_order_when_its_collector_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("stream")).unwrap();
    let collector = collector(folder.path());
    let mut guest = guest(folder.path(), &[]);
    let (_socket, _) = listener.accept().unwrap();
    drop(collector);
    assert_eq!(guest.0.wait().unwrap().code(), Some(0));
}
