//! What a process and its descendants use, from `/proc/PID/{task/*,statm}`.
//!
//! CPU times are the scheduler's (`schedstat`, nanoseconds) divided into user and system in the proportion of
//! `stat`'s ticks; where `schedstat` is missing, the ticks themselves. The cost is a few file reads for each thread.

use std::collections::BTreeMap;
use std::fs;

use probe::{ColumnType, Emitter, Table, Value};
use units::{Clock, MonotonicClock, Nanos};

/// Deepest chain of descendants that is followed; a deeper one is a mistake, or an attack.
const MAX_PROCESSES: usize = 256;

/// Counters of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    user_ns: u64,
    system_ns: u64,
    voluntary: u64,
    involuntary: u64,
}

impl Usage {
    fn add(&mut self, other: Self) {
        self.user_ns += other.user_ns;
        self.system_ns += other.system_ns;
        self.voluntary += other.voluntary;
        self.involuntary += other.involuntary;
    }
}

/// Samples a process with its descendants. What ended keeps its last known counters, so that sums never go back.
pub(crate) struct ProcessTree {
    root: u32,
    tick_ns: u64,
    /// By thread and its start, so that a reused number is another thread.
    threads: BTreeMap<(u32, u64), Usage>,
    last: Option<(Nanos, u64)>,
}

impl ProcessTree {
    pub(crate) fn of_self() -> Self {
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
        Self { root: std::process::id(), tick_ns, threads: BTreeMap::new(), last: None }
    }

    pub(crate) fn table() -> Table {
        Table::new("process", "the panel's process and its descendants, each second")
            .column(
                "cpu_user_ns",
                ColumnType::U64,
                "ns",
                "CPU time in user mode since the start, all threads",
            )
            .column(
                "cpu_system_ns",
                ColumnType::U64,
                "ns",
                "CPU time in the kernel since the start, all threads",
            )
            .column("rss_bytes", ColumnType::U64, "B", "resident memory")
            .column("voluntary_switches", ColumnType::U64, "1", "context switches to wait, since the start")
            .column(
                "involuntary_switches",
                ColumnType::U64,
                "1",
                "context switches forced by the scheduler, since the start",
            )
            .column("threads", ColumnType::U64, "1", "threads now")
            .column("processes", ColumnType::U64, "1", "processes now")
            .column(
                "cpu_percent",
                ColumnType::F64,
                "%",
                "CPU time since the row before, by time passed; 100 is one core",
            )
    }

    pub(crate) fn sample(&mut self, emitter: &mut Emitter) {
        let processes = self.processes();
        let (mut threads, mut rss) = (0u64, 0u64);
        for pid in &processes {
            rss += resident(*pid);
            let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for task in tasks.flatten() {
                let Some(tid) = task.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
                if let Some((start, usage)) = self.thread(*pid, tid) {
                    threads += 1;
                    self.threads.insert((tid, start), usage);
                }
            }
        }
        let mut sum = Usage::default();
        self.threads.values().for_each(|usage| sum.add(*usage));
        let now = MonotonicClock.now();
        let cpu_ns = sum.user_ns + sum.system_ns;
        let percent = self.last.map_or(0.0, |(then, before)| {
            100.0 * cpu_ns.saturating_sub(before) as f64 / (now.0 - then.0).max(1) as f64
        });
        self.last = Some((now, cpu_ns));
        emitter.emit(
            now,
            &[
                Value::U64(sum.user_ns),
                Value::U64(sum.system_ns),
                Value::U64(rss),
                Value::U64(sum.voluntary),
                Value::U64(sum.involuntary),
                Value::U64(threads),
                Value::U64(processes.len() as u64),
                Value::F64(percent),
            ],
        );
    }

    /// The process and its descendants.
    fn processes(&self) -> Vec<u32> {
        let mut found = vec![self.root];
        let mut at = 0;
        while at < found.len() && found.len() < MAX_PROCESSES {
            let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", found[at])) else {
                at += 1;
                continue;
            };
            for task in tasks.flatten() {
                let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            }
            at += 1;
        }
        found
    }

    fn thread(&self, pid: u32, tid: u32) -> Option<(u64, Usage)> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/task/{tid}/{name}")).ok();
        let stat = read("stat")?;
        // The name in brackets may hold anything: fields are counted after the last bracket.
        let mut fields =
            stat.rsplit_once(')')?.1.split_whitespace().skip(11).map(|f| f.parse::<u64>().unwrap_or(0));
        let (user, system) = (fields.next()?, fields.next()?);
        let start = fields.nth(6)?;
        let exact = read("schedstat").and_then(|s| s.split_whitespace().next()?.parse::<u64>().ok());
        let (user_ns, system_ns) = match (exact, user + system) {
            (Some(ns), 0) => (ns, 0),
            (Some(ns), ticks) => {
                let user_ns = (u128::from(ns) * u128::from(user) / u128::from(ticks)) as u64;
                (user_ns, ns - user_ns)
            }
            (None, _) => (user * self.tick_ns, system * self.tick_ns),
        };
        let status = read("status").unwrap_or_default();
        let switches = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name));
            line.and_then(|l| l.trim_start_matches(':').trim().parse().ok()).unwrap_or(0)
        };
        let (voluntary, involuntary) =
            (switches("voluntary_ctxt_switches"), switches("nonvoluntary_ctxt_switches"));
        Some((start, Usage { user_ns, system_ns, voluntary, involuntary }))
    }
}

fn resident(pid: u32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(tree: &mut ProcessTree) -> Vec<u64> {
        let probe = probe::Probe::new();
        let mut emitter = probe.declare(ProcessTree::table(), 4).unwrap();
        tree.sample(&mut emitter);
        let mut words = Vec::new();
        probe.drain().poll(|b| words.extend_from_slice(b.words));
        words
    }

    #[test]
    fn work_and_memory_of_this_process_are_seen_and_sums_never_go_back() {
        let mut tree = ProcessTree::of_self();
        let before = sampled(&mut tree);
        let ended = std::thread::spawn(|| (0..30_000_000u64).fold(0u64, |a, b| a.rotate_left(1) ^ b));
        std::hint::black_box(ended.join().unwrap());
        std::hint::black_box((0..30_000_000u64).fold(0u64, |a, b| a.rotate_left(3) ^ b));
        let after = sampled(&mut tree);
        assert!(
            after[1] + after[2] > before[1] + before[2] + 1_000_000,
            "CPU time grew by more than a millisecond"
        );
        assert!(after[3] > 1 << 20, "resident memory is more than a megabyte");
        for counter in [4, 5] {
            assert!(after[counter] >= before[counter]);
        }
    }

    #[test]
    fn a_child_counts_while_it_runs() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let words = sampled(&mut ProcessTree::of_self());
        assert!(words[7] >= 2, "this process and its child");
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
