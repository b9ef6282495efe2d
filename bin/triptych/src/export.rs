//! `triptych export`: runs for other programs.

use std::io::{IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use indicatif::{ProgressBar, ProgressStyle};
use recording::export::{Clock, ExportError, Exported, Format, Progress, Request, Source, export as write};
use recording::facts::{StudyFacts, read_plan};
use store::Study;

use crate::Exit;
use crate::args::{self, ExportClock, ExportFormat};
use crate::locate::locate;
use crate::run::{quoted, watch_signals};

pub(crate) fn export(options: &args::Export) -> anyhow::Result<Exit> {
    let (runs, plan) = chosen(options)?;
    let request = Request {
        runs,
        plan,
        format: match options.format {
            ExportFormat::Csv => Format::Csv,
            ExportFormat::Jsonl => Format::JsonLines,
            ExportFormat::Parquet => Format::Parquet,
            ExportFormat::Perfetto => Format::Perfetto,
        },
        out: options.out.clone(),
        tables: options.table.clone(),
        clock: match options.clock {
            ExportClock::Collector => Clock::Collector,
            ExportClock::Panel => Clock::Panel,
        },
        force: options.force,
    };
    let stop = watch_signals()?;
    let exported = match with_bar(&request, &stop) {
        Err(error @ ExportError::Interrupted { .. }) => {
            eprintln!("{error}");
            return Ok(Exit::Interrupted);
        }
        other => other?,
    };
    report(options, &exported)
}

/// The runs that are meant, with their responses where the study gives any.
fn chosen(options: &args::Export) -> anyhow::Result<(Vec<Source>, Option<StudyFacts>)> {
    let path = Path::new(&options.study);
    if path.join("run.toml").is_file() && !path.join("plan.toml").is_file() {
        anyhow::ensure!(options.run.is_empty(), "--run chooses runs of a study; {} is a run", path.display());
        // A run that still lies in its study is understood better.
        let path = path.canonicalize()?;
        let plan = path.ancestors().nth(2).and_then(|study| read_plan(&study.join("plan.toml")).ok());
        return Ok((vec![Source { dir: path, responses: [].into() }], plan));
    }
    let study = Study::open(&locate(&options.study, &options.results)?)?;
    for id in &options.run {
        // Says what is wrong with a run that the study does not have.
        study.run(id)?;
    }
    let wanted = |id: &String| options.run.is_empty() || options.run.contains(id);
    let mut runs: Vec<_> = study
        .runs()?
        .into_iter()
        .filter(|run| wanted(&run.facts.id))
        .map(|run| Source { dir: run_dir(&study, &run.facts.id), responses: run.responses })
        .collect();
    // Their facts cannot be read: the export says why.
    let broken = study.broken().into_iter().filter(|b| wanted(&b.id));
    runs.extend(broken.map(|b| Source { dir: run_dir(&study, &b.id), responses: [].into() }));
    anyhow::ensure!(!runs.is_empty(), "{} has no run yet", study.dir.display());
    Ok((runs, Some(study.plan)))
}

fn run_dir(study: &Study, id: &str) -> PathBuf {
    study.dir.join("runs").join(id)
}

/// Exports with a bar on a terminal.
fn with_bar(request: &Request, stop: &AtomicBool) -> Result<Exported, ExportError> {
    if !std::io::stderr().is_terminal() {
        return write(request, stop, &mut |_| {});
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:24}  {bytes}/{total_bytes}  {eta} left") {
        bar.set_style(style.progress_chars("━╸─"));
    }
    let exported = write(request, stop, &mut |Progress { done, total }| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    exported
}

fn report(options: &args::Export, exported: &Exported) -> anyhow::Result<Exit> {
    for left_out in &exported.left_out {
        eprintln!("left out: {}: {}", left_out.what, left_out.why);
    }
    if options.json {
        writeln!(stdout(), "{}", serde_json::to_string_pretty(exported)?)?;
    } else {
        let bytes: u64 = exported.files.iter().map(|f| f.bytes).sum();
        let torn = exported.files.iter().filter(|f| !f.complete).count();
        let torn = if torn > 0 { format!(", {torn} of them without a torn end") } else { String::new() };
        writeln!(
            stdout(),
            "{} files, {:.1} MB{torn} → {}",
            exported.files.len(),
            bytes as f64 / 1e6,
            quoted(&options.out)
        )?;
    }
    // What a trace cannot show is no failure; a table that cannot be read is.
    let failed = exported.left_out.iter().any(|l| l.why != recording::export::NOT_SHOWN);
    Ok(if failed { Exit::Failure } else { Exit::Success })
}
