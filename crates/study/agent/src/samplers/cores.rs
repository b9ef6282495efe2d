//! Each core's CPU time and frequency, from `/proc/stat` and cpufreq (or `/proc/cpuinfo`).
//!
//! One group of columns a core; as many tables as that takes (`cores`, `cores-2`, …). A core that is switched off keeps
//! its last counters; cores that are plugged in later get a table of their own.

use std::ops::Range;
use std::time::Duration;

use probe::{ColumnType, MAX_COLUMNS, Table, Value};
use units::{Clock, MonotonicClock, Nanos};

use super::cpu::Times;
use super::source::Source;
use super::stat::Stat;
use super::text::{decimal, lines, number};
use super::{Kind, Root, Target, ticks_to_ns};
use crate::sampler::{Rows, Sampler, SamplerInfo};

/// How it is chosen and opened.
pub(super) const KIND: Kind = Kind {
    name: "cores",
    default: true,
    target: Target::None,
    open: |root, _| Ok(Box::new(Cores::new(root))),
};

/// Most cores that are followed: what Linux is built for at most on common machines.
const MAX_CORES: usize = 8192;
/// Columns of times of one core.
const TIMES: usize = 6;
/// `/proc/cpuinfo` is long, and kernels before 5.18 measure for 10 ms when it is read: it is read no more often. Without
/// cpufreq, which is in virtual machines mostly, what it tells hardly changes.
const CPUINFO_EVERY: Duration = Duration::from_secs(5);

/// Where frequencies come from; decided when the sampler is opened.
enum Frequency {
    /// One file a core, in kHz.
    Cpufreq(Vec<Source>),
    /// One text for all, in MHz, and when it was read.
    Cpuinfo(Source, Option<Nanos>),
    None,
}

struct Core {
    id: u32,
    times: Times,
    frequency_hz: u64,
}

struct Cores {
    root: Root,
    stat: Stat,
    frequency: Frequency,
    cores: Vec<Core>,
    /// Each table with its share of `cores`.
    tables: Vec<(Table, Range<usize>)>,
    /// Cores that no table has yet; rarely any.
    new: Vec<u32>,
    values: Vec<Value>,
}

/// The line of one core: its number and times.
fn parse_line(line: &[u8]) -> Option<(u32, Times)> {
    let line = line.strip_prefix(b"cpu")?;
    let end = line.iter().position(|byte| *byte == b' ')?;
    let id = u32::try_from(number(&line[..end])?).ok()?;
    Some((id, Times::parse(&line[end..])?))
}

/// Calls `each` with the number of every core and its MHz.
fn parse_cpuinfo(text: &[u8], mut each: impl FnMut(u64, f64)) {
    let mut core = None;
    for line in lines(text) {
        let mut parts = line.splitn(2, |byte| *byte == b':').map(|part| part.trim_ascii());
        match (parts.next(), parts.next()) {
            (Some(b"processor"), Some(id)) => core = number(id),
            (Some(b"cpu MHz"), Some(mhz)) => {
                if let Some((core, mhz)) = core.zip(decimal(mhz)) {
                    each(core, mhz);
                }
            }
            _ => {}
        }
    }
}

impl Cores {
    fn new(root: &Root) -> Self {
        let mut new = Self {
            root: root.clone(),
            stat: root.stat(),
            frequency: Frequency::None,
            cores: Vec::new(),
            tables: Vec::new(),
            new: Vec::new(),
            values: Vec::new(),
        };
        let mut cpuinfo = Source::new(root.proc("cpuinfo"));
        let mut told = false;
        if let Ok(text) = cpuinfo.text() {
            parse_cpuinfo(text, |_, _| told = true);
        }
        if root.sys("devices/system/cpu/cpu0/cpufreq/scaling_cur_freq").exists() {
            new.frequency = Frequency::Cpufreq(Vec::new());
        } else if told {
            new.frequency = Frequency::Cpuinfo(cpuinfo, None);
        }
        if let Ok(text) = std::fs::read(new.stat.path()) {
            take_times(&text, &mut [], &mut new.new);
        }
        new.add_tables();
        new
    }

    /// Reads all cores' times; cores that are new wait in `new`. Gives when they were read.
    fn read_times(&mut self, rows: &mut dyn Rows) -> Option<Nanos> {
        let (cores, new) = (&mut self.cores, &mut self.new);
        let read = self.stat.parse(rows, |text| take_times(text, cores, new).then_some(()));
        read.map(|(at, ())| at)
    }

    fn has_frequency(&self) -> bool {
        !matches!(self.frequency, Frequency::None)
    }

