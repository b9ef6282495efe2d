//! Puts imported runs into a study's folder: all of them, or none.
//!
//! Runs are made in `.import` inside the study, where nobody looks. Committing syncs them, moves them below `runs/`, and
//! writes the plan that names them last, in one step: until then the study is what it was. A killed import leaves at most
//! a folder that the next one removes.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::responses::Seen;
use super::source::Imported;
use super::{ImportError, Skips, Survey};
use crate::atomic::write_atomically;
use crate::facts::{
    FORMAT, FORMAT_MINOR, HostFacts, PanelFacts, PlannedPoint, PlannedRun, RunFacts, RunStatus, StudyFacts,
    read_plan, read_run, write_plan, write_run,
};
use crate::reader::{read_table, tables};
use crate::spec::{Domain, Factor, Join, Level, Levels, SubjectSpec};

const STAGING: &str = ".import";
const SUBJECT: &str = "imported";
/// Instants from this one on (September 2001) are taken to be nanoseconds since 1970.
const EPOCH: i64 = 1_000_000_000_000_000_000;
/// Levels of a factor whose words are listed.
const MAX_WORDS: usize = 1_000;

/// An import under way. Dropping it leaves the study as it was.
#[derive(Debug)]
pub struct Import {
    dir: PathBuf,
    /// The study's folder was made for this import.
    fresh: bool,
    again: bool,
    plan: StudyFacts,
    log: Log,
    /// Settings of each point, by index.
    settings: Vec<Levels>,
    points: BTreeMap<String, u32>,
    repeats: Vec<u32>,
    known: BTreeMap<String, String>,
    next: usize,
    widths: (usize, usize),
    seen: Seen,
    staged: Vec<Entry>,
    longest_ns: i64,
    /// Below `runs/`, and not in the plan yet.
    moved: Vec<PathBuf>,
    committed: bool,
    _lock: File,
}

/// What an import did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The study's folder.
    pub study: PathBuf,
    /// The new runs, in order.
    pub runs: Vec<ImportedRun>,
    /// Points that the study had not had before.
    pub new_points: usize,
    /// Comments of `matrix.csv`.
    pub notes: Vec<String>,
    /// Files that were named and are not there.
    pub missing: Vec<PathBuf>,
    /// What was left out while looking for runs; what was left out of a run stands with it.
    pub skipped: BTreeMap<String, u64>,
}

/// A run that was imported.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImportedRun {
    /// Its folder below `runs/`.
    pub id: String,
    /// Where it comes from.
    pub source: PathBuf,
    /// Settings of its point.
    pub settings: Levels,
    /// Rows of each table.
    pub tables: BTreeMap<String, usize>,
    /// What was left out of it.
    pub skipped: BTreeMap<String, u64>,
}

