//! `triptych import`: records of other programs into a study. `docs/import.md` has the formats and what is assumed.

use std::io::{IsTerminal, Write, stdout};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use recording::facts::{read_plan, read_run, write_run};
use recording::import::{
    CsvOptions, Import, ImportError, Options, Source, Summary, Survey, TimeColumn, set_window, survey,
};
use recording::import::{Format, extract::Extractors};
use recording::spec::{Level, Levels, Panel};

use crate::Exit;
use crate::run::watch_signals;
use crate::show;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  triptych import study_keyframes/matrix.csv --into keyframes
  triptych import results --extract extract.toml --into memfree
  triptych import load.csv --time at:ms --panel guest --into load

What is imported, and what is assumed where the files do not say it: docs/import.md.
An import adds all of its runs or none; Ctrl-C leaves the study as it was.")]
pub(crate) struct Arguments {
    /// `.rec` files, `matrix.csv`, results trees, CSV files, or folders with such in them.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Folder of the study: a new one, or one that was imported before.
    #[arg(long, value_name = "STUDY")]
    into: PathBuf,
    /// Take the files to be of this format, instead of guessing it from what they hold.
    #[arg(long, value_enum)]
    format: Option<Named>,
    /// Results trees: TOML file that says where the numbers stand.
    #[arg(long, value_name = "FILE")]
    extract: Option<PathBuf>,
    /// CSV: column that stamps the rows, and its unit (s, ms, us, ns, rfc3339).
    #[arg(long, value_name = "COLUMN[:UNIT]")]
    time: Option<TimeColumn>,
    /// CSV: whose numbers they are.
    #[arg(long, default_value = "host")]
    panel: Panel,
    /// CSV: name of the table [default: the file's]
    #[arg(long)]
    table: Option<String>,
    /// CSV: what stands between fields [default: found out]
    #[arg(long, value_parser = delimiter)]
    delimiter: Option<u8>,
    /// A setting of every run of this import; may be given several times.
    #[arg(long = "set", value_name = "NAME=LEVEL", value_parser = setting)]
    settings: Vec<(String, Level)>,
    /// Import also what the study has already.
    #[arg(long)]
    again: bool,
    /// Print what was imported as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Named {
    /// `.rec` files or a `matrix.csv` that names them.
    Rec,
    /// Folders with `settings` and `exit_code`.
    Results,
    /// CSV with a header.
    Csv,
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [byte] if byte.is_ascii() && !byte.is_ascii_alphanumeric() && *byte != b'"' => Ok(*byte),
        b"\\t" | b"tab" => Ok(b'\t'),
        _ => Err("one ASCII character that is no letter, digit or quote, or `tab`".into()),
    }
}

fn setting(text: &str) -> Result<(String, Level), String> {
    match text.split_once('=') {
        Some((name, level)) if !name.is_empty() => Ok((name.into(), recording::import::level(level))),
        _ => Err("NAME=LEVEL is expected".into()),
    }
}

