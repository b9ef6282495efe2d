//! What is in a record: `triptych show` of a run or a table's file, and `show --tables` of a study.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Write, stdout};
use std::path::Path;

use comfy_table::{Cell, CellAlignment, Table, presets};
use recording::contents::{TableContents, Unreadable, of_file, of_run};
use recording::export::clocks;
use recording::facts::{ClockFacts, RunFacts, RunStatus, read_run};
use recording::spec::{Levels, Panel};
use serde::Serialize;
use serde_json::{Value, json};
use store::Study;

use crate::Exit;

/// One table's file.
pub(crate) fn table(path: &Path, as_json: bool) -> anyhow::Result<Exit> {
    let contents = of_file(path)?;
    if as_json {
        return print_json(&serde_json::to_value(&contents)?);
    }
    let mut out = String::new();
    say_tables(&mut out, std::slice::from_ref(&contents))?;
    say_indicators(&mut out, std::slice::from_ref(&contents))?;
    stdout().write_all(out.as_bytes())?;
    Ok(Exit::Success)
}

/// A run's folder.
pub(crate) fn run(dir: &Path, as_json: bool) -> anyhow::Result<Exit> {
    let mut facts = read_run(&dir.join("run.toml"))?;
    // A run lies in its study's `runs`.
    let whole = fs::canonicalize(dir)?;
    if let Some(study) = whole.ancestors().nth(2) {
        store::break_off(study, &whole, &mut facts);
    }
    let clocks = clocks(dir, &facts);
    let (tables, unreadable) = of_run(dir)?;
    if as_json {
        return print_json(&json!({
            "run": dir, "facts": facts, "clocks": clocks, "tables": tables, "unreadable": unreadable,
        }));
    }
    let mut out = String::new();
    say_facts(&mut out, &facts)?;
    say_panels(&mut out, &facts, &clocks)?;
    say_origin_and_quality(&mut out, &facts)?;
    say_markers(&mut out, &facts)?;
    say_tables(&mut out, &tables)?;
    for Unreadable { name, why } in &unreadable {
        writeln!(out, "  {name}  cannot be read: {why}")?;
    }
    say_indicators(&mut out, &tables)?;
    stdout().write_all(out.as_bytes())?;
    Ok(if unreadable.is_empty() { Exit::Success } else { Exit::Failure })
}

/// A table of all runs of a study, added up.
#[derive(Default)]
struct Sum {
    runs: u64,
    rows: u64,
    bytes: u64,
    torn: u64,
    description: String,
    /// In the order of the first run.
    indicators: Vec<Range>,
}

/// An indicator over all runs.
#[derive(Serialize)]
struct Range {
    name: String,
    unit: String,
    description: String,
    min: Option<f64>,
    max: Option<f64>,
}

impl Sum {
    fn add(&mut self, table: TableContents) {
        self.runs += 1;
        self.rows += table.rows;
        self.bytes += table.bytes;
        self.torn += u64::from(!table.complete);
        self.description = table.description;
        for i in table.indicators {
            let fold =
                |f: fn(f64, f64) -> f64, a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f);
            match self.indicators.iter_mut().find(|range| range.name == i.name) {
                Some(range) => {
                    range.min = fold(f64::min, range.min, i.min);
                    range.max = fold(f64::max, range.max, i.max);
                }
                None => self.indicators.push(Range {
                    name: i.name,
                    unit: i.unit,
                    description: i.description,
                    min: i.min,
                    max: i.max,
                }),
            }
        }
    }
}

/// The tables of all runs of a study.
pub(crate) fn tables(study: &Study, as_json: bool) -> anyhow::Result<Exit> {
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    let mut unreadable = Vec::new();
    for run in study.runs()? {
        let (tables, broken) = of_run(&study.dir.join("runs").join(&run.facts.id))?;
        for table in tables {
            sums.entry(table.name.clone()).or_default().add(table);
        }
        unreadable.extend(broken.into_iter().map(|u| format!("{}: {}: {}", run.facts.id, u.name, u.why)));
    }
    for what in &unreadable {
        eprintln!("{what}");
    }
    let exit = if unreadable.is_empty() { Exit::Success } else { Exit::Failure };
    if as_json {
        let tables: Vec<_> = sums
            .iter()
            .map(|(name, s)| {
                json!({ "name": name, "description": s.description, "runs": s.runs, "rows": s.rows,
                        "bytes": s.bytes, "torn": s.torn,
                        "indicators": s.indicators })
            })
            .collect();
        print_json(&json!({ "study": study.dir, "tables": tables, "unreadable": unreadable }))?;
        return Ok(exit);
    }
    let mut shown = grid(&["table", "runs", "rows", "indicator", "unit", "min", "max"]);
    for (name, sum) in &sums {
        let torn =
            if sum.torn > 0 { format!("{} ({} torn)", sum.runs, sum.torn) } else { sum.runs.to_string() };
        let mut head = [name.clone(), torn, sum.rows.to_string()];
        for range in &sum.indicators {
            let row = [range.name.clone(), range.unit.clone(), number(range.min), number(range.max)];
            shown.add_row(head.iter().chain(&row).enumerate().map(aligned(&[1, 2, 5, 6])));
            head = Default::default();
        }
    }
    writeln!(stdout(), "{shown}")?;
    Ok(exit)
}

