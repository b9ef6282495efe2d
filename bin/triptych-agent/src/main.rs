//! The agent of a machine: samples it, reads the probes of its programs, and reports to a collector.

mod list;
mod options;
mod run;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::options::{Command, Options};

/// What the exit status means; also in `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// It was asked to end, and everything was sent.
    Success = 0,
    /// Something failed.
    Failure = 1,
    /// It was asked for something that cannot be.
    Usage = 2,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // Colours are for terminals, not for files.
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false)
        .init();
    let done = match &options.command {
        Command::Run(run) => run::run(run),
        Command::List(list) => list::list(list),
    };
    done.unwrap_or_else(|error| {
        // Who reads the output has seen enough of it, as `head` has.
        if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
        {
            return Exit::Success;
        }
        eprintln!("triptych-agent: {error:#}");
        if error.is::<agent::catalogue::ChoiceError>() { Exit::Usage } else { Exit::Failure }
    })
    .into()
}
