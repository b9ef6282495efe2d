//! Receives what the agents of one run send, and keeps it in the run's folder.
//!
//! One thread accepts, one serves each agent, one writes. [`Collector::close`] turns the run into its final form.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use thiserror::Error;
use vsock::{VsockAddr, VsockListener};

use crate::address::{Address, Stream};
use crate::facts::{self, FactsError, Marker, RunFacts, RunStatus};
use crate::files;
use crate::receive::{Context, serve};
use crate::sources::{PanelState, locked};
use crate::spec::{Level, Panel};
use crate::wire::Ready;
use crate::writer::{JOURNAL, Job, Writer, Written};

/// Jobs that may wait for the writer: more than a minute of a busy pipeline's, while a disk stalls.
const QUEUE: usize = 4096;
/// How long agents may take to end once the run is closed.
const FAREWELL: Duration = Duration::from_secs(2);

/// File in the folder of a run under way that says where its collector listens, for [`crate::control`].
pub const CONTROL: &str = "control";

/// Name of the sources that watch a panel without being its program.
pub const AGENT: &str = "triptych-agent";

/// How a collector is to work.
#[derive(Clone, Debug)]
pub struct CollectorOptions {
    /// Where to listen; TCP port 0 takes any.
    pub address: Address,
    /// Further places to listen at.
    pub also: Vec<Address>,
    /// The run's folder; it exists.
    pub dir: PathBuf,
    /// Which record this is: agents bring what they have kept for this one only. The run's folder by default.
    pub record: String,
    /// What agents must know; needed as soon as it listens beyond loopback.
    pub token: Option<String>,
    /// How long rows are collected before they are written and synced.
    pub batch: Duration,
}

impl CollectorOptions {
    /// Without a token, 0.4 s a batch.
    pub fn new(address: Address, dir: PathBuf) -> Self {
        let record = dir.display().to_string();
        Self { address, also: Vec::new(), dir, record, token: None, batch: Duration::from_millis(400) }
    }
}

/// A collector could not start, or a run could not be closed.
#[derive(Debug, Error)]
pub enum CollectorError {
    /// The address cannot be listened on.
    #[error("the collector cannot listen on {address}")]
    Listen {
        /// Where.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// Beyond loopback without a token.
    #[error("{0} can be reached from other machines: a collector there needs a token")]
    NeedsToken(Address),
    /// No more threads.
    #[error("the collector cannot start a thread")]
    Thread(#[source] io::Error),
    /// The facts cannot be written.
    #[error(transparent)]
    Facts(#[from] FactsError),
}

/// Something that whoever drives the run may want to know at once.
#[derive(Debug)]
pub enum CollectorEvent {
    /// A panel's agent introduced itself.
    Hello {
        /// Which.
        panel: Panel,
        /// Which of the panel's sources.
        source: String,
    },
    /// A panel's program is in the state asked for.
    Ready {
        /// Which.
        panel: Panel,
        /// What it said.
        ready: Ready,
    },
    /// A panel marked an instant.
    Mark {
        /// Which.
        panel: Panel,
        /// Kind.
        kind: String,
        /// For people.
        text: String,
    },
    /// A panel's program has changed a setting, or not.
    Applied {
        /// Which.
        panel: Panel,
        /// Name of the setting.
        name: String,
        /// In force now.
        in_force: Option<Level>,
        /// Why it was not changed; empty when it was.
        error: String,
    },
    /// A panel's program cannot go on.
    Fault {
        /// Which.
        panel: Panel,
        /// Which of the panel's sources.
        source: String,
        /// Why.
        reason: String,
    },
    /// A panel's connection ended.
    Gone {
        /// Which.
        panel: Panel,
        /// Which of the panel's sources.
        source: String,
        /// It said good-bye.
        clean: bool,
    },
    /// A file cannot be written (once; rows that cannot be written later are only counted).
    WriteFailed {
        /// Which.
        path: PathBuf,
        /// Why.
        error: String,
    },
}

enum Listener {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
    Vsock(VsockListener),
}

impl Listener {
    fn bind(address: &Address) -> io::Result<(Self, Address)> {
        Ok(match address {
            Address::Unix(path) => {
                let listener = bind_unix(path)?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
                listener.set_nonblocking(true)?;
                (Self::Unix(listener, path.clone()), address.clone())
            }
            Address::Tcp(socket) => {
                let listener = TcpListener::bind(socket)?;
                listener.set_nonblocking(true)?;
                let address = Address::Tcp(listener.local_addr()?);
                (Self::Tcp(listener), address)
            }
            Address::Vsock(cid, port) => {
                let listener = VsockListener::bind(&VsockAddr::new(*cid, *port))?;
                listener.set_nonblocking(true)?;
                let bound = listener.local_addr()?;
                (Self::Vsock(listener), Address::Vsock(bound.cid(), bound.port()))
            }
            // QEMU connects the port's other end to a Unix socket.
            Address::Port(_) => return Err(io::ErrorKind::Unsupported.into()),
        })
    }

    fn accept(&self) -> io::Result<Stream> {
        let stream = match self {
            Self::Unix(listener, _) => Stream::Unix(listener.accept()?.0),
            Self::Tcp(listener) => {
                let stream = listener.accept()?.0;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Self::Vsock(listener) => Stream::Vsock(listener.accept()?.0),
        };
        match &stream {
            Stream::Unix(s) => s.set_nonblocking(false)?,
            Stream::Tcp(s) => s.set_nonblocking(false)?,
            Stream::Vsock(s) => s.set_nonblocking(false)?,
            Stream::Port(_) => {}
        }
        Ok(stream)
    }

    /// Waits for a connection for at most a tenth of a second.
    fn wait(&self) {
        let fd = match self {
            Self::Unix(listener, _) => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
            Self::Vsock(listener) => listener.as_fd(),
        };
        let tenth = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let _ = rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&tenth));
    }
}

/// Takes over the socket of a collector that was killed.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let refused = |e: &io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
            let is_socket = fs::symlink_metadata(path)?.file_type().is_socket();
            if !is_socket || !UnixStream::connect(path).is_err_and(|e| refused(&e)) {
                return Err(error);
            }
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        other => other,
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = fs::remove_file(path);
        }
    }
}

