//! How precise the emulator is on this machine: delays of UDP packets, and rates of UDP and TCP.
//!
//! `cargo bench -p netem --bench precision` takes two and a half minutes and prints a table; it asserts nothing.
//!
//! Delay: a thread on side A sends UDP packets with the instant in them; a thread on side B takes the instant of receipt
//! on the same clock. Both ask for real-time priority, as the emulator does. The error is (receipt - sending - delay
//! asked for). It has in it what the kernel and the two threads take; the row with 0 ms shows how much that is, and
//! "less base" is the error less the median of that row.
//!
//! What the machine itself allows stands beside it: the rows "timer" are the lateness of a real-time thread that sleeps
//! for a millisecond and does nothing else, and "steal %" is the share of processor time that a hypervisor took away and
//! "busy %" that which anybody used, from `/proc/stat`. No program in user space is better than these rows. "calm p99" is
//! the p99 of packets received within tenths of a second in which nothing was stolen, and "calm %" their share; what is
//! stolen shows in `/proc/stat` in steps of 10 ms, so that some of it is missed.
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
const TIMER_ROUNDS: u32 = 2_000;
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
    // `-- rates` leaves the delays out.
    if !std::env::args().any(|argument| argument == "rates") {
        delays();
    }
    rates();
    most();
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

/// Busy and stolen processor time of the whole machine and all of it, in ticks (proc_stat(5)).
fn ticks() -> [u64; 3] {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let all: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|t| t.parse().ok()).collect();
    let [user, nice, system, idle, wait, irq, softirq, steal] = all[..] else { return [0; 3] };
    let busy = user + nice + system + irq + softirq;
    [busy, steal, busy + steal + idle + wait]
}

/// Runs `measure` and gives the shares in % of busy and of stolen time meanwhile.
fn watched<T>(measure: impl FnOnce() -> T) -> (T, [f64; 2]) {
    let before = ticks();
    let value = measure();
    let after = ticks();
    let share = |i: usize| (after[i] - before[i]) as f64 * 100.0 / (after[2] - before[2]).max(1) as f64;
    (value, [share(0), share(1)])
}

/// Lateness of a thread that only sleeps, in nanoseconds.
fn timer() -> Vec<i64> {
    let thread = std::thread::spawn(|| {
        real_time();
        let period = Nanos::from_millis(1);
        let mut next = MonotonicClock.now() + period;
        let mut late = Vec::new();
        for _ in 0..TIMER_ROUNDS {
            std::thread::sleep((next - MonotonicClock.now()).to_duration());
            let now = MonotonicClock.now();
            late.push((now - next).0);
            next = now + period;
        }
        late
    });
    thread.join().unwrap_or_default()
}

fn delays() {
    println!("\nDelay error, µs (receipt - sending - delay asked for), one way, UDP of 200 bytes");
    println!(
        "{:>7} {:>8} {:>8} {:>7} {:>7} {:>8} {:>8} {:>9} {:>9} {:>8} {:>8} {:>6} {:>8} {:>5} {:>6} {:>7} {:>3}",
        "spin µs",
        "delay ms",
        "packet/s",
        "packets",
        "p50",
        "p99",
        "max",
        "p50-base",
        "p99-base",
        "own p50",
        "own p99",
        "calm %",
        "calm p99",
        "cpu %",
        "busy %",
        "steal %",
        "rt"
    );
    let us = |ns: i64| ns as f64 / 1e3;
    for spin_us in [0, 50, 150] {
        for per_s in [200, 1_000] {
            let (mut late, [busy, steal]) = watched(timer);
            late.sort_unstable();
            let [p50, p99, max] = [0.5, 0.99, 1.0].map(|q| us(quantile(&late, q)));
            println!("{:>33} {p50:>7.1} {p99:>8.1} {max:>8.1} {busy:>67.0} {steal:>7.2}", "timer");
            let mut base = None;
            for delay_ms in [0.0, 10.0, 50.0] {
                let spin = Duration::from_micros(spin_us);
                let Ok(emulator) = emulator(Conditions { delay_ms, ..Conditions::default() }, spin) else {
                    return;
                };
                let asked = Nanos((delay_ms * 1e6) as i64);
                let ((errors, calm_times, share), [busy, steal]) =
                    watched(|| one_way(&emulator, per_s, asked));
                let is_calm = |at: Nanos| calm_times.iter().any(|(from, to)| (*from..*to).contains(&at));
                let mut calm: Vec<_> = errors.iter().filter(|e| is_calm(e.0)).map(|e| e.1).collect();
                let mut errors: Vec<_> = errors.into_iter().map(|e| e.1).collect();
                calm.sort_unstable();
                errors.sort_unstable();
                let report = emulator.report();
                let [p50, p99, max] = [0.5, 0.99, 1.0].map(|q| quantile(&errors, q));
                let base = *base.get_or_insert(p50);
                let own = report.forward.lateness.map_or([0, 0], |l| [l.p50_ns, l.p99_ns]);
                println!(
                    "{spin_us:>7} {delay_ms:>8} {per_s:>8} {:>7} {:>7.1} {:>8.1} {:>8.1} {:>9.1} {:>9.1} {:>8.1} {:>8.1} \
                     {:>6.0} {:>8.1} {:>5.1} {busy:>6.0} {steal:>7.2} {:>3}",
                    errors.len(),
                    us(p50),
                    us(p99),
                    us(max),
                    us(p50 - base),
                    us(p99 - base),
                    us(own[0]),
                    us(own[1]),
                    calm.len() as f64 * 100.0 / errors.len().max(1) as f64,
                    us(quantile(&calm, 0.99)),
                    share * 100.0,
                    if report.real_time { "yes" } else { "no" },
                );
            }
        }
    }
}

/// Instants of receipt with errors in nanoseconds, the times in which nothing was stolen, and the share of a processor
/// that the emulator took.
#[allow(clippy::type_complexity)]
fn one_way(emulator: &Emulator, per_s: u32, asked: Nanos) -> (Vec<(Nanos, i64)>, Vec<(Nanos, Nanos)>, f64) {
    let (a, b) = sockets(emulator);
    let (before, at) = (cost(), Instant::now());
    let (mut errors, mut calm) = (Vec::new(), Vec::new());
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
        let receiver = scope.spawn(move || {
            real_time();
            let mut packet = [0; 2_000];
            while b.recv(&mut packet).is_ok() {
                let now = MonotonicClock.now();
                let sent = i64::from_ne_bytes(packet[..8].try_into().unwrap_or_default());
                errors.push((now, now.0 - sent - asked.0));
            }
        });
        while !receiver.is_finished() {
            let (from, [_, stolen, _]) = (MonotonicClock.now(), ticks());
            std::thread::sleep(Duration::from_millis(100));
            if ticks()[1] == stolen {
                calm.push((from, MonotonicClock.now()));
            }
        }
    });
    let share = (cost() - before).as_secs_f64() / at.elapsed().as_secs_f64();
    (errors, calm, share)
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

/// What TCP gets through a path without limits: what this machine can move at all.
fn most() {
    let Ok(emulator) = emulator(Conditions::default(), Duration::ZERO) else { return };
    let had = tcp_rate(&emulator, 0);
    let forward = emulator.report().forward;
    let counters = forward.counters;
    println!(
        "\nwithout limits, TCP: {:.0} Mbit/s, dropped by the device {:?}, lateness p99 {:.0} µs, packets {}",
        had / 1e6,
        forward.device_dropped,
        forward.lateness.map_or(0, |l| l.p99_ns) as f64 / 1e3,
        counters.packets_out,
    );
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
