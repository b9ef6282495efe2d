//! A study's folder, read.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use recording::facts::{FORMAT_MINOR, RunFacts, RunStatus, StudyFacts, read_plan, read_run, write_run};
use recording::hold::is_held;
use recording::spec::{Levels, Response};
use serde::Serialize;
use stats::{Summary, student};

use crate::StoreError;
use crate::index::{Entry, Index, Stamp};
use crate::joined::{self, Joined};
use crate::quality;
use crate::responses::responses;
use crate::timeline::{self, Timeline};

/// Chance that a cell's interval holds the true mean.
const LEVEL: f64 = 0.95;

/// A study on disk.
#[derive(Debug)]
pub struct Study {
    /// Its folder.
    pub dir: PathBuf,
    /// Its `plan.toml`.
    pub plan: StudyFacts,
    /// Closed runs do not change; what was read of them once is kept.
    index: RefCell<Option<Index>>,
}

/// A run: its facts, and a number for each response that could be made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunSummary {
    /// Its `run.toml`.
    pub facts: RunFacts,
    /// By name of the response; empty unless the run is complete.
    pub responses: BTreeMap<String, f64>,
}

/// A run whose facts cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Name of its folder.
    pub id: String,
    /// Why.
    pub error: String,
}

/// One point of the matrix and one response.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// Index of the point.
    pub point: u32,
    /// Its levels of the varied factors.
    pub levels: Levels,
    /// Complete runs that have the response.
    pub n: usize,
    /// Mean over these runs; NaN without any.
    pub mean: f64,
    /// Standard deviation over these runs.
    pub sd: f64,
    /// Lower end of the 95 % interval of the mean (Student, over runs); NaN below two runs.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// The runs: folder names and values.
    pub values: Vec<(String, f64)>,
}

/// A study in a folder of studies.
#[derive(Clone, Debug)]
pub struct StudyEntry {
    /// Its folder.
    pub dir: PathBuf,
    /// Its plan, or why it cannot be read.
    pub plan: Result<StudyFacts, String>,
}

