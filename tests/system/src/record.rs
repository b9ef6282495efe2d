//! A collector in a folder of its own, and a client of ours that reports to it.

use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use recording::collector::{Collector, CollectorEvent, CollectorOptions};
use recording::reader::{Columns, read_table};
use recording::spec::Panel;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{PATIENCE, Running, program};

/// A record being made.
pub struct Record {
    collector: Collector,
    folder: TempDir,
}

impl Record {
    /// Starts a collector.
    ///
    /// # Errors
    /// It cannot listen.
    pub fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let address = format!("unix:{}", folder.path().join("collector").display()).parse()?;
        Ok(Self {
            collector: Collector::start(CollectorOptions::new(address, folder.path().to_owned()))?,
            folder,
        })
    }

    /// Arguments that make a program report as `panel`.
    pub fn arguments(&self, panel: Panel) -> Vec<String> {
        let address = self.collector.address().to_string();
        vec!["--collector".into(), address, "--panel".into(), panel.name().into()]
    }

    /// Waits until a panel has reported so many frames.
    ///
    /// # Errors
    /// It did not in time, or it said why it cannot.
    pub fn frames(&self, panel: Panel, frames: u64, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        while self.collector.rows(panel, "frames") < frames {
            if Instant::now() > deadline {
                let seen = self.collector.rows(panel, "frames");
                bail!("{} saw {seen} of {frames} frames in {patience:?}", panel.name());
            }
            if let Some(CollectorEvent::Fault { panel, reason, .. }) =
                self.collector.next_event(Duration::from_millis(20))
            {
                bail!("{}: {reason}", panel.name());
            }
        }
        Ok(())
    }

    /// Waits for so many programs to say good-bye, and ends the record.
    ///
    /// # Errors
    /// One did not, or broke off.
    pub fn end(self, programs: usize) -> anyhow::Result<Ended> {
        let deadline = Instant::now() + PATIENCE;
        let mut left = programs;
        while left > 0 {
            match self.collector.next_event(deadline.saturating_duration_since(Instant::now())) {
                Some(CollectorEvent::Gone { panel, clean: false, .. }) => bail!("{} broke off", panel.name()),
                Some(CollectorEvent::Gone { .. }) => left -= 1,
                Some(_) => {}
                None => bail!("{left} of {programs} programs did not say good-bye"),
            }
        }
        // Its files are whole once it is gone.
        drop(self.collector);
        Ok(Ended { folder: self.folder })
    }
}

/// A record that has ended.
pub struct Ended {
    folder: TempDir,
}

impl Ended {
    /// A table, such as `host.frames`.
    ///
    /// # Errors
    /// There is none.
    pub fn table(&self, name: &str) -> anyhow::Result<Columns> {
        Ok(read_table(self.folder.path(), name)?)
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Lets our client watch a port of loopback until it has reported so many frames; gives its summary.
///
/// # Errors
/// They did not come in time, or the client ended badly.
pub fn watch(port: u16, record: &Record, frames: u64, patience: Duration) -> anyhow::Result<Value> {
    let mut command = Command::new(program("triptych-client"));
    command.args(["--connect", &format!("127.0.0.1:{port}"), "--headless", "--json"]);
    command
        .args(["--connect-timeout", &patience.as_secs().to_string()])
        .args(record.arguments(Panel::Client));
    let mut client = Running::spawn_reading(command)?;
    record.frames(Panel::Client, frames, patience)?;
    client.signal(Signal::INT)?;
    let mut text = String::new();
    while let Ok(line) = client.line(Instant::now() + PATIENCE) {
        text.push_str(&line);
    }
    let status: ExitStatus = client.wait(PATIENCE)?;
    if !status.success() {
        bail!("triptych-client ended with {status}");
    }
    serde_json::from_str(&text).with_context(|| format!("the client's summary: {text:?}"))
}
