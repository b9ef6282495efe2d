//! Samplers of devices: GPUs and energy.
//!
//! Hardware that is missing is no error: its sampler says why in [`SamplerInfo::unavailable`] and gives no rows. Columns
//! that a device never gives are left out of its table, which is decided when the sampler is opened. What devices tell is
//! F64 throughout, so that a reading that fails for a while (a GPU asleep) is "not a number" and no made-up figure.

pub mod drm;
mod energy;
mod names;
mod nvidia;
#[cfg(feature = "nvml")]
mod nvml;
#[cfg(test)]
pub(crate) mod testing;

use std::path::Path;

pub use drm::DrmGpus;
pub use energy::Energy;
pub(crate) use names::table_part;
pub use nvidia::NvidiaGpus;

use crate::sampler::Sampler;
#[cfg(doc)]
use crate::sampler::SamplerInfo;
pub use crate::samplers::SamplerError;

/// Names of all, as they are chosen.
pub const NAMES: [&str; 3] = [nvidia::NAME, drm::NAME, energy::NAME];

/// Those that find their hardware.
pub fn defaults() -> Vec<Box<dyn Sampler>> {
    all().into_iter().filter(|sampler| sampler.info().unavailable.is_empty()).collect()
}

/// All, for a listing.
pub fn all() -> Vec<Box<dyn Sampler>> {
    NAMES.into_iter().filter_map(made).collect()
}

/// One by its name; `None` when there is none of that name here.
pub fn open(name: &str, target: Option<&str>) -> Option<Result<Box<dyn Sampler>, SamplerError>> {
    let name = NAMES.into_iter().find(|own| *own == name)?;
    if let Some(target) = target {
        return Some(Err(SamplerError::TargetUnknown { name, target: target.into() }));
    }
    made(name).map(Ok)
}

fn made(name: &str) -> Option<Box<dyn Sampler>> {
    let root = Path::new("/");
    Some(match name {
        nvidia::NAME => Box::new(NvidiaGpus::new()),
        drm::NAME => Box::new(DrmGpus::new(root)),
        energy::NAME => Box::new(Energy::new(root)),
        _ => return None,
    })
}

/// Reads a small file of `/proc` or `/sys` into `text`; false when it is not there, is no text, or is longer than
/// `longest`, which no file of the kernel's is.
pub(crate) fn read_small(path: &Path, longest: u64, text: &mut String) -> bool {
    use std::io::Read;
    text.clear();
    let Ok(file) = std::fs::File::open(path) else { return false };
    let read = file.take(longest + 1).read_to_string(text);
    matches!(read, Ok(length) if length as u64 <= longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_by_its_name_and_takes_no_target() {
        let names: Vec<String> = all().iter().map(|s| s.info().name).collect();
        assert_eq!(names, ["gpu-nvidia", "gpu-drm", "energy"]);
        for name in &names {
            assert_eq!(open(name, None).unwrap().unwrap().info().name, *name);
            let error = open(name, Some("0")).unwrap().err().unwrap();
            assert_eq!(error.to_string(), format!("sampler '{name}' takes no target, and was given '0'"));
        }
        assert!(open("machine", None).is_none());
    }

    #[test]
    fn defaults_are_those_that_work_here() {
        let works = |s: &dyn Sampler| s.info().unavailable.is_empty();
        assert_eq!(defaults().len(), all().iter().filter(|s| works(s.as_ref())).count());
        assert!(defaults().iter().all(|s| works(s.as_ref())));
    }
}
