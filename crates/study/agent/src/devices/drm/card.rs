//! What a GPU's driver tells in `/sys/class/drm/cardN`: use, memory, power, clocks.
//!
//! amdgpu: the kernel's `Documentation/gpu/amdgpu/thermal.rst` and `driver-misc.rst`. i915 and xe: their
//! `Documentation/ABI/testing/sysfs-driver-intel-*-hwmon`, and `gt/gt*/rps_*_freq_mhz` and `tile*/gt*/freq0/*_freq`.

use std::fs;
use std::path::{Path, PathBuf};

use units::Nanos;

use crate::devices::read_small;

/// Longest file: `pp_dpm_sclk` has a line per level.
const LONGEST: u64 = 4096;
/// More cards than any machine has.
const MAX_CARDS: usize = 64;

/// How a file's text is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    /// `1: 1825Mhz *`: the line with the star.
    Starred,
    /// A counter, of which the growth since the row before is given instead, per second.
    Rate,
}

/// A value of a card.
#[derive(Debug)]
pub(super) struct Measure {
    pub(super) column: &'static str,
    pub(super) unit: &'static str,
    pub(super) description: &'static str,
    path: PathBuf,
    scale: f64,
    form: Form,
    last: Option<(Nanos, f64)>,
}

type Row = (&'static str, &'static str, &'static str, &'static str, f64, Form);

/// Column, unit, description, file below the card's folder (`hwmon` stands for the GPU's own), factor, form. Of several
/// rows of one column the first whose file is there is taken.
const MEASURES: [Row; 19] = [
    ("gpu_percent", "%", "use, as the driver tells", "device/gpu_busy_percent", 1.0, Form::Plain),
    (
        "memory_controller_percent",
        "%",
        "use of the memory controller",
        "device/mem_busy_percent",
        1.0,
        Form::Plain,
    ),
    ("vram_used_bytes", "B", "memory of the GPU in use", "device/mem_info_vram_used", 1.0, Form::Plain),
    ("vram_total_bytes", "B", "memory of the GPU", "device/mem_info_vram_total", 1.0, Form::Plain),
    ("power_watts", "W", POWER, "hwmon/power1_average", 1e-6, Form::Plain),
    ("power_watts", "W", POWER, "hwmon/power1_input", 1e-6, Form::Plain),
    ("power_watts", "W", "mean since the row before", "hwmon/energy1_input", 1e-6, Form::Rate),
    ("energy_joules", "J", "energy since the driver was loaded", "hwmon/energy1_input", 1e-6, Form::Plain),
    ("clock_hz", "Hz", CLOCK, "hwmon/freq1_input", 1.0, Form::Plain),
    ("clock_hz", "Hz", CLOCK, "device/pp_dpm_sclk", 1e6, Form::Starred),
    ("clock_hz", "Hz", CLOCK, "gt/gt0/rps_act_freq_mhz", 1e6, Form::Plain),
    ("clock_hz", "Hz", CLOCK, "gt_act_freq_mhz", 1e6, Form::Plain),
    ("clock_hz", "Hz", CLOCK, "device/tile0/gt0/freq0/act_freq", 1e6, Form::Plain),
    ("clock_requested_hz", "Hz", REQUESTED, "gt/gt0/rps_cur_freq_mhz", 1e6, Form::Plain),
    ("clock_requested_hz", "Hz", REQUESTED, "gt_cur_freq_mhz", 1e6, Form::Plain),
    ("clock_requested_hz", "Hz", REQUESTED, "device/tile0/gt0/freq0/cur_freq", 1e6, Form::Plain),
    ("memory_clock_hz", "Hz", "clock of the memory", "hwmon/freq2_input", 1.0, Form::Plain),
    ("memory_clock_hz", "Hz", "clock of the memory", "device/pp_dpm_mclk", 1e6, Form::Starred),
    ("temperature_celsius", "\u{b0}C", "temperature of the GPU", "hwmon/temp1_input", 1e-3, Form::Plain),
];
const POWER: &str = "power, as the driver tells";
const CLOCK: &str = "clock of the graphics engine; 0 while it rests on Intel's";
const REQUESTED: &str = "clock that the driver asks for";