/// `study.toml` of an imported study: what was imported when.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Log {
    title: String,
    #[serde(default)]
    import: Vec<Batch>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Batch {
    at: String,
    #[serde(default)]
    notes: Vec<String>,
    #[serde(default)]
    missing: Vec<PathBuf>,
    #[serde(default)]
    skipped: BTreeMap<String, u64>,
    sources: Vec<Logged>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Logged {
    file: PathBuf,
    format: String,
    sha1: String,
    run: String,
}

#[derive(Debug)]
struct Entry {
    planned: PlannedRun,
    run: ImportedRun,
    logged: Logged,
}

impl Import {
    /// Begins an import of about `expected` runs into a study, which is made where there is none. With `again`, what the
    /// study has already is imported once more.
    ///
    /// # Errors
    /// The folder holds something else, or a study that was recorded; it is in use, or cannot be written.
    pub fn begin(dir: &Path, again: bool, expected: usize) -> Result<Self, ImportError> {
        let fresh = !dir.exists();
        fs::create_dir_all(dir).map_err(ImportError::io("create", dir))?;
        let lock = lock(dir)?;
        let plan_path = dir.join("plan.toml");
        let refuse = |what: &str| ImportError::Study { dir: dir.to_owned(), what: what.into() };
        let (plan, log) = if plan_path.exists() {
            let plan = read_plan(&plan_path)?;
            if plan.subject.name != SUBJECT {
                return Err(refuse("was recorded, not imported: import into a study of its own"));
            }
            (plan, read_log(&dir.join("study.toml"))?)
        } else {
            let mut entries = fs::read_dir(dir).map_err(ImportError::io("read", dir))?;
            if entries.any(|e| e.is_ok_and(|e| e.file_name() != STAGING)) {
                return Err(refuse("is neither a study nor empty: name another folder"));
            }
            (empty_plan(dir), Log::default())
        };
        let staging = dir.join(STAGING);
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(ImportError::io("remove", &staging))?;
        }
        fs::create_dir(&staging).map_err(ImportError::io("create", &staging))?;
        let mut import = Self {
            fresh,
            again,
            settings: plan.points.iter().map(|p| merged(&plan.fixed, &p.levels)).collect(),
            points: BTreeMap::new(),
            repeats: vec![0; plan.points.len()],
            known: BTreeMap::new(),
            next: next_number(dir, &plan),
            widths: (0, 0),
            seen: Seen::default(),
            staged: Vec::new(),
            longest_ns: 0,
            moved: Vec::new(),
            committed: false,
            dir: dir.to_owned(),
            plan,
            log,
            _lock: lock,
        };
        let digits = |n: usize| n.to_string().len();
        import.widths =
            (digits(import.next + expected).max(4), digits(import.settings.len() + expected).max(2));
        for (index, settings) in import.settings.iter().enumerate() {
            import.points.insert(format!("{settings:?}"), import.plan.points[index].index);
        }
        for run in &import.plan.runs {
            if let Some(repeats) = import.repeats.get_mut(run.point as usize) {
                *repeats = (*repeats).max(run.repeat + 1);
            }
        }
        // Only runs that the plan names are in the study; a killed import may have logged more.
        let planned: std::collections::BTreeSet<_> = import.plan.runs.iter().map(|r| &r.id).collect();
        for source in import.log.import.iter().flat_map(|b| &b.sources).filter(|s| planned.contains(&s.run)) {
            import.known.insert(source.sha1.clone(), source.run.clone());
        }
        Ok(import)
    }

    /// Makes a run, and gives the folder in which it waits for [`Import::commit`].
    ///
    /// # Errors
    /// The study has the run already, or it cannot be written.
    pub fn add(&mut self, imported: Imported) -> Result<PathBuf, ImportError> {
        if let (false, Some(run)) = (self.again, self.known.get(&imported.digest)) {
            return Err(ImportError::Already { path: imported.path, run: run.clone() });
        }
        let point = self.point(&imported.settings);
        let repeat = self.repeats[point as usize];
        let (wide, wide_point) = self.widths;
        let id = format!("r{:0wide$}-p{point:0wide_point$}-k{repeat}", self.next);
        let dir = self.dir.join(STAGING).join(&id);
        let facts = facts(&imported, PlannedRun { id: id.clone(), point, repeat });
        if let Some([start, end]) = facts.window_ns {
            self.longest_ns = self.longest_ns.max(end - start);
        }
        let run = ImportedRun {
            id: id.clone(),
            source: imported.path.clone(),
            settings: imported.settings.clone(),
            tables: imported.tables.iter().map(|t| (t.stem(), t.t_ns.len())).collect(),
            skipped: imported.facts.skipped.clone(),
        };
        let logged = Logged {
            file: imported.path.clone(),
            format: imported.format.name().into(),
            sha1: imported.digest.clone(),
            run: id.clone(),
        };
        fs::create_dir(&dir).map_err(ImportError::io("create", &dir))?;
        for (name, content) in &imported.attachments {
            let path = dir.join(name);
            fs::write(&path, content).map_err(ImportError::io("write", &path))?;
        }
        for table in imported.tables {
            self.seen.add(table.panel, &table.table, imported.format);
            table.write(&dir)?;
        }
        let text = toml::to_string(&facts).map_err(|e| ImportError::input(&dir, 0, "", e.to_string()))?;
        let path = dir.join("run.toml");
        fs::write(&path, text).map_err(ImportError::io("write", &path))?;
        self.next += 1;
        self.repeats[point as usize] += 1;
        self.known.insert(imported.digest, id.clone());
        self.staged.push(Entry { planned: PlannedRun { id, point, repeat }, run, logged });
        Ok(dir)
    }

    /// The joins that the study will have, given the runs so far.
    pub fn joins(&self) -> Vec<Join> {
        let mut joins = self.plan.subject.joins.clone();
        self.seen.extend(&mut Vec::new(), &mut joins);
        joins
    }

    /// Index of the point with these settings, which may be new.
    fn point(&mut self, settings: &Levels) -> u32 {
        let new = self.settings.len() as u32;
        let index = *self.points.entry(format!("{settings:?}")).or_insert(new);
        if index == new {
            self.settings.push(settings.clone());
            self.repeats.push(0);
        }
        index
    }

    /// Puts the runs into the study.
    ///
    /// # Errors
    /// Nothing was added, or it cannot be written; the study is then as it was.
    pub fn commit(mut self, survey: &Survey) -> Result<Summary, ImportError> {
        if self.staged.is_empty() {
            return Err(ImportError::Study { dir: self.dir.clone(), what: "no run was imported".into() });
        }
        let runs = self.dir.join("runs");
        fs::create_dir_all(&runs).map_err(ImportError::io("create", &runs))?;
        let folder = File::open(&self.dir).map_err(ImportError::io("open", &self.dir))?;
        let synced = rustix::fs::syncfs(&folder);
        synced.map_err(|e| ImportError::io("sync", &self.dir)(e.into()))?;
        for entry in &self.staged {
            let (from, to) = (self.dir.join(STAGING).join(&entry.planned.id), runs.join(&entry.planned.id));
            fs::rename(&from, &to).map_err(ImportError::io("move", &from))?;
            self.moved.push(to);
        }
        let synced = File::open(&runs).and_then(|f| f.sync_all());
        synced.map_err(ImportError::io("sync", &runs))?;
        let before = self.plan.points.len();
        let staged = std::mem::take(&mut self.staged);
        let (logged, done) = self.merge(staged, survey);
        let path = self.dir.join("study.toml");
        self.log.import.push(logged);
        let text = toml::to_string(&self.log).map_err(|e| ImportError::input(&path, 0, "", e.to_string()))?;
        write_atomically(&path, text.as_bytes()).map_err(ImportError::io("write", &path))?;
        write_plan(&self.dir.join("plan.toml"), &self.plan)?;
        self.committed = true;
        Ok(Summary {
            study: self.dir.clone(),
            runs: done,
            new_points: self.plan.points.len() - before,
            notes: survey.notes.clone(),
            missing: survey.missing.clone(),
            skipped: survey.skips.clone().into_facts(),
        })
    }

    /// The plan with the new runs: what is the same in all points is fixed, the rest varied.
    fn merge(&mut self, staged: Vec<Entry>, survey: &Survey) -> (Batch, Vec<ImportedRun>) {
        let mut batch = Batch {
            at: now(),
            notes: survey.notes.clone(),
            missing: survey.missing.clone(),
            skipped: survey.skips.clone().into_facts(),
            sources: Vec::new(),
        };
        let mut done = Vec::new();
        for entry in staged {
            self.plan.runs.push(entry.planned);
            batch.sources.push(entry.logged);
            done.push(entry.run);
        }
        let plan = &mut self.plan;
        if plan.description.is_empty() {
            let notes = if survey.notes.is_empty() {
                String::new()
            } else {
                format!("; {}", survey.notes.join("; "))
            };
            let name =
                |r: &ImportedRun| r.source.file_name().unwrap_or(r.source.as_os_str()).display().to_string();
            let more = if done.len() > 1 { format!(" and {} more", done.len() - 1) } else { String::new() };
            plan.description = format!("Imported: {}{more}{notes}", done.first().map_or(String::new(), name));
            self.log.title.clone_from(&plan.description);
        }
        let mut levels: BTreeMap<&str, Vec<Option<&Level>>> = BTreeMap::new();
        for settings in &self.settings {
            for key in settings.keys() {
                levels.entry(key).or_default();
            }
        }
        for (key, seen) in &mut levels {
            seen.extend(self.settings.iter().map(|s| s.get(*key)));
        }
        let same = |seen: &[Option<&Level>]| seen.iter().all(|l| l.is_some() && *l == seen[0]);
        let mut varied: Vec<String> =
            plan.varied.iter().filter(|v| levels.contains_key(v.as_str())).cloned().collect();
        for (key, seen) in &levels {
            if !same(seen) && !varied.iter().any(|v| v == key) {
                varied.push((*key).to_owned());
            }
        }
        plan.fixed = levels
            .iter()
            .filter(|(key, _)| !varied.iter().any(|v| v == *key))
            .filter_map(|(key, seen)| Some(((*key).to_owned(), (*seen.first()?)?.clone())))
            .collect();
        plan.points = (0..)
            .zip(&self.settings)
            .map(|(index, settings)| PlannedPoint {
                index,
                levels: settings
                    .iter()
                    .filter(|(k, _)| varied.contains(k))
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect(),
            })
            .collect();
        plan.varied = varied;
        plan.repeats = self.repeats.iter().copied().max().unwrap_or(1);
        plan.record_s = plan.record_s.max(self.longest_ns as f64 / 1e9);
        plan.subject.factors = levels.iter().map(|(key, seen)| factor(key, seen)).collect();
        self.seen.extend(&mut plan.subject.responses, &mut plan.subject.joins);
        (batch, done)
    }
}

