//! A run as a trace: panels are processes, numbers are counters, rows with several instants are slices with their
//! stages inside, markers are instants. Everything is on the collector's clock.
//!
//! Memory holds a batch, and of joined frames eight bytes for each row of a panel and each instant that a span names.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Schema};

use super::aligned::{instant, is_instant, panel_of, text};
use super::packets::{Packets, Track, Value, What};
use super::slices::Lanes;
use crate::batches::{Batches, file_of};
use crate::facts::{ClockFacts, RunFacts};
use crate::files::T_NS;
use crate::spec::{Join, Panel, Span, SubjectSpec};

type Notes = Vec<(String, String)>;

/// A column that becomes a counter.
struct Counter {
    column: usize,
    track: Track,
}

/// The table whose rows come.
struct Current {
    name: String,
    counters: Vec<Counter>,
    /// Columns of instants by position, with the name of what is reached then.
    instants: Vec<(usize, String)>,
    slices: Option<Lanes>,
    /// Number of the next row.
    row: u64,
}

/// A trace of one run being written.
pub(super) struct Trace<'a> {
    packets: Packets,
    facts: &'a RunFacts,
    clocks: &'a BTreeMap<Panel, ClockFacts>,
    run: Track,
    panels: BTreeMap<Panel, Track>,
    joined: Option<Track>,
    /// By table, then row: number of the frame from 1; 0: of none.
    flows: BTreeMap<String, Vec<u64>>,
    current: Option<Current>,
    last_ns: u64,
    dropped: BTreeMap<String, u64>,
}

impl<'a> Trace<'a> {
    /// Begins the trace with a process for the run and one for each panel.
    pub(super) fn create(
        path: &Path,
        folder: &str,
        facts: &'a RunFacts,
        clocks: &'a BTreeMap<Panel, ClockFacts>,
    ) -> io::Result<Self> {
        let mut packets = Packets::create(path)?;
        let run = packets.process(&format!("run {folder}"), &[])?;
        let mut panels = BTreeMap::new();
        for panel in Panel::ALL {
            let mut labels = Vec::new();
            if let Some(facts) = facts.panels.get(panel.name()) {
                labels.push(format!("{} {}", facts.program, facts.version));
            }
            labels.push(clocks.get(&panel).map_or("clock not aligned".into(), |c| {
                format!("clock ±{:.1} µs", c.worst_uncertainty_ns() as f64 / 1e3)
            }));
            panels.insert(panel, packets.process(panel.name(), &labels)?);
        }
        let mut trace = Self {
            packets,
            facts,
            clocks,
            run,
            panels,
            joined: None,
            flows: BTreeMap::new(),
            current: None,
            last_ns: 0,
            dropped: BTreeMap::new(),
        };
        trace.markers()?;
        Ok(trace)
    }

    fn drop_one(&mut self, what: &str) {
        *self.dropped.entry(what.to_owned()).or_default() += 1;
    }

    /// An instant that a trace can hold.
    fn stamp(&mut self, t_ns: i64) -> Option<u64> {
        let t = u64::try_from(t_ns).ok();
        match t {
            Some(t) => self.last_ns = self.last_ns.max(t),
            None => self.drop_one("instants before the clock's start"),
        }
        t
    }

    fn markers(&mut self) -> io::Result<()> {
        let mut tracks: BTreeMap<Option<Panel>, Track> = BTreeMap::new();
        for marker in &self.facts.markers {
            let Some(t) = self.stamp(marker.t_ns) else { continue };
            let track = match tracks.get(&marker.panel) {
                Some(track) => *track,
                None => {
                    let parent = marker.panel.and_then(|p| self.panels.get(&p)).copied().unwrap_or(self.run);
                    let track = self.packets.track(parent, "markers", "What happened at an instant")?;
                    tracks.insert(marker.panel, track);
                    track
                }
            };
            let name = format!("{}: {}", marker.kind, marker.text);
            let notes = [("kind".to_owned(), marker.kind.clone()), ("text".into(), marker.text.clone())];
            self.packets.event(track, t, &What::Instant(&name, &notes))?;
        }
        Ok(())
    }

