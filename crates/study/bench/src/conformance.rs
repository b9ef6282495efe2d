//! What every [`Subject`] must do, checked on a real one. Each implementation's tests call [`check`].

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use recording::facts::RunStatus;
use recording::spec::SubjectSpec;

use crate::campaign::Campaign;
use crate::engine::run_study;
use crate::estimate::Left;
use crate::level::is_level;
use crate::plan::fresh_seed;
use crate::progress::{Progress, RunEnd};
use crate::study_file::StudyFile;
use crate::subject::{Point, Subject};

/// Runs the suite: `study` is a study file's text of one or more short runs that must succeed,
/// `wrong` a point that the subject must refuse. Folders are made below `results`.
///
/// # Errors
/// The first rule that the subject breaks.
pub fn check(subject: &mut dyn Subject, study: &str, wrong: &Point, results: &Path) -> Result<(), String> {
    let spec = subject.spec().map_err(|e| format!("spec failed: {e}"))?;
    spec_is_sound(&spec)?;
    if subject.spec().map_err(|e| e.to_string())? != spec {
        return Err("spec changes from call to call".into());
    }
    let before = children()?;
    for _ in 0..2 {
        subject.teardown().map_err(|e| format!("teardown of nothing failed: {e}"))?;
    }
    if subject.prepare(wrong).is_ok() {
        return Err(format!("prepare accepted the wrong point {wrong:?}"));
    }
    subject.teardown().map_err(|e| format!("teardown after a failed prepare failed: {e}"))?;

    let study = StudyFile::parse(study, "conformance.toml", std::slice::from_ref(&spec))
        .map_err(|e| e.to_string())?;
    study.check("conformance.toml", 0, &|settings| subject.conflicts(settings)).map_err(|e| e.to_string())?;
    cancelled_run_is_interrupted(subject, &study, results)?;
    runs_complete(subject, &study, results)?;
    for _ in 0..2 {
        subject.teardown().map_err(|e| format!("teardown is not idempotent: {e}"))?;
    }
    let left: Vec<_> = children()?.difference(&before).copied().collect();
    if !left.is_empty() {
        return Err(format!("processes are left behind: {left:?}"));
    }
    Ok(())
}

fn spec_is_sound(spec: &SubjectSpec) -> Result<(), String> {
    let unique = |what: &str, names: Vec<&str>| {
        let mut seen = BTreeSet::new();
        match names.into_iter().find(|n| n.is_empty() || !seen.insert(*n)) {
            Some(name) => Err(format!("{what} '{name}' is empty or stands twice")),
            None => Ok(()),
        }
    };
    unique("factor", spec.factors.iter().map(|f| f.name.as_str()).collect())?;
    unique("response", spec.responses.iter().map(|r| r.name.as_str()).collect())?;
    unique("join", spec.joins.iter().map(|j| j.name.as_str()).collect())?;
    if let Some(factor) = spec.factors.iter().find(|f| !is_level(f, &f.default)) {
        return Err(format!("the default of factor '{}' is none of its levels", factor.name));
    }
    for response in &spec.responses {
        if !response.table.contains('.') && spec.joins.iter().all(|j| j.name != response.table) {
            return Err(format!(
                "response '{}' is about '{}', which is no join",
                response.name, response.table
            ));
        }
        if !response.scale.is_finite() || response.scale == 0.0 {
            return Err(format!("response '{}' has the scale {}", response.name, response.scale));
        }
    }
    Ok(())
}

/// Wishes to stop at the first tick of the first run.
struct Impatient<'a> {
    cancel: &'a AtomicBool,
    ended: Vec<RunEnd>,
}

impl Progress for Impatient<'_> {
    fn tick(&mut self, _left: Left) {
        self.cancel.store(true, Ordering::Relaxed);
    }

    fn run_ended(&mut self, end: &RunEnd, _left: Left) {
        self.ended.push(end.clone());
    }
}

fn cancelled_run_is_interrupted(
    subject: &mut dyn Subject,
    study: &StudyFile,
    results: &Path,
) -> Result<(), String> {
    let campaign = Campaign::create(results, "cancelled", study, fresh_seed()).map_err(|e| e.to_string())?;
    let cancel = AtomicBool::new(false);
    let mut impatient = Impatient { cancel: &cancel, ended: Vec::new() };
    let outcome = run_study(&campaign, subject, &cancel, &mut impatient).map_err(|e| e.to_string())?;
    match impatient.ended.as_slice() {
        [end] if end.status == RunStatus::Interrupted && outcome.interrupted => Ok(()),
        ended => Err(format!("a cancelled study ended as {ended:?}")),
    }
}

/// Remembers how runs ended.
#[derive(Default)]
struct Memory(Vec<RunEnd>);

impl Progress for Memory {
    fn run_ended(&mut self, end: &RunEnd, _left: Left) {
        self.0.push(end.clone());
    }
}

fn runs_complete(subject: &mut dyn Subject, study: &StudyFile, results: &Path) -> Result<(), String> {
    let campaign = Campaign::create(results, "complete", study, fresh_seed()).map_err(|e| e.to_string())?;
    let mut memory = Memory::default();
    let cancel = AtomicBool::new(false);
    let outcome = run_study(&campaign, subject, &cancel, &mut memory).map_err(|e| e.to_string())?;
    if outcome.complete != outcome.planned {
        return Err(format!("not every run completed: {:?}", outcome.failed));
    }
    let window = study.record_s;
    for end in memory.0 {
        let run = recording::facts::read_run(&campaign.run_dir(&end.run).join("run.toml"))
            .map_err(|e| e.to_string())?;
        let Some([start, stop]) = run.window_ns else { return Err(format!("{} has no window", run.id)) };
        let seconds = (stop - start) as f64 / 1e9;
        if seconds < window {
            return Err(format!("the window of {} is {seconds} s, not {window}", run.id));
        }
    }
    Ok(())
}

/// Children of this process, of all its threads.
fn children() -> Result<BTreeSet<u32>, String> {
    let tasks = fs::read_dir("/proc/self/task").map_err(|e| e.to_string())?;
    let lists = tasks.filter_map(|t| fs::read_to_string(t.ok()?.path().join("children")).ok());
    Ok(lists.flat_map(|l| l.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<_>>()).collect())
}
