//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Studies what happens in a virtual machine on three panels at once: guest, host and client.
#[derive(Debug, Parser)]
#[command(
    name = "triptych",
    version,
    after_help = "Examples:
  triptych doctor                              what is missing on this machine
  triptych run studies/quickstart.toml --view  run a study, then look at it
  triptych view latest                         look at the study run last

Exit status: 0 done; 1 a run failed or something went wrong; 2 wrong command line or study file; 130 interrupted."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a study, or go on with one.
    Run(Run),
    /// Print what a study would run, how long it takes, and which effects it could resolve; run nothing.
    Plan(Plan),
    /// Say what differs between studies, or between points of one: effects with intervals, and a verdict on each.
    Compare(crate::compare::Compare),
    /// Record what agents and programs report, without a study file.
    Record(crate::record::Record),
    /// Add a remark to the record under way.
    Note(crate::control::Note),
    /// Change a setting of a program while it is recorded.
    Set(crate::control::Set),
    /// Serve the page of a study on loopback.
    View(View),
    /// Print the table of a study, or what is in a run or a table's file.
    Show(Show),
    /// Write runs for other programs: CSV, JSON Lines, Parquet, or a trace for Perfetto.
    Export(Export),
    /// List the studies of a results folder.
    List(List),
    /// Read records that other programs made into a study.
    Import(crate::import::Arguments),
    /// Say what is missing on this machine, and which package brings it.
    Doctor(Doctor),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  triptych run studies/quickstart.toml
  triptych run studies/quickstart.toml --dry-run --seed 42
  triptych run --resume latest

Ctrl-C ends the run under way, keeps what was recorded and prints the command to go on.")]
pub(crate) struct Run {
    /// Study file; see docs/studies.md.
    #[arg(required_unless_present = "resume", conflicts_with = "resume")]
    pub(crate) study: Option<PathBuf>,
    /// Folder for the study's folder.
    #[arg(long, default_value = "results", value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Go on with a study that is not done: its folder, its name below --out, or `latest`.
    #[arg(long, value_name = "STUDY")]
    pub(crate) resume: Option<String>,
    /// Seed of the order of runs, instead of the file's or a fresh one.
    #[arg(long, conflicts_with = "resume", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub(crate) seed: Option<u64>,
    /// Print what would be run, in order, and run nothing.
    #[arg(long, conflicts_with = "resume")]
    pub(crate) dry_run: bool,
    /// Do a run that something outside disturbed again, so often at most; earlier attempts stay in superseded/.
    #[arg(long, value_name = "TIMES", default_value = "0", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) retry_disturbed: u32,
    /// End the study with the first run that fails; --resume goes on with it.
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Write what happens to this file as JSON Lines while it happens; `-` is stdout, for nothing else then.
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,
    /// Serve the study's page afterwards, until Ctrl-C (when stderr is a terminal).
    #[arg(long)]
    pub(crate) view: bool,
    /// Print the result as JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  triptych plan studies/quickstart.toml
  triptych plan mystudy.toml --like latest     with the spread and the times of a study that was run

An effect is the difference between two levels of a factor, seen at 95 % with a chance of 80 %.")]
pub(crate) struct Plan {
    /// Study file; see docs/studies.md.
    pub(crate) study: PathBuf,
    /// A study with the same responses, for the spread of its runs and the time that one takes: its folder, its name below
    /// --results, or `latest`.
    #[arg(long, value_name = "STUDY")]
    pub(crate) like: Option<String>,
    /// Folder of the studies.
    #[arg(long, default_value = "results", value_name = "DIR")]
    pub(crate) results: PathBuf,
    /// Seed of the design and of the order of runs, instead of the file's or a fresh one.
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub(crate) seed: Option<u64>,
    /// Print as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  triptych view latest --listen 127.0.0.1:8080")]
pub(crate) struct View {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Address to serve at; port 0 is any free one [default: 127.0.0.1:7380, or any free port where that is taken]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// Secret that the browser must know; required when not on loopback.
    #[arg(long, env = "TRIPTYCH_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  triptych show latest --intervals
  triptych show latest --run r0001-p03-k1
  triptych show results/halves-20261124T091500Z/runs/r0001-p03-k1/guest.frames.parquet --json")]
pub(crate) struct Show {
    /// A study's folder, its name below --results, or `latest`; a run's folder; or a table's file.
    #[arg(default_value = "latest", value_name = "PATH")]
    pub(crate) path: String,
    /// Folder of the studies.
    #[arg(long, default_value = "results", value_name = "DIR")]
    pub(crate) results: PathBuf,
    /// Show what is in this run of the study.
    #[arg(long, value_name = "ID")]
    pub(crate) run: Option<String>,
    /// Show the tables and indicators of all runs of the study.
    #[arg(long, conflicts_with = "run")]
    pub(crate) tables: bool,
    /// Show the 95 % interval of every response, not only of percentages.
    #[arg(long)]
    pub(crate) intervals: bool,
    /// Show every response, however wide the table.
    #[arg(long)]
    pub(crate) all: bool,
    /// Print as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  triptych export latest --format csv -o frames --table '*.frames'
  triptych export latest --run r0001-p03-k1 --format perfetto -o traces

Files are described in docs/export.md. Ctrl-C leaves only whole files.")]
pub(crate) struct Export {
    /// A study's folder, its name below --results, or `latest`; or one run's folder.
    #[arg(default_value = "latest")]
    pub(crate) study: String,
    /// Folder of the studies.
    #[arg(long, default_value = "results", value_name = "DIR")]
    pub(crate) results: PathBuf,
    /// What to write.
    #[arg(long, value_enum)]
    pub(crate) format: ExportFormat,
    /// Folder to write into.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Only this run; may be given several times.
    #[arg(long, value_name = "ID")]
    pub(crate) run: Vec<String>,
    /// Only tables of this name, with `*` and `?`; may be given several times.
    #[arg(long, value_name = "GLOB")]
    pub(crate) table: Vec<String>,
    /// The clock of instants: the collector's, or each panel's own as recorded.
    #[arg(long, value_enum, default_value_t = ExportClock::Collector)]
    pub(crate) clock: ExportClock,
    /// Write into a folder that is not empty; files of the same name are replaced.
    #[arg(long)]
    pub(crate) force: bool,
    /// Print what was written as JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// One CSV file a table.
    Csv,
    /// One file of JSON objects, one a line, for each table.
    Jsonl,
    /// One Parquet file a table.
    Parquet,
    /// One trace a run, for ui.perfetto.dev.
    Perfetto,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportClock {
    /// The collector's: instants of all panels can be compared.
    Collector,
    /// Each panel's own, as recorded.
    Panel,
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// A study's folder, its name below --results, or `latest`.
    #[arg(default_value = "latest")]
    pub(crate) study: String,
    /// Folder of the studies.
    #[arg(long, default_value = "results", value_name = "DIR")]
    pub(crate) results: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  triptych list --json")]
pub(crate) struct List {
    /// Folder of the studies.
    #[arg(long, default_value = "results", value_name = "DIR")]
    pub(crate) results: PathBuf,
    /// Print as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  triptych doctor")]
pub(crate) struct Doctor {
    /// Print as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_run_takes_a_file_or_a_study_to_resume() {
        for (line, accepted) in [
            ("triptych run", false),
            ("triptych run x.toml", true),
            ("triptych run --resume latest", true),
            ("triptych run x.toml --resume latest", false),
            ("triptych run --resume latest --seed 3", false),
            ("triptych run x.toml --seed -3", false),
        ] {
            assert_eq!(Arguments::try_parse_from(line.split(' ')).is_ok(), accepted, "{line}");
        }
    }
}
