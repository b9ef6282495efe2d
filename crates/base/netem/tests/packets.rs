//! Real packets between real namespaces. Where the machine refuses them, each test says so and ends.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::io::{Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use netem::conditions::{Loss, Queue};
use netem::{Change, Conditions, Direction, Emulator, Level, NetemError, Options, Schedule, Side};

const DEADLINE: Duration = Duration::from_secs(10);

fn start(forward: impl Into<Schedule>, backward: impl Into<Schedule>) -> Option<Emulator> {
    let options =
        Options { forward: forward.into(), backward: backward.into(), seed: 5, ..Options::default() };
    match Emulator::start(options) {
        Ok(emulator) => Some(emulator),
        Err(error) if error.is_refused() => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error:?}"),
    }
}

fn delay(delay_ms: f64) -> Conditions {
    Conditions { delay_ms, ..Conditions::default() }
}

/// A socket on each side, that of B echoing whatever comes until the test ends.
fn with_echo(emulator: &Emulator, test: impl FnOnce(&UdpSocket)) {
    let a = emulator.udp(Side::A, 0).unwrap();
    let b = emulator.udp(Side::B, 0).unwrap();
    a.connect(b.local_addr().unwrap()).unwrap();
    a.set_read_timeout(Some(DEADLINE)).unwrap();
    b.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 2_000];
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                if let Ok((length, from)) = b.recv_from(&mut buffer) {
                    let _ = b.send_to(&buffer[..length], from);
                }
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&a)));
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        outcome.unwrap();
    });
}

fn round_trip(socket: &UdpSocket) -> Duration {
    let at = Instant::now();
    socket.send(b"ping").unwrap();
    socket.recv(&mut [0; 100]).unwrap();
    at.elapsed()
}

/// The shortest of several: what the machine was busy with meanwhile is not the emulator's.
fn shortest_round_trip(socket: &UdpSocket) -> Duration {
    (0..10).map(|_| round_trip(socket)).min().unwrap()
}

#[test]
fn a_round_trip_takes_both_delays() {
    let Some(emulator) = start(delay(20.0), delay(30.0)) else { return };
    with_echo(&emulator, |socket| {
        let found = shortest_round_trip(socket);
        assert!((50.0..52.0).contains(&(found.as_secs_f64() * 1e3)), "{found:?}");
    });
    let report = emulator.report();
    assert_eq!(report.level, Level::Packets);
    assert_eq!(report.forward.counters.packets_out, 10);
    assert_eq!(report.forward.device_dropped, Some(0));
    let lateness = report.backward.lateness.unwrap();
    assert_eq!(lateness.packets, 10);
    assert!(lateness.p50_ns < 5_000_000, "{lateness:?}");
}

#[test]
fn tcp_gets_the_rate_less_its_headers() {
    let path = Conditions { queue: Queue::Bytes(60_000), ..Conditions::path(5_000_000, 10.0) };
    let Some(emulator) = start(path.clone(), path) else { return };
    let listener = emulator.tcp_listen(Side::B, 0).unwrap();
    let mut sender = emulator.tcp_connect(Side::A, listener.local_addr().unwrap().port()).unwrap();
    let (mut receiver, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), emulator.address(Side::A));
    receiver.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut bytes = 0;
    let mut at = None;
    std::thread::scope(|scope| {
        scope.spawn(move || while sender.write_all(&[0; 8_192]).is_ok() {});
        let mut buffer = vec![0; 65_536];
        // The first 250 kB are left out: the window must open first.
        while bytes < 1_250_000 {
            bytes += receiver.read(&mut buffer).unwrap();
            if bytes > 250_000 && at.is_none() {
                at = Some((Instant::now(), bytes));
            }
        }
        receiver.shutdown(std::net::Shutdown::Both).unwrap();
        drop(receiver);
    });
    let (at, before) = at.unwrap();
    let rate = (bytes - before) as f64 * 8.0 / at.elapsed().as_secs_f64();
    // 1448 of 1500 bytes are the stream's; losses in the queue may cost a little.
    assert!((4.5e6..4.9e6).contains(&rate), "{rate} bit/s");
    let report = emulator.report().forward.rate.unwrap();
    assert!((report.asked_bits_per_s / 5e6 - 1.0).abs() < 1e-3, "{report:?}");
    assert!(report.error.abs() < 0.03, "{report:?}");
}

