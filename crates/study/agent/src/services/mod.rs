//! Samplers of services: virtual machines through QMP, SPICE programs through their agent interface.
//!
//! Each needs to be told where its service is. A service that is away gives no rows and one mark (`source_gone`), until
//! it is back (`source_back`); it is looked for once a second.

mod qmp;
mod spice;
mod target;

use std::time::Duration;

pub use qmp::Qmp;
pub use spice::Spice;

use crate::devices::SamplerError;
use crate::sampler::{Sampler, SamplerInfo};

/// Time between two attempts to reach a service.
const RETRY: Duration = Duration::from_secs(1);

/// Names of all, as they are chosen.
pub const NAMES: [&str; 2] = [qmp::NAME, spice::NAME];

/// None: which services there are cannot be known.
pub fn defaults() -> Vec<Box<dyn Sampler>> {
    Vec::new()
}

/// All, for a listing: without a target they give nothing, and say what they need.
pub fn all() -> Vec<Box<dyn Sampler>> {
    [qmp::description(), spice::description()]
        .into_iter()
        .map(|info| Box::new(Untargeted(info)) as Box<dyn Sampler>)
        .collect()
}

/// One by its name; `None` when there is none of that name here.
pub fn open(name: &str, target: Option<&str>) -> Option<Result<Box<dyn Sampler>, SamplerError>> {
    type Open = fn(&str) -> Result<Box<dyn Sampler>, SamplerError>;
    let kinds: [(&'static str, &'static str, Open); 2] = [
        (qmp::NAME, qmp::EXAMPLE, |target| Ok(Box::new(Qmp::new(target)?))),
        (spice::NAME, spice::EXAMPLE, |target| Ok(Box::new(Spice::new(target)?))),
    ];
    let (name, example, open) = kinds.into_iter().find(|(own, ..)| *own == name)?;
    Some(match target {
        None => Err(SamplerError::TargetMissing { name, example }),
        Some(target) => open(target),
    })
}

/// What stands in a listing for a sampler that needs a target.
struct Untargeted(SamplerInfo);

impl Sampler for Untargeted {
    fn info(&self) -> SamplerInfo {
        self.0.clone()
    }

    fn sample(&mut self, _rows: &mut dyn crate::sampler::Rows) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_listed_with_what_it_needs_and_opened_with_it() {
        let infos: Vec<SamplerInfo> = all().iter().map(|s| s.info()).collect();
        let names: Vec<&str> = infos.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(names, ["qmp", "spice"]);
        for info in &infos {
            assert!(info.unavailable.contains(&format!("{}=", info.name)), "{}", info.unavailable);
            assert!(!info.default && !info.tables.is_empty());
            info.tables.iter().for_each(|t| t.check().unwrap());
            let error = open(&info.name, None).unwrap().err().unwrap().to_string();
            assert!(error.contains("needs a target"), "{error}");
        }
        assert!(open("machine", None).is_none());
        assert!(open("qmp", Some("unix:qmp.sock")).unwrap().is_ok());
        assert!(open("spice", Some("nonsense")).unwrap().is_err());
        assert!(defaults().is_empty());
    }
}
