//! The samplers: what can be recorded of a machine, by name.
//!
//! Those here read `/proc`, `/sys` and cgroups. Each is one file with one [`Kind`]; [`registry`] chains the kinds of
//! other modules in. Files are kept open and their texts parsed in place, so that a row costs one or two reads of a file
//! that the kernel writes; what each costs is in `docs/samplers.md`.
//!
//! Where the machine does not tell something its column is left out, which is decided when a sampler is opened. A
//! source that goes away later gives no rows and one mark (`source_gone`), until it is back (`source_back`).

mod cgroup;
mod cores;
mod cpu;
mod disk;
mod interrupts;
mod keyed;
mod lag;
mod listed;
mod memory;
mod network;
mod paging;
mod pressure;
mod process;
mod root;
mod source;
mod stat;
mod tcp;
#[cfg(test)]
mod testing;
mod text;

use std::path::Path;

use probe::Table;
use thiserror::Error;

pub use root::Root;

use crate::sampler::{Rows, Sampler, SamplerInfo};

/// Whether a sampler is told what to sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// There is only one.
    None,
    /// It samples everything, or only the target; an example.
    Optional(&'static str),
    /// It samples a target; an example.
    Required(&'static str),
}

/// One kind of sampler.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Lower-case name, by which it is chosen.
    pub name: &'static str,
    /// Taken unless the person chooses otherwise.
    pub default: bool,
    /// Whether it takes a target.
    pub target: Target,
    /// Opens it. A source that is not there now is no error: [`SamplerInfo::unavailable`] says so.
    pub open: Open,
}

/// Opens a sampler from a root, for a target if there is one.
pub type Open = fn(&Root, Option<&str>) -> Result<Box<dyn Sampler>, SamplerError>;

/// A sampler could not be opened.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SamplerError {
    /// There is none of that name.
    #[error("there is no sampler '{name}'; the nearest is '{nearest}', and triptych-agent list shows all")]
    Unknown {
        /// As it was asked for.
        name: String,
        /// The most similar name that there is.
        nearest: &'static str,
    },
    /// It has to be told what to sample.
    #[error("sampler '{name}' needs a target, for example '{name}={example}'")]
    TargetMissing {
        /// The sampler.
        name: &'static str,
        /// A valid target.
        example: &'static str,
    },
    /// It cannot be told what to sample.
    #[error("sampler '{name}' takes no target, and was given '{target}'")]
    TargetUnknown {
        /// The sampler.
        name: &'static str,
        /// What it was given.
        target: String,
    },
    /// The target is not of the form that the sampler understands, or is not there.
    #[error("target '{target}' of sampler '{name}': {reason}")]
    Target {
        /// The sampler.
        name: &'static str,
        /// What it was given.
        target: String,
        /// What is wrong with it and what would be right.
        reason: String,
    },
}

/// Those of `/proc`, `/sys` and cgroups.
pub fn kinds() -> Vec<Kind> {
    vec![
        cpu::KIND,
        cores::KIND,
        memory::KIND,
        paging::KIND,
        pressure::KIND,
        disk::KIND,
        network::KIND,
        tcp::KIND,
        lag::KIND,
        interrupts::KIND,
        process::KIND,
        cgroup::KIND,
    ]
}

/// All kinds that this agent has, those of other modules included: one line each.
pub fn registry() -> Vec<Kind> {
    [kinds()].concat()
}

/// Opens the sampler of that name.
///
/// # Errors
/// There is none of that name, or its target is missing, superfluous or wrong.
pub fn open(name: &str, target: Option<&str>) -> Result<Box<dyn Sampler>, SamplerError> {
    open_in(&registry(), &Root::default(), name, target)
}

/// As [`open`], of these kinds and from this root.
///
/// # Errors
/// As [`open`]'s.
pub fn open_in(
    kinds: &[Kind],
    root: &Root,
    name: &str,
    target: Option<&str>,
) -> Result<Box<dyn Sampler>, SamplerError> {
    let Some(kind) = kinds.iter().find(|kind| kind.name == name) else {
        let nearest = kinds.iter().max_by(|a, b| {
            let near = |kind: &Kind| strsim::jaro_winkler(name, kind.name);
            near(a).total_cmp(&near(b))
        });
        let nearest = nearest.map_or("", |kind| kind.name);
        return Err(SamplerError::Unknown { name: name.into(), nearest });
    };
    match (kind.target, target) {
        (Target::Required(example), None) => Err(SamplerError::TargetMissing { name: kind.name, example }),
        (Target::None, Some(target)) => {
            Err(SamplerError::TargetUnknown { name: kind.name, target: target.into() })
        }
        _ => (kind.open)(root, target),
    }
}

