//! The command line.

use std::path::PathBuf;

use agent::catalogue::Choice;
use clap::{Args, Parser, Subcommand};
use recording::Address;
use recording::spec::Panel;

/// Records what happens on a guest, host or client: samples the machine, reads the probes of its programs, and reports to
/// a collector.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  triptych-agent list                                                  what can be sampled here
  triptych-agent run --panel host --collector unix:/run/triptych.sock
  triptych-agent run --panel guest --collector port:/dev/virtio-ports/org.triptych.agent --rate 10
  triptych-agent run --panel host --collector tcp:10.0.0.1:7381 --token-file token \\
      --sample process=name:qemu-system-x86 --sample qmp=/run/qmp.sock@1

Exit status: 0 it was asked to end; 1 something failed; 2 wrong command line."
)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Report to a collector until told to end; a lost connection is made again, and nothing that can be kept is lost.
    Run(Run),
    /// Say what can be sampled on this machine, with units, source and cost.
    List(List),
}

#[derive(Args)]
pub(crate) struct Sampling {
    /// Sample this too: NAME, NAME=TARGET for what needs one, each with @HZ for a rate of its own; may be repeated
    #[arg(long = "sample", value_name = "NAME[=TARGET][@HZ]")]
    pub(crate) samplers: Vec<Choice>,
    /// Sample nothing but what --sample names
    #[arg(long)]
    pub(crate) no_defaults: bool,
}

#[derive(Args)]
pub(crate) struct Run {
    /// The collector: unix:PATH, tcp:ADDRESS:PORT, vsock:CID:PORT, or port:/dev/virtio-ports/NAME in a guest without network
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) collector: Address,
    /// The panel whose machine this is: guest, host or client
    #[arg(long)]
    pub(crate) panel: Panel,
    /// File whose first line is the collector's token
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
    /// Samples per second, 0.01 to 100
    #[arg(long, value_name = "HZ", default_value = "2", value_parser = rate)]
    pub(crate) rate: f64,
    /// Tells several agents of one panel apart
    #[arg(long, value_name = "NAME", default_value = recording::collector::AGENT)]
    pub(crate) source: String,
    /// Folder of other programs' probes, or `none` [default: $TRIPTYCH_PROBES, or /dev/shm/triptych-UID]
    #[arg(long, value_name = "DIR")]
    pub(crate) probes: Option<PathBuf>,
    /// Folder for what could not be sent yet, or `none` [default: /var/lib/triptych for root, else
    /// $XDG_STATE_HOME/triptych or ~/.local/state/triptych]
    #[arg(long, value_name = "DIR")]
    pub(crate) spool: Option<PathBuf>,
    /// Most MiB that are kept while they cannot be sent
    #[arg(long, value_name = "MIB", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) keep: u32,
}

#[derive(Args)]
#[command(after_help = "Example:
  triptych-agent list --json --sample process=pid:1")]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) sampling: Sampling,
    /// Print as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    agent::catalogue::rate(text)
        .ok_or_else(|| format!("'{text}' is no rate: write a number from 0.01 to 100"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }
}
