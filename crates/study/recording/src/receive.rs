//! One agent's connection: its messages become rows, events and clock exchanges. Nothing an agent sends is trusted.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, SyncSender, TrySendError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use probe::{ColumnType, Table};
use thiserror::Error;
use units::{Clock, MonotonicClock};

use crate::address::Stream;
use crate::clock::Exchange;
use crate::collector::{AGENT, CollectorEvent};
use crate::control::{self, Wishes};
use crate::facts::Marker;
use crate::sources::{PanelState, Source, locked};
use crate::spec::Panel;
use crate::wire::{Decoder, Hello, MAX_TABLES, Message, PREAMBLE, PROTOCOL, WireError};
use crate::writer::{Done, Job};

/// Exchanges at the start of a connection, close together, so that a short run has an estimate.
const BURST: u32 = 10;
/// Time between two of them.
const BURST_EVERY: Duration = Duration::from_millis(10);
/// Time between exchanges later on.
const EVERY: Duration = Duration::from_millis(500);
/// How long a fresh connection may take to say who it is.
const INTRODUCTION: Duration = Duration::from_secs(5);
/// An agent that is not heard of for so long is marked as silent.
const SILENT: Duration = Duration::from_secs(3);
/// How long the last of an agent may take to reach the disk before its good-bye is answered.
const LAST_SYNC: Duration = Duration::from_secs(5);
/// Columns of `<panel>.clock`.
const CLOCK_TABLE: &str = "clock";
/// Most markers of one source that are kept; a program that marks every frame uses a table instead.
const MAX_MARKERS: usize = 10_000;

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
    #[error("{1} of panel {0} is connected already")]
    Twice(Panel, String),
    #[error("panel {0} has a source on another machine: one panel, one machine")]
    OtherMachine(Panel),
    #[error("{0}")]
    Broken(&'static str),
    #[error(transparent)]
    Table(#[from] probe::TableError),
}

/// What every connection needs of the collector.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) panels: Arc<BTreeMap<Panel, PanelState>>,
    pub(crate) record: String,
    pub(crate) token: Option<String>,
    pub(crate) events: Sender<CollectorEvent>,
    pub(crate) jobs: SyncSender<Job>,
    pub(crate) closing: Arc<AtomicBool>,
    pub(crate) markers: Arc<Mutex<Vec<Marker>>>,
    pub(crate) wishes: Arc<Wishes>,
}

impl Context {
    /// Adds a marker of the collector's own to the record, now.
    pub(crate) fn mark(&self, panel: impl Into<Option<Panel>>, kind: &str, text: String) {
        let marker = Marker { t_ns: MonotonicClock.now().0, panel: panel.into(), kind: kind.into(), text };
        let line = serde_json::to_string(&marker).unwrap_or_default();
        let _ = self.jobs.try_send(Job::Journal { line, done: None });
        locked(&self.markers).push(marker);
    }
}

/// Serves one stream to its end: one agent, or several after one another where a virtio-serial port does not show that
/// one has ended.
pub(crate) fn serve(mut stream: Stream, context: &Context) {
    let (mut decoder, mut begun) = (Decoder::new(), false);
    loop {
        begun = match introduce(&mut stream, &mut decoder, begun, context) {
            Ok(Some(Peer::Agent(hello, source))) => {
                attend(&mut stream, &mut decoder, hello, &source, context)
            }
            Ok(Some(Peer::Control)) => return control::serve(&mut stream, &mut decoder, context),
            Ok(None) => return,
            Err(refusal) => {
                tracing::warn!("an agent was refused: {refusal}");
                return;
            }
        };
        if !begun {
            return;
        }
    }
}