fn print_json(value: &Value) -> anyhow::Result<Exit> {
    writeln!(stdout(), "{}", serde_json::to_string_pretty(value)?)?;
    Ok(Exit::Success)
}

fn grid(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.to_vec());
    table
}

/// Cells, of which these columns are numbers.
fn aligned(numbers: &'static [usize]) -> impl Fn((usize, &String)) -> Cell {
    move |(i, text)| {
        let cell = Cell::new(text);
        if numbers.contains(&i) { cell.set_alignment(CellAlignment::Right) } else { cell }
    }
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "–".into(),
        Some(x) if x.fract() == 0.0 && x.abs() < 1e15 => format!("{x:.0}"),
        Some(x) if (1e-3..1e9).contains(&x.abs()) => format!("{x:.3}"),
        Some(x) => format!("{x:.3e}"),
    }
}

fn levels(levels: &Levels) -> String {
    levels.iter().map(|(name, level)| format!("{name} = {level}")).collect::<Vec<_>>().join(", ")
}

fn say_facts(out: &mut String, facts: &RunFacts) -> anyhow::Result<()> {
    let status = format!("{:?}", facts.status).to_lowercase();
    let why = if facts.reason.is_empty() { String::new() } else { format!(": {}", facts.reason) };
    writeln!(out, "{}  point {}, repeat {}  {status}{why}", facts.id, facts.point, facts.repeat)?;
    writeln!(out, "format {}.{}, written by {}", facts.format, facts.minor, facts.writer)?;
    let ended = if facts.ended.is_empty() { "…" } else { &facts.ended };
    writeln!(out, "{} to {ended}", facts.started)?;
    if facts.status == RunStatus::Running {
        writeln!(out, "under way: what is on the disk so far")?;
    }
    if let Some([from, to]) = facts.window_ns {
        let seconds = |t: i64| (t.saturating_sub(facts.started_ns)) as f64 / 1e9;
        writeln!(out, "recorded window: {:.3} s to {:.3} s after the start", seconds(from), seconds(to))?;
    }
    if !facts.asked.is_empty() {
        writeln!(out, "asked for: {}", levels(&facts.asked))?;
    }
    let host = &facts.host;
    let memory = host.memory_bytes as f64 / (1u64 << 30) as f64;
    writeln!(
        out,
        "machine: {}, {} CPUs ({}), {memory:.1} GiB, load {:?}",
        host.os, host.cpus, host.cpu, host.load
    )?;
    Ok(())
}

fn say_panels(
    out: &mut String,
    facts: &RunFacts,
    clocks: &BTreeMap<Panel, ClockFacts>,
) -> anyhow::Result<()> {
    writeln!(out, "\npanels")?;
    for (name, panel) in &facts.panels {
        writeln!(out, "  {name}: {} {}, pid {}", panel.program, panel.version, panel.pid)?;
        if !panel.in_force.is_empty() {
            writeln!(out, "    in force: {}", levels(&panel.in_force))?;
        }
        for (what, version) in &panel.versions {
            writeln!(out, "    {what}: {version}")?;
        }
        for (what, fact) in &panel.facts {
            writeln!(out, "    {what}: {fact}")?;
        }
        for (table, rows) in panel.lost.iter().filter(|(_, n)| **n > 0) {
            writeln!(out, "    lost: {rows} rows of {table}")?;
        }
    }
    if !clocks.is_empty() {
        writeln!(out, "\nclocks, against the collector's")?;
    }
    for (panel, clock) in clocks {
        say_clock(out, panel.name(), clock)?;
        for later in &clock.later {
            say_clock(out, &format!("{panel}, after a step at {} ns", later.from_ns.unwrap_or(0)), later)?;
        }
    }
    Ok(())
}

