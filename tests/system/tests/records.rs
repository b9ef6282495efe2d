//! A record without a study file: what a person asks for while it goes on, and what is left of it after a kill or on a
//! full disk.
#![allow(clippy::unwrap_used)] // also in the tests' helpers

mod campaign;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use agent::AgentOptions;
use campaign::{Bench, Ended, Started, until};
use probe::{ColumnType, Probe, Table, Value};
use recording::facts::{RunFacts, RunStatus, read_run};
use recording::reader::{ReadError, read_table, tables};
use recording::spec::{Level, Panel};
use rustix::process::{Signal, kill_process};
use system_tests::{Host, Running, Xvfb, program};
use units::{Clock, MonotonicClock};
use x11rb::connection::Connection;
use x11rb::protocol::randr::ConnectionExt as _;

/// `triptych record` in a folder of its own.
struct Record {
    bench: Bench,
    started: Started,
}

impl Record {
    fn start() -> Self {
        let bench = Bench::new("");
        let address = format!("unix:{}", bench.dir.path().join("collector").display());
        let started =
            bench.start(&["record", "--into", "demo", "--no-agent", "--json", "--listen", &address]);
        until("the collector", || bench.dir.path().join("collector").exists().then_some(()));
        Self { bench, started }
    }

    fn address(&self) -> String {
        format!("unix:{}", self.bench.dir.path().join("collector").display())
    }

    fn run(&self) -> PathBuf {
        self.bench.dir.path().join("demo/runs/r0001-p00-k0")
    }