/// Serves one agent; true when another has begun on the same stream.
fn attend(
    stream: &mut Stream,
    decoder: &mut Decoder,
    hello: Hello,
    source: &Source,
    context: &Context,
) -> bool {
    let (panel, name) = (hello.panel, hello.source);
    let Some(state) = context.panels.get(&panel) else { return false };
    *locked(&source.stream) = stream.try_clone().ok();
    {
        let mut facts = locked(&source.facts);
        (facts.program, facts.version, facts.pid) = (hello.program, hello.version, hello.pid);
    }
    let _ = context.events.send(CollectorEvent::Hello { panel, source: name.clone() });
    if let Some(ended) = source.session().ended {
        context.mark(panel, "agent_back", format!("{name}, after {:.1} s", ended.elapsed().as_secs_f64()));
    }
    let mut connection =
        Connection { stream, panel, name, state, source, context, tables: Vec::new(), clean: false };
    let outcome = connection.run(decoder);
    let clean = connection.clean;
    if let Err(refusal) = &outcome {
        tracing::warn!("{panel}: its connection was ended: {refusal}");
        let _ = context.events.send(CollectorEvent::Fault {
            panel,
            source: connection.name.clone(),
            reason: refusal.to_string(),
        });
    }
    if !clean && !context.closing.load(Ordering::Acquire) {
        context.mark(panel, "agent_lost", connection.name.clone());
    }
    let anew = matches!(outcome, Ok(End::BegunAnew));
    if !anew {
        connection.stream.shutdown();
    }
    source.leave();
    let _ = context.events.send(CollectorEvent::Gone { panel, source: connection.name, clean });
    anew
}

/// How an agent's connection ended without a fault.
enum End {
    Closed,
    BegunAnew,
}

/// Who is at the other end.
enum Peer {
    Agent(Hello, Arc<Source>),
    Control,
}

fn introduce(
    stream: &mut Stream,
    decoder: &mut Decoder,
    mut begun: bool,
    context: &Context,
) -> Result<Option<Peer>, Refusal> {
    let deadline = Instant::now() + INTRODUCTION;
    let mut buffer = [0; 4096];
    let io = |_| Refusal::Silent;
    stream.set_read_timeout(Some(Duration::from_millis(200))).map_err(io)?;
    stream.set_write_timeout(Some(INTRODUCTION)).map_err(io)?;
    let mut heard = begun;
    let hello = loop {
        if begun && let Some(message) = decoder.next_message()? {
            break message;
        }
        if Instant::now() > deadline {
            // QEMU connects a guest's port also while no agent runs in the guest.
            return if heard { Err(Refusal::Silent) } else { Ok(None) };
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(count) => {
                heard = true;
                decoder.push(&buffer[..count]);
                begun |= decoder.take_begun();
                if !begun {
                    decoder.forget();
                }
            }
            Err(error) if is_pause(&error) => {
                if context.closing.load(Ordering::Acquire) {
                    return Ok(None);
                }
            }
            Err(_) => return Ok(None),
        }
    };
    let (protocol, token) = match &hello {
        Message::Hello(hello) => (hello.protocol, &hello.token),
        Message::Control { protocol, token } => (*protocol, token),
        _ => return Err(Refusal::Broken("it did not introduce itself first")),
    };
    if protocol != PROTOCOL {
        return Err(Refusal::Protocol(protocol));
    }
    if context.token.as_ref().is_some_and(|t| !token.as_ref().is_some_and(|u| same(t, u))) {
        return Err(Refusal::Token);
    }
    let Message::Hello(hello) = hello else { return Ok(Some(Peer::Control)) };
    let state = context.panels.get(&hello.panel).ok_or(Refusal::Broken("an unknown panel"))?;
    if state.stop.load(Ordering::Acquire) {
        // The panel has been asked to finish: whoever comes now is too late, and may come again for the next record.
        return Ok(None);
    }
    let source = state.enter(hello.panel, &hello, &context.record)?;
    let welcome = Message::Welcome { next: source.session().next, record: context.record.clone() };
    // One that has gone already may have left all it had to say.
    let _ = stream.write_all(&[&PREAMBLE[..], &welcome.encode()].concat());
    Ok(Some(Peer::Agent(hello, source)))
}

/// Compares secrets in a time that does not tell how much of them is the same.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |d, (x, y)| d | (x ^ y)) == 0
}

/// Nothing came in time.
pub(crate) fn is_pause(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// A table as its agent declared it.
struct Declared {
    name: String,
    stem: String,
    width: usize,
}

struct Connection<'a> {
    stream: &'a mut Stream,
    panel: Panel,
    name: String,
    state: &'a PanelState,
    source: &'a Source,
    context: &'a Context,
    tables: Vec<Declared>,
    clean: bool,
}

