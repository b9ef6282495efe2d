//! `energy`: what the processor's energy counters say (RAPL), through `/sys/class/powercap`.
//!
//! The kernel's `intel-rapl` also serves processors of AMD. A zone is a package, or a part of one (`core`, `uncore`,
//! `dram`); `psys` is the whole platform. See the kernel's `Documentation/power/powercap/powercap.rst`. A counter wraps
//! at `max_energy_range_uj`: some 262 kJ, which is three quarters of an hour at 100 W; of two rows further apart the
//! wraps cannot be counted.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use probe::{ColumnType, Table, Value};
use units::{Clock, MonotonicClock, Nanos};

use super::{read_small, table_part};
use crate::sampler::{Rows, Sampler, SamplerInfo};

pub(super) const NAME: &str = "energy";
/// More zones than any machine has: 8 packages of 4 parts.
const MAX_ZONES: usize = 40;
/// Longest file.
const LONGEST: u64 = 4096;

/// A counter that wraps.
#[derive(Debug, Default)]
struct Counter {
    /// The greatest value that it has; 0 where the kernel does not say.
    range_uj: u64,
    last_uj: Option<u64>,
    sum_uj: u64,
}

impl Counter {
    /// Adds what came since the last reading; gives it.
    fn advance(&mut self, now_uj: u64) -> u64 {
        let last = self.last_uj.replace(now_uj).unwrap_or(now_uj);
        let grown = match now_uj.checked_sub(last) {
            Some(grown) => grown,
            None if self.range_uj >= last => self.range_uj - last + now_uj,
            // It went back for another reason (a driver that was loaded anew): nothing is known.
            None => 0,
        };
        self.sum_uj = self.sum_uj.saturating_add(grown);
        grown
    }
}

/// One zone.
#[derive(Debug)]
struct Zone {
    file: File,
    counter: Counter,
}

impl Zone {
    fn read_uj(&self) -> Option<u64> {
        let mut text = [0; 24];
        let length = self.file.read_at(&mut text, 0).ok()?;
        std::str::from_utf8(&text[..length]).ok()?.trim().parse().ok()
    }
}

/// The sampler `energy`.
#[derive(Debug)]
pub struct Energy {
    table: Table,
    zones: Vec<Zone>,
    unavailable: String,
    last: Option<Nanos>,
    gone: bool,
}

impl Energy {
    /// Looks for zones below `root`, which is `/` but in tests.
    pub fn new(root: &Path) -> Self {
        let mut table = Table::new(NAME, "energy counters of the processors (RAPL)");
        let (mut zones, mut refused) = (Vec::new(), 0);
        for (prefix, folder) in found(&root.join("sys/class/powercap")) {
            match File::open(folder.join("energy_uj")) {
                Ok(file) => {
                    let mut text = String::new();
                    read_small(&folder.join("max_energy_range_uj"), LONGEST, &mut text);
                    let range_uj = text.trim().parse().unwrap_or(0);
                    let zone = Zone { file, counter: Counter { range_uj, ..Counter::default() } };
                    if zone.read_uj().is_none() {
                        continue;
                    }
                    table = table
                        .column(
                            &format!("{prefix}_joules"),
                            ColumnType::F64,
                            "J",
                            "energy since the first row, wraps counted",
                        )
                        .column(
                            &format!("{prefix}_watts"),
                            ColumnType::F64,
                            "W",
                            "mean power since the row before; no number in the first",
                        );
                    zones.push(zone);
                }
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => refused += 1,
                Err(_) => {}
            }
        }
        let unavailable = match (zones.len(), refused) {
            (0, 0) => {
                "there are no RAPL counters in /sys/class/powercap: on a machine that has them, modprobe \
                 intel_rapl_common; a virtual machine has none"
            }
            (0, _) => {
                "only root may read /sys/class/powercap/*/energy_uj: run as root, or let a group read it (udev)"
            }
            _ => "",
        };
        Self { table, zones, unavailable: unavailable.into(), last: None, gone: false }
    }
}

/// Zones with the beginnings of their columns' names, packages before their parts.
fn found(powercap: &Path) -> Vec<(String, std::path::PathBuf)> {
    let entries = std::fs::read_dir(powercap).into_iter().flatten().flatten();
    // `intel-rapl-mmio` gives the same counters a second time.
    let is_zone = |name: &str| name.strip_prefix("intel-rapl:").is_some_and(|rest| !rest.is_empty());
    let mut folders: Vec<String> =
        entries.filter_map(|e| e.file_name().into_string().ok()).filter(|name| is_zone(name)).collect();
    folders.sort();
    folders.truncate(MAX_ZONES);
    let name = |folder: &str| {
        let mut text = String::new();
        read_small(&powercap.join(folder).join("name"), LONGEST, &mut text)
            .then(|| table_part(text.trim(), 16).replace('-', "_"))
    };
    let mut zones: Vec<(String, std::path::PathBuf)> = Vec::new();
    for folder in &folders {
        let Some(own) = name(folder) else { continue };
        // `intel-rapl:0:1` is a part of `intel-rapl:0`.
        let parent = folder.rsplit_once(':').filter(|(parent, _)| parent.contains(':'));
        let prefix = match parent.and_then(|(parent, _)| name(parent)) {
            Some(parent) => format!("{parent}_{own}"),
            None => own,
        };
        if zones.iter().all(|(other, _)| *other != prefix) {
            zones.push((prefix, powercap.join(folder)));
        }
    }
    zones
}

