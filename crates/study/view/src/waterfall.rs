//! What each frame went through, stage by stage, on one clock.

use recording::facts::{ClockFacts, RunFacts};
use recording::reader::{Column, Columns, ReadError, read_table};
use recording::spec::{Join, Panel};
use serde::Serialize;
use store::{Joined, StoreError, Study};

/// A column of a panel's table; with a second one, that many nanoseconds later.
type Instant = (Panel, &'static str, Option<&'static str>);

/// Stages of a streamed frame: (name, label, whether the time is spent working or waiting, start, end). Tables that
/// have other columns are shown by the instants of their rows alone.
const FRAME: [(&str, &str, Instant, Instant); 8] = {
    use Panel::{Client, Guest, Host};
    [
        ("capture", "capture", (Guest, "t_ns", None), (Guest, "captured_ns", None)),
        ("encode", "encode", (Guest, "captured_ns", None), (Guest, "captured_ns", Some("encode_ns"))),
        // Not from sent_ns: the host may have the bytes before the guest's write has returned.
        ("send", "guest → host", (Guest, "send_start_ns", None), (Host, "received_ns", None)),
        ("host", "host", (Host, "received_ns", None), (Host, "pushed_ns", None)),
        ("to_client", "host → client", (Host, "pushed_ns", None), (Client, "received_ns", None)),
        ("queue", "queue", (Client, "received_ns", None), (Client, "decode_start_ns", None)),
        (
            "decode",
            "decode",
            (Client, "decode_start_ns", None),
            (Client, "decode_start_ns", Some("decode_ns")),
        ),
        (
            "present",
            "present",
            (Client, "decode_start_ns", Some("decode_ns")),
            (Client, "presented_ns", None),
        ),
    ]
};

/// Most frames given at once; a screen has no more columns.
const MAX_FRAMES: usize = 4_000;

/// One kind of bar.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stage {
    name: String,
    label: String,
    from: Panel,
    to: Panel,
    /// Half-width of what is not known of its length: both panels' clocks, where it goes from one to another.
    uncertainty_ns: i64,
    /// Clocks were found from frames: relative to the quickest frame.
    relative: bool,
}

/// One frame.
#[derive(Clone, Debug, Serialize)]
struct Frame {
    /// Position among the joined frames.
    index: usize,
    /// Nanoseconds since the start of the run at which it began.
    t: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    keyframe: bool,
    dropped: bool,
    /// Panels that know nothing of it.
    missing: Vec<Panel>,
    /// By stage: start and end, nanoseconds since `t`; null when one of the two is not known.
    stages: Vec<Option<[i64; 2]>>,
}

impl Frame {
    fn length(&self) -> i64 {
        self.stages.iter().flatten().map(|s| s[1]).max().unwrap_or(0)
    }
}

/// A run's frames.
#[derive(Debug)]
pub(crate) struct Waterfall {
    name: String,
    stages: Vec<Stage>,
    frames: Vec<Frame>,
    matched: usize,
    unmatched: Vec<(Panel, usize)>,
    mismatched: usize,
}

/// Frames as the page gets them.
#[derive(Debug, Serialize)]
pub(crate) struct FramesJson<'a> {
    name: &'a str,
    stages: &'a [Stage],
    /// In the whole run: frames seen by every panel, entries without partner by panel, partners of differing size.
    matched: usize,
    unmatched: &'a [(Panel, usize)],
    mismatched: usize,
    /// Frames in the interval; when there are more than columns, each column has the slowest of its frames.
    in_interval: usize,
    frames: Vec<&'a Frame>,
}

/// The tables of a join, for looking up instants.
struct Tables<'a> {
    facts: &'a RunFacts,
    join: &'a Join,
    columns: Vec<Columns>,
}

