//! Measured SPICE client: receives a video stream, decodes it, shows it or not, and stamps each frame on its way.

mod client;
mod exit;
mod frames;
mod options;
mod picture;
mod recorder;
mod summary;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let options = options::Options::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // Colours are for terminals, not for files.
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false)
        .init();
    match client::run(&options) {
        Ok(()) => exit::Exit::Success.into(),
        Err(error) => {
            eprintln!("triptych-client: {error:#}");
            exit::Exit::of(&error).into()
        }
    }
}
