//! `subject = "command"`: a study of any program. Its factors, its command line and what is read of its output all stand in
//! the study file; this makes the spec of them that other subjects bring along.

use std::collections::{BTreeMap, BTreeSet};

use recording::import::extract::Extractors;
use recording::spec::{Better, Domain, Factor, Level, Levels, Response, Statistic, SubjectSpec};
use serde::Deserialize;

/// Name of the subject.
pub const NAME: &str = "command";
/// Table of what each execution used, on the host's panel.
pub const TABLE: &str = "command";
/// Table of what extractors find.
pub(crate) const RESULTS: &str = "results";
/// Placeholders that are no settings: the run's folder.
pub const RUN_DIR: &str = "run_dir";

/// How the program is started.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Invocation {
    /// By `sh -c`, whose start is measured too.
    Shell(String),
    /// Directly: the program and its arguments.
    Words(Vec<String>),
}

impl Invocation {
    /// All texts of it, in order.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::Shell(text) => vec![text],
            Self::Words(words) => words.iter().map(String::as_str).collect(),
        }
    }
}

/// `[command]` of a study file. `{name}` in its texts stands for a setting, `{run_dir}` for the run's folder, `{{` for `{`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandStudy {
    /// What is measured.
    pub run: Invocation,
    /// Shell command before each execution; not measured.
    #[serde(default)]
    pub prepare: Option<String>,
    /// Shell command after each execution, also after one that failed; not measured.
    #[serde(default)]
    pub cleanup: Option<String>,
    /// Working directory; the run's folder when it is not given.
    #[serde(default)]
    pub directory: Option<String>,
    /// Environment variables beside those of the caller.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Seconds that one execution may take.
    #[serde(default = "usual_timeout")]
    pub timeout_s: f64,
    /// Exit codes that are no failure.
    #[serde(default = "usual_codes")]
    pub exit_codes: Vec<i32>,
    /// Executions that are measured in each run, one after the other; a row each.
    #[serde(default = "one")]
    pub executions: u32,
    /// Executions before these that are not measured, so that caches are warm.
    #[serde(default)]
    pub warmup: u32,
}

fn usual_timeout() -> f64 {
    600.0
}

fn usual_codes() -> Vec<i32> {
    vec![0]
}

fn one() -> u32 {
    1
}

impl CommandStudy {
    /// What is wrong with the values, and with which field.
    pub(crate) fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let program = self.run.texts().first().map(|text| text.trim().is_empty());
        if program != Some(false) {
            faults.push(("run", "names no program".into()));
        }
        if !(self.timeout_s > 0.0 && self.timeout_s <= 86_400.0) {
            faults.push(("timeout_s", format!("{} is not between 0 and 86400", self.timeout_s)));
        }
        if !(1..=10_000).contains(&self.executions) {
            faults.push(("executions", format!("{} is not from 1 to 10000", self.executions)));
        }
        if self.warmup > 10_000 {
            faults.push(("warmup", format!("{} is more than 10000", self.warmup)));
        }
        if self.exit_codes.is_empty() {
            faults.push(("exit_codes", "an empty list makes every run fail".into()));
        }
        faults
    }

    /// Every text in which settings may stand.
    pub fn texts(&self) -> Vec<&str> {
        let more =
            [&self.prepare, &self.cleanup, &self.directory].into_iter().flatten().chain(self.env.values());
        self.run.texts().into_iter().chain(more.map(String::as_str)).collect()
    }

    /// The settings that stand in its texts, or a text with a placeholder that does not end.
    pub(crate) fn placeholders(&self) -> Result<BTreeSet<String>, String> {
        let mut found = BTreeSet::new();
        for text in self.texts() {
            for part in parts(text)? {
                if let Part::Setting(name) = part {
                    found.insert(name.to_owned());
                }
            }
        }
        Ok(found)
    }
}

/// A piece of a text with placeholders.
enum Part<'t> {
    Plain(&'t str),
    Setting(&'t str),
}

fn parts(text: &str) -> Result<Vec<Part<'_>>, String> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(['{', '}']) {
        let (before, found) = rest.split_at(at);
        parts.push(Part::Plain(before));
        if let Some(after) = found.strip_prefix("{{").or_else(|| found.strip_prefix("}}")) {
            parts.push(Part::Plain(&found[..1]));
            rest = after;
        } else if let Some(after) = found.strip_prefix('}') {
            // One that closes nothing is itself: awk and JSON are full of them.
            parts.push(Part::Plain("}"));
            rest = after;
        } else {
            let inner = found[1..].split_once('}');
            let (name, after) =
                inner.ok_or_else(|| format!("`{{` of `{text}` is never closed; `{{{{` stands for itself"))?;
            parts.push(Part::Setting(name));
            rest = after;
        }
    }
    parts.push(Part::Plain(rest));
    Ok(parts)
}

/// `text` with the levels of `settings`, and `run_dir`, in place of their names.
///
/// # Errors
/// A placeholder is none of them.
pub fn substituted(text: &str, settings: &Levels, run_dir: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    for part in parts(text)? {
        match part {
            Part::Plain(plain) => out.push_str(plain),
            Part::Setting(RUN_DIR) => out.push_str(run_dir),
            Part::Setting(name) => {
                let level = settings.get(name).ok_or_else(|| format!("there is no setting `{name}`"))?;
                out.push_str(&level.to_string());
            }
        }
    }
    Ok(out)
}

