//! Every indicator of a run as a series on the collector's clock.

use std::path::Path;

use recording::facts::{Marker, RunFacts};
use recording::reader::{read_table, tables};
use recording::spec::Panel;
use serde::Serialize;

use crate::StoreError;

/// One indicator over time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    /// Table (`frames`).
    pub table: String,
    /// Column (`encode_ns`).
    pub column: String,
    /// Unit of the values.
    pub unit: String,
    /// Nanoseconds since [`Timeline::start_ns`], rising.
    pub t_ns: Vec<i64>,
    /// As many values.
    pub values: Vec<f64>,
}

impl Series {
    /// At most `width` pairs of the smallest and the largest value in equal slices of `from..to` (nanoseconds since the
    /// start), as `(t_ns, value)` in order of time; everything when that is not more. So a spike is never lost.
    pub fn decimate(&self, from: i64, to: i64, width: usize) -> Vec<(i64, f64)> {
        let (start, end) = (self.t_ns.partition_point(|t| *t < from), self.t_ns.partition_point(|t| *t < to));
        let points = || self.t_ns[start..end].iter().copied().zip(self.values[start..end].iter().copied());
        if end - start <= 2 * width || width == 0 || to <= from {
            return points().collect();
        }
        let slice = |t: i64| (i128::from(t - from) * width as i128 / i128::from(to - from)) as usize;
        let mut out: Vec<(i64, f64)> = Vec::with_capacity(2 * width);
        let mut all = points().peekable();
        while let Some(first) = all.next() {
            let (mut low, mut high) = (first, first);
            while let Some(next) = all.next_if(|p| slice(p.0) == slice(first.0)) {
                if next.1 < low.1 {
                    low = next;
                }
                if next.1 > high.1 {
                    high = next;
                }
            }
            out.extend(match low.0.cmp(&high.0) {
                std::cmp::Ordering::Less => vec![low, high],
                std::cmp::Ordering::Greater => vec![high, low],
                std::cmp::Ordering::Equal => vec![low],
            });
        }
        out
    }
}

/// One panel's part of a timeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PanelTimeline {
    /// The panel.
    pub panel: Panel,
    /// Half-width of the uncertainty of its clock, in nanoseconds; `None` when it is not known how its clock lies.
    pub uncertainty_ns: Option<i64>,
    /// Its indicators.
    pub series: Vec<Series>,
}

/// A run over time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timeline {
    /// Origin on the collector's clock: start of the run.
    pub start_ns: i64,
    /// Last instant of any series, since the start.
    pub end_ns: i64,
    /// The recorded window, since the start.
    pub window_ns: Option<[i64; 2]>,
    /// In order of time; instants since the start.
    pub markers: Vec<Marker>,
    /// Guest, host, client; those that recorded something.
    pub panels: Vec<PanelTimeline>,
}

pub(crate) fn timeline(run_dir: &Path, facts: &RunFacts) -> Result<Timeline, StoreError> {
    let start_ns = facts.started_ns;
    let mut timeline = Timeline {
        start_ns,
        end_ns: facts.window_ns.map_or(0, |w| w[1] - start_ns),
        window_ns: facts.window_ns.map(|w| w.map(|t| t - start_ns)),
        markers: facts.markers.iter().map(|m| Marker { t_ns: m.t_ns - start_ns, ..m.clone() }).collect(),
        panels: Vec::new(),
    };
    let names = tables(run_dir)?;
    let clocks = recording::export::clocks(run_dir, facts);
    for panel in Panel::ALL {
        let clock = clocks.get(&panel);
        let mut series = Vec::new();
        for name in
            names.iter().filter(|n| n.split_once('.').is_some_and(|(p, t)| p == panel.name() && t != "clock"))
        {
            let table = read_table(run_dir, name)?;
            let Ok(own) = table.i64("t_ns") else { continue };
            let mut order: Vec<(i64, usize)> = own
                .iter()
                .map(|t| clock.map_or(*t, |c| c.to_collector(*t)) - start_ns)
                .enumerate()
                .map(|(i, t)| (t, i))
                .collect();
            order.sort_unstable();
            timeline.end_ns = timeline.end_ns.max(order.last().map_or(0, |(t, _)| *t));
            for ((column, unit), cells) in table.names.iter().zip(&table.units).zip(&table.columns).skip(1) {
                let numbers = cells.numbers();
                series.push(Series {
                    table: name.split_once('.').map_or("", |(_, t)| t).to_owned(),
                    column: column.clone(),
                    unit: unit.clone(),
                    t_ns: order.iter().map(|(t, _)| *t).collect(),
                    values: order.iter().map(|(_, i)| numbers[*i]).collect(),
                });
            }
        }
        if !series.is_empty() {
            timeline.panels.push(PanelTimeline {
                panel,
                uncertainty_ns: clock.map(|c| c.uncertainty_ns),
                series,
            });
        }
    }
    Ok(timeline)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: Vec<f64>) -> Series {
        let t_ns = (0..values.len() as i64).collect();
        Series { table: "t".into(), column: "c".into(), unit: String::new(), t_ns, values }
    }

    #[test]
    fn decimation_keeps_every_spike_and_the_order() {
        let mut values = vec![1.0; 10_000];
        (values[1234], values[7000]) = (99.0, -5.0);
        let points = series(values).decimate(0, 10_000, 100);
        assert!(points.len() <= 200 && points.is_sorted_by_key(|p| p.0));
        assert!(points.contains(&(1234, 99.0)) && points.contains(&(7000, -5.0)));
    }

    #[test]
    fn few_points_stay_as_they_are() {
        assert_eq!(series(vec![3.0, 4.0, 5.0]).decimate(1, 3, 100), [(1, 4.0), (2, 5.0)]);
        assert_eq!(series(vec![]).decimate(0, 10, 10), []);
    }
}