#[test]
fn a_tenth_is_lost_when_a_tenth_shall_be() {
    let lossy = Conditions { loss: Loss::Independent(0.1), ..delay(1.0) };
    let Some(emulator) = start(lossy, Conditions::default()) else { return };
    let a = emulator.udp(Side::A, 0).unwrap();
    let b = emulator.udp(Side::B, 0).unwrap();
    a.connect(b.local_addr().unwrap()).unwrap();
    b.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut received = 0;
    for round in 1..=50 {
        // In rounds, so that no buffer of the kernel overflows.
        for _ in 0..100 {
            a.send(&[0; 100]).unwrap();
        }
        let until = Instant::now() + DEADLINE;
        loop {
            let c = emulator.report().forward.counters;
            while received < c.packets_out {
                b.recv(&mut [0; 200]).unwrap();
                received += 1;
            }
            if c.packets_out + c.lost == round * 100 {
                break;
            }
            assert!(Instant::now() < until, "{c:?}");
        }
    }
    let c = emulator.report().forward.counters;
    assert_eq!((c.packets_in, received), (5_000, 5_000 - c.lost));
    assert!((440..560).contains(&c.lost), "{c:?}");
}

#[test]
fn a_schedule_changes_the_path_and_so_does_a_wish() {
    let forward = Schedule {
        start: delay(5.0),
        changes: vec![Change { at_s: 0.6, delay_ms: Some(150.0), ..Change::default() }],
    };
    let Some(emulator) = start(forward, delay(0.0)) else { return };
    with_echo(&emulator, |socket| {
        let in_ms = |d: Duration| d.as_secs_f64() * 1e3;
        emulator.restart_schedules();
        let at = Instant::now();
        assert!((5.0..10.0).contains(&in_ms(shortest_round_trip(socket))));
        while in_ms(round_trip(socket)) < 150.0 {
            assert!(at.elapsed() < DEADLINE, "the change never came");
        }
        let changed = at.elapsed();
        assert!((0.6..1.0).contains(&changed.as_secs_f64()), "changed after {changed:?}");
        emulator.set(Direction::Forward, delay(10.0)).unwrap();
        assert!((10.0..15.0).contains(&in_ms(shortest_round_trip(socket))));
        let refused = emulator.set(Direction::Forward, delay(-1.0)).unwrap_err();
        assert!(matches!(refused, NetemError::Conditions(Direction::Forward, _)), "{refused}");
    });
}

#[test]
fn a_command_inside_sees_the_other_side_and_nothing_else() {
    let Some(emulator) = start(Conditions::default(), Conditions::default()) else { return };
    let mut command = Command::new("cat");
    let files = ["/proc/self/net/dev", "/proc/self/net/route"];
    command.args(files).stdout(Stdio::piped());
    let output = emulator.spawn(Side::B, command).unwrap().wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let devices: Vec<_> = text.lines().filter_map(|l| Some(l.split_once(':')?.0.trim())).collect();
    assert_eq!(devices.len(), 2, "{text}");
    assert!(devices.contains(&"lo") && devices.contains(&"netem0"), "{text}");
    // One route, to one address: 100.64.0.1 as the kernel prints it on a little-endian machine.
    let routes: Vec<_> = text.lines().filter(|l| l.starts_with("netem0\t")).collect();
    assert_eq!(routes.len(), 1, "{text}");
    assert!(routes[0].contains(&format!("{:08X}", u32::from_ne_bytes([100, 64, 0, 1]))), "{text}");
    let a = emulator.udp(Side::A, 0).unwrap();
    let unreachable = a.send_to(b"x", (Ipv4Addr::new(9, 9, 9, 9), 53)).unwrap_err();
    assert_eq!(unreachable.kind(), std::io::ErrorKind::NetworkUnreachable, "{unreachable}");
}

#[test]
fn two_emulators_do_not_meet() {
    let Some(one) = start(Conditions::default(), Conditions::default()) else { return };
    let two = start(Conditions::default(), Conditions::default()).unwrap();
    let listener = one.tcp_listen(Side::B, 4_000).unwrap();
    one.tcp_connect(Side::A, 4_000).unwrap();
    drop(listener.accept().unwrap());
    let refused = two.tcp_connect(Side::A, 4_000).unwrap_err();
    assert!(matches!(refused, NetemError::Socket(Side::A, _)), "{refused}");
}

#[test]
fn a_condition_out_of_range_starts_nothing() {
    let options = Options { backward: delay(1e9).into(), ..Options::default() };
    let error = Emulator::start(options).err().unwrap();
    assert!(matches!(error, NetemError::Conditions(Direction::Backward, _)), "{error}");
}