pub(crate) fn import(arguments: &Arguments) -> anyhow::Result<Exit> {
    let options = options(arguments)?;
    let cancel = watch_signals()?;
    let mut found = survey(&arguments.paths, &options)?;
    let mut import = Import::begin(&arguments.into, arguments.again, found.sources.len())?;
    let bar = bar(found.sources.len());
    let mut first_error = None;
    let mut imported = 0;
    for source in std::mem::take(&mut found.sources) {
        if cancel.load(Ordering::Relaxed) {
            drop(import);
            bar.finish_and_clear();
            eprintln!("interrupted: nothing was imported; the same command begins again");
            return Ok(Exit::Interrupted);
        }
        bar.set_message(source.path.display().to_string());
        match one(&source, &options, &mut import) {
            Ok(()) => imported += 1,
            // A study that has it already, or a disk that is full, ends the import; a file that is broken does not.
            Err(error @ ImportError::Input { .. }) => {
                found.skip_source(&error);
                bar.suspend(|| eprintln!("{error}"));
                first_error.get_or_insert(error);
            }
            Err(error) => return Err(error.into()),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if let (0, Some(error)) = (imported, first_error) {
        return Err(error.into());
    }
    let summary = import.commit(&found)?;
    derive(&summary)?;
    report(arguments, &found, &summary)?;
    Ok(Exit::Success)
}

fn options(arguments: &Arguments) -> anyhow::Result<Options> {
    let settings: Levels = arguments.settings.iter().cloned().collect();
    let extractors = match &arguments.extract {
        Some(file) => Extractors::read(file)?,
        None => Extractors::none(),
    };
    Ok(Options {
        format: arguments.format.map(|format| match format {
            Named::Rec => Format::Rec,
            Named::Results => Format::Results,
            Named::Csv => Format::Csv,
        }),
        csv: CsvOptions {
            delimiter: arguments.delimiter,
            time: arguments.time.clone(),
            panel: arguments.panel,
            table: arguments.table.clone(),
        },
        extractors,
        settings,
    })
}

/// One run into the import. Its folder is whole then, but not in the study yet. Its panels' clocks are found from the frames
/// that they share, where it has some.
fn one(source: &Source, options: &Options, import: &mut Import) -> Result<(), ImportError> {
    let dir = import.add(source.read(options)?)?;
    let path = dir.join("run.toml");
    let mut facts = read_run(&path)?;
    let mut found = false;
    for join in import.joins() {
        match store::align_by_frames(&dir, &mut facts, &join) {
            Ok(aligned) => found |= aligned.iter().any(|a| a.frames > 0),
            Err(error) => tracing::warn!("{}: its clocks stay unknown: {error}", source.path.display()),
        }
    }
    if found {
        write_run(&path, &facts)?;
        set_window(&dir)?;
    }
    Ok(())
}

/// What follows from the new runs: their joined frames, and the index over the study.
fn derive(summary: &Summary) -> anyhow::Result<()> {
    let plan = read_plan(&summary.study.join("plan.toml"))?;
    if !plan.subject.joins.is_empty() {
        for run in &summary.runs {
            if let Err(error) = store::summarise(&summary.study.join("runs").join(&run.id), &plan) {
                eprintln!("{}: its frames cannot be joined: {error}", run.id);
            }
        }
    }
    store::Study::open(&summary.study)?.runs()?;
    Ok(())
}

fn bar(sources: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() || sources < 2 {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(sources as u64);
    let style = ProgressStyle::with_template("import  {bar:16}  {pos}/{len}  {eta} left  {wide_msg}");
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("━╸─"));
    }
    bar
}

/// More runs than these are told by a line each, and their skipped rows by a count.
const MANY: usize = 8;

fn report(arguments: &Arguments, found: &Survey, summary: &Summary) -> anyhow::Result<()> {
    if arguments.json {
        writeln!(stdout(), "{}", serde_json::to_string_pretty(summary)?)?;
        return Ok(());
    }
    for run in &summary.runs {
        let rows: usize = run.tables.values().sum();
        let skipped: u64 = run.skipped.values().sum();
        let skipped = if skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
        let line = format!("{}  {} tables, {rows} rows{skipped}", run.id, run.tables.len());
        writeln!(stdout(), "{line}  {}", run.source.display())?;
        // Of many runs, each says for itself in `run.toml` what it lacks.
        let told = if summary.runs.len() > MANY { 0 } else { MANY };
        for (what, n) in run.skipped.iter().take(told) {
            eprintln!("  {n} × {what}");
        }
    }
    for (what, n) in found.skips.clone().into_facts() {
        eprintln!("{n} × {what}");
    }
    for file in &summary.missing {
        eprintln!("missing: {}", file.display());
    }
    let (runs, points) = (summary.runs.len(), summary.new_points);
    writeln!(stdout(), "{runs} runs, {points} new points → {}", summary.study.display())?;
    writeln!(stdout(), "{}", show::look_at(&summary.study))?;
    Ok(())
}