/// A collector at work. Dropped without [`Collector::close`], it leaves the record as a crash would: readable.
pub struct Collector {
    addresses: Vec<Address>,
    dir: PathBuf,
    panels: Arc<BTreeMap<Panel, PanelState>>,
    closing: Arc<AtomicBool>,
    events: Receiver<CollectorEvent>,
    markers: Arc<Mutex<Vec<Marker>>>,
    /// Kept until the end: the writer ends with the last of them.
    jobs: Option<SyncSender<Job>>,
    accepting: Vec<JoinHandle<()>>,
    writing: Option<JoinHandle<Written>>,
}

impl Collector {
    /// Listens and starts the threads.
    ///
    /// # Errors
    /// The address is taken or needs a token.
    pub fn start(options: CollectorOptions) -> Result<Self, CollectorError> {
        let mut listeners = Vec::new();
        for address in std::iter::once(&options.address).chain(&options.also) {
            if address.is_wide() && options.token.is_none() {
                return Err(CollectorError::NeedsToken(address.clone()));
            }
            let listener = Listener::bind(address)
                .map_err(|source| CollectorError::Listen { address: address.clone(), source })?;
            listeners.push(listener);
        }
        let (tell, events) = mpsc::channel();
        let (jobs, work) = mpsc::sync_channel(QUEUE);
        let panels: Arc<BTreeMap<_, _>> = Arc::new(Panel::ALL.map(|p| (p, PanelState::default())).into());
        let closing = Arc::new(AtomicBool::new(false));
        let writer = Writer::new(options.dir.clone(), options.batch, tell.clone());
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        let writing =
            thread("record-writer").spawn(move || writer.run(&work)).map_err(CollectorError::Thread)?;
        let markers = Arc::default();
        let context = Context {
            panels: Arc::clone(&panels),
            record: options.record,
            token: options.token,
            events: tell,
            jobs: jobs.clone(),
            closing: Arc::clone(&closing),
            markers: Arc::clone(&markers),
            wishes: Arc::default(),
        };
        let mut this = Self {
            addresses: Vec::new(),
            dir: options.dir,
            panels,
            closing,
            events,
            markers,
            jobs: Some(jobs),
            accepting: Vec::new(),
            writing: Some(writing),
        };
        for (listener, address) in listeners {
            let context = context.clone();
            let accepting = thread("record-accept")
                .spawn(move || accept(&listener, &context))
                .map_err(CollectorError::Thread)?;
            this.accepting.push(accepting);
            this.addresses.push(address);
        }
        // Without it a third party has to be told where the collector is.
        let _ = fs::write(this.dir.join(CONTROL), this.address().to_string());
        Ok(this)
    }

    /// Where agents find it: the first place.
    pub fn address(&self) -> &Address {
        &self.addresses[0]
    }

    /// All places where it listens, with ports that were any.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The next event, or `None` when none came in time.
    pub fn next_event(&self, timeout: Duration) -> Option<CollectorEvent> {
        self.events.recv_timeout(timeout).ok()
    }

    /// Rows received of a panel's table so far.
    pub fn rows(&self, panel: Panel, table: &str) -> u64 {
        self.panels.get(&panel).and_then(|p| locked(&p.rows).get(table).copied()).unwrap_or(0)
    }

    /// For how long nothing has been heard of a panel's program; `None` while none is connected. A program answers at
    /// least twice a second.
    pub fn silence(&self, panel: Panel) -> Option<Duration> {
        self.panels.get(&panel).and_then(|p| p.silence(AGENT))
    }

    /// Adds a marker to the record.
    pub fn mark(&self, marker: Marker) {
        if let (Some(jobs), Ok(line)) = (&self.jobs, serde_json::to_string(&marker)) {
            let _ = jobs.send(Job::Journal { line, done: None });
        }
        locked(&self.markers).push(marker);
    }

    /// Asks a panel's program to finish.
    pub fn request_stop(&self, panel: Panel) {
        if let Some(state) = self.panels.get(&panel) {
            state.stop.store(true, Ordering::Release);
        }
    }

