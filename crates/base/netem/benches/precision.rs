//! How precise the emulator is on this machine: delays of UDP packets, and rates of UDP and TCP.
//!
//! `cargo bench -p netem --bench precision` takes about two minutes and prints a table; it asserts nothing.
//!
//! Delay: a thread on side A sends UDP packets with the instant in them; a thread on side B takes the instant of receipt
//! on the same clock. Both ask for real-time priority, as the emulator does. The error is (receipt - sending - delay
//! asked for). It has in it what the kernel and the two threads take; the row with 0 ms shows how much that is, and
//! "less base" is the error less the median of that row.
//!
//! Rate: a sender offers more than the path lets through; the receiver counts whole IP packets (UDP) or the stream (TCP,
//! from which the packets' rate is reckoned with 52 bytes of headers for each 1448) from the first receipt after a
//! warm-up to the last. "own" is what the emulator says of itself.

#![allow(unsafe_code)] // sched_setscheduler(2)

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netem::conditions::Queue;
use netem::{Conditions, Emulator, Options, Side};
use units::{Clock, MonotonicClock, Nanos};

/// How long each row of the table of delays sends.
const DELAY_TIME: Duration = Duration::from_secs(4);
const RATE_TIME: Duration = Duration::from_secs(5);
const WARM_UP: Duration = Duration::from_millis(500);
/// IPv4 and UDP.
const UDP_HEADERS: usize = 28;
/// Of a packet of 1500 bytes with TCP's timestamps.
const TCP_SHARE: f64 = 1_448.0 / 1_500.0;

fn main() {
    println!("load at the start: {}", load());
    if let Err(error) = emulator(Conditions::default(), Duration::ZERO) {
        println!("nothing to measure: {error}");
        return;
    }
    delays();
    rates();
    println!("\nload at the end: {}", load());
}

fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}

fn emulator(forward: Conditions, spin: Duration) -> Result<Emulator, netem::NetemError> {
    Emulator::start(Options { forward: forward.into(), spin, ..Options::default() })
}

fn real_time() {
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let parameters = libc::sched_param { sched_priority: 10 };
    // SAFETY: reads `parameters` for the time of the call; 0 means the calling thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
}

/// Processor time of the emulator's threads so far.
fn cost() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanos = tasks.filter_map(|task| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let times = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        let nanos: u64 = times.split(' ').next()?.parse().ok()?;
        name.starts_with("netem-").then_some(nanos)
    });
    Duration::from_nanos(nanos.sum())
}

fn quantile(sorted: &[i64], q: f64) -> i64 {
    let rank = (sorted.len() as f64 * q).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

fn delays() {
    println!("\nDelay error, µs (receipt - sending - delay asked for), one way, UDP of 200 bytes");
    println!(
        "{:>8} {:>8} {:>8} {:>7} {:>8} {:>8} {:>8} {:>11} {:>11} {:>9} {:>7} {:>9}",
        "spin µs",
        "delay ms",
        "packet/s",
        "packets",
        "p50",
        "p99",
        "max",
        "p50 -base",
        "p99 -base",
        "own p99",
        "cpu %",
        "real-time"
    );
    for spin_us in [0, 50, 100] {
        for per_s in [200, 1_000] {
            let mut base = None;
            for delay_ms in [0.0, 10.0, 50.0] {
                let spin = Duration::from_micros(spin_us);
                let Ok(emulator) = emulator(Conditions { delay_ms, ..Conditions::default() }, spin) else {
                    return;
                };
                let (mut errors, share) = one_way(&emulator, per_s, Nanos((delay_ms * 1e6) as i64));
                errors.sort_unstable();
                let report = emulator.report();
                let us = |ns: i64| ns as f64 / 1e3;
                let (p50, p99) = (quantile(&errors, 0.5), quantile(&errors, 0.99));
                let base = *base.get_or_insert(p50);
                println!(
                    "{spin_us:>8} {delay_ms:>8} {per_s:>8} {:>7} {:>8.1} {:>8.1} {:>8.1} {:>11.1} {:>11.1} {:>9.1} {:>7.1} {:>9}",
                    errors.len(),
                    us(p50),
                    us(p99),
                    us(quantile(&errors, 1.0)),
                    us(p50 - base),
                    us(p99 - base),
                    us(report.forward.lateness.map_or(0, |l| l.p99_ns)),
                    share * 100.0,
                    report.real_time,
                );
            }
        }
    }
}

/// Errors in nanoseconds, and the share of a processor that the emulator took.
fn one_way(emulator: &Emulator, per_s: u32, asked: Nanos) -> (Vec<i64>, f64) {
    let (a, b) = sockets(emulator);
    let (before, at) = (cost(), Instant::now());
    let mut errors = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            real_time();
            let started = Instant::now();
            let period = Duration::from_secs(1) / per_s;
            let mut next = started;
            while started.elapsed() < DELAY_TIME {
                let mut packet = [0; 200 - UDP_HEADERS];
                packet[..8].copy_from_slice(&MonotonicClock.now().0.to_ne_bytes());
                let _ = a.send(&packet);
                next += period;
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        let errors = &mut errors;
        scope.spawn(move || {
            real_time();
            let mut packet = [0; 2_000];
            while b.recv(&mut packet).is_ok() {
                let now = MonotonicClock.now();
                let sent = i64::from_ne_bytes(packet[..8].try_into().unwrap_or_default());
                errors.push(now.0 - sent - asked.0);
            }
        });
    });
    let share = (cost() - before).as_secs_f64() / at.elapsed().as_secs_f64();
    (errors, share)
}

