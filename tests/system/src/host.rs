//! A running `triptych-host`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{PATIENCE, Running, program};

/// What passed a host since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Frames that libspice-server read.
    pub frames: u64,
    /// Bytes from guests.
    pub from_guest_bytes: u64,
    /// Bytes to clients.
    pub to_client_bytes: u64,
    /// Open display channels.
    pub viewers: u64,
}

/// The real `triptych-host` on a port and a socket of its own.
pub struct Host {
    running: Running,
    stream: PathBuf,
    spice_port: u16,
    _folder: TempDir,
}

impl Host {
    /// Starts one with further arguments and waits until it is ready.
    ///
    /// # Errors
    /// It was not ready in time.
    pub fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let stream = folder.path().join("stream.sock");
        let mut command = Command::new(program("triptych-host"));
        command
            .arg("--stream")
            .arg(format!("unix:{}", stream.display()))
            .args(["--json", "--stats"])
            .args(arguments);
        let running = Running::spawn_reading(command)?;
        let ready: Value = serde_json::from_str(&running.line(Instant::now() + PATIENCE)?)?;
        let port = ready["spice_port"].as_u64().and_then(|p| u16::try_from(p).ok());
        let spice_port = port.with_context(|| format!("not the line that tells the port: {ready}"))?;
        Ok(Self { running, stream, spice_port, _folder: folder })
    }

    /// The socket for guests.
    pub fn stream_socket(&self) -> &Path {
        &self.stream
    }

    /// The port for clients.
    pub fn spice_port(&self) -> u16 {
        self.spice_port
    }

    /// Waits for an event such as `guest-connected` and gives its text. Events before it are used up.
    ///
    /// # Errors
    /// It did not come in time.
    pub fn event(&self, kind: &str) -> anyhow::Result<String> {
        self.event_of(&[kind])
    }

    /// As [`Host::event`], for any of several.
    ///
    /// # Errors
    /// None came in time.
    pub fn event_of(&self, kinds: &[&str]) -> anyhow::Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.running.line(deadline).with_context(|| format!("while waiting for {kinds:?}"))?;
            let value: Value = serde_json::from_str(&line)?;
            if value["event"].as_str().is_some_and(|kind| kinds.contains(&kind)) {
                return Ok(value["text"].as_str().unwrap_or_default().to_owned());
            }
        }
    }

    /// What has passed until now. Events not waited for are used up.
    ///
    /// # Errors
    /// The host is gone.
    pub fn totals(&self) -> anyhow::Result<Totals> {
        while self.running.line(Instant::now()).is_ok() {}
        self.running.signal(Signal::USR1)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value: Value = serde_json::from_str(&self.running.line(deadline)?)?;
            let number = |name: &str| value[name].as_u64();
            if let (Some(frames), Some(from_guest_bytes), Some(to_client_bytes), Some(viewers)) =
                (number("frames"), number("from_guest_bytes"), number("to_client_bytes"), number("viewers"))
            {
                return Ok(Totals { frames, from_guest_bytes, to_client_bytes, viewers });
            }
        }
    }

    /// Frames that have passed until now; 0 when the host is gone.
    pub fn frames_seen(&self) -> u64 {
        self.totals().map_or(0, |t| t.frames)
    }

    /// Ends it as a person would and checks that it ends well.
    ///
    /// # Errors
    /// It ended badly or not at all.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.running.signal(Signal::TERM)?;
        let status = self.running.wait(Duration::from_secs(10))?;
        if !status.success() {
            bail!("triptych-host ended with {status}");
        }
        if self.stream.exists() {
            bail!("triptych-host left {} behind", self.stream.display());
        }
        Ok(())
    }
}
