//! `gpu-nvidia`: GPUs of NVIDIA, through NVML.
//!
//! NVML is reached through [`Gpus`] alone, so that the sampler is tested without a GPU. Its percentages are the
//! driver's own means over its own period (a sixth of a second to a second, by model; the encoder's and decoder's
//! likewise), not since the row before.

use probe::{ColumnType, Table, Value};
use units::{Clock, MonotonicClock};

use crate::sampler::{Rows, Sampler, SamplerInfo};

pub(super) const NAME: &str = "gpu-nvidia";
/// More GPUs than any machine has.
const MAX_GPUS: u32 = 64;

/// What a GPU tells at one instant, in NVML's units; `None` where GPU or driver does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Deserialize), serde(default, deny_unknown_fields))]
pub(super) struct Reading {
    pub(super) gpu_percent: Option<u32>,
    pub(super) memory_percent: Option<u32>,
    pub(super) encoder_percent: Option<u32>,
    pub(super) decoder_percent: Option<u32>,
    pub(super) memory_used_bytes: Option<u64>,
    pub(super) memory_total_bytes: Option<u64>,
    pub(super) power_mw: Option<u32>,
    pub(super) energy_mj: Option<u64>,
    pub(super) graphics_mhz: Option<u32>,
    pub(super) sm_mhz: Option<u32>,
    pub(super) memory_mhz: Option<u32>,
    pub(super) video_mhz: Option<u32>,
    pub(super) temperature_c: Option<u32>,
}

/// What a GPU is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Deserialize))]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) uuid: String,
    pub(super) pci: String,
}

/// The GPUs of this machine.
pub(super) trait Gpus: Send {
    /// Version of the driver.
    fn driver(&self) -> String;
    /// How many there are.
    fn count(&self) -> u32;
    /// What the `index`-th is.
    fn identity(&self, index: u32) -> Identity;
    /// What it does now; a GPU that is gone gives nothing at all.
    fn read(&self, index: u32) -> Reading;
}

/// A column and where its value comes from.
struct Measure {
    column: &'static str,
    unit: &'static str,
    description: &'static str,
    value: fn(&Reading) -> Option<f64>,
}

const fn measure(
    column: &'static str,
    unit: &'static str,
    description: &'static str,
    value: fn(&Reading) -> Option<f64>,
) -> Measure {
    Measure { column, unit, description, value }
}

const MEASURES: [Measure; 13] = [
    measure("gpu_percent", "%", "time in which some kernel ran, over NVML's period", |r| {
        r.gpu_percent.map(f64::from)
    }),
    measure("memory_controller_percent", "%", "time in which memory was read or written, same period", |r| {
        r.memory_percent.map(f64::from)
    }),
    measure("encoder_percent", "%", "use of the video encoder, over NVML's period", |r| {
        r.encoder_percent.map(f64::from)
    }),
    measure("decoder_percent", "%", "use of the video decoder, over NVML's period", |r| {
        r.decoder_percent.map(f64::from)
    }),
    measure("memory_used_bytes", "B", "memory in use", |r| r.memory_used_bytes.map(|v| v as f64)),
    measure("memory_total_bytes", "B", "memory that there is", |r| r.memory_total_bytes.map(|v| v as f64)),
    measure("power_watts", "W", "power of the whole board", |r| r.power_mw.map(|v| f64::from(v) / 1e3)),
    measure("energy_joules", "J", "energy since the driver was loaded", |r| {
        r.energy_mj.map(|v| v as f64 / 1e3)
    }),
    measure("graphics_clock_hz", "Hz", "clock of the graphics engine", |r| r.graphics_mhz.map(hertz)),
    measure("sm_clock_hz", "Hz", "clock of the streaming multiprocessors", |r| r.sm_mhz.map(hertz)),
    measure("memory_clock_hz", "Hz", "clock of the memory", |r| r.memory_mhz.map(hertz)),
    measure("video_clock_hz", "Hz", "clock of the video engines", |r| r.video_mhz.map(hertz)),
    measure("temperature_celsius", "\u{b0}C", "temperature of the die", |r| r.temperature_c.map(f64::from)),
];

