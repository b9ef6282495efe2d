//! What the real agent costs with all default samplers at 10 Hz: `cargo bench --workspace --bench sampling [-- SECONDS]`.
//!
//! The whole process is counted: samplers, their threads, what is kept and sent, and the answers of a collector that writes
//! to a disk. Several rounds tell how much the machine's other work moves it.
#![allow(clippy::unwrap_used)] // a benchmark may fail loudly

mod common;

use std::fs;
use std::io::{Write, stdout};
use std::time::{Duration, Instant};

use recording::Address;
use recording::collector::{Collector, CollectorOptions};

use common::{Agent, used};

const SECONDS: u64 = 10;
const ROUNDS: usize = 5;

fn main() {
    // Cargo says `--bench` to benchmarks and `--test` when it only tries them.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let trial = arguments.iter().any(|a| a == "--test");
    let seconds = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(if trial { 1 } else { SECONDS });
    let mut out = stdout();
    writeln!(out, "default samplers at 10 Hz, {seconds} s a round").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    fs::create_dir(&run).unwrap();
    let options = CollectorOptions::new(Address::Unix(dir.path().join("collector")), run);
    let collector = Collector::start(options).unwrap();
    let agent = Agent::start(dir.path(), &collector, &["--panel", "host", "--rate", "10"]);
    for _ in 0..if trial { 1 } else { ROUNDS } {
        let (begin, before) = (Instant::now(), used(agent.id()).cpu);
        std::thread::sleep(Duration::from_secs(seconds));
        let now = used(agent.id());
        let share = 100.0 * (now.cpu - before) / begin.elapsed().as_secs_f64();
        let tick = (now.cpu - before) * 1e6 / (10 * seconds) as f64;
        writeln!(out, "  {share:.3} % of a core, {tick:.0} us a tick, {:.1} MB at most", now.rss).unwrap();
    }
    agent.end();
}