impl Tables<'_> {
    fn part(&self, panel: Panel) -> Option<usize> {
        self.join.parts.iter().position(|(p, _)| *p == panel)
    }

    fn column(&self, panel: Panel, name: &str) -> Option<&Column> {
        self.columns.get(self.part(panel)?)?.get(name)
    }

    fn clock(&self, panel: Panel) -> Option<&ClockFacts> {
        self.facts.panels.get(panel.name()).and_then(|p| p.clock.as_ref())
    }

    fn cell(&self, row: &[Option<usize>], panel: Panel, name: &str) -> Option<i64> {
        let index = (*row.get(self.part(panel)?)?)?;
        match self.column(panel, name)? {
            Column::I64(v) => v.get(index).copied(),
            Column::U64(v) => v.get(index).and_then(|v| i64::try_from(*v).ok()),
            Column::Bool(v) => v.get(index).map(|v| i64::from(*v)),
            Column::F64(_) => None,
        }
    }

    /// On the collector's clock; `None` where it never came to that (0 stands for it in tables).
    fn instant(&self, row: &[Option<usize>], (panel, name, later): Instant) -> Option<i64> {
        let start = self.cell(row, panel, name).filter(|t| *t != 0)?;
        let own = match later {
            Some(duration) => start.checked_add(self.cell(row, panel, duration)?)?,
            None => start,
        };
        Some(self.clock(panel).map_or(own, |c| c.to_collector(own)))
    }
}

impl Waterfall {
    pub(crate) fn read(study: &Study, run: &str) -> Result<Self, StoreError> {
        let (dir, facts) = study.run(run)?;
        let joined = study.joined(run)?;
        let subject = &study.plan.subject;
        let join = subject.joins.first().ok_or_else(|| StoreError::NoJoin(subject.name.clone()))?;
        let mut columns = Vec::new();
        for (panel, table) in &join.parts {
            columns.push(match read_table(&dir, &format!("{panel}.{table}")) {
                Err(ReadError::NoTable { .. }) => Columns::default(),
                other => other?,
            });
        }
        let tables = Tables { facts: &facts, join, columns };
        let stages: Vec<(Stage, Instant, Instant)> = stages(&tables, &joined);
        let frames = (0..joined.rows.len()).filter_map(|i| frame(&tables, &joined, i, &stages)).collect();
        Ok(Self {
            name: joined.name.clone(),
            stages: stages.into_iter().map(|(stage, ..)| stage).collect(),
            frames,
            matched: joined.matched,
            unmatched: joined.panels.iter().copied().zip(joined.unmatched.iter().copied()).collect(),
            mismatched: joined.mismatched,
        })
    }

    /// Frames that begin in `from..to`, at most `width`: of more, the slowest of each slice.
    pub(crate) fn cut(&self, from: i64, to: i64, width: usize) -> FramesJson<'_> {
        let width = width.clamp(1, MAX_FRAMES);
        let first = self.frames.first().map_or(0, |f| f.t);
        let last = self.frames.last().map_or(0, |f| f.t);
        let (from, to) = (from.max(first), to.min(last.saturating_add(1)));
        let (start, end) =
            (self.frames.partition_point(|f| f.t < from), self.frames.partition_point(|f| f.t < to));
        let within = self.frames.get(start..end).unwrap_or_default();
        let mut frames: Vec<&Frame> = Vec::new();
        if within.len() <= width {
            frames.extend(within);
        } else {
            let length = i128::from(to) - i128::from(from);
            let slice = |f: &Frame| (i128::from(f.t) - i128::from(from)) * width as i128 / length;
            let slices = within.chunk_by(|a, b| slice(a) == slice(b));
            frames.extend(slices.filter_map(|s| s.iter().max_by_key(|f| f.length())));
        }
        FramesJson {
            name: &self.name,
            stages: &self.stages,
            matched: self.matched,
            unmatched: &self.unmatched,
            mismatched: self.mismatched,
            in_interval: within.len(),
            frames,
        }
    }
}

