//! The figures of `docs/figures.md`, measured again: `cargo bench -p system-tests --bench figures -- client --rounds 5`.
//!
//! Whole programs in release builds, ourselves and the peer in turn within one run, raw samples kept as CSV under
//! `target/figures/`. Asserts nothing about time: it prints medians, ratios and their spread, and the machine's load.

mod client;
mod cpu;
mod host;
mod recording;
mod report;
mod screen;
mod stub;

use anyhow::{Context, bail};

/// What is asked for on the command line.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Which figures: all of them when empty.
    pub(crate) figures: Vec<String>,
    /// How often ourselves and the peer take turns.
    pub(crate) rounds: usize,
    /// Length of each measurement, in seconds.
    pub(crate) seconds: f64,
}

const FIGURES: [&str; 3] = ["client", "host", "recording"];

fn options() -> anyhow::Result<Options> {
    let mut options = Options { figures: Vec::new(), rounds: 5, seconds: 8.0 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number =
            || arguments.next().context("a number is missing")?.parse::<f64>().context("not a number");
        match argument.as_str() {
            "--bench" => {}
            "--rounds" => options.rounds = number()? as usize,
            "--seconds" => options.seconds = number()?,
            name if FIGURES.contains(&name) => options.figures.push(name.to_owned()),
            other => bail!("`{other}`: expected some of {FIGURES:?}, --rounds N, --seconds S"),
        }
    }
    if options.rounds == 0 || options.seconds.is_nan() || options.seconds <= 0.0 {
        bail!("--rounds and --seconds must be above 0");
    }
    Ok(options)
}

fn main() -> anyhow::Result<()> {
    let options = options()?;
    let wanted = |name: &str| options.figures.is_empty() || options.figures.iter().any(|f| f == name);
    println!("{}", report::machine());
    if wanted("host") {
        host::measure(&options).context("figure `host`")?;
    }
    if wanted("client") {
        client::measure(&options).context("figure `client`")?;
    }
    if wanted("recording") {
        recording::measure(&options).context("figure `recording`")?;
    }
    println!("{}", report::machine());
    Ok(())
}