    /// Reads which rows tell of the same frame, so that their slices are tied together, and draws the spans of the join.
    pub(super) fn follow_frames(&mut self, run_dir: &Path, subject: Option<&SubjectSpec>) -> io::Result<()> {
        for name in super::derived(run_dir) {
            let Ok(batches) = Batches::of_table(run_dir, &name) else { continue };
            let join_name = name.rsplit_once(".v").map_or(name.as_str(), |(n, _)| n);
            let join = subject.and_then(|s| s.joins.iter().find(|j| j.name == join_name));
            let table_of = |panel: Panel| {
                let part = join.and_then(|j| j.parts.iter().find(|(p, _)| *p == panel));
                format!("{panel}.{}", part.map_or(join_name, |(_, table)| table))
            };
            let rows = panel_rows(batches);
            for (panel, rows) in &rows {
                let flows = self.flows.entry(table_of(*panel)).or_default();
                for (frame, row) in rows.iter().enumerate() {
                    let Some(row) = row.and_then(|r| usize::try_from(r).ok()) else { continue };
                    // A row that no file can have is not believed.
                    if row > rows.len().saturating_mul(1_000).max(1 << 20) {
                        continue;
                    }
                    if flows.len() <= row {
                        flows.resize(row + 1, 0);
                    }
                    flows[row] = frame as u64 + 1;
                }
            }
            if let Some(join) = join {
                self.spans(run_dir, join, &rows)?;
            }
        }
        Ok(())
    }

    fn joined_process(&mut self) -> io::Result<Track> {
        if let Some(track) = self.joined {
            return Ok(track);
        }
        let track = self.packets.process("across panels", &[])?;
        self.joined = Some(track);
        Ok(track)
    }

    fn spans(
        &mut self,
        run_dir: &Path,
        join: &Join,
        rows: &BTreeMap<Panel, Vec<Option<i64>>>,
    ) -> io::Result<()> {
        let process = self.joined_process()?;
        let frames = rows.values().map(Vec::len).max().unwrap_or(0);
        let mut columns: BTreeMap<(Panel, String), Vec<Option<i64>>> = BTreeMap::new();
        for end in join.spans.iter().flat_map(|s| [&s.from, &s.to]) {
            if !columns.contains_key(end) {
                let part = join.parts.iter().find(|(p, _)| *p == end.0);
                let table = part.map_or_else(|| join.name.clone(), |(_, t)| t.clone());
                let instants =
                    instants(run_dir, &format!("{}.{table}", end.0), &end.1, self.clocks.get(&end.0));
                columns.insert(end.clone(), instants);
            }
        }
        let at = |end: &(Panel, String), frame: usize| -> Option<i64> {
            let row = usize::try_from((*rows.get(&end.0)?.get(frame)?)?).ok()?;
            *columns.get(end)?.get(row)?
        };
        for span in &join.spans {
            let name = span.name.trim_end_matches("_ns");
            let mut lanes = Lanes::new(process, name, &span.description);
            let uncertainty = self.uncertainty(span);
            for frame in 0..frames {
                let (Some(from), Some(to)) = (at(&span.from, frame), at(&span.to, frame)) else { continue };
                if to < from {
                    self.drop_one(&format!("{name} of less than nothing, by the clocks' uncertainty"));
                    continue;
                }
                let (Some(start), Some(end)) = (self.stamp(from), self.stamp(to)) else { continue };
                let notes = [
                    ("duration_ns".to_owned(), (to - from).to_string()),
                    ("uncertainty_ns".to_owned(), uncertainty.clone()),
                ];
                if let Some(track) = lanes.place(&mut self.packets, start, end)? {
                    let title = format!("frame {}", frame + 1);
                    self.packets.event(track, start, &What::Begin(&title, &notes, Some(frame as u64 + 1)))?;
                    self.packets.event(track, end, &What::End)?;
                }
            }
            self.count_dropped(&lanes, name);
        }
        Ok(())
    }

    fn uncertainty(&self, span: &Span) -> String {
        if span.from.0 == span.to.0 {
            return "0".into();
        }
        let of = |panel: Panel| self.clocks.get(&panel).map(ClockFacts::worst_uncertainty_ns);
        match (of(span.from.0), of(span.to.0)) {
            (Some(a), Some(b)) => a.saturating_add(b).to_string(),
            _ => "not known: a clock is not aligned".into(),
        }
    }

    fn count_dropped(&mut self, lanes: &Lanes, name: &str) {
        if lanes.dropped > 0 {
            *self.dropped.entry(format!("slices of {name}: too many at once")).or_default() += lanes.dropped;
        }
    }

