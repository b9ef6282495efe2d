//! The tables of `qmp`.

use probe::ColumnType::{Bool, U64};
use probe::{Table, Value};

use super::answers::BlockStats;
use super::positive;

/// The machine.
pub(super) fn main(prefix: &str) -> Table {
    Table::new(prefix, "a virtual machine, as QEMU tells")
        .column("running", Bool, "", "whether the vCPUs run (query-status)")
        .column("balloon_actual_bytes", U64, "B", "memory that the guest has; 0 without a balloon device")
        .column("spice_clients", U64, "1", "SPICE clients that are connected")
        .column("spice_channels", U64, "1", "their channels")
        .column("answer_ns", U64, "ns", "from the questions to the last answer: how busy QEMU's main loop is")
}

/// A block device.
pub(super) fn block(prefix: &str, part: &str) -> Table {
    let counters = [
        ("rd_bytes", "B", "read by the guest"),
        ("wr_bytes", "B", "written by the guest"),
        ("rd_operations", "1", "reads"),
        ("wr_operations", "1", "writes"),
        ("flush_operations", "1", "flushes"),
        ("rd_time_ns", "ns", "time in reads, summed over them"),
        ("wr_time_ns", "ns", "time in writes, summed over them"),
        ("flush_time_ns", "ns", "time in flushes, summed over them"),
        ("failed_operations", "1", "reads, writes and flushes that failed"),
    ];
    let table =
        Table::new(format!("{prefix}-block-{part}"), "a block device since QEMU's start (query-blockstats)");
    counters.into_iter().fold(table, |table, (name, unit, what)| table.column(name, U64, unit, what))
}

/// A row of [`block`].
pub(super) fn block_values(stats: &BlockStats) -> [Value; 9] {
    let failed = [stats.failed_rd_operations, stats.failed_wr_operations, stats.failed_flush_operations];
    [
        positive(stats.rd_bytes),
        positive(stats.wr_bytes),
        positive(stats.rd_operations),
        positive(stats.wr_operations),
        positive(stats.flush_operations),
        positive(stats.rd_total_time_ns),
        positive(stats.wr_total_time_ns),
        positive(stats.flush_total_time_ns),
        failed.into_iter().map(positive).fold(0, u64::saturating_add),
    ]
    .map(Value::U64)
}

/// A virtual CPU.
pub(super) fn cpu(prefix: &str, index: u32) -> Table {
    Table::new(format!("{prefix}-vcpu-{index}"), "a virtual CPU's thread since its start")
        .column("cpu_ns", U64, "ns", "CPU time of the thread")
        .column("run_delay_ns", U64, "ns", "time in which it could have run and waited for a CPU")
}
