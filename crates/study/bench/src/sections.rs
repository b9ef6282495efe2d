//! The sections of a study file that are read as they stand: `[command]`, `[[extract]]`, `[[response]]`, `[design]`,
//! `[[points]]` and `exclude`. What belongs together in them is checked here, with places in the file.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use recording::import::extract::Extractors;
use recording::spec::{Better, Level, Levels, Response, Statistic, SubjectSpec};
use serde::Deserialize;
use toml::Spanned;

use crate::command::CommandStudy;
use crate::condition::Condition;
use crate::design::Design;
use crate::diagnostic::nearest_word;

/// As they are written.
#[derive(Default, Deserialize)]
pub(crate) struct Sections {
    #[serde(default)]
    pub(crate) command: Option<Spanned<CommandStudy>>,
    #[serde(default)]
    extract: Vec<Spanned<toml::Table>>,
    #[serde(default)]
    response: Vec<Spanned<Entry>>,
    #[serde(default)]
    pub(crate) design: Option<Spanned<Design>>,
    #[serde(default)]
    points: Vec<Spanned<BTreeMap<String, Spanned<Level>>>>,
    #[serde(default)]
    exclude: Vec<Spanned<String>>,
}

/// `[[response]]`: one number a run that the study makes of an indicator.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    /// `panel.table.column`, or the name of another response whose indicator and unit it takes.
    indicator: String,
    #[serde(default = "mean")]
    statistic: Statistic,
    #[serde(default)]
    unit: Option<String>,
    #[serde(default)]
    scale: Option<f64>,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    better: Option<Better>,
}

fn mean() -> Statistic {
    Statistic::Mean
}

/// Something that is wrong: where, what, what is expected, and what would be nearest.
pub(crate) type Wrong = (Range<usize>, String, String, Option<String>);

impl Sections {
    /// Reads them; everything else in the file is passed over.
    pub(crate) fn read(text: &str) -> Result<Self, Wrong> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let message = error.message().trim().replace('\n', ", ");
            (
                error.span().unwrap_or(0..0),
                message,
                "what docs/studies.md lists for this section".into(),
                None,
            )
        })
    }

    /// The extractors, of the same form as those of `triptych import`.
    pub(crate) fn extractors(&self) -> Result<Extractors, Wrong> {
        let Some(first) = self.extract.first() else { return Ok(Extractors::none()) };
        let tables: Vec<_> =
            self.extract.iter().map(|entry| toml::Value::Table(entry.get_ref().clone())).collect();
        let file = toml::Table::from_iter([("extract".to_owned(), toml::Value::Array(tables))]);
        Extractors::parse(&file.to_string(), Path::new("extract")).map_err(|error| {
            (first.span(), error.to_string(), "an extractor as docs/import.md describes it".into(), None)
        })
    }

    /// Adds the study's own responses to those of the subject; one of the same name takes its place.
    pub(crate) fn add_responses(&self, subject: &mut SubjectSpec) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        for entry in &self.response {
            match made(entry.get_ref(), subject) {
                Err((what, expected, nearest)) => wrong.push((entry.span(), what, expected, nearest)),
                Ok(response) => match subject.responses.iter_mut().find(|r| r.name == response.name) {
                    Some(known) => *known = response,
                    None => subject.responses.push(response),
                },
            }
        }
        wrong
    }

    /// The conditions that exclude points.
    pub(crate) fn conditions(&self, subject: &SubjectSpec) -> (Vec<Condition>, Vec<Wrong>) {
        let names = || subject.factors.iter().map(|factor| factor.name.as_str());
        let known = |name: &str| names().any(|n| n == name);
        let (mut conditions, mut wrong) = (Vec::new(), Vec::new());
        for text in &self.exclude {
            match Condition::parse(text.get_ref(), &known) {
                Ok(condition) => conditions.push(condition),
                Err(fault) => {
                    // Behind the quote that opens the text.
                    let at = (text.span().start + 1 + fault.at).min(text.span().end);
                    let nearest =
                        fault.unknown.and_then(|name| nearest_word(&name, names()).map(str::to_owned));
                    let expected = "a condition such as `codec == 'vp8' and fps > 60`".to_owned();
                    wrong.push((at..at + 1, format!("field `exclude`: {}", fault.wrong), expected, nearest));
                }
            }
        }
        (conditions, wrong)
    }

    /// The points that stand in the file, each with where it and its levels stand. They are not checked yet.
    pub(crate) fn points(&self) -> impl Iterator<Item = (Range<usize>, &BTreeMap<String, Spanned<Level>>)> {
        self.points.iter().map(|point| (point.span(), point.get_ref()))
    }
}

type Unmade = (String, String, Option<String>);

fn made(entry: &Entry, subject: &SubjectSpec) -> Result<Response, Unmade> {
    let wrong = |what: String, expected: &str| Err((what, expected.to_owned(), None));
    if entry.name.trim().is_empty() {
        return wrong("a response has no name".into(), "a name");
    }
    if entry.scale.is_some_and(|scale| !scale.is_finite() || scale == 0.0) {
        return wrong(
            format!("response `{}`: its scale is 0 or not finite", entry.name),
            "a number that is not 0",
        );
    }
    let like = subject.responses.iter().find(|r| r.name == entry.indicator);
    let (table, column) = match (like, entry.indicator.rsplit_once('.')) {
        (Some(like), _) => (like.table.clone(), like.column.clone()),
        (None, Some((table, column)))
            if table.contains('.') || subject.joins.iter().any(|j| j.name == table) =>
        {
            (table.to_owned(), column.to_owned())
        }
        _ => {
            let names = subject.responses.iter().map(|r| r.name.as_str());
            let nearest = nearest_word(&entry.indicator, names).map(str::to_owned);
            let what = format!("response `{}`: `{}` is no indicator", entry.name, entry.indicator);
            return Err((what, "`PANEL.TABLE.COLUMN`, or the name of another response".into(), nearest));
        }
    };
    Ok(Response {
        name: entry.name.clone(),
        label: entry.label.clone().unwrap_or_else(|| entry.name.replace('_', " ")),
        table,
        column,
        statistic: entry.statistic,
        scale: entry.scale.or(like.map(|l| l.scale)).unwrap_or(1.0),
        unit: entry.unit.clone().or(like.map(|l| l.unit.clone())).unwrap_or_default(),
        better: entry.better.or(like.map(|l| l.better)).unwrap_or(Better::Neutral),
    })
}

/// The levels of a point as they are written, without their places.
pub(crate) fn levels(point: &BTreeMap<String, Spanned<Level>>) -> Levels {
    point.iter().map(|(name, level)| (name.clone(), level.get_ref().clone())).collect()
}