impl Sampler for Energy {
    fn info(&self) -> SamplerInfo {
        let tables = if self.zones.is_empty() { Vec::new() } else { vec![self.table.clone()] };
        SamplerInfo {
            name: NAME.into(),
            description: "Energy and power of processor packages and their parts.".into(),
            source: "/sys/class/powercap/intel-rapl*".into(),
            default: true,
            tables,
            unavailable: self.unavailable.clone(),
        }
    }

    fn sample(&mut self, rows: &mut dyn Rows) {
        if self.zones.is_empty() {
            return;
        }
        let at = MonotonicClock.now();
        let seconds = self.last.replace(at).map(|last| Nanos(at.0 - last.0).as_secs_f64());
        let mut values = Vec::with_capacity(2 * self.zones.len());
        for zone in &mut self.zones {
            let grown = zone.read_uj().map(|uj| zone.counter.advance(uj));
            let watts = match (grown, seconds) {
                (Some(grown), Some(seconds)) if seconds > 0.0 => grown as f64 / 1e6 / seconds,
                _ => f64::NAN,
            };
            let joules = if grown.is_some() { zone.counter.sum_uj as f64 / 1e6 } else { f64::NAN };
            values.extend([Value::F64(joules), Value::F64(watts)]);
        }
        let gone = values.iter().all(|v| matches!(v, Value::F64(v) if v.is_nan()));
        if gone != std::mem::replace(&mut self.gone, gone) {
            let (kind, text) = if gone {
                ("source_gone", "RAPL counters cannot be read any more")
            } else {
                ("source_back", "RAPL counters are back")
            };
            rows.mark(kind, text);
        }
        if !gone {
            rows.row(&self.table, at, &values);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::devices::testing::Collected;

    /// A copy of the fixture, whose counters may be written.
    fn machine() -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rapl/sys/class/powercap");
        for zone in fs::read_dir(fixture).unwrap().flatten() {
            let to = copy.path().join("sys/class/powercap").join(zone.file_name());
            fs::create_dir_all(&to).unwrap();
            for file in fs::read_dir(zone.path()).unwrap().flatten() {
                fs::copy(file.path(), to.join(file.file_name())).unwrap();
            }
        }
        copy
    }

    fn set(machine: &tempfile::TempDir, zone: &str, uj: u64) {
        let path = machine.path().join("sys/class/powercap").join(zone).join("energy_uj");
        fs::write(path, format!("{uj}\n")).unwrap();
    }

    #[test]
    fn energy_is_counted_over_a_wrap() {
        let machine = machine();
        let mut energy = Energy::new(machine.path());
        let names: Vec<_> = energy.table.columns.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "package_0_joules",
                "package_0_watts",
                "package_0_core_joules",
                "package_0_core_watts",
                "psys_joules",
                "psys_watts"
            ]
        );
        let mut rows = Collected::default();
        // 262143328850 is the range.
        for (package, core) in [(262143000000, 1000), (262143328850, 2_001_000), (5_000_000, 2_001_000)] {
            set(&machine, "intel-rapl:0", package);
            set(&machine, "intel-rapl:0:0", core);
            energy.sample(&mut rows);
        }
        assert_eq!(rows.f64("energy", "package_0_joules"), [0.0, 0.32885, 5.32885]);
        assert_eq!(rows.f64("energy", "package_0_core_joules"), [0.0, 2.0, 2.0]);
        let watts = rows.f64("energy", "package_0_core_watts");
        assert!(watts[0].is_nan() && watts[1] > 0.0 && watts[2] == 0.0, "{watts:?}");
        let seconds = Nanos(rows.rows[1].1.0 - rows.rows[0].1.0).as_secs_f64();
        assert!((watts[1] * seconds - 2.0).abs() < 1e-9, "watts times seconds are joules");
    }

    #[test]
    fn counters_that_fail_are_marked_once_and_come_back() {
        let machine = machine();
        let mut energy = Energy::new(machine.path());
        let mut rows = Collected::default();
        energy.sample(&mut rows);
        for zone in ["intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1"] {
            fs::write(machine.path().join("sys/class/powercap").join(zone).join("energy_uj"), "?").unwrap();
        }
        energy.sample(&mut rows);
        energy.sample(&mut rows);
        set(&machine, "intel-rapl:1", 7);
        energy.sample(&mut rows);
        assert_eq!(rows.rows.len(), 2);
        let kinds: Vec<&str> = rows.marks.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(kinds, ["source_gone", "source_back"]);
    }

    #[test]
    fn a_machine_without_counters_says_what_would_help() {
        let empty = tempfile::tempdir().unwrap();
        let info = Energy::new(empty.path()).info();
        assert!(info.unavailable.contains("modprobe"), "{}", info.unavailable);
        assert!(info.tables.is_empty());
    }

    #[test]
    fn a_user_who_may_not_read_them_is_told_to_be_root() {
        use std::os::unix::fs::PermissionsExt;
        let machine = machine();
        for zone in ["intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1"] {
            let path = machine.path().join("sys/class/powercap").join(zone).join("energy_uj");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
            if File::open(&path).is_ok() {
                eprintln!("SKIPPED: this user may read everything");
                return;
            }
        }
        assert!(Energy::new(machine.path()).info().unavailable.contains("run as root"));
    }

    proptest! {
        #[test]
        fn the_sum_is_what_was_used_whatever_the_wraps(steps in proptest::collection::vec(0u64..1000, 0..50)) {
            let mut counter = Counter { range_uj: 1000, ..Counter::default() };
            let (mut position, mut total) = (0, 0);
            counter.advance(0);
            for step in steps {
                total += step;
                position += step;
                // The kernel's counter goes from the range to 0 at once.
                if position >= 1000 {
                    position -= 1000;
                }
                counter.advance(position);
                prop_assert_eq!(counter.sum_uj, total);
            }
        }
    }
}