impl Measure {
    /// The value; not a number when it cannot be had now.
    pub(super) fn read(&mut self, now: Nanos, text: &mut String) -> f64 {
        let value = read_small(&self.path, LONGEST, text).then(|| number(self.form, text)).flatten();
        let Some(value) = value.map(|v| v * self.scale) else { return f64::NAN };
        if self.form != Form::Rate {
            return value;
        }
        match self.last.replace((now, value)) {
            Some((then, last)) if now.0 > then.0 && value >= last => {
                (value - last) / Nanos(now.0 - then.0).as_secs_f64()
            }
            _ => f64::NAN,
        }
    }
}

fn number(form: Form, text: &str) -> Option<f64> {
    let number = match form {
        Form::Plain | Form::Rate => text.trim().parse().ok()?,
        Form::Starred => {
            let line = text.lines().find(|line| line.trim_end().ends_with('*'))?;
            let value = line.split_once(':')?.1.trim_start();
            let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
            value[..digits].parse().ok()?
        }
    };
    Some(number).filter(|n: &f64| n.is_finite())
}

/// A GPU as `/sys` shows it.
#[derive(Debug)]
pub(super) struct Card {
    /// Its number: `card0` is 0.
    pub(super) number: u32,
    pub(super) driver: String,
    /// PCI address, or empty.
    pub(super) pdev: String,
    /// PCI vendor and model, or empty.
    pub(super) pci_id: String,
    pub(super) measures: Vec<Measure>,
    folder: PathBuf,
}

impl Card {
    /// All cards below `root`, by number.
    pub(super) fn all(root: &Path) -> Vec<Self> {
        let folder = root.join("sys/class/drm");
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        // `card0-HDMI-A-1` is a connector.
        let number = |name: &str| name.strip_prefix("card")?.parse::<u32>().ok();
        let mut numbers: Vec<u32> = entries.filter_map(|e| number(e.file_name().to_str()?)).collect();
        numbers.sort_unstable();
        numbers.truncate(MAX_CARDS);
        numbers.into_iter().map(|n| Self::open(n, &folder.join(format!("card{n}")))).collect()
    }

    fn open(number: u32, folder: &Path) -> Self {
        let mut text = String::new();
        read_small(&folder.join("device/uevent"), LONGEST, &mut text);
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_default().to_owned()
        };
        let (driver, pdev, pci_id) = (field("DRIVER"), field("PCI_SLOT_NAME"), field("PCI_ID"));
        let hwmon = fs::read_dir(folder.join("device/hwmon")).into_iter().flatten().flatten().next();
        let mut measures: Vec<Measure> = Vec::new();
        for (column, unit, description, file, scale, form) in MEASURES {
            let path = match (file.strip_prefix("hwmon/"), &hwmon) {
                (None, _) => folder.join(file),
                (Some(file), Some(hwmon)) => hwmon.path().join(file),
                (Some(_), None) => continue,
            };
            // A GPU that sleeps gives no values, but has the files.
            if path.exists() && measures.iter().all(|m| m.column != column) {
                measures.push(Measure { column, unit, description, path, scale, form, last: None });
            }
        }
        Self { number, driver, pdev, pci_id, measures, folder: folder.to_owned() }
    }

    /// Whether it is still there: a GPU may be unplugged, or given to a virtual machine.
    pub(super) fn is_there(&self) -> bool {
        self.folder.exists()
    }

    /// Finds its files again after it was away, when it gives the same as before.
    pub(super) fn reopen(&mut self) {
        let again = Self::open(self.number, &self.folder);
        if again.measures.iter().map(|m| m.column).eq(self.measures.iter().map(|m| m.column)) {
            self.measures = again.measures;
        }
    }

    /// Whether the GPU sleeps: then it is not asked anything, which would wake it.
    pub(super) fn sleeps(&self, text: &mut String) -> bool {
        read_small(&self.folder.join("device/power/runtime_status"), LONGEST, text)
            && text.trim() == "suspended"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_the_starred_level() {
        assert_eq!(number(Form::Starred, "0: 500Mhz \n1: 1825Mhz *\n2: 2475Mhz \n"), Some(1825.0));
        assert_eq!(number(Form::Starred, "0: 500Mhz \n"), None);
        assert_eq!(number(Form::Starred, "*"), None);
        assert_eq!(number(Form::Starred, "1: Mhz *"), None);
        assert_eq!(number(Form::Plain, "inf\n"), None);
    }
}
