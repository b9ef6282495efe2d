//! Repository chores: `cargo xtask deps` keeps the walls between the crates, `cargo xtask fuzz` runs the fuzz targets.

mod deps;

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
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().chore {
        Chore::Deps => deps::run(),
    }
}