/// Those that are sampled unless the person chooses otherwise.
pub fn defaults() -> Vec<Box<dyn Sampler>> {
    let root = Root::default();
    let defaults = registry().into_iter().filter(|kind| kind.default);
    defaults.filter_map(|kind| (kind.open)(&root, None).ok()).collect()
}

/// One of each kind, to be listed. Those that need a target say so, with an example.
pub fn all() -> Vec<Box<dyn Sampler>> {
    let root = Root::default();
    let open = |kind: Kind| -> Option<Box<dyn Sampler>> {
        match kind.target {
            Target::Required(example) => {
                Some(Box::new(Untargeted((kind.open)(&root, Some(example)).ok()?, kind.name, example)))
            }
            _ => (kind.open)(&root, None).ok(),
        }
    };
    registry().into_iter().filter_map(open).collect()
}

/// A sampler that nobody has told what to sample: it is only described.
struct Untargeted(Box<dyn Sampler>, &'static str, &'static str);

impl Sampler for Untargeted {
    fn info(&self) -> SamplerInfo {
        let unavailable = format!("needs a target, for example '{}={}'", self.1, self.2);
        SamplerInfo { unavailable, ..self.0.info() }
    }

    fn sample(&mut self, _: &mut dyn Rows) {}
}

/// What a sampler of one file says of itself.
fn info(kind: &Kind, description: &str, source: &Path, tables: Vec<Table>) -> SamplerInfo {
    let unavailable = match std::fs::File::open(source) {
        Ok(_) => String::new(),
        Err(error) => format!("{} cannot be read: {error}", source.display()),
    };
    SamplerInfo {
        name: kind.name.into(),
        description: description.into(),
        source: source.display().to_string(),
        default: kind.default,
        tables,
        unavailable,
    }
}

/// The kernel's ticks (of USER_HZ, 100 a second everywhere in practice) in nanoseconds.
fn ticks_to_ns(ticks: u64) -> u64 {
    ticks.saturating_mul(1_000_000_000 / rustix::param::clock_ticks_per_second().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_opens_and_describes_itself_with_valid_tables() {
        let infos: Vec<_> = all().iter().map(|sampler| sampler.info()).collect();
        assert_eq!(infos.len(), registry().len());
        for (info, kind) in infos.iter().zip(registry()) {
            assert_eq!((info.name.as_str(), info.default), (kind.name, kind.default));
            assert!(!info.description.is_empty() && !info.source.is_empty(), "{info:?}");
            for table in &info.tables {
                table.check().unwrap();
                assert!(table.columns.iter().all(|c| !c.description.is_empty()), "{table:?}");
            }
            if let Target::Required(example) = kind.target {
                assert!(info.unavailable.contains(example), "{info:?}");
            }
        }
    }

    #[test]
    fn a_wrong_name_or_target_is_refused_with_the_remedy() {
        let error = |name, target| match open(name, target) {
            Ok(_) => panic!("{name} opens"),
            Err(error) => error.to_string(),
        };
        assert!(error("dsik", None).contains("'disk'"));
        assert!(error("memroy", None).contains("'memory'"));
        assert!(error("process", None).contains("process=name:"));
        assert!(error("cpu", Some("0")).contains("takes no target"));
    }

    #[test]
    fn a_machine_that_tells_nothing_gives_no_rows_and_no_panic() {
        let dir = tempfile::tempdir().unwrap();
        for kind in kinds().into_iter().filter(|kind| kind.target == Target::None) {
            let mut sampler = (kind.open)(&Root::at(dir.path()), None).unwrap();
            let taken = testing::Taken::of(sampler.as_mut());
            if kind.name != "lag" {
                assert!(taken.rows.is_empty(), "{} gives {:?}", kind.name, taken.tables());
                assert!(!sampler.info().unavailable.is_empty(), "{} says why", kind.name);
            }
        }
    }
}
