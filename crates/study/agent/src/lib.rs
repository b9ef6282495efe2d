//! What reports to a collector: a thread in each of our programs ([`start`]), and the agent of a machine ([`recorder`]).
//!
//! The thread in a program drains its probe, samples the process, answers the collector's clock exchanges and reports;
//! when the collector goes away the program is told to stop ([`AgentHandle::stop_requested`]). The agent of a machine
//! takes samplers and the rings of other programs, and outlives collectors and connections.
//!
//! `agent → recording`: rows and samples go to a collector as they are. No async runtime, one thread, no lock shared
//! with a program's hot path.

pub mod catalogue;
pub mod devices;
mod gather;
mod link;
mod machine;
mod outbox;
mod process;
mod program;
pub mod recorder;
mod rings;
pub mod sampler;
pub mod samplers;
pub mod services;
mod settings;
pub mod steps;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use probe::Probe;
use recording::Address;
use recording::spec::Panel;
pub use recording::wire::Ready;
use recording::wire::{Hello, Message, PROTOCOL};
use thiserror::Error;
use units::{Clock, MonotonicClock, Nanos};

use link::{Introduction, Link};
use outbox::Outbox;
use program::Program;
pub use settings::Wish;
use worker::{Manner, Order, Worker};

/// How an agent is to work.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The collector.
    pub collector: Address,
    /// The panel that the program stands for.
    pub panel: Panel,
    /// Name of the program.
    pub program: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Also sample the machine as a whole.
    pub machine: bool,
    /// The longest time between two drains of the probe.
    pub drain_every: Duration,
    /// What the collector asks for when it listens beyond loopback.
    pub token: Option<String>,
    /// The program changes settings while it runs, see [`AgentHandle::next_wish`].
    pub settings: bool,
}

/// Most bytes that wait to be sent while the collector takes nothing.
const KEEP: usize = 64 << 20;

impl AgentOptions {
    /// For a program on a panel: no machine samples, no token. Rows are sent when the collector asks for the time, twice
    /// a second, or at the latest after 0.55 s, which with the collector's batch of 0.4 s keeps below a second what is
    /// lost when the collector is killed.
    pub fn new(collector: Address, panel: Panel, program: &'static str, version: &'static str) -> Self {
        let drain_every = Duration::from_millis(550);
        Self { collector, panel, program, version, machine: false, drain_every, token: None, settings: false }
    }
}

/// An agent could not start.
#[derive(Debug, Error)]
pub enum AgentError {
    /// Nobody listens.
    #[error("no collector at {address}")]
    Connect {
        /// Where it was looked for.
        address: Address,
        /// Why it was not reached.
        source: std::io::Error,
    },
    /// The agent's own tables clash with the program's.
    #[error("the agent's tables")]
    Table(#[from] probe::TableError),
    /// No more threads or file descriptors.
    #[error("the agent cannot start")]
    System(#[source] std::io::Error),
}

/// An agent at work. Dropped, it says good-bye as [`AgentHandle::finish`] does.
pub struct AgentHandle {
    orders: Option<Sender<Order>>,
    wake: std::os::unix::net::UnixStream,
    stop: Arc<AtomicBool>,
    wishes: Option<std::sync::mpsc::Receiver<Wish>>,
    thread: Option<JoinHandle<()>>,
}

/// Connects to the collector and starts the agent's thread.
///
/// # Errors
/// Nobody listens there, or the system has no more threads.
pub fn start(options: AgentOptions, probe: &Probe) -> Result<AgentHandle, AgentError> {
    let stream = options
        .collector
        .connect()
        .map_err(|source| AgentError::Connect { address: options.collector.clone(), source })?;
    let (orders, inbox) = mpsc::channel();
    let (wake, woken) = std::os::unix::net::UnixStream::pair().map_err(AgentError::System)?;
    wake.set_nonblocking(true).map_err(AgentError::System)?;
    woken.set_nonblocking(true).map_err(AgentError::System)?;
    let stop = Arc::new(AtomicBool::new(false));
    let hello = introduction(options.panel, options.program, options.version, options.token.clone());
    let outbox = Outbox::new(hello.session, KEEP);
    let feed = Program::new(&options, probe)?;
    let who = Introduction { collector: options.collector, hello, persistent: false };
    let ours = wake.try_clone().map_err(AgentError::System)?;
    let link = Link::connected(who, ours, stream, &outbox).map_err(AgentError::System)?;
    let (wishes, wanted) = mpsc::channel();
    let (wishes, wanted) = if options.settings { (Some(wishes), Some(wanted)) } else { (None, None) };
    let (manner, told) = (Manner::OneRecord, Arc::clone(&stop));
    let worker = Worker { link, outbox, feed, manner, inbox, woken, stop: told, wishes };
    let thread = std::thread::Builder::new()
        .name("agent".into())
        .spawn(move || worker.run())
        .map_err(AgentError::System)?;
    Ok(AgentHandle { orders: Some(orders), wake, stop, wishes: wanted, thread: Some(thread) })
}

/// Who this process is.
fn introduction(panel: Panel, program: &str, version: &str, token: Option<String>) -> Hello {
    Hello {
        protocol: PROTOCOL,
        panel,
        program: program.into(),
        version: version.into(),
        pid: std::process::id(),
        source: program.into(),
        session: session(),
        oldest: 0,
        next: 0,
        record: String::new(),
        boot_id: boot_id(),
        token,
    }
}

/// A number that no other count of entries has: of this process, at this instant.
pub(crate) fn session() -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(&(std::process::id(), MonotonicClock.now().0, boot_id()), &mut hasher);
    std::hash::Hasher::finish(&hasher)
}

/// Which start of which machine this is.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

impl AgentHandle {
    /// The program is in the state asked for. May be said again when something has changed.
    pub fn ready(&self, ready: Ready) {
        self.order(Order::Send(Message::Ready(ready)));
    }

    /// The program cannot go on, and why.
    pub fn fault(&self, reason: &str) {
        self.order(Order::Send(Message::Fault { reason: reason.into() }));
    }

    /// Something happened just now.
    pub fn mark(&self, kind: &str, text: &str) {
        let Nanos(t_ns) = MonotonicClock.now();
        self.order(Order::Send(Message::Marker { t_ns, kind: kind.into(), text: text.into() }));
    }

    /// A setting that somebody wants changed now; to be answered with [`AgentHandle::applied`] or
    /// [`AgentHandle::refused`]. Only where [`AgentOptions::settings`] was set.
    pub fn next_wish(&self) -> Option<Wish> {
        self.wishes.as_ref()?.try_recv().ok()
    }

    /// What was wished for is in force now, as `level`.
    pub fn applied(&self, wish: &Wish, level: recording::spec::Level) {
        self.order(Order::Send(wish.applied(level)));
    }

    /// What was wished for is not done, and why.
    pub fn refused(&self, wish: &Wish, why: &str) {
        self.order(Order::Send(wish.refused(why)));
    }

    /// True once the collector has asked to finish, or has gone away.
    pub fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The same as a flag, to look at in loops.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Drains and samples for the last time, says good-bye, and waits until all of it has gone out.
    pub fn finish(mut self) {
        self.end();
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
            // A full pipe means that the worker is being woken already.
            let _ = std::io::Write::write(&mut &self.wake, &[1]);
        }
    }

    fn end(&mut self) {
        self.order(Order::Finish);
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for AgentHandle {
    fn drop(&mut self) {
        self.end();
    }
}
