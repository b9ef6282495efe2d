//! NVML itself, loaded when it is first asked for.

use std::ffi::OsStr;
use std::sync::OnceLock;

use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::nvidia::{Gpus, Identity, Reading};

/// The library of the driver.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// Loaded once for the whole program, and never unloaded: handles to GPUs stay valid as long.
static LOADED: OnceLock<Nvml> = OnceLock::new();

/// The GPUs that NVML knows.
pub(super) struct Library {
    nvml: &'static Nvml,
    devices: Vec<Option<Device<'static>>>,
    driver: String,
}

/// Loads NVML.
///
/// # Errors
/// Why there is none, and what would help.
pub(super) fn library() -> Result<Library, String> {
    let nvml = match LOADED.get() {
        Some(nvml) => nvml,
        None => {
            let nvml = load(LIBRARY)?;
            LOADED.get_or_init(|| nvml)
        }
    };
    let count = nvml.device_count().map_err(|error| format!("NVML does not count its GPUs: {error}"))?;
    let devices = (0..count).map(|index| nvml.device_by_index(index).ok()).collect();
    Ok(Library { nvml, devices, driver: nvml.sys_driver_version().unwrap_or_default() })
}

fn load(path: &str) -> Result<Nvml, String> {
    Nvml::builder().lib_path(OsStr::new(path)).init().map_err(|error| match error {
        NvmlError::LibloadingError(_) => {
            format!(
                "{path} is not there: install NVIDIA's driver (in a container, pass its libraries through)"
            )
        }
        NvmlError::FailedToLoadSymbol(_) => {
            format!("{path} is not NVML, or an old one: update NVIDIA's driver")
        }
        NvmlError::DriverNotLoaded => "NVIDIA's driver is not loaded: modprobe nvidia".into(),
        NvmlError::NoPermission => {
            "NVIDIA's driver may not be used: let this user read and write /dev/nvidia*".into()
        }
        other => format!("NVML cannot be used: {other}"),
    })
}

impl Library {
    fn device(&self, index: u32) -> Option<&Device<'static>> {
        self.devices.get(index as usize)?.as_ref()
    }
}

impl Gpus for Library {
    fn driver(&self) -> String {
        self.driver.clone()
    }

    fn count(&self) -> u32 {
        self.nvml.device_count().unwrap_or(0).min(self.devices.len() as u32)
    }

    fn identity(&self, index: u32) -> Identity {
        let Some(device) = self.device(index) else { return Identity::default() };
        Identity {
            name: device.name().unwrap_or_default(),
            uuid: device.uuid().unwrap_or_default(),
            pci: device.pci_info().map(|pci| pci.bus_id).unwrap_or_default(),
        }
    }

    fn read(&self, index: u32) -> Reading {
        let Some(device) = self.device(index) else { return Reading::default() };
        let utilization = device.utilization_rates().ok();
        let memory = device.memory_info().ok();
        let clock = |clock| device.clock_info(clock).ok();
        Reading {
            gpu_percent: utilization.as_ref().map(|u| u.gpu),
            memory_percent: utilization.as_ref().map(|u| u.memory),
            encoder_percent: device.encoder_utilization().ok().map(|u| u.utilization),
            decoder_percent: device.decoder_utilization().ok().map(|u| u.utilization),
            memory_used_bytes: memory.as_ref().map(|m| m.used),
            memory_total_bytes: memory.as_ref().map(|m| m.total),
            power_mw: device.power_usage().ok(),
            energy_mj: device.total_energy_consumption().ok(),
            graphics_mhz: clock(Clock::Graphics),
            sm_mhz: clock(Clock::SM),
            memory_mhz: clock(Clock::Memory),
            video_mhz: clock(Clock::Video),
            temperature_c: device.temperature(TemperatureSensor::Gpu).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_missing_or_is_another_one_is_said_to_be() {
        let error = load("/nowhere/libnvidia-ml.so.1").err().unwrap();
        assert!(error.starts_with("/nowhere/libnvidia-ml.so.1 is not there: install"), "{error}");
        let error = load("libc.so.6").err().unwrap();
        assert!(error.contains("is not NVML"), "{error}");
    }

    #[test]
    fn without_the_library_the_sampler_is_unavailable_and_gives_nothing() {
        let Err(reason) = library() else {
            eprintln!("SKIPPED: this machine has NVML");
            return;
        };
        let mut sampler = crate::devices::NvidiaGpus::new();
        let info = crate::sampler::Sampler::info(&sampler);
        assert_eq!((info.unavailable, info.tables.len()), (reason, 0));
        let mut rows = crate::devices::testing::Collected::default();
        crate::sampler::Sampler::sample(&mut sampler, &mut rows);
        assert!(rows.rows.is_empty());
    }
}
