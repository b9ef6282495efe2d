//! The engine's [`EventSink`]: a collector seen by a subject.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use probe::{Table, Value};
use recording::Address;
use recording::collector::{AGENT, Collector, CollectorEvent};
use recording::facts::Marker;
use recording::spec::Panel;
use recording::wire::Ready;
use units::{Clock, MonotonicClock, Nanos};

use crate::own::{self, OwnUse};
use crate::subject::{EventSink, SubjectError};
use crate::tables::Tables;

/// How often a waiting sink looks at the programs and at the wish to stop.
const LOOK: Duration = Duration::from_millis(100);
/// A program that has not answered for so long stands still: what it would have measured meanwhile is missing.
const SILENT: Duration = Duration::from_secs(2);
/// A program that answers, answers more often than this.
const QUIET: Duration = Duration::from_millis(750);

/// Time between two samples of the machine.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);

/// Files of the machine's pressure.
const PRESSURE: &str = "host.pressure";

/// Samples the machine that runs a study, where no agent does: rows with their tables, which become those of the host.
pub trait Machine {
    /// One sample of everything.
    fn sample(&mut self, row: &mut dyn FnMut(&Table, Nanos, &[Value]));
}

/// Who hears of a run.
pub(crate) enum Link<'a> {
    /// Programs and agents report to this one.
    Collector(&'a Collector),
    /// Nobody does: what the run marks is kept here.
    Alone { nowhere: Address, markers: Vec<Marker> },
}

impl Link<'_> {
    /// For a run in which nothing reports.
    pub(crate) fn alone() -> Self {
        Self::Alone { nowhere: Address::Unix(PathBuf::new()), markers: Vec::new() }
    }

    fn mark(&mut self, marker: Marker) {
        match self {
            Self::Collector(collector) => collector.mark(marker),
            Self::Alone { markers, .. } => markers.push(marker),
        }
    }

    fn next_event(&self, timeout: Duration) -> Option<CollectorEvent> {
        match self {
            Self::Collector(collector) => collector.next_event(timeout),
            Self::Alone { .. } => {
                std::thread::sleep(timeout);
                None
            }
        }
    }
}

pub(crate) struct RunSink<'a> {
    pub(crate) link: Link<'a>,
    pub(crate) dir: PathBuf,
    pub(crate) warmup: Duration,
    pub(crate) record: Duration,
    pub(crate) cancel: &'a AtomicBool,
    pub(crate) tick: &'a mut dyn FnMut(),
    ready: BTreeMap<Panel, Ready>,
    stopping: BTreeSet<Panel>,
    /// Panels whose program has left, with whether it said good-bye.
    left: BTreeMap<Panel, bool>,
    window: (Option<i64>, Option<i64>),
    tables: Tables,
    own: OwnUse,
    machine: Option<&'a mut dyn Machine>,
    next_sample: Instant,
    /// Files of the machine's tables.
    sampled: BTreeSet<String>,
}

impl<'a> RunSink<'a> {
    pub(crate) fn new(
        link: Link<'a>,
        dir: PathBuf,
        warmup: Duration,
        record: Duration,
        cancel: &'a AtomicBool,
        tick: &'a mut dyn FnMut(),
        machine: Option<&'a mut dyn Machine>,
    ) -> Self {
        let (ready, stopping, left) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        let (tables, window) = (Tables::new(&dir), (None, None));
        // Of a command each execution is a process of its own.
        let restless = matches!(link, Link::Alone { .. });
        let (own, next_sample) = (OwnUse::start(restless), Instant::now());
        Self {
            link,
            dir,
            warmup,
            record,
            cancel,
            tick,
            ready,
            stopping,
            left,
            window,
            tables,
            own,
            machine,
            next_sample,
            sampled: BTreeSet::new(),
        }
    }

    /// Time for progress, and for samples that are due.
    fn turn(&mut self) {
        (self.tick)();
        self.own.tick(&mut self.tables);
        if Instant::now() >= self.next_sample {
            self.sample_machine();
        }
        // What cannot be written is told when the run is closed.
        let _ = self.tables.flush();
    }

