//! Reads from a run's tables what may have disturbed it; what counts as a disturbance is in [`stats::quality`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use recording::facts::{ClockFacts, Disturbance, Marker, Quality, RunFacts, RunStatus};
use recording::reader::{Columns, read_table, tables};
use recording::spec::Panel;
use stats::quality::{Counter, Found, Machine, VERSION, WORTH, gaps, judge, merged, share};

use crate::StoreError;

/// CPU time of all that a study started, which the engine samples on the collector's machine and clock.
const STUDY_TABLE: &str = "collector.process";
/// Kinds that need samples to be judged.
const SAMPLED: [&str; 4] = ["steal", "others", "pressure", "lag"];
/// Tables that are filled at a steady pace; others are filled when something happens.
const STEADY: [&str; 5] = ["process", "machine", "cpu", "pressure", "lag"];
/// Most spans of one disturbance that are kept for drawing: more could not be told apart.
const MAX_SPANS: usize = 200;
/// Most disturbances told by markers that are kept: an agent that comes and goes all the time is told enough by these.
const MAX_MARKED: usize = 50;
/// Most characters of a text that comes from a marker.
const MAX_TEXT: usize = 200;

/// A table of a panel, with its instants on the collector's clock.
struct Sampled {
    /// Without the panel.
    name: String,
    t_ns: Vec<i64>,
    columns: Columns,
}

/// What disturbed a run from outside, judged over its recorded window. A run that never reached one is not judged: all
/// kinds are `unknown`.
///
/// # Errors
/// Its folder or one of its tables cannot be read.
pub fn quality(run_dir: &Path, facts: &RunFacts) -> Result<Quality, StoreError> {
    let unknown = SAMPLED.map(String::from).to_vec();
    let Some(window) = facts.window_ns.filter(|w| w[1] > w[0] && w[1].checked_sub(w[0]).is_some()) else {
        return Ok(Quality { version: VERSION, unknown, ..Quality::default() });
    };
    let sampled = read(run_dir, facts)?;
    let mut disturbances = markers(facts, window);
    let mut judged = BTreeSet::new();
    for panel in Panel::ALL {
        let verdict = judge(&machine(run_dir, facts, panel, &sampled), window);
        judged.extend(verdict.judged);
        disturbances.extend(verdict.found.into_iter().map(|f| of_panel(panel, f)));
        let tables = sampled.get(&panel).map(Vec::as_slice).unwrap_or_default();
        disturbances.extend(gap(panel, tables, window, facts.status == RunStatus::Complete));
        disturbances.extend(lost(run_dir, panel, facts));
    }
    disturbances.sort_by(|a, b| b.share.total_cmp(&a.share));
    Ok(Quality {
        version: VERSION,
        disturbed: disturbances.iter().any(is_worth_a_flag),
        disturbances,
        unknown: unknown.into_iter().filter(|kind| !judged.contains(kind.as_str())).collect(),
    })
}

/// True when the facts hold a verdict of the present definition.
pub(crate) fn is_current(facts: &RunFacts) -> bool {
    facts.quality.as_ref().is_some_and(|q| q.version >= VERSION)
}

/// Lost rows, gaps and clocks that jumped make numbers wrong whatever their share of the time; others from [`WORTH`] on.
pub fn is_worth_a_flag(disturbance: &Disturbance) -> bool {
    ["clock", "lost", "gap"].contains(&disturbance.kind.as_str()) || disturbance.share >= WORTH
}

/// Why a run is flagged, for people: one text for each reason, worst first; empty for a run that is not.
pub fn reasons(quality: &Quality) -> Vec<String> {
    let text = |d: &Disturbance| {
        let place = d.panel.map_or_else(String::new, |p| format!(" on {p}"));
        match d.kind.as_str() {
            // When rows were lost, or how long a step of a clock lasted, nobody knows.
            "clock" | "lost" => format!("{}{place}: {}", d.kind, d.text),
            _ => format!("{}{place}, {:.0} % of the time: {}", d.kind, 100.0 * d.share, d.text),
        }
    };
    quality.disturbances.iter().filter(|d| quality.disturbed && is_worth_a_flag(d)).map(text).collect()
}

fn of_panel(panel: Panel, found: Found) -> Disturbance {
    let mut spans_ns = found.spans_ns;
    spans_ns.truncate(MAX_SPANS);
    Disturbance {
        kind: found.kind.into(),
        panel: Some(panel),
        share: found.share,
        text: found.text,
        spans_ns,
    }
}

/// `process-2` is the second table of this name, of another source.
fn base(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((stem, number)) if number.parse::<u32>().is_ok() => stem,
        _ => name,
    }
}

fn clock(facts: &RunFacts, panel: Panel) -> Option<&ClockFacts> {
    facts.panels.get(panel.name())?.clock.as_ref()
}

