use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::*;
use crate::devices::testing::Collected;

/// Longest that a test waits for anything.
const DEADLINE: Duration = Duration::from_secs(20);

/// A scripted program, which accepts one connection after the other.
struct Program(TcpListener);

impl Program {
    fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn sampler(&self, options: &str) -> Spice {
        Spice::new(&format!("{}{options}", self.0.local_addr().unwrap())).unwrap()
    }

    /// Accepts, says which recorders there are and takes the answer.
    fn accept(&self, recorders: &str) -> (TcpStream, String) {
        let (mut stream, _) = self.0.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        writeln!(stream, "Recorders: {recorders}").unwrap();
        let mut answer = vec![0; recorders.matches(';').count()];
        stream.read_exact(&mut answer).unwrap();
        (stream, String::from_utf8(answer).unwrap())
    }
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
}

fn record(name: &str, time_us: i64, message: &str) -> String {
    format!("Name: {name}\nFunction: f\nTime: {time_us}\nfile.c:12:{message}\n\n")
}

fn packet(size: u32, mm_time: u32) -> String {
    record("stream_channel_data", now_us(), &format!("Stream data packet size {size} mm_time {mm_time}"))
}

/// Samples until `done`, or fails.
fn sample_until(sampler: &mut Spice, rows: &mut Collected, done: impl Fn(&Collected) -> bool) {
    let start = Instant::now();
    while !done(rows) {
        assert!(start.elapsed() < DEADLINE, "{:?}", rows.marks);
        sampler.sample(rows);
        std::thread::yield_now();
    }
}

fn marks(rows: &Collected, kind: &str) -> usize {
    rows.marks.iter().filter(|(k, _)| k == kind).count()
}

fn rows_of(rows: &Collected, table: &str) -> usize {
    rows.rows.iter().filter(|(t, ..)| t.name == table).count()
}

#[test]
fn records_become_rows_at_their_own_instants() {
    let program = Program::new();
    let mut sampler = program.sampler("");
    let (mut stream, answer) = program.accept("noise;frames_stats;stream_channel_data;stream_device_data;");
    assert_eq!(answer, "0111");
    let before = MonotonicClock.now();
    let text = [
        record("stream_device_data", now_us(), "Stream data packet size 500 mm_time 17"),
        packet(500, 17),
        record(
            "frames_stats",
            now_us() - 2_000_000,
            "frame mm_time 17 size 500 creation time 12 decoded time 34 queue 1 before 2 keyframe 1",
        ),
    ];
    let after = MonotonicClock.now();
    stream.write_all(text.concat().as_bytes()).unwrap();
    let mut rows = Collected::default();
    sample_until(&mut sampler, &mut rows, |rows| rows_of(rows, "spice-frames") == 1);
    assert_eq!(rows.u64("spice-stream-device", "size_bytes"), [500]);
    assert_eq!(rows.u64("spice-stream-channel", "mm_time_ms"), [17]);
    let (_, at, values) = rows.rows.iter().find(|(t, ..)| t.name == "spice-frames").unwrap();
    assert_eq!(
        values[..7],
        [
            Value::U64(17),
            Value::U64(500),
            Value::I64(12_000),
            Value::I64(34_000),
            Value::U64(1),
            Value::U64(2),
            Value::Bool(true)
        ]
    );
    // Two seconds before it was written; the two clocks are never read at quite the same instant.
    let written = (before.0 - 2_020_000_000)..(after.0 - 1_980_000_000);
    assert!(written.contains(&at.0), "{at:?} in {written:?}");
    assert!(matches!(values[7], Value::I64(delay) if delay >= 2_000_000_000));
    sample_until(&mut sampler, &mut rows, |rows| rows_of(rows, "spice-records") > 0);
    assert_eq!(rows.u64("spice-records", "received").last(), Some(&3));
    assert_eq!(rows.facts["spice.recorders"], "noise;frames_stats;stream_channel_data;stream_device_data");
    assert_eq!(sampler.info().unavailable, "");
}

