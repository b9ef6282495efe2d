//! Every indicator of a run as the page draws it: counters as rates, durations across panels beside those within one.

use recording::facts::{Marker, Quality, RunFacts};
use recording::spec::Panel;
use serde::Serialize;
use store::{Series, StoreError, Study};

/// Counters since the start of a program or machine, which are shown as rates: (column, factor, unit of the rate).
const COUNTERS: [(&str, f64, &str); 11] = [
    ("cpu_user_ns", 1e-7, "%"),
    ("cpu_system_ns", 1e-7, "%"),
    ("cpu_iowait_ns", 1e-7, "%"),
    ("cpu_steal_ns", 1e-7, "%"),
    ("cpu_idle_ns", 1e-7, "%"),
    ("psi_cpu_some_us", 1e-4, "%"),
    ("voluntary_switches", 1.0, "1/s"),
    ("involuntary_switches", 1.0, "1/s"),
    ("context_switches", 1.0, "1/s"),
    ("from_guest_bytes", 1.0, "B/s"),
    ("to_client_bytes", 1.0, "B/s"),
];

/// Instants and numbers that only name a row: over time they are a slope that says nothing.
const NAMES_OF_ROWS: [&str; 13] = [
    "seq",
    "frame",
    "mm_time_ms",
    "captured_ns",
    "send_start_ns",
    "sent_ns",
    "first_byte_ns",
    "received_ns",
    "pushed_ns",
    "socket_ns",
    "decode_start_ns",
    "decoded_ns",
    "presented_ns",
];

/// One indicator of one panel.
#[derive(Debug)]
struct Indicator {
    panel: Panel,
    label: String,
    group: String,
    description: String,
    /// Of the value (not of the instant), for durations between panels.
    uncertainty_ns: Option<i64>,
    /// Clocks were found from frames: relative to the quickest frame.
    relative: bool,
    series: Series,
}

/// What a run recorded.
#[derive(Debug)]
pub(crate) struct Indicators {
    facts: RunFacts,
    end_ns: i64,
    window_ns: Option<[i64; 2]>,
    quality: Option<Quality>,
    markers: Vec<Marker>,
    clocks: Vec<(Panel, Option<i64>)>,
    all: Vec<Indicator>,
}

/// What is asked of a timeline.
#[derive(Debug)]
pub(crate) struct Cut<'a> {
    /// Nanoseconds since the start of the run.
    pub(crate) from: Option<i64>,
    /// Nanoseconds since the start of the run.
    pub(crate) to: Option<i64>,
    /// Pixels; at most twice as many samples are given of each series.
    pub(crate) width: usize,
    /// Ids (`guest.frames.encode_ns`) whose samples are wanted; `None`: all.
    pub(crate) wanted: Option<Vec<&'a str>>,
}

/// A timeline as the page gets it.
#[derive(Debug, Serialize)]
pub(crate) struct TimelineJson<'a> {
    run: &'a str,
    status: recording::facts::RunStatus,
    end_ns: i64,
    window_ns: Option<[i64; 2]>,
    /// What disturbed it, with spans in nanoseconds since the start of the run; null where nobody looked.
    quality: Option<&'a Quality>,
    /// Why it is flagged; empty when it is not.
    flags: Vec<String>,
    markers: &'a [Marker],
    panels: Vec<PanelJson<'a>>,
}

#[derive(Debug, Serialize)]
struct PanelJson<'a> {
    panel: Panel,
    uncertainty_ns: Option<i64>,
    /// Its clock was found from frames: instants are as if the quickest frame had taken no time.
    relative: bool,
    series: Vec<SeriesJson<'a>>,
}

#[derive(Debug, Serialize)]
struct SeriesJson<'a> {
    id: String,
    group: &'a str,
    label: &'a str,
    description: &'a str,
    unit: &'a str,
    uncertainty_ns: Option<i64>,
    relative: bool,
    /// Samples in the whole run.
    samples: usize,
    /// Nanoseconds since the start of the run; absent when they were not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    t: Option<Vec<i64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    v: Option<Vec<f64>>,
}

