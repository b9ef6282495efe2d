//! What one row of each sampler costs in CPU time, and of all default samplers together.
//!
//! Reads this machine's own `/proc`. Each alone is called without pause, its caches warm. At the end all defaults are sampled ten times a second for a while as an agent does it: cold caches, wake-ups and
//! all. What the whole agent costs tells the benchmark `sampling` of `triptych-agent`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use agent::sampler::{Rows, Sampler};
use agent::samplers;
use criterion::{Criterion, criterion_group};
use probe::{Table, Value};
use rustix::time::{ClockId, clock_gettime};
use units::Nanos;

/// Takes rows as cheaply as can be.
struct Counted(u64);

impl Rows for Counted {
    fn row(&mut self, _: &Table, at: Nanos, values: &[Value]) {
        self.0 += black_box((at, values)).1.len() as u64;
    }
    fn mark(&mut self, _: &str, _: &str) {}
    fn fact(&mut self, _: &str, _: &str) {}
}

fn each(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("samplers");
    let mut bench = |name: &str, mut samplers: Vec<Box<dyn Sampler>>| {
        let mut rows = Counted(0);
        group.bench_function(name, |b| {
            b.iter_custom(|count| {
                let before = cpu(ClockId::ThreadCPUTime);
                for _ in 0..count {
                    samplers.iter_mut().for_each(|sampler| sampler.sample(&mut rows));
                }
                cpu(ClockId::ThreadCPUTime) - before
            });
        });
        black_box(rows.0);
    };
    let target = format!("pid:{}", std::process::id());
    for kind in samplers::kinds() {
        let target = match (kind.name, kind.target) {
            ("process", _) => Some(target.as_str()),
            (_, samplers::Target::Required(_)) => continue,
            _ => None,
        };
        bench(kind.name, vec![samplers::open(kind.name, target).expect("a sampler of this machine")]);
    }
    bench("defaults", samplers::defaults());
    group.finish();
}

/// CPU time of this process or thread: others on the machine disturb it less than the time that passes.
fn cpu(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Samples the defaults at 10 Hz and prints what a tick costs, and each sampler's share of it.
fn at_ten_hertz() {
    const TICK: Duration = Duration::from_millis(100);
    const TICKS: u32 = 100;
    let (mut samplers, mut rows) = (samplers::defaults(), Counted(0));
    let mut costs = vec![Duration::ZERO; samplers.len()];
    samplers.iter_mut().for_each(|sampler| sampler.sample(&mut rows));
    let (mut due, before) = (Instant::now(), cpu(ClockId::ThreadCPUTime));
    for _ in 0..TICKS {
        due += TICK;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut last = cpu(ClockId::ThreadCPUTime);
        for (sampler, cost) in samplers.iter_mut().zip(&mut costs) {
            sampler.sample(&mut rows);
            let now = cpu(ClockId::ThreadCPUTime);
            *cost += now - std::mem::replace(&mut last, now);
        }
    }
    let tick = (cpu(ClockId::ThreadCPUTime) - before) / TICKS;
    let share = 100.0 * tick.as_secs_f64() / TICK.as_secs_f64();
    println!("defaults at 10 Hz: {tick:?} a tick, {share:.3} % of a core");
    for (sampler, cost) in samplers.iter().zip(costs) {
        println!("  {:<12} {:?} a row", sampler.info().name, cost / TICKS);
    }
    black_box(rows.0);
}

criterion_group!(benches, each);

fn main() {
    benches();
    at_ten_hertz();
}