impl Study {
    /// Opens a study.
    ///
    /// # Errors
    /// It is none, or of a newer version.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Ok(Self { dir: dir.to_owned(), plan: read_plan(&dir.join("plan.toml"))?, index: RefCell::new(None) })
    }

    /// Every run that has begun, in planned order, whatever its state. Runs whose facts cannot be read are left out;
    /// see [`Study::broken`].
    ///
    /// # Errors
    /// The study's folder cannot be read.
    pub fn runs(&self) -> Result<Vec<RunSummary>, StoreError> {
        let mut slot = self.index.borrow_mut();
        let index = slot.get_or_insert_with(|| Index::load(&self.dir, &question(&self.plan)));
        let mut runs = Vec::new();
        for planned in &self.plan.runs {
            let dir = self.dir.join("runs").join(&planned.id);
            let Some(stamp) = Stamp::of(&dir.join("run.toml")) else { continue };
            if let Some(entry) = index.get(&planned.id, stamp) {
                runs.push(RunSummary { facts: entry.facts.clone(), responses: entry.responses.clone() });
                continue;
            }
            let Ok(mut facts) = read_run(&dir.join("run.toml")) else { continue };
            let closed = facts.status != RunStatus::Running;
            self.look(&dir, &mut facts);
            let responses = derive(&dir, &facts, &self.plan).unwrap_or_else(|error| {
                tracing::warn!("{}: {error}", planned.id);
                BTreeMap::new()
            });
            if closed {
                index.put(&planned.id, Entry { stamp, facts: facts.clone(), responses: responses.clone() });
            }
            runs.push(RunSummary { facts, responses });
        }
        index.save(&self.dir);
        index.changed = false;
        Ok(runs)
    }

    /// Runs whose facts cannot be read, and why.
    pub fn broken(&self) -> Vec<Broken> {
        let index = self.index.borrow();
        let read = |id: &String| {
            let path = self.dir.join("runs").join(id).join("run.toml");
            let stamp = Stamp::of(&path)?;
            if index.as_ref().is_some_and(|index| index.get(id, stamp).is_some()) {
                return None;
            }
            let error = read_run(&path).err()?;
            Some(Broken { id: id.clone(), error: error.to_string() })
        };
        self.plan.runs.iter().filter_map(|r| read(&r.id)).collect()
    }

    /// What a run's file does not say of it.
    fn look(&self, run_dir: &Path, facts: &mut RunFacts) {
        break_off(&self.dir, run_dir, facts);
        judge(run_dir, facts);
    }

    /// Whether a process runs or records this study now.
    pub fn is_under_way(&self) -> bool {
        is_held(&self.dir)
    }

    /// The response of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn response(&self, name: &str) -> Result<&Response, StoreError> {
        let responses = &self.plan.subject.responses;
        responses.iter().find(|r| r.name == name).ok_or_else(|| StoreError::NoResponse {
            name: name.to_owned(),
            have: responses.iter().map(|r| r.name.clone()).collect(),
        })
    }

    /// One cell for every point of the plan, in its order; also for points without a complete run yet.
    ///
    /// # Errors
    /// There is no such response.
    pub fn matrix(&self, response: &str) -> Result<Vec<Cell>, StoreError> {
        self.response(response)?;
        let mut by_point: BTreeMap<u32, Vec<(String, f64)>> = BTreeMap::new();
        for run in self.runs()? {
            if let (RunStatus::Complete, Some(value)) = (run.facts.status, run.responses.get(response)) {
                by_point.entry(run.facts.point).or_default().push((run.facts.id, *value));
            }
        }
        let cell = |point: &recording::facts::PlannedPoint| {
            let values = by_point.remove(&point.index).unwrap_or_default();
            let numbers: Vec<f64> = values.iter().map(|(_, v)| *v).collect();
            let (summary, interval) = (Summary::of(&numbers), student(&numbers, LEVEL));
            Cell {
                point: point.index,
                levels: point.levels.clone(),
                n: summary.map_or(0, |s| s.n),
                mean: summary.map_or(f64::NAN, |s| s.mean),
                sd: summary.map_or(f64::NAN, |s| s.sd),
                low: interval.map_or(f64::NAN, |i| i.low),
                high: interval.map_or(f64::NAN, |i| i.high),
                values,
            }
        };
        Ok(self.plan.points.iter().map(cell).collect())
    }

    /// Folder and facts of a run of the plan.
    ///
    /// # Errors
    /// The plan has no such run, or it has not begun.
    pub fn run(&self, id: &str) -> Result<(PathBuf, RunFacts), StoreError> {
        // Only names of the plan become paths: an id from a web page must not lead out of the study.
        if !self.plan.runs.iter().any(|r| r.id == id) || id.contains(['/', '\\', '\0']) || id.starts_with('.')
        {
            return Err(StoreError::NoRun(id.to_owned()));
        }
        let dir = self.dir.join("runs").join(id);
        let path = dir.join("run.toml");
        let known = self.index.borrow();
        let known = known.as_ref().zip(Stamp::of(&path)).and_then(|(index, stamp)| index.get(id, stamp));
        if let Some(entry) = known {
            return Ok((dir, entry.facts.clone()));
        }
        let mut facts = read_run(&path)?;
        self.look(&dir, &mut facts);
        Ok((dir, facts))
    }

    /// The frames of a run, joined across panels by the subject's first join.
    ///
    /// # Errors
    /// There is no such run, its tables cannot be read, or the subject joins nothing.
    pub fn joined(&self, run: &str) -> Result<Joined, StoreError> {
        let (dir, facts) = self.run(run)?;
        let subject = &self.plan.subject;
        let join = subject.joins.first().ok_or_else(|| StoreError::NoJoin(subject.name.clone()))?;
        joined::join(&dir, &facts, join)
    }

    /// Every indicator of a run on the collector's clock.
    ///
    /// # Errors
    /// There is no such run, or its tables cannot be read.
    pub fn timeline(&self, run: &str) -> Result<Timeline, StoreError> {
        let (dir, facts) = self.run(run)?;
        timeline::timeline(&dir, &facts)
    }
}

/// A run that was never closed was broken off when nobody holds its study any more, or when another one was begun since:
/// a study's runs follow one another.
pub fn break_off(study_dir: &Path, run_dir: &Path, facts: &mut RunFacts) {
    if facts.status != RunStatus::Running {
        return;
    }
    let begun = |dir: &Path| fs::metadata(dir.join("run.toml")).and_then(|m| m.modified()).ok();
    let own = begun(run_dir);
    let others = || fs::read_dir(run_dir.parent()?).ok();
    let later = || others().into_iter().flatten().flatten().any(|other| begun(&other.path()) > own);
    if is_held(study_dir) && !later() {
        return;
    }
    // It may have been closed since it was read.
    if let Ok(now) = read_run(&run_dir.join("run.toml")) {
        *facts = now;
    }
    if facts.status == RunStatus::Running {
        facts.status = RunStatus::Interrupted;
        facts.reason =
            "broken off: triptych was killed, or the machine stopped; what it had written is here".into();
    }
}

