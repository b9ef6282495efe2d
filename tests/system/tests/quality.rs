//! A short real study beside a program that has nothing to do with it.
#![allow(clippy::unwrap_used)] // also in the tests' helpers

mod campaign;

use std::fs;
use std::process::{Child, Command, Stdio};

use campaign::Bench;
use recording::facts::{Disturbance, Quality, RunStatus};

const ONE_RUN: &str = "subject = \"streaming\"\nrepeats = 1\nwarmup_s = 0.5\nrecord_s = 4\n\
                       [fixed]\nsource = \"scene\"\ncodec = \"mjpeg\"\nfps = 15\nscene = \"scroll\"\n";

/// Programs that only use a CPU; gone when dropped.
struct Hogs(Vec<Child>);

impl Hogs {
    /// One for each CPU.
    fn start() -> Self {
        let cpus = std::thread::available_parallelism().unwrap().get();
        let hog = || {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do :; done"]).stdin(Stdio::null()).stdout(Stdio::null());
            command.spawn().unwrap()
        };
        Self((0..cpus).map(|_| hog()).collect())
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Ticks in which this machine's CPUs worked, and all ticks (proc(5)).
fn ticks() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let fields: Vec<u64> =
        stat.lines().next().unwrap().split_whitespace().skip(1).take(8).map(|n| n.parse().unwrap()).collect();
    let total: u64 = fields.iter().sum();
    (total - fields[3] - fields[4] - fields[7], total)
}

/// The verdict on a run, and how busy the machine was meanwhile.
fn verdict() -> (Quality, f64, String) {
    let bench = Bench::new(ONE_RUN);
    let before = ticks();
    let ended = bench.run(&["run", "small.toml", "--json"]);
    let after = ticks();
    ended.assert_code(0);
    let run = bench.facts().remove(0);
    assert_eq!(run.status, RunStatus::Complete);
    let quality = run.quality.expect("a closed run was judged");
    let listed = bench.run(&["list", "--json"]).json();
    let flagged = u64::from(quality.disturbed);
    assert_eq!(listed[0]["disturbed"], flagged, "{quality:?}");
    assert_eq!(ended.json()["disturbed"], flagged, "{quality:?}");
    let busy = (after.0 - before.0) as f64 / (after.1 - before.1) as f64;
    (quality, busy, bench.run(&["show", "latest"]).stdout)
}

fn others(quality: &Quality) -> Option<&Disturbance> {
    assert!(!quality.unknown.contains(&"others".to_owned()), "the host samples its machine: {quality:?}");
    quality.disturbances.iter().find(|d| d.kind == "others")
}

#[test]
fn a_run_beside_a_busy_program_is_flagged_for_others_and_a_quiet_one_is_not() {
    let (quiet, busy, _) = verdict();
    if let Some(found) = others(&quiet) {
        // Somebody else may use this machine while it tests; then it must be so.
        assert!(busy > stats::quality::OTHERS, "the machine was {:.0} % busy: {found:?}", busy * 100.0);
        eprintln!("this machine was not quiet, {:.0} % busy: {}", busy * 100.0, found.text);
    }

    let hogs = Hogs::start();
    let (disturbed, _, table) = verdict();
    drop(hogs);
    let found = others(&disturbed).unwrap_or_else(|| panic!("no others: {disturbed:?}"));
    assert!(disturbed.disturbed && found.share > 0.7, "all of the time, but for its ends: {found:?}");
    assert!(found.text.contains("other programs used"), "{found:?}");
    assert!(table.contains("! r0001-p00-k0 disturbed:") && table.contains("others on host"), "{table}");
}
