//! Gives clocks to panels that have none, from the frames that they and their neighbours saw.

use std::path::Path;

use recording::facts::{ClockBasis, ClockFacts, RunFacts};
use recording::reader::{Columns, ReadError, read_table};
use recording::spec::{Join, Panel};
use stats::align::line_below;

use crate::StoreError;
use crate::joined;

/// A panel that was aligned.
#[derive(Clone, Debug, PartialEq)]
pub struct Aligned {
    /// Which.
    pub panel: Panel,
    /// The panel that it was aligned with; itself for the one whose clock became the record's.
    pub with: Panel,
    /// Frames used.
    pub frames: usize,
    /// Frames left out: they arrived before they could have, so they were taken for others.
    pub left_out: usize,
}

/// Finds the clocks of panels without one from frames that they share with a neighbour of the join, and writes them to
/// `facts` with [`ClockBasis::Frames`]. Where no panel of the join has a clock, that of the first becomes the record's.
/// Panels that share no frames stay without. What one-way latencies mean then is added to the assumptions of an
/// imported run.
///
/// # Errors
/// A table of the join cannot be read.
pub fn align_by_frames(
    run_dir: &Path,
    facts: &mut RunFacts,
    join: &Join,
) -> Result<Vec<Aligned>, StoreError> {
    let mut done = Vec::new();
    let rows = joined::join(run_dir, facts, join)?.rows;
    let tables: Vec<_> = join
        .parts
        .iter()
        .map(|(panel, table)| match read_table(run_dir, &format!("{panel}.{table}")) {
            Err(ReadError::NoTable { .. }) => Ok(Columns::default()),
            other => other,
        })
        .collect::<Result<_, _>>()?;
    let known =
        |facts: &RunFacts, panel: Panel| facts.panels.get(panel.name()).is_some_and(|p| p.clock.is_some());
    if !join.parts.iter().any(|(panel, _)| known(facts, *panel))
        && let Some((panel, _)) = join.parts.first()
    {
        let clock = ClockFacts { basis: ClockBasis::Frames, ..ClockFacts::default() };
        facts.panels.entry(panel.name().into()).or_default().clock = Some(clock);
        done.push(Aligned { panel: *panel, with: *panel, frames: 0, left_out: 0 });
    }
    // From those that are known to their neighbours, until nothing new is found.
    let pairs: Vec<(usize, usize)> = (1..join.parts.len()).flat_map(|i| [(i - 1, i), (i, i - 1)]).collect();
    while let Some(aligned) = pairs.iter().find_map(|(from, to)| {
        let (with, panel) = (join.parts[*from].0, join.parts[*to].0);
        if !known(facts, with) || known(facts, panel) {
            return None;
        }
        one(facts, join, &tables, &rows, (*from, *to))
    }) {
        done.push(aligned);
    }
    if let Some(import) = facts.import.as_mut().filter(|_| !done.is_empty()) {
        import.assumptions.push(
            "clocks were aligned from the frames: the quickest frame took no time from one panel to the next, so that \
             latencies between panels are relative to it"
                .into(),
        );
    }
    Ok(done)
}

/// Aligns part `to` with its neighbour `from`, whose clock is known.
fn one(
    facts: &mut RunFacts,
    join: &Join,
    tables: &[Columns],
    rows: &[Vec<Option<usize>>],
    (from, to): (usize, usize),
) -> Option<Aligned> {
    let (with, panel) = (join.parts[from].0, join.parts[to].0);
    let (up, down) = (from.min(to), from.max(to));
    let (leaves, arrives) =
        instants(join, join.parts[up].0, join.parts[down].0, [&tables[up], &tables[down]]);
    let columns = if from == up { [&leaves, &arrives] } else { [&arrives, &leaves] };
    let (ours, theirs) = (tables[from].i64(columns[0]).ok()?, tables[to].i64(columns[1]).ok()?);
    let clock = facts.panels.get(with.name())?.clock.clone()?;
    // Down the stream, the known clock is that of the sender: sender - receiver is the offset minus the delay.
    let sign = if from == up { -1 } else { 1 };
    let point = |row: &Vec<Option<usize>>| {
        let (a, b) = (*ours.get((*row.get(from)?)?)?, *theirs.get((*row.get(to)?)?)?);
        (a != 0 && b != 0).then(|| (b, clock.to_collector(a).wrapping_sub(b).wrapping_mul(sign)))
    };
    let points: Vec<_> = rows.iter().filter_map(point).collect();
    let line = line_below(&points)?;
    let found = ClockFacts {
        basis: ClockBasis::Frames,
        offset_ns: line.offset.wrapping_mul(sign),
        drift_ppm: line.drift * sign as f64 * 1e6,
        reference_ns: line.reference,
        uncertainty_ns: line.uncertainty.saturating_add(clock.uncertainty_ns),
        ..ClockFacts::default()
    };
    facts.panels.entry(panel.name().into()).or_default().clock = Some(found);
    Some(Aligned { panel, with, frames: line.points, left_out: line.left_out })
}

/// The columns of the instants at which a frame leaves one panel and arrives at the next: those of the join's span
/// between the two, where both tables have them; else those of the rows.
fn instants(join: &Join, up: Panel, down: Panel, tables: [&Columns; 2]) -> (String, String) {
    let has = |table: &Columns, column: &str| table.i64(column).is_ok();
    let span = join
        .spans
        .iter()
        .find(|s| (s.from.0, s.to.0) == (up, down) && has(tables[0], &s.from.1) && has(tables[1], &s.to.1));
    span.map_or(("t_ns".into(), "t_ns".into()), |s| (s.from.1.clone(), s.to.1.clone()))
}
