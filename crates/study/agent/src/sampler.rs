//! What samplers have in common: each reads one source (a file of `/proc`, a GPU, QEMU's monitor) and gives rows.
//!
//! A sampler is asked at its own rate by the agent's one thread, so [`Sampler::sample`] must not wait: what takes long
//! (a monitor that does not answer) is bounded to [`PATIENCE`], or happens on a thread of the sampler's own. Instants are
//! those of this machine's monotonic clock.

use std::time::Duration;

use probe::{Table, Value};
use serde::Serialize;
use units::Nanos;

/// The longest that one call of [`Sampler::sample`] may wait for somebody else.
pub const PATIENCE: Duration = Duration::from_millis(50);

/// What a sampler is, for people and for `triptych-agent list`.
#[derive(Clone, Debug, Serialize)]
pub struct SamplerInfo {
    /// Lower-case name, by which it is chosen: `machine`, `disk`, `gpu-nvidia`.
    pub name: String,
    /// One sentence.
    pub description: String,
    /// Where the numbers come from: `/proc/stat`, `NVML`, `QMP query-blockstats`.
    pub source: String,
    /// Taken unless the person chooses otherwise.
    pub default: bool,
    /// What it gives here and now, with units; other tables may come later (a disk that is plugged in).
    pub tables: Vec<Table>,
    /// Why it gives nothing on this machine, and what would help; empty where it works.
    pub unavailable: String,
}

/// Takes what samplers find. A table is known by its name; it appears in the record with its first row.
pub trait Rows {
    /// Adds a row to `table`: one value per column, in order.
    fn row(&mut self, table: &Table, at: Nanos, values: &[Value]);
    /// Something happened just now: a process started again, a disk went away. `kind` is one lower-case word.
    fn mark(&mut self, kind: &str, text: &str);
    /// A fact that holds from now on (`disk.vda.model`); said again only when it has changed.
    fn fact(&mut self, name: &str, value: &str);
}

/// One source of indicators.
pub trait Sampler: Send {
    /// What it is. Called rarely; may look at the machine.
    fn info(&self) -> SamplerInfo;

    /// The agent's thread slept until something was due, and was woken so much later. Told of every such sleep, before what
    /// was due is done.
    fn woken(&mut self, _late: Duration) {}

    /// Reads its source once. A source that has gone gives no rows (and a mark, once); it may come back.
    fn sample(&mut self, rows: &mut dyn Rows);
}