fn hertz(mhz: u32) -> f64 {
    f64::from(mhz) * 1e6
}

/// One GPU, with the measures that it gives.
struct Gpu {
    index: u32,
    identity: Identity,
    measures: Vec<&'static Measure>,
    table: Table,
    introduced: bool,
    gone: bool,
}

impl Gpu {
    fn new(gpus: &dyn Gpus, index: u32) -> Self {
        let reading = gpus.read(index);
        let measures: Vec<_> = MEASURES.iter().filter(|m| (m.value)(&reading).is_some()).collect();
        let table = Table::new(format!("{NAME}-{index}"), "a GPU of NVIDIA, as NVML tells");
        let table = measures
            .iter()
            .fold(table, |table, m| table.column(m.column, ColumnType::F64, m.unit, m.description));
        let identity = gpus.identity(index);
        Self { index, identity, measures, table, introduced: false, gone: false }
    }

    fn introduce(&mut self, driver: &str, rows: &mut dyn Rows) {
        if std::mem::replace(&mut self.introduced, true) {
            return;
        }
        let Identity { name, uuid, pci } = &self.identity;
        for (fact, value) in [("name", name.as_str()), ("uuid", uuid), ("pci", pci), ("driver", driver)] {
            if !value.is_empty() {
                rows.fact(&format!("{}.{fact}", self.table.name), value);
            }
        }
    }
}

/// The sampler `gpu-nvidia`.
pub struct NvidiaGpus {
    source: Result<Box<dyn Gpus>, String>,
    gpus: Vec<Gpu>,
}

impl NvidiaGpus {
    /// Loads NVML and looks for GPUs; may take a second where the driver has to wake them.
    pub fn new() -> Self {
        Self::of(library())
    }

    fn of(source: Result<Box<dyn Gpus>, String>) -> Self {
        let count = source.as_ref().map_or(0, |gpus| gpus.count().min(MAX_GPUS));
        let gpus = match &source {
            Ok(source) => (0..count).map(|index| Gpu::new(source.as_ref(), index)).collect(),
            Err(_) => Vec::new(),
        };
        Self { source, gpus }
    }
}

impl Default for NvidiaGpus {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "nvml")]
fn library() -> Result<Box<dyn Gpus>, String> {
    super::nvml::library().map(|library| Box::new(library) as Box<dyn Gpus>)
}

#[cfg(not(feature = "nvml"))]
fn library() -> Result<Box<dyn Gpus>, String> {
    Err("NVML was left out of this build, which is static and loads no libraries: use the build with the feature nvml"
        .into())
}

impl Sampler for NvidiaGpus {
    fn info(&self) -> SamplerInfo {
        let tables: Vec<Table> =
            self.gpus.iter().filter(|gpu| !gpu.measures.is_empty()).map(|gpu| gpu.table.clone()).collect();
        let unavailable = match &self.source {
            Err(reason) => reason.clone(),
            Ok(_) if tables.is_empty() => "NVML finds no GPU that tells anything: see nvidia-smi".into(),
            Ok(_) => String::new(),
        };
        SamplerInfo {
            name: NAME.into(),
            description: "Use, memory, power, clocks and temperature of each GPU of NVIDIA.".into(),
            source: "NVML".into(),
            default: true,
            tables,
            unavailable,
        }
    }