    /// One of the streaming programs, reporting as a panel.
    fn program(&self, panel: &str, arguments: &[&str]) -> Running {
        let mut command = Command::new(program(&format!("triptych-{panel}")));
        self.bench.dress(&mut command);
        command.args(["--panel", panel, "--collector", &self.address()]).args(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Running::spawn(command).unwrap()
    }

    /// Waits for so many frames of the guest at a frame rate asked for.
    fn frames_at(&self, fps: f64, rows: usize) {
        until(&format!("{rows} frames at {fps} Hz"), || {
            let table = read_table(&self.run(), "guest.frames").ok()?;
            let asked = table.f64("requested_fps").unwrap();
            (asked.iter().filter(|f| **f == fps).count() >= rows).then_some(())
        });
    }

    fn triptych(&self, arguments: &[&str]) -> Ended {
        let mut command = self.bench.command();
        command.args(arguments).args(["--study", "demo"]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// `triptych set`; gives what it printed, or its refusal.
    fn set(&self, arguments: &[&str]) -> Result<String, String> {
        let ended = self.triptych(&[&["set", "guest"], arguments].concat());
        if ended.status.success() { Ok(ended.stdout.trim().to_owned()) } else { Err(ended.stderr) }
    }
}

fn texts<'a>(facts: &'a RunFacts, kind: &str) -> Vec<&'a str> {
    facts.markers.iter().filter(|m| m.kind == kind).map(|m| m.text.as_str()).collect()
}

#[test]
fn settings_are_changed_while_a_guest_streams_and_the_record_says_when() {
    let record = Record::start();
    let host = Host::start(&["--panel", "host", "--collector", &record.address()]).unwrap();
    let stream = format!("unix:{}", host.stream_socket().display());
    let port = format!("127.0.0.1:{}", host.spice_port());
    let _guest = record.program("guest", &["--port", &stream, "--codec", "h264", "--fps", "30"]);
    let _client = record.program("client", &["--connect", &port, "--headless"]);
    record.frames_at(30.0, 10);

    assert_eq!(record.triptych(&["note", "the fan is loud"]).status.code(), Some(0));
    // What is in force is said with the first frames.
    assert_eq!(record.set(&["bitrate"]).unwrap(), "bitrate = 4");
    assert_eq!(record.set(&["bitrate", "2"]).unwrap(), "bitrate = 2");
    assert_eq!(record.set(&["bitrate"]).unwrap(), "bitrate = 2");
    assert_eq!(record.set(&["fps", "10"]).unwrap(), "fps = 10");
    record.frames_at(10.0, 5);
    let refused = record.set(&["nonsense", "1"]).unwrap_err();
    assert!(refused.contains("nonsense: it cannot") && refused.contains("fps (0.001"), "{refused}");
    let refused = record.set(&["bitrate", "5000"]).unwrap_err();
    assert!(refused.contains("5000 is out of range: use 0.001 to 2000 Mbit/s"), "{refused}");
    assert!(record.set(&["nonsense"]).unwrap_err().contains("it has bitrate, codec"));
    // The next encoder has what was asked for, and not what it began with.
    kill_process(record.bench.processes("encoder-worker")[0], Signal::KILL).unwrap();
    until("another encoder", || {
        let journal = fs::read_to_string(record.run().join("journal.jsonl")).ok()?;
        journal.contains("encoder_restarted").then_some(())
    });
    let rows = || read_table(&record.run(), "guest.frames").map_or(0, |table| table.rows);
    let before = rows();
    until("frames of the other encoder", || (rows() > before + 5).then_some(()));
    assert_eq!(record.set(&["bitrate"]).unwrap(), "bitrate = 2");

    record.started.signal(Signal::INT);
    let run = record.run();
    let ended = record.started.end();
    ended.assert_code(0);
    record.bench.nothing_is_left();
    let facts = read_run(&run.join("run.toml")).unwrap();
    assert_eq!(texts(&facts, "note"), ["the fan is loud"]);
    assert_eq!(texts(&facts, "setting_asked"), ["bitrate = 2", "fps = 10", "nonsense = 1", "bitrate = 5000"]);
    assert_eq!(texts(&facts, "setting"), ["bitrate = 2", "fps = 10"]);
    assert_eq!(texts(&facts, "setting_refused").len(), 2);
    assert!(texts(&facts, "fault")[0].contains("signal 9"));
    assert!(texts(&facts, "encoder_restarted")[0].starts_with("x264enc, after "));
    let guest = &facts.panels["guest"];
    assert_eq!(
        (&guest.in_force["bitrate"], &guest.in_force["fps"]),
        (&Level::Float(2.0), &Level::Float(10.0))
    );
    assert_eq!(guest.in_force["encoder.bitrate"], Level::Int(2000));
    assert!(guest.facts["live settings"].contains("bitrate (0.001 to 2000 Mbit/s)"));
    // One machine, one clock.
    let changed = facts.markers.iter().find(|m| m.kind == "setting" && m.text == "fps = 10").unwrap().t_ns;
    let frames = read_table(&run, "guest.frames").unwrap();
    for (t, fps) in frames.i64("t_ns").unwrap().iter().zip(frames.f64("requested_fps").unwrap()) {
        let apart = (t - changed).abs() < 200_000_000;
        assert!(apart || *fps == if *t < changed { 30.0 } else { 10.0 }, "{fps} Hz at {}", t - changed);
    }
}

/// One kill, `after` so long a time; gives the age of the oldest row that is lost.
fn killed(after: Duration) -> Duration {
    let record = Record::start();
    let probe = Probe::new();
    let options = AgentOptions::new(record.address().parse().unwrap(), Panel::Guest, "counter", "1");
    let agent = agent::start(options, &probe).unwrap();
    let table = Table::new("count", "a test").column("seq", ColumnType::U64, "1", "number");
    let mut emitter = probe.declare(table, 1 << 16).unwrap();
    let (begun, mut times) = (Instant::now(), Vec::new());
    while begun.elapsed() < after {
        let now = MonotonicClock.now();
        emitter.emit(now, &[Value::U64(times.len() as u64)]);
        times.push(now.0);
        std::thread::park_timeout(Duration::from_millis(2));
    }
    let killed = MonotonicClock.now().0;
    record.started.signal(Signal::KILL);
    let run = record.run();
    let ended = record.started.end();
    assert!(!ended.status.success());
    until("the agent to notice", || agent.stop_requested().then_some(()));
    agent.finish();
    record.bench.nothing_is_left();
    let kept = match read_table(&run, "guest.count") {
        Ok(table) => table.i64("t_ns").unwrap().to_vec(),
        Err(ReadError::NoTable { .. }) => Vec::new(),
        Err(error) => panic!("{error}"),
    };
    assert!(times.starts_with(&kept), "each row once and in order");
    assert_eq!(read_run(&run.join("run.toml")).unwrap().status, RunStatus::Running);
    for arguments in [&["show", "demo/runs/r0001-p00-k0"][..], &["show", "demo"]] {
        let shown = record.bench.command().args(arguments).output().unwrap();
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    }
    let oldest = times.get(kept.len()).map_or(0, |t| killed - t);
    Duration::from_nanos(u64::try_from(oldest).unwrap_or(0))
}

#[test]
fn a_record_killed_at_any_instant_opens_and_lacks_less_than_a_second() {
    let seed = MonotonicClock.now().0 as u64;
    eprintln!("seed {seed}");
    let random = Mutex::new(seed);
    let kills = || -> Duration {
        let one = |_| {
            let after = {
                let mut random = random.lock().unwrap();
                *random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                Duration::from_millis((*random >> 33) % 2500)
            };
            let lost = killed(after);
            eprintln!("killed after {after:?}: the last {lost:?} are lost");
            assert!(lost < Duration::from_secs(1), "killed after {after:?}: {lost:?} are lost");
            lost
        };
        (0..4).map(one).max().unwrap_or_default()
    };
    std::thread::scope(|scope| {
        let threads = [(); 3].map(|()| scope.spawn(kills));
        let most = threads.into_iter().map(|t| t.join().unwrap()).max();
        eprintln!("at most {most:?}");
    });
}

#[test]
fn a_record_on_a_full_disk_ends_with_the_reason_once_and_is_readable() {
    let bench = Bench::new("");
    let script = "mount -t tmpfs -o size=600k tmpfs \"$1\" || exit 77\nhead -c 440k /dev/zero > \"$1/filler\"\n\
                  \"$2\" record --into \"$1/demo\" --for 30 --rate 100 --json\ncode=$?\nrm \"$1/filler\"\n\
                  cp -r \"$1/demo\" \"$3\"\nexit $code";
    let disk = bench.dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command.arg(&disk).arg(program("triptych")).arg(bench.results());
    bench.dress(&mut command);
    let begun = Instant::now();
    let ended = bench.start_command(command).end();
    if ended.status.code() == Some(77) || ended.stderr.contains("unshare") {
        eprintln!("skipped: no mount namespace here: {}", ended.stderr.trim());
        return;
    }
    ended.assert_code(1);
    assert!(begun.elapsed() < Duration::from_secs(25), "it ends when nothing can be written any more");
    bench.nothing_is_left();
    let reason = ended.json()["reason"].as_str().unwrap().to_owned();
    eprintln!("{reason}");
    assert_eq!(reason.matches("No space left on device").count(), 1, "{reason}");
    assert!(reason.matches("not converted").count() <= 1 && !reason.contains("empty stream"), "{reason}");
    assert!(reason.contains("what was recorded before is kept"), "{reason}");
    let run = bench.results().join("runs/r0001-p00-k0");
    let facts = read_run(&run.join("run.toml")).unwrap();
    assert_eq!((facts.status, &facts.reason), (RunStatus::Failed, &reason));
    assert_every_table_is_readable(&run);
}

fn assert_every_table_is_readable(run: &Path) {
    let names = tables(run).unwrap();
    assert!(!names.is_empty());
    let rows: usize = names.iter().map(|name| read_table(run, name).unwrap().rows).sum();
    assert!(rows > 0, "{names:?}");
}

/// Makes a display's root window smaller, as a virtual graphics card does.
fn shrink(display: &str, width: u16, height: u16) {
    let (connection, screen) = x11rb::connect(Some(display)).unwrap();
    let root = connection.setup().roots[screen].root;
    for crtc in connection.randr_get_screen_resources(root).unwrap().reply().unwrap().crtcs {
        let off = connection.randr_set_crtc_config(crtc, 0, 0, 0, 0, 0, 1u16.into(), &[]);
        off.unwrap().reply().unwrap();
    }
    connection.randr_set_screen_size(root, width, height, 160, 120).unwrap().check().unwrap();
}

#[test]
fn a_display_that_is_resized_is_shown_on_by_a_client_through_the_real_host() {
    if system_tests::peer("Xvfb", "xvfb").is_none() {
        return;
    }
    let display = Xvfb::start().unwrap();
    let record = Record::start();
    let host = Host::start(&["--panel", "host", "--collector", &record.address()]).unwrap();
    let stream = format!("unix:{}", host.stream_socket().display());
    let port = format!("127.0.0.1:{}", host.spice_port());
    let source = format!("x11:{}", display.name());
    let _guest = record.program("guest", &["--port", &stream, "--source", &source, "--codec", "vp8"]);
    let _client = record.program("client", &["--connect", &port, "--headless"]);
    let shown = |more: usize| {
        let rows = || read_table(&record.run(), "client.frames").map_or(0, |table| table.rows);
        let wanted = rows() + more;
        until(&format!("{wanted} frames at the client"), || (rows() >= wanted).then_some(()));
    };
    shown(10);
    shrink(display.name(), 640, 480);
    // Those of before are on the disk after a second.
    shown(60);
    record.started.signal(Signal::INT);
    let run = record.run();
    record.started.end().assert_code(0);
    record.bench.nothing_is_left();
    let facts = read_run(&run.join("run.toml")).unwrap();
    assert_eq!(texts(&facts, "resolution_changed"), ["1024x768 -> 640x480"]);
    assert_eq!(texts(&facts, "encoder_restarted").len(), 1);
    assert!(texts(&facts, "stream").iter().any(|text| text.contains("640x480")), "{:?}", facts.markers);
    let client = read_table(&run, "client.frames").unwrap();
    assert!(client.bool("dropped").unwrap().iter().filter(|dropped| **dropped).count() < 10);
}
