//! One agent's connection: its messages become rows, events and clock exchanges. Nothing an agent sends is trusted.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use probe::{ColumnType, Table};
use thiserror::Error;
use units::{Clock, MonotonicClock};

use crate::address::Stream;
use crate::clock::{Estimator, Exchange};
use crate::collector::CollectorEvent;
use crate::facts::PanelFacts;
use crate::spec::Panel;
use crate::wire::{Decoder, Hello, MAX_TABLES, Message, PROTOCOL, WireError};
use crate::writer::Job;

/// Exchanges at the start of a connection, close together, so that a short run has an estimate.
const BURST: u32 = 10;
/// Time between two of them.
const BURST_EVERY: Duration = Duration::from_millis(10);
/// Time between exchanges later on.
const EVERY: Duration = Duration::from_millis(500);
/// How long a fresh connection may take to say who it is.
const INTRODUCTION: Duration = Duration::from_secs(5);
/// Columns of `<panel>.clock`.
const CLOCK_TABLE: &str = "clock";

/// What is shared between the collector and the connection of one panel.
#[derive(Debug, Default)]
pub(crate) struct PanelState {
    pub(crate) facts: Mutex<PanelFacts>,
    pub(crate) clock: Mutex<Estimator>,
    /// Rows by table, so far.
    pub(crate) rows: Mutex<BTreeMap<String, u64>>,
    /// Rows that the writer could not take in time.
    pub(crate) overrun: AtomicU64,
    /// Markers on the panel's clock: instant, kind, text.
    pub(crate) markers: Mutex<Vec<(i64, String, String)>>,
    pub(crate) stop: AtomicBool,
    pub(crate) connected: AtomicBool,
    pub(crate) stream: Mutex<Option<Stream>>,
}

/// Most markers of one panel that are kept; a program that marks every frame uses a table instead.
const MAX_MARKERS: usize = 10_000;

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a connection was ended by this side.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("it did not introduce itself in time")]
    Silent,
    #[error("protocol {0}, expected {PROTOCOL}: agent and collector have different versions")]
    Protocol(u32),
    #[error("wrong or missing token")]
    Token,
    #[error("panel {0} is connected already")]
    Twice(Panel),
    #[error("{0}")]
    Broken(&'static str),
    #[error(transparent)]
    Table(#[from] probe::TableError),
}

/// What every connection needs of the collector.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) panels: Arc<BTreeMap<Panel, PanelState>>,
    pub(crate) token: Option<String>,
    pub(crate) events: Sender<CollectorEvent>,
    pub(crate) jobs: SyncSender<Job>,
    pub(crate) closing: Arc<AtomicBool>,
}

/// Serves one connection to its end.
pub(crate) fn serve(mut stream: Stream, context: &Context) {
    let mut decoder = Decoder::new();
    let hello = match introduce(&mut stream, &mut decoder, context) {
        Ok(Some(hello)) => hello,
        Ok(None) => return,
        Err(refusal) => {
            tracing::warn!("an agent was refused: {refusal}");
            return;
        }
    };
    let panel = hello.panel;
    let Some(state) = context.panels.get(&panel) else { return };
    *locked(&state.stream) = stream.try_clone().ok();
    {
        let mut facts = locked(&state.facts);
        (facts.program, facts.version, facts.pid) = (hello.program, hello.version, hello.pid);
    }
    let _ = context.events.send(CollectorEvent::Hello { panel });
    let mut connection = Connection { stream, panel, state, context, tables: Vec::new(), clean: false };
    let outcome = connection.run(&mut decoder);
    let clean = connection.clean;
    if let Err(refusal) = outcome {
        tracing::warn!("{panel}: its connection was ended: {refusal}");
        let _ = context.events.send(CollectorEvent::Fault { panel, reason: refusal.to_string() });
    }
    connection.stream.shutdown();
    *locked(&state.stream) = None;
    state.connected.store(false, Ordering::Release);
    let _ = context.events.send(CollectorEvent::Gone { panel, clean });
}

fn introduce(
    stream: &mut Stream,
    decoder: &mut Decoder,
    context: &Context,
) -> Result<Option<Hello>, Refusal> {
    let deadline = Instant::now() + INTRODUCTION;
    let mut buffer = [0; 4096];
    let io = |_| Refusal::Silent;
    stream.set_read_timeout(Some(Duration::from_millis(200))).map_err(io)?;
    stream.set_write_timeout(Some(INTRODUCTION)).map_err(io)?;
    let hello = loop {
        if let Some(message) = decoder.next_message()? {
            let Message::Hello(hello) = message else {
                return Err(Refusal::Broken("it did not introduce itself first"));
            };
            break hello;
        }
        if Instant::now() > deadline {
            return Err(Refusal::Silent);
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(count) => decoder.push(&buffer[..count]),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                if context.closing.load(Ordering::Acquire) {
                    return Ok(None);
                }
            }
            Err(_) => return Ok(None),
        }
    };
    if hello.protocol != PROTOCOL {
        return Err(Refusal::Protocol(hello.protocol));
    }
    if context.token.is_some() && context.token != hello.token {
        return Err(Refusal::Token);
    }
    let state = context.panels.get(&hello.panel).ok_or(Refusal::Broken("an unknown panel"))?;
    if state.connected.swap(true, Ordering::AcqRel) {
        return Err(Refusal::Twice(hello.panel));
    }
    Ok(Some(hello))
}

/// A table as its agent declared it.
struct Declared {
    name: String,
    stem: String,
    width: usize,
}

struct Connection<'a> {
    stream: Stream,
    panel: Panel,
    state: &'a PanelState,
    context: &'a Context,
    tables: Vec<Declared>,
    clean: bool,
}