    /// Ends the run: hears the last of the agents, writes what is left, turns every table into Parquet and writes
    /// `run.toml`. `facts` has everything but panels, their markers and clocks. When a table cannot be converted (the
    /// disk is full), it stays as it is, and `run.toml` says so.
    ///
    /// # Errors
    /// `run.toml` cannot be written.
    pub fn close(mut self, mut facts: RunFacts) -> Result<RunFacts, CollectorError> {
        let written = self.shut_down();
        self.gather(&mut facts, &written);
        let mut unconverted: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for stem in written.rows.keys() {
            if let Err(error) = files::to_parquet(&self.dir, stem) {
                unconverted.entry(error.cause()).or_default().push(stem);
            }
        }
        for (cause, stems) in unconverted {
            not_converted(&mut facts, &cause, &stems);
        }
        facts::write_run(&self.dir.join("run.toml"), &facts)?;
        let _ = fs::remove_file(self.dir.join(CONTROL));
        // Everything in it is in run.toml now.
        let _ = fs::remove_file(self.dir.join(JOURNAL));
        Ok(facts)
    }

    fn shut_down(&mut self) -> Written {
        for state in self.panels.values() {
            state.stop.store(true, Ordering::Release);
        }
        let deadline = std::time::Instant::now() + FAREWELL;
        let connected = |panels: &BTreeMap<Panel, PanelState>| panels.values().any(PanelState::connected);
        while connected(&self.panels) && std::time::Instant::now() < deadline {
            // Every end of a connection is an event.
            let _ = self.events.recv_timeout(Duration::from_millis(50));
        }
        self.closing.store(true, Ordering::Release);
        for state in self.panels.values() {
            for (_, source) in state.sources() {
                if let Some(stream) = locked(&source.stream).take() {
                    stream.shutdown();
                }
            }
        }
        self.jobs = None;
        for thread in self.accepting.drain(..) {
            let _ = thread.join();
        }
        self.writing.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }

    fn gather(&self, facts: &mut RunFacts, written: &Written) {
        facts.markers.append(&mut locked(&self.markers));
        for (panel, state) in self.panels.iter() {
            let clock = locked(&state.clock).estimate();
            let aligned = |t: i64| clock.as_ref().map_or(t, |c| c.to_collector(t));
            let mut sources = state.sources();
            // The panel's program comes first, before agents that only watch it.
            sources.sort_by_key(|(name, source)| (name == AGENT, source.order));
            for (i, (name, source)) in sources.into_iter().enumerate() {
                let mut panel_facts = locked(&source.facts).clone();
                panel_facts.clock.clone_from(&clock);
                if i == 0 {
                    let prefix = format!("{panel}.");
                    let unwritten =
                        written.lost.iter().filter_map(|(stem, n)| Some((stem.strip_prefix(&prefix)?, n)));
                    for (table, count) in unwritten {
                        *panel_facts.lost.entry(table.to_owned()).or_default() += count;
                    }
                    let overrun = state.overrun.load(Ordering::Relaxed);
                    if overrun > 0 {
                        panel_facts.lost.insert("(collector overrun)".into(), overrun);
                    }
                }
                facts.markers.extend(locked(&source.markers).iter().map(|(t_ns, kind, text)| Marker {
                    t_ns: aligned(*t_ns),
                    panel: Some(*panel),
                    kind: kind.clone(),
                    text: text.clone(),
                }));
                let key = if i == 0 { panel.name().to_owned() } else { format!("{panel}/{name}") };
                facts.panels.insert(key, panel_facts);
            }
        }
        facts.markers.sort_by_key(|m| m.t_ns);
    }

    /// The run's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if self.writing.is_some() {
            self.shut_down();
        }
    }
}

/// Says once for all tables, and not again where the run failed for the same cause.
fn not_converted(facts: &mut RunFacts, cause: &str, stems: &[&str]) {
    let mut what = match stems {
        [one] => format!("{one} was not converted to Parquet"),
        [first, rest @ ..] => format!("{first} and {} more tables were not converted to Parquet", rest.len()),
        [] => return,
    };
    if !facts.reason.contains(cause) {
        what = format!("{what}: {cause}");
    }
    facts.reason = if facts.reason.is_empty() { what } else { format!("{}; {what}", facts.reason) };
    if facts.status == RunStatus::Complete {
        facts.status = RunStatus::Failed;
    }
}

fn accept(listener: &Listener, context: &Context) {
    let mut serving: Vec<JoinHandle<()>> = Vec::new();
    while !context.closing.load(Ordering::Acquire) {
        match listener.accept() {
            Ok(stream) => {
                serving.retain(|thread| !thread.is_finished());
                let context = context.clone();
                let thread = std::thread::Builder::new().name("record-agent".into());
                match thread.spawn(move || serve(stream, &context)) {
                    Ok(thread) => serving.push(thread),
                    Err(error) => tracing::warn!("an agent cannot be served: {error}"),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => listener.wait(),
            Err(error) => {
                tracing::debug!("accept: {error}");
                listener.wait();
            }
        }
    }
    for thread in serving {
        let _ = thread.join();
    }
}
