//! The whole machine's CPU time and scheduling, from `/proc/stat`.
//!
//! The kernel counts in ticks of 1/100 s. The columns of times add up to the time passed times the number of cores:
//! unlike the kernel's, user and nice do not contain the guests' time. Counters never go back, though the kernel's
//! idle and iowait now and then do (see proc(5)).

use probe::{ColumnType, Table, Value};

use super::stat::Stat;
use super::text::{lines, number, numbers, words};
use super::{Kind, Root, Target, ticks_to_ns};
use crate::sampler::{Rows, Sampler, SamplerInfo};

/// How it is chosen and opened.
pub(super) const KIND: Kind =
    Kind { name: "cpu", default: true, target: Target::None, open: |root, _| Ok(Box::new(Cpu::new(root))) };

/// Ticks since the start of the machine, of all cores or of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) user: u64,
    pub(super) nice: u64,
    pub(super) system: u64,
    pub(super) idle: u64,
    pub(super) iowait: u64,
    pub(super) irq: u64,
    pub(super) softirq: u64,
    pub(super) steal: u64,
    pub(super) guest: u64,
}

impl Times {
    /// The fields behind `cpu` or `cpuN`; fields that old kernels lack are 0.
    pub(super) fn parse(fields: &[u8]) -> Option<Self> {
        let ([user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice], count) =
            numbers::<10>(fields);
        let (user, nice) = (user.saturating_sub(guest), nice.saturating_sub(guest_nice));
        let guest = guest.saturating_add(guest_nice);
        (count >= 4).then_some(Self { user, nice, system, idle, iowait, irq, softirq, steal, guest })
    }

    /// Never below what was told before.
    pub(super) fn at_least(self, last: Self) -> Self {
        Self {
            user: self.user.max(last.user),
            nice: self.nice.max(last.nice),
            system: self.system.max(last.system),
            idle: self.idle.max(last.idle),
            iowait: self.iowait.max(last.iowait),
            irq: self.irq.max(last.irq),
            softirq: self.softirq.max(last.softirq),
            steal: self.steal.max(last.steal),
            guest: self.guest.max(last.guest),
        }
    }

    fn busy(self) -> u64 {
        [self.user, self.nice, self.system, self.irq, self.softirq, self.guest]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    fn total(self) -> u64 {
        [self.idle, self.iowait, self.steal].into_iter().fold(self.busy(), u64::saturating_add)
    }
}

/// What the machine-wide lines of `/proc/stat` tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reading {
    times: Times,
    interrupts: u64,
    switches: u64,
    forks: u64,
    running: u64,
    blocked: u64,
}

impl Reading {
    fn parse(text: &[u8]) -> Option<Self> {
        let (mut stat, mut found) = (Self::default(), false);
        for line in lines(text) {
            if let Some(fields) = line.strip_prefix(b"cpu ") {
                stat.times = Times::parse(fields)?;
                found = true;
                continue;
            }
            let mut words = words(line);
            let slot = match words.next() {
                Some(b"intr") => &mut stat.interrupts,
                Some(b"ctxt") => &mut stat.switches,
                Some(b"processes") => &mut stat.forks,
                Some(b"procs_running") => &mut stat.running,
                Some(b"procs_blocked") => &mut stat.blocked,
                _ => continue,
            };
            *slot = words.next().and_then(number).unwrap_or(0);
        }
        found.then_some(stat)
    }
}

struct Cpu {
    stat: Stat,
    table: Table,
    last: Option<Times>,
}

impl Cpu {
    fn new(root: &Root) -> Self {
        Self { stat: root.stat(), table: table(), last: None }
    }
}

fn table() -> Table {
    let mut table = Table::new("cpu", "the whole machine's CPU time and scheduling");
    for (name, description) in [
        ("user_ns", "time in user mode since boot, all cores; without guests and nice programs"),
        ("nice_ns", "time in user mode of programs with a positive nice value since boot, all cores"),
        ("system_ns", "time in the kernel since boot, all cores; without interrupts"),
        ("iowait_ns", "idle time with disk requests under way since boot, all cores"),
        ("irq_ns", "time in hardware interrupts since boot, all cores"),
        ("softirq_ns", "time in soft interrupts since boot, all cores"),
        ("steal_ns", "time since boot that the hypervisor gave to others, all cores"),
        ("guest_ns", "time since boot in which cores ran this machine's own guests"),
        ("idle_ns", "idle time since boot, all cores; without iowait"),
    ] {
        table = table.column(name, ColumnType::U64, "ns", description);
    }
    let percent =
        |what: &str| format!("{what} since the row before, 0 in the first; 100 is the whole machine");
    table
        .column(
            "busy_percent",
            ColumnType::F64,
            "%",
            &percent("time in which cores worked, guests included,"),
        )
        .column("steal_percent", ColumnType::F64, "%", &percent("time that the hypervisor gave to others"))
        .column("context_switches", ColumnType::U64, "1", "context switches since boot")
        .column("interrupts", ColumnType::U64, "1", "hardware interrupts since boot")
        .column("forks", ColumnType::U64, "1", "processes and threads started since boot")
        .column("running", ColumnType::U64, "1", "threads that run or could run now")
        .column("blocked", ColumnType::U64, "1", "threads that wait for a disk now")
}

