//! One number for each response of a run: a statistic over the rows in the run's window.

use std::collections::BTreeMap;
use std::path::Path;

use recording::facts::{ClockFacts, RunFacts};
use recording::reader::{Column, Columns, ReadError, read_table};
use recording::spec::{Panel, Response, Statistic, SubjectSpec};
use stats::{Summary, quantile};

use crate::StoreError;
use crate::joined::Joined;

/// Rows of one column inside the window, and the nearest one on either side, which rates need.
struct Samples {
    values: Vec<f64>,
    /// On the collector's clock.
    t_ns: Vec<i64>,
    before: Option<(i64, f64)>,
    after: Option<(i64, f64)>,
    is_flag: bool,
}

impl Samples {
    /// Of rows in any order.
    fn of(rows: impl Iterator<Item = (i64, f64)>, is_flag: bool, window: [i64; 2]) -> Self {
        let mut samples = Self { values: Vec::new(), t_ns: Vec::new(), before: None, after: None, is_flag };
        for row in rows {
            if row.0 < window[0] {
                samples.before = samples.before.filter(|b| b.0 > row.0).or(Some(row));
            } else if row.0 >= window[1] {
                samples.after = samples.after.filter(|a| a.0 <= row.0).or(Some(row));
            } else {
                samples.t_ns.push(row.0);
                samples.values.push(row.1);
            }
        }
        samples
    }

    /// Rows in the window. Of the time between two rows that an end of the window cuts, the part inside counts: a whole
    /// row more or less, as the window happens to lie, would be an error of 1 % in 3 s of 30 frames a second.
    fn count(&self, window: [i64; 2]) -> f64 {
        if self.is_flag {
            return self.values.iter().sum();
        }
        let (Some(first), Some(last)) = (self.t_ns.first(), self.t_ns.last()) else {
            let around = self.before.zip(self.after).map(|(before, after)| (after.0 - before.0) as f64);
            return around.map_or(0.0, |around| (window[1] - window[0]) as f64 / around);
        };
        let part = |from: i64, to: i64, inside: i64| inside as f64 / (to - from).max(1) as f64;
        let head = self.before.map_or(0.0, |(t, _)| part(t, *first, window[0] - t));
        let tail = self.after.map_or(0.0, |(t, _)| part(*last, t, window[1] - last));
        self.values.len() as f64 - head + tail
    }

    /// Growth of a counter in one second, from one end of the window to the other where rows lie on both sides of it.
    fn rate(&self, window: [i64; 2]) -> Option<f64> {
        let inside = || self.t_ns.iter().copied().zip(self.values.iter().copied());
        let between = |a: (i64, f64), b: (i64, f64), t: i64| {
            (t, a.1 + (b.1 - a.1) * (t - a.0) as f64 / (b.0 - a.0).max(1) as f64)
        };
        let first = inside().next().or(self.after)?;
        let last = inside().next_back().or(self.before)?;
        let from = self.before.map_or(first, |before| between(before, first, window[0]));
        let to = self.after.map_or(last, |after| between(last, after, window[1]));
        let seconds = (to.0 - from.0) as f64 / 1e9;
        (seconds > 0.0).then(|| (to.1 - from.1) / seconds)
    }
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
    Some(Samples::of(aligned.zip(cells.numbers()), matches!(cells, Column::Bool(_)), window))
}

fn from_join(joined: &Joined, column: &str, window: [i64; 2]) -> Option<Samples> {
    let span = joined.spans.iter().find(|s| s.name == column)?;
    let rows = joined.t_ns.iter().zip(&span.ns).filter_map(|(t, ns)| Some((*t, (*ns)? as f64)));
    Some(Samples::of(rows, false, window))
}

fn statistic(response: &Response, mut samples: Samples, window: [i64; 2]) -> Option<f64> {
    let seconds = (window[1] - window[0]) as f64 / 1e9;
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
        Statistic::Count if samples.is_flag => Some(samples.values.iter().sum()),
        Statistic::Count => Some(samples.values.len() as f64),
        Statistic::CountPerSecond => (seconds > 0.0).then(|| samples.count(window) / seconds),
        Statistic::Rate => samples.rate(window),
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
        let rows = (0..).map(|i| i * 500_000_000).zip(values.iter().copied());
        let window = [0, 2_000_000_000];
        let found = statistic(&response, Samples::of(rows, false, window), window);
        assert_eq!(found, expected, "{wanted:?}");
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
        // The row at 2.0 s is outside: of the counter's last interval nothing is cut off, all of it is inside.
        check(Statistic::Rate, &[10.0, 20.0, 30.0, 40.0, 50.0, 999.0], Some(20.0));
    }

    #[test]
    fn a_short_window_still_has_the_rate_of_a_counter_that_is_read_once_a_second() {
        let rows = [(-300, 7.0), (700, 17.0), (1_700, 37.0)];
        let rate = |window| Samples::of(rows.into_iter(), false, window).rate(window);
        assert_eq!(rate([0, 1_000]), Some((17.0 + 20.0 * 0.3 - (7.0 + 10.0 * 0.3)) / 1e-6));
        // Between two rows there is one in none of the window, and the rate is theirs.
        let within = rate([100, 200]).unwrap();
        assert!((within - 10.0 / 1e-6).abs() < 1e-3, "{within}");
        assert_eq!(rate([2_000, 3_000]), None);
    }

    #[test]
    fn a_count_does_not_depend_on_where_the_window_lies() {
        for shift in 0..33 {
            let window = [shift * 1_000_000, shift * 1_000_000 + 3_000_000_000];
            let rows = (-10..200).map(|i| (i * 1_000_000_000 / 30, 0.0));
            let fps = Samples::of(rows, false, window).count(window) / 3.0;
            assert!((fps - 30.0).abs() < 1e-4, "{fps}");
        }
        let slow = [(-1_000, 0.0), (4_000, 0.0)];
        assert_eq!(Samples::of(slow.into_iter(), false, [0, 1_000]).count([0, 1_000]), 0.2);
        // A stream that stops in the middle of the window is not made to go on.
        let rows = (0..30).map(|i| (i * 1_000_000_000 / 30, 0.0));
        assert_eq!(Samples::of(rows, false, [0, 3_000_000_000]).count([0, 3_000_000_000]), 30.0);
    }
}
