//! A study as a table: one row per point, one column per response.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write, stdout};

use comfy_table::{Cell as Shown, CellAlignment, Table, presets};
use console::Term;
use recording::facts::RunStatus;
use recording::spec::{Panel, Response};
use store::{Cell, Study};

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

/// Which responses a table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Columns {
    /// Every one that the study asks for.
    All,
    /// The first ones, as many as this many characters hold.
    Within(usize),
}

impl Columns {
    /// As many as the terminal is wide; all where stdout is none.
    pub(crate) fn fitting() -> Self {
        let size = Term::stdout().size_checked().filter(|_| stdout().is_terminal());
        size.map_or(Self::All, |(_, columns)| Self::Within(columns.into()))
    }
}

/// Prints the table that ends a study, and what it leaves out.
pub(crate) fn print(study: &Study, intervals: bool, shown: Columns) -> anyhow::Result<()> {
    let columns = columns(&study.plan.subject.responses);
    let matrices = columns
        .iter()
        .map(|c| c.responses.iter().map(|r| study.matrix(&r.name)).collect::<Result<Vec<_>, _>>())
        .collect::<Result<Vec<_>, _>>()?;
    let marked: BTreeSet<u32> = flagged(study)?.into_keys().collect();
    let made = |n: usize| table(study, &columns[..n], &matrices[..n], intervals, &marked).to_string();
    let (text, n) = widest(columns.len(), shown, made);
    writeln!(stdout(), "{text}")?;
    if n < columns.len() {
        let hidden = columns.len() - n;
        writeln!(stdout(), "{hidden} more columns: a wider terminal, `show --all`, or the page")?;
    }
    for line in disturbances(study)? {
        writeln!(stdout(), "! {line}")?;
    }
    if relative(study)? {
        writeln!(stdout(), "clocks from frames: what goes between panels is relative to the quickest frame")?;
    }
    Ok(())
}

/// Disturbed runs that are told of one by one; of more, each kind of disturbance has a line.
const TOLD: usize = 4;

/// Lines on what disturbed which runs.
fn disturbances(study: &Study) -> anyhow::Result<Vec<String>> {
    let runs: Vec<_> = flagged(study)?.into_values().flatten().collect();
    if runs.len() <= TOLD {
        return Ok(runs
            .iter()
            .map(|(id, reasons)| format!("{id} disturbed: {}", reasons.join("; ")))
            .collect());
    }
    let mut kinds: BTreeMap<(Option<Panel>, String), (BTreeSet<String>, f64)> = BTreeMap::new();
    for run in study.runs()?.into_iter().filter(|r| r.facts.status == RunStatus::Complete) {
        for d in run.facts.quality.into_iter().filter(|q| q.disturbed).flat_map(|q| q.disturbances) {
            if store::is_worth_a_flag(&d) {
                let (runs, share) = kinds.entry((d.panel, d.kind)).or_default();
                runs.insert(run.facts.id.clone());
                *share = share.max(d.share);
            }
        }
    }
    let mut lines = Vec::new();
    for ((panel, kind), (runs, share)) in &kinds {
        let on = panel.map_or(String::new(), |p| format!(" on {p}"));
        // Lost rows and clocks that jumped have no share of the time.
        let timed = !["clock", "lost"].contains(&kind.as_str());
        let much = if timed { format!(", up to {:.0} % of the time", share * 100.0) } else { String::new() };
        let plural = if runs.len() == 1 { "run" } else { "runs" };
        lines.push(format!("{} {plural} disturbed: {kind}{on}{much}", runs.len()));
    }
    lines.push("the page, and `show --run RUN`, say more of each".into());
    Ok(lines)
}

/// A disturbed run, and why.
type Flagged = (String, Vec<String>);

/// Complete runs that something outside disturbed, and why, by point.
fn flagged(study: &Study) -> anyhow::Result<BTreeMap<u32, Vec<Flagged>>> {
    let mut points: BTreeMap<u32, Vec<_>> = BTreeMap::new();
    for run in study.runs()?.into_iter().filter(|r| r.facts.status == RunStatus::Complete) {
        let reasons = run.facts.quality.as_ref().map(store::reasons).unwrap_or_default();
        if !reasons.is_empty() {
            points.entry(run.facts.point).or_default().push((run.facts.id, reasons));
        }
    }
    Ok(points)
}

/// Whether clocks were found from frames in any run.
fn relative(study: &Study) -> anyhow::Result<bool> {
    let of = |run: &store::RunSummary| Panel::ALL.iter().any(|p| store::is_relative(&run.facts, *p));
    Ok(study.runs()?.iter().any(of))
}

/// The table of the most columns that still fits (one at least), and how many these are.
fn widest(columns: usize, shown: Columns, made: impl Fn(usize) -> String) -> (String, usize) {
    let fits = |text: &str| match shown {
        Columns::All => true,
        Columns::Within(width) => text.lines().all(|line| line.trim_end().chars().count() <= width),
    };
    let tables = (1..=columns).rev().map(|n| (made(n), n));
    tables.clone().find(|(text, _)| fits(text)).or_else(|| tables.last()).unwrap_or_default()
}

/// One row per point; those `marked` have a disturbed run.
fn table(
    study: &Study,
    columns: &[Column<'_>],
    matrices: &[Vec<Vec<Cell>>],
    intervals: bool,
    marked: &BTreeSet<u32>,
) -> Table {
    let spec = &study.plan.subject;
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
        row.push(if marked.contains(&point.index) { "! │".into() } else { "│".into() });
        for (column, matrix) in columns.iter().zip(matrices) {
            let cells = matrix.iter().map(|cells| cells.iter().find(|c| c.levels == point.levels));
            let texts: Vec<_> = cells
                .zip(&column.responses)
                .map(|(cell, response)| text(cell, intervals || response.unit == "%"))
                .collect();
            row.push(texts.join(" / "));
        }
        table.add_row(row.into_iter().map(right));
    }
    table
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
pub(crate) fn number(x: f64) -> String {
    match x.abs() {
        a if a >= 100.0 || a == 0.0 => format!("{x:.0}"),
        a if a >= 10.0 => format!("{x:.1}"),
        _ => format!("{x:.2}"),
    }
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
    fn as_many_columns_as_fit_are_shown_and_one_at_least() {
        let made = |n: usize| "x".repeat(10 * n);
        for (shown, expected) in [
            (Columns::All, 5),
            (Columns::Within(50), 5),
            (Columns::Within(49), 4),
            (Columns::Within(10), 1),
            (Columns::Within(3), 1),
        ] {
            assert_eq!(widest(5, shown, made), (made(expected), expected), "{shown:?}");
        }
    }

    #[test]
    fn numbers_have_three_digits_or_all_before_the_point() {
        for (x, expected) in [(1234.5, "1234"), (29.97, "30.0"), (2.345, "2.35"), (0.0, "0"), (-3.2, "-3.20")]
        {
            assert_eq!(number(x), expected);
        }
    }
}
