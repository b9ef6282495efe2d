//! An encoder in a process of its own, seen from the guest.
//!
//! Frames pass through a [`FramePool`], control and units through a socket pair; the worker is the guest's own program
//! started again (`encoder-worker`). When it dies, the socket ends and [`Worker::receive`] says so at once; a dead
//! worker is started again up to [`MAX_RESTARTS`] times within [`RESTART_WINDOW`]. When the guest dies, the kernel
//! kills the worker.
//!
//! Nothing here blocks: starting takes a while, during which [`Worker::can_take`] is false.

mod process;
mod wire;

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use thiserror::Error;
use units::Nanos;

pub use process::run;
pub use wire::WireError;
use wire::{Configure, Failure, Inbox, Message};

use crate::encode::{EncodeError, EncoderSettings, InForce, Rates, Unit};
use crate::frame::FramePool;
use crate::memory::MemoryError;

/// Frames that may be within the encoder: one being encoded, one waiting so that the encoder need not.
pub const MAX_IN_FLIGHT: usize = 2;
/// Slots of the pool: those in flight and one to capture into.
pub const SLOTS: usize = MAX_IN_FLIGHT + 1;
/// How often a worker is started again within [`RESTART_WINDOW`]; an encoder that dies more often than that will not
/// get better.
pub const MAX_RESTARTS: usize = 3;
/// See [`MAX_RESTARTS`].
pub const RESTART_WINDOW: Nanos = Nanos(10_000_000_000);
/// An encoder that holds frames back this long buffers them, or hangs.
pub const STALL: Nanos = Nanos(5_000_000_000);

/// How to start the worker's process.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program; for the guest `/proc/self/exe`.
    pub program: PathBuf,
    /// Its arguments before `--parent PID`.
    pub arguments: Vec<String>,
}

/// What happened in the worker.
#[derive(Debug)]
pub enum WorkerEvent {
    /// It takes frames now, or has changed its rates ([`Worker::change`]); what it reads back from the encoder.
    Ready(InForce),
    /// It has not changed its rates, and why; it goes on as before.
    Refused(String),
    /// A frame is encoded.
    Unit(Unit),
    /// It died, and is being started again; frames within it are lost. The reason is for people.
    Restarted {
        /// `encoder x264enc died: signal 9`
        reason: String,
        /// Restarts within the window, this one included.
        restarts: usize,
    },
}

/// Why there is no encoder any more.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// The process cannot be started.
    #[error("encoder's process cannot be started")]
    Start(#[source] io::Error),
    /// No memory for frames.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The encoder refused its settings, is not installed or broke.
    #[error("{reason}")]
    Encoder {
        /// What it said.
        reason: String,
        /// Whether something must be installed.
        missing: bool,
        /// Whether the settings are wrong.
        usage: bool,
    },
    /// It died too often.
    #[error("{reason}; it died {deaths} times within {} s, so it is not started again: choose another encoder or settings",
        RESTART_WINDOW.0 / 1_000_000_000)]
    Dead {
        /// The last reason.
        reason: String,
        /// Deaths within the window.
        deaths: usize,
    },
    /// It holds frames back.
    #[error(
        "encoder {element} gave nothing for {waited}: it hangs, or buffers frames (unset B-frames and lookahead)"
    )]
    Stalled {
        /// The element.
        element: String,
        /// How long.
        waited: Nanos,
    },
}