    /// The next rows are of this table.
    pub(super) fn begin_table(&mut self, name: &str, schema: &Schema) -> io::Result<()> {
        self.end_table();
        let (parent, short) = match panel_of(name) {
            Some(panel) => {
                let parent = self.panels.get(&panel).copied().unwrap_or(self.run);
                (parent, name.split_once('.').map_or(name, |(_, t)| t))
            }
            None => (self.joined_process()?, name.rsplit_once(".v").map_or(name, |(n, _)| n)),
        };
        let (mut counters, mut instants) = (Vec::new(), Vec::new());
        for (column, field) in schema.fields().iter().enumerate() {
            if is_instant(field) || !text(field, "clock").is_empty() {
                instants.push((column, field.name().trim_end_matches("_ns").to_owned()));
            } else if !(panel_of(name).is_none() && field.name().ends_with("_row")) {
                let title = format!("{short}.{}", field.name());
                let (unit, about) = (text(field, "unit"), text(field, "description"));
                let track = self.packets.counter(parent, &title, unit, about)?;
                counters.push(Counter { column, track });
            }
        }
        let about = schema.metadata().get("description").map_or("", String::as_str);
        let slices = (instants.len() > 1).then(|| Lanes::new(parent, short, about));
        self.current = Some(Current { name: name.to_owned(), counters, instants, slices, row: 0 });
        Ok(())
    }

    fn end_table(&mut self) {
        if let Some(Current { name, slices: Some(lanes), .. }) = self.current.take() {
            self.count_dropped(&lanes, &name);
        }
    }

    /// Rows of the table that was begun, on the collector's clock.
    pub(super) fn rows(&mut self, batch: &RecordBatch) -> io::Result<()> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let done = self.counters(&current, batch).and_then(|()| self.slices(&mut current, batch));
        self.current = Some(current);
        done
    }

    fn counters(&mut self, current: &Current, batch: &RecordBatch) -> io::Result<()> {
        for row in 0..batch.num_rows() {
            let Some(t) = instant(batch.column(0), row, true).and_then(|t| self.stamp(t)) else { continue };
            for counter in &current.counters {
                if let Some(value) = value(batch.column(counter.column), row) {
                    self.packets.event(counter.track, t, &What::Counter(value))?;
                }
            }
        }
        Ok(())
    }

    fn slices(&mut self, current: &mut Current, batch: &RecordBatch) -> io::Result<()> {
        let first = current.row;
        current.row += batch.num_rows() as u64;
        let Some(lanes) = &mut current.slices else { return Ok(()) };
        let short = current.name.split_once('.').map_or("", |(_, t)| t);
        let mut reached: Vec<(u64, &str)> = Vec::new();
        for row in 0..batch.num_rows() {
            reached.clear();
            for (column, name) in &current.instants {
                let t = instant(batch.column(*column), row, *column == 0).and_then(|t| self.stamp(t));
                reached.extend(t.map(|t| (t, name.as_str())));
            }
            reached.sort_by_key(|(t, _)| *t);
            let (Some(start), Some(end)) = (reached.first(), reached.last()) else { continue };
            if start.0 == end.0 {
                continue;
            }
            let number = first + row as u64;
            let flow = self.flows.get(&current.name).and_then(|f| f.get(number as usize)).copied();
            let Some(track) = lanes.place(&mut self.packets, start.0, end.0)? else { continue };
            let title = format!("{short} {number}");
            self.packets.event(track, start.0, &What::Begin(&title, &[], flow.filter(|f| *f > 0)))?;
            for stage in reached.windows(2).filter(|s| s[0].0 < s[1].0) {
                let title = format!("{} → {}", stage[0].1, stage[1].1);
                self.packets.event(track, stage[0].0, &What::Begin(&title, &[], None))?;
                self.packets.event(track, stage[1].0, &What::End)?;
            }
            self.packets.event(track, end.0, &What::End)?;
        }
        Ok(())
    }

    /// Writes the facts and puts the trace on the disk. Gives packets and bytes, and what could not be drawn.
    pub(super) fn finish(mut self) -> io::Result<((u64, u64), Notes)> {
        self.end_table();
        let notes = notes(self.facts, self.clocks);
        if let Some(start) = self.stamp(self.facts.started_ns) {
            let track = self.packets.track(self.run, "run", "The run and its recorded window")?;
            let window = self.facts.window_ns.and_then(|w| Some((self.stamp(w[0])?, self.stamp(w[1])?)));
            let name = format!("{:?}", self.facts.status).to_lowercase();
            self.packets.event(track, start, &What::Begin(&name, &notes, None))?;
            if let Some((from, to)) = window.filter(|(from, to)| start <= *from && from <= to) {
                self.packets.event(track, from, &What::Begin("recorded window", &[], None))?;
                self.packets.event(track, to, &What::End)?;
            }
            self.packets.event(track, self.last_ns.max(start), &What::End)?;
        }
        let dropped =
            self.dropped.into_iter().map(|(what, n)| (format!("{n} × {what}"), super::NOT_SHOWN.into()));
        Ok((self.packets.finish()?, dropped.collect()))
    }
}