    /// Gives the new cores tables.
    fn add_tables(&mut self) {
        let per_table = MAX_COLUMNS / (TIMES + usize::from(self.has_frequency()));
        let new = std::mem::take(&mut self.new);
        for ids in new.chunks(per_table) {
            let number = self.tables.len() + 1;
            let name = if number == 1 { KIND.name.to_owned() } else { format!("{}-{number}", KIND.name) };
            let start = self.cores.len();
            for id in ids {
                self.cores.push(Core { id: *id, times: Times::default(), frequency_hz: 0 });
                if let Frequency::Cpufreq(files) = &mut self.frequency {
                    let path = format!("devices/system/cpu/cpu{id}/cpufreq/scaling_cur_freq");
                    files.push(Source::new(self.root.sys(path)));
                }
            }
            let table = table(&name, ids, self.has_frequency());
            self.tables.push((table, start..self.cores.len()));
        }
    }

    fn read_frequencies(&mut self) {
        let cores = &mut self.cores;
        match &mut self.frequency {
            Frequency::None => {}
            Frequency::Cpufreq(files) => {
                for (core, file) in cores.iter_mut().zip(files) {
                    // A core that is switched off has no such file.
                    let khz = file.text().ok().and_then(|text| number(text.trim_ascii()));
                    core.frequency_hz = khz.unwrap_or(0).saturating_mul(1000);
                }
            }
            Frequency::Cpuinfo(source, read) => {
                let now = MonotonicClock.now();
                if read.is_some_and(|read| (now - read).to_duration() < CPUINFO_EVERY) {
                    return;
                }
                *read = Some(now);
                cores.iter_mut().for_each(|core| core.frequency_hz = 0);
                if let Ok(text) = source.text() {
                    parse_cpuinfo(text, |id, mhz| {
                        if let Some(core) = cores.iter_mut().find(|core| u64::from(core.id) == id) {
                            core.frequency_hz = (mhz * 1e6) as u64;
                        }
                    });
                }
            }
        }
    }
}

/// Puts the times of a `/proc/stat` into `cores`, and the numbers of unknown cores into `new`. True if any core was there.
fn take_times(text: &[u8], cores: &mut [Core], new: &mut Vec<u32>) -> bool {
    new.clear();
    let (mut expected, mut any) = (0, false);
    // The cores' lines stand together at the top.
    let lines =
        lines(text).skip_while(|line| line.starts_with(b"cpu ")).take_while(|l| l.starts_with(b"cpu"));
    for (id, times) in lines.filter_map(parse_line) {
        any = true;
        let slot = match cores.get(expected) {
            Some(core) if core.id == id => Some(expected),
            _ => cores.iter().position(|core| core.id == id),
        };
        match slot {
            Some(slot) => {
                cores[slot].times = times.at_least(cores[slot].times);
                expected = slot + 1;
            }
            None if cores.len() + new.len() < MAX_CORES => new.push(id),
            None => {}
        }
    }
    any
}

fn table(name: &str, ids: &[u32], frequency: bool) -> Table {
    let mut table = Table::new(name, "each core's CPU time since boot, and frequency");
    for id in ids {
        for (column, description) in [
            ("user_ns", "in user mode, nice programs included and guests not"),
            ("system_ns", "in the kernel, interrupts included"),
            ("iowait_ns", "idle with disk requests under way"),
            ("steal_ns", "that the hypervisor gave to others"),
            ("guest_ns", "in which it ran this machine's own guests"),
            ("idle_ns", "idle, without iowait"),
        ] {
            let description = format!("core {id}: time since boot {description}");
            table = table.column(&format!("cpu{id}_{column}"), ColumnType::U64, "ns", &description);
        }
        if frequency {
            let description =
                format!("core {id}: frequency now; in a virtual machine mostly the nominal one; 0 when off");
            table = table.column(&format!("cpu{id}_frequency_hz"), ColumnType::U64, "Hz", &description);
        }
    }
    table
}

impl Sampler for Cores {
    fn info(&self) -> SamplerInfo {
        let tables = self.tables.iter().map(|(table, _)| table.clone()).collect();
        let mut info = super::info(&KIND, "each core's CPU time and frequency", self.stat.path(), tables);
        match &self.frequency {
            Frequency::Cpufreq(_) => info.source.push_str(", cpufreq/scaling_cur_freq"),
            Frequency::Cpuinfo(..) => info.source.push_str(", /proc/cpuinfo each 5 s"),
            Frequency::None => {}
        }
        info
    }

