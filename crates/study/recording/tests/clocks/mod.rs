//! An agent with a clock of its own and a relay with delays, before a real collector on loopback TCP: how far the
//! estimate is from the truth, which only this code knows.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, dead_code)] // read beside its uses, a test and a benchmark

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use recording::Address;
use recording::collector::{Collector, CollectorOptions};
use recording::facts::{PlannedRun, RunFacts, RunStatus};
use recording::reader::read_table;
use recording::spec::{Levels, Panel};
use recording::wire::{Decoder, Hello, Message, PREAMBLE, PROTOCOL};
use units::{Clock, MonotonicClock};

const PATIENCE: Duration = Duration::from_secs(30);

/// The agent's clock: `offset_ns + now · (1 + drift)`.
#[derive(Clone, Copy, Debug)]
pub struct Truth {
    pub offset_ns: i64,
    pub drift_ppm: f64,
}

impl Truth {
    fn panel(&self, now: i64) -> i64 {
        self.offset_ns + now + (self.drift_ppm * 1e-6 * now as f64).round() as i64
    }

    fn collector(&self, panel: i64) -> i64 {
        let since = panel - self.offset_ns;
        since - (self.drift_ppm * 1e-6 / (1.0 + self.drift_ppm * 1e-6) * since as f64).round() as i64
    }
}

/// What the relay does to messages: microseconds added on the way to the agent and on the way back, of random numbers.
pub type Delays = fn(u64) -> u64;

/// No delay half of the time, else up to 20 ms: with a delay of its own in each direction, most exchanges are one-sided.
pub fn half_delayed(random: u64) -> u64 {
    if random.is_multiple_of(2) { 0 } else { (random >> 8) % 20_000 }
}

#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Largest distance of the estimate from the truth between the first and the last exchange, nanoseconds.
    pub error_ns: i64,
    /// What the estimate says of itself.
    pub uncertainty_ns: i64,
    pub exchanges: u32,
}

/// Records until there are so many exchanges.
pub fn record(truth: Truth, there: Delays, back: Delays, exchanges: usize, seed: u64) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let options = CollectorOptions::new("tcp:127.0.0.1:0".parse().unwrap(), dir.path().into());
    let collector = Collector::start(options).unwrap();
    let Address::Tcp(address) = collector.address().clone() else { panic!("a TCP address") };
    let relay = relay(address, there, back, seed);
    let agent = std::thread::spawn(move || agent(relay, truth));
    let deadline = Instant::now() + PATIENCE + Duration::from_millis(500 * exchanges as u64);
    while rows(dir.path()) < exchanges {
        assert!(Instant::now() < deadline, "{exchanges} exchanges");
        let _ = collector.next_event(Duration::from_millis(50));
    }
    let facts = collector.close(facts()).unwrap();
    agent.join().unwrap();
    let clock = facts.panels["guest"].clock.clone().unwrap();
    let table = read_table(dir.path(), "guest.clock").unwrap();
    let t = table.i64("t_ns").unwrap();
    let ends = [*t.iter().min().unwrap(), *t.iter().max().unwrap()];
    let error_ns =
        ends.map(|t| (clock.to_collector(t) - truth.collector(t)).abs()).into_iter().max().unwrap();
    Outcome { error_ns, uncertainty_ns: clock.worst_uncertainty_ns(), exchanges: clock.exchanges }
}

fn rows(dir: &Path) -> usize {
    read_table(dir, "guest.clock").map_or(0, |t| t.rows)
}

fn facts() -> RunFacts {
    let planned = PlannedRun { id: "r0001-p00-k0".into(), point: 0, repeat: 0 };
    RunFacts { status: RunStatus::Complete, ..RunFacts::begin(&planned, Levels::new(), "test") }
}

/// Speaks the protocol as an agent does, until it is asked to stop.
fn agent(address: SocketAddr, truth: Truth) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let hello = Hello {
        protocol: PROTOCOL,
        panel: Panel::Guest,
        program: "agent".into(),
        version: "0".into(),
        pid: 1,
        source: "agent".into(),
        session: 1,
        oldest: 0,
        next: 0,
        record: String::new(),
        boot_id: "another machine".into(),
        token: None,
    };
    stream.write_all(&[&PREAMBLE[..], &Message::Hello(hello).encode()].concat()).unwrap();
    let (mut decoder, mut buffer) = (Decoder::new(), [0; 4096]);
    loop {
        while let Some(message) = decoder.next_message().unwrap() {
            match message {
                Message::Ping { id } => {
                    let t_ns = truth.panel(MonotonicClock.now().0);
                    stream.write_all(&Message::Pong { id, t_ns }.encode()).unwrap();
                }
                Message::Stop => {
                    stream.write_all(&Message::Bye.encode()).unwrap();
                    return;
                }
                _ => {}
            }
        }
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the collector said good-bye before it asked to stop");
        decoder.push(&buffer[..count]);
    }
}

/// Lets one connection through, each way with delays of its own.
fn relay(to: SocketAddr, there: Delays, back: Delays, seed: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let near = listener.accept().unwrap().0;
        let far = TcpStream::connect(to).unwrap();
        let (near_back, far_back) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        let down = std::thread::spawn(move || pump(far_back, near_back, there, seed));
        pump(near, far, back, seed ^ 0x5555_5555_5555_5555);
        down.join().unwrap();
    });
    address
}

fn pump(mut from: TcpStream, mut to: TcpStream, delays: Delays, seed: u64) {
    to.set_nodelay(true).unwrap();
    let mut buffer = [0; 4096];
    for n in 0u64.. {
        let Ok(count @ 1..) = from.read(&mut buffer) else { break };
        let delay = delays(hash(seed.wrapping_add(n)));
        if delay > 0 {
            // The delay is what is tested with, not a wait for something.
            std::thread::sleep(Duration::from_micros(delay));
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// SplitMix64.
fn hash(mut x: u64) -> u64 {
    x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
