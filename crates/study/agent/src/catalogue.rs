//! Everything that can be sampled, by name.

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::sampler::Sampler;
use crate::samplers::SamplerError;
use crate::{devices, samplers, services};

/// A sampler that a person asks for: `NAME`, `NAME=TARGET`, each with `@HZ`.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Name of the sampler.
    pub name: String,
    /// What it is to sample, for those that need to know.
    pub target: Option<String>,
    /// Samples per second, where it is not the usual rate.
    pub hz: Option<f64>,
}

/// A sampler that cannot be had.
#[derive(Debug, Error)]
pub enum ChoiceError {
    /// Not written as one.
    #[error(
        "'{0}' is no sampler: write NAME, NAME=TARGET or NAME=TARGET@HZ, with 0.01 to 100 samples a second"
    )]
    Syntax(String),
    /// None of this name, or not this target.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
}

/// Least samples of `lag` per second, unless a person asks for less.
const LAG_HZ: f64 = 10.0;

/// Samples per second, 0.01 to 100.
pub fn rate(text: &str) -> Option<f64> {
    text.parse().ok().filter(|hz| (0.01..=100.0).contains(hz))
}

impl FromStr for Choice {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Self, ChoiceError> {
        let wrong = || ChoiceError::Syntax(text.to_owned());
        // A target may hold an '@' of its own.
        let (what, hz) = match text.rsplit_once('@').map(|(what, hz)| (what, hz.parse::<f64>().ok(), hz)) {
            Some((what, Some(_), hz)) => (what, Some(rate(hz).ok_or_else(wrong)?)),
            _ => (text, None),
        };
        let (name, target) = match what.split_once('=') {
            Some((name, target)) if !target.is_empty() => (name, Some(target.to_owned())),
            Some(_) => return Err(wrong()),
            None => (what, None),
        };
        if name.is_empty() {
            return Err(wrong());
        }
        Ok(Self { name: name.to_owned(), target, hz })
    }
}

impl Choice {
    /// Makes the sampler.
    ///
    /// # Errors
    /// There is none of this name, or its target is not one.
    pub fn open(&self) -> Result<Box<dyn Sampler>, ChoiceError> {
        let (name, target) = (self.name.as_str(), self.target.as_deref());
        let elsewhere = devices::open(name, target).or_else(|| services::open(name, target));
        match elsewhere.unwrap_or_else(|| samplers::open(name, target)) {
            Err(SamplerError::Unknown { .. }) => {
                let near = |own: &&str| strsim::jaro_winkler(name, own);
                let nearest = names().into_iter().max_by(|a, b| near(a).total_cmp(&near(b))).unwrap_or("cpu");
                Err(SamplerError::Unknown { name: name.into(), nearest }.into())
            }
            other => Ok(other?),
        }
    }
}

/// Names of all samplers.
pub fn names() -> Vec<&'static str> {
    let kinds = samplers::registry();
    kinds.iter().map(|kind| kind.name).chain(devices::NAMES).chain(services::NAMES).collect()
}

/// What is sampled unless the person chooses otherwise.
pub fn defaults() -> Vec<Box<dyn Sampler>> {
    samplers::defaults().into_iter().chain(devices::defaults()).chain(services::defaults()).collect()
}

/// Everything, for a list; what needs a target is described.
pub fn all() -> Vec<Box<dyn Sampler>> {
    samplers::all().into_iter().chain(devices::all()).chain(services::all()).collect()
}

/// A sampler, and the time between two samples of it.
pub type Sampled = (Box<dyn Sampler>, Duration);

/// Samplers with the time between two samples of each: the defaults, unless there are to be none, and those that a person
/// asks for; who names a default one wants another rate for it.
///
/// # Errors
/// There is no such sampler, or its target is not one.
pub fn chosen(no_defaults: bool, choices: &[Choice], hz: f64) -> Result<Vec<Sampled>, ChoiceError> {
    let every = |hz: f64| Duration::from_secs_f64(1.0 / hz);
    let mut samplers = Vec::new();
    if !no_defaults {
        // What it tells of is the sleep before each sample: two a second would be too few to judge a run by.
        let rate = |name: &str| if name == "lag" { hz.max(LAG_HZ) } else { hz };
        let with_rate = |sampler: Box<dyn Sampler>| {
            let every = every(rate(&sampler.info().name));
            (sampler, every)
        };
        samplers.extend(defaults().into_iter().map(with_rate));
    }
    for choice in choices {
        let sampler = choice.open()?;
        samplers.retain(|(known, _)| choice.target.is_some() || known.info().name != choice.name);
        samplers.push((sampler, every(choice.hz.unwrap_or(hz))));
    }
    Ok(samplers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_listed_and_a_near_one_is_named() {
        let listed: Vec<_> = all().iter().map(|sampler| sampler.info().name).collect();
        assert_eq!(listed, names());
        for (wrong, nearest) in [("gpu-nvida", "gpu-nvidia"), ("qmpp", "qmp"), ("presure", "pressure")] {
            let error = wrong.parse::<Choice>().unwrap().open().err().unwrap().to_string();
            assert!(error.contains(&format!("'{nearest}'")), "{error}");
        }
    }

    #[test]
    fn choices_are_read_with_targets_and_rates() {
        let choice = |name: &str, target: Option<&str>, hz| {
            Some(Choice { name: name.into(), target: target.map(str::to_owned), hz })
        };
        for (text, expected) in [
            ("cpu", choice("cpu", None, None)),
            ("cpu@10", choice("cpu", None, Some(10.0))),
            ("process=name:qemu@0.5", choice("process", Some("name:qemu"), Some(0.5))),
            ("qmp=/run/a@b.sock", choice("qmp", Some("/run/a@b.sock"), None)),
            ("cpu@1000", None),
            ("process=", None),
            ("=x", None),
        ] {
            assert_eq!(text.parse::<Choice>().ok(), expected, "{text}");
        }
    }
}
