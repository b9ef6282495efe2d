//! A running virtual machine.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tempfile::TempDir;
use thiserror::Error;

use crate::config::Config;
use crate::process;
use crate::qmp::{Qmp, QmpError};

const PROGRAM: &str = "qemu-system-x86_64";
/// Time from the start to the QMP connection, which is made before the guest runs.
const START: Duration = Duration::from_secs(30);
/// Somebody else may take the free port that was found: so often another one is tried.
const PORT_TRIES: usize = 4;
/// Bytes at the end of the log that an error shows.
const LOG_TAIL: u64 = 2000;

/// There is no machine, or not any more.
#[derive(Debug, Error)]
pub enum QemuError {
    /// QEMU is not installed.
    #[error("{PROGRAM} is not installed: install the Debian package qemu-system-x86")]
    Missing,
    /// It cannot be started.
    #[error("{PROGRAM} cannot be started")]
    Start(#[source] std::io::Error),
    /// It ended at once.
    #[error("QEMU ended with {status}; the end of {}:\n{tail}", log.display())]
    Ended {
        /// How.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The end of the log.
        tail: String,
    },
    /// It did not connect to its control socket.
    #[error("QEMU was not there after {} s; see {}", START.as_secs(), log.display())]
    Silent {
        /// Its log.
        log: PathBuf,
    },
    /// A file or socket that it needs.
    #[error("{what}")]
    Io {
        /// Which.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The control connection.
    #[error(transparent)]
    Qmp(#[from] QmpError),
}

/// A running virtual machine; killed when dropped.
pub struct Qemu {
    child: Child,
    qmp: Qmp,
    spice_port: Option<u16>,
    log: PathBuf,
    _control: TempDir,
}

impl Qemu {
    /// Starts one; returns once QEMU answers, when the guest begins to boot.
    ///
    /// # Errors
    /// QEMU is missing, refuses the configuration, or does not answer.
    pub fn launch(config: &Config) -> Result<Self, QemuError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match Self::try_launch(config) {
                Err(QemuError::Ended { tail, .. })
                    if tries < PORT_TRIES && tail.contains("ddress already in use") =>
                {
                    tracing::debug!("the SPICE port was taken meanwhile: {tail}");
                }
                other => return other,
            }
        }
    }

    fn try_launch(config: &Config) -> Result<Self, QemuError> {
        let io = |what: String| move |source| QemuError::Io { what, source };
        let control =
            tempfile::Builder::new().prefix("qmp-").tempdir().map_err(io("no folder for sockets".into()))?;
        let socket = control.path().join("qmp");
        let listener =
            UnixListener::bind(&socket).map_err(io(format!("cannot listen on {}", socket.display())))?;
        let open = || File::options().create(true).append(true).open(&config.log);
        let log = open().map_err(io(format!("cannot write {}", config.log.display())))?;
        let spice_port = config.spice.then(free_port).transpose().map_err(io("no free TCP port".into()))?;
        let mut command = Command::new(PROGRAM);
        command
            .args(config.arguments(&socket, spice_port))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let mut child = process::spawn(&mut command).map_err(|error| match error.kind() {
            ErrorKind::NotFound => QemuError::Missing,
            _ => QemuError::Start(error),
        })?;
        let connected = accept(&listener, &mut child, &config.log).and_then(|stream| {
            Qmp::greet(stream).map_err(|error| ended(&mut child, &config.log).unwrap_or(error.into()))
        });
        match connected {
            Ok(qmp) => Ok(Self { child, qmp, spice_port, log: config.log.clone(), _control: control }),
            Err(error) => {
                kill(&mut child);
                Err(error)
            }
        }
    }

    /// The control connection.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    /// Where SPICE clients connect on loopback.
    pub fn spice_port(&self) -> Option<u16> {
        self.spice_port
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The end of the guest's console and QEMU's messages.
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }

    /// Ends QEMU and waits for it.
    ///
    /// # Errors
    /// It does not answer or does not end.
    pub fn quit(mut self) -> Result<ExitStatus, QemuError> {
        self.qmp.quit()?;
        wait(&mut self.child, START)
            .map_err(QemuError::Start)?
            .ok_or_else(|| QemuError::Silent { log: self.log.clone() })
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        kill(&mut self.child);
    }
}

fn kill(child: &mut Child) {
    // It may have ended; then there is nothing to do but to collect it.
    let _ = child.kill();
    let _ = child.wait();
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The child's connection, or its end, whichever comes first.
fn accept(listener: &UnixListener, child: &mut Child, log: &Path) -> Result<UnixStream, QemuError> {
    let process =
        pidfd_open(Pid::from_child(child), PidfdFlags::empty()).map_err(|e| QemuError::Start(e.into()))?;
    let deadline = Instant::now() + START;
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN),
        ];
        let left = timespec(deadline.saturating_duration_since(Instant::now()));
        match poll(&mut fds, Some(&left)) {
            Ok(0) => return Err(QemuError::Silent { log: log.into() }),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(QemuError::Start(error.into())),
        }
        if !fds[0].revents().is_empty() {
            return listener.accept().map(|(stream, _)| stream).map_err(QemuError::Start);
        }
        if let Some(error) = ended(child, log) {
            return Err(error);
        }
    }
}

/// The error that tells why the child has ended, if it has or is about to.
fn ended(child: &mut Child, log: &Path) -> Option<QemuError> {
    let status = wait(child, Duration::from_secs(1)).ok().flatten()?;
    Some(QemuError::Ended { status, log: log.into(), tail: tail(log) })
}

fn wait(child: &mut Child, patience: Duration) -> std::io::Result<Option<ExitStatus>> {
    if let Some(status) = child.try_wait()? {
        return Ok(Some(status));
    }
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    poll(&mut [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)], Some(&timespec(patience)))?;
    child.try_wait()
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}

fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_or_else(|e| format!("({e})"), |bytes| String::from_utf8_lossy(&bytes).into_owned())
}
