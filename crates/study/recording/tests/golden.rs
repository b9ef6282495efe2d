//! A record of every version of the format is read as it was meant. The files are never made again.
#![allow(clippy::unwrap_used)] // the lint knows tests by their attribute, not their helpers

use std::path::Path;

use recording::facts::{RunStatus, read_run};
use recording::reader::{read_table, tables};
use recording::spec::Panel;

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

fn v1_2() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1.2"))
}

#[test]
fn version_1_2_facts_have_sources_clock_steps_quality_and_origin() {
    let run = read_run(&v1_2().join("run.toml")).unwrap();
    assert_eq!((run.format, run.minor), (1, 2));
    assert_eq!(run.panels.keys().collect::<Vec<_>>(), ["guest", "guest/triptych-agent"]);
    let clock = run.panels["guest"].clock.as_ref().unwrap();
    assert_eq!(clock.to_collector(3_000_000_000), 3_000_001_500);
    assert_eq!(clock.to_collector(4_000_000_000), 4_500_001_500, "after the step");
    assert_eq!(clock.worst_uncertainty_ns(), 55_000);
    let quality = run.quality.unwrap();
    assert!(quality.disturbed);
    assert_eq!((quality.disturbances[0].kind.as_str(), quality.disturbances[0].share), ("steal", 0.25));
    assert_eq!((quality.disturbances[0].panel, quality.disturbances[1].panel), (Some(Panel::Guest), None));
    assert_eq!(quality.unknown, ["lag"]);
    let import = run.import.unwrap();
    assert_eq!((import.format.as_str(), import.skipped["row of the wrong length"]), ("rec", 3));
    assert_eq!(import.assumptions.len(), 1);
}

#[test]
fn version_1_2_tables_of_all_sources_are_read() {
    assert_eq!(tables(v1_2()).unwrap(), ["guest.cpu", "guest.cpu-2", "guest.frames"]);
    let frames = read_table(v1_2(), "guest.frames").unwrap();
    assert_eq!(frames.i64("t_ns").unwrap(), [3_000_000_000, 5_000_000_000]);
    assert_eq!(frames.i64("presented_ns").unwrap(), [3_010_000_000, 0]);
    assert_eq!(read_table(v1_2(), "guest.cpu").unwrap().f64("user_percent").unwrap(), [12.5]);
    assert_eq!(read_table(v1_2(), "guest.cpu-2").unwrap().f64("user_percent").unwrap(), [50.0]);
}