/// Facts of a run as pairs.
fn notes(facts: &RunFacts, clocks: &BTreeMap<Panel, ClockFacts>) -> Notes {
    let mut notes = vec![
        ("status".to_owned(), format!("{:?}", facts.status).to_lowercase()),
        ("started".into(), facts.started.clone()),
        ("writer".into(), facts.writer.clone()),
    ];
    if !facts.reason.is_empty() {
        notes.push(("reason".into(), facts.reason.clone()));
    }
    notes.extend(facts.asked.iter().map(|(name, level)| (format!("asked.{name}"), level.to_string())));
    for (name, panel) in &facts.panels {
        notes.extend(panel.in_force.iter().map(|(k, v)| (format!("{name}.in_force.{k}"), v.to_string())));
        notes.extend(panel.lost.iter().map(|(k, v)| (format!("{name}.lost.{k}"), v.to_string())));
    }
    for (panel, clock) in clocks {
        notes.push((format!("{panel}.clock.offset_ns"), clock.offset_ns.to_string()));
        notes.push((format!("{panel}.clock.drift_ppm"), clock.drift_ppm.to_string()));
        notes.push((format!("{panel}.clock.uncertainty_ns"), clock.worst_uncertainty_ns().to_string()));
    }
    let disturbances = facts.quality.iter().flat_map(|q| &q.disturbances);
    notes.extend(disturbances.map(|d| (format!("disturbed.{}", d.kind), d.text.clone())));
    let assumptions = facts.import.iter().flat_map(|i| &i.assumptions);
    notes.extend(assumptions.map(|a| ("assumed".to_owned(), a.clone())));
    notes
}

fn value(column: &dyn Array, row: usize) -> Option<Value> {
    if column.is_null(row) {
        return None;
    }
    Some(match column.data_type() {
        DataType::Int64 => Value::I64(column.as_primitive_opt::<Int64Type>()?.value(row)),
        DataType::UInt64 => {
            let value = column.as_primitive_opt::<UInt64Type>()?.value(row);
            i64::try_from(value).map_or(Value::F64(value as f64), Value::I64)
        }
        // A gap rather than a number that is none.
        DataType::Float64 => {
            Value::F64(Some(column.as_primitive_opt::<Float64Type>()?.value(row)).filter(|v| v.is_finite())?)
        }
        DataType::Boolean => Value::I64(column.as_boolean_opt()?.value(row).into()),
        _ => return None,
    })
}

/// The `<panel>_row` columns of a derived table. What of it cannot be read is as if it were not there.
fn panel_rows(batches: Batches) -> BTreeMap<Panel, Vec<Option<i64>>> {
    let position = |panel: Panel| batches.schema().index_of(&format!("{panel}_row")).ok();
    let columns: Vec<_> = Panel::ALL.into_iter().filter_map(|p| Some((p, position(p)?))).collect();
    let mut rows: BTreeMap<Panel, Vec<Option<i64>>> = BTreeMap::new();
    for batch in batches.map_while(Result::ok) {
        for (panel, column) in &columns {
            if let Some(array) = batch.column(*column).as_primitive_opt::<Int64Type>() {
                rows.entry(*panel).or_default().extend(array.iter());
            }
        }
    }
    rows
}

/// One column of instants on the collector's clock, by row.
fn instants(run_dir: &Path, table: &str, column: &str, clock: Option<&ClockFacts>) -> Vec<Option<i64>> {
    let Some(path) = file_of(run_dir, table) else { return Vec::new() };
    let Ok(batches) = Batches::open_columns(&path, &|name| name == column) else { return Vec::new() };
    let is_first = column == T_NS;
    let mut instants = Vec::new();
    for batch in batches.map_while(Result::ok).filter(|b| b.num_columns() == 1) {
        instants.extend((0..batch.num_rows()).map(|row| {
            let t = instant(batch.column(0), row, is_first)?;
            Some(clock.map_or(t, |c| c.to_collector(t)))
        }));
    }
    instants
}