fn sockets(emulator: &Emulator) -> (UdpSocket, UdpSocket) {
    let a = emulator.udp(Side::A, 0).expect("a socket on side A");
    let b = emulator.udp(Side::B, 0).expect("a socket on side B");
    a.connect(b.local_addr().expect("an address")).expect("connected");
    b.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    (a, b)
}

fn rates() {
    println!("\nRate of whole IP packets, 10 ms of delay, {} s each", RATE_TIME.as_secs());
    println!(
        "{:>6} {:>14} {:>14} {:>9} {:>9} {:>7} {:>8} {:>8}",
        "", "asked bit/s", "had bit/s", "error %", "own %", "cpu %", "dropped", "device"
    );
    for bits_per_s in [1_000_000u64, 10_000_000, 100_000_000] {
        for (name, measure) in [("udp", udp_rate as fn(&Emulator, u64) -> f64), ("tcp", tcp_rate)] {
            // 50 ms of queue, at least 20 packets.
            let queue = Queue::Bytes(((bits_per_s / 8 / 20) as u32).max(30_000));
            let conditions = Conditions { queue, ..Conditions::path(bits_per_s, 10.0) };
            let Ok(emulator) = emulator(conditions, Duration::ZERO) else { return };
            let (before, at) = (cost(), Instant::now());
            let had = measure(&emulator, bits_per_s);
            let share = (cost() - before).as_secs_f64() / at.elapsed().as_secs_f64();
            let forward = emulator.report().forward;
            println!(
                "{name:>6} {bits_per_s:>14} {had:>14.0} {:>9.3} {:>9.4} {:>7.1} {:>8} {:>8}",
                (had / bits_per_s as f64 - 1.0) * 100.0,
                forward.rate.map_or(f64::NAN, |r| r.error * 100.0),
                share * 100.0,
                forward.counters.dropped_queue,
                forward.device_dropped.map_or("?".into(), |d| d.to_string()),
            );
        }
    }
}

fn udp_rate(emulator: &Emulator, bits_per_s: u64) -> f64 {
    const PAYLOAD: usize = 1_500 - UDP_HEADERS;
    let (a, b) = sockets(emulator);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A fifth more than the path takes.
            let period = Duration::from_secs_f64(12_000.0 / (bits_per_s as f64 * 1.2));
            let mut next = Instant::now();
            while !over.load(Ordering::Relaxed) {
                let _ = a.send(&[0; PAYLOAD]);
                next += period;
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        let mut packet = [0; 2_000];
        let until = Instant::now() + WARM_UP;
        while Instant::now() < until {
            let _ = b.recv(&mut packet);
        }
        let started = Instant::now();
        let (mut bytes, mut last) = (0, started);
        while last - started < RATE_TIME {
            let Ok(length) = b.recv(&mut packet) else { break };
            bytes += length + UDP_HEADERS;
            last = Instant::now();
        }
        over.store(true, Ordering::Relaxed);
        bytes as f64 * 8.0 / (last - started).as_secs_f64()
    })
}

fn tcp_rate(emulator: &Emulator, _: u64) -> f64 {
    let listener = emulator.tcp_listen(Side::B, 0).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let mut sender = emulator.tcp_connect(Side::A, port).expect("a connection");
    let (mut receiver, _) = listener.accept().expect("a connection");
    std::thread::scope(|scope| {
        scope.spawn(move || while sender.write_all(&[0; 16_384]).is_ok() {});
        let mut buffer = vec![0; 1 << 18];
        let mut read = || receiver.read(&mut buffer).unwrap_or(0);
        // Longer: TCP first overfills the queue and then takes back.
        let until = Instant::now() + WARM_UP * 4;
        while Instant::now() < until {
            read();
        }
        let started = Instant::now();
        let (mut bytes, mut last) = (0, started);
        while last - started < RATE_TIME {
            bytes += read();
            last = Instant::now();
        }
        drop(receiver);
        bytes as f64 * 8.0 / TCP_SHARE / (last - started).as_secs_f64()
    })
}