impl Indicator {
    fn id(&self) -> String {
        format!("{}.{}.{}", self.panel, self.series.table, self.series.column)
    }
}

impl Indicators {
    pub(crate) fn read(study: &Study, run: &str) -> Result<Self, StoreError> {
        let (_, facts) = study.run(run)?;
        let timeline = study.timeline(run)?;
        let mut all = spans(study, run, timeline.start_ns)?;
        let mut clocks = Vec::new();
        for part in timeline.panels {
            clocks.push((part.panel, part.uncertainty_ns));
            let shown = part.series.into_iter().filter(|s| !NAMES_OF_ROWS.contains(&s.column.as_str()));
            all.extend(shown.map(|series| of_column(part.panel, series)));
        }
        let mut quality = facts.quality.clone();
        for disturbance in quality.iter_mut().flat_map(|q| &mut q.disturbances) {
            disturbance.spans_ns.iter_mut().flatten().for_each(|t| *t = t.saturating_sub(timeline.start_ns));
        }
        Ok(Self {
            facts,
            quality,
            end_ns: timeline.end_ns.clamp(1, i64::MAX / 2),
            window_ns: timeline.window_ns,
            markers: timeline.markers,
            clocks,
            all,
        })
    }

    /// The part of it that was asked for.
    pub(crate) fn cut(&self, cut: &Cut<'_>) -> TimelineJson<'_> {
        // What a request asks for is anyone's guess; what is computed with lies in the run.
        let within = |t: i64| t.clamp(0, self.end_ns + 1);
        let from = within(cut.from.unwrap_or(0));
        let to = within(cut.to.unwrap_or(i64::MAX)).max(from);
        let series = |indicator: &'_ Indicator| {
            let id = indicator.id();
            let wanted = cut.wanted.as_ref().is_none_or(|w| w.contains(&id.as_str()));
            wanted.then(|| with_neighbours(&indicator.series, from, to, cut.width))
        };
        let panels = self.clocks.iter().map(|(panel, uncertainty_ns)| {
            let of_panel = self.all.iter().filter(|i| i.panel == *panel);
            let series = of_panel.map(|i| {
                let (t, v) = series(i).unzip();
                SeriesJson {
                    id: i.id(),
                    group: &i.group,
                    label: &i.label,
                    description: &i.description,
                    unit: &i.series.unit,
                    uncertainty_ns: i.uncertainty_ns,
                    relative: i.relative,
                    samples: i.series.t_ns.len(),
                    t,
                    v,
                }
            });
            let relative = store::is_relative(&self.facts, *panel);
            PanelJson { panel: *panel, uncertainty_ns: *uncertainty_ns, relative, series: series.collect() }
        });
        TimelineJson {
            run: &self.facts.id,
            status: self.facts.status,
            end_ns: self.end_ns,
            window_ns: self.window_ns,
            quality: self.quality.as_ref(),
            flags: self.facts.quality.as_ref().map(store::reasons).unwrap_or_default(),
            markers: &self.markers,
            panels: panels.collect(),
        }
    }
}

/// The samples in a range, and the one on either side, so that lines run off the edge instead of ending before it.
fn with_neighbours(series: &Series, from: i64, to: i64, width: usize) -> (Vec<i64>, Vec<f64>) {
    let before = series.t_ns.partition_point(|t| *t < from).checked_sub(1);
    let after = series.t_ns.partition_point(|t| *t < to);
    let edge = |i: Option<usize>| i.and_then(|i| Some((*series.t_ns.get(i)?, *series.values.get(i)?)));
    edge(before).into_iter().chain(series.decimate(from, to, width)).chain(edge(Some(after))).unzip()
}