/// Gives a closed run that has none a verdict of the present definition on its quality. The file stays as it is: whoever
/// only looks at a study does not write into its runs; the index keeps the verdict.
fn judge(dir: &Path, facts: &mut RunFacts) {
    if facts.status == RunStatus::Running || quality::is_current(facts) {
        return;
    }
    match quality::quality(dir, facts) {
        Ok(quality) => facts.quality = Some(quality),
        Err(error) => tracing::warn!("{}: its quality cannot be judged: {error}", facts.id),
    }
}

/// What responses depend on besides the run.
fn question(plan: &StudyFacts) -> String {
    serde_json::to_string(&(&plan.subject.responses, &plan.subject.joins)).unwrap_or_default()
}

fn derive(dir: &Path, facts: &RunFacts, plan: &StudyFacts) -> Result<BTreeMap<String, f64>, StoreError> {
    if facts.status != RunStatus::Complete {
        return Ok(BTreeMap::new());
    }
    let joins =
        plan.subject.joins.iter().map(|j| joined::join(dir, facts, j)).collect::<Result<Vec<_>, _>>()?;
    responses(dir, facts, &plan.subject, &joins)
}

/// Summarises a run that was just closed: writes the joined tables beside its raw ones, and the verdict on its quality
/// into its `run.toml`, unless that is of a newer version than is written here.
///
/// # Errors
/// Its tables cannot be read, or the derived ones not written.
pub fn summarise(run_dir: &Path, plan: &StudyFacts) -> Result<RunSummary, StoreError> {
    let path = run_dir.join("run.toml");
    let mut facts = read_run(&path)?;
    if facts.status != RunStatus::Running && !quality::is_current(&facts) {
        facts.quality = Some(quality::quality(run_dir, &facts)?);
        // A newer version's file has fields that would get lost.
        if facts.minor <= FORMAT_MINOR {
            write_run(&path, &facts)?;
        }
    }
    let joins: Vec<_> =
        plan.subject.joins.iter().map(|j| joined::join(run_dir, &facts, j)).collect::<Result<_, _>>()?;
    for joined in joins.iter().filter(|j| !j.rows.is_empty()) {
        joined.write(run_dir)?;
    }
    let complete = facts.status == RunStatus::Complete;
    let responses =
        if complete { responses(run_dir, &facts, &plan.subject, &joins)? } else { BTreeMap::new() };
    Ok(RunSummary { facts, responses })
}

/// As [`summarise`], of a run without joins whose `run.toml` the caller has in hand and writes itself: the verdict on its quality
/// goes into `facts`.
///
/// # Errors
/// Its tables cannot be read.
pub fn summarise_closed(
    run_dir: &Path,
    facts: &mut RunFacts,
    plan: &StudyFacts,
) -> Result<RunSummary, StoreError> {
    facts.quality = Some(quality::quality(run_dir, facts)?);
    let complete = facts.status == RunStatus::Complete;
    let responses = if complete { responses(run_dir, facts, &plan.subject, &[])? } else { BTreeMap::new() };
    Ok(RunSummary { facts: facts.clone(), responses })
}

/// The studies below a folder of results, newest first.
///
/// # Errors
/// The folder cannot be read; a folder that does not exist has no studies.
pub fn list(results: &Path) -> Result<Vec<StudyEntry>, StoreError> {
    let entries = match fs::read_dir(results) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(StoreError::io("read", results))?,
    };
    let mut studies = Vec::new();
    for entry in entries {
        let dir = entry.map_err(StoreError::io("read", results))?.path();
        if dir.join("plan.toml").is_file() {
            let plan = read_plan(&dir.join("plan.toml")).map_err(|error| error.to_string());
            studies.push(StudyEntry { dir, plan });
        }
    }
    let created = |s: &StudyEntry| s.plan.as_ref().map(|p| p.created.clone()).unwrap_or_default();
    studies.sort_by_key(|s| std::cmp::Reverse((created(s), s.dir.clone())));
    Ok(studies)
}
