//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use recording::Address;
use recording::spec::Panel;

/// Receives a video stream over SPICE, decodes and shows it, and stamps each frame on its way.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  triptych-client --connect 127.0.0.1:5910 --window\n  \
                  triptych-client --connect 127.0.0.1:5910 --headless --duration 10 --json\n\n\
                  Exit codes: 0 ok, 1 failure while running, 2 usage, 3 something is not installed."
)]
pub(crate) struct Options {
    /// The SPICE server
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) connect: String,
    /// File whose first line is the server's password
    #[arg(long, value_name = "FILE")]
    pub(crate) ticket_file: Option<PathBuf>,
    /// Decode, but show nothing [default unless DISPLAY is set]
    #[arg(long, conflicts_with = "window")]
    pub(crate) headless: bool,
    /// Show the stream in a window on the X display that DISPLAY names
    #[arg(long)]
    pub(crate) window: bool,
    /// End after so many seconds [default: run until stopped]
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) duration: Option<Duration>,
    /// How long to wait for the server to offer a display, seconds
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    pub(crate) connect_timeout: Duration,
    /// Print the summary as JSON on stdout when it ends
    #[arg(long)]
    pub(crate) json: bool,
    /// Report to this collector (unix:PATH or tcp:ADDRESS:PORT) and end with it
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) collector: Option<Address>,
    /// The panel to report as: guest, host or client
    #[arg(long, default_value = "client")]
    pub(crate) panel: Panel,
}

impl Options {
    /// The display to show on, if any.
    ///
    /// # Errors
    /// A window is asked for, but there is no display.
    pub(crate) fn display(&self) -> anyhow::Result<Option<String>> {
        let display = std::env::var("DISPLAY").ok().filter(|d| !d.is_empty());
        match (self.window, self.headless) {
            (true, _) => {
                display.map(Some).context("--window needs an X display: set DISPLAY, or run with --headless")
            }
            (_, true) => Ok(None),
            _ => Ok(display),
        }
    }

    /// The server's password.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn ticket(&self) -> anyhow::Result<Option<String>> {
        let Some(path) = &self.ticket_file else { return Ok(None) };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("the ticket file {} cannot be read", path.display()))?;
        Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: Option<f64> = text.parse().ok().filter(|s| *s > 0.0 && *s <= 1e9);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "write seconds above 0".into())
}
