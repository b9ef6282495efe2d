//! What this process and its descendants use, from `getrusage`, process clocks and `/proc/PID/{stat,statm}`.
//!
//! CPU times are the scheduler's (nanoseconds). The kernel tells those of this process, and of the descendants that it
//! has waited for, in one call each; those of a running descendant are its process clock, divided into user and system
//! in the proportion of `stat`'s ticks. Reading every thread's files instead costs a client of 25 threads 4 % of its CPU.
//!
//! What ended below a running descendant (GStreamer's plug-in scanner below an encoder's process) counts there: its CPU
//! time in that descendant's `stat`, its context switches, which the kernel does not tell, as they were last seen.

use std::fs;

use nix::sys::resource::{Usage as Rusage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use probe::{ColumnType, Emitter, Table, Value};
use units::{Clock, MonotonicClock, Nanos};

/// Most descendants that are followed; more are a mistake, or an attack.
const MAX_PROCESSES: usize = 256;
/// Descendants are looked for in each of the first samples, while a program starts its own, and then in every n-th.
const LOOK: (u64, u64) = (4, 5);

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    user_ns: u64,
    system_ns: u64,
    voluntary: u64,
    involuntary: u64,
}

impl Usage {
    fn of(who: UsageWho) -> Self {
        getrusage(who).map(|usage| Self::from(&usage)).unwrap_or_default()
    }

    fn add(&mut self, other: Self) {
        self.user_ns += other.user_ns;
        self.system_ns += other.system_ns;
        self.voluntary += other.voluntary;
        self.involuntary += other.involuntary;
    }

    fn cpu_ns(self) -> u64 {
        self.user_ns + self.system_ns
    }

    /// Never below what was told before: a descendant that ends counts a moment later among the ended ones, and ticks
    /// divide its time only roughly.
    fn at_least(self, last: Self) -> Self {
        let cpu_ns = self.cpu_ns().max(last.cpu_ns());
        let user_ns = self.user_ns.clamp(last.user_ns, cpu_ns - last.system_ns);
        Self {
            user_ns,
            system_ns: cpu_ns - user_ns,
            voluntary: self.voluntary.max(last.voluntary),
            involuntary: self.involuntary.max(last.involuntary),
        }
    }
}

impl From<&Rusage> for Usage {
    fn from(usage: &Rusage) -> Self {
        let number = |n: i64| u64::try_from(n).unwrap_or(0);
        Self {
            user_ns: number(usage.user_time().num_microseconds()) * 1000,
            system_ns: number(usage.system_time().num_microseconds()) * 1000,
            voluntary: number(usage.voluntary_context_switches()),
            involuntary: number(usage.involuntary_context_switches()),
        }
    }
}

/// What `/proc/PID/stat` tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stat {
    parent: u32,
    user_ticks: u64,
    system_ticks: u64,
    /// Of ended descendants that were waited for.
    reaped_user_ticks: u64,
    reaped_system_ticks: u64,
    threads: u64,
    /// Ticks since the machine's start: with the number it names a process for good.
    started: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name in brackets may hold anything: fields are counted after the last bracket.
        let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(1);
        let mut next = |skipped: usize| fields.nth(skipped)?.parse::<i64>().ok()?.try_into().ok();
        Some(Self {
            parent: u32::try_from(next(0)?).ok()?,
            user_ticks: next(9)?,
            system_ticks: next(0)?,
            reaped_user_ticks: next(0)?,
            reaped_system_ticks: next(0)?,
            threads: next(2)?,
            started: next(1)?,
        })
    }

    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }
}

/// A descendant, as last seen.
#[derive(Clone, Debug)]
struct Descendant {
    pid: u32,
    parent: u32,
    started: u64,
    running: bool,
    /// Its own, and the CPU time of what it waited for.
    usage: Usage,
    /// Context switches of what ended below it.
    below: Usage,
}

impl Descendant {
    fn new(pid: u32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        let (usage, below) = (Usage::default(), Usage::default());
        Some(Self { pid, parent: stat.parent, started: stat.started, running: true, usage, below })
    }

    /// Looks at it again; `None` once it has ended.
    fn sample(&mut self) -> Option<Stat> {
        let sampled = running(self.pid).filter(|(_, stat)| stat.started == self.started);
        self.running = sampled.is_some();
        let (usage, stat) = sampled?;
        (self.usage, self.parent) = (usage, stat.parent);
        Some(stat)
    }
}

