//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use recording::Address;
use recording::spec::Panel;
use spice_server::Access;

/// Serves a guest's video stream over SPICE and stamps each frame on its way.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  triptych-host --stream unix:stream.sock --spice 127.0.0.1:5910 &\n  \
                  triptych-guest --port unix:stream.sock --source scene:video &\n  \
                  triptych-client --connect 127.0.0.1:5910\n\n\
                  Exit codes: 0 ok, 1 failure while running, 2 usage."
)]
pub(crate) struct Options {
    /// Socket to listen on for the guest, or for QEMU's '-chardev socket'; one guest at a time
    #[arg(long, value_name = "unix:PATH", value_parser = unix_path)]
    pub(crate) stream: PathBuf,
    /// Where SPICE clients connect; port 0 takes any free one; other addresses than loopback need a ticket
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub(crate) spice: SocketAddr,
    /// File whose first line is the password that clients must give [default: none needed]
    #[arg(long, value_name = "FILE")]
    pub(crate) ticket_file: Option<PathBuf>,
    /// Print one line of JSON on stdout when ready: {"spice_port":N}
    #[arg(long)]
    pub(crate) json: bool,
    /// Print a line of JSON on stdout for each guest and client that comes or goes, and totals every second and on SIGUSR1
    #[arg(long)]
    pub(crate) stats: bool,
    /// Report to this collector (unix:PATH or tcp:ADDRESS:PORT) and end with it
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) collector: Option<Address>,
    /// The panel to report as: guest, host or client
    #[arg(long, default_value = "host")]
    pub(crate) panel: Panel,
    /// Report on the machine as a whole too, not only on this program
    #[arg(long)]
    pub(crate) machine: bool,
}

impl Options {
    /// Who may connect.
    pub(crate) fn access(&self) -> anyhow::Result<Access> {
        let Some(path) = &self.ticket_file else { return Ok(Access::Open) };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("the ticket file {} cannot be read", path.display()))?;
        Ok(Access::Ticket(text.lines().next().unwrap_or_default().to_owned()))
    }
}

fn unix_path(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => Ok(path.into()),
        _ => Err("write it as unix:PATH, for instance unix:stream.sock".into()),
    }
}