/// The narrowest domain that holds all of `levels`, which are not empty and of one type; else what is wrong with them.
pub(crate) fn domain(levels: &[Level]) -> Result<Domain, String> {
    let whole: Vec<i64> =
        levels.iter().filter_map(|l| if let Level::Int(n) = l { Some(*n) } else { None }).collect();
    let numbers: Vec<f64> = levels.iter().filter_map(Level::as_f64).collect();
    let texts: Vec<String> =
        levels.iter().filter_map(|l| if let Level::Text(t) = l { Some(t.clone()) } else { None }).collect();
    let flags = levels.iter().filter(|l| matches!(l, Level::Bool(_))).count();
    let least = |x: &[f64]| x.iter().copied().fold(f64::INFINITY, f64::min);
    let most = |x: &[f64]| x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match levels.len() {
        0 => Err("it has no levels".into()),
        n if whole.len() == n => Ok(Domain::Int {
            min: whole.iter().copied().min().unwrap_or(0),
            max: whole.iter().copied().max().unwrap_or(0),
        }),
        n if numbers.len() == n && numbers.iter().all(|x| x.is_finite()) => {
            Ok(Domain::Float { min: least(&numbers), max: most(&numbers) })
        }
        n if flags == n => Ok(Domain::Bool),
        n if texts.len() == n => {
            let mut values = Vec::new();
            for text in texts {
                if !values.contains(&text) {
                    values.push(text);
                }
            }
            Ok(Domain::Enum { values })
        }
        _ => Err("its levels are of several types".into()),
    }
}

/// A factor of a command.
pub(crate) fn factor(name: &str, unit: &str, description: &str, domain: Domain, default: Level) -> Factor {
    let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
    Factor {
        name: name.to_owned(),
        unit: unit.to_owned(),
        description: or(description, "set in the study file"),
        domain,
        default,
    }
}

/// What a study of a command takes and gives.
pub(crate) fn spec(factors: Vec<Factor>, extractors: &Extractors) -> SubjectSpec {
    let usual: [(&str, &str, &str, f64, &str, Better); 6] = [
        ("wall", "time", "wall_ns", 1e-6, "ms", Better::Lower),
        ("user", "user CPU", "user_ns", 1e-6, "ms", Better::Lower),
        ("system", "system CPU", "system_ns", 1e-6, "ms", Better::Lower),
        ("cpu", "CPU", "cpu_percent", 1.0, "%", Better::Neutral),
        ("max_rss", "memory", "max_rss_bytes", 1e-6, "MB", Better::Lower),
        ("switches", "waits", "voluntary_switches", 1.0, "1", Better::Neutral),
    ];
    let response =
        |name: &str, label: &str, table: String, column: &str, scale: f64, unit: &str, better| Response {
            name: name.into(),
            label: label.into(),
            table,
            column: column.into(),
            statistic: Statistic::Mean,
            scale,
            unit: unit.into(),
            better,
        };
    // What the study reads of the output is what it is about: first.
    let mut responses: Vec<Response> = extractors
        .columns()
        .into_iter()
        .map(|(panel, table, column)| {
            let (table, name) = (format!("{panel}.{table}"), column.name.as_str());
            response(name, name, table, name, 1.0, &column.unit, Better::Neutral)
        })
        .collect();
    for (name, label, column, scale, unit, better) in usual {
        if responses.iter().all(|r| r.name != name) {
            responses.push(response(name, label, format!("host.{TABLE}"), column, scale, unit, better));
        }
    }
    SubjectSpec {
        name: NAME.into(),
        description: "a program that the study file names".into(),
        factors,
        responses,
        joins: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_stand_in_for_their_names() {
        let settings: Levels =
            [("level".into(), Level::Int(6)), ("mode".into(), Level::Text("fast".into()))].into();
        for (text, expected) in [
            ("xz -{level} --{mode}", Ok("xz -6 --fast")),
            ("awk '{{print $1}}' {run_dir}/x", Ok("awk '{print $1}' /r/x")),
            ("a } b", Ok("a } b")),
            ("{levle}", Err("there is no setting `levle`")),
            ("{level", Err("`{` of `{level` is never closed; `{{` stands for itself")),
        ] {
            let told = substituted(text, &settings, "/r");
            assert_eq!(told.as_deref().map_err(String::as_str), expected, "{text}");
        }
    }

    #[test]
    fn levels_tell_their_domain() {
        let (int, float, text) = (Level::Int, Level::Float, |t: &str| Level::Text(t.into()));
        assert_eq!(domain(&[int(3), int(1)]), Ok(Domain::Int { min: 1, max: 3 }));
        assert_eq!(domain(&[int(3), float(0.5)]), Ok(Domain::Float { min: 0.5, max: 3.0 }));
        assert_eq!(
            domain(&[text("b"), text("a"), text("b")]),
            Ok(Domain::Enum { values: vec!["b".into(), "a".into()] })
        );
        assert_eq!(domain(&[Level::Bool(true)]), Ok(Domain::Bool));
        for wrong in [vec![], vec![int(1), text("a")], vec![float(f64::NAN)]] {
            assert!(domain(&wrong).is_err(), "{wrong:?}");
        }
    }
}