impl Drop for Import {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.dir.join(STAGING));
        if self.committed {
            return;
        }
        for dir in &self.moved {
            let _ = fs::remove_dir_all(dir);
        }
        if self.fresh {
            let _ = fs::remove_dir(self.dir.join("runs"));
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

fn lock(dir: &Path) -> Result<File, ImportError> {
    let file = File::open(dir).map_err(ImportError::io("open", dir))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ImportError::Study {
            dir: dir.to_owned(),
            what: "is in use by another triptych: wait until it is done".into(),
        }),
        Err(TryLockError::Error(error)) => Err(ImportError::io("lock", dir)(error)),
    }
}

fn read_log(path: &Path) -> Result<Log, ImportError> {
    let text = super::read_file(path, 256 << 20)?;
    toml::from_str(&String::from_utf8_lossy(&text))
        .map_err(|error: toml::de::Error| ImportError::input(path, 0, "", error.to_string()))
}

fn writer() -> String {
    format!("triptych {}", env!("CARGO_PKG_VERSION"))
}

fn empty_plan(dir: &Path) -> StudyFacts {
    StudyFacts {
        format: FORMAT,
        minor: FORMAT_MINOR,
        writer: writer(),
        name: dir.file_name().map_or("imported".into(), |n| n.to_string_lossy().into_owned()),
        description: String::new(),
        created: now(),
        seed: 0,
        warmup_s: 0.0,
        record_s: 0.0,
        repeats: 1,
        varied: Vec::new(),
        fixed: Levels::new(),
        points: Vec::new(),
        runs: Vec::new(),
        subject: SubjectSpec {
            name: SUBJECT.into(),
            description: "Runs that another program recorded".into(),
            ..SubjectSpec::default()
        },
    }
}