/// Why rates were not changed.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// They do not fit.
    #[error(transparent)]
    Rates(#[from] EncodeError),
    /// No process can be started for them.
    #[error("encoder's process cannot be started")]
    Start(#[source] io::Error),
}

struct Running {
    child: Child,
    socket: UnixStream,
    inbox: Inbox,
    ready: bool,
    /// Number and slot of the frames within, oldest first, with the instant they went in.
    in_flight: VecDeque<(u64, usize, Nanos)>,
}

/// The encoder, whatever process it is in at present.
pub struct Worker {
    launch: Launch,
    settings: EncoderSettings,
    pool: FramePool,
    running: Running,
    deaths: VecDeque<Nanos>,
    /// Settings before a change that the encoder has not answered.
    before: Option<EncoderSettings>,
}

impl Worker {
    /// Starts the encoder's process. Whether the encoder likes its settings comes later, from [`Worker::receive`].
    ///
    /// # Errors
    /// No process or no memory.
    pub fn start(launch: Launch, settings: EncoderSettings) -> Result<Self, WorkerError> {
        let pool = FramePool::new(settings.size, SLOTS)?;
        let running = Running::start(&launch, &settings, &pool).map_err(WorkerError::Start)?;
        Ok(Self { launch, settings, pool, running, deaths: VecDeque::new(), before: None })
    }

    /// The frames' pool, for a source to write to.
    pub fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }

    /// The encoder's process at present.
    pub fn pid(&self) -> u32 {
        self.running.child.id()
    }

    /// Frames handed over whose unit has not come.
    pub fn in_flight(&self) -> usize {
        self.running.in_flight.len()
    }

    /// What the encoder is asked to do at present.
    pub fn settings(&self) -> &EncoderSettings {
        &self.settings
    }

    /// Whether a change has not been answered; there may be no other meanwhile.
    pub fn is_changing(&self) -> bool {
        self.before.is_some()
    }

    /// Asks for other rates; the answer is [`WorkerEvent::Ready`] or [`WorkerEvent::Refused`]. True when the encoder must
    /// be started anew for it: frames within it are lost, and its next one is a keyframe.
    ///
    /// # Errors
    /// The rates do not fit; nothing is changed.
    ///
    /// # Panics
    /// A change is under way, see [`Worker::is_changing`].
    pub fn change(&mut self, rates: Rates) -> Result<bool, ChangeError> {
        assert!(!self.is_changing(), "one change at a time");
        let settings = self.settings.with(rates)?;
        // An encoder that is still starting would take the order for garbage.
        let live =
            self.running.ready && (settings.is_live() || rates.bitrate_kbps == self.settings.bitrate_kbps);
        if live {
            // As with frames: a worker that is gone is noticed by `receive`, and the next one has the new settings.
            let _ = self.running.socket.write_all(&Message::Change(rates).encode());
        } else {
            self.running = Running::start(&self.launch, &settings, &self.pool).map_err(ChangeError::Start)?;
        }
        self.before = Some(std::mem::replace(&mut self.settings, settings));
        Ok(!live)
    }

    /// A slot that the guest may write to now, if the encoder could take its frame at once.
    pub fn can_take(&self) -> Option<usize> {
        let within = &self.running.in_flight;
        if !self.running.ready || within.len() >= MAX_IN_FLIGHT {
            return None;
        }
        (0..SLOTS).find(|slot| within.iter().all(|(_, used, _)| used != slot))
    }

    /// Hands over the frame in `slot`, which came from [`Worker::can_take`]; `id` must grow from call to call.
    ///
    /// A worker that is gone is noticed by [`Worker::receive`], not here.
    pub fn submit(&mut self, slot: usize, id: u64, force_keyframe: bool, now: Nanos) {
        let message = Message::Frame { slot: slot as u32, id, force_keyframe }.encode();
        self.running.in_flight.push_back((id, slot, now));
        // 19 bytes with at most MAX_IN_FLIGHT messages unread always fit the socket's buffer.
        if let Err(error) = self.running.socket.write_all(&message) {
            tracing::debug!("frame {id} could not be handed over: {error}");
        }
    }

    /// What the worker said since; to be called when its descriptor can be read, and from time to time (it notices
    /// stalls). `None`: nothing more at present.
    ///
    /// # Errors
    /// There is no encoder any more.
    pub fn receive(&mut self, now: Nanos) -> Result<Option<WorkerEvent>, WorkerError> {
        loop {
            match self.running.inbox.next() {
                Ok(Some(message)) => {
                    if let Some(event) = self.understand(message, now)? {
                        return Ok(Some(event));
                    }
                    continue;
                }
                Ok(None) => {}
                Err(garbled) => return self.bury(Some(garbled.to_string()), now).map(Some),
            }
            match self.running.inbox.fill(&self.running.socket) {
                Ok(0) => return self.bury(None, now).map(Some),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return self.bury(None, now).map(Some),
            }
        }
        match self.running.in_flight.front() {
            Some((_, _, since)) if now - *since > STALL => {
                Err(WorkerError::Stalled { element: self.settings.element().into(), waited: now - *since })
            }
            _ => Ok(None),
        }
    }

    fn understand(&mut self, message: Message, now: Nanos) -> Result<Option<WorkerEvent>, WorkerError> {
        match message {
            Message::Ready(in_force) if !self.running.ready || self.is_changing() => {
                self.running.ready = true;
                self.before = None;
                Ok(Some(WorkerEvent::Ready(in_force)))
            }
            Message::Unit(unit) => {
                let Some(position) = self.running.in_flight.iter().position(|(id, _, _)| *id == unit.id)
                else {
                    return self
                        .bury(Some(format!("a unit of frame {} that it was not given", unit.id)), now)
                        .map(Some);
                };
                // Units come in order: frames before this one have none.
                self.running.in_flight.drain(..=position);
                Ok(Some(WorkerEvent::Unit(unit)))
            }
            Message::Failed(Failure { reason, usage: true, .. }) if self.is_changing() => {
                if let Some(before) = self.before.take() {
                    self.settings = before;
                }
                if !self.running.ready {
                    let (launch, settings) = (&self.launch, &self.settings);
                    self.running =
                        Running::start(launch, settings, &self.pool).map_err(WorkerError::Start)?;
                }
                Ok(Some(WorkerEvent::Refused(reason)))
            }
            Message::Failed(Failure { reason, missing, usage }) => {
                Err(WorkerError::Encoder { reason, missing, usage })
            }
            other => self.bury(Some(format!("an unexpected message ({other:?})")), now).map(Some),
        }
    }

    /// Ends what is left of the process, says why it died, and starts the next one if there may be one.
    fn bury(&mut self, nonsense: Option<String>, now: Nanos) -> Result<WorkerEvent, WorkerError> {
        let element = self.settings.element();
        let reason = match nonsense {
            Some(said) => {
                self.running.end();
                format!("encoder {element} went wrong: it said {said}")
            }
            None => {
                format!("encoder {element} died: {}", self.running.end().map_or("no status".into(), describe))
            }
        };
        self.deaths.push_back(now);
        while self.deaths.front().is_some_and(|at| now - *at > RESTART_WINDOW) {
            self.deaths.pop_front();
        }
        let deaths = self.deaths.len();
        if deaths > MAX_RESTARTS {
            return Err(WorkerError::Dead { reason, deaths });
        }
        self.running =
            Running::start(&self.launch, &self.settings, &self.pool).map_err(WorkerError::Start)?;
        Ok(WorkerEvent::Restarted { reason, restarts: deaths })
    }
}