impl Connection<'_> {
    fn run(&mut self, decoder: &mut Decoder) -> Result<End, Refusal> {
        let mut buffer = vec![0; 64 * 1024];
        let (mut pings, mut asked, mut next) = (0u32, None::<(u32, i64)>, Instant::now());
        let (mut stop_sent, mut hears, mut heard, mut silent) = (false, true, Instant::now(), false);
        let mut acknowledged = self.source.session().synced.load(Ordering::Acquire);
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
                    self.farewell();
                    return Ok(End::Closed);
                }
            }
            if self.state.stop.load(Ordering::Acquire) && !stop_sent {
                stop_sent = self.stream.write_all(&Message::Stop.encode()).is_ok();
            }
            self.pass_orders(&mut hears);
            if !silent && heard.elapsed() > SILENT {
                silent = true;
                self.context.mark(self.panel, "agent_silent", self.name.clone());
            }
            if hears && Instant::now() >= next {
                next = Instant::now() + if pings < BURST { BURST_EVERY } else { EVERY };
                pings += 1;
                // One packet, so that the agent wakes once.
                let mut out = Vec::new();
                let synced = self.source.session().synced.load(Ordering::Acquire);
                if synced > acknowledged {
                    acknowledged = synced;
                    out.extend(Message::Ack { next: synced }.encode());
                }
                out.extend(Message::Ping { id: pings }.encode());
                asked = Some((pings, MonotonicClock.now().0));
                match self.stream.write_all(&out) {
                    // An agent that stands still (a paused machine) may go on later.
                    Err(error) if is_pause(&error) => {}
                    // It has gone; what it sent before is still to be read.
                    Err(_) => hears = false,
                    Ok(()) => {}
                }
            }
            // Also wakes for a wish to stop that nobody tells this thread about.
            let wait = if hears { next.saturating_duration_since(Instant::now()) } else { EVERY };
            let wait = wait.min(Duration::from_millis(100));
            let _ = self.stream.set_read_timeout(Some(wait.max(Duration::from_millis(1))));
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(End::Closed),
                Ok(count) => {
                    decoder.push(&buffer[..count]);
                    if decoder.take_begun() {
                        return Ok(End::BegunAnew);
                    }
                    if std::mem::take(&mut silent) {
                        let text = format!("{}, after {:.1} s", self.name, heard.elapsed().as_secs_f64());
                        self.context.mark(self.panel, "agent_back", text);
                    }
                    heard = Instant::now();
                    *locked(&self.source.heard) = Some(heard);
                }
                Err(error) if is_pause(&error) => {
                    if self.context.closing.load(Ordering::Acquire) {
                        return Ok(End::Closed);
                    }
                }
                Err(_) => return Ok(End::Closed),
            }
        }
    }

    /// Sends what others want of this program.
    fn pass_orders(&mut self, hears: &mut bool) {
        for order in locked(&self.source.orders).drain(..) {
            *hears &= self.stream.write_all(&order.encode()).is_ok();
        }
    }

    /// Answers a good-bye once everything is on the disk, so that the agent keeps nothing back for the next record.
    fn farewell(&mut self) {
        let session = self.source.session();
        if session.synced.load(Ordering::Acquire) < session.next {
            let _ = self.context.jobs.send(Job::Flush);
            let deadline = Instant::now() + LAST_SYNC;
            let over = || self.context.closing.load(Ordering::Acquire) || Instant::now() >= deadline;
            while session.synced.load(Ordering::Acquire) < session.next && !over() {
                std::thread::park_timeout(Duration::from_millis(2));
            }
        }
        let next = session.synced.load(Ordering::Acquire);
        let _ = self.stream.write_all(&Message::Ack { next }.encode());
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
        if let Some(step) = locked(&self.state.clock).add(exchange) {
            self.context.mark(self.panel, "clock_step", step);
        }
        let words = vec![exchange.panel_ns as u64, exchange.sent_ns as u64, exchange.received_ns as u64];
        self.send(Job::Rows { stem: format!("{}.{CLOCK_TABLE}", self.panel), words, done: None }, 1);
    }

    fn send(&self, job: Job, rows: u64) {
        // What is counted must arrive, or its agent would be told that it has. While the writer is behind, the
        // connection waits, and the rows wait with the agent.
        let sent = match job {
            job @ Job::Rows { done: None, .. } => match self.context.jobs.try_send(job) {
                Ok(()) => true,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
            },
            job => self.context.jobs.send(job).is_ok(),
        };
        if !sent {
            self.state.overrun.fetch_add(rows, Ordering::Relaxed);
        }
    }

    fn done(&self) -> Option<Done> {
        let next = self.source.count();
        Some(Done { synced: self.source.session().synced, next })
    }

    fn journal(&self, what: &str, body: &impl serde::Serialize) {
        let line = serde_json::json!({ "panel": self.panel, "source": self.name, what: body }).to_string();
        let done = self.done();
        self.send(Job::Journal { line, done }, 0);
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
                let (name, stem) = (declared.name.clone(), declared.stem.clone());
                let done = self.done();
                self.send(Job::Rows { stem, words, done }, rows);
                *locked(&self.state.rows).entry(name).or_default() += rows;
            }
            Message::Ready(ready) => {
                let mut facts = locked(&self.source.facts);
                facts.in_force.extend(ready.in_force.clone());
                facts.versions.extend(ready.versions.clone());
                facts.facts.extend(ready.facts.clone());
                drop(facts);
                self.journal("ready", &ready);
                // What an agent that only watches has to tell says nothing of the panel's program.
                if self.name != AGENT {
                    let _ = self.context.events.send(CollectorEvent::Ready { panel: self.panel, ready });
                }
            }
            Message::Marker { t_ns, kind, text } => {
                self.marked(t_ns, kind.clone(), text.clone());
                let _ = self.context.events.send(CollectorEvent::Mark { panel: self.panel, kind, text });
            }
            Message::Fault { reason } => {
                self.journal("fault", &reason);
                let _ = self.context.events.send(CollectorEvent::Fault {
                    panel: self.panel,
                    source: self.name.clone(),
                    reason,
                });
            }
            Message::Lost { lost } => {
                self.journal("lost", &lost);
                let lost: BTreeMap<_, _> =
                    lost.into_iter().filter(|(_, n)| *n > 0).take(MAX_TABLES).collect();
                locked(&self.source.facts).lost.extend(lost);
            }
            applied @ Message::Applied { .. } => self.applied(applied),
            Message::Bye => self.clean = true,
            _ => return Err(Refusal::Broken("a message out of place")),
        }
        Ok(())
    }

    fn applied(&mut self, applied: Message) {
        let Message::Applied { t_ns, id, name, in_force, error } = applied else { return };
        let text = match (&in_force, error.as_str()) {
            (Some(level), "") => format!("{name} = {level}"),
            (Some(level), error) => format!("{name} stays {level}: {error}"),
            (None, error) => format!("{name}: {error}"),
        };
        let kind = if error.is_empty() { "setting" } else { "setting_refused" };
        if let Some(level) = &in_force {
            locked(&self.source.facts).in_force.insert(name.clone(), level.clone());
        }
        self.marked(t_ns, kind.to_owned(), text);
        self.context.wishes.fulfil(id, in_force.clone(), &error);
        let _ =
            self.context.events.send(CollectorEvent::Applied { panel: self.panel, name, in_force, error });
    }

    /// A marker of the source's, on the panel's clock.
    fn marked(&mut self, t_ns: i64, kind: String, text: String) {
        self.journal("marker", &serde_json::json!({ "t_ns": t_ns, "kind": kind, "text": text }));
        let mut markers = locked(&self.source.markers);
        if markers.len() < MAX_MARKERS {
            markers.push((t_ns, kind, text));
        }
    }

    fn declare(&mut self, index: u16, table: Table) -> Result<(), Refusal> {
        table.check()?;
        let out_of_order = usize::from(index) != self.tables.len();
        if out_of_order || self.tables.len() >= MAX_TABLES {
            return Err(Refusal::Broken("tables out of order, or too many of them"));
        }
        if table.name == CLOCK_TABLE {
            return Err(Refusal::Broken("the table's name 'clock' is the collector's"));
        }
        let (name, new) = self
            .state
            .name_on_disk(&self.name, &table)
            .ok_or(Refusal::Broken("too many tables of one name"))?;
        if self.tables.iter().any(|t| t.name == name) {
            return Err(Refusal::Broken("a table is declared twice"));
        }
        let (stem, width) = (format!("{}.{name}", self.panel), table.columns.len() + 1);
        self.tables.push(Declared { name, stem: stem.clone(), width });
        if new {
            self.send(Job::Declare { stem, table }, 0);
        }
        Ok(())
    }
}