fn merged(fixed: &Levels, levels: &Levels) -> Levels {
    let mut all = fixed.clone();
    all.extend(levels.clone());
    all
}

/// Number of the next run: after those of the plan, and after folders that a killed import left.
fn next_number(dir: &Path, plan: &StudyFacts) -> usize {
    let number = |id: &str| id.strip_prefix('r')?.split('-').next()?.parse::<usize>().ok();
    let planned = plan.runs.iter().filter_map(|r| number(&r.id));
    let left = fs::read_dir(dir.join("runs")).into_iter().flatten().flatten();
    let left = left.filter_map(|e| number(&e.file_name().to_string_lossy()));
    planned.chain(left).max().unwrap_or(0).saturating_add(1)
}

fn factor(name: &str, levels: &[Option<&Level>]) -> Factor {
    let all: Vec<&Level> = levels.iter().copied().flatten().collect();
    let ints = || {
        all.iter().map(|l| if let Level::Int(i) = l { Some(*i) } else { None }).collect::<Option<Vec<_>>>()
    };
    let floats = || all.iter().map(|l| l.as_f64()).collect::<Option<Vec<_>>>();
    let domain = if let Some(ints) = ints() {
        Domain::Int {
            min: ints.iter().copied().min().unwrap_or(0),
            max: ints.iter().copied().max().unwrap_or(0),
        }
    } else if let Some(floats) = floats() {
        let (low, high) =
            floats.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(*x), h.max(*x)));
        Domain::Float { min: low, max: high }
    } else if all.iter().all(|l| matches!(l, Level::Bool(_))) {
        Domain::Bool
    } else {
        let mut values: Vec<String> = Vec::new();
        let mut known = std::collections::BTreeSet::new();
        for level in &all {
            if known.insert(level.to_string()) && values.len() < MAX_WORDS {
                values.push(level.to_string());
            }
        }
        Domain::Enum { values }
    };
    Factor {
        name: name.to_owned(),
        unit: String::new(),
        description: "as the imported files name it".into(),
        domain,
        default: all.first().map_or(Level::Text(String::new()), |l| (*l).clone()),
    }
}

