//! Who reports to a collector: panels, and the sources of each (a program, an agent), across their connections.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use probe::Table;

use crate::address::Stream;
use crate::clock::Estimator;
use crate::facts::PanelFacts;
use crate::receive::Refusal;
use crate::spec::Panel;
use crate::wire::{Hello, Message};

/// Most sources of one panel.
const MAX_SOURCES: usize = 64;
/// How long a connection that its agent has given up may take to end.
const TAKEOVER: Duration = Duration::from_secs(2);
/// A name on disk that is taken by another source gets a number, up to this one.
const MAX_NUMBER: usize = 99;

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is shared between the collector and the connections of one panel.
#[derive(Default)]
pub(crate) struct PanelState {
    pub(crate) clock: Mutex<Estimator>,
    /// Rows by table, so far.
    pub(crate) rows: Mutex<BTreeMap<String, u64>>,
    /// Rows that the writer could not take in time.
    pub(crate) overrun: AtomicU64,
    pub(crate) stop: AtomicBool,
    /// Tables by their name on disk, with the source that writes them.
    tables: Mutex<BTreeMap<String, (String, Table)>>,
    sources: Mutex<BTreeMap<String, Arc<Source>>>,
    boot_id: Mutex<String>,
}

/// One source of a panel; outlives its connections.
#[derive(Default)]
pub(crate) struct Source {
    /// 0 for the first of its panel.
    pub(crate) order: usize,
    pub(crate) facts: Mutex<PanelFacts>,
    /// Markers on the panel's clock: instant, kind, text.
    pub(crate) markers: Mutex<Vec<(i64, String, String)>>,
    pub(crate) connected: AtomicBool,
    /// When its connection last brought anything.
    pub(crate) heard: Mutex<Option<Instant>>,
    pub(crate) stream: Mutex<Option<Stream>>,
    /// What its connection is to send when it next looks.
    pub(crate) orders: Mutex<VecDeque<Message>>,
    session: Mutex<Session>,
}

/// Where the count of entries stands.
#[derive(Clone, Default)]
pub(crate) struct Session {
    id: Option<u64>,
    /// Number of the next entry.
    pub(crate) next: u64,
    /// Every entry below is on the disk.
    pub(crate) synced: Arc<AtomicU64>,
    /// When the last connection, which has ended, last brought anything: a virtio-serial port shows no end until the next
    /// agent begins.
    pub(crate) ended: Option<Instant>,
}

impl PanelState {
    /// True while any source is connected.
    pub(crate) fn connected(&self) -> bool {
        locked(&self.sources).values().any(|s| s.connected.load(Ordering::Acquire))
    }

    /// The sources by name.
    pub(crate) fn sources(&self) -> Vec<(String, Arc<Source>)> {
        locked(&self.sources).iter().map(|(name, s)| (name.clone(), Arc::clone(s))).collect()
    }

    /// The source that a fresh connection speaks for; it is marked as connected.
    pub(crate) fn enter(&self, panel: Panel, hello: &Hello, record: &str) -> Result<Arc<Source>, Refusal> {
        {
            let mut boot = locked(&self.boot_id);
            if boot.is_empty() {
                boot.clone_from(&hello.boot_id);
            } else if !hello.boot_id.is_empty() && *boot != hello.boot_id {
                return Err(Refusal::OtherMachine(panel));
            }
        }
        let source = {
            let mut sources = locked(&self.sources);
            let order = sources.len();
            if order >= MAX_SOURCES && !sources.contains_key(&hello.source) {
                return Err(Refusal::Broken("too many sources of one panel"));
            }
            let new = || Arc::new(Source { order, ..Source::default() });
            Arc::clone(sources.entry(hello.source.clone()).or_insert_with(new))
        };
        if source.connected.swap(true, Ordering::AcqRel) {
            // The same source again: its agent has noticed before this side that the old connection is dead.
            if locked(&source.session).id != Some(hello.session) {
                return Err(Refusal::Twice(panel, hello.source.clone()));
            }
            if let Some(stream) = locked(&source.stream).take() {
                stream.shutdown();
            }
            let deadline = Instant::now() + TAKEOVER;
            while source.connected.load(Ordering::Acquire) {
                if Instant::now() > deadline {
                    return Err(Refusal::Twice(panel, hello.source.clone()));
                }
                std::thread::park_timeout(Duration::from_millis(5));
            }
            source.connected.store(true, Ordering::Release);
        }
        *locked(&source.heard) = Some(Instant::now());
        source.begin(hello, record);
        Ok(source)
    }

    /// For how long the quietest of the connected sources but `except` has not been heard.
    pub(crate) fn silence(&self, except: &str) -> Option<Duration> {
        let sources = locked(&self.sources);
        let programs =
            sources.iter().filter(|(name, s)| *name != except && s.connected.load(Ordering::Acquire));
        programs.filter_map(|(_, source)| Some((*locked(&source.heard))?.elapsed())).max()
    }

    /// The name on disk of a source's table. A table that was declared before, by a source that left and came back,
    /// keeps its name; one that is another source's, or has changed, gets a number. True when it is new.
    pub(crate) fn name_on_disk(&self, source: &str, table: &Table) -> Option<(String, bool)> {
        let mut tables = locked(&self.tables);
        for number in 1..=MAX_NUMBER {
            let name = if number == 1 { table.name.clone() } else { format!("{}-{number}", table.name) };
            match tables.get(&name) {
                None => {
                    tables.insert(name.clone(), (source.to_owned(), table.clone()));
                    return Some((name, true));
                }
                Some((owner, known)) if owner == source && known == table => return Some((name, false)),
                Some(_) => {}
            }
        }
        None
    }
}

impl Source {
    fn begin(&self, hello: &Hello, record: &str) {
        let mut session = locked(&self.session);
        if session.id == Some(hello.session) {
            // What it cannot send any more is lost, and it says so itself.
            session.next = session.next.max(hello.oldest);
        } else {
            // Marks of the old count still lie with the writer: the new one has a place of its own. What waits for another
            // record stays out of this one.
            let next = if hello.record == record { hello.oldest } else { hello.next.max(hello.oldest) };
            *session = Session {
                id: Some(hello.session),
                next,
                synced: Arc::new(AtomicU64::new(next)),
                ended: session.ended,
            };
        }
    }

    /// A look at the count.
    pub(crate) fn session(&self) -> Session {
        locked(&self.session).clone()
    }

    /// Counts an entry; gives its number plus one.
    pub(crate) fn count(&self) -> u64 {
        let mut session = locked(&self.session);
        session.next += 1;
        session.next
    }

    /// The connection has ended.
    pub(crate) fn leave(&self) {
        *locked(&self.stream) = None;
        let heard = *locked(&self.heard);
        locked(&self.session).ended = heard;
        self.connected.store(false, Ordering::Release);
    }
}