fn say_clock(out: &mut String, name: &str, clock: &ClockFacts) -> anyhow::Result<()> {
    let micros = clock.uncertainty_ns as f64 / 1e3;
    Ok(writeln!(
        out,
        "  {name}: offset {} ns, drift {:.3} ppm, ±{micros:.1} µs from {} exchanges",
        clock.offset_ns, clock.drift_ppm, clock.exchanges
    )?)
}

fn say_origin_and_quality(out: &mut String, facts: &RunFacts) -> anyhow::Result<()> {
    match &facts.quality {
        None => writeln!(out, "\nquality: not judged")?,
        Some(quality) => {
            let verdict = if quality.disturbed { "disturbed" } else { "undisturbed" };
            writeln!(out, "\nquality: {verdict}")?;
            for d in &quality.disturbances {
                let panel = d.panel.map_or(String::new(), |p| format!("{p}: "));
                writeln!(out, "  {panel}{}: {} ({:.1} % of the window)", d.kind, d.text, d.share * 100.0)?;
            }
            if !quality.unknown.is_empty() {
                writeln!(out, "  not sampled: {}", quality.unknown.join(", "))?;
            }
        }
    }
    if let Some(import) = &facts.import {
        writeln!(out, "\nimported from {}: {}", import.format, import.files.join(", "))?;
        for assumption in &import.assumptions {
            writeln!(out, "  assumed: {assumption}")?;
        }
        for (what, count) in &import.skipped {
            writeln!(out, "  left out: {count} × {what}")?;
        }
    }
    Ok(())
}

fn say_markers(out: &mut String, facts: &RunFacts) -> anyhow::Result<()> {
    if !facts.markers.is_empty() {
        writeln!(out, "\nmarkers")?;
    }
    for marker in &facts.markers {
        let seconds = marker.t_ns.saturating_sub(facts.started_ns) as f64 / 1e9;
        let panel = marker.panel.map_or("", Panel::name);
        writeln!(out, "  {seconds:10.3} s  {:12} {panel:6} {}", marker.kind, marker.text)?;
    }
    Ok(())
}

fn say_tables(out: &mut String, tables: &[TableContents]) -> anyhow::Result<()> {
    let mut shown = grid(&["table", "rows", "span s", "rows/s", ""]);
    let mut gaps = Vec::new();
    for t in tables {
        let span = t.span_ns.map(|s| s[1].saturating_sub(s[0]) as f64 / 1e9);
        let mut notes = Vec::new();
        if !t.complete {
            notes.push("torn end left out".to_owned());
        }
        if t.gap_count > 0 {
            notes.push(format!("{} gaps", t.gap_count));
        }
        if t.backwards > 0 {
            notes.push(format!("{} rows go back in time", t.backwards));
        }
        if !t.unknown_columns.is_empty() {
            notes.push(format!("not known to this version: {}", t.unknown_columns.join(", ")));
        }
        let row = [t.name.clone(), t.rows.to_string(), number(span), number(t.rate_hz), notes.join("; ")];
        shown.add_row(row.iter().enumerate().map(aligned(&[1, 2, 3])));
        gaps.extend(t.gaps.iter().map(|g| (t, *g)));
    }
    writeln!(out, "\n{shown}")?;
    for (table, gap) in gaps {
        let start = table.span_ns.map_or(0, |s| s[0]);
        let after = gap.from_ns.saturating_sub(start) as f64 / 1e9;
        let length = gap.length_ns as f64 / 1e9;
        writeln!(out, "  {}: nothing for {length:.3} s, {after:.3} s after its first row", table.name)?;
    }
    Ok(())
}

fn say_indicators(out: &mut String, tables: &[TableContents]) -> anyhow::Result<()> {
    let mut shown = grid(&["indicator", "unit", "min", "median", "max", "what it is"]);
    for t in tables {
        for i in &t.indicators {
            let row = [
                format!("{}.{}", t.name, i.name),
                i.unit.clone(),
                number(i.min),
                number(i.median),
                number(i.max),
                i.description.clone(),
            ];
            shown.add_row(row.iter().enumerate().map(aligned(&[2, 3, 4])));
        }
    }
    Ok(writeln!(out, "\n{shown}")?)
}
