//! `triptych compare`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Write, stdout};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use recording::facts::RunStatus;
use recording::spec::{Better, Level, Levels, Response};
use serde::Serialize;
use stats::change::{self, Changes};
use stats::compare::{self, Comparison, Direction, How, Margin, Verdict};
use stats::fdr::Adjustment;
use stats::self_test::{Outcome, SelfTest, Trial, self_test};
use store::{RunSummary, Study};
use thiserror::Error;

use crate::Exit;
use crate::locate::locate;
use crate::table::number;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  triptych compare results/before results/after          every point that both have, every response
  triptych compare before after --margin 2%              where less than 2 % does not matter
  triptych compare latest:codec=h264 latest:codec=vp8    two settings within one study
  triptych compare jan feb mar apr may --series          when did something change?
  triptych compare latest --self-test                    how often would chance alone be told as an effect?

A verdict holds for all rows together: of those that are told as different, one in twenty may be chance.
Exit status: 0 nothing is worse; 3 something is worse, or the self-test failed; 1 it could not be compared; 2 wrong command line.")]
pub(crate) struct Compare {
    /// Studies, each with levels that its runs must have: STUDY or STUDY:factor=level,factor=level. STUDY is a folder, a
    /// name below --results, or `latest`.
    #[arg(required = true, value_name = "STUDY[:FACTOR=LEVEL,...]")]
    sides: Vec<String>,
    /// Folder of the studies.
    #[arg(long, default_value = "results", value_name = "DIR")]
    results: PathBuf,
    /// Only these responses; may be repeated.
    #[arg(long = "response", value_name = "NAME")]
    responses: Vec<String>,
    /// What does not matter: a share (2%) or an amount in the response's unit.
    #[arg(long, value_name = "MARGIN", value_parser = margin)]
    margin: Option<Margin>,
    /// Confidence of the intervals, and 1 less the share of false findings among the findings.
    #[arg(long, default_value = "0.95", value_name = "LEVEL", value_parser = level)]
    level: f64,
    /// How findings over many rows are kept honest.
    #[arg(long, value_enum, default_value = "bh")]
    adjust: Adjust,
    /// Compare all points together instead of each with its like.
    #[arg(long)]
    pooled: bool,
    /// Look for changes along the studies, in the order in which they are given.
    #[arg(long, conflicts_with_all = ["margin", "self_test", "adjust"])]
    series: bool,
    /// Split the runs of one study at random, many times, and count what is told as different though nothing is.
    #[arg(long)]
    self_test: bool,
    /// Leave out runs that something outside disturbed.
    #[arg(long)]
    undisturbed: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Adjust {
    /// Benjamini and Hochberg's false discovery rate
    Bh,
    /// Benjamini and Yekutieli's, which holds however rows depend on each other
    By,
    /// Each row by itself
    None,
}

/// What is asked for cannot be compared.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct Wrong(pub(crate) String);

fn wrong<T>(text: impl Into<String>) -> anyhow::Result<T> {
    Err(Wrong(text.into()).into())
}

fn margin(text: &str) -> Result<Margin, String> {
    let (number, relative) = text.strip_suffix('%').map_or((text, false), |number| (number, true));
    let amount = number.trim().parse::<f64>().ok().filter(|x| x.is_finite() && *x > 0.0);
    let amount = amount.ok_or_else(|| format!("'{text}' is no margin: write 2% or an amount above 0"))?;
    Ok(if relative { Margin::Relative(amount / 100.0) } else { Margin::Absolute(amount) })
}

fn level(text: &str) -> Result<f64, String> {
    let level = text.parse::<f64>().ok().filter(|x| (0.5..1.0).contains(x));
    level.ok_or_else(|| format!("'{text}' is no level: write a number from 0.5 to below 1"))
}

/// One side of a comparison: the complete runs of a study that have the levels asked for.
struct Side {
    name: String,
    study: Study,
    /// What its runs were chosen by.
    chosen: BTreeMap<String, String>,
    runs: Vec<RunSummary>,
}

impl Side {
    fn open(text: &str, options: &Compare) -> anyhow::Result<Self> {
        let (name, levels) = match text.rsplit_once(':') {
            Some((name, levels)) if levels.contains('=') => (name, levels),
            _ => (text, ""),
        };
        let study = Study::open(&locate(name, &options.results)?)?;
        let mut wanted = BTreeMap::new();
        for pair in levels.split(',').filter(|pair| !pair.is_empty()) {
            let Some((factor, level)) = pair.split_once('=') else {
                return wrong(format!("'{pair}' is no FACTOR=LEVEL"));
            };
            let levels = study
                .plan
                .points
                .iter()
                .filter_map(|p| p.levels.get(factor))
                .chain(study.plan.fixed.get(factor));
            let mut have: Vec<String> = Vec::new();
            for level in levels.map(Level::to_string) {
                if !have.contains(&level) {
                    have.push(level);
                }
            }
            if !have.iter().any(|l| l == level) {
                let known = if have.is_empty() {
                    "it is no factor of the study".to_owned()
                } else {
                    format!("its levels are {}", have.join(", "))
                };
                return wrong(format!("{name}: {factor} is never {level}; {known}"));
            }
            wanted.insert(factor.to_owned(), level.to_owned());
        }
        let fixed = study.plan.fixed.clone();
        let has = |run: &RunSummary| {
            let complete = run.facts.status == RunStatus::Complete;
            let disturbed = run.facts.quality.as_ref().is_some_and(|q| q.disturbed);
            let level = |name: &String| run.facts.asked.get(name).or(fixed.get(name)).map(Level::to_string);
            complete
                && !(options.undisturbed && disturbed)
                && wanted.iter().all(|(name, wanted)| level(name).as_ref() == Some(wanted))
        };
        let runs: Vec<_> = study.runs()?.into_iter().filter(has).collect();
        if runs.is_empty() {
            return wrong(format!("{text}: no complete run has these levels"));
        }
        Ok(Self { name: text.to_owned(), study, chosen: wanted, runs })
    }

