//! The study file: TOML, read strictly. Every field is known and typed, or it is a fault; all faults are told at once.
//!
//! Documented for its readers in `docs/studies.md`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use recording::import::extract::Extractors;
use recording::spec::{Level, Levels, Response, SubjectSpec};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::command::{self, CommandStudy};
use crate::condition::Condition;
use crate::design::{self, Design, DesignKind};
use crate::diagnostic::{Diagnostic, Faults, nearest_word};
use crate::level::{self, Fault};
use crate::sections::{Sections, Wrong};

/// Longest study file: far above any a person writes, and small enough to be kept in memory many times over.
pub const MAX_FILE: usize = 1 << 20;
/// Runs at most in one study: `plan.toml` lists each, and a week of one-second runs stays below it.
pub const MAX_RUNS: u64 = 100_000;

/// Faults that are told at once.
const MAX_FAULTS: usize = 50;

const FIELDS: [&str; 15] = [
    "subject",
    "title",
    "repeats",
    "seed",
    "warmup_s",
    "record_s",
    "responses",
    "factors",
    "fixed",
    "command",
    "extract",
    "response",
    "design",
    "points",
    "exclude",
];

/// A study as its file asks for it, checked against what the subject takes.
#[derive(Clone, Debug)]
pub struct StudyFile {
    /// What the subject takes and gives; `responses` are those that the study shows.
    pub subject: SubjectSpec,
    /// One line about the study; may be empty.
    pub title: String,
    /// Varied factors in order of the file, each with its levels in order of the file.
    pub factors: Vec<(String, Vec<Level>)>,
    /// Settings that are the same in every run, the subject's defaults included.
    pub fixed: Levels,
    /// Runs of each point.
    pub repeats: u32,
    /// Seed of the order of runs; drawn afresh when absent.
    pub seed: Option<u64>,
    /// Seconds before the recorded window.
    pub warmup_s: f64,
    /// Seconds of the recorded window.
    pub record_s: f64,
    /// Which points of the matrix are run.
    pub design: Design,
    /// Points beside those of the design, each with a level for every varied factor.
    pub extra: Vec<Levels>,
    /// Points of the design of which one of these is true are not run.
    pub exclude: Vec<Condition>,
    /// What is measured and how, where the subject is a command.
    pub command: Option<CommandStudy>,
    /// What is read of a command's output; none for other subjects.
    pub extractors: Arc<Extractors>,
    /// The file as read, kept with the study.
    pub text: String,
}

impl StudyFile {
    /// Reads `text`; `file` is the name that messages give it, `subjects` are those that can be studied.
    ///
    /// # Errors
    /// Everything that is wrong, with its place.
    pub fn parse(text: &str, file: &str, subjects: &[SubjectSpec]) -> Result<Self, Faults> {
        let mut reader = Reader { text, faults: Vec::new() };
        let study = reader.study(subjects);
        reader.faults.sort_by_key(|f| (f.line, f.column));
        // The factors of a command are read twice.
        reader.faults.dedup();
        match study {
            Some(study) if reader.faults.is_empty() => Ok(study),
            _ => Err(Faults { file: file.into(), faults: reader.faults }),
        }
    }

    /// The points that are run, in their order: a level for every varied factor. `seed` chooses among designs that are as
    /// good; their number does not depend on it but where levels of a Latin hypercube coincide.
    pub fn points(&self, seed: u64) -> Vec<Levels> {
        design::points(self, seed)
    }
}

pub(crate) type Value<'i> = Spanned<DeValue<'i>>;
pub(crate) type Key<'i> = Spanned<Cow<'i, str>>;

pub(crate) struct Reader<'t> {
    pub(crate) text: &'t str,
    pub(crate) faults: Vec<Diagnostic>,
}

