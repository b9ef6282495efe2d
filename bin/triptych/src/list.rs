//! `triptych list`.

use std::fs;
use std::io::{Write, stdout};
use std::path::Path;

use comfy_table::{Table, presets};
use recording::facts::{RunStatus, StudyFacts, read_plan, read_run};
use serde::Serialize;

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
    table.load_style(presets::NOTHING).set_header(["study", "points", "complete", "failed", "title"]);
    for e in entries {
        let complete = format!("{}/{}", e.complete, e.runs);
        table.add_row([e.study, e.points.to_string(), complete, e.failed.to_string(), e.title]);
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
    let statuses: Vec<_> = plan
        .runs
        .iter()
        .filter_map(|run| Some(read_run(&dir.join("runs").join(&run.id).join("run.toml")).ok()?.status))
        .collect();
    let count = |status| statuses.iter().filter(|s| **s == status).count();
    Entry {
        study: dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        title: plan.description.clone(),
        created: plan.created.clone(),
        points: plan.points.len(),
        runs: plan.runs.len(),
        complete: count(RunStatus::Complete),
        failed: count(RunStatus::Failed),
    }
}
