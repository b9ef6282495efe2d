//! An X display of a run's own. Xvfb chooses a free number and says it once it serves (`-displayfd`, Xserver(1)).

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{ChildStdout, Command};
use std::time::{Duration, Instant};

use bench::SubjectError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use crate::process::Program;

/// Time for Xvfb to serve.
const START: Duration = Duration::from_secs(15);
/// A display number has at most this many bytes, its line end included.
const NUMBER: usize = 12;

pub(crate) struct Display {
    /// `:99`.
    pub(crate) name: String,
    program: Program,
}

impl Display {
    /// Starts a display of `size` (`640x360`) with 24-bit colour.
    pub(crate) fn start(size: &str, log: &Path) -> Result<Self, SubjectError> {
        let mut command = Command::new("Xvfb");
        command.args([
            "-displayfd",
            "1",
            "-screen",
            "0",
            &format!("{size}x24"),
            "-nolisten",
            "tcp",
            "-noreset",
        ]);
        // SIGTERM, not SIGKILL, when we die: Xvfb then removes its socket and lock file.
        let started = Program::start("Xvfb", command, log, Signal::TERM, true);
        let (mut program, stdout) = started.map_err(|error| match error {
            SubjectError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                SubjectError::Missing {
                    what: "Xvfb".into(),
                    remedy: "install the Debian package xvfb, or use source = \"scene\"".into(),
                }
            }
            other => other,
        })?;
        let number = stdout.and_then(|out| read_number(out, Instant::now() + START));
        match number {
            Some(number) => Ok(Self { name: format!(":{number}"), program }),
            None => {
                program.check_within(Duration::from_millis(500))?;
                Err(SubjectError::Setting(format!("Xvfb was not ready after {} s", START.as_secs())))
            }
        }
    }

    pub(crate) fn check(&mut self) -> Result<(), SubjectError> {
        self.program.check()
    }
}

/// One line of digits, or nothing when the pipe ends, the deadline passes or something else comes.
fn read_number(mut out: ChildStdout, until: Instant) -> Option<u32> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") && line.len() < NUMBER {
        let left = until.saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: left.as_secs().try_into().ok()?, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&out.as_fd(), PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return None,
        }
        let mut byte = [0; 1];
        if out.read(&mut byte).ok()? == 0 {
            return None;
        }
        line.extend(byte);
    }
    std::str::from_utf8(&line).ok()?.trim().parse().ok()
}