/// The stages that these tables can tell.
fn stages(tables: &Tables<'_>, joined: &Joined) -> Vec<(Stage, Instant, Instant)> {
    let has = |(panel, name, later): &Instant| {
        tables.column(*panel, name).is_some() && later.is_none_or(|l| tables.column(*panel, l).is_some())
    };
    let unsure = |panel: Panel| tables.clock(panel).map_or(0, |c| c.uncertainty_ns);
    let stage = |name: &str, label: &str, from: Instant, to: Instant| {
        let uncertainty_ns = if from.0 == to.0 { 0 } else { unsure(from.0) + unsure(to.0) };
        let relative =
            from.0 != to.0 && [from.0, to.0].into_iter().any(|p| store::is_relative(tables.facts, p));
        let (name, label) = (name.into(), label.into());
        let stage = Stage { name, label, from: from.0, to: to.0, uncertainty_ns, relative };
        (stage, from, to)
    };
    let known: Vec<_> = FRAME
        .iter()
        .filter(|(.., from, to)| has(from) && has(to))
        .map(|(name, label, from, to)| stage(name, label, *from, *to))
        .collect();
    if !known.is_empty() {
        return known;
    }
    let pairs = joined.panels.windows(2);
    pairs
        .map(|p| {
            let name = format!("{} → {}", p[0], p[1]);
            stage(&name, &name, (p[0], "t_ns", None), (p[1], "t_ns", None))
        })
        .collect()
}

fn frame(
    tables: &Tables<'_>,
    joined: &Joined,
    i: usize,
    stages: &[(Stage, Instant, Instant)],
) -> Option<Frame> {
    let (row, t) = (joined.rows.get(i)?, *joined.t_ns.get(i)?);
    let between =
        |from: Instant, to: Instant| Some([tables.instant(row, from)? - t, tables.instant(row, to)? - t]);
    let flag = |name: &str| joined.panels.iter().any(|p| tables.cell(row, *p, name) == Some(1));
    let bytes = joined.panels.iter().find_map(|p| tables.cell(row, *p, &tables.join.key));
    Some(Frame {
        index: i,
        t: t - tables.facts.started_ns,
        bytes: bytes.and_then(|b| u64::try_from(b).ok()),
        keyframe: flag("keyframe"),
        dropped: flag("dropped"),
        missing: joined.panels.iter().zip(row).filter(|(_, r)| r.is_none()).map(|(p, _)| *p).collect(),
        stages: stages.iter().map(|(_, from, to)| between(*from, *to)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waterfall(lengths: &[i64]) -> Waterfall {
        let frame = |(index, length): (usize, &i64)| Frame {
            index,
            t: index as i64 * 10,
            bytes: None,
            keyframe: false,
            dropped: false,
            missing: Vec::new(),
            stages: vec![Some([0, *length])],
        };
        let frames = lengths.iter().enumerate().map(frame).collect();
        Waterfall {
            name: "f".into(),
            stages: Vec::new(),
            frames,
            matched: 0,
            unmatched: Vec::new(),
            mismatched: 0,
        }
    }

    #[test]
    fn of_more_frames_than_columns_the_slowest_are_kept() {
        let mut lengths = vec![5; 1_000];
        lengths[333] = 99;
        let all = waterfall(&lengths);
        let cut = all.cut(0, 10_000, 50);
        assert_eq!((cut.in_interval, cut.frames.len()), (1_000, 50));
        assert!(cut.frames.iter().any(|f| f.index == 333));
        assert!(cut.frames.is_sorted_by_key(|f| f.t));
        assert_eq!(all.cut(i64::MIN, i64::MAX, 50).frames.len(), 50);
    }

    #[test]
    fn few_frames_are_all_given_and_an_empty_interval_has_none() {
        let all = waterfall(&[1, 2, 3]);
        assert_eq!(all.cut(0, 100, 50).frames.len(), 3);
        assert_eq!(all.cut(10, 20, 50).frames.len(), 1);
        assert!(all.cut(50, 20, 50).frames.is_empty() && all.cut(7, 7, 0).frames.is_empty());
    }
}
