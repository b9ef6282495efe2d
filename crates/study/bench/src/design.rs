//! Which points of the matrix are run: all of them, or a design of fewer.

use recording::spec::Levels;
use serde::Deserialize;

use crate::study_file::StudyFile;

/// `[design]` of a study file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Design {
    /// How points are chosen.
    #[serde(default)]
    pub kind: DesignKind,
}

/// How points are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DesignKind {
    /// Every combination of levels.
    #[default]
    Full,
    /// Those of `[[points]]` alone.
    Points,
}

/// The points of a study, in their order: those of its design without the excluded ones, then those that stand in the file.
/// Each has a level for every varied factor, and none is there twice.
pub(crate) fn points(study: &StudyFile) -> Vec<Levels> {
    let chosen = match study.design.kind {
        DesignKind::Full => product(study),
        DesignKind::Points => Vec::new(),
    };
    let excluded = |levels: &Levels| {
        let mut settings = study.fixed.clone();
        settings.extend(levels.clone());
        study.exclude.iter().any(|condition| condition.holds(&settings))
    };
    let mut points: Vec<Levels> = chosen.into_iter().filter(|levels| !excluded(levels)).collect();
    for point in &study.extra {
        if !points.contains(point) {
            points.push(point.clone());
        }
    }
    points
}

/// The last factor changes fastest.
fn product(study: &StudyFile) -> Vec<Levels> {
    let mut points = vec![Levels::new()];
    for (name, levels) in &study.factors {
        points = points
            .iter()
            .flat_map(|point| {
                levels.iter().map(move |level| {
                    let mut point = point.clone();
                    point.insert(name.clone(), level.clone());
                    point
                })
            })
            .collect();
    }
    points
}