    fn sample(&mut self, rows: &mut dyn Rows) {
        let Some(mut at) = self.read_times(rows) else { return };
        if !self.new.is_empty() {
            self.add_tables();
            at = self.read_times(rows).unwrap_or(at);
        }
        self.read_frequencies();
        let frequency = self.has_frequency();
        for (table, range) in &self.tables {
            self.values.clear();
            for Core { times, frequency_hz, .. } in &self.cores[range.clone()] {
                let system = times.system.saturating_add(times.irq).saturating_add(times.softirq);
                let user = times.user.saturating_add(times.nice);
                let ticks = [user, system, times.iowait, times.steal, times.guest, times.idle];
                self.values.extend(ticks.map(|ticks| Value::U64(ticks_to_ns(ticks))));
                if frequency {
                    self.values.push(Value::U64(*frequency_hz));
                }
            }
            rows.row(table, at, &self.values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::testing::{Taken, fixture, write};
    use proptest::prelude::*;

    fn stat(cores: impl Iterator<Item = u32>) -> String {
        let lines: String = cores.map(|id| format!("cpu{id} {} 1 2 100 3 4 5 6 0 0\n", 10 + id)).collect();
        format!("cpu  1 1 1 1 1 1 1 1 0 0\n{lines}intr 5 1\nctxt 1\n")
    }

    #[test]
    fn lines_of_cores_are_read_and_others_not() {
        let (id, times) = parse_line(b"cpu12 7 1 2 100 3 4 5 6 0 0").unwrap();
        assert_eq!((id, times.user, times.steal), (12, 7, 6));
        for line in ["cpu  1 2 3 4", "cpux 1 2 3 4", "cpu1 1 2", "intr 5", "cpu99999999999 1 2 3 4", "cpu1"] {
            assert_eq!(parse_line(line.as_bytes()), None, "{line}");
        }
        let mut found = Vec::new();
        let text =
            "cpu MHz\t: 1\nprocessor\t: 3\nmodel name\t: a : b\ncpu MHz\t\t: 2445.406\nprocessor\t: x\n";
        parse_cpuinfo(text.as_bytes(), |core, mhz| found.push((core, mhz)));
        assert_eq!(found, [(3, 2445.406)]);
    }

    #[test]
    fn a_machine_of_many_cores_is_split_into_tables() {
        let (_dir, root) = fixture(&[("proc/stat", &stat(0..100))]);
        let mut cores = Cores::new(&root);
        let taken = Taken::of(&mut cores);
        assert_eq!(taken.tables(), ["cores", "cores-2", "cores-3"]);
        assert_eq!(taken.count("cores", "cpu0_user_ns"), ticks_to_ns(11));
        assert_eq!(taken.count("cores-3", "cpu99_user_ns"), ticks_to_ns(110));
        assert_eq!(taken.count("cores-3", "cpu99_system_ns"), ticks_to_ns(11));
        assert_eq!(cores.info().tables.len(), 3);
    }

    #[test]
    fn a_core_that_goes_keeps_its_counters_and_one_that_comes_gets_a_table() {
        let (dir, root) = fixture(&[("proc/stat", &stat(0..3))]);
        let mut cores = Cores::new(&root);
        Taken::of(&mut cores);
        write(dir.path(), "proc/stat", &stat([0, 2, 7].into_iter()));
        let taken = Taken::of(&mut cores);
        assert_eq!(taken.count("cores", "cpu1_user_ns"), ticks_to_ns(12));
        assert_eq!(taken.count("cores-2", "cpu7_user_ns"), ticks_to_ns(18));
        assert_eq!(Taken::of(&mut cores).tables(), ["cores", "cores-2"]);
    }

    #[test]
    fn frequency_comes_from_cpufreq_where_it_is_and_from_cpuinfo_otherwise() {
        let cpuinfo = "processor : 0\ncpu MHz : 2445.5\n\nprocessor : 1\ncpu MHz : 1000\n";
        let (dir, root) = fixture(&[("proc/stat", &stat(0..2)), ("proc/cpuinfo", cpuinfo)]);
        let taken = Taken::of(&mut Cores::new(&root));
        assert_eq!(taken.count("cores", "cpu0_frequency_hz"), 2_445_500_000);
        assert_eq!(taken.count("cores", "cpu1_frequency_hz"), 1_000_000_000);
        write(dir.path(), "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "3100000\n");
        let taken = Taken::of(&mut Cores::new(&root));
        assert_eq!(taken.count("cores", "cpu0_frequency_hz"), 3_100_000_000);
        assert_eq!(taken.count("cores", "cpu1_frequency_hz"), 0, "this core's file is missing");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(text in "(cpu[0-9]{0,3} [0-9 ]{0,40}\n|[ -~\n]{0,40}){0,8}") {
            take_times(text.as_bytes(), &mut [], &mut Vec::new());
            parse_cpuinfo(text.as_bytes(), |_, _| {});
        }
    }
}
