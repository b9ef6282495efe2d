//! Streaming guest: takes frames from a source, has them encoded in a process of its own, and speaks SPICE's
//! stream-device protocol on a port.

mod exit;
mod frames;
mod guest;
mod options;
mod outbox;
mod paint;
mod port;
mod recorder;
mod settings;
mod signals;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use options::{Cli, Command};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // Colours are for terminals, not for files.
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false)
        .init();
    let result = match cli.command {
        None => guest::run(&cli.stream),
        Some(Command::Encoders { json }) => list_encoders(json),
        Some(Command::Paint(options)) => paint::run(&options),
        Some(Command::EncoderWorker { parent }) => streaming::worker::run(parent).map_err(anyhow::Error::msg),
    };
    match result {
        Ok(()) => exit::Exit::Success.into(),
        Err(error) => {
            eprintln!("triptych-guest: {error:#}");
            exit::Exit::of(&error).into()
        }
    }
}

fn list_encoders(json: bool) -> anyhow::Result<()> {
    let list = streaming::encode::encoders()?;
    if json {
        println!("{}", serde_json::to_string_pretty(&list)?);
        return Ok(());
    }
    println!("{:<6} {:<12} {:<10} {:<9} missing: install", "codec", "encoder", "installed", "version");
    for entry in list {
        let (installed, remedy) = if entry.installed { ("yes", "") } else { ("no", entry.package) };
        let default = if entry.default { "" } else { " (name it with --encoder)" };
        let version = entry.version.unwrap_or_default();
        println!(
            "{:<6} {:<12} {installed:<10} {version:<9} {remedy}{default}",
            entry.codec.name(),
            entry.element
        );
    }
    Ok(())
}