    /// The runs by their levels of `names`, in the order of the plan: the levels, these as texts, and the runs. A level is the
    /// same whether it is written `2` or `2.0`.
    fn points(&self, names: &[String]) -> Vec<(Levels, Vec<String>, Vec<&RunSummary>)> {
        let mut runs: Vec<&RunSummary> = self.runs.iter().collect();
        runs.sort_by_key(|run| run.facts.point);
        let mut places: BTreeMap<Vec<String>, usize> = BTreeMap::new();
        let mut points: Vec<(Levels, Vec<String>, Vec<&RunSummary>)> = Vec::new();
        for run in runs {
            let text = |name: &String| run.facts.asked.get(name).map_or_else(String::new, Level::to_string);
            let key: Vec<String> = names.iter().map(text).collect();
            let place = *places.entry(key.clone()).or_insert_with(|| {
                let level = |name: &String| Some((name.clone(), run.facts.asked.get(name)?.clone()));
                points.push((names.iter().filter_map(level).collect(), key, Vec::new()));
                points.len() - 1
            });
            points[place].2.push(run);
        }
        points
    }

    fn values(&self, response: &str, of: impl Fn(&RunSummary) -> bool) -> Vec<f64> {
        self.runs
            .iter()
            .filter(|run| of(run))
            .filter_map(|run| run.responses.get(response).copied())
            .collect()
    }
}

/// A row: one response at one point, or over all.
#[derive(Serialize)]
struct Row {
    response: String,
    label: String,
    unit: String,
    levels: Levels,
    #[serde(flatten)]
    comparison: Comparison,
}

pub(crate) fn compare(options: &Compare) -> anyhow::Result<Exit> {
    let sides = options.sides.iter().map(|side| Side::open(side, options)).collect::<Result<Vec<_>, _>>()?;
    match sides.as_slice() {
        [side] if options.self_test => test_itself(side, options),
        _ if options.self_test => wrong("--self-test is about one study"),
        sides if options.series => series(sides, options),
        [a, b] => two(a, b, options),
        _ => wrong("two sides are compared, such as `triptych compare before after`; more are a --series"),
    }
}

/// The responses that all sides have, or those asked for.
fn responses<'s>(sides: &[&'s Side], options: &Compare) -> anyhow::Result<Vec<&'s Response>> {
    let of = |side: &Side, name: &str| side.study.plan.subject.responses.iter().any(|r| r.name == name);
    let common = sides[0].study.plan.subject.responses.iter();
    let common: Vec<_> = common.filter(|r| sides.iter().all(|side| of(side, &r.name))).collect();
    if let Some(name) = options.responses.iter().find(|name| common.iter().all(|r| r.name != **name)) {
        let have: Vec<_> = common.iter().map(|r| r.name.as_str()).collect();
        return wrong(format!("not all sides have a response {name}; they have {}", have.join(", ")));
    }
    let chosen = |r: &&&Response| options.responses.is_empty() || options.responses.contains(&r.name);
    Ok(common.iter().filter(chosen).copied().collect())
}