/// `cpu_user_ns` → `cpu user`: the unit is on the axis.
fn label(column: &str) -> String {
    let bare =
        ["_ns", "_us", "_ms", "_bytes", "_percent"].iter().find_map(|suffix| column.strip_suffix(suffix));
    bare.unwrap_or(column).replace('_', " ")
}

fn of_column(panel: Panel, series: Series) -> Indicator {
    let counter = COUNTERS.iter().find(|(column, ..)| *column == series.column);
    let description = match counter {
        Some(_) => format!("Change of {}.{}.{} between samples", panel, series.table, series.column),
        None => format!("{}.{}.{}", panel, series.table, series.column),
    };
    let series = match counter {
        Some((_, factor, unit)) => rate(&series, *factor, unit),
        None => series,
    };
    Indicator {
        panel,
        label: label(&series.column),
        group: series.table.clone(),
        description,
        uncertainty_ns: None,
        relative: false,
        series,
    }
}

/// Change by second between neighbours. A counter that starts again (its program was started again) gives no sample.
fn rate(series: &Series, factor: f64, unit: &str) -> Series {
    let pairs = series.t_ns.windows(2).zip(series.values.windows(2));
    let changes = pairs.filter(|(t, v)| t[1] > t[0] && v[1] >= v[0]);
    let (t_ns, values) =
        changes.map(|(t, v)| (t[1], (v[1] - v[0]) / ((t[1] - t[0]) as f64 * 1e-9) * factor)).unzip();
    Series { table: series.table.clone(), column: series.column.clone(), unit: unit.into(), t_ns, values }
}

/// Durations of joined frames, each on the panel where it ends, at the instant at which its frame began.
fn spans(study: &Study, run: &str, start_ns: i64) -> Result<Vec<Indicator>, StoreError> {
    let Some(join) = study.plan.subject.joins.first() else { return Ok(Vec::new()) };
    let joined = study.joined(run)?;
    let indicators = joined.spans.iter().filter_map(|span| {
        let declared = join.spans.iter().find(|s| s.name == span.name)?;
        let known = joined.t_ns.iter().zip(&span.ns).filter_map(|(t, v)| Some((t - start_ns, (*v)? as f64)));
        let (t_ns, values) = known.unzip();
        let across = declared.from.0 != declared.to.0;
        Some(Indicator {
            panel: declared.to.0,
            label: label(&span.name),
            group: "across panels".into(),
            description: span.description.clone(),
            uncertainty_ns: across.then_some(span.uncertainty_ns),
            relative: span.relative,
            series: Series {
                table: "joined".into(),
                column: span.name.clone(),
                unit: "ns".into(),
                t_ns,
                values,
            },
        })
    });
    Ok(indicators.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(t_ns: Vec<i64>, values: Vec<f64>) -> Series {
        Series { table: "process".into(), column: "cpu_user_ns".into(), unit: "ns".into(), t_ns, values }
    }

    #[test]
    fn a_counter_becomes_a_rate_and_its_restart_a_gap() {
        let s = series(vec![0, 1_000_000_000, 2_000_000_000, 3_000_000_000], vec![5e8, 1e9, 0.0, 25e7]);
        let rate = of_column(Panel::Guest, s);
        assert_eq!((rate.series.unit.as_str(), rate.label.as_str()), ("%", "cpu user"));
        assert_eq!(
            (rate.series.t_ns, rate.series.values),
            (vec![1_000_000_000, 3_000_000_000], vec![50.0, 25.0])
        );
    }

    #[test]
    fn a_cut_has_the_sample_on_either_side_of_it() {
        let s = series((0..10).collect(), (0..10).map(f64::from).collect());
        assert_eq!(with_neighbours(&s, 4, 6, 100).0, [3, 4, 5, 6]);
        assert_eq!(with_neighbours(&s, 0, 100, 100).0.len(), 10);
        assert_eq!(with_neighbours(&s, 4, 4, 0).0, [3, 4]);
    }
}
