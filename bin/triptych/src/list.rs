//! `triptych list`.

use std::fs;
use std::io::{Write, stdout};
use std::path::Path;

use comfy_table::{Table, presets};
use recording::facts::{RunStatus, StudyFacts, read_plan};
use serde::Serialize;
use store::Study;

use crate::Exit;
use crate::args;

#[derive(Serialize)]
struct Entry {
    study: String,
    title: String,
    created: String,
    points: usize,
    runs: usize,
    complete: usize,
    failed: usize,
    /// Runs that something outside disturbed.
    disturbed: usize,
}

pub(crate) fn list(options: &args::List) -> anyhow::Result<Exit> {
    let entries = entries(&options.results);
    if options.json {
        writeln!(stdout(), "{}", serde_json::to_string_pretty(&entries)?)?;
        return Ok(Exit::Success);
    }
    if entries.is_empty() {
        eprintln!("no study in {}", options.results.display());
        return Ok(Exit::Success);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "study",
        "points",
        "complete",
        "failed",
        "disturbed",
        "title",
    ]);
    for e in entries {
        let complete = format!("{}/{}", e.complete, e.runs);
        let (failed, disturbed) = (e.failed.to_string(), e.disturbed.to_string());
        table.add_row([e.study, e.points.to_string(), complete, failed, disturbed, e.title]);
    }
    writeln!(stdout(), "{table}")?;
    Ok(Exit::Success)
}

/// Studies below `results`, oldest first. A folder that is none is passed over, a study that cannot be read is told.
fn entries(results: &Path) -> Vec<Entry> {
    let dirs = fs::read_dir(results).into_iter().flatten().filter_map(|e| Some(e.ok()?.path()));
    let mut entries: Vec<_> = dirs
        .filter(|dir| dir.join("plan.toml").is_file())
        .filter_map(|dir| match read_plan(&dir.join("plan.toml")) {
            Ok(plan) => Some(entry(&dir, &plan)),
            Err(error) => {
                eprintln!("{}: {error}", dir.display());
                None
            }
        })
        .collect();
    entries.sort_by(|a, b| (&a.created, &a.study).cmp(&(&b.created, &b.study)));
    entries
}

fn entry(dir: &Path, plan: &StudyFacts) -> Entry {
    // Through the store, which judges runs that have no verdict yet and remembers it.
    let runs = Study::open(dir).and_then(|study| study.runs()).unwrap_or_default();
    let count = |status| runs.iter().filter(|r| r.facts.status == status).count();
    Entry {
        study: dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        title: plan.description.clone(),
        created: plan.created.clone(),
        points: plan.points.len(),
        runs: plan.runs.len(),
        complete: count(RunStatus::Complete),
        failed: count(RunStatus::Failed),
        disturbed: runs.iter().filter(|r| r.facts.quality.as_ref().is_some_and(|q| q.disturbed)).count(),
    }
}
