//! A study's folder: made once, found again by `--resume`, held by one process at a time.
//!
//! What is redone is never thrown away: the folder of a run that failed, was interrupted or never closed moves to
//! `superseded/` before the run is executed again under its planned id.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use recording::facts::{self, PlannedRun, RunStatus, StudyFacts};
use recording::hold::Hold;

use crate::error::BenchError;
use crate::plan;
use crate::study_file::StudyFile;

/// A study's folder, locked for as long as this value lives.
#[derive(Debug)]
pub struct Campaign {
    /// The folder.
    pub dir: PathBuf,
    /// Its `plan.toml`.
    pub facts: StudyFacts,
    _hold: Hold,
}

impl Campaign {
    /// Makes `<results>/<name>-<time>/` with the study file as it was read and the plan.
    ///
    /// # Errors
    /// The folder or its files cannot be written.
    pub fn create(results: &Path, name: &str, study: &StudyFile, seed: u64) -> Result<Self, BenchError> {
        let now = Timestamp::now();
        let stem = format!("{name}-{}", now.strftime("%Y%m%dT%H%M%SZ"));
        fs::create_dir_all(results).map_err(BenchError::io("make", results))?;
        let dir = (1..)
            .map(|n| results.join(if n == 1 { stem.clone() } else { format!("{stem}-{n}") }))
            .find_map(|dir| match fs::create_dir(&dir) {
                Ok(()) => Some(Ok(dir)),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => None,
                Err(e) => Some(Err(BenchError::io("make", &dir)(e))),
            })
            .ok_or_else(|| BenchError::Busy(results.into()))??;
        let hold = hold(&dir)?;
        let facts = plan::plan(study, name, rfc3339(now), seed);
        let file = dir.join("study.toml");
        fs::write(&file, &study.text).map_err(BenchError::io("write", &file))?;
        let runs = dir.join("runs");
        fs::create_dir(&runs).map_err(BenchError::io("make", &runs))?;
        facts::write_plan(&dir.join("plan.toml"), &facts)?;
        Ok(Self { dir, facts, _hold: hold })
    }

    /// Opens the study at `dir` to go on with it.
    ///
    /// # Errors
    /// It is not a study, or another process is at it.
    pub fn reopen(dir: &Path) -> Result<Self, BenchError> {
        let facts = facts::read_plan(&dir.join("plan.toml"))?;
        if let Some(run) = facts.runs.iter().find(|r| !is_run_id(&r.id)) {
            return Err(BenchError::RunId { dir: dir.into(), id: run.id.clone() });
        }
        Ok(Self { dir: dir.into(), facts, _hold: hold(dir)? })
    }

    /// The runs that are not complete, in planned order.
    pub fn pending(&self) -> Vec<PlannedRun> {
        self.facts.runs.iter().filter(|run| !self.is_complete(run)).cloned().collect()
    }

    fn is_complete(&self, run: &PlannedRun) -> bool {
        facts::read_status(&self.run_dir(run).join("run.toml"))
            .is_ok_and(|status| status == RunStatus::Complete)
    }

    /// Folder of a run.
    pub fn run_dir(&self, run: &PlannedRun) -> PathBuf {
        self.dir.join("runs").join(&run.id)
    }

    /// Makes an empty folder for `run`; what an earlier attempt left moves to `superseded/<id>.<attempt>`.
    pub(crate) fn fresh_run_dir(&self, run: &PlannedRun) -> Result<PathBuf, BenchError> {
        let dir = self.run_dir(run);
        if dir.exists() {
            let attic = self.dir.join("superseded");
            fs::create_dir_all(&attic).map_err(BenchError::io("make", &attic))?;
            let free = (1..).map(|n| attic.join(format!("{}.{n}", run.id))).find(|path| !path.exists());
            let to = free.ok_or(BenchError::Busy(attic))?;
            fs::rename(&dir, &to).map_err(BenchError::io("move away", &dir))?;
        }
        fs::create_dir_all(&dir).map_err(BenchError::io("make", &dir))?;
        Ok(dir)
    }
}

fn hold(dir: &Path) -> Result<Hold, BenchError> {
    Hold::take(dir).map_err(BenchError::io("lock", dir))?.ok_or_else(|| BenchError::Busy(dir.into()))
}

/// Ids become folder names; a plan that was tampered with must not lead out of the study.
fn is_run_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

pub(crate) fn rfc3339(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
