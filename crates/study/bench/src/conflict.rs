//! Levels that are each valid, but with which a run can only fail: found before anything is run.

use std::collections::BTreeMap;
use std::ops::Range;

use recording::spec::{Level, Levels};
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Diagnostic, Faults};
use crate::level;
use crate::range;
use crate::study_file::{StudyFile, find, plain};

/// A setting with which no run can succeed, beside the others of its point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Name of the setting.
    pub setting: String,
    /// What is wrong with its level.
    pub wrong: String,
    /// What would be valid.
    pub expected: String,
    /// The nearest valid level, as it is written in a study file.
    pub nearest: Option<String>,
}

impl StudyFile {
    /// Asks `conflicts` about the settings of every point of the design of `seed`; `file` is the name that messages give the study file.
    ///
    /// # Errors
    /// Everything that is in conflict, with its place.
    pub fn check(
        &self,
        file: &str,
        seed: u64,
        conflicts: &dyn Fn(&Levels) -> Vec<Conflict>,
    ) -> Result<(), Faults> {
        let mut found = BTreeMap::new();
        for point in self.points(seed) {
            let mut settings = self.fixed.clone();
            settings.extend(point);
            for conflict in conflicts(&settings) {
                let level = settings.get(&conflict.setting).cloned();
                found.entry((conflict.setting.clone(), conflict.wrong.clone())).or_insert((conflict, level));
            }
        }
        let table = DeTable::parse(&self.text).map(toml::Spanned::into_inner).unwrap_or_default();
        let fault = |(conflict, level): (Conflict, Option<Level>)| {
            let at = level.and_then(|level| self.place(&table, &conflict.setting, &level)).unwrap_or(0..0);
            let message = format!("setting `{}`: {}", conflict.setting, conflict.wrong);
            Diagnostic::new(&self.text, at, message, conflict.expected).nearest(conflict.nearest)
        };
        let mut faults: Vec<_> = found.into_values().map(fault).collect();
        faults.sort_by_key(|f| (f.line, f.column));
        if faults.is_empty() { Ok(()) } else { Err(Faults { file: file.into(), faults }) }
    }

    /// Where a level stands in the file; nowhere when it is a default.
    fn place(&self, table: &DeTable<'_>, setting: &str, level: &Level) -> Option<Range<usize>> {
        let factor = self.subject.factors.iter().find(|f| f.name == setting)?;
        let is_it = |value: &DeValue<'_>| {
            plain(value).and_then(|given| level::check(factor, given).ok()).as_ref() == Some(level)
        };
        ["factors", "fixed"].into_iter().find_map(|section| {
            let DeValue::Table(entries) = find(table, section)?.1.get_ref() else { return None };
            let value = find(entries, setting)?.1;
            let value = match value.get_ref() {
                DeValue::Table(factor) => find(factor, "levels")?.1,
                _ => value,
            };
            match value.get_ref() {
                DeValue::Array(items) => {
                    items.iter().find(|item| is_it(item.get_ref())).map(|item| item.span())
                }
                DeValue::String(text) if range::levels(text).is_some() => Some(value.span()),
                one if is_it(one) => Some(value.span()),
                _ => None,
            }
        })
    }
}
