//! The operator's command: run studies, look at them.

mod args;
mod bar;
mod compare;
mod control;
mod doctor;
mod events;
mod export;
mod import;
mod inspect;
mod list;
mod locate;
mod plan;
mod record;
mod run;
mod show;
mod table;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Arguments, Command};

/// What the exit status means; also in `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Everything was done.
    Success = 0,
    /// A run failed, or something went wrong.
    Failure = 1,
    /// The command line or the study file is wrong.
    Usage = 2,
    /// A comparison found something worse.
    Worse = 3,
    /// The person stopped it.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .with_writer(std::io::stderr)
        // Colours are for terminals, not for files.
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .init();
    let done = match &arguments.command {
        Command::Run(options) => run::run(options),
        Command::Plan(options) => plan::plan(options),
        Command::Compare(options) => compare::compare(options),
        Command::Record(options) => record::record(options),
        Command::Note(options) => control::note(options),
        Command::Set(options) => control::set(options),
        Command::View(options) => show::view(options),
        Command::Show(options) => show::show(options),
        Command::Export(options) => export::export(options),
        Command::List(options) => list::list(options),
        Command::Import(options) => import::import(options),
        Command::Doctor(options) => doctor::doctor(options),
    };
    done.unwrap_or_else(|error| {
        // Faults of a study file already say "file:line:column: error:".
        if let Some(faults) = error.downcast_ref::<bench::Faults>() {
            eprintln!("{faults}");
            return Exit::Usage;
        }
        // Who reads the output has seen enough of it, as `head` has.
        if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
            return Exit::Success;
        }
        eprintln!("triptych: {error:#}");
        if error.is::<locate::NotFound>()
            || error.is::<run::Unreadable>()
            || error.is::<agent::catalogue::ChoiceError>()
            || error.is::<compare::Wrong>()
        {
            Exit::Usage
        } else {
            Exit::Failure
        }
    })
    .into()
}
