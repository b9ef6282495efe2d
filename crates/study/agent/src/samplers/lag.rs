//! Scheduling lag: how late a thread that sleeps is woken. It is what a program on this machine feels of steal, of
//! pressure and of deep sleep states, measured rather than inferred.
//!
//! The thread is the agent's own, which sleeps until the next sample is due: a thread only for this would cost more than
//! all else that is sampled (to be woken costs 5 us of CPU on bare metal, and 60 us in a virtual machine whose idle cores
//! leave it). A sleep in which something else came does not count. `/proc/schedstat`, where the kernel has it, adds the time
//! that all threads together waited for a CPU.

use std::time::Duration;

use probe::{ColumnType, Table, Value};
use units::{Clock, MonotonicClock};

use super::source::Source;
use super::text::{lines, number, words};
use super::{Kind, Root, Target};
use crate::sampler::{Rows, Sampler, SamplerInfo};

/// How it is chosen and opened.
pub(super) const KIND: Kind =
    Kind { name: "lag", default: true, target: Target::None, open: |root, _| Ok(Box::new(Lag::new(root))) };

const DESCRIPTION: &str = "how late the agent is woken, and how long threads wait for a CPU";

/// What was told of sleeps since the row before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Late {
    wakes: u64,
    sum_ns: u64,
    max_ns: u64,
}

/// The time that threads waited for a CPU, summed over the cores of `/proc/schedstat` (sched-stats.rst, field 8).
fn waited_ns(text: &[u8]) -> Option<u64> {
    let cores = lines(text).filter(|line| line.starts_with(b"cpu"));
    let waits = cores.filter_map(|line| words(line).nth(8).and_then(number));
    waits.fold(None, |sum: Option<u64>, wait| Some(sum.unwrap_or(0).saturating_add(wait)))
}

struct Lag {
    /// Only where the kernel has it.
    schedstat: Option<Source>,
    table: Table,
    late: Late,
    waited_ns: u64,
}

impl Lag {
    fn new(root: &Root) -> Self {
        let mut source = Source::new(root.proc("schedstat"));
        let told = source.text().is_ok_and(|text| waited_ns(text).is_some());
        let table = Table::new(KIND.name, DESCRIPTION)
            .column(
                "wakes",
                ColumnType::U64,
                "1",
                "sleeps of the agent that ended by themselves since the row before",
            )
            .column(
                "late_max_ns",
                ColumnType::U64,
                "ns",
                "how late it was woken from the worst of them; 0 without any",
            )
            .column("late_mean_ns", ColumnType::U64, "ns", "how late it was woken on average; 0 without any");
        let table = match told {
            false => table,
            true => table.column(
                "waited_ns",
                ColumnType::U64,
                "ns",
                "time since boot that threads were ready and waited for a CPU, summed over threads",
            ),
        };
        Self { schedstat: told.then_some(source), table, late: Late::default(), waited_ns: 0 }
    }
}

impl Sampler for Lag {
    fn info(&self) -> SamplerInfo {
        let mut source = "the agent's own sleeps".to_owned();
        if self.schedstat.is_some() {
            source.push_str(", /proc/schedstat");
        }
        SamplerInfo {
            name: KIND.name.into(),
            description: DESCRIPTION.into(),
            source,
            default: KIND.default,
            tables: vec![self.table.clone()],
            unavailable: String::new(),
        }
    }

    fn woken(&mut self, late: Duration) {
        let late_ns = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
        self.late.wakes += 1;
        self.late.sum_ns = self.late.sum_ns.saturating_add(late_ns);
        self.late.max_ns = self.late.max_ns.max(late_ns);
    }

    fn sample(&mut self, rows: &mut dyn Rows) {
        let late = std::mem::take(&mut self.late);
        let at = MonotonicClock.now();
        let mean = late.sum_ns.checked_div(late.wakes).unwrap_or(0);
        let values = [late.wakes, late.max_ns, mean, self.waited_ns].map(Value::U64);
        match &mut self.schedstat {
            None => rows.row(&self.table, at, &values[..3]),
            Some(source) => {
                self.waited_ns = source.parse(rows, waited_ns).unwrap_or(self.waited_ns);
                let [wakes, max, mean, _] = values;
                rows.row(&self.table, at, &[wakes, max, mean, Value::U64(self.waited_ns)]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::testing::{Taken, fixture};

    #[test]
    fn waits_of_all_cores_are_summed() {
        let text = "version 17\ntimestamp 4295\ncpu0 0 0 0 0 0 0 85 40 1296\ndomain0 MC 3 1 2\n\
            cpu1 0 0 0 0 0 0 85 2 1296\n";
        assert_eq!(waited_ns(text.as_bytes()), Some(42));
        for text in ["", "version 17\n", "cpu0 1 2 3\n", "cpu0 0 0 0 0 0 0 85 x 1"] {
            assert_eq!(waited_ns(text.as_bytes()), None, "{text}");
        }
        let (_dir, root) = fixture(&[("proc/schedstat", text)]);
        assert_eq!(Taken::of(&mut Lag::new(&root)).count("lag", "waited_ns"), 42);
    }

    #[test]
    fn a_row_tells_of_the_sleeps_since_the_one_before() {
        let mut lag = Lag::new(&Root::at("/nowhere"));
        let row = |lag: &mut Lag| {
            let taken = Taken::of(lag);
            ["wakes", "late_max_ns", "late_mean_ns"].map(|column| taken.count("lag", column))
        };
        for late_us in [60, 77_000, 40] {
            lag.woken(Duration::from_micros(late_us));
        }
        assert_eq!(row(&mut lag), [3, 77_000_000, 25_700_000]);
        assert_eq!(row(&mut lag), [0, 0, 0]);
        lag.woken(Duration::MAX);
        lag.woken(Duration::MAX);
        assert_eq!(row(&mut lag)[..2], [2, u64::MAX]);
    }
}