/// Samples this process with its descendants.
pub(crate) struct ProcessTree {
    root: u32,
    samples: u64,
    /// Parents before their children.
    descendants: Vec<Descendant>,
    /// Of ended descendants that others waited for, since their parent had ended before.
    left: Usage,
    last: Usage,
    last_at: Option<Nanos>,
}

impl ProcessTree {
    pub(crate) fn of_self() -> Self {
        let root = std::process::id();
        let (left, last) = (Usage::default(), Usage::default());
        Self { root, samples: 0, descendants: Vec::new(), left, last, last_at: None }
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
        if self.samples < LOOK.0 || self.samples.is_multiple_of(LOOK.1) {
            self.look();
        }
        self.samples += 1;
        // Parents first: what ends meanwhile is missing until the next sample, and is never counted twice.
        let mut sum = Usage::of(UsageWho::RUSAGE_SELF);
        sum.add(Usage::of(UsageWho::RUSAGE_CHILDREN));
        let mut rss = resident(self.root);
        let mut threads = Stat::read(self.root).map_or(0, |s| s.threads);
        for descendant in &mut self.descendants {
            let Some(stat) = descendant.sample() else { continue };
            rss += resident(descendant.pid);
            threads += stat.threads;
        }
        self.bury();
        for descendant in &self.descendants {
            sum.add(descendant.usage);
            sum.add(descendant.below);
        }
        sum.add(self.left);
        let now = MonotonicClock.now();
        let sum = sum.at_least(self.last);
        let grown = sum.cpu_ns() - self.last.cpu_ns();
        let percent = self.last_at.map_or(0.0, |then| 100.0 * grown as f64 / (now.0 - then.0).max(1) as f64);
        (self.last, self.last_at) = (sum, Some(now));
        emitter.emit(
            now,
            &[
                Value::U64(sum.user_ns),
                Value::U64(sum.system_ns),
                Value::U64(rss),
                Value::U64(sum.voluntary),
                Value::U64(sum.involuntary),
                Value::U64(threads),
                Value::U64(1 + self.descendants.len() as u64),
                Value::F64(percent),
            ],
        );
    }

    /// Finds new descendants. One whose parent has ended stays, whoever its next one is.
    fn look(&mut self) {
        let mut known = std::mem::take(&mut self.descendants);
        for pid in descendants(self.root) {
            let found = known.iter().position(|d| d.pid == pid).map(|at| known.remove(at));
            self.descendants.extend(found.or_else(|| Descendant::new(pid)));
        }
        self.descendants.append(&mut known);
    }

    /// Gives what ended descendants leave to those who account for them from now on.
    fn bury(&mut self) {
        for at in (0..self.descendants.len()).rev() {
            let Descendant { parent, running, mut usage, below, .. } = self.descendants[at];
            // The kernel has given everything of our own children to us.
            if running || parent == self.root {
                continue;
            }
            usage.add(below);
            match self.descendants.iter_mut().find(|d| d.pid == parent) {
                Some(parent) => parent.below.add(Usage { user_ns: 0, system_ns: 0, ..usage }),
                // Nobody of ours could wait for it.
                None => self.left.add(usage),
            }
        }
        self.descendants.retain(|d| d.running);
    }
}

/// Descendants that run now, parents before their children.
fn descendants(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() && found.len() < MAX_PROCESSES {
        if let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", found[at])) {
            for task in tasks.flatten() {
                let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            }
        }
        at += 1;
    }
    found.split_off(1)
}

