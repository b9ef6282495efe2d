//! The study as a whole: what was varied, what can be asked of it, how far it is.

use std::collections::{BTreeMap, BTreeSet};

use recording::facts::{HostFacts, RunFacts, RunStatus, StudyFacts};
use recording::spec::{Better, Level, Levels, Panel, Response, Span, Statistic};
use serde::Serialize;
use store::{Cell, RunSummary, StoreError, Study};

/// Answer to `/api/study`.
#[derive(Debug, Serialize)]
pub(crate) struct StudyJson {
    version: String,
    folder: String,
    name: String,
    description: String,
    subject: String,
    created: String,
    writer: String,
    seed: u64,
    warmup_s: f64,
    record_s: f64,
    repeats: u32,
    factors: Vec<FactorJson>,
    fixed: Vec<SettingJson>,
    responses: Vec<ResponseJson>,
    counts: Counts,
    /// Of the first run; all are made on one machine.
    host: Option<HostFacts>,
}

#[derive(Debug, Serialize)]
struct FactorJson {
    name: String,
    unit: String,
    description: String,
    levels: Vec<Level>,
}

#[derive(Debug, Serialize)]
struct SettingJson {
    name: String,
    unit: String,
    value: Level,
}

#[derive(Debug, Serialize)]
struct ResponseJson {
    name: String,
    label: String,
    unit: String,
    better: Better,
    description: String,
}

/// Runs by how they ended.
#[derive(Debug, Default, Serialize)]
struct Counts {
    planned: usize,
    complete: usize,
    failed: usize,
    interrupted: usize,
    running: usize,
    unreadable: usize,
    /// Runs that something outside disturbed, whatever their state.
    flagged: usize,
}

impl StudyJson {
    pub(crate) fn of(study: &Study, version: String) -> Result<Self, StoreError> {
        let (plan, runs) = (&study.plan, study.runs()?);
        let mut counts = Counts {
            planned: plan.runs.len(),
            unreadable: unreadable(study, &runs).len(),
            ..Counts::default()
        };
        for run in &runs {
            counts.flagged += usize::from(run.facts.quality.as_ref().is_some_and(|q| q.disturbed));
            *match run.facts.status {
                RunStatus::Complete => &mut counts.complete,
                RunStatus::Failed => &mut counts.failed,
                RunStatus::Interrupted => &mut counts.interrupted,
                RunStatus::Running => &mut counts.running,
            } += 1;
        }
        let unit = |name: &str| {
            plan.subject.factors.iter().find(|f| f.name == name).map(|f| f.unit.clone()).unwrap_or_default()
        };
        let fixed = plan.fixed.iter().map(|(name, value)| SettingJson {
            name: name.clone(),
            unit: unit(name),
            value: value.clone(),
        });
        Ok(Self {
            version,
            folder: study.dir.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
            name: plan.name.clone(),
            description: plan.description.clone(),
            subject: plan.subject.name.clone(),
            created: plan.created.clone(),
            writer: plan.writer.clone(),
            seed: plan.seed,
            warmup_s: plan.warmup_s,
            record_s: plan.record_s,
            repeats: plan.repeats,
            factors: plan.varied.iter().map(|name| factor(plan, name)).collect(),
            fixed: fixed.collect(),
            responses: plan.subject.responses.iter().map(|r| response_json(plan, r)).collect(),
            counts,
            host: runs.into_iter().next().map(|r| r.facts.host),
        })
    }
}

/// Runs whose facts are there but cannot be read, and why. Only what `runs` leaves out is read.
fn unreadable(study: &Study, runs: &[RunSummary]) -> BTreeMap<String, String> {
    let known: BTreeSet<&str> = runs.iter().map(|r| r.facts.id.as_str()).collect();
    let rest = study.plan.runs.iter().map(|r| &r.id).filter(|id| !known.contains(id.as_str()));
    let begun = rest.filter(|id| study.dir.join("runs").join(id).join("run.toml").exists());
    begun.filter_map(|id| Some((id.clone(), study.run(id).err()?.to_string()))).collect()
}