fn read(run_dir: &Path, facts: &RunFacts) -> Result<BTreeMap<Panel, Vec<Sampled>>, StoreError> {
    let mut all: BTreeMap<Panel, Vec<Sampled>> = BTreeMap::new();
    for stem in tables(run_dir)? {
        let Some((panel, name)) = stem.split_once('.') else { continue };
        let Some(panel) = Panel::ALL.into_iter().find(|p| p.name() == panel) else { continue };
        if !STEADY.contains(&base(name)) {
            continue;
        }
        let columns = read_table(run_dir, &stem)?;
        let clock = clock(facts, panel);
        let t_ns = columns.i64("t_ns")?.iter().map(|t| clock.map_or(*t, |c| c.to_collector(*t))).collect();
        all.entry(panel).or_default().push(Sampled { name: name.to_owned(), t_ns, columns });
    }
    Ok(all)
}

impl Sampled {
    /// The sum of columns that there are; empty without any.
    fn counter(&self, names: &[&str], scale: f64) -> Counter {
        let columns: Vec<_> = names.iter().filter_map(|n| self.columns.numbers(n).ok()).collect();
        if columns.is_empty() {
            return Counter::default();
        }
        let sum = |row: usize| columns.iter().filter_map(|c| c.get(row)).sum::<f64>() * scale;
        Counter::new(self.t_ns.iter().enumerate().map(|(row, t)| (*t, sum(row))))
    }

    fn is_cpu(&self) -> bool {
        base(&self.name) == "process"
    }
}

/// What is known of a panel's machine.
fn machine(
    run_dir: &Path,
    facts: &RunFacts,
    panel: Panel,
    sampled: &BTreeMap<Panel, Vec<Sampled>>,
) -> Machine {
    let mut machine = Machine::default();
    let Some(tables) = sampled.get(&panel) else { return machine };
    let named = |name: &str| tables.iter().find(|t| base(&t.name) == name);
    // The table `cpu` names its columns as `machine` does, without the prefix.
    if let Some(table) = named("cpu").or_else(|| named("machine")) {
        let prefix = if base(&table.name) == "machine" { "cpu_" } else { "" };
        let sum = |kinds: &[&str]| {
            let names: Vec<_> = kinds.iter().map(|k| format!("{prefix}{k}_ns")).collect();
            table.counter(&names.iter().map(String::as_str).collect::<Vec<_>>(), 1.0)
        };
        const BUSY: [&str; 6] = ["user", "nice", "system", "irq", "softirq", "guest"];
        machine.busy = sum(&BUSY);
        machine.steal = sum(&["steal"]);
        machine.cpu = sum(&[&BUSY[..], &["idle", "iowait", "steal"]].concat());
    }
    // Programs of panels that share this panel's clock run on its machine.
    for other in Panel::ALL.into_iter().filter(|p| *p == panel || same_machine(facts, panel, *p)) {
        let programs = sampled.get(&other).into_iter().flatten().filter(|t| t.is_cpu());
        machine.own.extend(programs.map(|t| t.counter(&["cpu_user_ns", "cpu_system_ns"], 1.0)));
    }
    if clock(facts, panel).is_some_and(is_collectors) {
        machine.study = read_table(run_dir, STUDY_TABLE).map_or_else(
            |_| Counter::default(),
            |columns| {
                let t_ns = columns.i64("t_ns").map(<[i64]>::to_vec).unwrap_or_default();
                Sampled { name: "process".into(), t_ns, columns }
                    .counter(&["cpu_user_ns", "cpu_system_ns"], 1.0)
            },
        );
    }
    pressure(&mut machine, named("pressure"), named("machine"));
    if let Some(table) = named("lag")
        && let Ok(lag) = table.columns.numbers("late_max_ns")
    {
        machine.lag = table.t_ns.iter().copied().zip(lag).collect();
        machine.lag.sort_by_key(|s| s.0);
    }
    machine
}

fn pressure(machine: &mut Machine, pressure: Option<&Sampled>, whole: Option<&Sampled>) {
    let total = |kind: &str, which: &str| {
        pressure.map_or_else(Counter::default, |table| {
            let is = |n: &&String| n.contains(kind) && n.contains(which) && n.ends_with("_us");
            table.columns.names.iter().find(is).map_or_else(Counter::default, |n| table.counter(&[n], 1e3))
        })
    };
    (machine.cpu_some, machine.memory_full, machine.io_full) =
        (total("cpu", "some"), total("memory", "full"), total("io", "full"));
    if machine.cpu_some.is_empty()
        && let Some(table) = whole
    {
        machine.cpu_some = table.counter(&["psi_cpu_some_us"], 1e3);
    }
}

