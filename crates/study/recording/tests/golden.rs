//! A record of every version of the format is read as it was meant. The files are never made again.
#![allow(clippy::unwrap_used)] // the lint knows tests by their attribute, not their helpers

use std::path::Path;

use recording::facts::{RunStatus, read_run};
use recording::reader::{read_table, tables};

fn v1() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1"))
}

#[test]
fn version_1_facts_are_read() {
    let run = read_run(&v1().join("run.toml")).unwrap();
    assert_eq!((run.format, run.minor, run.status), (1, 0, RunStatus::Complete));
    assert_eq!(run.window_ns, Some([2_000_000_000, 4_000_000_000]));
    let clock = run.panels["guest"].clock.as_ref().unwrap();
    assert_eq!(clock.to_collector(clock.reference_ns), clock.reference_ns + clock.offset_ns);
}

#[test]
fn version_1_tables_are_read_closed_and_unclosed() {
    assert_eq!(tables(v1()).unwrap(), ["guest.frames", "host.frames"]);
    let closed = read_table(v1(), "guest.frames").unwrap();
    assert_eq!((closed.rows, closed.unit("fps"), closed.complete), (3, Some("Hz"), true));
    assert_eq!(closed.i64("t_ns").unwrap(), [2_000_000_000, 2_500_000_000, 3_000_000_000]);
    assert_eq!(closed.u64("size_bytes").unwrap(), [900, 100, 120]);
    assert_eq!(closed.f64("fps").unwrap(), [30.0, 29.5, 30.5]);
    assert_eq!(closed.bool("keyframe").unwrap(), [true, false, false]);
    // The writer of this one was killed: two batches are whole, the third is torn.
    let torn = read_table(v1(), "host.frames").unwrap();
    assert_eq!((torn.rows, torn.complete), (2, false));
    assert_eq!(torn.u64("size_bytes").unwrap(), [900, 100]);
}