fn direction(better: Better) -> Direction {
    match better {
        Better::Lower => Direction::Lower,
        Better::Higher => Direction::Higher,
        Better::Neutral => Direction::Neutral,
    }
}

impl Adjust {
    fn adjustment(self) -> Adjustment {
        match self {
            Self::Bh => Adjustment::BenjaminiHochberg,
            Self::By => Adjustment::BenjaminiYekutieli,
            Self::None => Adjustment::None,
        }
    }
}

fn two(a: &Side, b: &Side, options: &Compare) -> anyhow::Result<Exit> {
    let how = How { level: options.level, margin: options.margin, ..How::default() };
    // What both sides vary, and neither is chosen by, tells which runs are alike.
    let chosen = |name: &String| a.chosen.contains_key(name) || b.chosen.contains_key(name);
    let both = a.study.plan.varied.iter().filter(|name| b.study.plan.varied.contains(name) && !chosen(name));
    let names: Vec<String> = if options.pooled { Vec::new() } else { both.cloned().collect() };
    let (points_a, points_b) = (a.points(&names), b.points(&names));
    let other: BTreeMap<&Vec<String>, &Vec<&RunSummary>> =
        points_b.iter().map(|(_, key, runs)| (key, runs)).collect();
    let common: Vec<_> = points_a.iter().filter(|(_, key, _)| other.contains_key(key)).collect();
    if common.is_empty() {
        return wrong("the two sides have no point in common; --pooled compares all of their runs together");
    }
    let mut rows: Vec<Row> = Vec::new();
    let mut left_out = BTreeSet::new();
    for response in responses(&[a, b], options)? {
        let how = How { direction: direction(response.better), ..how };
        for (levels, key, runs) in &common {
            let values = |runs: &[&RunSummary]| -> Vec<f64> {
                runs.iter().filter_map(|run| run.responses.get(&response.name).copied()).collect()
            };
            let runs_b = other.get(key).map(|runs| runs.as_slice()).unwrap_or_default();
            match compare::compare_values(&values(runs), &values(runs_b), &how) {
                Ok(comparison) => rows.push(Row {
                    response: response.name.clone(),
                    label: response.label.clone(),
                    unit: response.unit.clone(),
                    levels: levels.clone(),
                    comparison,
                }),
                Err(error) => drop(left_out.insert(format!("{}: {error}", response.name))),
            }
        }
    }
    let left_out: Vec<String> = left_out.into_iter().collect();
    if rows.is_empty() {
        return wrong(format!("nothing can be compared: {}", left_out.join("; ")));
    }
    let mut comparisons: Vec<Comparison> = rows.iter().map(|row| row.comparison.clone()).collect();
    compare::control(&mut comparisons, options.adjust.adjustment());
    for (row, comparison) in rows.iter_mut().zip(comparisons) {
        row.comparison = comparison;
    }
    let worse = rows.iter().filter(|row| row.comparison.verdict == Verdict::Worse).count();
    let mut out = stdout();
    if options.json {
        let told = serde_json::json!({ "a": a.name, "b": b.name, "level": options.level, "rows": rows, "left_out": left_out });
        writeln!(out, "{}", serde_json::to_string_pretty(&told)?)?;
    } else {
        writeln!(out, "A  {}  {} runs\nB  {}  {} runs\n", a.name, a.runs.len(), b.name, b.runs.len())?;
        write!(out, "{}", shown(&rows, &names, options.level))?;
        for what in &left_out {
            eprintln!("left out: {what}");
        }
    }
    Ok(if worse > 0 { Exit::Worse } else { Exit::Success })
}