    /// Samples the machine now, where that is the engine's to do.
    fn sample_machine(&mut self) {
        self.next_sample = Instant::now() + SAMPLE_EVERY;
        let Some(machine) = &mut self.machine else { return };
        let (tables, sampled) = (&mut self.tables, &mut self.sampled);
        machine.sample(&mut |table, at, values| {
            let stem = format!("{}.{}", Panel::Host, table.name);
            let _ = tables.row(&stem, table, at, values);
            sampled.insert(stem);
        });
    }

    /// Leaves out what tells nothing of a moment: the kernel counts CPU time in steps of 10 ms. Pressure it counts in
    /// microseconds.
    pub(crate) fn leave_out_counters(&mut self) {
        let sampled = &self.sampled;
        self.tables.leave_out(|stem| stem == own::STEM || stem != PRESSURE && sampled.contains(stem));
    }

    /// The study's own use, for the last time.
    pub(crate) fn sample_own(&mut self) {
        self.own.sample(&mut self.tables);
    }

    /// The tables that no program fills.
    pub(crate) fn tables(&mut self) -> &mut Tables {
        &mut self.tables
    }

    /// What was marked where nobody else keeps it.
    pub(crate) fn markers(&mut self) -> Vec<Marker> {
        match &mut self.link {
            Link::Collector(_) => Vec::new(),
            Link::Alone { markers, .. } => std::mem::take(markers),
        }
    }

