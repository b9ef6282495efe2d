//! The agent of a machine: samplers and other programs' rings to a collector, for as long as it is let.
//!
//! It records whenever a collector does, and outlives it: a lost connection is made again, and what could not be sent
//! meanwhile is kept in memory up to a limit and, so that it survives the agent itself, in a file. What waits for one
//! record never goes into another.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use probe::reader::ReaderError;
use recording::collector::AGENT;
use recording::spec::Panel;
use recording::{Address, wire};
use thiserror::Error;

use crate::gather::Gather;
use crate::link::{Introduction, Link};
use crate::outbox::Outbox;
use crate::rings::Rings;
use crate::sampler::Sampler;
use crate::steps::{Mark, Reading, Steps};
use crate::worker::{Feed, Manner, Order, Worker};

/// How long rows of samplers are gathered before they are handed on.
const GATHER: Duration = Duration::from_millis(800);
/// Samplers that are due within this time are asked in the same wake-up.
const TOGETHER: Duration = Duration::from_millis(2);

/// How often the clocks of the machine are compared with one another.
const STEPS_EVERY: Duration = Duration::from_secs(1);

/// How an agent of a machine is to work.
pub struct RecorderOptions {
    /// The collector.
    pub collector: Address,
    /// The panel whose machine this is.
    pub panel: Panel,
    /// Tells several agents of one panel apart.
    pub source: String,
    /// What the collector asks for when it listens beyond loopback.
    pub token: Option<String>,
    /// What to sample, and the time between two samples of each.
    pub samplers: Vec<(Box<dyn Sampler>, Duration)>,
    /// Folder of other programs' rings ([`probe::default_folder`]); `None` leaves them alone.
    pub probes: Option<PathBuf>,
    /// Folder for what waits to be sent; `None` keeps it in memory only.
    pub spool: Option<PathBuf>,
    /// Most bytes that are kept while they cannot be sent; what comes then is counted as lost.
    pub keep: usize,
}

