//! The sampler `qmp` against a real QEMU, whose firmware reads a disk and finds nothing to boot.
#![allow(clippy::unwrap_used)] // also in the tests' helpers

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent::sampler::{PATIENCE, Rows, Sampler};
use probe::{Table, Value};
use rustix::process::{Pid, Signal, kill_process};
use units::Nanos;

/// The firmware has read the disk after a second on a free machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// Everything that the sampler gave: rows by table, as values by column.
#[derive(Default)]
struct Collected {
    rows: BTreeMap<String, Vec<BTreeMap<String, Value>>>,
    marks: Vec<String>,
    facts: BTreeMap<String, String>,
}

impl Rows for Collected {
    fn row(&mut self, table: &Table, _at: Nanos, values: &[Value]) {
        let names = table.columns.iter().map(|c| c.name.clone());
        let row = names.zip(values.iter().copied()).collect();
        self.rows.entry(table.name.clone()).or_default().push(row);
    }

    fn mark(&mut self, kind: &str, text: &str) {
        eprintln!("{kind}: {text}");
        self.marks.push(kind.into());
    }

    fn fact(&mut self, name: &str, value: &str) {
        self.facts.insert(name.into(), value.into());
    }
}

impl Collected {
    fn last(&self, table: &str, column: &str) -> u64 {
        match self.rows.get(table).and_then(|rows| rows.last()?.get(column).copied()) {
            Some(Value::U64(value)) => value,
            Some(Value::Bool(value)) => value.into(),
            Some(other) => panic!("{table}.{column} is {other:?}"),
            None => 0,
        }
    }
}

struct Machine(Child);

impl Machine {
    /// `None` where there is no QEMU.
    fn start(folder: &Path) -> Option<Self> {
        let disk = folder.join("disk.img");
        std::fs::File::create(&disk).unwrap().set_len(1 << 20).unwrap();
        let at = |option: &str, path: &Path, more: &str| format!("{option}{}{more}", path.display());
        let child = Command::new("qemu-system-x86_64")
            .args(["-machine", "pc,accel=tcg", "-m", "64", "-smp", "2", "-name", "left", "-display", "none"])
            .args(["-vga", "none", "-nodefaults", "-no-user-config"])
            .args(["-qmp", &at("unix:", &folder.join("qmp"), ",server=on,wait=off")])
            .args(["-drive", &at("id=disk0,if=none,format=raw,file=", &disk, "")])
            .args(["-device", "virtio-blk-pci,drive=disk0,bootindex=0", "-device", "virtio-balloon-pci"])
            .args(["-spice", &at("unix=on,disable-ticketing=on,addr=", &folder.join("spice"), "")])
            .stdin(Stdio::null())
            .spawn();
        match child {
            Ok(child) => Some(Self(child)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("SKIPPED: install the Debian package qemu-system-x86");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Samples until `done`, and checks that no sample waits longer than it may.
fn sample_until(
    sampler: &mut dyn Sampler,
    rows: &mut Collected,
    what: &str,
    done: impl Fn(&Collected) -> bool,
) {
    let start = Instant::now();
    while !done(rows) {
        assert!(start.elapsed() < DEADLINE, "{what} did not come: {:?}", rows.marks);
        sampler.sample(rows);
        std::thread::yield_now();
    }
}

#[test]
fn a_real_qemu_is_sampled_while_it_runs_stops_and_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let target = format!("unix:{}", folder.path().join("qmp").display());
    let mut sampler = agent::services::open("qmp", Some(&target)).unwrap().unwrap();
    let sampler = sampler.as_mut();
    let mut rows = Collected::default();
    sampler.sample(&mut rows);
    assert_eq!(rows.marks, ["source_gone"], "QEMU does not run yet");
    let Some(machine) = Machine::start(folder.path()) else { return };

    sample_until(sampler, &mut rows, "a read by the firmware", |rows| {
        rows.last("qmp-block-disk0", "rd_bytes") > 0
    });
    // On a loaded machine QEMU may be late.
    rows.marks.retain(|kind| kind != "late" && kind != "qemu");
    assert_eq!(rows.marks, ["source_gone", "source_back"]);
    assert_eq!(rows.last("qmp", "running"), 1);
    assert_eq!(rows.last("qmp", "balloon_actual_bytes"), 64 << 20);
    assert!(rows.last("qmp-block-disk0", "rd_operations") > 0);
    assert!(rows.last("qmp-block-disk0", "rd_time_ns") > 0);
    assert_eq!(rows.last("qmp", "spice_clients"), 0);
    assert_eq!(rows.facts["qmp.name"], "left");
    assert_eq!(rows.facts["qmp.status"], "running");
    assert!(rows.last("qmp-vcpu-0", "cpu_ns") > 0, "QEMU runs on this machine");
    assert!(rows.rows.contains_key("qmp-vcpu-1"));
    eprintln!("the last answer took {} us", rows.last("qmp", "answer_ns") / 1000);

    // A QEMU that does not answer is waited for once.
    let count = rows.rows["qmp"].len();
    sample_until(sampler, &mut rows, "an answer", |rows| rows.rows["qmp"].len() > count);
    let late = rows.marks.iter().filter(|kind| *kind == "late").count();
    machine.signal(Signal::STOP);
    sample_until(sampler, &mut rows, "the wait", |rows| {
        rows.marks.iter().filter(|kind| *kind == "late").count() > late
    });
    let (count, start) = (rows.rows["qmp"].len(), Instant::now());
    (0..100).for_each(|_| sampler.sample(&mut rows));
    assert!(start.elapsed() < 50 * PATIENCE, "{:?} for a hundred samples", start.elapsed());
    assert_eq!(rows.rows["qmp"].len(), count);
    machine.signal(Signal::CONT);
    sample_until(sampler, &mut rows, "the late answer", |rows| rows.rows["qmp"].len() > count);

    drop(machine);
    let back = |rows: &Collected| rows.marks.iter().filter(|kind| *kind == "source_back").count();
    sample_until(sampler, &mut rows, "the end", |rows| {
        rows.marks.iter().filter(|kind| *kind == "source_gone").count() == 2
    });
    let _again = Machine::start(folder.path()).unwrap();
    sample_until(sampler, &mut rows, "the new machine", |rows| back(rows) == 2);
}