    fn sample(&mut self, rows: &mut dyn Rows) {
        let Ok(source) = &self.source else { return };
        for gpu in self.gpus.iter_mut().filter(|gpu| !gpu.measures.is_empty()) {
            let reading = source.read(gpu.index);
            let at = MonotonicClock.now();
            let gone = reading == Reading::default();
            if gone != std::mem::replace(&mut gpu.gone, gone) {
                let (kind, what) =
                    if gone { ("source_gone", "tells nothing") } else { ("source_back", "is back") };
                rows.mark(kind, &format!("{} {what}", gpu.table.name));
            }
            if gone {
                continue;
            }
            gpu.introduce(&source.driver(), rows);
            let values: Vec<Value> =
                gpu.measures.iter().map(|m| Value::F64((m.value)(&reading).unwrap_or(f64::NAN))).collect();
            rows.row(&gpu.table, at, &values);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::devices::testing::Collected;

    /// Written by hand after NVML's documentation: a GPU for desktops, and one for computing without video clocks.
    const FIXTURE: &str = include_str!("../../tests/fixtures/nvml/two-gpus.json");

    #[derive(serde::Deserialize)]
    struct Recorded {
        driver: String,
        gpus: Vec<RecordedGpu>,
        #[serde(skip)]
        reads: AtomicUsize,
    }

    #[derive(serde::Deserialize)]
    struct RecordedGpu {
        identity: Identity,
        /// The first is read when the sampler is made.
        readings: Vec<Reading>,
    }

    impl Gpus for Recorded {
        fn driver(&self) -> String {
            self.driver.clone()
        }
        fn count(&self) -> u32 {
            self.gpus.len() as u32
        }
        fn identity(&self, index: u32) -> Identity {
            self.gpus[index as usize].identity.clone()
        }
        fn read(&self, index: u32) -> Reading {
            let at = self.reads.fetch_add(1, Ordering::Relaxed) / self.gpus.len();
            self.gpus[index as usize].readings[at]
        }
    }

    fn sampler() -> NvidiaGpus {
        let recorded: Recorded = serde_json::from_str(FIXTURE).unwrap();
        NvidiaGpus::of(Ok(Box::new(recorded)))
    }

    #[test]
    fn a_gpu_has_the_columns_that_it_gives_in_the_units_that_they_name() {
        let mut sampler = sampler();
        let info = sampler.info();
        assert!(info.unavailable.is_empty());
        assert_eq!(info.tables.len(), 2);
        info.tables.iter().for_each(|t| t.check().unwrap());
        assert_eq!(info.tables[0].columns.len(), MEASURES.len());
        assert!(info.tables[1].columns.iter().all(|c| c.name != "encoder_percent"));
        let mut rows = Collected::default();
        sampler.sample(&mut rows);
        assert_eq!(rows.f64("gpu-nvidia-0", "gpu_percent"), [37.0]);
        assert_eq!(rows.f64("gpu-nvidia-0", "encoder_percent"), [12.0]);
        assert_eq!(rows.f64("gpu-nvidia-0", "memory_used_bytes"), [2147483648.0]);
        assert_eq!(rows.f64("gpu-nvidia-0", "power_watts"), [87.25]);
        assert_eq!(rows.f64("gpu-nvidia-0", "energy_joules"), [1234.567]);
        assert_eq!(rows.f64("gpu-nvidia-0", "sm_clock_hz"), [1.8e9]);
        assert_eq!(rows.f64("gpu-nvidia-1", "temperature_celsius"), [31.0]);
        assert_eq!(rows.facts["gpu-nvidia-0.driver"], "550.54.14");
        assert!(rows.facts["gpu-nvidia-1.uuid"].starts_with("GPU-"));
    }

    #[test]
    fn a_value_that_fails_is_no_number_and_a_gpu_that_is_gone_gives_no_row() {
        let mut sampler = sampler();
        let mut rows = Collected::default();
        (0..4).for_each(|_| sampler.sample(&mut rows));
        let power = rows.f64("gpu-nvidia-0", "power_watts");
        assert_eq!((power.len(), power[1].is_nan()), (4, true));
        assert_eq!(rows.f64("gpu-nvidia-1", "power_watts").len(), 2, "gone in the second and third");
        let kinds: Vec<&str> = rows.marks.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(kinds, ["source_gone", "source_back"]);
    }

    #[cfg(not(feature = "nvml"))]
    #[test]
    fn a_build_without_nvml_says_so() {
        assert!(NvidiaGpus::new().info().unavailable.contains("left out of this build"));
    }
}