/// A varied factor with its levels: numbers rising, words in the order of the study file.
fn factor(plan: &StudyFacts, name: &str) -> FactorJson {
    let mut levels: Vec<Level> = Vec::new();
    for level in plan.points.iter().filter_map(|p| p.levels.get(name)) {
        if !levels.contains(level) {
            levels.push(level.clone());
        }
    }
    if levels.iter().all(|l| l.as_f64().is_some()) {
        levels.sort_by(|a, b| a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)));
    }
    let declared = plan.subject.factors.iter().find(|f| f.name == name);
    FactorJson {
        name: name.to_owned(),
        unit: declared.map(|f| f.unit.clone()).unwrap_or_default(),
        description: declared.map(|f| f.description.clone()).unwrap_or_default(),
        levels,
    }
}

fn response_json(plan: &StudyFacts, response: &Response) -> ResponseJson {
    let what = match response.statistic {
        Statistic::Mean => "Mean",
        Statistic::P50 => "Median",
        Statistic::P95 => "95th percentile",
        Statistic::P99 => "99th percentile",
        Statistic::Min => "Smallest",
        Statistic::Max => "Largest",
        Statistic::Sum => "Sum",
        Statistic::SumPerSecond => "Sum per second",
        Statistic::CountPerSecond => "Number per second",
        Statistic::Count => "Number",
        Statistic::Rate => "Growth per second",
    };
    let span = plan.subject.joins.iter().filter(|j| j.name == response.table);
    let span = span.flat_map(|j| &j.spans).find(|s| s.name == response.column);
    let of = match span {
        Some(span) => format!("{} ({})", inside_a_sentence(&span.description), span.name),
        None if response.column == "t_ns" => format!("rows of {}", response.table),
        None => format!("{}.{}", response.table, response.column),
    };
    ResponseJson {
        name: response.name.clone(),
        label: response.label.clone(),
        unit: response.unit.clone(),
        better: response.better,
        description: format!("{what} of {of}, over the recorded window of each run"),
    }
}

/// Descriptions begin with a capital letter; here one goes on.
fn inside_a_sentence(description: &str) -> String {
    let mut letters = description.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// Answer to `/api/matrix`.
#[derive(Debug, Serialize)]
pub(crate) struct MatrixJson {
    response: ResponseJson,
    /// Half-width of what the clocks leave open in each value, in the unit of the response, in the worst run; null for
    /// what begins and ends on one clock.
    clocks: Option<f64>,
    /// Whether clocks were found from frames in any run: values are relative to the quickest frame then.
    relative: bool,
    cells: Vec<CellJson>,
}

#[derive(Debug, Serialize)]
struct CellJson {
    point: u32,
    levels: Levels,
    n: usize,
    /// Null without complete runs, as are the others.
    mean: Option<f64>,
    sd: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
    values: Vec<ValueJson>,
    /// Runs of this point that have no value, and why.
    without: Vec<RunRef>,
}

#[derive(Debug, Serialize)]
struct ValueJson {
    run: String,
    value: f64,
    /// Why the run is flagged; empty when it is not.
    flags: Vec<String>,
}

#[derive(Debug, Serialize)]
struct RunRef {
    run: String,
    status: RunStatus,
    reason: String,
}

impl MatrixJson {
    pub(crate) fn of(study: &Study, name: &str) -> Result<Self, StoreError> {
        let asked = study.response(name)?;
        let (response, runs) = (response_json(&study.plan, asked), study.runs()?);
        let clocks = clocks(&study.plan, asked, &runs);
        let relative = relative(&study.plan, asked, &runs);
        let cells = study.matrix(name)?.into_iter().map(|cell| cell_json(cell, &runs)).collect();
        Ok(Self { response, clocks, relative, cells })
    }
}

/// Why each flagged run is flagged; without flag, nothing.
fn flags(facts: &RunFacts) -> Vec<String> {
    facts.quality.as_ref().map(store::reasons).unwrap_or_default()
}

/// The span across panels that a response is made of, where it is one.
fn across<'a>(plan: &'a StudyFacts, response: &Response) -> Option<&'a Span> {
    let spans = plan.subject.joins.iter().filter(|j| j.name == response.table).flat_map(|j| &j.spans);
    spans.into_iter().find(|s| s.name == response.column && s.from.0 != s.to.0)
}

