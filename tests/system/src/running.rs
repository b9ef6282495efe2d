//! A child process that does not outlive its test.

#![allow(unsafe_code)] // pre_exec, the only way to set PR_SET_PDEATHSIG in the child

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, set_parent_process_death_signal};

/// Time to end by itself after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);

/// A running child; ended when dropped (SIGTERM, then SIGKILL).
pub struct Running {
    name: String,
    child: Child,
    stdout: Option<Receiver<String>>,
}

impl Running {
    /// Starts a command with its streams as they are set.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(mut command: Command) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        // SAFETY: the closure makes one system call (prctl), allocates nothing and takes no lock.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child, stdout: None })
    }

    /// Starts a command whose lines on stdout are read.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn_reading(mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut running = Self::spawn(command)?;
        let stdout = running.child.stdout.take().context("stdout was not piped")?;
        let (lines, receiver) = channel();
        // Ends with the child, whose death closes the pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        running.stdout = Some(receiver);
        Ok(running)
    }

    /// The next line on stdout.
    ///
    /// # Errors
    /// None came in time, or stdout was closed.
    pub fn line(&self, deadline: Instant) -> anyhow::Result<String> {
        let lines = self.stdout.as_ref().context("stdout is not read")?;
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => bail!("{} said nothing in time", self.name),
            Err(RecvTimeoutError::Disconnected) => bail!("{} closed its stdout", self.name),
        }
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// It did not end in time.
    pub fn wait(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        let process = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        let timeout =
            Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: i64::from(patience.subsec_nanos()) };
        poll(&mut [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)], Some(&timeout))?;
        self.child.try_wait()?.with_context(|| format!("{} did not end within {patience:?}", self.name))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = self.signal(Signal::TERM);
        if self.wait(GRACE).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