impl Connection<'_> {
    fn run(&mut self, decoder: &mut Decoder) -> Result<(), Refusal> {
        let mut buffer = vec![0; 64 * 1024];
        let (mut pings, mut asked, mut next) = (0u32, None::<(u32, i64)>, Instant::now());
        let mut stop_sent = false;
        self.declare_clock();
        loop {
            while let Some(message) = decoder.next_message()? {
                if let Message::Pong { id, t_ns } = message {
                    let received_ns = MonotonicClock.now().0;
                    if let Some((_, sent_ns)) = asked.take_if(|(expected, _)| *expected == id) {
                        self.exchange(Exchange { sent_ns, panel_ns: t_ns, received_ns });
                    }
                } else {
                    self.take(message)?;
                }
                if self.clean {
                    return Ok(());
                }
            }
            if self.state.stop.load(Ordering::Acquire) && !stop_sent {
                stop_sent = self.stream.write_all(&Message::Stop.encode()).is_ok();
            }
            if Instant::now() >= next {
                next = Instant::now() + if pings < BURST { BURST_EVERY } else { EVERY };
                pings += 1;
                asked = Some((pings, MonotonicClock.now().0));
                if self.stream.write_all(&Message::Ping { id: pings }.encode()).is_err() {
                    return Ok(());
                }
            }
            // Also wakes for a wish to stop that nobody tells this thread about.
            let wait = next.saturating_duration_since(Instant::now()).min(Duration::from_millis(100));
            let _ = self.stream.set_read_timeout(Some(wait.max(Duration::from_millis(1))));
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => decoder.push(&buffer[..count]),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) =>
                {
                    if self.context.closing.load(Ordering::Acquire) {
                        return Ok(());
                    }
                }
                Err(_) => return Ok(()),
            }
        }
    }

    fn declare_clock(&mut self) {
        let table = Table::new(
            CLOCK_TABLE,
            "exchanges with the collector; t_ns is the panel's clock when it answered",
        )
        .column("sent_ns", ColumnType::I64, "ns", "collector's clock before the question left")
        .column("received_ns", ColumnType::I64, "ns", "collector's clock after the answer came");
        let stem = format!("{}.{CLOCK_TABLE}", self.panel);
        self.send(Job::Declare { stem, table }, 0);
    }

    fn exchange(&mut self, exchange: Exchange) {
        locked(&self.state.clock).add(exchange);
        let words = vec![exchange.panel_ns as u64, exchange.sent_ns as u64, exchange.received_ns as u64];
        self.send(Job::Rows { stem: format!("{}.{CLOCK_TABLE}", self.panel), words }, 1);
    }

    fn send(&self, job: Job, rows: u64) {
        // Declarations must arrive; rows must not hold up the connection, or the program's rings overflow unseen.
        let sent = match job {
            Job::Declare { .. } => self.context.jobs.send(job).is_ok(),
            job => match self.context.jobs.try_send(job) {
                Ok(()) => true,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
            },
        };
        if !sent {
            self.state.overrun.fetch_add(rows, Ordering::Relaxed);
        }
    }

    fn take(&mut self, message: Message) -> Result<(), Refusal> {
        match message {
            Message::Declare { index, table } => self.declare(index, table)?,
            Message::Rows { index, words } => {
                let declared = self
                    .tables
                    .get(usize::from(index))
                    .ok_or(Refusal::Broken("rows of a table that was not declared"))?;
                if words.len() % declared.width != 0 {
                    return Err(Refusal::Broken("rows that do not fit their table"));
                }
                let rows = (words.len() / declared.width) as u64;
                *locked(&self.state.rows).entry(declared.name.clone()).or_default() += rows;
                self.send(Job::Rows { stem: declared.stem.clone(), words }, rows);
            }
            Message::Ready(ready) => {
                let mut facts = locked(&self.state.facts);
                facts.in_force.extend(ready.in_force.clone());
                facts.versions.extend(ready.versions.clone());
                facts.facts.extend(ready.facts.clone());
                drop(facts);
                let _ = self.context.events.send(CollectorEvent::Ready { panel: self.panel, ready });
            }
            Message::Marker { t_ns, kind, text } => {
                let mut markers = locked(&self.state.markers);
                if markers.len() < MAX_MARKERS {
                    markers.push((t_ns, kind.clone(), text.clone()));
                }
                drop(markers);
                let _ = self.context.events.send(CollectorEvent::Mark { panel: self.panel, kind, text });
            }
            Message::Fault { reason } => {
                let _ = self.context.events.send(CollectorEvent::Fault { panel: self.panel, reason });
            }
            Message::Bye { lost } => {
                locked(&self.state.facts)
                    .lost
                    .extend(lost.into_iter().filter(|(_, n)| *n > 0).take(MAX_TABLES));
                self.clean = true;
            }
            Message::Hello(_) | Message::Ping { .. } | Message::Pong { .. } | Message::Stop => {
                return Err(Refusal::Broken("a message out of place"));
            }
        }
        Ok(())
    }

    fn declare(&mut self, index: u16, table: Table) -> Result<(), Refusal> {
        table.check()?;
        let out_of_order = usize::from(index) != self.tables.len();
        if out_of_order || self.tables.len() >= MAX_TABLES {
            return Err(Refusal::Broken("tables out of order, or too many of them"));
        }
        if table.name == CLOCK_TABLE || self.tables.iter().any(|t| t.name == table.name) {
            return Err(Refusal::Broken("a table's name is taken"));
        }
        let (stem, width) = (format!("{}.{}", self.panel, table.name), table.columns.len() + 1);
        self.tables.push(Declared { name: table.name.clone(), stem: stem.clone(), width });
        self.send(Job::Declare { stem, table }, 0);
        Ok(())
    }
}
