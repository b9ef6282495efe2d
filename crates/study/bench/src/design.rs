//! Which points of the matrix are run: all of them, or a design of fewer.

use std::collections::HashSet;

use recording::spec::{Level, Levels};
use serde::Deserialize;
use stats::design::{Fraction, latin_hypercube, pairwise};

use crate::study_file::{MAX_RUNS, StudyFile};

/// Hypercubes of which the best is taken.
const CANDIDATES: usize = 50;
/// Samples of a Latin hypercube at most: distances are looked at between each two.
const MAX_SAMPLES: u32 = 2_000;

/// `[design]` of a study file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Design {
    /// How points are chosen.
    #[serde(default)]
    pub kind: DesignKind,
    /// Points of a Latin hypercube.
    #[serde(default)]
    pub samples: Option<u32>,
    /// Of a fraction: 3 keeps main effects apart from each other, 4 also from interactions of two, 5 these from each other.
    #[serde(default)]
    pub resolution: Option<u32>,
}

/// How points are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DesignKind {
    /// Every combination of levels.
    #[default]
    Full,
    /// Few points in which each pair of levels of two factors occurs.
    Pairwise,
    /// Samples spread over the matrix: each factor's levels occur equally often, as far as they can.
    LatinHypercube,
    /// A regular fraction of the combinations of factors with two levels each.
    Fractional,
    /// Those of `[[points]]` alone.
    Points,
}

/// What keeps a study's design from being made.
pub(crate) fn check(study: &StudyFile) -> Result<(), String> {
    let Design { kind, samples, resolution } = study.design;
    if samples.is_some() != (kind == DesignKind::LatinHypercube) {
        return Err("`samples` is for `kind = \"latin-hypercube\"`, which needs it".into());
    }
    if resolution.is_some() && kind != DesignKind::Fractional {
        return Err("`resolution` is for `kind = \"fractional\"`".into());
    }
    match kind {
        DesignKind::Full | DesignKind::Points => Ok(()),
        DesignKind::LatinHypercube if !(1..=MAX_SAMPLES).contains(&samples.unwrap_or(0)) => {
            Err(format!("{} samples are not from 1 to {MAX_SAMPLES}", samples.unwrap_or(0)))
        }
        DesignKind::LatinHypercube => Ok(()),
        DesignKind::Pairwise if least_pairwise(study) * u64::from(study.repeats) > MAX_RUNS => {
            Err(format!("it makes at least {} points", least_pairwise(study)))
        }
        DesignKind::Pairwise => {
            pairwise(&counts(study), |_| true, 0).map(drop).map_err(|error| error.to_string())
        }
        DesignKind::Fractional => {
            if let Some((name, levels)) = study.factors.iter().find(|(_, levels)| levels.len() != 2) {
                return Err(format!(
                    "factor `{name}` has {} levels; a fraction needs two of each",
                    levels.len()
                ));
            }
            fraction(study).map(drop).map_err(|error| error.to_string())
        }
    }
}

/// Each pair of levels of the two factors with most of them needs a point.
fn least_pairwise(study: &StudyFile) -> u64 {
    let mut counts = counts(study);
    counts.sort_unstable_by(|a, b| b.cmp(a));
    counts.iter().take(2).map(|n| *n as u64).product()
}

fn counts(study: &StudyFile) -> Vec<usize> {
    study.factors.iter().map(|(_, levels)| levels.len()).collect()
}

fn fraction(study: &StudyFile) -> Result<Fraction, stats::Error> {
    Fraction::of_resolution(study.factors.len(), study.design.resolution.unwrap_or(4) as usize)
}

/// The points of a study, in their order: those of its design without the excluded ones, then those that stand in the file.
/// Each has a level for every varied factor, and none is there twice. `seed` chooses among designs that are as good.
pub(crate) fn points(study: &StudyFile, seed: u64) -> Vec<Levels> {
    let levels = |indices: &[usize]| -> Levels {
        let level = |((name, levels), index): (&(String, Vec<Level>), &usize)| {
            Some((name.clone(), levels.get(*index)?.clone()))
        };
        study.factors.iter().zip(indices).filter_map(level).collect()
    };
    let excluded = |point: &Levels| {
        let mut settings = study.fixed.clone();
        settings.extend(point.clone());
        study.exclude.iter().any(|condition| condition.of(&settings) == Some(true))
    };
    let counts = counts(study);
    // What `check` has found to be possible.
    let chosen: Vec<Vec<usize>> = match study.design.kind {
        DesignKind::Full => stats::design::product(&counts).collect(),
        DesignKind::Points => Vec::new(),
        DesignKind::Pairwise => {
            let allowed = |point: &[Option<usize>]| {
                let some = study.factors.iter().zip(point).filter_map(|((name, levels), index)| {
                    Some((name.clone(), levels.get((*index)?)?.clone()))
                });
                !excluded(&some.collect())
            };
            pairwise(&counts, allowed, seed).map(|covering| covering.points).unwrap_or_default()
        }
        DesignKind::LatinHypercube => {
            let samples = study.design.samples.unwrap_or(0) as usize;
            let index = |(at, count): (&f64, &usize)| ((at * *count as f64) as usize).min(count - 1);
            let point = |at: Vec<f64>| at.iter().zip(&counts).map(index).collect();
            latin_hypercube(samples, counts.len(), CANDIDATES, seed).into_iter().map(point).collect()
        }
        DesignKind::Fractional => match fraction(study) {
            Ok(fraction) => fraction.points().collect(),
            Err(_) => Vec::new(),
        },
    };
    let chosen = chosen.iter().map(|indices| levels(indices)).filter(|point| !excluded(point));
    let mut known = HashSet::new();
    let text = |point: &Levels| point.values().map(|level| format!("{level:?}")).collect::<Vec<_>>();
    chosen.chain(study.extra.iter().cloned()).filter(|point| known.insert(text(point))).collect()
}
