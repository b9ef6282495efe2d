//! Repository chores: `cargo xtask deps` keeps the walls between the crates, `cargo xtask fuzz` runs the fuzz targets.

mod deps;
mod fuzz;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about, after_help = "Example: cargo xtask deps")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Fails when a crate depends on what the design forbids, and names the edge
    Deps,
    /// Runs every fuzz target for a while; fails on the first input that breaks one
    Fuzz {
        /// Time for each target
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Only this target
        target: Option<String>,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().chore {
        Chore::Deps => deps::run(),
        Chore::Fuzz { seconds, target } => fuzz::run(seconds, target.as_deref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