    fn collector(&self) -> Option<&'a Collector> {
        match self.link {
            Link::Collector(collector) => Some(collector),
            Link::Alone { .. } => None,
        }
    }

    /// Start and end, when both were reached.
    pub(crate) fn window_ns(&self) -> Option<[i64; 2]> {
        Some([self.window.0?, self.window.1?])
    }

    fn hear(&mut self, event: CollectorEvent) -> Result<(), SubjectError> {
        // Agents only watch: that one comes or goes ends no run.
        if let CollectorEvent::Fault { source, .. } | CollectorEvent::Gone { source, .. } = &event
            && source == AGENT
        {
            return Ok(());
        }
        match event {
            CollectorEvent::Ready { panel, ready } => {
                self.ready.insert(panel, ready);
                Ok(())
            }
            CollectorEvent::Fault { panel, reason, .. } => Err(SubjectError::Fault { panel, reason }),
            // The program goes on (an encoder died and was started again), but what it measured is no measurement.
            CollectorEvent::Mark { panel, kind, text } if kind == "fault" => {
                Err(SubjectError::Fault { panel, reason: text })
            }
            CollectorEvent::Gone { panel, clean, .. } => {
                self.left.insert(panel, clean);
                if self.stopping.contains(&panel) { Ok(()) } else { Err(SubjectError::Gone { panel }) }
            }
            CollectorEvent::WriteFailed { path, error } => {
                Err(SubjectError::Write { path, error: error.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// Hears events until `enough` or the deadline; true when `enough`.
    fn wait(
        &mut self,
        span: Duration,
        enough: impl Fn(&Self) -> bool,
        check: &mut dyn FnMut() -> Result<(), SubjectError>,
    ) -> Result<bool, SubjectError> {
        let until = Instant::now() + span;
        loop {
            if self.cancelled() {
                return Err(SubjectError::Cancelled);
            }
            if enough(self) {
                return Ok(true);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            check()?;
            self.turn();
            if let Some(event) = self.link.next_event(left.min(LOOK)) {
                self.hear(event)?;
            }
        }
    }

    fn mark_window(&mut self, t_ns: i64, kind: &str, text: &str) {
        self.link.mark(Marker { t_ns, panel: None, kind: kind.into(), text: text.into() });
    }
}

impl EventSink for RunSink<'_> {
    fn collector(&self) -> &Address {
        match &self.link {
            Link::Collector(collector) => collector.address(),
            Link::Alone { nowhere, .. } => nowhere,
        }
    }

    fn run_dir(&self) -> &Path {
        &self.dir
    }

    fn warmup(&self) -> Duration {
        self.warmup
    }

    fn record(&self) -> Duration {
        self.record
    }

    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    fn wait_ready(
        &mut self,
        panels: &[Panel],
        deadline: Duration,
        check: &mut dyn FnMut() -> Result<(), SubjectError>,
    ) -> Result<BTreeMap<Panel, Ready>, SubjectError> {
        let missing = |sink: &Self| panels.iter().copied().find(|p| !sink.ready.contains_key(p));
        if !self.wait(deadline, |sink| missing(sink).is_none(), check)?
            && let Some(panel) = missing(self)
        {
            return Err(SubjectError::NotReady { panel, seconds: deadline.as_secs() });
        }
        Ok(self.ready.clone())
    }

    fn watch(
        &mut self,
        span: Duration,
        check: &mut dyn FnMut() -> Result<(), SubjectError>,
    ) -> Result<(), SubjectError> {
        let collector = self.collector();
        let mut both = || {
            check()?;
            all_answer(collector, &Panel::ALL)
        };
        self.wait(span, |_| false, &mut both).map(drop)
    }

    fn look(&mut self) -> Result<(), SubjectError> {
        self.turn();
        if self.cancelled() {
            return Err(SubjectError::Cancelled);
        }
        while let Some(event) = self.link.next_event(Duration::ZERO) {
            self.hear(event)?;
        }
        Ok(())
    }

    fn begin_window(&mut self) {
        self.sample_machine();
        let now = MonotonicClock.now().0;
        self.window = (Some(now), None);
        self.mark_window(now, "window_start", "recording starts");
    }

    fn end_window(&mut self) {
        let now = MonotonicClock.now().0;
        self.window.1 = Some(now);
        self.mark_window(now, "window_end", "recording ends");
        self.sample_machine();
    }

    fn event(&mut self, panel: Option<Panel>, kind: &str, text: &str) {
        let t_ns = MonotonicClock.now().0;
        self.link.mark(Marker { t_ns, panel, kind: kind.into(), text: text.into() });
    }

    fn row(&mut self, panel: Panel, table: &Table, at: Nanos, values: &[Value]) -> Result<(), SubjectError> {
        self.tables.row(&format!("{panel}.{}", table.name), table, at, values)
    }

    fn wait_answers(
        &mut self,
        panels: &[Panel],
        check: &mut dyn FnMut() -> Result<(), SubjectError>,
    ) -> Result<(), SubjectError> {
        let collector = self.collector();
        let mut both = || {
            check()?;
            all_answer(collector, panels)
        };
        let quiet = |panel: &Panel| collector.and_then(|c| c.silence(*panel)).is_none_or(|s| s < QUIET);
        let answered = |_: &Self| panels.iter().all(quiet);
        // Long before its end each has answered, or has been silent for too long.
        self.wait(2 * SILENT, answered, &mut both).map(drop)
    }

    fn stop(&mut self, panel: Panel) {
        self.stopping.insert(panel);
        if let Some(collector) = self.collector() {
            collector.request_stop(panel);
        }
    }

    fn wait_farewell(&mut self, panel: Panel, deadline: Duration) -> Result<(), SubjectError> {
        let until = Instant::now() + deadline;
        loop {
            match self.left.get(&panel) {
                Some(true) => return Ok(()),
                Some(false) => return Err(SubjectError::NoFarewell { panel }),
                None => {}
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(SubjectError::NoFarewell { panel });
            }
            self.turn();
            if let Some(event) = self.link.next_event(left.min(LOOK)) {
                // What others have to say in the end is no reason to leave them running.
                let _ = self.hear(event);
            }
        }
    }
}

/// An error when the program of one of `panels` stands still.
fn all_answer(collector: Option<&Collector>, panels: &[Panel]) -> Result<(), SubjectError> {
    let Some(collector) = collector else { return Ok(()) };
    let silences = panels.iter().filter_map(|panel| Some((*panel, collector.silence(*panel)?)));
    match silences.max_by_key(|(_, silence)| *silence) {
        Some((panel, silence)) if silence >= SILENT => {
            Err(SubjectError::Silent { panel, seconds: silence.as_secs_f64() })
        }
        _ => Ok(()),
    }
}