impl<'t> Reader<'t> {
    pub(crate) fn fault(
        &mut self,
        at: Range<usize>,
        message: String,
        expected: impl Into<String>,
    ) -> &mut Diagnostic {
        // The first ones are enough to begin with, and each holds its line.
        if self.faults.len() >= MAX_FAULTS {
            self.faults.truncate(MAX_FAULTS - 1);
        }
        self.faults.push(Diagnostic::new(self.text, at, message, expected.into()));
        let last = self.faults.len() - 1;
        &mut self.faults[last]
    }

    fn study(&mut self, subjects: &[SubjectSpec]) -> Option<StudyFile> {
        if self.text.len() > MAX_FILE {
            self.fault(
                0..1,
                format!("the file has {} bytes", self.text.len()),
                format!("at most {MAX_FILE}"),
            );
            return None;
        }
        let table = match DeTable::parse(self.text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let message = error.message().trim().replace('\n', ", ");
                self.fault(error.span().unwrap_or(0..0), message, "TOML");
                return None;
            }
        };
        self.known_fields(&table);
        let sections = match Sections::read(self.text) {
            Ok(sections) => sections,
            Err(wrong) => {
                self.wrong(wrong);
                return None;
            }
        };
        let title = self.optional(&table, "title", Self::text).unwrap_or_default();
        let repeats = self.optional(&table, "repeats", |r, k, v| r.int(k, v, 1, 10_000)).unwrap_or(3);
        let seed = self.optional(&table, "seed", |r, k, v| r.int(k, v, 0, i64::MAX));
        let warmup_s = self.optional(&table, "warmup_s", |r, k, v| r.seconds(k, v, 0.0));
        let record_s = self.optional(&table, "record_s", |r, k, v| r.seconds(k, v, 0.1));
        let mut subject = self.subject(&table, subjects, &sections)?;
        let own_time = subject.name == command::NAME;
        if own_time {
            self.no_times(&table);
        }
        for wrong in sections.add_responses(&mut subject) {
            self.wrong(wrong);
        }
        subject.responses = self.responses(&table, &subject);
        let (factors, mut fixed) = (self.factors(&table, &subject), self.fixed(&table, &subject));
        let (exclude, wrong) = sections.conditions(&subject);
        wrong.into_iter().for_each(|wrong| self.wrong(wrong));
        let extra = self.points(&sections, &factors, &subject);
        let design = sections.design.as_ref().map_or(Design::default(), |design| *design.get_ref());
        for factor in &subject.factors {
            if factors.iter().all(|(name, _)| *name != factor.name) {
                fixed.entry(factor.name.clone()).or_insert_with(|| factor.default.clone());
            }
        }
        let study = StudyFile {
            subject,
            title,
            factors,
            fixed,
            repeats: u32::try_from(repeats).unwrap_or(1),
            seed: seed.and_then(|s| u64::try_from(s).ok()),
            warmup_s: if own_time { 0.0 } else { warmup_s.unwrap_or(1.0) },
            record_s: if own_time { 0.0 } else { record_s.unwrap_or(5.0) },
            design,
            extra,
            exclude,
            // They were read once for the spec, which was told of them.
            extractors: Arc::new(sections.extractors().unwrap_or_else(|_| Extractors::none())),
            command: sections.command.map(toml::Spanned::into_inner),
            text: self.text.into(),
        };
        self.size(&table, &study);
        Some(study)
    }

    fn known_fields(&mut self, table: &DeTable<'_>) {
        for (key, _) in table.iter() {
            let name = key.get_ref().as_ref();
            if !FIELDS.contains(&name) {
                let nearest = nearest_word(name, FIELDS).map(str::to_owned);
                let fault = self.fault(
                    key.span(),
                    format!("field `{name}` is unknown"),
                    one_of(FIELDS.iter().copied()),
                );
                *fault = fault.clone().nearest(nearest);
            }
        }
    }

    pub(crate) fn wrong(&mut self, (at, what, expected, nearest): Wrong) {
        let fault = self.fault(at, what, expected);
        *fault = fault.clone().nearest(nearest);
    }

    fn subject(
        &mut self,
        table: &DeTable<'_>,
        subjects: &[SubjectSpec],
        sections: &Sections,
    ) -> Option<SubjectSpec> {
        let names = || subjects.iter().map(|s| s.name.as_str()).chain([command::NAME]);
        let Some((key, value)) = find(table, "subject") else {
            self.fault(0..0, "field `subject` is missing".into(), one_of(names()));
            return None;
        };
        let name = self.text(key, value)?;
        if name == command::NAME {
            return self.command(table, sections);
        }
        for section in ["command", "extract"] {
            if let Some((key, _)) = find(table, section) {
                let message = format!("field `{section}` is only for `subject = \"{}\"`", command::NAME);
                self.fault(key.span(), message, "to be left out");
            }
        }
        let found = subjects.iter().find(|s| s.name == name).cloned();
        if found.is_none() {
            let nearest = nearest_word(&name, names()).map(str::to_owned);
            let fault =
                self.fault(value.span(), format!("field `subject`: no subject `{name}`"), one_of(names()));
            *fault = fault.clone().nearest(nearest);
        }
        found
    }

    fn responses(&mut self, table: &DeTable<'_>, subject: &SubjectSpec) -> Vec<Response> {
        let Some((key, value)) = find(table, "responses") else { return subject.responses.clone() };
        let names = || subject.responses.iter().map(|r| r.name.as_str());
        let mut chosen: Vec<Response> = Vec::new();
        for item in self.list(key, value) {
            let Some(name) = self.text(key, item) else { continue };
            if chosen.iter().any(|r| r.name == name) {
                self.fault(item.span(), format!("field `responses`: `{name}` stands twice"), "each once");
            } else if let Some(response) = subject.responses.iter().find(|r| r.name == name) {
                chosen.push(response.clone());
            } else {
                let nearest = nearest_word(&name, names()).map(str::to_owned);
                let message = format!("field `responses`: `{}` gives no `{name}`", subject.name);
                let fault = self.fault(item.span(), message, one_of(names()));
                *fault = fault.clone().nearest(nearest);
            }
        }
        chosen
    }

    fn factors(&mut self, table: &DeTable<'_>, subject: &SubjectSpec) -> Vec<(String, Vec<Level>)> {
        let mut factors = Vec::new();
        for (key, value) in self.settings(table, "factors", subject) {
            let Some(factor) = subject.factors.iter().find(|f| f.name == key.get_ref().as_ref()) else {
                continue;
            };
            let Some(written) = self.written(key, value, &level::expected(factor)) else { continue };
            if subject.name != command::NAME && !(written.unit.is_empty() && written.description.is_empty()) {
                let message = format!("factor `{}`: its unit and description are the subject's", factor.name);
                self.fault(value.span(), message, "`levels` alone");
            }
            let mut levels = Vec::new();
            for (given, at) in written.levels {
                let level = match level::check(factor, given) {
                    Ok(level) => level,
                    Err(Fault { wrong, nearest }) => {
                        let message = format!("setting `{}`: {wrong}", factor.name);
                        let fault = self.fault(at, message, level::expected(factor));
                        *fault = fault.clone().nearest(nearest);
                        continue;
                    }
                };
                if levels.contains(&level) {
                    let message = format!("factor `{}`: level {level} stands twice", factor.name);
                    self.fault(at, message, "each once");
                } else {
                    levels.push(level);
                }
            }
            factors.push((factor.name.clone(), levels));
        }
        factors
    }

    fn fixed(&mut self, table: &DeTable<'_>, subject: &SubjectSpec) -> Levels {
        let varied: Vec<String> = match find(table, "factors").map(|(_, v)| v.get_ref()) {
            Some(DeValue::Table(factors)) => factors.keys().map(|k| k.get_ref().to_string()).collect(),
            _ => Vec::new(),
        };
        let mut fixed = BTreeMap::new();
        for (key, value) in self.settings(table, "fixed", subject) {
            let name = key.get_ref().as_ref();
            let Some(factor) = subject.factors.iter().find(|f| f.name == name) else { continue };
            if varied.iter().any(|v| v == name) {
                let message = format!("setting `{name}` is both in [factors] and in [fixed]");
                self.fault(key.span(), message, "one place: [factors] to vary it, [fixed] to hold it");
            } else if matches!(value.get_ref(), DeValue::Array(_)) {
                let message = format!("setting `{name}` is a list");
                self.fault(value.span(), message, "one value here; a list of levels belongs into [factors]");
            } else if let Some(level) = self.level(key, value, factor) {
                fixed.insert(name.to_owned(), level);
            }
        }
        fixed
    }

    /// The entries of `[section]`; those whose name the subject does not take are faults.
    fn settings<'a, 'i>(
        &mut self,
        table: &'a DeTable<'i>,
        section: &str,
        subject: &SubjectSpec,
    ) -> Vec<(&'a Key<'i>, &'a Value<'i>)> {
        let Some((_, value)) = find(table, section) else { return Vec::new() };
        let DeValue::Table(entries) = value.get_ref() else {
            self.fault(
                value.span(),
                format!("field `{section}` is {}", kind(value.get_ref())),
                format!("a table [{section}]"),
            );
            return Vec::new();
        };
        let names = || subject.factors.iter().map(|f| f.name.as_str());
        for (key, _) in entries.iter() {
            let name = key.get_ref().as_ref();
            if names().all(|n| n != name) {
                let nearest = nearest_word(name, names()).map(str::to_owned);
                let message =
                    format!("field `{name}` of [{section}]: `{}` takes no such setting", subject.name);
                let fault = self.fault(key.span(), message, one_of(names()));
                *fault = fault.clone().nearest(nearest);
            }
        }
        entries.iter().collect()
    }

    fn level(&mut self, key: &Key<'_>, value: &Value<'_>, factor: &recording::spec::Factor) -> Option<Level> {
        let given = match plain(value.get_ref()) {
            Some(given) => given,
            None => {
                let message = format!("setting `{}` is {}", key.get_ref(), kind(value.get_ref()));
                self.fault(value.span(), message, level::expected(factor));
                return None;
            }
        };
        match level::check(factor, given) {
            Ok(level) => Some(level),
            Err(Fault { wrong, nearest }) => {
                let message = format!("setting `{}`: {wrong}", key.get_ref());
                let fault = self.fault(value.span(), message, level::expected(factor));
                *fault = fault.clone().nearest(nearest);
                None
            }
        }
    }

    fn optional<T>(
        &mut self,
        table: &DeTable<'_>,
        name: &str,
        read: impl FnOnce(&mut Self, &Key<'_>, &Value<'_>) -> Option<T>,
    ) -> Option<T> {
        let (key, value) = find(table, name)?;
        read(self, key, value)
    }

    pub(crate) fn text(&mut self, key: &Key<'_>, value: &Value<'_>) -> Option<String> {
        if let DeValue::String(text) = value.get_ref() {
            return Some(text.to_string());
        }
        self.fault(
            value.span(),
            format!("field `{}` is {}", key.get_ref(), kind(value.get_ref())),
            "a text in quotes",
        );
        None
    }

    fn int(&mut self, key: &Key<'_>, value: &Value<'_>, min: i64, max: i64) -> Option<i64> {
        let expected = format!("a whole number from {min} to {max}");
        let wrong = match plain(value.get_ref()) {
            Some(Level::Int(n)) if (min..=max).contains(&n) => return Some(n),
            Some(Level::Int(n)) => (format!("{n} is out of range"), Some(n.clamp(min, max).to_string())),
            Some(Level::Float(x)) => {
                (format!("{x} is not whole"), Some((x.round() as i64).clamp(min, max).to_string()))
            }
            _ => (format!("this is {}", kind(value.get_ref())), None),
        };
        let fault = self.fault(value.span(), format!("field `{}`: {}", key.get_ref(), wrong.0), expected);
        *fault = fault.clone().nearest(wrong.1);
        None
    }

    fn seconds(&mut self, key: &Key<'_>, value: &Value<'_>, min: f64) -> Option<f64> {
        const MAX: f64 = 86_400.0;
        let given = plain(value.get_ref()).and_then(|l| l.as_f64());
        let (wrong, nearest) = match given {
            Some(s) if (min..=MAX).contains(&s) => return Some(s),
            Some(s) if s.is_finite() => (format!("{s} is out of range"), Some(s.clamp(min, MAX).to_string())),
            Some(s) => (format!("{s} is not finite"), None),
            _ => (format!("this is {}", kind(value.get_ref())), None),
        };
        let fault = self.fault(
            value.span(),
            format!("field `{}`: {wrong}", key.get_ref()),
            format!("a finite number of seconds from {min} to {MAX}"),
        );
        *fault = fault.clone().nearest(nearest);
        None
    }

    pub(crate) fn list<'a, 'i>(&mut self, key: &Key<'_>, value: &'a Value<'i>) -> Vec<&'a Value<'i>> {
        match value.get_ref() {
            DeValue::Array(items) if items.is_empty() => {
                self.fault(
                    value.span(),
                    format!("field `{}` is an empty list", key.get_ref()),
                    "one entry or more",
                );
                Vec::new()
            }
            DeValue::Array(items) => items.iter().collect(),
            other => {
                let shown = self.text.get(value.span()).unwrap_or("…").to_owned();
                let message = format!("field `{}` is {}", key.get_ref(), kind(other));
                let plain = plain(other).is_some();
                let fault = self.fault(value.span(), message, "a list in brackets");
                *fault = fault.clone().nearest(plain.then(|| format!("[{shown}]")));
                Vec::new()
            }
        }
    }

    fn size(&mut self, table: &DeTable<'_>, study: &StudyFile) {
        let matrix = study.factors.iter().try_fold(1u64, |n, (_, levels)| n.checked_mul(levels.len() as u64));
        let whole = study.design.kind == DesignKind::Full;
        let at = find(table, "factors").map_or(0..0, |(key, _)| key.span());
        // Even where most of it is excluded: each point has to be looked at.
        if whole && matrix.is_none_or(|n| n > 10 * MAX_RUNS) {
            let shown = matrix.map_or("too many".into(), |n| n.to_string());
            self.fault(at, format!("the matrix has {shown} points"), format!("at most {}", 10 * MAX_RUNS));
            return;
        }
        if !self.faults.is_empty() {
            return;
        }
        if let Err(wrong) = design::check(study) {
            let at = find(table, "design").map_or(0..0, |(key, _)| key.span());
            self.fault(at, format!("section [design]: {wrong}"), "a design as docs/studies.md describes it");
            return;
        }
        let points = study.points(0).len() as u64;
        match points * u64::from(study.repeats) {
            0 => {
                self.fault(at, "no point is left to be run".into(), "a design with at least one point");
            }
            runs if runs > MAX_RUNS => {
                self.fault(at, format!("the matrix makes {runs} runs"), format!("at most {MAX_RUNS}"));
            }
            _ => {}
        }
    }
}

pub(crate) fn find<'a, 'i>(table: &'a DeTable<'i>, name: &str) -> Option<(&'a Key<'i>, &'a Value<'i>)> {
    table.iter().find(|(key, _)| key.get_ref().as_ref() == name)
}

/// A TOML value as a level, where it is one.
pub(crate) fn plain(value: &DeValue<'_>) -> Option<Level> {
    match value {
        DeValue::String(text) => Some(Level::Text(text.to_string())),
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).ok().map(Level::Int),
        DeValue::Float(x) => x.as_str().parse().ok().map(Level::Float),
        DeValue::Boolean(b) => Some(Level::Bool(*b)),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

pub(crate) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

pub(crate) fn one_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = names.map(|n| format!("`{n}`")).collect();
    match quoted.as_slice() {
        [] => "nothing".into(),
        [one] => one.clone(),
        many => format!("one of {}", many.join(", ")),
    }
}