impl AsFd for Worker {
    /// Readable when [`Worker::receive`] has something; another one after [`WorkerEvent::Restarted`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.running.socket.as_fd()
    }
}

impl Running {
    fn start(launch: &Launch, settings: &EncoderSettings, pool: &FramePool) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new(&launch.program)
            .args(&launch.arguments)
            .args(["--parent", &std::process::id().to_string()])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            // Ctrl-C on a terminal is for the guest to handle, which then ends the worker.
            .process_group(0)
            .spawn()?;
        let mut running =
            Self { child, socket: ours, inbox: Inbox::default(), ready: false, in_flight: VecDeque::new() };
        // A worker that dies at once is noticed by `receive`.
        match running.configure(settings, pool) {
            Err(e) if !matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                return Err(e);
            }
            _ => {}
        }
        running.socket.set_nonblocking(true)?;
        Ok(running)
    }

    fn configure(&mut self, settings: &EncoderSettings, pool: &FramePool) -> io::Result<()> {
        let configure = Configure { settings: settings.clone(), size: pool.size(), slots: pool.slots() };
        let bytes = Message::Configure(Box::new(configure)).encode();
        let fds = [pool.memory().as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let sent =
            rustix::net::sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
        (&self.socket).write_all(&bytes[sent..])
    }

    /// Kills the process if it still runs and waits for it (which is short: it is dead or was just killed).
    fn end(&mut self) -> Option<ExitStatus> {
        // The socket's end may be seen a moment before the process can be waited for, and how it died of itself must
        // not be hidden by our own signal: wait for it shortly.
        let own = self.wait_shortly();
        if own.is_some() {
            return own;
        }
        let _ = self.child.kill();
        self.child.wait().ok()
    }

    fn wait_shortly(&mut self) -> Option<ExitStatus> {
        let pid = rustix::process::Pid::from_child(&self.child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
        let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        let limit = rustix::time::Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
        let _ = rustix::event::poll(&mut fds, Some(&limit));
        self.child.try_wait().ok()?
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(code)) => format!("exit status {code}"),
        (None, None) => "unknown status".into(),
    }
}
