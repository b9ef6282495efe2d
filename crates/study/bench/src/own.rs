//! What the study itself uses of the collector's machine: this process and all that it started, panels' programs or
//! not (a display, say). Without it a run could not tell its own load from that of others.
//!
//! One row a second in `collector.process`, on the collector's clock.

use std::fs;
use std::time::{Duration, Instant};

use probe::{ColumnType, Table, Value};
use units::{Clock, MonotonicClock};

use crate::tables::Tables;

/// Time between two samples.
const EVERY: Duration = Duration::from_secs(1);
/// Descendants are looked for in each of the first samples, while programs start, and then in every n-th: to look
/// costs a file for each of their threads.
const LOOK: (u64, u64) = (4, 5);
/// Most processes that are followed.
const MAX_PROCESSES: usize = 1024;
/// Name of the table's files.
pub(crate) const STEM: &str = "collector.process";

/// Samples the study's own use while a run goes on.
pub(crate) struct OwnUse {
    table: Table,
    next: Instant,
    samples: u64,
    processes: Vec<u32>,
    /// Whether processes come and go all the time, so that one looks for them in each sample.
    restless: bool,
}

fn table() -> Table {
    let what =
        |mode: &str| format!("CPU time {mode} of the program that runs the study and of all that it started");
    Table::new("process", "the study's own use of the collector's machine, each second")
        .column("cpu_user_ns", ColumnType::U64, "ns", &what("in user mode"))
        .column("cpu_system_ns", ColumnType::U64, "ns", &what("in the kernel"))
}

impl OwnUse {
    /// Its first sample is due.
    pub(crate) fn start(restless: bool) -> Self {
        Self { table: table(), next: Instant::now(), samples: 0, processes: Vec::new(), restless }
    }

    /// Takes a sample when it is time for one.
    pub(crate) fn tick(&mut self, tables: &mut Tables) {
        if Instant::now() >= self.next {
            self.next = Instant::now() + EVERY;
            self.sample(tables);
        }
    }

    /// Takes a sample. A full disk is told when the run is closed.
    pub(crate) fn sample(&mut self, tables: &mut Tables) {
        if self.restless || self.samples < LOOK.0 || self.samples.is_multiple_of(LOOK.1) {
            self.processes = tree(std::process::id());
        }
        self.samples += 1;
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
        let used =
            self.processes.iter().filter_map(|pid| used(*pid)).fold([0u64; 2], |sum, [user, system]| {
                [sum[0].saturating_add(user), sum[1].saturating_add(system)]
            });
        let row = used.map(|ticks| Value::U64(ticks.saturating_mul(tick_ns)));
        if let Err(error) = tables.row(STEM, &self.table, MonotonicClock.now(), &row) {
            tracing::debug!(%error, "the study's own use is not recorded");
        }
    }
}

/// A process and its descendants.
fn tree(root: u32) -> Vec<u32> {
    let (mut found, mut at) = (vec![root], 0);
    while at < found.len() && found.len() < MAX_PROCESSES {
        if let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", found[at])) {
            for task in tasks.flatten() {
                let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            }
        }
        at += 1;
    }
    found
}

/// Ticks in user mode and in the kernel of a process and of its children that ended; `None` once it has ended.
fn used(pid: u32) -> Option<[u64; 2]> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields 14 to 17 of `/proc/PID/stat` (proc(5)); the name before them may hold anything.
fn parse(stat: &str) -> Option<[u64; 2]> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    let (user, system, children_user, children_system) = (next()?, next()?, next()?, next()?);
    Some([user.saturating_add(children_user), system.saturating_add(children_system)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_stat_are_found_behind_any_name() {
        let text = "12 (a) b (c)) S 1 12 12 0 -1 4194560 1 2 3 4 70 30 5 6 20 0 9 0 1234 5 6";
        assert_eq!(parse(text), Some([75, 36]));
        assert_eq!((parse("12 (cut off"), parse("")), (None, None));
    }

    #[test]
    fn work_of_a_child_is_in_the_table() {
        let dir = tempfile::tempdir().unwrap();
        let (mut own, mut tables) = (OwnUse::start(false), Tables::new(dir.path()));
        own.sample(&mut tables);
        let work = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        assert!(std::process::Command::new("sh").args(["-c", work]).status().unwrap().success());
        own.sample(&mut tables);
        tables.close().unwrap();
        let table = recording::reader::read_table(dir.path(), STEM).unwrap();
        let sum =
            |row: usize| table.u64("cpu_user_ns").unwrap()[row] + table.u64("cpu_system_ns").unwrap()[row];
        assert_eq!(table.rows, 2);
        assert!(sum(1) >= sum(0) + 10_000_000, "a tick at the least: {} {}", sum(0), sum(1));
    }
}
