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
    /// Stopped by a person, or broken off.
    interrupted: usize,
    /// Runs whose facts cannot be read; `triptych show` says why.
    unreadable: usize,
    /// Runs that something outside disturbed.
    disturbed: usize,
    /// Whether a process runs or records it now.
    under_way: bool,
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
        "interrupted",
        "disturbed",
        "",
        "title",
    ]);
    for e in entries {
        let complete = format!("{}/{}", e.complete, e.runs);
        let [failed, interrupted, disturbed] = [e.failed, e.interrupted, e.disturbed].map(|n| n.to_string());
        let state = match (e.under_way, e.unreadable) {
            (true, _) => "under way".to_owned(),
            (false, 0) => String::new(),
            (false, n) => format!("{n} unreadable"),
        };
        table.add_row([
            e.study,
            e.points.to_string(),
            complete,
            failed,
            interrupted,
            disturbed,
            state,
            e.title,
        ]);
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
    let study = Study::open(dir);
    let runs = study.as_ref().ok().and_then(|study| study.runs().ok()).unwrap_or_default();
    let count = |status| runs.iter().filter(|r| r.facts.status == status).count();
    Entry {
        study: dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        title: plan.description.clone(),
        created: plan.created.clone(),
        points: plan.points.len(),
        runs: plan.runs.len(),
        complete: count(RunStatus::Complete),
        failed: count(RunStatus::Failed),
        interrupted: count(RunStatus::Interrupted),
        unreadable: study.as_ref().map_or(0, |study| study.broken().len()),
        under_way: study.as_ref().is_ok_and(Study::is_under_way),
        disturbed: runs.iter().filter(|r| r.facts.quality.as_ref().is_some_and(|q| q.disturbed)).count(),
    }
}
