//! Levels, points and a command's settings as they are written in a study file.

use std::ops::Range;

use recording::spec::{Domain, Factor, Level, Levels, SubjectSpec};
use toml::de::{DeTable, DeValue};

use crate::command;
use crate::diagnostic::nearest_word;
use crate::level::{self, Fault};
use crate::range;
use crate::sections::{self, Sections};
use crate::study_file::{Key, Reader, Value, find, kind, one_of, plain};

impl Reader<'_> {
    /// The spec of a command: its settings are those of the file.
    pub(crate) fn command(&mut self, table: &DeTable<'_>, sections: &Sections) -> Option<SubjectSpec> {
        let Some(command) = &sections.command else {
            self.fault(0..0, "section [command] is missing".into(), "[command] with `run = \"…\"`");
            return None;
        };
        for (field, what) in command.get_ref().faults() {
            self.fault(
                command.span(),
                format!("field `{field}` of [command]: {what}"),
                "see docs/commands.md",
            );
        }
        let extractors = sections.extractors().map_err(|wrong| self.wrong(wrong)).ok()?;
        let mut columns = std::collections::BTreeSet::new();
        for (panel, name, column) in extractors.columns() {
            if !columns.insert(column.name.clone()) {
                let message = format!("section [[extract]]: `{}` stands twice", column.name);
                self.fault(command.span(), message, "a name of its own for each value");
            }
            if name != command::RESULTS {
                let message =
                    format!("section [[extract]]: `{}` goes to the table {panel}.{name}", column.name);
                self.fault(command.span(), message, "no `table`, `each` or `time` in the study of a command");
            }
        }
        let factors = self.own_factors(table);
        let names = || factors.iter().map(|factor| factor.name.as_str()).chain([command::RUN_DIR]);
        match command.get_ref().placeholders() {
            Err(what) => {
                self.fault(command.span(), format!("section [command]: {what}"), "`{NAME}` of a setting");
            }
            Ok(used) => {
                for name in used.iter().filter(|name| names().all(|known| known != *name)) {
                    let nearest = nearest_word(name, names()).map(str::to_owned);
                    let message = format!("section [command]: there is no setting `{name}`");
                    let fault = self.fault(command.span(), message, one_of(names()));
                    *fault = fault.clone().nearest(nearest);
                }
                for (key, _) in
                    entries(table, "factors").filter(|(key, _)| !used.contains(key.get_ref().as_ref()))
                {
                    let message = format!("factor `{}` stands nowhere in [command]", key.get_ref());
                    self.fault(
                        key.span(),
                        message,
                        format!("`{{{}}}` where its level belongs", key.get_ref()),
                    );
                }
            }
        }
        Some(command::spec(factors, &extractors))
    }

    /// The settings of a command, with the domain that their levels tell.
    fn own_factors(&mut self, table: &DeTable<'_>) -> Vec<Factor> {
        let mut factors: Vec<Factor> = Vec::new();
        for section in ["factors", "fixed"] {
            for (key, value) in entries(table, section) {
                let name = key.get_ref().to_string();
                if name == command::RUN_DIR {
                    let message = format!("a setting cannot be called `{name}`");
                    self.fault(key.span(), message, "another name: this one stands for the run's folder");
                    continue;
                }
                // One that is varied and fixed is told of later.
                if factors.iter().any(|factor| factor.name == name) {
                    continue;
                }
                let written = match section {
                    "factors" => self.written(key, value, "a number, a text, true or false"),
                    _ => plain(value.get_ref()).map(|level| Written::of(vec![(level, value.span())])),
                };
                let Some(written) = written else { continue };
                let levels: Vec<Level> = written.levels.into_iter().map(|(level, _)| level).collect();
                match command::domain(&levels) {
                    Ok(domain) => {
                        let default = match (&domain, &levels[0]) {
                            (Domain::Float { .. }, level) => Level::Float(level.as_f64().unwrap_or_default()),
                            (_, level) => level.clone(),
                        };
                        factors.push(command::factor(
                            &name,
                            &written.unit,
                            &written.description,
                            domain,
                            default,
                        ));
                    }
                    Err(what) => {
                        self.fault(value.span(), format!("factor `{name}`: {what}"), "levels of one type");
                    }
                }
            }
        }
        factors
    }

    /// A command takes the time that it takes.
    pub(crate) fn no_times(&mut self, table: &DeTable<'_>) {
        for (name, instead) in [("warmup_s", "warmup"), ("record_s", "executions")] {
            if let Some((key, _)) = find(table, name) {
                let message = format!("field `{name}`: a command takes the time that it takes");
                self.fault(key.span(), message, format!("to be left out, or `{instead}` in [command]"));
            }
        }
    }

    /// The points that stand in the file: a level for every varied factor, and none that is not varied.
    pub(crate) fn points(
        &mut self,
        sections: &Sections,
        factors: &[(String, Vec<Level>)],
        subject: &SubjectSpec,
    ) -> Vec<Levels> {
        let names = || factors.iter().map(|(name, _)| name.as_str());
        let mut points = Vec::new();
        for (at, point) in sections.points() {
            let before = self.faults.len();
            for (name, level) in point {
                if names().all(|n| n != name) {
                    let nearest = nearest_word(name, names()).map(str::to_owned);
                    let message = format!("field `{name}` of [[points]]: it is not varied");
                    let fault = self.fault(level.span(), message, one_of(names()));
                    *fault = fault.clone().nearest(nearest);
                }
            }
            for name in names().filter(|name| !point.contains_key(*name)) {
                self.fault(
                    at.clone(),
                    format!("a point has no level of `{name}`"),
                    "a level of every factor",
                );
            }
            let mut levels = sections::levels(point);
            for (name, level) in &mut levels {
                let Some(factor) = subject.factors.iter().find(|f| f.name == *name) else { continue };
                match level::check(factor, level.clone()) {
                    Ok(checked) => *level = checked,
                    // A command's domain is what its levels tell; a point may lie beyond them.
                    Err(_) if subject.name == command::NAME => {}
                    Err(Fault { wrong, nearest }) => {
                        let at = point[name].span();
                        let fault =
                            self.fault(at, format!("setting `{name}`: {wrong}"), level::expected(factor));
                        *fault = fault.clone().nearest(nearest);
                    }
                }
            }
            if self.faults.len() == before {
                points.push(levels);
            }
        }
        points
    }

    /// The levels of a factor: a list, a range, or a table with either. `expected` is what messages say of a level.
    pub(crate) fn written(&mut self, key: &Key<'_>, value: &Value<'_>, expected: &str) -> Option<Written> {
        match value.get_ref() {
            DeValue::String(text) if text.contains("..") => match range::levels(text)? {
                Ok(levels) => {
                    Some(Written::of(levels.into_iter().map(|level| (level, value.span())).collect()))
                }
                Err(wrong) => {
                    let message = format!("factor `{}`: {wrong}", key.get_ref());
                    self.fault(value.span(), message, range::FORM);
                    None
                }
            },
            DeValue::Table(entries) => {
                let Some((levels_key, levels)) = find(entries, "levels") else {
                    let message = format!("factor `{}` has no `levels`", key.get_ref());
                    self.fault(key.span(), message, "levels = [..], or a range in quotes");
                    return None;
                };
                let mut text =
                    |name: &str| find(entries, name).and_then(|(key, value)| self.text(key, value));
                let (unit, description) = (text("unit"), text("description"));
                for (key, _) in entries.iter() {
                    let known = ["levels", "unit", "description"];
                    if !known.contains(&key.get_ref().as_ref()) {
                        let nearest = nearest_word(key.get_ref(), known).map(str::to_owned);
                        let fault = self.fault(
                            key.span(),
                            format!("field `{}` of a factor is unknown", key.get_ref()),
                            one_of(known.into_iter()),
                        );
                        *fault = fault.clone().nearest(nearest);
                    }
                }
                if matches!(levels.get_ref(), DeValue::Table(_)) {
                    self.list(levels_key, levels);
                    return None;
                }
                let written = self.written(levels_key, levels, expected)?;
                let (unit, description) = (unit.unwrap_or_default(), description.unwrap_or_default());
                Some(Written { unit, description, ..written })
            }
            _ => {
                let mut levels = Vec::new();
                let items = self.list(key, value);
                if items.len() > range::MAX_LEVELS {
                    let message = format!("factor `{}` has {} levels", key.get_ref(), items.len());
                    self.fault(key.span(), message, format!("at most {}", range::MAX_LEVELS));
                    return None;
                }
                for item in items {
                    match plain(item.get_ref()) {
                        Some(level) => levels.push((level, item.span())),
                        None => {
                            let message = format!("setting `{}` is {}", key.get_ref(), kind(item.get_ref()));
                            self.fault(item.span(), message, expected);
                        }
                    }
                }
                (!levels.is_empty()).then(|| Written::of(levels))
            }
        }
    }
}

/// Levels as they are written, with where each stands.
pub(crate) struct Written {
    pub(crate) levels: Vec<(Level, Range<usize>)>,
    pub(crate) unit: String,
    pub(crate) description: String,
}

impl Written {
    pub(crate) fn of(levels: Vec<(Level, Range<usize>)>) -> Self {
        Self { levels, unit: String::new(), description: String::new() }
    }
}

/// The entries of a section, if it is there and a table.
pub(crate) fn entries<'a, 'i>(
    table: &'a DeTable<'i>,
    section: &str,
) -> impl Iterator<Item = (&'a Key<'i>, &'a Value<'i>)> + use<'a, 'i> {
    let found = match find(table, section).map(|(_, value)| value.get_ref()) {
        Some(DeValue::Table(entries)) => Some(entries),
        _ => None,
    };
    found.into_iter().flat_map(|entries| entries.iter())
}
