//! What the whole machine does, from `/proc/stat`, `/proc/meminfo`, `/proc/loadavg` and `/proc/pressure/cpu`.

use std::fs;

use probe::{ColumnType, Emitter, Table, Value};
use units::{Clock, MonotonicClock};

/// Samples the machine.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    last: Option<Cpu>,
}

/// CPU ticks since the start of the machine, summed over its cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cpu {
    user: u64,
    system: u64,
    iowait: u64,
    steal: u64,
    idle: u64,
}

impl Cpu {
    fn parse(stat: &str) -> Self {
        // user nice system idle iowait irq softirq steal (guest times are part of user), see proc(5).
        let line = stat.lines().find_map(|l| l.strip_prefix("cpu ")).unwrap_or_default();
        let mut fields = [0u64; 8];
        fields.iter_mut().zip(line.split_whitespace()).for_each(|(f, text)| *f = text.parse().unwrap_or(0));
        let [user, nice, system, idle, iowait, irq, softirq, steal] = fields;
        Self { user: user + nice, system: system + irq + softirq, iowait, steal, idle }
    }

    fn total(self) -> u64 {
        self.user + self.system + self.iowait + self.steal + self.idle
    }

    fn busy(self) -> u64 {
        self.user + self.system
    }
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|l| l.strip_prefix(name));
    line.and_then(|l| l.trim_start_matches([':', ' ', '\t']).split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

impl Machine {
    pub(crate) fn table() -> Table {
        Table::new("machine", "the whole machine, each second")
            .column("cpu_user_ns", ColumnType::U64, "ns", "CPU time in user mode since its start, all cores")
            .column(
                "cpu_system_ns",
                ColumnType::U64,
                "ns",
                "CPU time in the kernel since its start, interrupts included, all cores",
            )
            .column(
                "cpu_iowait_ns",
                ColumnType::U64,
                "ns",
                "idle time with disk requests under way, all cores",
            )
            .column(
                "cpu_steal_ns",
                ColumnType::U64,
                "ns",
                "time that the hypervisor gave to others, all cores",
            )
            .column("cpu_idle_ns", ColumnType::U64, "ns", "idle time, all cores")
            .column("context_switches", ColumnType::U64, "1", "context switches since its start")
            .column("mem_available_bytes", ColumnType::U64, "B", "memory that could be had without swapping")
            .column("load_1", ColumnType::F64, "1", "load average over a minute")
            .column(
                "psi_cpu_some_us",
                ColumnType::U64,
                "us",
                "time in which some task waited for a CPU; 0 where the kernel does not tell",
            )
            .column(
                "cpu_percent",
                ColumnType::F64,
                "%",
                "user and kernel time since the row before; 100 is the whole machine",
            )
    }

    pub(crate) fn sample(&mut self, emitter: &mut Emitter) {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (stat, memory, load) = (read("/proc/stat"), read("/proc/meminfo"), read("/proc/loadavg"));
        let pressure = read("/proc/pressure/cpu");
        let cpu = Cpu::parse(&stat);
        let percent = self.last.map_or(0.0, |last| {
            let total = cpu.total().saturating_sub(last.total());
            if total == 0 {
                0.0
            } else {
                100.0 * cpu.busy().saturating_sub(last.busy()) as f64 / total as f64
            }
        });
        self.last = Some(cpu);
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
        let ns = |ticks: u64| Value::U64(ticks.saturating_mul(tick_ns));
        let total = pressure.lines().find_map(|l| l.strip_prefix("some ")?.split_once("total="));
        let stalled = total.and_then(|(_, n)| n.trim().parse().ok()).unwrap_or(0);
        emitter.emit(
            MonotonicClock.now(),
            &[
                ns(cpu.user),
                ns(cpu.system),
                ns(cpu.iowait),
                ns(cpu.steal),
                ns(cpu.idle),
                Value::U64(field(&stat, "ctxt")),
                Value::U64(field(&memory, "MemAvailable").saturating_mul(1024)),
                Value::F64(load.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0.0)),
                Value::U64(stalled),
                Value::F64(percent),
            ],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_summed_as_the_kernel_documents_them() {
        let cpu = Cpu::parse("cpu  10 1 20 100 5 2 3 4 6 0\ncpu0 1 1 1 1\nctxt 77\n");
        assert_eq!(cpu, Cpu { user: 11, system: 25, iowait: 5, steal: 4, idle: 100 });
        assert_eq!((cpu.busy(), cpu.total()), (36, 145));
        assert_eq!(field("cpu 1\nctxt 77\n", "ctxt"), 77);
    }

    #[test]
    fn an_unreadable_kernel_gives_zeros() {
        assert_eq!(Cpu::parse(""), Cpu::default());
        assert_eq!(field("MemFree: x kB", "MemFree"), 0);
    }
}