impl Sampler for Cpu {
    fn info(&self) -> SamplerInfo {
        super::info(&KIND, &self.table.description, self.stat.path(), vec![self.table.clone()])
    }

    fn sample(&mut self, rows: &mut dyn Rows) {
        let Some((at, stat)) = self.stat.parse(rows, Reading::parse) else { return };
        let last = self.last.unwrap_or(stat.times);
        let now = stat.times.at_least(last);
        self.last = Some(now);
        let passed = now.total().saturating_sub(last.total()).max(1) as f64;
        let percent = |now: u64, last: u64| Value::F64(100.0 * now.saturating_sub(last) as f64 / passed);
        let ns = |ticks| Value::U64(ticks_to_ns(ticks));
        rows.row(
            &self.table,
            at,
            &[
                ns(now.user),
                ns(now.nice),
                ns(now.system),
                ns(now.iowait),
                ns(now.irq),
                ns(now.softirq),
                ns(now.steal),
                ns(now.guest),
                ns(now.idle),
                percent(now.busy(), last.busy()),
                percent(now.steal, last.steal),
                Value::U64(stat.switches),
                Value::U64(stat.interrupts),
                Value::U64(stat.forks),
                Value::U64(stat.running),
                Value::U64(stat.blocked),
            ],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::testing::{Taken, fixture, write};
    use proptest::prelude::*;

    const STAT: &str = "cpu  127937 9455 18238 233579 3163 0 297 474 7 5\n\
        cpu0 63455 4730 7319 120145 634 0 91 239 0 0\nintr 811752 0 0 1\nctxt 872352\nbtime 1795759936\n\
        processes 22571\nprocs_running 3\nprocs_blocked 1\nsoftirq 436824 0 62378\n";

    #[test]
    fn the_machine_wide_lines_are_read_and_guests_counted_once() {
        let stat = Reading::parse(STAT.as_bytes()).unwrap();
        let times = Times {
            user: 127_930,
            nice: 9450,
            system: 18_238,
            idle: 233_579,
            iowait: 3163,
            irq: 0,
            softirq: 297,
            steal: 474,
            guest: 12,
        };
        let (interrupts, switches) = (811_752, 872_352);
        assert_eq!(stat, Reading { times, interrupts, switches, forks: 22_571, running: 3, blocked: 1 });
        assert_eq!(times.total(), 127_937 + 9455 + 18_238 + 233_579 + 3163 + 297 + 474);
    }

    #[test]
    fn broken_text_gives_nothing_rather_than_zeros() {
        for text in ["", "cpu ", "cpu  1 2 x", "cpu0 1 2 3 4\nctxt 5\n", "cpu  -1 2 3 4"] {
            assert_eq!(Reading::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Reading::parse(b"cpu  1 2 3 4\n").unwrap().times.idle, 4, "a kernel of long ago");
    }

    #[test]
    fn percentages_are_those_since_the_row_before_and_counters_never_go_back() {
        let (dir, root) = fixture(&[("proc/stat", "cpu  100 0 0 100 0 0 0 0 0 0\n")]);
        let mut cpu = Cpu::new(&root);
        assert_eq!(Taken::of(&mut cpu).cell("cpu", "busy_percent"), Value::F64(0.0));
        write(dir.path(), "proc/stat", "cpu  110 0 20 160 0 0 0 10 0 0\n");
        let taken = Taken::of(&mut cpu);
        assert_eq!(taken.cell("cpu", "busy_percent"), Value::F64(30.0));
        assert_eq!(taken.cell("cpu", "steal_percent"), Value::F64(10.0));
        write(dir.path(), "proc/stat", "cpu  110 0 20 150 0 0 0 10 0 0\n");
        let taken = Taken::of(&mut cpu);
        assert_eq!(taken.count("cpu", "idle_ns"), ticks_to_ns(160));
        assert_eq!(taken.cell("cpu", "busy_percent"), Value::F64(0.0));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(text in "(cpu )?[ -~\n]{0,200}") {
            Reading::parse(text.as_bytes()).map(|stat| stat.times.total());
        }
    }
}