#[test]
fn unknown_records_are_counted_and_marked_a_few_times() {
    let program = Program::new();
    let mut sampler = program.sampler(",name=left,all");
    let (mut stream, answer) = program.accept("noise;frames_stats;");
    assert_eq!(answer, "11");
    for _ in 0..10 {
        stream.write_all(record("noise", now_us(), "bang").as_bytes()).unwrap();
    }
    stream.write_all(record("frames_stats", 5, "Stream data packet size 1 mm_time 2").as_bytes()).unwrap();
    stream.write_all(b"nonsense\n\n").unwrap();
    let mut rows = Collected::default();
    sample_until(&mut sampler, &mut rows, |rows| {
        rows_of(rows, "spice-left-records") > 0
            && rows.u64("spice-left-records", "malformed").last() == Some(&1)
    });
    assert_eq!(rows.u64("spice-left-records", "unknown").last(), Some(&10));
    assert_eq!(rows.u64("spice-left-records", "mistimed").last(), Some(&1));
    assert_eq!(marks(&rows, "spice"), 3);
    assert!(rows.marks.contains(&("spice".into(), "spice-left: noise: bang".into())));
    assert_eq!(rows.facts["spice-left.unknown.noise"], "at least 8");
}

#[test]
fn a_program_that_starts_again_is_found_again() {
    let program = Program::new();
    let mut sampler = program.sampler("");
    let mut rows = Collected::default();
    drop(program.accept("stream_channel_data;"));
    sample_until(&mut sampler, &mut rows, |rows| marks(rows, "source_gone") == 1);
    assert!(sampler.info().unavailable.contains("instrumentation=agent"));
    let (mut stream, _) = program.accept("stream_channel_data;");
    stream.write_all(packet(7, 8).as_bytes()).unwrap();
    sample_until(&mut sampler, &mut rows, |rows| rows_of(rows, "spice-stream-channel") == 1);
    assert_eq!((marks(&rows, "source_gone"), marks(&rows, "source_back")), (1, 1));
}

#[test]
fn what_finds_no_room_is_counted_as_lost_and_the_program_never_waits() {
    let program = Program::new();
    let mut sampler = program.sampler("");
    let (mut stream, _) = program.accept("stream_channel_data;");
    let total = QUEUE + 1000;
    let text: String = (0..total).map(|_| packet(7, 8)).collect();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(text.as_bytes()).expect("it is read whether or not anybody samples");
    let start = Instant::now();
    while sampler.shared.counters.received.load(Ordering::Relaxed) < total as u64 {
        assert!(start.elapsed() < DEADLINE);
        std::thread::yield_now();
    }
    let mut rows = Collected::default();
    sampler.sample(&mut rows);
    assert_eq!(rows_of(&rows, "spice-stream-channel"), QUEUE);
    assert_eq!(rows.u64("spice-records", "lost"), [1000]);
}

#[test]
fn a_peer_that_speaks_something_else_is_left_alone() {
    let program = Program::new();
    let mut sampler = program.sampler("");
    let (mut stream, _) = program.0.accept().unwrap();
    stream.write_all(b"SSH-2.0-OpenSSH\r\n").unwrap();
    let mut rows = Collected::default();
    sample_until(&mut sampler, &mut rows, |rows| marks(rows, "source_gone") == 1);
    assert!(rows.marks[0].1.contains("does not speak the agent interface"));
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(BufReader::new(stream).lines().count(), 0, "it has hung up");
}

#[test]
fn the_thread_ends_with_the_sampler() {
    let program = Program::new();
    let sampler = program.sampler("");
    let (mut stream, _) = program.accept("stream_channel_data;");
    drop(sampler);
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0, "it has hung up");
}

#[test]
fn targets_are_programs_or_addresses() {
    for wrong in ["nonsense", "localhost:", ":1234", "localhost:0", "localhost:99999", "client,fast"] {
        assert!(Spice::new(wrong).is_err(), "{wrong}");
    }
    assert_eq!(Spice::new("server").unwrap().address, "127.0.0.1:1235");
}