/// `run.toml` of an imported run.
fn facts(imported: &Imported, planned: PlannedRun) -> RunFacts {
    let instants = || imported.tables.iter().flat_map(|t| t.t_ns.iter().copied());
    let window = instants().min().zip(instants().max()).map(|(first, last)| [first, last.saturating_add(1)]);
    let dated = window.filter(|w| w[0] >= EPOCH);
    let start = window.map_or(0, |w| w[0]);
    let mut markers = imported.markers.clone();
    markers.iter_mut().filter(|m| m.t_ns == 0).for_each(|m| m.t_ns = start);
    markers.sort_by_key(|m| m.t_ns);
    let mut import = imported.facts.clone();
    if dated.is_none() {
        import
            .assumptions
            .push("the files tell no date: that of the run is when its file was changed last".into());
    }
    let panels = imported.tables.iter().map(|t| t.panel).chain(imported.panel_facts.keys().copied());
    let panel = |panel: crate::spec::Panel| {
        let facts = imported.panel_facts.get(&panel).cloned().unwrap_or_default();
        (panel.name().to_owned(), PanelFacts { program: SUBJECT.into(), facts, ..PanelFacts::default() })
    };
    RunFacts {
        format: FORMAT,
        minor: FORMAT_MINOR,
        writer: writer(),
        id: planned.id,
        point: planned.point,
        repeat: planned.repeat,
        status: if imported.failed.is_some() { RunStatus::Failed } else { RunStatus::Complete },
        reason: imported.failed.clone().unwrap_or_default(),
        started: rfc3339(dated.map_or(imported.modified_ns, |w| w[0])),
        ended: rfc3339(dated.map_or(imported.modified_ns, |w| w[1])),
        started_ns: start,
        window_ns: window,
        asked: imported.settings.clone(),
        host: HostFacts::default(),
        panels: panels.map(panel).collect(),
        markers,
        quality: None,
        import: Some(import),
    }
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn rfc3339(ns: i64) -> String {
    let at = Timestamp::from_nanosecond(ns.into());
    at.map_or(String::new(), |t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// Sets a run's window to all that its tables hold on the collector's clock, after the clocks of its panels were set.
///
/// # Errors
/// The run cannot be read or written.
pub fn set_window(run_dir: &Path) -> Result<(), ImportError> {
    let path = run_dir.join("run.toml");
    let mut facts = read_run(&path)?;
    let failed = |error: crate::reader::ReadError| ImportError::input(run_dir, 0, "", error.to_string());
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    for name in tables(run_dir).map_err(failed)? {
        let clock = name.split_once('.').and_then(|(panel, _)| facts.panels.get(panel)?.clock.as_ref());
        let table = read_table(run_dir, &name).map_err(failed)?;
        for t in table.i64(crate::files::T_NS).map_err(failed)? {
            let t = clock.map_or(*t, |c| c.to_collector(*t));
            (first, last) = (first.min(t), last.max(t));
        }
    }
    if first <= last {
        facts.started_ns = first;
        facts.window_ns = Some([first, last.saturating_add(1)]);
        write_run(&path, &facts)?;
    }
    Ok(())
}

/// What was left out of an import besides what its runs say.
impl Survey {
    /// Counts a source that could not be read at all, and why.
    pub fn skip_source(&mut self, error: &ImportError) {
        let mut skips = Skips::default();
        skips.add("source that cannot be read", 1, || error.to_string());
        self.skips.merge(skips);
    }
}