/// Two machines were never started within the uncertainty of their clocks, a fraction of a millisecond: panels whose
/// monotonic clocks agree have one clock, hence one machine.
fn same_machine(facts: &RunFacts, a: Panel, b: Panel) -> bool {
    match (clock(facts, a), clock(facts, b)) {
        (Some(a), Some(b)) => {
            let apart = b.to_collector(a.reference_ns).abs_diff(a.to_collector(a.reference_ns));
            apart <= a.uncertainty_ns.unsigned_abs().saturating_add(b.uncertainty_ns.unsigned_abs())
        }
        _ => false,
    }
}

/// The panel's clock is the collector's.
fn is_collectors(clock: &ClockFacts) -> bool {
    let apart = clock.to_collector(clock.reference_ns).abs_diff(clock.reference_ns);
    clock.exchanges > 0 && apart <= clock.uncertainty_ns.unsigned_abs()
}

/// The gaps of all steady tables of a panel as one disturbance; its text is of the worst.
fn gap(panel: Panel, tables: &[Sampled], window: [i64; 2], ended: bool) -> Option<Disturbance> {
    let mut all: Vec<Found> = Vec::new();
    for table in tables {
        let mut t_ns = table.t_ns.clone();
        t_ns.sort_unstable();
        all.extend(gaps(&format!("{panel}.{}", table.name), &t_ns, window, ended));
    }
    let text = all.iter().max_by(|a, b| a.share.total_cmp(&b.share))?.text.clone();
    let spans_ns = merged(all.into_iter().flat_map(|f| f.spans_ns).collect());
    let share = share(&spans_ns, window);
    Some(of_panel(panel, Found { kind: "gap", share, text, spans_ns }))
}

/// Rows that a panel lost. When they were lost nobody knows: the share is that of its rows.
fn lost(run_dir: &Path, panel: Panel, facts: &RunFacts) -> Option<Disturbance> {
    let prefix = format!("{panel}/");
    let sources = facts.panels.iter().filter(|(name, _)| *name == panel.name() || name.starts_with(&prefix));
    let mut by_table: BTreeMap<&str, u64> = BTreeMap::new();
    for (table, n) in sources.flat_map(|(_, f)| &f.lost).filter(|(_, n)| **n > 0) {
        *by_table.entry(table).or_default() += n;
    }
    let total: u64 = by_table.values().sum();
    if total == 0 {
        return None;
    }
    let rows = |table: &&str| read_table(run_dir, &format!("{panel}.{table}")).map_or(0, |t| t.rows);
    // Names in the facts are a program's words: only those that the folder has are looked for.
    let known = tables(run_dir).unwrap_or_default();
    let kept: usize = by_table.keys().filter(|t| known.contains(&format!("{panel}.{t}"))).map(rows).sum();
    let named: Vec<_> = by_table.iter().take(8).map(|(table, n)| format!("{n} of {table}")).collect();
    Some(Disturbance {
        kind: "lost".into(),
        panel: Some(panel),
        share: total as f64 / (total as f64 + kept as f64),
        text: format!("{total} rows were lost: {}", named.join(", ")),
        spans_ns: Vec::new(),
    })
}

/// What the collector and the agents marked: clocks that stepped, agents that were away.
fn markers(facts: &RunFacts, window: [i64; 2]) -> Vec<Disturbance> {
    let mut found = Vec::new();
    let cut = |text: &str| text.chars().take(MAX_TEXT).collect::<String>();
    for (i, marker) in facts.markers.iter().enumerate() {
        let (kind, span, text) = match marker.kind.as_str() {
            "clock_step" | "suspend" => {
                ("clock", [marker.t_ns, marker.t_ns.saturating_add(1)], cut(&marker.text))
            }
            "agent_lost" | "agent_silent" => {
                let same = |m: &&Marker| {
                    m.kind == "agent_back" && m.panel == marker.panel && m.text.starts_with(&marker.text)
                };
                let back = facts.markers[i..].iter().find(same).map_or(window[1], |m| m.t_ns);
                let how = if marker.kind == "agent_lost" { "lost its connection" } else { "was silent" };
                let seconds = back.saturating_sub(marker.t_ns) as f64 / 1e9;
                ("gap", [marker.t_ns, back], format!("{} {how} for {seconds:.1} s", cut(&marker.text)))
            }
            _ => continue,
        };
        let inside = [span[0].max(window[0]), span[1].min(window[1])];
        if inside[0] < inside[1] && found.len() < MAX_MARKED {
            let spans_ns = if kind == "gap" { vec![inside] } else { Vec::new() };
            let share = share(&spans_ns, window);
            found.push(Disturbance { kind: kind.into(), panel: marker.panel, share, text, spans_ns });
        }
    }
    found
}