/// An agent could not start.
#[derive(Debug, Error)]
pub enum RecorderError {
    /// The folder of rings cannot be taken.
    #[error("the folder of probes: another agent may read it")]
    Probes(#[from] ReaderError),
    /// What an agent before has kept cannot be read, or nothing can be kept.
    #[error("cannot keep what waits to be sent in {}", path.display())]
    Spool {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No more threads or file descriptors.
    #[error("the agent cannot start")]
    System(#[source] io::Error),
}

/// An agent at work in a thread of its own. Dropped, it sends what it has and ends.
pub struct Recorder {
    stop: Arc<AtomicBool>,
    orders: Option<mpsc::Sender<Order>>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

/// Starts the agent's thread. It connects by itself, now and later.
///
/// # Errors
/// Another agent reads the rings or has the spool, the spool cannot be written, or the system has no more threads.
pub fn start(options: RecorderOptions) -> Result<Recorder, RecorderError> {
    let (wake, woken) = UnixStream::pair().map_err(RecorderError::System)?;
    wake.set_nonblocking(true).map_err(RecorderError::System)?;
    woken.set_nonblocking(true).map_err(RecorderError::System)?;
    let mut hello = crate::introduction(options.panel, AGENT, env!("CARGO_PKG_VERSION"), options.token);
    hello.source.clone_from(&options.source);
    let outbox = match &options.spool {
        None => Outbox::new(hello.session, options.keep),
        Some(dir) => spool(dir, &hello, options.keep)?,
    };
    let rings = options.probes.as_deref().map(Rings::open).transpose()?;
    let feed = Samplers::new(options.samplers, rings);
    let who = Introduction { collector: options.collector, hello, persistent: true };
    let link = Link::new(who, wake.try_clone().map_err(RecorderError::System)?);
    let (orders, inbox) = mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let (manner, told) = (Manner::Persistent, Arc::clone(&stop));
    let worker = Worker { link, outbox, feed, manner, inbox, woken, stop: told, wishes: None };
    let thread = std::thread::Builder::new()
        .name("agent".into())
        .spawn(move || {
            // Otherwise the kernel may add 50 us to each sleep. Where it refuses they are part of the lag that is told.
            let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
            worker.run();
        })
        .map_err(RecorderError::System)?;
    Ok(Recorder { stop, orders: Some(orders), wake, thread: Some(thread) })
}

/// One file for each panel and source, locked while its agent lives.
fn spool(dir: &Path, hello: &wire::Hello, keep: usize) -> Result<Outbox, RecorderError> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let name: String = hello.source.chars().take(64).map(plain).collect();
    let path = dir.join(format!("{}.{name}.outbox", hello.panel));
    let failed = |source| RecorderError::Spool { path: path.clone(), source };
    std::fs::create_dir_all(dir).map_err(failed)?;
    let (outbox, restored) = Outbox::open(&path, hello.session, keep).map_err(failed)?;
    if restored.entries > 0 || restored.torn > 0 {
        tracing::info!(
            "{} entries that were kept are sent; {} bytes were torn",
            restored.entries,
            restored.torn
        );
    }
    Ok(outbox)
}

impl Recorder {
    /// True once its thread has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Samples for the last time, sends what there is, says good-bye, and ends. What cannot be sent stays in the spool.
    pub fn finish(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.orders = None;
        // A full pipe means that the worker is being woken already.
        let _ = io::Write::write(&mut &self.wake, &[1]);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.end();
    }
}

struct Scheduled {
    sampler: Box<dyn Sampler>,
    every: Duration,
    next: Instant,
}

/// The feed of a machine's agent.
struct Samplers {
    samplers: Vec<Scheduled>,
    rings: Option<Rings>,
    gather: Gather,
    hand_on: Instant,
    steps: Steps,
    next_steps: Instant,
    recording: bool,
}

impl Samplers {
    fn new(samplers: Vec<(Box<dyn Sampler>, Duration)>, rings: Option<Rings>) -> Self {
        let now = Instant::now();
        let scheduled =
            samplers.into_iter().map(|(sampler, every)| Scheduled { sampler, every, next: now }).collect();
        Self {
            samplers: scheduled,
            rings,
            gather: Gather::default(),
            hand_on: now,
            steps: Steps::default(),
            next_steps: now,
            recording: false,
        }
    }

    fn sample(&mut self, now: Instant, all: bool) {
        for scheduled in &mut self.samplers {
            if all || now + TOGETHER >= scheduled.next {
                scheduled.sampler.sample(&mut self.gather);
                // Late samples are not made up for: their rows carry the instant.
                scheduled.next = (scheduled.next + scheduled.every).max(now);
            }
        }
    }
}

impl Feed for Samplers {
    fn begin(&mut self, outbox: &mut Outbox) {
        self.recording = true;
        self.steps = Steps::default();
        self.gather.begin();
        if let Some(rings) = &mut self.rings {
            rings.begin(outbox);
        }
        let now = Instant::now();
        for scheduled in &mut self.samplers {
            scheduled.next = now;
        }
    }

    fn due(&self) -> Instant {
        let rings = self.rings.as_ref().map(Rings::due);
        let samplers = self.samplers.iter().map(|s| s.next).min().filter(|_| self.recording);
        let far = Instant::now() + Duration::from_secs(1);
        rings.into_iter().chain(samplers).fold(far, Instant::min)
    }

    fn woken(&mut self, due: Instant) {
        let late = due.elapsed();
        self.samplers.iter_mut().for_each(|scheduled| scheduled.sampler.woken(late));
    }

    fn collect(&mut self, outbox: &mut Outbox, _awake: bool) {
        let now = Instant::now();
        if self.recording {
            self.sample(now, false);
            if now >= self.next_steps {
                self.next_steps = now + STEPS_EVERY;
                for Mark { t_ns, kind, text, .. } in self.steps.look(Reading::now()) {
                    outbox.message(&wire::Message::Marker { t_ns, kind: kind.into(), text });
                }
            }
            if now >= self.hand_on || self.gather.is_full() {
                self.gather.hand_on(outbox);
                outbox.tell_lost();
                self.hand_on = now + GATHER;
            }
        }
        if let Some(rings) = &mut self.rings {
            rings.collect(outbox);
        }
    }

    fn end(&mut self, outbox: &mut Outbox) {
        self.sample(Instant::now(), true);
        self.gather.hand_on(outbox);
        if let Some(rings) = &mut self.rings {
            rings.look(outbox);
        }
        self.recording = false;
    }
}