fn shown(rows: &[Row], names: &[String], level: f64) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let percent = format!("{:.0} %", 100.0 * level);
    let mut head: Vec<String> = names.to_vec();
    head.extend([
        "response".into(),
        "A".into(),
        "B".into(),
        "B - A".into(),
        percent,
        "p".into(),
        "verdict".into(),
    ]);
    table.set_header(head);
    for row in rows {
        let c = &row.comparison;
        let unit =
            if row.unit.is_empty() || row.unit == "1" { String::new() } else { format!(" {}", row.unit) };
        let mut cells: Vec<String> =
            names.iter().map(|name| row.levels.get(name).map_or("-".into(), Level::to_string)).collect();
        cells.extend([
            row.label.clone(),
            format!("{}{unit}", number(c.a.mean)),
            format!("{}{unit}", number(c.b.mean)),
            relative(c),
            interval(c),
            c.p_adjusted
                .or(c.p)
                .map_or("-".into(), |p| if p < 0.001 { "< 0.001".into() } else { format!("{p:.3}") }),
            verdict(&c.verdict),
        ]);
        table.add_row(cells);
    }
    for column in names.len() + 1..names.len() + 6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = String::new();
    for line in table.to_string().lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The effect in percent where there is a ratio, else in the response's unit.
fn relative(c: &Comparison) -> String {
    match &c.ratio {
        Some(ratio) => format!("{:+.1} %", ratio.percent().estimate),
        None => {
            format!("{}{}", if c.difference.estimate > 0.0 { "+" } else { "" }, number(c.difference.estimate))
        }
    }
}

fn interval(c: &Comparison) -> String {
    let percent = c.ratio.as_ref().map(compare::Effect::percent);
    match (percent.and_then(|effect| effect.interval), c.difference.interval) {
        (Some(i), _) => format!("{:+.1} … {:+.1} %", i.low, i.high),
        (None, Some(i)) => format!("{} … {}", number(i.low), number(i.high)),
        (None, None) => "-".into(),
    }
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Better => "better".into(),
        Verdict::Worse => "WORSE".into(),
        Verdict::Differs => "differs".into(),
        Verdict::NoDifferenceThatMatters => "no difference that matters".into(),
        Verdict::Unclear { runs: Some(runs) } => format!("unclear; about {runs} runs a side would tell"),
        Verdict::Unclear { runs: None } => "unclear".into(),
    }
}

fn series(sides: &[Side], options: &Compare) -> anyhow::Result<Exit> {
    let all: Vec<&Side> = sides.iter().collect();
    let how = change::How { alpha: 1.0 - options.level, level: options.level, ..change::How::default() };
    let mut told: Vec<(&Response, Changes)> = Vec::new();
    let mut left_out = Vec::new();
    for response in responses(&all, options)? {
        let values: Vec<Vec<f64>> = sides.iter().map(|side| side.values(&response.name, |_| true)).collect();
        match change::changes(&values, &how) {
            Ok(changes) => told.push((response, changes)),
            Err(error) => left_out.push(format!("{}: {error}", response.name)),
        }
    }
    if told.is_empty() {
        return wrong(format!("nothing can be looked at: {}", left_out.join("; ")));
    }
    let mut out = stdout();
    if options.json {
        let rows: Vec<_> = told
            .iter()
            .map(|(r, changes)| serde_json::json!({ "response": r.name, "unit": r.unit, "changes": changes }))
            .collect();
        let names: Vec<_> = sides.iter().map(|side| &side.name).collect();
        let told = serde_json::json!({ "studies": names, "rows": rows, "left_out": left_out });
        writeln!(out, "{}", serde_json::to_string_pretty(&told)?)?;
        return Ok(Exit::Success);
    }
    for (response, changes) in &told {
        let unit = if response.unit == "1" { "" } else { response.unit.as_str() };
        if changes.changes.is_empty() {
            writeln!(out, "{}: no change over {} studies", response.label, changes.used.len())?;
        }
        for change in &changes.changes {
            let at = sides.get(change.at).map_or("?", |side| side.name.as_str());
            writeln!(
                out,
                "{}: {} → {} {unit} from {at} on (p {:.3})",
                response.label,
                number(change.before.mean),
                number(change.after.mean),
                change.p
            )?;
        }
    }
    for what in &left_out {
        eprintln!("left out: {what}");
    }
    Ok(Exit::Success)
}

