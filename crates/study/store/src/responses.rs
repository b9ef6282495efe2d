//! One number for each response of a run: a statistic over the rows in the run's window.

use std::collections::BTreeMap;
use std::path::Path;

use recording::facts::{ClockFacts, RunFacts};
use recording::reader::{Column, Columns, ReadError, read_table};
use recording::spec::{Panel, Response, Statistic, SubjectSpec};
use stats::{Summary, quantile};

use crate::StoreError;
use crate::joined::Joined;

/// Rows of one column inside the window, and the instants that rates need.
struct Samples {
    values: Vec<f64>,
    /// On the collector's clock.
    t_ns: Vec<i64>,
    is_flag: bool,
}

/// Every response of a run. A response that cannot be made (its table is missing, no row lies in the window) is left
/// out. Without a window there are none.
pub(crate) fn responses(
    run_dir: &Path,
    facts: &RunFacts,
    spec: &SubjectSpec,
    joins: &[Joined],
) -> Result<BTreeMap<String, f64>, StoreError> {
    let Some(window) = facts.window_ns else { return Ok(BTreeMap::new()) };
    let mut tables: BTreeMap<&str, Option<Columns>> = BTreeMap::new();
    let mut results = BTreeMap::new();
    for response in &spec.responses {
        let samples = match joins.iter().find(|j| j.name == response.table) {
            Some(joined) => from_join(joined, &response.column, window),
            None => {
                let table = match tables.entry(&response.table) {
                    std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                    std::collections::btree_map::Entry::Vacant(entry) => {
                        entry.insert(read(run_dir, &response.table)?)
                    }
                };
                let clock = clock_of(facts, &response.table);
                table.as_ref().and_then(|t| from_table(t, &response.column, clock, window))
            }
        };
        if let Some(value) = samples.and_then(|s| statistic(response, s, window)) {
            results.insert(response.name.clone(), value * response.scale);
        }
    }
    Ok(results)
}

fn read(run_dir: &Path, name: &str) -> Result<Option<Columns>, StoreError> {
    match read_table(run_dir, name) {
        Ok(table) => Ok(Some(table)),
        Err(ReadError::NoTable { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn clock_of<'a>(facts: &'a RunFacts, table: &str) -> Option<&'a ClockFacts> {
    let (panel, _) = table.split_once('.')?;
    Panel::ALL.iter().find(|p| p.name() == panel)?;
    facts.panels.get(panel)?.clock.as_ref()
}

fn from_table(
    table: &Columns,
    column: &str,
    clock: Option<&ClockFacts>,
    window: [i64; 2],
) -> Option<Samples> {
    let (t_ns, cells) = (table.i64("t_ns").ok()?, table.get(column)?);
    let aligned = t_ns.iter().map(|t| clock.map_or(*t, |c| c.to_collector(*t)));
    let inside: Vec<_> = aligned.enumerate().filter(|(_, t)| (window[0]..window[1]).contains(t)).collect();
    let numbers = cells.numbers();
    Some(Samples {
        values: inside.iter().map(|(i, _)| numbers[*i]).collect(),
        t_ns: inside.iter().map(|(_, t)| *t).collect(),
        is_flag: matches!(cells, Column::Bool(_)),
    })
}

fn from_join(joined: &Joined, column: &str, window: [i64; 2]) -> Option<Samples> {
    let span = joined.spans.iter().find(|s| s.name == column)?;
    let inside = joined.t_ns.iter().zip(&span.ns).filter(|(t, _)| (window[0]..window[1]).contains(*t));
    let (t_ns, values) = inside.filter_map(|(t, ns)| Some((*t, (*ns)? as f64))).unzip();
    Some(Samples { values, t_ns, is_flag: false })
}

fn statistic(response: &Response, mut samples: Samples, window: [i64; 2]) -> Option<f64> {
    let seconds = (window[1] - window[0]) as f64 / 1e9;
    let count = |s: &Samples| {
        if s.is_flag { s.values.iter().sum() } else { s.values.len() as f64 }
    };
    let summary = |s: &Samples| Summary::of(&s.values);
    match response.statistic {
        Statistic::Mean => summary(&samples).map(|s| s.mean),
        Statistic::Min => summary(&samples).map(|s| s.min),
        Statistic::Max => summary(&samples).map(|s| s.max),
        Statistic::P50 => quantile(&mut samples.values, 0.5),
        Statistic::P95 => quantile(&mut samples.values, 0.95),
        Statistic::P99 => quantile(&mut samples.values, 0.99),
        Statistic::Sum => Some(samples.values.iter().sum()),
        Statistic::SumPerSecond => (seconds > 0.0).then(|| samples.values.iter().sum::<f64>() / seconds),
        Statistic::Count => Some(count(&samples)),
        Statistic::CountPerSecond => (seconds > 0.0).then(|| count(&samples) / seconds),
        Statistic::Rate => {
            let (first, last) = (samples.t_ns.first()?, samples.t_ns.last()?);
            let time = (last - first) as f64 / 1e9;
            (time > 0.0).then(|| (samples.values[samples.values.len() - 1] - samples.values[0]) / time)
        }
    }
}

#[cfg(test)]
mod tests {
    use recording::spec::Better;

    use super::*;

    #[track_caller]
    fn check(wanted: Statistic, values: &[f64], expected: Option<f64>) {
        let response = Response {
            name: "x".into(),
            label: "x".into(),
            table: "t".into(),
            column: "c".into(),
            statistic: wanted,
            scale: 1.0,
            unit: String::new(),
            better: Better::Neutral,
        };
        let t_ns = (0..values.len() as i64).map(|i| i * 500_000_000).collect();
        let samples = Samples { values: values.to_vec(), t_ns, is_flag: false };
        assert_eq!(statistic(&response, samples, [0, 2_000_000_000]), expected, "{wanted:?}");
    }

    #[test]
    fn statistics_are_what_their_names_say() {
        check(Statistic::Mean, &[1.0, 2.0, 6.0], Some(3.0));
        check(Statistic::P50, &[1.0, 2.0, 6.0], Some(2.0));
        check(Statistic::Sum, &[1.0, 2.0], Some(3.0));
        check(Statistic::SumPerSecond, &[1.0, 2.0], Some(1.5));
        check(Statistic::Count, &[5.0, 5.0], Some(2.0));
        check(Statistic::CountPerSecond, &[5.0, 5.0, 5.0, 5.0], Some(2.0));
        check(Statistic::Rate, &[10.0, 20.0, 40.0], Some(30.0));
        check(Statistic::Rate, &[10.0], None);
        check(Statistic::Mean, &[], None);
        check(Statistic::Count, &[], Some(0.0));
    }
}