fn relative(plan: &StudyFacts, response: &Response, runs: &[RunSummary]) -> bool {
    let Some(span) = across(plan, response) else { return false };
    runs.iter().any(|run| [span.from.0, span.to.0].into_iter().any(|p| store::is_relative(&run.facts, p)))
}

fn clocks(plan: &StudyFacts, response: &Response, runs: &[RunSummary]) -> Option<f64> {
    let span = across(plan, response)?;
    let unsure = |run: &RunSummary| {
        let of = |panel: Panel| run.facts.panels.get(panel.name())?.clock.as_ref().map(|c| c.uncertainty_ns);
        Some(of(span.from.0)?.saturating_add(of(span.to.0)?))
    };
    let worst = runs.iter().filter(|r| r.facts.status == RunStatus::Complete).filter_map(unsure).max()?;
    Some(worst as f64 * response.scale)
}

fn cell_json(cell: Cell, runs: &[RunSummary]) -> CellJson {
    let finite = |v: f64| v.is_finite().then_some(v);
    let without = runs
        .iter()
        .filter(|r| r.facts.point == cell.point && !cell.values.iter().any(|(id, _)| *id == r.facts.id))
        .map(|r| RunRef {
            run: r.facts.id.clone(),
            status: r.facts.status,
            reason: match r.facts.status {
                RunStatus::Complete => "no sample of it in the recorded window".into(),
                _ => r.facts.reason.clone(),
            },
        });
    CellJson {
        point: cell.point,
        n: cell.n,
        mean: finite(cell.mean),
        // Of a single run there is no spread.
        sd: finite(cell.sd).filter(|_| cell.n > 1),
        low: finite(cell.low),
        high: finite(cell.high),
        without: without.collect(),
        levels: cell.levels,
        values: cell
            .values
            .into_iter()
            .map(|(run, value)| {
                let facts = runs.iter().find(|r| r.facts.id == run).map(|r| flags(&r.facts));
                ValueJson { run, value, flags: facts.unwrap_or_default() }
            })
            .collect(),
    }
}

/// One line of the answer to `/api/runs`.
#[derive(Debug, Serialize)]
pub(crate) struct RunJson {
    id: String,
    point: u32,
    repeat: u32,
    /// `pending` when it has not begun, `unreadable` when its facts are broken.
    status: String,
    reason: String,
    started: String,
    ended: String,
    levels: Levels,
    responses: BTreeMap<String, f64>,
    /// Whether something outside disturbed it; null where nobody looked.
    disturbed: Option<bool>,
    /// Why it is flagged; empty when it is not.
    flags: Vec<String>,
}

/// Every run of the plan, in its order.
pub(crate) fn runs(study: &Study) -> Result<Vec<RunJson>, StoreError> {
    let runs = study.runs()?;
    let broken = unreadable(study, &runs);
    let mut begun: BTreeMap<String, RunSummary> = runs.into_iter().map(|r| (r.facts.id.clone(), r)).collect();
    let levels = |point: u32| {
        study.plan.points.iter().find(|p| p.index == point).map(|p| p.levels.clone()).unwrap_or_default()
    };
    let run = |planned: &recording::facts::PlannedRun| {
        let mut run = RunJson {
            id: planned.id.clone(),
            point: planned.point,
            repeat: planned.repeat,
            status: "pending".into(),
            reason: String::new(),
            started: String::new(),
            ended: String::new(),
            levels: levels(planned.point),
            responses: Default::default(),
            disturbed: None,
            flags: Vec::new(),
        };
        if let Some(summary) = begun.remove(&planned.id) {
            run.status = format!("{:?}", summary.facts.status).to_lowercase();
            run.disturbed = summary.facts.quality.as_ref().map(|q| q.disturbed);
            run.flags = flags(&summary.facts);
            run.reason = summary.facts.reason;
            run.started = summary.facts.started;
            run.ended = summary.facts.ended;
            run.responses = summary.responses;
        } else if let Some(broken) = broken.get(&planned.id) {
            run.status = "unreadable".into();
            run.reason.clone_from(broken);
        }
        run
    };
    Ok(study.plan.runs.iter().map(run).collect())
}