/// A running descendant with what it waited for; `None` once it has ended.
fn running(pid: u32) -> Option<(Usage, Stat)> {
    let stat = Stat::read(pid)?;
    let clock = clock_getcpuclockid(Pid::from_raw(pid.try_into().ok()?)).ok()?;
    let cpu_ns = u64::try_from(clock_gettime(clock).ok()?.num_nanoseconds()).unwrap_or(0);
    let ticks = stat.user_ticks + stat.system_ticks;
    let user_ns = match ticks {
        0 => cpu_ns,
        ticks => (u128::from(cpu_ns) * u128::from(stat.user_ticks) / u128::from(ticks)) as u64,
    };
    let (mut voluntary, mut involuntary) = (0, 0);
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let switches = |name: &str| -> u64 {
            let line = status.lines().rev().find_map(|l| l.strip_prefix(name));
            line.and_then(|l| l.trim_start_matches(':').trim().parse().ok()).unwrap_or(0)
        };
        voluntary += switches("voluntary_ctxt_switches");
        involuntary += switches("nonvoluntary_ctxt_switches");
    }
    let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    let mut usage = Usage { user_ns, system_ns: cpu_ns - user_ns, voluntary, involuntary };
    usage.user_ns += stat.reaped_user_ticks * tick_ns;
    usage.system_ns += stat.reaped_system_ticks * tick_ns;
    Some((usage, stat))
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

    #[test]
    fn what_an_ended_child_used_stays_counted() {
        let mut tree = ProcessTree::of_self();
        let before = sampled(&mut tree);
        let done = std::process::Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done"])
            .status()
            .unwrap();
        assert!(done.success());
        let after = sampled(&mut tree);
        assert!(after[1] + after[2] > before[1] + before[2] + 1_000_000, "{before:?} {after:?}");
    }

    /// As GStreamer's plug-in scanner does below an encoder's process.
    #[test]
    fn what_ended_below_a_child_counts_once_while_the_child_goes_on() {
        use std::io::{BufRead, BufReader};
        use std::process::{Command, Stdio};
        let mut tree = ProcessTree::of_self();
        let script = "sh -c 'while :; do :; done'; echo ended; while :; do :; done";
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let cpu_ns = |words: &[u64]| words[1] + words[2];
        let busy = until(|| {
            tree.samples = 0;
            let words = sampled(&mut tree);
            (words[7] >= 3 && cpu_ns(&words) > 300_000_000).then_some(words)
        });
        let below = tree.descendants.iter().find(|d| d.parent == child.id()).unwrap();
        let below = rustix::process::Pid::from_raw(below.pid as i32).unwrap();
        rustix::process::kill_process(below, rustix::process::Signal::KILL).unwrap();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();

        let after = sampled(&mut tree);
        let ticks = |pid| Stat::read(pid).map_or(0, |s| s.user_ticks + s.system_ticks);
        let before = ticks(child.id());
        until(|| (ticks(child.id()) >= before + 12).then_some(()));
        let later = sampled(&mut tree);
        let grown = cpu_ns(&later) - cpu_ns(&after);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(after[4] >= busy[4] && after[5] >= busy[5], "switches stay counted");
        assert!(grown > 80_000_000, "the child worked for 120 ms more, {grown} ns were seen");
        let mut all = Usage::of(UsageWho::RUSAGE_SELF);
        all.add(Usage::of(UsageWho::RUSAGE_CHILDREN));
        let seen = cpu_ns(&later);
        assert!(seen <= all.cpu_ns() + 20_000_000, "{seen} ns were seen of {} ns", all.cpu_ns());
        let buried = sampled(&mut tree);
        assert_eq!((buried[7], tree.left), (1, Usage::default()), "nothing is left");
    }

    fn until<T>(mut fact: impl FnMut() -> Option<T>) -> T {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            if let Some(fact) = fact() {
                return fact;
            }
            assert!(std::time::Instant::now() < deadline, "it did not happen in time");
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    fn the_fields_of_stat_are_found_behind_any_name() {
        let text = "12 (a) b (c)) S 1 12 12 0 -1 4194560 1 2 3 4 70 30 5 6 20 0 9 0 1234 5 6";
        let expected = Stat {
            parent: 1,
            user_ticks: 70,
            system_ticks: 30,
            reaped_user_ticks: 5,
            reaped_system_ticks: 6,
            threads: 9,
            started: 1234,
        };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("12 (cut off"), None);
    }

    #[test]
    fn sums_never_go_back_and_keep_their_total() {
        let last = Usage { user_ns: 60, system_ns: 40, voluntary: 5, involuntary: 5 };
        let now = Usage { user_ns: 55, system_ns: 50, voluntary: 4, involuntary: 6 }.at_least(last);
        assert_eq!(now, Usage { user_ns: 60, system_ns: 45, voluntary: 5, involuntary: 6 });
        let less = Usage { user_ns: 0, system_ns: 10, voluntary: 0, involuntary: 0 }.at_least(last);
        assert_eq!(less, last);
    }
}
