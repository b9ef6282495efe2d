//! `triptych show` and `triptych view`: a study as a table, as JSON, as a page.

use std::io::{Write, stdout};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use recording::facts::RunStatus;
use serde_json::json;
use store::Study;
use view::ViewOptions;

use crate::Exit;
use crate::args;
use crate::inspect;
use crate::locate::locate;
use crate::run::quoted;
use crate::table::{self, Columns};

pub(crate) fn show(options: &args::Show) -> anyhow::Result<Exit> {
    let path = Path::new(&options.path);
    if path.is_file() {
        return inspect::table(path, options.json);
    }
    if path.join("run.toml").is_file() && !path.join("plan.toml").is_file() {
        return inspect::run(path, options.json);
    }
    let study = Study::open(&locate(&options.path, &options.results)?)?;
    if let Some(id) = &options.run {
        let (dir, _) = study.run(id)?;
        return inspect::run(&dir, options.json);
    }
    if options.tables {
        return inspect::tables(&study, options.json);
    }
    if options.json {
        writeln!(stdout(), "{}", serde_json::to_string_pretty(&json(&study)?)?)?;
        return Ok(Exit::Success);
    }
    let columns = if options.all { Columns::All } else { Columns::fitting() };
    table::print(&study, options.intervals, columns)?;
    for run in study.runs()? {
        if run.facts.status != RunStatus::Complete {
            let status = format!("{:?}", run.facts.status).to_lowercase();
            let reason = Some(format!(": {}", run.facts.reason)).filter(|_| !run.facts.reason.is_empty());
            writeln!(stdout(), "{}  {status}{}", run.facts.id, reason.unwrap_or_default())?;
        }
    }
    for broken in study.broken() {
        writeln!(stdout(), "{}  unreadable: {}", broken.id, broken.error)?;
    }
    Ok(Exit::Success)
}

pub(crate) fn view(options: &args::View) -> anyhow::Result<Exit> {
    let dir = locate(&options.which.study, &options.which.results)?;
    serve(&dir, options.listen, options.token.clone())?;
    Ok(Exit::Success)
}

/// Where the page is unless another address is asked for.
pub(crate) const PAGE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7380);

/// Serves until Ctrl-C.
pub(crate) fn serve(dir: &Path, listen: Option<SocketAddr>, token: Option<String>) -> anyhow::Result<()> {
    let command = look_at(dir);
    let query = if token.is_some() { "/?token=…" } else { "" };
    let say = |address: SocketAddr| {
        let _ = writeln!(stdout(), "{command}    http://{address}{query}    (Ctrl-C ends it)");
    };
    let options =
        |listen| ViewOptions { study: dir.into(), listen, token: token.clone(), stop: Arc::default() };
    match view::serve(options(listen.unwrap_or(PAGE)), say) {
        // Somebody looks at another study there: this one goes elsewhere, unless a place was asked for.
        Err(view::ViewError::Listen { .. }) if listen.is_none() => {
            Ok(view::serve(options(SocketAddr::new(PAGE.ip(), 0)), say)?)
        }
        other => Ok(other?),
    }
}

/// The line that ends a study.
pub(crate) fn look_at(dir: &Path) -> String {
    format!("look at it:  {} view {}", me(), quoted(dir))
}

/// This program as the person called it, so that what is printed can be typed.
pub(crate) fn me() -> String {
    std::env::args_os().next().map_or("triptych".into(), |name| quoted(Path::new(&name)))
}

/// The study for programs: every run with its responses, every point with its intervals.
pub(crate) fn json(study: &Study) -> anyhow::Result<serde_json::Value> {
    let runs: Vec<_> = study
        .runs()?
        .into_iter()
        .map(|run| {
            json!({
                "id": run.facts.id, "point": run.facts.point, "repeat": run.facts.repeat,
                "status": run.facts.status, "reason": run.facts.reason, "responses": run.responses,
                "quality": run.facts.quality,
            })
        })
        .collect();
    let mut responses = serde_json::Map::new();
    for response in &study.plan.subject.responses {
        let cells: Vec<_> = study
            .matrix(&response.name)?
            .into_iter()
            .map(|c| {
                json!({ "levels": c.levels, "n": c.n, "mean": c.mean, "sd": c.sd,
                        "low": c.low, "high": c.high, "values": c.values })
            })
            .collect();
        responses.insert(response.name.clone(), json!({ "unit": response.unit, "cells": cells }));
    }
    let plan = &study.plan;
    Ok(json!({ "study": study.dir, "name": plan.name, "seed": plan.seed, "runs": runs,
                "unreadable": study.broken(), "responses": responses }))
}