fn test_itself(side: &Side, options: &Compare) -> anyhow::Result<Exit> {
    // Runs of one point are of one condition; what differs between points is no accident.
    let mut points: BTreeMap<u32, usize> = BTreeMap::new();
    side.runs.iter().for_each(|run| *points.entry(run.facts.point).or_default() += 1);
    let Some((point, runs)) =
        points.into_iter().max_by_key(|(point, runs)| (*runs, std::cmp::Reverse(*point)))
    else {
        return wrong("the study has no complete run");
    };
    let names: Vec<&Response> = responses(&[side], options)?;
    let values: Vec<Vec<f64>> =
        names.iter().map(|r| side.values(&r.name, |run| run.facts.point == point)).collect();
    let whole: Vec<usize> = (0..names.len()).filter(|i| values[*i].len() == runs).collect();
    let indicators: Vec<&Vec<f64>> = whole.iter().map(|i| &values[*i]).collect();
    let trial = Trial {
        how: How { level: options.level, margin: options.margin, ..Trial::default().how },
        adjustment: options.adjust.adjustment(),
        ..Trial::default()
    };
    let told: SelfTest = match self_test(&indicators, &trial) {
        Ok(told) => told,
        Err(error) => return wrong(format!("{}: {error}", side.name)),
    };
    let mut out = stdout();
    if options.json {
        let names: Vec<_> = whole.iter().map(|i| &names[*i].name).collect();
        let told =
            serde_json::json!({ "study": side.name, "point": point, "responses": names, "result": told });
        writeln!(out, "{}", serde_json::to_string_pretty(&told)?)?;
    } else if told.outcome == Outcome::TooFew {
        writeln!(
            out,
            "{} runs of point {point} are too few to tell: repeat one point eight times at least",
            told.runs
        )?;
    } else {
        writeln!(
            out,
            "{} runs of point {point}, split in two {} times: something was told as different in {:.1} % of them\n\
             (95 % interval {:.1} … {:.1} %; {:.0} % are allowed)",
            told.runs,
            told.splits,
            100.0 * told.any_false,
            100.0 * told.interval.low,
            100.0 * told.interval.high,
            100.0 * told.nominal
        )?;
        for (i, rates) in whole.iter().zip(&told.indicators) {
            writeln!(
                out,
                "  {:<24} alone {:5.1} %, among all {:5.1} %",
                names[*i].label,
                100.0 * rates.alone,
                100.0 * rates.adjusted
            )?;
        }
        writeln!(
            out,
            "{}",
            match told.outcome {
                Outcome::Honest => "honest: chance alone is told as an effect no more often than is said",
                Outcome::CriesWolf =>
                    "it cries wolf: runs of this study depend on each other, or are far from alike",
                Outcome::TooFew => "",
            }
        )?;
    }
    Ok(match told.outcome {
        Outcome::Honest => Exit::Success,
        Outcome::CriesWolf => Exit::Worse,
        Outcome::TooFew => Exit::Failure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_are_shares_or_amounts() {
        assert_eq!(margin("2%"), Ok(Margin::Relative(0.02)));
        assert_eq!(margin("1.5"), Ok(Margin::Absolute(1.5)));
        for text in ["0", "-1%", "x", "", "nan", "inf%"] {
            assert!(margin(text).is_err(), "{text}");
        }
        assert!(level("0.9").is_ok() && level("1").is_err() && level("95").is_err());
    }
}
