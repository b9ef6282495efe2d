//! `triptych show` and `triptych view`: a study as a table, as JSON, as a page.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use comfy_table::{Cell as Shown, CellAlignment, Table, presets};
use recording::facts::RunStatus;
use recording::spec::Response;
use serde_json::json;
use store::{Cell, Study};
use view::ViewOptions;

use crate::Exit;
use crate::args;
use crate::locate::locate;
use crate::run::quoted;

pub(crate) fn show(options: &args::Show) -> anyhow::Result<Exit> {
    let study = Study::open(&locate(&options.which.study, &options.which.results)?)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&json(&study)?)?);
        return Ok(Exit::Success);
    }
    println!("{}", table(&study, options.intervals)?);
    for run in study.runs()? {
        if run.facts.status != RunStatus::Complete {
            println!("{}  {:?}: {}", run.facts.id, run.facts.status, run.facts.reason);
        }
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
    let say = |address: SocketAddr| println!("{command}    http://{address}{query}    (Ctrl-C ends it)");
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

/// A column of the table: one response, or the median and a tail of the same indicator side by side.
struct Column<'a> {
    head: String,
    responses: Vec<&'a Response>,
}

fn columns(responses: &[Response]) -> Vec<Column<'_>> {
    let mut columns: Vec<Column<'_>> = Vec::new();
    for response in responses {
        let tail = |name: &str| name.strip_suffix("_p95").map(str::to_owned);
        if let (Some(stem), Some(last)) = (tail(&response.name), columns.last_mut())
            && last.responses.len() == 1
            && last.responses[0].name == format!("{stem}_p50")
            && last.responses[0].unit == response.unit
        {
            last.head = format!("{} / p95\n{}", last.responses[0].label, response.unit);
            last.responses.push(response);
        } else {
            let head = format!("{}\n{}", response.label, response.unit);
            columns.push(Column { head, responses: vec![response] });
        }
    }
    columns
}

/// The table that ends a study: one row per point.
pub(crate) fn table(study: &Study, intervals: bool) -> anyhow::Result<Table> {
    let spec = &study.plan.subject;
    let columns = columns(&spec.responses);
    let matrices = columns
        .iter()
        .map(|c| c.responses.iter().map(|r| study.matrix(&r.name)).collect::<Result<Vec<_>, _>>())
        .collect::<Result<Vec<_>, _>>()?;
    let right = |text: String| Shown::new(text).set_alignment(CellAlignment::Right);
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let mut head: Vec<_> = study
        .plan
        .varied
        .iter()
        .map(|name| {
            let unit = spec.factors.iter().find(|f| f.name == *name).map_or("", |f| &f.unit);
            right(format!("{name}\n{}", if unit == name { "" } else { unit }))
        })
        .collect();
    head.push(Shown::new("│\n│"));
    head.extend(columns.iter().map(|c| right(c.head.clone())));
    table.set_header(head);
    for point in &study.plan.points {
        let mut row: Vec<_> = study
            .plan
            .varied
            .iter()
            .map(|name| point.levels.get(name).map(ToString::to_string).unwrap_or_default())
            .collect();
        row.push("│".into());
        for (column, matrix) in columns.iter().zip(&matrices) {
            let cells = matrix.iter().map(|cells| cells.iter().find(|c| c.levels == point.levels));
            let texts: Vec<_> = cells
                .zip(&column.responses)
                .map(|(cell, response)| text(cell, intervals || response.unit == "%"))
                .collect();
            row.push(texts.join(" / "));
        }
        table.add_row(row.into_iter().map(right));
    }
    Ok(table)
}

/// Mean, and the interval where it is wanted and can be given.
fn text(cell: Option<&Cell>, interval: bool) -> String {
    let Some(cell) = cell.filter(|c| c.n > 0 && c.mean.is_finite()) else { return "–".into() };
    let mean = number(cell.mean);
    if interval && cell.n > 1 && cell.low.is_finite() && cell.high.is_finite() {
        format!("{mean} [{}, {}]", number(cell.low), number(cell.high))
    } else {
        mean
    }
}

/// Three significant digits, and all before the point.
fn number(x: f64) -> String {
    match x.abs() {
        a if a >= 100.0 || a == 0.0 => format!("{x:.0}"),
        a if a >= 10.0 => format!("{x:.1}"),
        _ => format!("{x:.2}"),
    }
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
    Ok(
        json!({ "study": study.dir, "name": plan.name, "seed": plan.seed, "runs": runs, "responses": responses }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use recording::spec::{Better, Statistic};

    fn response(name: &str, label: &str) -> Response {
        Response {
            name: name.into(),
            label: label.into(),
            table: "frames".into(),
            column: "latency_ns".into(),
            statistic: Statistic::P50,
            scale: 1e-6,
            unit: "ms".into(),
            better: Better::Lower,
        }
    }

    #[test]
    fn a_median_and_its_tail_share_a_column() {
        let responses = [
            response("latency_p50", "latency p50"),
            response("latency_p95", "latency p95"),
            response("x_p95", "x"),
        ];
        let heads: Vec<_> = columns(&responses).into_iter().map(|c| c.head).collect();
        assert_eq!(heads, ["latency p50 / p95\nms", "x\nms"]);
    }

    #[test]
    fn numbers_have_three_digits_or_all_before_the_point() {
        for (x, expected) in [(1234.5, "1234"), (29.97, "30.0"), (2.345, "2.35"), (0.0, "0"), (-3.2, "-3.20")]
        {
            assert_eq!(number(x), expected);
        }
    }
}
